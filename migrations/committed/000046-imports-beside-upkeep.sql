--! Previous: sha1:5fbfd7ff87245aa3a847f993d5e6a6bcfca5a6ee
--! Hash: sha1:c3e17e5b66a69309e9545cb7f7d50dbd751d1955
--! Message: Imports beside upkeep

--! Included functions/begin_import_batch.sql
create or replace function filestore.begin_import_batch(import_id bigint, locks_tree boolean)
returns filestore.imports
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  import filestore.imports;
begin
  if locks_tree then
    perform filestore.lock_tree((select i.backend_mount_id from filestore.imports i where i.id = import_id), true);
  end if;
  update filestore.imports i
  set transaction_id = pg_current_xact_id()
  where i.id = import_id
    and i.finished_at is null
  returning * into import;
  if import.id is null then
    raise exception 'import % ended, because another one into the mount began', import_id
      using errcode    = 'FS409',
            constraint = 'import_superseded',
            hint       = 'Wait for the other one. What this one imported stays.';
  end if;
  -- The key of tombstones and of journal entries does not look for their mount, which others may delete between two batches.
  perform
  from filestore.backend_mounts m
  where m.id = import.backend_mount_id
  for key share;
  if not found then
    raise exception 'the mount of import % was deleted meanwhile', import_id
      using errcode    = 'FS404',
            constraint = 'backend_mounts_missing',
            hint       = 'Create the mount again and call import_nodes again, or leave it: nothing of the import is left.';
  end if;
  perform set_config('filestore.backfill_id', 'import', true);
  return import;
end
$$;

comment on function filestore.begin_import_batch(bigint, boolean) is
  'Internal: Lets the transaction write what only an import may write, into the mount of that import.';

revoke all on function filestore.begin_import_batch(bigint, boolean) from public;
--! EndIncluded functions/begin_import_batch.sql
--! Included functions/require_staged_parents.sql
create or replace function filestore.require_staged_parents(numbers bigint[])
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  lost text;
begin
  -- The key of the tree holds for live nodes only, and a purge between two batches removes directories of tombstones.
  select t.path
  into lost
  from pg_temp.filestore_import_nodes t
  where t.number = any (numbers)
    and not t.live
    and not exists (
      select
      from filestore.nodes p
      where p.id = t.parent_id
    )
  limit 1;
  if found then
    raise exception 'the directory of the deleted node "%" was purged while it was imported', lost
      using errcode    = 'FS409',
            constraint = 'import_disturbed',
            hint       = 'Import again, and do not purge the mount until the import has ended.';
  end if;
end
$$;

comment on function filestore.require_staged_parents(bigint[]) is
  'Internal: Refuses deleted nodes that were imported into a directory that is gone.';

revoke all on function filestore.require_staged_parents(bigint[]) from public;
--! EndIncluded functions/require_staged_parents.sql
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
  perform filestore.require_staged_parents(created);
  perform filestore.end_import_batch(import_id, nodes, filestore.take_versions(created || changed || kept), 0);
end
$$;

comment on function filestore.take_nodes(bigint, bigint, bigint, boolean) is
  'Internal: Imports a batch of staged nodes with their versions.';

revoke all on function filestore.take_nodes(bigint, bigint, bigint, boolean) from public;
--! EndIncluded functions/take_nodes.sql
--! Included functions/take_versions.sql
create or replace function filestore.take_versions(numbers bigint[])
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  pruned bigint[];
  taken  bigint;
begin
  -- A prune does not lock the tree, and what it removes is not seen before it commits.
  perform
  from filestore.backend_mounts m
  where m.id in (
    select t.backend_mount_id
    from pg_temp.filestore_import_versions v
    join pg_temp.filestore_import_nodes t on t.number = v.node_number
    where v.node_number = any (numbers)
      and v.action = 'create'
      and v.fault is null
      and v.version < t.known_version
  )
  for share;

  -- Others removed history since the import was planned, so what is before it would leave a gap.
  pruned := array(
    select v.node_number
    from pg_temp.filestore_import_versions v
    join pg_temp.filestore_import_nodes t on t.number = v.node_number
    where v.node_number = any (numbers)
      and v.action = 'create'
      and v.fault is null
      and v.version < t.known_version
    group by v.node_number, t.id
    having max(v.version) + 1 is distinct from coalesce(
      (select min(s.version) from filestore.snapshots s where s.id = t.id),
      (select n.version from filestore.nodes n where n.id = t.id)
    )
  );

  -- The trigger wrote the version that ends here with the path that the node has now: a directory above it may have moved
  -- before. If the node changed several times since then, and not all of these versions are staged, its known history begins
  -- later.
  delete from filestore.snapshots s
  using pg_temp.filestore_import_nodes t
  where t.number = any (numbers)
    and t.version > t.known_version
    and s.id = t.id
    and (
      s.version = t.known_version
      or (
        t.version > t.known_version + 1::bigint
        and not exists (
          select
          from pg_temp.filestore_import_versions v
          where v.node_number = t.number
            and v.version = t.known_version
            and v.fault is null
        )
      )
    );

  execute format(
    'insert into filestore.snapshots (%1$s)
     select %1$s
     from pg_temp.filestore_import_versions v
     where v.node_number = any ($1)
       and v.action = ''create''
       and v.fault is null
       and not (
         v.node_number = any ($2)
         and v.version < (select t.known_version from pg_temp.filestore_import_nodes t where t.number = v.node_number)
       )',
    (
      select string_agg(format('%I', a.attname), ', ' order by a.attnum)
      from pg_attribute a
      where a.attrelid = 'filestore.snapshots'::regclass
        and a.attnum > 0
        and not a.attisdropped
    )
  )
  using numbers, pruned;
  get diagnostics taken = row_count;

  execute format(
    'insert into filestore.snapshots (valid_from, valid_to, %s)
     select o.updated_at, t.updated_at, %s
     from pg_temp.filestore_import_nodes t
     join pg_temp.filestore_import_old o on o.id = t.id
     where t.number = any ($1)
       and t.version = t.known_version + 1::bigint
       and not exists (
         select
         from pg_temp.filestore_import_versions v
         where v.node_number = t.number
           and v.version = t.known_version
           and v.fault is null
       )',
    (
      select string_agg(format('%I', a.attname), ', ' order by a.attnum)
      from pg_attribute a
      where a.attrelid = 'filestore.nodes'::regclass
        and a.attnum > 0
        and not a.attisdropped
    ),
    (
      select string_agg(format('o.%I', a.attname), ', ' order by a.attnum)
      from pg_attribute a
      where a.attrelid = 'filestore.nodes'::regclass
        and a.attnum > 0
        and not a.attisdropped
    )
  )
  using numbers;
  return taken;
end
$$;

comment on function filestore.take_versions(bigint[]) is
  'Internal: Inserts the staged versions of staged nodes that the mount does not have, and the version that a changed node had if it is not staged.';

revoke all on function filestore.take_versions(bigint[]) from public;
--! EndIncluded functions/take_versions.sql
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

  perform filestore.require_staged_parents(numbers);

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
--! Included functions/prune_history.sql
create or replace function filestore.prune_history(older_than interval, keep_versions integer default 1, batch integer default 1000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  deadline       timestamptz;
  after_id       bigint;
  first_id       bigint;
  last_id        bigint;
  mount_ids      bigint[];
  node_ids       bigint[];
  first_versions integer[];
  last_versions  integer[];
  places         tid[];
begin
  perform filestore.check_retention(older_than, batch);
  if keep_versions is null or keep_versions < 0 then
    raise exception 'keep_versions cannot be %', coalesce(keep_versions::text, 'null')
      using errcode    = 'FS422',
            constraint = 'retention_check',
            hint       = 'Give the number of superseded versions that each node keeps whatever their age, such as 1; 0 for none.';
  end if;
  perform filestore.require_read_committed('filestore.prune_history');
  -- One call at a time, so that two calls do not choose the same versions.
  insert into filestore.history_cursor as c
  default values
  on conflict on constraint history_cursor_pkey do update set position = c.position
  returning c.position into after_id;

  -- A running scan recognizes by the history what others wrote since it began.
  deadline := least(statement_timestamp() - older_than, (select min(s.started_at) from filestore.scans s where s.ended_at is null));

  -- From there to the last node, and only then from the first one.
  foreach first_id in array array[after_id, 0] loop
    select
      array_agg(p.node_id),
      array_agg(p.first_version),
      array_agg(p.last_version),
      array_agg(distinct p.backend_mount_id),
      -- The last node of a full batch may have more versions.
      max(p.node_id) - (sum(p.last_version - p.first_version + 1) >= batch)::integer
    into node_ids, first_versions, last_versions, mount_ids, last_id
    from filestore.prunable_versions(deadline, keep_versions, first_id, batch) p;
    exit when node_ids is not null;
  end loop;
  update filestore.history_cursor c
  set position = coalesce(last_id, 0);
  if node_ids is null then
    return 0;
  end if;

  -- A scan or a move that begins waits until the horizon is recorded. Those that have begun are known after the lock.
  perform
  from filestore.backend_mounts m
  where m.id = any (mount_ids)
  order by m.id
  for no key update;
  mount_ids := array(
    select unnest(mount_ids)
    except
    select unnest(filestore.moving_mounts(true) || filestore.erasing_mounts())
  );
  deadline := least(deadline, (select min(s.started_at) from filestore.scans s where s.ended_at is null));

  -- A purge locks versions in another order, so those that it holds are left out. Later versions of the same node stay too,
  -- so that no history gets a gap. Nor may it begin with the gap: an import may have put earlier versions back meanwhile.
  places := array(
    select v.place
    from (
      select
        s.place,
        s.version - row_number() over (partition by s.id order by s.version) + 1 = s.first_version as is_next
      from (
        select s.id, s.version, s.ctid as place, c.first_version
        from unnest(node_ids, first_versions, last_versions) c (id, first_version, last_version)
        cross join lateral (
          select o.id, o.version, o.ctid
          from filestore.snapshots o
          where o.id = c.id
            and o.version <= c.last_version
            and o.valid_to < deadline
            and o.backend_mount_id = any (mount_ids)
          for update skip locked
        ) s
      ) s
    ) v
    where v.is_next
  );
  -- Before the versions are removed: only what ended at or before the horizon can be removed.
  update filestore.backend_mounts m
  set history_horizon = greatest(m.history_horizon, p.horizon)
  from (
    select s.backend_mount_id, max(s.valid_to) as horizon
    from filestore.snapshots s
    where s.ctid = any (places)
    group by s.backend_mount_id
  ) p
  where m.id = p.backend_mount_id;
  delete from filestore.snapshots s
  where s.ctid = any (places);
  return cardinality(places);
end
$$;

comment on function filestore.prune_history(interval, integer, integer) is
  'Removes at most batch superseded versions of live nodes that ended longer than older_than ago, the oldest of each node first, and returns how many. Each node keeps its newest keep_versions superseded versions. Repeat it until it returns 0. backend_mounts.history_horizon is the moment up to which versions were removed. Leaves out mounts that move or are being erased, and what was written since the oldest running scan began.';

revoke all on function filestore.prune_history(interval, integer, integer) from public;
--! EndIncluded functions/prune_history.sql
