--! Previous: sha1:ad904e9081058ef3a863d43436227cf16d5b6b0e
--! Hash: sha1:d821fad96d4e24ee7df33a07fcb52b588927f0f4
--! Message: Faults that an import finds

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
