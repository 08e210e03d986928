--! Previous: sha1:ea0a446ff41045ca3f2bdedca1ae18d32cddde7c
--! Hash: sha1:f340ec1edbd43613fcd574927a175438367cb064
--! Message: Staged history and faults

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
         coalesce(lead(s.updated_at) over later, s.node_updated_at) as until,
         case when s.version < s.known_version then ''keep'' else ''create'' end as action,
         case
           when s.node_version is null then ''nodes_missing''
           when s.bad_state then ''node_state_check''
           when s.version <> coalesce(lead(s.version) over later, s.node_version) - 1
                or s.version < 1
                or s.updated_at >= coalesce(lead(s.updated_at) over later, s.node_updated_at)
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
           t.number      as node_number,
           t.version     as node_version,
           t.known_version,
           t.updated_at  as node_updated_at,
           t.created_at  as node_created_at,
           t.kind        as node_kind,
           case when (s.version > t.known_version) is not false then t.parent_id else n.parent_id end     as node_parent_id,
           case when (s.version > t.known_version) is not false then t.parent_path else n.parent_path end as node_above
         from (select %s from %s s) s
         left join pg_temp.filestore_import_nodes t on t.id = s.id and t.fault is null
         left join filestore.nodes n on n.id = s.id and t.known_version is not null
       ) s
       window later as (partition by s.id order by s.version)
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

--! Included functions/stage_entries.sql
create or replace function filestore.stage_entries(mount_id bigint, source regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  given   text[];
  columns text;
  moments text[];
begin
  if source is null then
    create temporary table filestore_import_entries as
    select null::bigint as number, false as is_repeated, 'create'::text as action, null::text as fault, null::text as problem, null::text as remedy, j.*
    from filestore.journal_entries j
    limit 0;
    return;
  end if;
  given := array(
    select c.name
    from filestore.staged_columns(source, 'journal_entries', '{backend_mount_id}', '{id,command,status}') c
    where c.is_given
  );

  -- A moment that is not given follows from those that are.
  moments := array(
    select case when m.name = any (given) then format('date_trunc(''milliseconds'', s.%I)', m.name) else 'null::timestamptz' end
    from unnest('{created_at,started_at,completed_at}'::text[]) with ordinality m (name, place)
    order by m.place
  );
  select string_agg(
    format(
      '(%s)::%s as %I',
      case
        when c.name = 'backend_mount_id' then '$1'
        when c.name = 'status' then 'case when s.status::text in (''queued'', ''running'', ''succeeded'', ''failed'', ''canceled'') then s.status::text end'
        when c.name = 'created_at' then format('coalesce(%s, %s, %s, date_trunc(''milliseconds'', statement_timestamp()))', moments[1], moments[2], moments[3])
        when c.name = 'completed_at' then format('coalesce(%s, %s, %s, date_trunc(''milliseconds'', statement_timestamp()))', moments[3], moments[2], moments[1])
        when c.name = 'started_at' then
          format(
            'coalesce(%s, case when s.status::text = ''succeeded'' then coalesce(least(%s, %s), date_trunc(''milliseconds'', statement_timestamp())) end)',
            moments[2], moments[1], moments[3]
          )
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
    from filestore.staged_columns(source, 'journal_entries', '{backend_mount_id}', '{}') s
  ) c;
  execute format(
    'create temporary table filestore_import_entries as
     select
       row_number() over (order by s.id) as number,
       count(*) over (partition by s.id) > 1 as is_repeated,
       ''create''::text as action,
       null::text as fault,
       null::text as problem,
       null::text as remedy,
       %s
     from %s s',
    columns, source
  )
  using mount_id;
  create index on pg_temp.filestore_import_entries (number);
  analyze pg_temp.filestore_import_entries (number, id, command, idempotency_key, fault);
end
$$;

comment on function filestore.stage_entries(bigint, regclass) is
  'Internal: Copies the staged journal entries of an import into a temporary table. Without a table, there are none.';

revoke all on function filestore.stage_entries(bigint, regclass) from public;
--! EndIncluded functions/stage_entries.sql

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
  select s.seqmin, s.seqmax
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
begin
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
  set fault = 'import_secret_check'
  where v.fault is null
    and v.action <> 'keep'
    and v.metadata <> '{}'
    and filestore.has_secret(v.metadata);
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

  perform filestore.stage_entries(mount_id, entries);
  perform filestore.check_staged_entries(mount_id);
  return given;
end
$$;

comment on function filestore.plan_import(text, regclass, regclass, regclass) is
  'Internal: Copies what is staged for an import into temporary tables, and sets the fault of each row that cannot be imported. Returns the staged columns of nodes.';

revoke all on function filestore.plan_import(text, regclass, regclass, regclass) from public;
--! EndIncluded functions/plan_import.sql

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
    ('import_id_check', 'the id is null, or not in the range of this database', 'Give an id from the range that docs/schema.md describes, or leave the column id out.'),
    ('node_kind_check', 'the kind is neither file nor directory', 'Give one of them.'),
    ('node_state_check', 'the state is unknown', 'Give active, inconsistent, missing or deleted.'),
    ('nodes_fixed_check', 'the node has another kind in the mount', 'Give the new node another id, and the old one a deleted_at.'),
    ('nodes_path_check', 'the path is not canonical', 'Give it without a slash at its beginning or end, and without empty segments, "." and "..", as filestore.canonical_path does.'),
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
    ('import_parent_refused', 'its directory is refused', 'Correct the row of the directory.'),
    ('import_secret_check', 'a JSON value contains a secret', 'Remove it. docs/schema.md has the rule.'),
    ('nodes_missing', 'its node is not staged, or is refused', 'Stage the node too.'),
    ('import_version_check', 'the versions between this one and the current one are not one after another in time, or one of them is missing or refused', 'Correct them, or leave out what is before.'),
    ('journal_entries_pkey', 'the id is given twice, or belongs to another entry', 'Give each entry a separate id.'),
    ('command_status_check', 'the status is unknown', 'Give succeeded, failed or canceled.'),
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

--! Included functions/check_import.sql
create or replace function filestore.check_import(
  mount_key text,
  nodes     regclass,
  versions  regclass default null,
  entries   regclass default null
)
returns table (staged text, id bigint, version integer, path text, reason text, problem text, remedy text)
language plpgsql
rows 1000
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.plan_import(check_import.mount_key, check_import.nodes, check_import.versions, check_import.entries);
  return query
  select *
  from filestore.import_faults();
  perform filestore.drop_staged();
end
$$;

comment on function filestore.check_import(text, regclass, regclass, regclass) is
  'Lists the rows that filestore.import_nodes cannot take from staging tables, with their reasons, and changes nothing. No row means that it takes all. For the owner of the schema. FS404 when the mount does not exist, FS409 when it moves, is erased or scanned, FS422 when a table has an unknown column, or one of another type.';

revoke all on function filestore.check_import(text, regclass, regclass, regclass) from public;
--! EndIncluded functions/check_import.sql
