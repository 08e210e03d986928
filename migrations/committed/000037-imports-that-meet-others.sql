--! Previous: sha1:ad904e9081058ef3a863d43436227cf16d5b6b0e
--! Hash: sha1:13e86671dc361ce20bbd12c90e68689c96cb3119
--! Message: Imports that meet others

--! Included functions/reserve_ids.sql
create or replace function filestore.reserve_ids(table_name text, highest bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  sequence regclass;
  range    pg_sequence;
begin
  if table_name is null or table_name not in ('nodes', 'journal_entries', 'backend_mounts') then
    raise exception 'ids of table "%" cannot be reserved', coalesce(table_name, 'null')
      using errcode    = 'FS422',
            constraint = 'import_id_check',
            hint       = 'Give nodes, journal_entries or backend_mounts.';
  end if;
  sequence := pg_get_serial_sequence(format('filestore.%I', table_name), 'id');
  -- Of two calls at once, the later one reads what the earlier one has set.
  if highest is not null then
    perform pg_advisory_xact_lock(hashtextextended('filestore.ids', sequence::oid::bigint));
  end if;
  select *
  into range
  from pg_sequence s
  where s.seqrelid = sequence;
  if highest > greatest(range.seqmax - 200000, pg_sequence_last_value(sequence)) then
    raise exception 'ids of filestore.% end at %', table_name, range.seqmax
      using errcode    = 'FS422',
            constraint = 'import_id_check',
            hint       = 'Give an id of this range that leaves 200000 above it.';
  end if;
  -- Others may take ids in the meantime, so it goes further than necessary.
  if highest >= coalesce(pg_sequence_last_value(sequence), range.seqmin) then
    perform setval(sequence, least(highest + 100000, range.seqmax));
  end if;
  return coalesce(pg_sequence_last_value(sequence), range.seqmin - 1) + 1;
end
$$;

comment on function filestore.reserve_ids(text, bigint) is
  'Lets the ids of a table continue above a number, for rows that will be imported with their ids, and returns the next id. Call it for nodes before the mount is registered: its root takes an id. For the owner of the schema.';

revoke all on function filestore.reserve_ids(text, bigint) from public;
--! EndIncluded functions/reserve_ids.sql

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

--! Included functions/stage_versions.sql
create or replace function filestore.stage_versions(mount_id bigint, source regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_nestloop = off
as $$
declare
  given   text[];
  columns text;
  -- Before this import, a node was where the mount has it.
  place   constant text := 'case when (s.version > t.known_version) is not false then t.path else n.path end';
begin
  if source is null then
    create temporary table filestore_import_versions as
    select null::bigint as number, null::bigint as node_number, 'create'::text as action, null::text as fault, null::text as problem, null::text as remedy, s.*
    from filestore.snapshots s
    limit 0;
    return;
  end if;
  given := array(
    select c.name
    from filestore.staged_columns(
      source,
      'snapshots',
      '{valid_from,valid_to,backend_mount_id,depth,live,kind,parent_path,parent_live,directory_path,created_at,root_of_mount_id}',
      '{id,version,updated_at}'
    ) c
    where c.is_given
  );

  -- A place that is not given is that of the node. Other columns that are not given are unknown.
  select string_agg(
    format(
      '(%s)::%s as %I',
      case
        when c.name = 'valid_from' then 'v.updated_at'
        when c.name = 'valid_to' then 'v.until'
        when c.name = 'backend_mount_id' then '$1'
        when c.name = 'depth' then 'cardinality(string_to_array(v.whole_path, ''/''))'
        when c.name = 'live' then 'v.is_live'
        when c.name = 'parent_live' then 'case when v.is_live then true end'
        when c.name = 'state' then 'coalesce(v.given_state, case when v.is_live then ''active'' else ''deleted'' end)'
        when c.name = 'deleted_at' then 'case when not v.is_live then coalesce(v.given_deleted_at, v.updated_at) end'
        when c.name = 'path' then 'v.whole_path'
        when c.name = 'name' then 'right(v.whole_path, strpos(reverse(''/'' || v.whole_path), ''/'') - 1)'
        when c.name = 'parent_path' then 'v.above'
        when c.name = 'directory_path' then 'case when v.node_kind = ''directory'' then v.whole_path end'
        when c.name = 'parent_id' then 'case when v.above = '''' then $2 else coalesce(v.given_parent_id, case when v.above = v.node_above then v.node_parent_id end, d.id) end'
        when c.name = 'kind' then 'v.node_kind'
        when c.name = 'created_at' then 'v.node_created_at'
        when c.name = 'root_of_mount_id' then 'null'
        when c.unset is null then coalesce(case when c.is_given then format('v.%I', c.name) end, 'null')
        else format('coalesce(%s, %s)', coalesce(case when c.is_given then format('v.%I', c.name) end, 'null'), c.unset)
      end,
      c.type,
      c.name
    ),
    ', ' order by c.place
  )
  into columns
  from (
    select s.*, row_number() over () as place, pg_get_expr(f.adbin, f.adrelid) as unset
    from filestore.staged_columns(source, 'snapshots', '{}', '{}') s
    left join pg_attribute a on a.attrelid = 'filestore.nodes'::regclass and a.attname = s.name
    left join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
  ) c;

  execute format(
    'create temporary table filestore_import_versions as
     with directories as materialized (
       select distinct on (d.directory_path) d.directory_path, d.id
       from pg_temp.filestore_import_nodes d
       where d.directory_path is not null
       order by d.directory_path, d.live desc, d.deleted_at desc, d.number desc
     )
     select row_number() over (order by v.node_number, v.version) as number, v.node_number, v.action, v.fault, null::text as problem, null::text as remedy, %s
     from (
       select
         s.*,
         left(s.whole_path, -strpos(reverse(s.whole_path), ''/'')) as above,
         coalesce(case when s.version + 1::bigint = s.first_version then s.first_from end, lead(s.updated_at) over later, s.node_updated_at) as until,
         -- The mount may lack the beginning of the history: it was refused, not staged, or pruned.
         case when s.version < s.known_version and s.version >= s.first_version then ''keep'' else ''create'' end as action,
         case
           when s.node_version is null then ''nodes_missing''
           when s.bad_state then ''node_state_check''
           when strpos(s.given_name, ''/'') > 0 then ''nodes_name_check''
           when (s.whole_path ~ ''(^|/)[.]{0,2}(/|$)|[[:cntrl:]]'') is not false then ''nodes_path_check''
           when s.version + 1::bigint <> coalesce(lead(s.version) over later, s.node_version)
                or s.version < 1
                or s.version is null
                or s.updated_at >= coalesce(case when s.version + 1::bigint = s.first_version then s.first_from end, lead(s.updated_at) over later, s.node_updated_at)
                or (s.version = s.known_version and s.first_version is not null and s.updated_at <> s.known_updated_at)
                or (s.updated_at >= ''0001-01-01T00:00:00Z'') is not true then ''import_version_check''
         end as fault
       from (
         select
           s.*,
           %s as is_live,
           %s as given_state,
           %s as bad_state,
           %s as given_deleted_at,
           %s as given_parent_id,
           %s as whole_path,
           %s as given_name,
           t.number      as node_number,
           t.version     as node_version,
           t.known_version,
           n.updated_at  as known_updated_at,
           h.first_version,
           h.first_from,
           t.updated_at  as node_updated_at,
           t.created_at  as node_created_at,
           t.kind        as node_kind,
           case when (s.version > t.known_version) is not false then t.parent_id else n.parent_id end     as node_parent_id,
           case when (s.version > t.known_version) is not false then t.parent_path else n.parent_path end as node_above
         from (select %s from %s s) s
         left join pg_temp.filestore_import_nodes t on t.id = s.id and t.fault is null
         left join filestore.nodes n on n.id = s.id and t.known_version is not null
         left join (
           select o.id, min(o.version) as first_version, min(o.valid_from) as first_from
           from filestore.snapshots o
           where o.backend_mount_id = $1
           group by o.id
         ) h on h.id = n.id
       ) s
       window later as (partition by s.id, s.version is null order by s.version)
     ) v
     left join directories d on d.directory_path = v.above',
    columns,
    concat_ws(' and ', case when 'deleted_at' = any (given) then 's.deleted_at is null' end, case when 'state' = any (given) then 's.state is distinct from ''deleted''' end, 'true'),
    case when 'state' = any (given) then 'case when s.state in (''active'', ''inconsistent'', ''missing'', ''deleted'') then s.state end' else 'null::text' end,
    case when 'state' = any (given) then 's.state not in (''active'', ''inconsistent'', ''missing'', ''deleted'')' else 'false' end,
    case when 'deleted_at' = any (given) then 's.deleted_at' else 'null::timestamptz' end,
    case when 'parent_id' = any (given) then 's.parent_id' else 'null::bigint' end,
    case
      when 'path' = any (given) then format('coalesce(s.path, %s)', place)
      when 'name' = any (given) then 'case when s.name is null then ' || place || ' else coalesce(nullif(case when (s.version > t.known_version) is not false then t.parent_path else n.parent_path end, '''') || ''/'', '''') || s.name end'
      else place
    end,
    case when 'name' = any (given) and 'path' <> all (given) then 's.name' else 'null::text' end,
    (
      select string_agg(
        format(case when c.name in ('kind', 'state') then '(%s)::text as %I' else '(%s)::' || c.type || ' as %I' end, c.value, c.name), ', '
      )
      from filestore.staged_columns(source, 'snapshots', '{}', '{}') c
      where c.is_given
    ),
    source
  )
  using mount_id, (select n.id from filestore.nodes n where n.root_of_mount_id = mount_id);
  create index on pg_temp.filestore_import_versions (number);
  create index on pg_temp.filestore_import_versions (node_number);
  analyze pg_temp.filestore_import_versions (number, node_number, id, version, fault);
end
$$;

comment on function filestore.stage_versions(bigint, regclass) is
  'Internal: Copies the staged versions of an import into a temporary table, each with the moment at which the next one began, after filestore.stage_nodes. Without a table, there are none.';

revoke all on function filestore.stage_versions(bigint, regclass) from public;
--! EndIncluded functions/stage_versions.sql

--! Included functions/compare_staged_nodes.sql
create or replace function filestore.compare_staged_nodes(mount_id bigint, given text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  -- What is not staged stays as it is. Places are compared by parent and name: a path also changes with those above it.
  compared constant text := (
    select string_agg(format(case c.name when 'updated_at' then '(t.has_moment and t.%1$I <> n.%1$I)' else 't.%1$I is distinct from n.%1$I' end, c.name), ' or ')
    from unnest(array['state', 'version', 'updated_at'] || given) c (name)
    where c.name <> all ('{id,kind,name,path,parent_id,created_at,deleted_at}')
      and (c.name = any (given) or c.name = 'state')
  );
begin
  execute format(
    'update pg_temp.filestore_import_nodes t
     set known_version = c.known_version,
         action        = c.action,
         state         = c.state,
         created_at    = c.created_at,
         version       = case when c.action = ''keep'' then c.known_version when $2 then t.version else least(c.known_version + 1::bigint, 2147483647) end,
         updated_at    = case
           when c.action = ''keep'' then c.known_updated_at
           when t.has_moment and $3 then t.updated_at
           else greatest(date_trunc(''milliseconds'', statement_timestamp()), c.known_updated_at + interval ''1 millisecond'')
         end,
         deleted_at    = case when t.has_moment or t.live then t.deleted_at else coalesce(c.known_deleted_at, t.deleted_at) end,
         -- Without versions, only the moment shows which one is newer.
         fault         = case when $3 and t.has_moment and not $2 and c.action <> ''keep'' and t.updated_at <= c.known_updated_at then ''nodes_stale'' end
     from (
       select
         n.id,
         n.version    as known_version,
         n.updated_at as known_updated_at,
         n.deleted_at as known_deleted_at,
         n.created_at,
         t.state,
         case
           when t.live <> n.live or t.parent_id <> n.parent_id or t.name <> n.name or (t.has_moment and t.deleted_at <> n.deleted_at) then ''move''
           when %s then ''move''
           when %s then ''change''
           else ''keep''
         end as action
       from filestore.nodes n
       join (
         select
           s.number,
           %s,
           case when $4 or s.live <> o.live then s.state else o.state end as state
         from pg_temp.filestore_import_nodes s
         join filestore.nodes o on o.id = s.id
       ) t on t.id = n.id
       where n.backend_mount_id = $1
         and n.parent_id is not null
     ) c
     where t.id = c.id
       and not t.is_repeated',
    -- A tombstone without a path has that of its directory now.
    case when 'path' = any (given) then 'not t.live and t.parent_path <> n.parent_path' else 'false' end,
    compared,
    (
      select string_agg(format('s.%I', c.name), ', ')
      from (
        select unnest(given)
        union
        select unnest('{id,live,has_moment,parent_id,parent_path,name,version,updated_at,deleted_at}'::text[])
      ) c (name)
      where c.name <> 'state'
    )
  )
  using mount_id, 'version' = any (given), 'updated_at' = any (given), 'state' = any (given);
end
$$;

comment on function filestore.compare_staged_nodes(bigint, text[]) is
  'Internal: Decides for each staged node that the mount has already whether it stays, changes its content, or changes its place, which includes being deleted and restored.';

revoke all on function filestore.compare_staged_nodes(bigint, text[]) from public;
--! EndIncluded functions/compare_staged_nodes.sql

--! Included functions/check_staged_nodes.sql
create or replace function filestore.check_staged_nodes(mount_id bigint, given text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  -- A moment of this transaction is not in the future.
  moment   constant timestamptz := statement_timestamp();
  is_local constant boolean     := (select m.backend_kind = 'local' from filestore.backend_mounts m where m.id = mount_id);
  by_paths constant boolean     := 'parent_id' <> all (given);
  lowest   bigint;
  highest  bigint;
  refused  boolean;
begin
  select s.seqmin, greatest(s.seqmax - 200000, pg_sequence_last_value(s.seqrelid))
  into lowest, highest
  from pg_sequence s
  where s.seqrelid = pg_get_serial_sequence('filestore.nodes', 'id')::regclass;

  update pg_temp.filestore_import_nodes t
  set fault = f.fault
  from (
    select
      t.number,
      case
        when t.is_repeated and t.id is null then 'nodes_tombstone_check'
        when t.is_repeated then 'nodes_pkey'
        when t.id is null or t.id not between lowest and highest then 'import_id_check'
        when t.kind is null then 'node_kind_check'
        when t.state is null then 'node_state_check'
        when n.id is not null and t.known_version is null then 'nodes_pkey'
        when n.kind <> t.kind then 'nodes_fixed_check'
        when by_paths and (t.given_path ~ '(^|/)[.]{0,2}(/|$)') is not false then 'nodes_path_check'
        when not by_paths and not t.live and t.given_path ~ '(^|/)[.]{0,2}(/|$)|[[:cntrl:]]' then 'nodes_path_check'
        when t.level is null and p.id is not null then 'nodes_cycle_check'
        when coalesce(p.id, o.id) is null then 'nodes_parent_missing'
        when p.id is null and o.backend_mount_id <> mount_id then 'nodes_parent_elsewhere'
        when coalesce(p.kind, o.kind) = 'file' then 'nodes_not_directory'
        when t.live and not coalesce(p.live, o.live) then 'nodes_parent_deleted'
        when t.live and t.given_path <> t.path then 'nodes_derived_path_check'
        when is_local and octet_length(t.name) > 255 then 'nodes_local_name_check'
        -- Changes of the new service have to follow.
        when t.action <> 'keep' and t.version > 2000000000 then 'nodes_version_check'
        when not isfinite(t.updated_at) or t.updated_at < '0001-01-01T00:00:00Z' or t.updated_at > moment then 'nodes_updated_at_check'
        when not isfinite(t.deleted_at) or t.deleted_at > moment then 'nodes_deleted_at_check'
        when not isfinite(t.created_at) or t.created_at < '0001-01-01T00:00:00Z' or t.created_at > moment then 'import_moment_check'
        when t.action <> 'keep' and (n.version >= t.version or n.updated_at >= t.updated_at) then 'nodes_stale'
        when t.action <> 'keep' and t.metadata <> '{}' and filestore.has_secret(t.metadata) then 'import_secret_check'
      end as fault
    from pg_temp.filestore_import_nodes t
    left join filestore.nodes n on n.id = t.id
    left join pg_temp.filestore_import_nodes p on p.id = t.parent_id and not p.is_repeated
    left join filestore.nodes o on o.id = t.parent_id
    where t.fault is null
  ) f
  where t.number = f.number
    and f.fault is not null;

  -- Two live rows of one place: none of them is known to be the right one.
  update pg_temp.filestore_import_nodes t
  set fault = 'nodes_name_taken'
  from (
    select o.parent_id, o.name
    from pg_temp.filestore_import_nodes o
    where o.live
      and o.fault is null
    group by o.parent_id, o.name
    having count(*) > 1
  ) d
  where t.parent_id = d.parent_id
    and t.name = d.name
    and t.live
    and t.fault is null;
  perform filestore.check_staged_rows('filestore_import_nodes', 'nodes', '{}');

  -- A node that is refused stays where it is, so that others may be refused too.
  loop
    update pg_temp.filestore_import_nodes t
    set fault = 'import_parent_refused'
    from pg_temp.filestore_import_nodes p
    where p.id = t.parent_id
      and (p.fault is not null or p.action = 'stay')
      and t.fault is null
      and t.action not in ('keep', 'stay');
    refused := found;
    -- A directory that is equal, but does not get the path with which the rows in it are planned.
    update pg_temp.filestore_import_nodes t
    set action = 'stay'
    from pg_temp.filestore_import_nodes p, filestore.nodes n
    where p.id = t.parent_id
      and (p.fault is not null or p.action = 'stay')
      and n.id = t.id
      and n.path <> t.path
      and t.directory_path is not null
      and t.live
      and t.fault is null
      and t.action = 'keep';
    refused := refused or found;

    -- A live node of the mount that stays has the place, or is in a directory that would be deleted.
    update pg_temp.filestore_import_nodes t
    set fault = 'nodes_name_taken'
    from filestore.nodes n
    where n.parent_id = t.parent_id
      and n.name = t.name
      and n.parent_live
      and n.id <> t.id
      and t.live
      and t.fault is null
      and not exists (
        select
        from pg_temp.filestore_import_nodes o
        where o.id = n.id
          and o.fault is null
      );
    refused := refused or found;
    update pg_temp.filestore_import_nodes t
    set fault = 'nodes_not_empty'
    where t.action = 'move'
      and not t.live
      and t.fault is null
      and exists (
        select
        from filestore.nodes n
        where n.parent_id = t.id
          and n.parent_live
          and not exists (
            select
            from pg_temp.filestore_import_nodes o
            where o.id = n.id
              and o.fault is null
          )
      );
    exit when not (refused or found);
  end loop;
end
$$;

comment on function filestore.check_staged_nodes(bigint, text[]) is
  'Internal: Sets the fault of each staged node that cannot be imported: the reason of a refusal.';

revoke all on function filestore.check_staged_nodes(bigint, text[]) from public;
--! EndIncluded functions/check_staged_nodes.sql

--! Included functions/check_staged_entries.sql
create or replace function filestore.check_staged_entries(mount_id bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  moment  constant timestamptz := statement_timestamp();
  lowest  bigint;
  highest bigint;
begin
  select s.seqmin, greatest(s.seqmax - 200000, pg_sequence_last_value(s.seqrelid))
  into lowest, highest
  from pg_sequence s
  where s.seqrelid = pg_get_serial_sequence('filestore.journal_entries', 'id')::regclass;

  -- An ended entry never changes, so one that is there already is the same.
  update pg_temp.filestore_import_entries t
  set action = 'keep'
  from filestore.journal_entries j
  where j.id = t.id
    and j.backend_mount_id = mount_id
    and j.command = t.command
    and j.status = t.status
    and j.created_at = t.created_at;

  update pg_temp.filestore_import_entries t
  set fault = f.fault
  from (
    select
      t.number,
      case
        when t.is_repeated or (j.id is not null and t.action <> 'keep') then 'journal_entries_pkey'
        when t.id is null or t.id not between lowest and highest then 'import_id_check'
        when t.status is null then 'command_status_check'
        when t.status in ('queued', 'running') then 'journal_entries_born_open_check'
        when not (isfinite(t.created_at) and t.created_at between '0001-01-01T00:00:00Z' and moment)
             or not (isfinite(t.started_at) and t.started_at between '0001-01-01T00:00:00Z' and moment)
             or not (isfinite(t.completed_at) and t.completed_at between '0001-01-01T00:00:00Z' and moment) then 'import_moment_check'
        when t.duration_ms < 0 then 'journal_entries_duration_check'
        when t.action = 'create' and exists (
          select
          from filestore.journal_entries o
          where o.command = t.command
            and o.idempotency_key = t.idempotency_key
            and o.status not in ('failed', 'canceled')
            and t.status = 'succeeded'
        ) then 'journal_entries_idempotency_key'
        when t.action <> 'keep' and (filestore.has_secret(t.parameters) or filestore.has_secret(t.result) or filestore.has_secret(t.error)) then 'import_secret_check'
      end as fault
    from pg_temp.filestore_import_entries t
    left join filestore.journal_entries j on j.id = t.id
  ) f
  where t.number = f.number
    and f.fault is not null;

  update pg_temp.filestore_import_entries t
  set fault = 'journal_entries_idempotency_key'
  from (
    select o.command, o.idempotency_key
    from pg_temp.filestore_import_entries o
    where o.idempotency_key is not null
      and o.status = 'succeeded'
      and o.fault is null
    group by o.command, o.idempotency_key
    having count(*) > 1
  ) d
  where t.command = d.command
    and t.idempotency_key = d.idempotency_key
    and t.status = 'succeeded'
    and t.fault is null;
  update pg_temp.filestore_import_entries t
  set duration_ms = (extract(epoch from t.completed_at - t.started_at) * 1000)::bigint
  where t.duration_ms is null
    and t.started_at is not null
    and t.fault is null;
  perform filestore.check_staged_rows('filestore_import_entries', 'journal_entries', '{}');
end
$$;

comment on function filestore.check_staged_entries(bigint) is
  'Internal: Sets the fault of each staged journal entry that cannot be imported: the reason of a refusal.';

revoke all on function filestore.check_staged_entries(bigint) from public;
--! EndIncluded functions/check_staged_entries.sql

--! Included functions/import_faults.sql
create or replace function filestore.import_faults()
returns table (staged text, id bigint, version integer, path text, reason text, problem text, remedy text)
language plpgsql
stable
rows 1000
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
  return query
  select f.staged, f.id, f.version, f.path, f.fault, coalesce(f.problem, r.problem, 'is refused'), coalesce(f.remedy, r.remedy, 'Correct the row.')
  from (
    select 'nodes' as staged, t.id, t.version, coalesce(t.given_path, t.path) as path, t.fault, t.problem, t.remedy, t.number
    from pg_temp.filestore_import_nodes t
    where t.fault is not null
    union all
    select 'versions', t.id, t.version, t.path, t.fault, t.problem, t.remedy, t.number
    from pg_temp.filestore_import_versions t
    where t.fault is not null
    union all
    select 'entries', t.id, null, null, t.fault, t.problem, t.remedy, t.number
    from pg_temp.filestore_import_entries t
    where t.fault is not null
  ) f
  left join (values
    ('nodes_pkey', 'the id is given twice, or belongs to another node', 'Give each node one row, and a separate id, or leave the column id out.'),
    ('nodes_tombstone_check', 'another deleted row without an id has the same path and deleted_at', 'Give each an id or another deleted_at, or leave out all but one.'),
    ('import_id_check', 'the id is null, not in the range of this database, or among its last 200000', 'Give an id from the range that docs/schema.md describes, or leave the column id out.'),
    ('nodes_version_check', 'the version is above 2000000000', 'Give a lower one: each change of the new service adds 1, up to 2147483647.'),
    ('node_kind_check', 'the kind is neither file nor directory', 'Give one of them.'),
    ('node_state_check', 'the state is unknown', 'Give active, inconsistent, missing or deleted.'),
    ('nodes_fixed_check', 'the node has another kind in the mount', 'Give the new node another id, and the old one a deleted_at.'),
    ('nodes_path_check', 'the path is not canonical', 'Give it without a slash at its beginning or end, and without empty segments, "." and "..", as filestore.canonical_path does.'),
    ('nodes_name_check', 'the name contains a slash', 'Give the name without its path, or the column path.'),
    ('nodes_cycle_check', 'the node is below itself, or below a node that is', 'Correct its parent.'),
    ('nodes_parent_missing', 'its directory is neither staged nor in the mount', 'Add a row for the directory.'),
    ('nodes_parent_elsewhere', 'its directory is on another mount', 'Choose a directory of this mount.'),
    ('nodes_not_directory', 'its parent is a file', 'Choose a directory.'),
    ('nodes_parent_deleted', 'it is live, and its directory is deleted', 'Give it a deleted_at, or restore the directory.'),
    ('nodes_derived_path_check', 'the path is not that of its parents', 'Correct it, or leave the column path out.'),
    ('nodes_local_name_check', 'the name has more than 255 bytes', 'Rename it: this is the limit of local mounts.'),
    ('import_moment_check', 'a moment is null, in the future, or before year 1', 'Correct it.'),
    ('nodes_updated_at_check', 'updated_at is in the future, or before year 1', 'Correct it.'),
    ('nodes_deleted_at_check', 'deleted_at is in the future', 'Correct it.'),
    ('nodes_stale', 'the mount has another version, and this one is not newer', 'Keep that one, or give the row a higher version and a later updated_at.'),
    ('nodes_name_taken', 'another live node has the same path', 'Rename one of them, or give it a deleted_at.'),
    ('nodes_not_empty', 'it is deleted, and holds live nodes that are not staged', 'Stage these nodes too, or delete them in the mount.'),
    ('import_parent_refused', 'its directory, or one above it, is refused', 'Correct the row of that directory.'),
    ('import_secret_check', 'a JSON value contains a secret', 'Remove it. docs/schema.md has the rule.'),
    ('nodes_missing', 'its node is not staged, or is refused', 'Stage the node too.'),
    ('import_version_check', 'the versions between this one and the current one are not one after another in time, or one of them is missing or refused', 'Correct them, or leave out what is before.'),
    ('journal_entries_pkey', 'the id is given twice, or belongs to another entry', 'Give each entry a separate id.'),
    ('command_status_check', 'the status is unknown', 'Give succeeded, failed or canceled.'),
    ('journal_entries_duration_check', 'duration_ms is below 0', 'Correct it, or leave it out: it follows from the moments.'),
    ('journal_entries_born_open_check', 'the command has not ended', 'Finish it in the old service, or give it the status canceled.'),
    ('journal_entries_idempotency_key', 'another entry has the same command and idempotency key', 'Remove the key from one of them.')
  ) as r (reason, problem, remedy) on r.reason = f.fault
  order by f.staged desc, f.number;
end
$$;

comment on function filestore.import_faults() is
  'Internal: The staged rows that cannot be imported, after filestore.plan_import.';

revoke all on function filestore.import_faults() from public;
--! EndIncluded functions/import_faults.sql

--! Included functions/stage_nodes.sql
create or replace function filestore.stage_nodes(mount_id bigint, source regclass)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  left_out   constant text[] := '{backend_mount_id,depth,live,parent_path,parent_live,directory_path,root_of_mount_id}';
  given      text[];
  columns    text;
  moments    text;
  by_parents boolean;
begin
  if source is null then
    -- An import of journal entries only.
    create temporary table filestore_import_nodes as
    select
      null::bigint  as number,
      null::integer as level,
      null::text    as given_path,
      false         as is_repeated,
      null::integer as known_version,
      null::text    as action,
      null::text    as fault,
      null::text    as problem,
      null::text    as remedy,
      n.*
    from filestore.nodes n
    limit 0;
    return '{}';
  end if;
  by_parents := exists (
    select
    from pg_attribute a
    where a.attrelid = source
      and a.attname = 'parent_id'
      and not a.attisdropped
  );
  given := array(
    select c.name
    from filestore.staged_columns(
      source, 'nodes', left_out,
      case when by_parents then '{id,parent_id,name,kind}' else '{path,kind}' end::text[]
    ) c
    where c.is_given
  );

  -- A moment that is not given follows from those that are.
  moments := format(
    'coalesce(%s, %s, %s, date_trunc(''milliseconds'', statement_timestamp())) as updated_at,
     coalesce(%s, %s, %s, date_trunc(''milliseconds'', statement_timestamp())) as created_at,
     %s as deleted_at,
     coalesce(%s, %s, %s) is not null as has_moment,
     %s as born_at',
    case when 'updated_at' = any (given) then 'date_trunc(''milliseconds'', s.updated_at)' else 'null' end,
    case when 'deleted_at' = any (given) then 'date_trunc(''milliseconds'', s.deleted_at)' else 'null' end,
    case when 'created_at' = any (given) then 'date_trunc(''milliseconds'', s.created_at)' else 'null' end,
    case when 'created_at' = any (given) then 'date_trunc(''milliseconds'', s.created_at)' else 'null' end,
    case when 'updated_at' = any (given) then 'date_trunc(''milliseconds'', s.updated_at)' else 'null' end,
    case when 'deleted_at' = any (given) then 'date_trunc(''milliseconds'', s.deleted_at)' else 'null' end,
    case when 'deleted_at' = any (given) then 'date_trunc(''milliseconds'', s.deleted_at)' else 'null::timestamptz' end,
    case when 'updated_at' = any (given) then 's.updated_at' else 'null' end,
    case when 'deleted_at' = any (given) then 's.deleted_at' else 'null' end,
    case when 'created_at' = any (given) then 's.created_at' else 'null' end,
    case when 'created_at' = any (given) then 'date_trunc(''milliseconds'', s.created_at)' else 'null::timestamptz' end
  );
  if 'state' = any (given) then
    moments := moments || ', s.state::text as state';
  else
    moments := moments || ', null::text as state';
  end if;

  select string_agg(
    format(
      '(%s)::%s as %I',
      case c.name
        when 'backend_mount_id' then '$1'
        when 'created_at' then 'm.created_at'
        when 'updated_at' then 'm.updated_at'
        when 'deleted_at' then 'coalesce(m.deleted_at, case when m.state = ''deleted'' then m.updated_at end)'
        when 'live' then 'm.deleted_at is null and m.state is distinct from ''deleted'''
        -- An unknown kind or state becomes a fault of its row.
        when 'kind' then 'case when s.kind::text in (''file'', ''directory'') then s.kind::text end'
        when 'state' then
          'case
             when m.state is null and m.deleted_at is null then ''active''
             when m.state is null then ''deleted''
             when m.state in (''active'', ''inconsistent'', ''missing'', ''deleted'') then m.state
           end'
        when 'name' then
          case when 'name' = any (given) then 's.name' else 'right(s.path, strpos(reverse(''/'' || s.path), ''/'') - 1)' end
        else c.value
      end,
      c.type,
      c.name
    ),
    ', ' order by c.place
  )
  into columns
  from (
    select s.*, row_number() over () as place
    from filestore.staged_columns(source, 'nodes', left_out, '{}') s
  ) c;

  execute format(
    'create temporary table filestore_import_raw as
     select row_number() over () as number, false as is_repeated, m.has_moment, m.born_at, %s
     from %s s
     cross join lateral (select %s) m',
    columns, source, moments
  )
  using mount_id;
  analyze pg_temp.filestore_import_raw (number, id, parent_id, path, live);

  if by_parents then
    perform filestore.place_by_parents(mount_id);
  else
    perform filestore.place_by_paths(mount_id);
  end if;
  analyze pg_temp.filestore_import_placed (number);

  -- Numbered from the top down, so that each batch finds the directories of its nodes.
  select string_agg(
    case c.name
      when 'id' then 'p.id'
      when 'parent_id' then 'p.parent_id'
      when 'path' then 'p.path'
      when 'parent_path' then 'p.parent_path'
      when 'depth' then 'cardinality(string_to_array(p.path, ''/'')) as depth'
      when 'parent_live' then 'case when r.live then true end as parent_live'
      when 'directory_path' then 'case when r.kind = ''directory'' then p.path end as directory_path'
      else format('r.%I', c.name)
    end,
    ', ' order by c.place
  )
  into columns
  from (
    select s.*, row_number() over () as place
    from filestore.staged_columns(source, 'nodes', left_out, '{}') s
  ) c;
  execute format(
    'create temporary table filestore_import_nodes as
     select
       row_number() over (order by p.level, r.number) as number,
       p.level,
       r.path as given_path,
       r.is_repeated,
       r.has_moment,
       null::integer as known_version,
       ''create''::text as action,
       null::text as fault,
       null::text as problem,
       null::text as remedy,
       %s
     from pg_temp.filestore_import_raw r
     join pg_temp.filestore_import_placed p on p.number = r.number',
    columns
  );
  drop table pg_temp.filestore_import_raw, pg_temp.filestore_import_placed;
  create index on pg_temp.filestore_import_nodes (number);
  analyze pg_temp.filestore_import_nodes (number, id, parent_id, level, live, kind, directory_path, version, fault);
  return given;
end
$$;

comment on function filestore.stage_nodes(bigint, regclass) is
  'Internal: Copies the staged nodes of an import into a temporary table, with the columns that follow from their places, from the top of the tree down, and returns the staged columns. One statement reads the staging table.';

revoke all on function filestore.stage_nodes(bigint, regclass) from public;
--! EndIncluded functions/stage_nodes.sql

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
