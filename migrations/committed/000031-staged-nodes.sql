--! Previous: sha1:a7b0bf9fc6adba2efed96f38a6a477c392ea5e0d
--! Hash: sha1:ea0a446ff41045ca3f2bdedca1ae18d32cddde7c
--! Message: Staged nodes

--! Included functions/drop_staged.sql
create or replace function filestore.drop_staged()
returns void
language sql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
  drop table if exists
    pg_temp.filestore_import_raw,
    pg_temp.filestore_import_placed,
    pg_temp.filestore_import_nodes,
    pg_temp.filestore_import_versions,
    pg_temp.filestore_import_entries,
    pg_temp.filestore_import_old;
$$;

comment on function filestore.drop_staged() is
  'Internal: Drops the temporary tables of an import, also those of a call that failed.';

revoke all on function filestore.drop_staged() from public;
--! EndIncluded functions/drop_staged.sql

--! Included functions/staged_columns.sql
create or replace function filestore.staged_columns(source regclass, target text, left_out text[], required text[])
returns table (name text, type text, value text, is_given boolean)
language plpgsql
stable
rows 30
set search_path = pg_catalog, pg_temp
as $$
declare
  wrong record;
begin
  if source is null then
    raise exception 'the table to import from is null'
      using errcode    = 'FS422',
            constraint = 'import_columns_check',
            hint       = 'Give the name of a table or view, such as ''staging.files''.';
  end if;

  select
    s.attname as name,
    case
      when t.attname is null then 'which is no column to import'
      else format('of type %s instead of %s', format_type(s.atttypid, s.atttypmod), format_type(t.atttypid, t.atttypmod))
    end as complaint,
    case
      when t.attname is null then format('Leave it out, by a view. Columns are: %s.', (
        select string_agg(c.attname, ', ' order by c.attnum)
        from pg_attribute c
        where c.attrelid = format('filestore.%I', target)::regclass
          and c.attnum > 0
          and not c.attisdropped
          and c.attname <> all (left_out)
      ))
      when s.atttypid in ('timestamp'::regtype, 'date'::regtype) then
        format('Say in which zone its moments are, in a view: %1$I at time zone ''UTC'' as %1$I.', s.attname)
      else 'Convert it in a view, where the server names a value that it cannot convert.'
    end as remedy
  into wrong
  from pg_attribute s
  left join pg_attribute t
    on t.attrelid = format('filestore.%I', target)::regclass
    and t.attname = s.attname
    and t.attnum > 0
    and not t.attisdropped
    and t.attname <> all (left_out)
  left join pg_type d on d.oid = s.atttypid
  left join pg_type e on e.oid = t.atttypid
  where s.attrelid = source
    and s.attnum > 0
    and not s.attisdropped
    and (
      t.attname is null
      -- Conversions that cannot fail, and do not depend on a setting of the caller.
      or not (
        coalesce(nullif(d.typbasetype, 0), d.oid) = coalesce(nullif(e.typbasetype, 0), e.oid)
        or coalesce(nullif(e.typbasetype, 0), e.oid) = 'text'::regtype
        or (s.atttypid in ('smallint'::regtype, 'integer'::regtype) and t.atttypid = 'bigint'::regtype)
        or (s.atttypid = 'smallint'::regtype and t.atttypid = 'integer'::regtype)
      )
    )
  order by s.attnum
  limit 1;
  if found then
    raise exception 'table % has column "%", %', source, wrong.name, wrong.complaint
      using errcode    = 'FS422',
            constraint = 'import_columns_check',
            hint       = wrong.remedy;
  end if;

  return query
  select
    t.attname::text,
    format_type(t.atttypid, t.atttypmod) || case when t.attcollation = 'pg_catalog."C"'::regcollation then ' collate "C"' else '' end,
    -- A moment of microseconds is cut off: rounded, it could be in the future.
    case
      when s.attname is null then coalesce(pg_get_expr(f.adbin, f.adrelid), 'null')
      else format(
        case when f.adbin is null then '%1$s' else 'coalesce(%1$s, %2$s)' end,
        format(case when t.atttypid = 'timestamptz'::regtype then 'date_trunc(''milliseconds'', s.%I)' else 's.%I' end, t.attname),
        pg_get_expr(f.adbin, f.adrelid)
      )
    end,
    s.attname is not null
  from pg_attribute t
  left join pg_attribute s
    on s.attrelid = source
    and s.attname = t.attname
    and s.attnum > 0
    and not s.attisdropped
    and t.attname <> all (left_out)
  left join pg_attrdef f on f.adrelid = t.attrelid and f.adnum = t.attnum
  where t.attrelid = format('filestore.%I', target)::regclass
    and t.attnum > 0
    and not t.attisdropped
  order by t.attnum;

  for wrong in
    select r.name
    from unnest(required) r (name)
    where not exists (
      select
      from pg_attribute s
      where s.attrelid = source
        and s.attname = r.name
        and s.attnum > 0
        and not s.attisdropped
    )
  loop
    raise exception 'table % has no column "%"', source, wrong.name
      using errcode    = 'FS422',
            constraint = 'import_columns_check',
            hint       = 'Add it to the table, or import from a view that has it.';
  end loop;
end
$$;

comment on function filestore.staged_columns(regclass, text, text[], text[]) is
  'Internal: For each column of a table of the schema, the expression of its value in a row "s" of a staging table: the staged column, or else its default. Raises FS422 when the staging table has another column, a type that cannot be converted, or lacks a required one.';

revoke all on function filestore.staged_columns(regclass, text, text[], text[]) from public;
--! EndIncluded functions/staged_columns.sql

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
begin
  -- The root of the staged tree is that of the mount.
  delete from pg_temp.filestore_import_raw r
  where r.path = '';

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
    and n.deleted_at = r.deleted_at
    and not n.live
    and not r.live;
  update pg_temp.filestore_import_raw r
  set id = nextval(pg_get_serial_sequence('filestore.nodes', 'id'))
  where r.id is null;

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
     %s as deleted_at',
    case when 'updated_at' = any (given) then 'date_trunc(''milliseconds'', s.updated_at)' else 'null' end,
    case when 'deleted_at' = any (given) then 'date_trunc(''milliseconds'', s.deleted_at)' else 'null' end,
    case when 'created_at' = any (given) then 'date_trunc(''milliseconds'', s.created_at)' else 'null' end,
    case when 'created_at' = any (given) then 'date_trunc(''milliseconds'', s.created_at)' else 'null' end,
    case when 'updated_at' = any (given) then 'date_trunc(''milliseconds'', s.updated_at)' else 'null' end,
    case when 'deleted_at' = any (given) then 'date_trunc(''milliseconds'', s.deleted_at)' else 'null' end,
    case when 'deleted_at' = any (given) then 'date_trunc(''milliseconds'', s.deleted_at)' else 'null::timestamptz' end
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
     select row_number() over () as number, false as is_repeated, %s
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
    select string_agg(format('t.%1$I is distinct from n.%1$I', c.name), ' or ')
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
         version       = case when $2 or c.action = ''keep'' then t.version else c.known_version + 1 end,
         updated_at    = case
           when $3 or c.action = ''keep'' then t.updated_at
           else greatest(date_trunc(''milliseconds'', statement_timestamp()), c.known_updated_at + interval ''1 millisecond'')
         end,
         -- Without versions, only the moment shows which one is newer.
         fault         = case when $3 and not $2 and c.action <> ''keep'' and t.updated_at <= c.known_updated_at then ''nodes_stale'' end
     from (
       select
         n.id,
         n.version    as known_version,
         n.updated_at as known_updated_at,
         n.created_at,
         t.state,
         case
           when t.live <> n.live or t.parent_id <> n.parent_id or t.name <> n.name or t.deleted_at <> n.deleted_at then ''move''
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
        select unnest('{id,live,parent_id,parent_path,name,version,updated_at,deleted_at}'::text[])
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

--! Included functions/has_secret.sql
create or replace function filestore.has_secret(value jsonb)
returns boolean
language sql
immutable
parallel safe
-- filestore.find_secret finds nothing without one of these words, and takes ten times as long to say so. A locale such as
-- tr compares I and i as different letters.
return case
  when value::text collate "C" ~* 'pass|pwd|pw|secret|token|key|sig|@|auth|bearer|basic|gh[opsur]_|github_pat_|glpat-|xox|_live_|_test_|sk-|AIza|hv[brs][.]|npm_|eyJ'
    then filestore.find_secret(value) is not null
  else false
end;

comment on function filestore.has_secret(jsonb) is
  'Internal: Whether a JSON value contains a secret. Fast for values without one.';

revoke all on function filestore.has_secret(jsonb) from public;
--! EndIncluded functions/has_secret.sql

--! Included functions/check_staged_rows.sql
create or replace function filestore.check_staged_rows(
  staged       text,
  target       text,
  replacements jsonb,
  first        bigint default null,
  last         bigint default null
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  broken text;
  code   text;
  said   text;
  advice text;
begin
  if first is null then
    execute format('select max(t.number) from pg_temp.%I t', staged)
    into last;
    for part in 0 .. coalesce(last, 0) / 10000 loop
      perform filestore.check_staged_rows(staged, target, replacements, part * 10000 + 1, part * 10000 + 10000);
    end loop;
    return;
  end if;

  begin
    -- The function of the check of the table, which raises an error for a row that is not sound.
    execute format(
      'select count(filestore.%I(row(%s)::filestore.%I))
       from pg_temp.%I t
       where t.number between $1 and $2
         and t.action <> ''keep''
         and t.fault is null',
      case target when 'nodes' then 'is_sound' else 'is_sound_entry' end,
      (
        select string_agg(coalesce(replacements ->> a.attname::text, format('t.%I', a.attname)), ', ' order by a.attnum)
        from pg_attribute a
        where a.attrelid = format('filestore.%I', target)::regclass
          and a.attnum > 0
          and not a.attisdropped
      ),
      target,
      staged
    )
    using first, last;
    return;
  exception
    when others then
      get stacked diagnostics
        broken = constraint_name,
        code   = returned_sqlstate,
        said   = message_text,
        advice = pg_exception_hint;
  end;

  if first < last then
    perform filestore.check_staged_rows(staged, target, replacements, first, (first + last) / 2);
    perform filestore.check_staged_rows(staged, target, replacements, (first + last) / 2 + 1, last);
  else
    execute format('update pg_temp.%I t set fault = $1, problem = $2, remedy = $3 where t.number = $4', staged)
    using coalesce(nullif(broken, ''), code), said, advice, first;
  end if;
end
$$;

comment on function filestore.check_staged_rows(text, text, jsonb, bigint, bigint) is
  'Internal: Sets the fault of each staged row, among those with the given numbers, that breaks a rule of nodes_sound_check or journal_entries_sound_check. It asks for many rows at once, and halves those that raise an error.';

revoke all on function filestore.check_staged_rows(text, text, jsonb, bigint, bigint) from public;
--! EndIncluded functions/check_staged_rows.sql

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
  select s.seqmin, s.seqmax
  into lowest, highest
  from pg_sequence s
  where s.seqrelid = pg_get_serial_sequence('filestore.nodes', 'id')::regclass;

  update pg_temp.filestore_import_nodes t
  set fault = f.fault
  from (
    select
      t.number,
      case
        when t.is_repeated then 'nodes_pkey'
        when t.id is null or t.id not between lowest and highest then 'import_id_check'
        when t.kind is null then 'node_kind_check'
        when t.state is null then 'node_state_check'
        when n.id is not null and t.known_version is null then 'nodes_pkey'
        when n.kind <> t.kind then 'nodes_fixed_check'
        when by_paths and (t.given_path ~ '(^|/)[.]{0,2}(/|$)') is not false then 'nodes_path_check'
        when t.level is null and p.id is not null then 'nodes_cycle_check'
        when coalesce(p.id, o.id) is null then 'nodes_parent_missing'
        when p.id is null and o.backend_mount_id <> mount_id then 'nodes_parent_elsewhere'
        when coalesce(p.kind, o.kind) = 'file' then 'nodes_not_directory'
        when t.live and not coalesce(p.live, o.live) then 'nodes_parent_deleted'
        when t.live and t.given_path <> t.path then 'nodes_derived_path_check'
        when is_local and octet_length(t.name) > 255 then 'nodes_local_name_check'
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
      and p.fault is not null
      and t.fault is null
      and t.action <> 'keep';
    refused := found;

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
