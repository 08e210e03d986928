--! Previous: sha1:d821fad96d4e24ee7df33a07fcb52b588927f0f4
--! Hash: sha1:241c701d749a67ed80713cd68ca550bf20a02b03
--! Message: Imports that meet others

--! Included functions/begin_import.sql
create or replace function filestore.begin_import(
  mount_key text,
  nodes     regclass,
  versions  regclass,
  entries   regclass,
  take_rest boolean,
  batch     integer
)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  mount_id  bigint;
  given     text[];
  faults    bigint;
  staged    bigint;
  example   record;
  import_id bigint;
begin
  perform filestore.require_read_committed('filestore.import_nodes');
  perform filestore.check_limit('batch', batch);
  mount_id := filestore.find_mount(begin_import.mount_key);
  -- Of two calls for one mount, the later one goes on. It plans when the plan or the batch of the other one has ended. An
  -- import of entries only locks another row, because it runs beside one of nodes.
  perform
  from filestore.backend_mounts m
  where m.id = mount_id
    and begin_import.nodes is not null
  for no key update;
  perform
  from filestore.nodes r
  where r.root_of_mount_id = mount_id
    and begin_import.nodes is null
  for no key update;
  update filestore.imports i
  set finished_at = date_trunc('milliseconds', clock_timestamp())
  where i.backend_mount_id = mount_id
    and i.takes_nodes = (begin_import.nodes is not null)
    and i.finished_at is null;
  insert into filestore.imports (backend_mount_id, takes_nodes)
  values (mount_id, begin_import.nodes is not null)
  returning id into import_id;
  given := filestore.plan_import(begin_import.mount_key, begin_import.nodes, begin_import.versions, begin_import.entries);

  select count(*)
  into faults
  from filestore.import_faults();
  if faults > 0 and take_rest is not true then
    select *
    into example
    from filestore.import_faults()
    limit 1;
    staged := (select count(*) from pg_temp.filestore_import_nodes)
      + (select count(*) from pg_temp.filestore_import_versions)
      + (select count(*) from pg_temp.filestore_import_entries);
    raise exception '% of % rows cannot be imported, such as % in %: %', faults, staged, coalesce(example.id::text, 'a row'), example.staged, example.problem
      using errcode    = 'FS409',
            constraint = 'import_refused',
            hint       = 'Run select * from filestore.check_import with the same arguments to list them. Correct them, or pass take_rest => true to import the others. Nothing was imported.';
  end if;

  update filestore.imports i
  set given_columns = given,
      refused       = faults
  where i.id = import_id;

  -- The nodes as they are before they change, for their history.
  create temporary table filestore_import_old as
  select n.*
  from pg_temp.filestore_import_nodes t
  join filestore.nodes n on n.id = t.id
  where t.action in ('move', 'change')
    and t.fault is null;
  create index on pg_temp.filestore_import_nodes (id);

  perform filestore.reserve_ids('nodes', (select max(t.id) from pg_temp.filestore_import_nodes t where t.fault is null));
  perform filestore.reserve_ids('journal_entries', (select max(t.id) from pg_temp.filestore_import_entries t where t.fault is null));

  -- The trees of the mount are known from the last moment on at which the known history of a node begins, unless it begins
  -- with version 1, and at the creation of the node.
  update filestore.backend_mounts m
  set history_horizon = greatest(m.history_horizon, h.horizon)
  from (
    select max(coalesce(v.first_from, t.updated_at)) as horizon
    from pg_temp.filestore_import_nodes t
    left join (
      select o.id, min(o.version) as first_version, min(o.valid_from) as first_from
      from pg_temp.filestore_import_versions o
      where o.fault is null
      group by o.id
    ) v on v.id = t.id
    where t.fault is null
      and t.action in ('create', 'move', 'change')
      and case
        when t.known_version is null then coalesce(v.first_version, t.version) > 1 or coalesce(v.first_from, t.updated_at) > t.created_at
        else t.version > t.known_version + 1::bigint and coalesce(v.first_version, t.version) > t.known_version
      end
  ) h
  where m.id = mount_id
    and h.horizon is not null;
  return import_id;
end
$$;

comment on function filestore.begin_import(text, regclass, regclass, regclass, boolean, integer) is
  'Internal: Plans an import, and returns its number. FS409 when rows cannot be imported, unless the others shall be.';

revoke all on function filestore.begin_import(text, regclass, regclass, regclass, boolean, integer) from public;
--! EndIncluded functions/begin_import.sql

--! Included functions/place_by_paths.sql
create or replace function filestore.place_by_paths(mount_id bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join each node with its directory by a nested loop.
set enable_nestloop = off
as $$
declare
  root_id bigint := (select n.id from filestore.nodes n where n.root_of_mount_id = mount_id);
  begins  timestamptz[] := array(select i.started_at from filestore.imports i where i.backend_mount_id = mount_id and i.takes_nodes and i.nodes > 0);
begin
  -- The root of the staged tree is that of the mount.
  delete from pg_temp.filestore_import_raw r
  where r.path = '';

  -- Tombstones that nothing tells apart, at this call or at a later one.
  update pg_temp.filestore_import_raw r
  set is_repeated = true
  from (
    select o.path, o.kind, o.deleted_at
    from pg_temp.filestore_import_raw o
    where o.id is null
      and not o.live
    group by o.path, o.kind, o.deleted_at
    having count(*) > 1
  ) d
  where r.id is null
    and not r.live
    and r.path = d.path
    and r.kind = d.kind
    and r.deleted_at = d.deleted_at;

  update pg_temp.filestore_import_raw r
  set id = n.id
  from filestore.nodes n
  where r.id is null
    and n.backend_mount_id = mount_id
    and n.path = r.path
    and n.live
    and r.live;
  update pg_temp.filestore_import_raw r
  set id = n.id
  from filestore.nodes n
  where r.id is null
    and n.backend_mount_id = mount_id
    and n.path = r.path
    and n.kind = r.kind
    and n.deleted_at = r.deleted_at
    and not n.live
    and not r.live
    and not r.is_repeated;
  -- A tombstone without a moment is the one that was deleted last.
  update pg_temp.filestore_import_raw r
  set id = f.id
  from (
    select distinct on (o.number) o.number, n.id
    from pg_temp.filestore_import_raw o
    join filestore.nodes n on n.path = o.path and n.kind = o.kind
    where o.id is null
      and not o.live
      and not o.has_moment
      and not o.is_repeated
      and n.backend_mount_id = mount_id
      and not n.live
      and not exists (
        select
        from pg_temp.filestore_import_raw t
        where t.id = n.id
      )
    order by o.number, n.deleted_at desc, n.id desc
  ) f
  where r.number = f.number;
  -- A node without a live row has been deleted by the first tombstone after its creation. What a service created after the
  -- last import is another node. A node without moments was created at the moment of its import.
  update pg_temp.filestore_import_raw r
  set id = f.id
  from (
    select distinct on (n.id) n.id, o.number
    from pg_temp.filestore_import_raw o
    join filestore.nodes n on n.path = o.path and n.kind = o.kind
    where o.id is null
      and not o.live
      and not o.is_repeated
      and n.backend_mount_id = mount_id
      and n.live
      and n.created_at <= (select max(b.moment) from unnest(begins) b (moment))
      and (n.created_at = any (begins) or (o.has_moment and o.deleted_at >= n.created_at))
      and not exists (
        select
        from pg_temp.filestore_import_raw l
        where l.path = n.path
          and l.live
      )
      and not exists (
        select
        from pg_temp.filestore_import_raw t
        where t.id = n.id
      )
    order by n.id, o.deleted_at, o.number
  ) f
  where r.number = f.number;
  -- A tombstone that is live again, and not another node at its path: it was created at the same moment.
  update pg_temp.filestore_import_raw r
  set id = f.id
  from (
    select distinct on (o.number) o.number, n.id
    from pg_temp.filestore_import_raw o
    join filestore.nodes n on n.path = o.path and n.kind = o.kind and n.created_at = o.born_at
    where o.id is null
      and o.live
      and n.backend_mount_id = mount_id
      and not n.live
      and not exists (
        select
        from pg_temp.filestore_import_raw t
        where t.id = n.id
      )
    order by o.number, n.deleted_at desc, n.id desc
  ) f
  where r.number = f.number;
  update pg_temp.filestore_import_raw r
  set id = nextval(pg_get_serial_sequence('filestore.nodes', 'id'))
  where r.id is null
    and not r.is_repeated;

  update pg_temp.filestore_import_raw r
  set is_repeated = true
  where r.id in (
    select o.id
    from pg_temp.filestore_import_raw o
    group by o.id
    having count(*) > 1
  );
  -- A tombstone is in the live directory at its path, or else in the one that was deleted last.
  create temporary table filestore_import_placed as
  with directories as materialized (
    select distinct on (d.path) d.path, d.id
    from pg_temp.filestore_import_raw d
    where d.kind = 'directory'
    order by d.path, d.live desc, d.deleted_at desc, d.number desc
  ),
  others as materialized (
    select distinct on (d.path) d.path, d.id
    from filestore.nodes d
    where d.backend_mount_id = mount_id
      and d.parent_id is not null
      and d.directory_path is not null
    order by d.path, d.live desc, d.deleted_at desc, d.id desc
  )
  select
    q.number,
    q.id,
    cardinality(string_to_array(q.path, '/')) as level,
    q.path,
    case q.parent_path when '' then root_id else coalesce(d.id, o.id) end as parent_id,
    q.parent_path
  from (
    select r.number, r.id, r.path, left(r.path, -strpos(reverse(r.path), '/')) as parent_path
    from pg_temp.filestore_import_raw r
  ) q
  left join directories d on d.path = q.parent_path
  left join others o on o.path = q.parent_path;
end
$$;

comment on function filestore.place_by_paths(bigint) is
  'Internal: Finds the directories of staged nodes that have full paths. A node without an id gets that of the node at its path, or the next one.';

revoke all on function filestore.place_by_paths(bigint) from public;
--! EndIncluded functions/place_by_paths.sql

--! Included functions/arrange_staged.sql
create or replace function filestore.arrange_staged(import_id bigint)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- A session plans the checks of foreign keys once: on a small table, each would read all nodes for ever.
set enable_seqscan = off
set jit = off
as $$
declare
  import  filestore.imports;
  root_id bigint;
  numbers bigint[];
  this_level integer;
  moment  constant timestamptz := date_trunc('milliseconds', clock_timestamp());
  below   bigint;
begin
  numbers := array(
    select t.number
    from pg_temp.filestore_import_nodes t
    where t.action = 'move'
      and t.fault is null
  );
  if numbers = '{}' then
    return false;
  end if;
  import  := filestore.begin_import_batch(import_id, true);
  root_id := (select n.id from filestore.nodes n where n.root_of_mount_id = import.backend_mount_id);

  -- Live nodes leave their places, which others may need, the deepest first: a statement moves directories of one level only.
  for this_level in
    select distinct o.depth
    from pg_temp.filestore_import_old o
    where o.live
    order by o.depth desc
  loop
    update filestore.nodes n
    set parent_id  = case when t.live then root_id else n.parent_id end,
        name       = case when t.live then gen_random_uuid()::text else n.name end,
        state      = case when t.live then n.state else 'deleted' end,
        deleted_at = t.deleted_at
    from pg_temp.filestore_import_old o
    join pg_temp.filestore_import_nodes t on t.id = o.id
    where o.id = n.id
      and o.live
      and o.depth = this_level
      and t.number = any (numbers);
  end loop;

  -- From the top down, with the directories that are new.
  numbers := numbers || array(
    select t.number
    from pg_temp.filestore_import_nodes t
    where t.fault is null
      and t.action = 'create'
      and t.kind = 'directory'
  );
  for this_level in
    select distinct t.level
    from pg_temp.filestore_import_nodes t
    where t.number = any (numbers)
    order by t.level
  loop
    perform filestore.create_staged(
      array(
        select t.number
        from pg_temp.filestore_import_nodes t
        where t.number = any (numbers)
          and t.action = 'create'
          and t.level = this_level
      ),
      true
    );
    perform filestore.change_staged(import.given_columns, case when s.lives then '{parent_id,name}' else '{parent_id,name,parent_path,deleted_at}' end::text[], array(
      select t.number
      from pg_temp.filestore_import_nodes t
      where t.number = any (numbers)
        and t.live = s.lives
        and t.action = 'move'
        and t.level = this_level
    ))
    from unnest(array[true, false]) s (lives);
  end loop;

  -- The key of the tree has changed the paths of other nodes below the moved directories. They get a version, as in any move.
  -- Equal rows of a table with versions or moments keep those that they have there.
  create temporary table filestore_import_below on commit drop as
  select b.*
  from (
    select distinct on (n.id) n.id, n.version, n.path, o.path || substr(n.path, length(d.path) + 1) as old_path
    from pg_temp.filestore_import_nodes t
    join pg_temp.filestore_import_old o on o.id = t.id
    join filestore.nodes d on d.id = t.id
    join filestore.nodes n on n.backend_mount_id = d.backend_mount_id and n.path >= d.path || '/' and n.path < d.path || '0'
    where t.number = any (numbers)
      and t.action = 'move'
      and d.live
      and o.live
      and d.directory_path is not null
      and n.live
    order by n.id, length(d.path) desc
  ) b
  left join pg_temp.filestore_import_nodes s on s.id = b.id and s.fault is null
  where b.old_path <> b.path
    and (s.id is null or (s.action = 'keep' and not '{version,updated_at}' && import.given_columns));
  update filestore.nodes n
  set version    = n.version + 1,
      updated_at = greatest(moment, n.updated_at + interval '1 millisecond')
  from pg_temp.filestore_import_below b
  where n.id = b.id;
  get diagnostics below = row_count;
  with superseded as (
    delete from filestore.snapshots s
    using pg_temp.filestore_import_below b
    where s.id = b.id
      and s.version = b.version
    returning s as version, b.old_path
  )
  insert into filestore.snapshots
  select v.*
  from superseded s
  cross join lateral jsonb_populate_record(s.version, jsonb_build_object(
    'path', s.old_path,
    'depth', cardinality(string_to_array(s.old_path, '/')),
    'parent_path', left(s.old_path, -strpos(reverse(s.old_path), '/')),
    'directory_path', case when (s.version).kind = 'directory' then s.old_path end
  )) v;

  perform filestore.end_import_batch(import_id, cardinality(numbers) + below, filestore.take_versions(numbers), 0);
  update pg_temp.filestore_import_nodes t
  set action = 'arranged'
  where t.number = any (numbers);
  return true;
end
$$;

comment on function filestore.arrange_staged(bigint) is
  'Internal: Moves, deletes and restores nodes as they are staged, in one transaction, and creates the directories that are new. False when there is nothing to move.';

revoke all on function filestore.arrange_staged(bigint) from public;
--! EndIncluded functions/arrange_staged.sql

--! Included functions/plan_import.sql
create or replace function filestore.plan_import(mount_key text, nodes regclass, versions regclass, entries regclass)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  mount_id constant bigint := filestore.find_mount(plan_import.mount_key);
  mount    filestore.backend_mounts;
  given    text[];
  own      regclass;
begin
  select s.source
  into own
  from unnest(array[nodes, versions, entries]) s (source)
  join pg_class c on c.oid = s.source
  where c.relnamespace = pg_my_temp_schema()
    and c.relname ~ '^filestore_import_(raw|placed|nodes|versions|entries|old|below)$';
  if found then
    raise exception 'the name of the temporary table % is that of a table of the import', own
      using errcode    = 'FS422',
            constraint = 'import_columns_check',
            hint       = 'Rename it. The import drops tables with these names.';
  elsif not has_database_privilege(current_database(), 'temporary') then
    raise exception 'role "%" may not create temporary tables, which an import needs', current_user
      using errcode    = 'FS409',
            constraint = 'import_rights_check',
            hint       = format('Run: grant temporary on database %I to %I.', current_database(), current_user);
  end if;
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = mount_id;
  if mount.held_by is not null or mount.erasing_since is not null then
    raise exception 'mount "%" %', mount.mount_key, case when mount.held_by is null then 'is being erased' else 'is moving to another server' end
      using errcode    = 'FS409',
            constraint = case when mount.held_by is null then 'backend_mounts_erasing' else 'backend_mounts_moving' end,
            hint       = 'Import into another mount, or when the move has ended, on the server that has the mount then.';
  elsif exists (
    select
    from filestore.scans s
    where s.backend_mount_id = mount_id
      and s.ended_at is null
  ) then
    raise exception 'mount "%" is being scanned', mount.mount_key
      using errcode    = 'FS409',
            constraint = 'scans_running',
            hint       = 'Wait until the scan has ended, or cancel it with filestore.cancel_scan.';
  end if;

  perform filestore.drop_staged();
  given := filestore.stage_nodes(mount_id, nodes);
  if nodes is not null then
    perform filestore.compare_staged_nodes(mount_id, given);
    perform filestore.check_staged_nodes(mount_id, given);
  end if;

  perform filestore.stage_versions(mount_id, versions);
  perform filestore.check_staged_rows('filestore_import_versions', 'nodes', '{"parent_id": "coalesce(t.parent_id, 0)"}');
  update pg_temp.filestore_import_versions v
  set fault = f.fault
  from (
    select
      o.number,
      case
        when mount.backend_kind = 'local' and octet_length(o.name) > 255 then 'nodes_local_name_check'
        when not isfinite(o.deleted_at) or o.deleted_at > statement_timestamp() then 'nodes_deleted_at_check'
        when o.parent_id = o.id then 'nodes_cycle_check'
        when coalesce(p.kind, n.kind) = 'file' then 'nodes_not_directory'
        when p.id is null and n.backend_mount_id <> mount_id then 'nodes_parent_elsewhere'
        -- A directory may have been removed since then. Its id must not become that of a new node.
        when coalesce(p.id, n.id) is null and o.parent_id not between r.first_id and r.last_id then 'nodes_parent_missing'
        when o.superseded_by_journal_id not between j.seqmin and j.seqmax then 'import_id_check'
        when o.metadata <> '{}' and filestore.has_secret(o.metadata) then 'import_secret_check'
      end as fault
    from pg_temp.filestore_import_versions o
    left join pg_temp.filestore_import_nodes p on p.id = o.parent_id and p.fault is null
    left join filestore.nodes n on n.id = o.parent_id
    cross join (
      select
        s.seqmin as first_id,
        greatest(pg_sequence_last_value(s.seqrelid), (select max(t.id) from pg_temp.filestore_import_nodes t where t.fault is null)) as last_id
      from pg_sequence s
      where s.seqrelid = pg_get_serial_sequence('filestore.nodes', 'id')::regclass
    ) r
    cross join (
      select s.seqmin, s.seqmax
      from pg_sequence s
      where s.seqrelid = pg_get_serial_sequence('filestore.journal_entries', 'id')::regclass
    ) j
    where o.fault is null
      and o.action <> 'keep'
  ) f
  where v.number = f.number
    and f.fault is not null;
  -- A history without a gap: nothing before a version that is refused.
  update pg_temp.filestore_import_versions v
  set fault = 'import_version_check'
  from (
    select o.id, max(o.version) as version
    from pg_temp.filestore_import_versions o
    where o.fault is not null
    group by o.id
  ) f
  where v.id = f.id
    and v.version < f.version
    and v.fault is null;
  -- A node that has a history in the mount keeps it, so its next version has to follow that.
  update pg_temp.filestore_import_nodes t
  set fault   = 'import_version_check',
      problem = format('the mount has its history up to version %s, and the staged versions from there to %s have a gap or a fault', t.known_version, t.version),
      remedy  = format('Stage and correct versions %s to %s. One that is lost needs only id, version and updated_at.', t.known_version, t.version - 1)
  where t.fault is null
    and t.action in ('move', 'change')
    and t.version > t.known_version + 1::bigint
    and exists (select from filestore.snapshots s where s.id = t.id)
    and not exists (
      select
      from pg_temp.filestore_import_versions v
      where v.node_number = t.number
        and v.version = t.known_version
        and v.fault is null
    );
  if found then
    -- Others may depend on them.
    update pg_temp.filestore_import_nodes t
    set action = 'keep'
    where t.action = 'stay';
    perform filestore.check_staged_nodes(mount_id, given);
    update pg_temp.filestore_import_versions v
    set fault = 'nodes_missing'
    from pg_temp.filestore_import_nodes t
    where t.number = v.node_number
      and t.fault is not null
      and v.fault is null;
  end if;

  perform filestore.stage_entries(mount_id, entries);
  perform filestore.check_staged_entries(mount_id);
  return given;
end
$$;

comment on function filestore.plan_import(text, regclass, regclass, regclass) is
  'Internal: Copies what is staged for an import into temporary tables, and sets the fault of each row that cannot be imported. Returns the staged columns of nodes.';

revoke all on function filestore.plan_import(text, regclass, regclass, regclass) from public;
--! EndIncluded functions/plan_import.sql

--! Included functions/take_nodes.sql
create or replace function filestore.take_nodes(import_id bigint, first bigint, last bigint, looks_up_parents boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
-- A session plans the checks of foreign keys once: on a small table, each would read all nodes for ever.
set enable_seqscan = off
set jit = off
as $$
declare
  import  filestore.imports := filestore.begin_import_batch(import_id, true);
  created bigint[];
  changed bigint[];
  kept    bigint[];
  nodes   bigint;
begin
  select
    coalesce(array_agg(t.number) filter (where t.action = 'create'), '{}'),
    coalesce(array_agg(t.number) filter (where t.action = 'change'), '{}')
  into created, changed
  from pg_temp.filestore_import_nodes t
  where t.number between first and last
    and t.fault is null;
  -- Equal nodes whose history begins later in the mount.
  kept := array(
    select distinct v.node_number
    from pg_temp.filestore_import_versions v
    join pg_temp.filestore_import_nodes t on t.number = v.node_number
    where v.node_number between first and last
      and v.action = 'create'
      and v.fault is null
      and t.action in ('keep', 'stay')
  );
  nodes := filestore.create_staged(created, looks_up_parents) + filestore.change_staged(import.given_columns, '{}', changed);
  perform filestore.end_import_batch(import_id, nodes, filestore.take_versions(created || changed || kept), 0);
end
$$;

comment on function filestore.take_nodes(bigint, bigint, bigint, boolean) is
  'Internal: Imports a batch of staged nodes with their versions.';

revoke all on function filestore.take_nodes(bigint, bigint, bigint, boolean) from public;
--! EndIncluded functions/take_nodes.sql

--! Included functions/import_nodes.sql
create or replace procedure filestore.import_nodes(
  mount_key text,
  nodes     regclass,
  versions  regclass default null,
  entries   regclass default null,
  take_rest boolean  default false,
  batch     integer  default 10000
)
language plpgsql
as $$
declare
  import_id    pg_catalog.int8;
  arranged     pg_catalog.bool;
  next_number  pg_catalog.int8;
  last_node    pg_catalog.int8;
  last_entry   pg_catalog.int8;
  import       filestore.imports;
begin
  set local search_path = pg_catalog, pg_temp;
  -- Fails here in a transaction block, and not after the plan.
  commit;
  set local search_path = pg_catalog, pg_temp;
  import_id  := filestore.begin_import(mount_key, nodes, versions, entries, take_rest, batch);
  last_node  := coalesce((select max(t.number) from pg_temp.filestore_import_nodes t), 0);
  last_entry := coalesce((select max(t.number) from pg_temp.filestore_import_entries t), 0);
  commit;
  set local search_path = pg_catalog, pg_temp;
  arranged := filestore.arrange_staged(import_id);
  commit;
  set local search_path = pg_catalog, pg_temp;

  next_number := 1;
  while next_number <= last_node loop
    perform filestore.take_nodes(import_id, next_number, next_number + batch - 1, arranged);
    commit;
    set local search_path = pg_catalog, pg_temp;
    perform filestore.fold_rollups(greatest(batch, 10000));
    commit;
    set local search_path = pg_catalog, pg_temp;
    next_number := next_number + batch;
  end loop;
  next_number := 1;
  while next_number <= last_entry loop
    perform filestore.take_entries(import_id, next_number, next_number + batch - 1);
    commit;
    set local search_path = pg_catalog, pg_temp;
    next_number := next_number + batch;
  end loop;

  update filestore.imports i
  set finished_at = date_trunc('milliseconds', clock_timestamp())
  where i.id = import_id
  returning * into import;
  perform filestore.drop_staged();
  commit;
  set local search_path = pg_catalog, pg_temp;
  raise notice 'import % into mount "%": % nodes, % versions and % journal entries; % rows refused',
    import_id, mount_key, import.nodes, import.versions, import.entries, import.refused;
end
$$;

comment on procedure filestore.import_nodes(text, regclass, regclass, regclass, boolean, integer) is
  'Imports nodes with their versions, and journal entries, from staging tables into a mount, with their ids and moments, in batches with a commit after each. It reads each table once, at the beginning. It can be killed at any moment: the same call continues, and takes what has changed since then. filestore.imports shows the progress. For the owner of the schema. FS409 when rows cannot be taken, unless take_rest is given: filestore.check_import lists them.';

revoke all on procedure filestore.import_nodes(text, regclass, regclass, regclass, boolean, integer) from public;
--! EndIncluded functions/import_nodes.sql
