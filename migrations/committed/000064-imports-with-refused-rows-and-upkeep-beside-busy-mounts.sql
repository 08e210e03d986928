--! Previous: sha1:112847b88f3d556b37274e18cafa3aaf4afd907b
--! Hash: sha1:57794a87e0b1e58d02703413503198d91b66f945
--! Message: Imports with refused rows, and upkeep beside busy mounts

-- Write the next migration here, then: npm run db:commit -- -m "What it does"
drop function if exists filestore.check_staged_rows(text, text, jsonb, bigint, bigint);
drop function if exists filestore.prunable_versions(timestamptz, integer, bigint, integer);
--! Included functions/check_staged_rows.sql
create or replace function filestore.check_staged_rows(staged text, target text, replacements jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  -- The staged row as one of the table, for the function of its check, which ends in an error for an unsound one.
  checked constant text := (
    select format('row(%s)::filestore.%I', string_agg(coalesce(replacements ->> a.attname::text, format('t.%I', a.attname)), ', ' order by a.attnum), target)
    from pg_attribute a
    where a.attrelid = format('filestore.%I', target)::regclass
      and a.attnum > 0
      and not a.attisdropped
  );
  among constant text := format(
    'from pg_temp.%I t
     where t.number between $1 and $2
       and t.action <> ''keep''
       and t.fault is null',
    staged
  );
  highest bigint;
  one     record;
  broken  text;
  code    text;
  said    text;
  advice  text;
begin
  execute format('select max(t.number) from pg_temp.%I t', staged)
  into highest;
  for next_number in 1 .. coalesce(highest, 0) by 1000 loop
    begin
      execute format('select count(filestore.%I(%s)) %s', case target when 'nodes' then 'is_sound' else 'is_sound_entry' end, checked, among)
      using next_number, next_number + 999;
      continue;
    exception
      when others then
        -- One by one below, outside of this handler.
        null;
    end;

    for one in execute format('select t.number, %s as checked %s', checked, among)
      using next_number, next_number + 999
    loop
      begin
        if target = 'nodes' then
          perform filestore.is_sound(one.checked);
        else
          perform filestore.is_sound_entry(one.checked);
        end if;
      exception
        when others then
          get stacked diagnostics
            broken = constraint_name,
            code   = returned_sqlstate,
            said   = message_text,
            advice = pg_exception_hint;
          execute format('update pg_temp.%I t set fault = $1, problem = $2, remedy = $3 where t.number = $4', staged)
          using coalesce(nullif(broken, ''), code), said, advice, one.number;
      end;
    end loop;
  end loop;
end
$$;

comment on function filestore.check_staged_rows(text, text, jsonb) is
  'Internal: Sets the fault of each staged row that breaks a rule of nodes_sound_check or journal_entries_sound_check. It asks for 1,000 rows at once, and for each of those that raise an error.';

revoke all on function filestore.check_staged_rows(text, text, jsonb) from public;
--! EndIncluded functions/check_staged_rows.sql
--! Included functions/spread_refusals.sql
create or replace function filestore.spread_refusals()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- Each step looks up the rows that depend on those of the step before. Any other join would read all rows in each step.
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
-- Only one index has the rows of a parent in order of name, and it is taken even if the statistics know of one parent only.
set enable_sort = off
as $$
begin
  create index on pg_temp.filestore_import_nodes (id);
  create index on pg_temp.filestore_import_nodes (parent_id, name);
  -- All at once: a chain of directories, or of files each of which takes the name of the next one, would take a round for each.
  with recursive dependent (id, fault, stays) as (
    (
      select t.id, t.fault, t.fault is null
      from pg_temp.filestore_import_nodes t
      where t.fault is not null
         or t.action = 'stay'
      union all
      -- A live node of the mount that is not staged has the place, or is in a directory that would be deleted.
      select t.id, 'nodes_name_taken', false
      from pg_temp.filestore_import_nodes t
      join filestore.nodes n on n.parent_id = t.parent_id and n.name = t.name
      where n.parent_live
        and t.live
        and t.fault is null
        and not exists (
          select
          from pg_temp.filestore_import_nodes o
          where o.id = n.id
        )
      union all
      select t.id, 'nodes_not_empty', false
      from pg_temp.filestore_import_nodes t
      join filestore.nodes n on n.parent_id = t.id
      where n.parent_live
        and t.action = 'move'
        and not t.live
        and t.fault is null
        and not exists (
          select
          from pg_temp.filestore_import_nodes o
          where o.id = n.id
        )
    )
    union
    select l.id, l.fault, l.fault is null
    from dependent d
    cross join lateral (
      (
        select t.id, case when t.action <> 'keep' then 'import_parent_refused' end as fault
        from pg_temp.filestore_import_nodes t
        left join filestore.nodes n on n.id = t.id
        where t.parent_id = d.id
          and t.fault is null
          and t.action <> 'stay'
          -- A directory that is equal, but does not get the path with which the rows in it are planned, is not refused, and stays.
          and (t.action <> 'keep' or (n.path <> t.path and t.directory_path is not null and t.live))
        order by t.name
      )
      union all
      -- The same for a node that is refused, and so keeps its place.
      select t.id, 'nodes_name_taken'
      from filestore.nodes n
      join pg_temp.filestore_import_nodes t on t.parent_id = n.parent_id and t.name = n.name
      where n.id = d.id
        and n.parent_live
        and not d.stays
        and t.id <> n.id
        and t.live
        and t.fault is null
      union all
      select t.id, 'nodes_not_empty'
      from filestore.nodes n
      join pg_temp.filestore_import_nodes t on t.id = n.parent_id
      where n.id = d.id
        and n.parent_live
        and not d.stays
        and t.action = 'move'
        and not t.live
        and t.fault is null
    ) l
  )
  update pg_temp.filestore_import_nodes t
  set fault  = d.fault,
      action = case when d.fault is null then 'stay' else t.action end
  from (
    select o.id, min(o.fault collate "C") as fault
    from dependent o
    group by o.id
  ) d
  where t.id = d.id
    and t.fault is null;
end
$$;

comment on function filestore.spread_refusals() is
  'Internal: Refuses the staged nodes that depend on refused ones, since a node that is refused stays where it is: those in it, those that would take its place, and directories that would be deleted with it.';

revoke all on function filestore.spread_refusals() from public;
--! EndIncluded functions/spread_refusals.sql
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
--! Included functions/stage_nodes.sql
create or replace function filestore.stage_nodes(mount_id bigint, source regclass)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- Rows that a policy hides would be missing without a word.
set row_security = off
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
  -- With what is updated, so that no row gets a newer version in its page: the transaction that then creates another index could
  -- not use that one.
  create index on pg_temp.filestore_import_nodes (number, fault, action);
  analyze pg_temp.filestore_import_nodes (number, id, parent_id, level, live, kind, directory_path, version, fault);
  return given;
end
$$;

comment on function filestore.stage_nodes(bigint, regclass) is
  'Internal: Copies the staged nodes of an import into a temporary table, with the columns that follow from their places, from the top of the tree down, and returns the staged columns. One statement reads the staging table.';

revoke all on function filestore.stage_nodes(bigint, regclass) from public;
--! EndIncluded functions/stage_nodes.sql
--! Included functions/stage_versions.sql
create or replace function filestore.stage_versions(mount_id bigint, source regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- Rows that a policy hides would be missing without a word.
set row_security = off
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
        -- It has no default here: null is refused, and listed as null.
        when c.name = 'version' then 'v.version'
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
--! Included functions/stage_entries.sql
create or replace function filestore.stage_entries(mount_id bigint, source regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- Rows that a policy hides would be missing without a word.
set row_security = off
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
--! Included functions/place_by_parents.sql
create or replace function filestore.place_by_parents(mount_id bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_nestloop = off
as $$
declare
  root_id  bigint := (select n.id from filestore.nodes n where n.root_of_mount_id = mount_id);
  root_ids bigint[];
begin
  -- The root of the staged tree is that of the mount.
  with removed as (
    delete from pg_temp.filestore_import_raw r
    where r.parent_id is null
      and coalesce(r.name, '') = ''
    returning r.id
  )
  select array_agg(r.id)
  into root_ids
  from removed r;
  root_ids := array_remove(root_ids || root_id, null);

  update pg_temp.filestore_import_raw r
  set is_repeated = true
  where r.id in (
    select o.id
    from pg_temp.filestore_import_raw o
    group by o.id
    having count(*) > 1
  );
  create temporary table filestore_import_placed as
  with recursive placed as (
    select r.number, r.id, r.is_repeated, 1 as level, r.name as path, root_id as parent_id, ''::text collate "C" as parent_path
    from pg_temp.filestore_import_raw r
    where r.parent_id is null
       or r.parent_id = any (root_ids)
    union all
    -- In a directory that only the mount has.
    select r.number, r.id, r.is_repeated, n.depth + 1, n.path || '/' || r.name, n.id, n.path
    from pg_temp.filestore_import_raw r
    join filestore.nodes n on n.id = r.parent_id
    where n.backend_mount_id = mount_id
      and n.parent_id is not null
      -- An id of the staged root may be that of another node here.
      and r.parent_id <> all (root_ids)
      and not exists (
        select
        from pg_temp.filestore_import_raw p
        where p.id = r.parent_id
      )
    union all
    select r.number, r.id, r.is_repeated, p.level + 1, p.path || '/' || r.name, p.id, p.path
    from placed p
    join pg_temp.filestore_import_raw r on r.parent_id = p.id
    where not p.is_repeated
      and r.parent_id <> all (root_ids)
      -- No node has a longer path.
      and octet_length(p.path) <= 2600
  )
  select
    r.number,
    r.id,
    p.level,
    case when r.live or r.path is null then p.path else r.path end as path,
    coalesce(p.parent_id, r.parent_id) as parent_id,
    -- A tombstone keeps the path that it had.
    case when r.live or r.path is null then p.parent_path else left(r.path, -strpos(reverse(r.path), '/')) end as parent_path
  from pg_temp.filestore_import_raw r
  left join placed p on p.number = r.number;
end
$$;

comment on function filestore.place_by_parents(bigint) is
  'Internal: Finds the paths of staged nodes that have the ids of their parents. Those that cannot be reached from the root have no level.';

revoke all on function filestore.place_by_parents(bigint) from public;
--! EndIncluded functions/place_by_parents.sql
--! Included functions/fold_rollups.sql
create or replace function filestore.fold_rollups(max_deltas integer default 10000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  -- Their directories are removed in any order, and the deltas with them.
  erasing   bigint[] := filestore.erasing_mounts();
  mount_ids bigint[];
  mount_id  bigint;
  locked    bigint[] := '{}';
  busy      bigint[] := '{}';
  taken     integer;
  node_ids  bigint[];
  sizes     numeric[];
  files     numeric[];
  dirs      numeric[];
  children  numeric[];
  changed   bigint;
begin
  perform filestore.require_first_write('filestore.fold_rollups');
  perform filestore.check_limit('max_deltas', max_deltas);

  -- All transactions of the server share its table of locks, hence the limit. The mounts of the oldest deltas come first,
  -- and the next call takes the next ones. It waits for a long move, such as of a million nodes, only when no other mount has
  -- deltas, and while it holds no lock, since writers would wait too.
  loop
    mount_ids := array(
      select d.backend_mount_id
      from (
        select r.id, r.backend_mount_id
        from filestore.rollup_deltas r
        where r.backend_mount_id <> all (erasing || busy)
        order by r.id
        limit max_deltas
      ) d
      group by d.backend_mount_id
      order by min(d.id)
      limit 100
    );
    foreach mount_id in array mount_ids loop
      if filestore.try_lock_tree(mount_id, false) then
        locked := locked || mount_id;
      else
        busy := busy || mount_id;
      end if;
    end loop;
    exit when locked <> '{}' or mount_ids = '{}';
  end loop;
  if locked = '{}' and busy <> '{}' then
    perform filestore.lock_tree(busy[1], false);
    locked := busy[1:1];
  end if;

  -- A separate statement after the locks, so that it sees the locked tree. It never takes "all ids up to this one",
  -- because a delta with a smaller id may commit later.
  with taken_deltas as (
    delete from filestore.rollup_deltas d
    where d.ctid = any (array(
      select r.ctid
      from filestore.rollup_deltas r
      where r.backend_mount_id = any (locked)
      order by r.id
      limit max_deltas
      for update skip locked
    ))
    returning d.directory_id, d.size_delta, d.file_delta, d.dir_delta, d.child_delta
  )
  select
    coalesce(sum(c.deltas), 0),
    array_agg(c.directory_id),
    array_agg(c.size_delta),
    array_agg(c.file_delta),
    array_agg(c.dir_delta),
    array_agg(c.child_delta)
  into taken, node_ids, sizes, files, dirs, children
  from (
    select
      t.directory_id,
      sum(t.size_delta)  as size_delta,
      sum(t.file_delta)  as file_delta,
      sum(t.dir_delta)   as dir_delta,
      sum(t.child_delta) as child_delta,
      count(*)           as deltas
    from taken_deltas t
    group by t.directory_id
  ) c;

  select c.*
  into node_ids, sizes, files, dirs, children
  from filestore.climb_totals(node_ids, sizes, files, dirs, children) c;

  -- In order of id, so that concurrent folds do not deadlock.
  perform
  from filestore.rollups r
  where r.node_id = any (node_ids)
  order by r.node_id
  for no key update;

  update filestore.rollups r
  set size_bytes  = r.size_bytes + t.size_delta,
      file_count  = r.file_count + t.file_delta,
      dir_count   = r.dir_count + t.dir_delta,
      child_count = r.child_count + t.child_delta,
      updated_at  = date_trunc('milliseconds', statement_timestamp())
  from unnest(node_ids, sizes, files, dirs, children) as t (node_id, size_delta, file_delta, dir_delta, child_delta)
  where r.node_id = t.node_id;

  get diagnostics changed = row_count;
  if changed <> coalesce(cardinality(node_ids), 0) then
    raise exception '% directories have totals to change, but only % of them have a row in rollups', cardinality(node_ids), changed
      using errcode    = 'FS409',
            constraint = 'rollups_missing',
            hint       = 'Call filestore.fold_rollups again. If it fails again, list the directories with filestore.check_integrity() and call filestore.recount_rollups.';
  end if;
  return taken;
end
$$;

comment on function filestore.fold_rollups(integer) is
  'Adds at most max_deltas pending deltas, of at most 100 mounts, to the totals of every directory above them, and returns how many; 0 when none are left, or another fold has locked them. A mount whose tree others have locked is left to the next call, unless all are. The totals that filestore.directory_totals returns do not change: reading them becomes cheaper.';

revoke all on function filestore.fold_rollups(integer) from public;
--! EndIncluded functions/fold_rollups.sql
--! Included functions/purge_deleted.sql
create or replace function filestore.purge_deleted(older_than interval, batch integer default 1000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Only one index has the tombstones of a parent in order of name, and it is taken even if the statistics know of none.
set enable_sort = off
as $$
declare
  deadline  timestamptz;
  mount_ids bigint[];
  mount_id  bigint;
  pending   bigint[];
  chosen    bigint[];
  removed   integer;
  refusal   text;
  tried     integer := 0;
  is_locked boolean := false;
  purged    integer := 0;
begin
  perform filestore.check_retention(older_than, batch);
  perform filestore.require_first_write('filestore.purge_deleted');
  -- Retention counts from updated_at, since the writer of a deletion chooses deleted_at. deleted_at is never later than
  -- updated_at, so its condition excludes no more rows, and has an index.
  deadline := statement_timestamp() - older_than;
  pending := array(
    select distinct d.directory_id
    from filestore.rollup_deltas d
  );

  -- All transactions of the server share its table of locks, hence the limit. The next call takes the next mounts, since only
  -- those with a tombstone that it can remove count. "Offset 0" looks into one mount after the other.
  mount_ids := array(
    select m.id
    from filestore.backend_mounts m
    -- The proof at a cut-over reads new rows only, so nothing is removed while a mount moves.
    where m.held_by is null
      and exists (
        select
        from filestore.nodes n
        where n.backend_mount_id = m.id
          and n.deleted_at < deadline
          and n.updated_at < deadline
          and n.id not in (select unnest(pending))
          and not exists (
            select
            from filestore.nodes c
            where c.parent_id = n.id
              and not c.live
            order by c.name
            offset 0
          )
        offset 0
      )
    order by m.id
    limit 100
  );
  -- The first one again at the end, to wait for it when others have locked all of them. While it waits, it holds no lock: writers
  -- would wait with it.
  foreach mount_id in array mount_ids || mount_ids[1:1] loop
    tried := tried + 1;
    if tried > cardinality(mount_ids) then
      exit when is_locked;
      perform filestore.lock_tree(mount_id, true);
    elsif not filestore.try_lock_tree(mount_id, true) then
      continue;
    end if;
    is_locked := true;
    -- A directory with pending deltas stays: its deltas still have to be added to the directories above it.
    pending := array(
      select distinct d.directory_id
      from filestore.rollup_deltas d
      where d.backend_mount_id = mount_id
    );

    -- Each round removes tombstones without children, with those above that have no other child. So the number of rounds
    -- grows with the branches of a tree, and not with its depth. "Offset 0" and the order by name keep the search for
    -- children a lookup. Otherwise the planner reads all tombstones for each one, when its statistics
    -- know of none yet, or all nodes, when directories are large.
    while purged < batch loop
      chosen := array(
        select n.id
        from filestore.nodes n
        where n.backend_mount_id = mount_id
          and n.deleted_at < deadline
          and n.updated_at < deadline
          and n.id not in (select unnest(pending))
          and not exists (
            select
            from filestore.nodes c
            where c.parent_id = n.id
              and not c.live
            order by c.name
            offset 0
          )
        order by n.deleted_at, n.depth desc
        limit batch - purged
      );
      exit when chosen = '{}';
      chosen := array(
        with recursive above (id, parent_id) as (
          select n.id, n.parent_id
          from filestore.nodes n
          where n.id = any (chosen)
          union all
          select n.id, n.parent_id
          from above a
          cross join lateral (
            select p.id, p.parent_id
            from filestore.nodes p
            -- "Coalesce" as below: this is a lookup of one node.
            where p.id = a.parent_id
              and coalesce(p.deleted_at, 'infinity') < deadline
              and p.updated_at < deadline
              and p.id not in (select unnest(pending))
              and not exists (
                select
                from filestore.nodes c
                where c.parent_id = p.id
                  and not c.live
                  and c.id <> a.id
                order by c.name
                offset 0
              )
            offset 0
          ) n
        )
        select a.id
        from above a
        limit batch - purged
      );
      begin
        delete from filestore.nodes n
        -- Checked again, since a node may have been restored and deleted again in the meantime. "Coalesce" makes the
        -- planner use the primary key and not the indexes on tombstones.
        where n.id = any (chosen)
          and coalesce(n.deleted_at, 'infinity') < deadline
          and n.updated_at < deadline;
        get diagnostics removed = row_count;
      exception
        when sqlstate 'FS409' then
          get stacked diagnostics refusal = constraint_name;
          -- The mount has begun to move: the call goes on with the next one.
          exit when refusal = 'backend_mounts_moving' and exists (
            select
            from filestore.backend_mounts m
            where m.id = mount_id
              and m.held_by is not null
          );
          if refusal not in ('nodes_not_empty', 'rollup_deltas_pending') then
            raise;
          end if;
          -- A tombstone was changed in the meantime, so it is younger now, or nodes below it were deleted. The next round
          -- leaves those above it, and those that have pending deltas now.
          removed := 0;
          pending := array(
            select distinct d.directory_id
            from filestore.rollup_deltas d
            where d.backend_mount_id = mount_id
          );
      end;
      purged := purged + removed;
    end loop;
    exit when purged >= batch;
  end loop;
  return purged;
end
$$;

comment on function filestore.purge_deleted(interval, integer) is
  'Removes at most batch tombstones whose last change is longer than older_than ago, with their history, the oldest and deepest first, and returns how many. One call takes at most 100 mounts, and leaves those to the next call whose trees others have locked, unless all are. Repeat it until it returns 0. Skips directories that have pending deltas.';

revoke all on function filestore.purge_deleted(interval, integer) from public;
--! EndIncluded functions/purge_deleted.sql
--! Included functions/prunable_versions.sql
create or replace function filestore.prunable_versions(
  deadline      timestamptz,
  keep_versions integer,
  after_id      bigint,
  batch         integer,
  left_out      bigint[]
)
returns table (node_id bigint, first_version integer, last_version integer, backend_mount_id bigint)
language plpgsql
stable
rows 1000
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with recursive oldest as (
    -- One lookup for each node that has history. The newer versions of a node are not read.
    (
      select s.id, s.version, s.valid_to, s.backend_mount_id
      from filestore.snapshots s
      where s.id > after_id
      order by s.id, s.version
      limit 1
    )
    union all
    select n.id, n.version, n.valid_to, n.backend_mount_id
    from oldest o
    cross join lateral (
      select s.id, s.version, s.valid_to, s.backend_mount_id
      from filestore.snapshots s
      where s.id > o.id
      order by s.id, s.version
      limit 1
    ) n
  )
  select c.id, c.first_version, max(c.version), c.backend_mount_id
  from (
    -- The limit ends the recursion. "Offset 0" keeps the lookups.
    select o.id, o.version as first_version, v.version, o.backend_mount_id
    from oldest o
    cross join lateral (
      select n.version
      from filestore.nodes n
      where n.id = o.id
        and n.live
      offset 0
    ) n
    cross join lateral (
      select s.version
      from filestore.snapshots s
      where s.id = o.id
        and s.version < n.version - keep_versions
        and s.valid_to < deadline
      order by s.version
      limit batch
    ) v
    where o.valid_to < deadline
      and o.version < n.version - keep_versions
      and o.backend_mount_id <> all (left_out)
    limit batch
  ) c
  group by c.id, c.first_version, c.backend_mount_id
  order by c.id;
end
$$;

comment on function filestore.prunable_versions(timestamptz, integer, bigint, integer, bigint[]) is
  'Internal: Up to batch versions that filestore.prune_history may remove, of nodes with ids above after_id in other mounts than left_out: for each node a range that begins with its oldest version.';

revoke all on function filestore.prunable_versions(timestamptz, integer, bigint, integer, bigint[]) from public;
--! EndIncluded functions/prunable_versions.sql
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
  left_out       bigint[];
  busy           bigint[] := '{}';
  locked         bigint[];
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

  -- The history of these is being removed, or copied to another server.
  left_out := filestore.moving_mounts(true) || filestore.erasing_mounts();
  loop
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
      from filestore.prunable_versions(deadline, keep_versions, first_id, batch, left_out || busy) p;
      exit when node_ids is not null;
    end loop;
    if node_ids is null then
      exit when busy = '{}';
      -- It waits only when no other mount has such versions, and while it holds no lock: writers would wait with it.
      perform
      from filestore.backend_mounts m
      where m.id = busy[1]
      for no key update;
      left_out := left_out || busy[2:];
      busy     := '{}';
      continue;
    end if;

    -- A scan or a move that begins waits until the horizon is recorded. Those that have begun are known after the lock.
    locked := array(
      select m.id
      from filestore.backend_mounts m
      where m.id = any (mount_ids)
      order by m.id
      for no key update skip locked
    );
    exit when locked <> '{}';
    busy := busy || mount_ids;
  end loop;
  update filestore.history_cursor c
  set position = coalesce(last_id, 0);
  if node_ids is null then
    return 0;
  end if;

  mount_ids := array(
    select unnest(locked)
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
  'Removes at most batch superseded versions of live nodes that ended longer than older_than ago, the oldest of each node first, and returns how many. Each node keeps its newest keep_versions superseded versions. Repeat it until it returns 0. backend_mounts.history_horizon is the moment up to which versions were removed. Leaves out mounts that move, are being erased, or are locked by others unless all are, and what was written since the oldest running scan began.';

revoke all on function filestore.prune_history(interval, integer, integer) from public;
--! EndIncluded functions/prune_history.sql
