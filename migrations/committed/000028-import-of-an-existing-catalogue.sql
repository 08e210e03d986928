--! Previous: sha1:dca5ba948ae63e4cc1d68dee9baab22857dc149d
--! Hash: sha1:5cc2202c71df32123e2bfcde0d2351fa86faa316
--! Message: Import of an existing catalogue

create table if not exists filestore.imports (
  id               bigint         generated always as identity,
  backend_mount_id bigint         not null,
  takes_nodes      boolean        not null,
  given_columns    text[]         not null default '{}',
  nodes            bigint         not null default 0,
  versions         bigint         not null default 0,
  entries          bigint         not null default 0,
  refused          bigint         not null default 0,
  transaction_id   xid8,
  started_at       timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),
  updated_at       timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),
  finished_at      timestamptz(3),

  constraint imports_pkey
    primary key (id)
);

comment on table  filestore.imports                  is 'Progress of filestore.import_nodes, one row per call. Only the owner writes it.';
comment on column filestore.imports.id               is 'Number of the import.';
comment on column filestore.imports.backend_mount_id is 'The mount that gets the nodes. The row stays when the mount is deleted.';
comment on column filestore.imports.takes_nodes      is 'Whether it imports nodes, and not only journal entries. One of each kind can run for a mount at once.';
comment on column filestore.imports.given_columns    is 'Columns of nodes that the staging table has.';
comment on column filestore.imports.nodes            is 'Nodes that were created or changed so far.';
comment on column filestore.imports.versions         is 'Superseded versions that were imported so far.';
comment on column filestore.imports.entries          is 'Journal entries that were imported so far.';
comment on column filestore.imports.refused          is 'Staged rows that cannot be imported.';
comment on column filestore.imports.transaction_id   is 'The transaction that imports a batch now; null between batches. Only this transaction may write tombstones, versions and history.';
comment on column filestore.imports.started_at       is 'When it began.';
comment on column filestore.imports.updated_at       is 'When the last batch ended.';
comment on column filestore.imports.finished_at      is 'When it ended, or another import into the mount began; null before.';

--! Included functions/is_import.sql
create or replace function filestore.is_import(mount_id bigint)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Any role can set filestore.backfill_id. Only the owner can write to imports, so its transaction_id is the proof.
  return coalesce(current_setting('filestore.backfill_id', true), '') = 'import' and exists (
    select
    from filestore.imports i
    where i.transaction_id = pg_current_xact_id_if_assigned()
      and (i.backend_mount_id = is_import.mount_id or is_import.mount_id is null)
  );
end
$$;

comment on function filestore.is_import(bigint) is
  'Internal: Whether the transaction is a batch of filestore.import_nodes into a mount; null means any mount.';

revoke all on function filestore.is_import(bigint) from public;
--! EndIncluded functions/is_import.sql
--! Included functions/is_backfill.sql
create or replace function filestore.is_backfill(before jsonb, after jsonb)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('filestore.backfill_id', true) = 'import' then
    return filestore.is_import((after ->> 'backend_mount_id')::bigint);
  end if;
  -- Any role can set filestore.backfill_id. Only the owner can write to backfills, so its transaction_id is the proof.
  return exists (
    select
    from filestore.backfills b
    where b.id::text = current_setting('filestore.backfill_id', true)
      and b.transaction_id = pg_current_xact_id_if_assigned()
      and before -> b.column_name = 'null'
      and before - b.column_name = after - b.column_name
  );
end
$$;

comment on function filestore.is_backfill(jsonb, jsonb) is
  'Internal: Whether a row keeps the version that it is given: a batch of filestore.backfill is its only change, or an import writes it. Called when the setting filestore.backfill_id is set.';

revoke all on function filestore.is_backfill(jsonb, jsonb) from public;
--! EndIncluded functions/is_backfill.sql
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
--! Included functions/reserve_ids.sql
create or replace function filestore.reserve_ids(table_name text, highest bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  sequence constant regclass := pg_get_serial_sequence(format('filestore.%I', table_name), 'id');
  range    pg_sequence;
begin
  select *
  into range
  from pg_sequence s
  where s.seqrelid = sequence;
  if highest >= range.seqmax then
    raise exception 'ids of filestore.% end at %', table_name, range.seqmax
      using errcode    = 'FS422',
            constraint = 'import_id_check',
            hint       = 'Give an id of this range.';
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
  -- Of two calls for one mount, the later one goes on. It plans when the batch of the other one has ended.
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
  -- with version 1.
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
      and t.action <> 'keep'
      and case
        when t.known_version is null then coalesce(v.first_version, t.version) > 1
        else t.version > t.known_version + 1 and coalesce(v.first_version, t.version) > t.known_version
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
  perform set_config('filestore.backfill_id', 'import', true);
  return import;
end
$$;

comment on function filestore.begin_import_batch(bigint, boolean) is
  'Internal: Lets the transaction write what only an import may write, into the mount of that import.';

revoke all on function filestore.begin_import_batch(bigint, boolean) from public;
--! EndIncluded functions/begin_import_batch.sql
--! Included functions/end_import_batch.sql
create or replace function filestore.end_import_batch(import_id bigint, nodes bigint, versions bigint, entries bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('filestore.backfill_id', '', true);
  update filestore.imports i
  set nodes          = i.nodes + end_import_batch.nodes,
      versions       = i.versions + end_import_batch.versions,
      entries        = i.entries + end_import_batch.entries,
      -- A copy of this row on another server must not allow a later transaction with this number.
      transaction_id = null,
      updated_at     = date_trunc('milliseconds', clock_timestamp())
  where i.id = import_id;
end
$$;

comment on function filestore.end_import_batch(bigint, bigint, bigint, bigint) is
  'Internal: Counts what a batch imported, and ends its right to write it.';

revoke all on function filestore.end_import_batch(bigint, bigint, bigint, bigint) from public;
--! EndIncluded functions/end_import_batch.sql
--! Included functions/change_staged.sql
create or replace function filestore.change_staged(given text[], extra text[], numbers bigint[])
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  changed bigint;
begin
  if numbers = '{}' then
    return 0;
  end if;
  execute format(
    'update filestore.nodes n
     set %s
     from pg_temp.filestore_import_nodes t
     where t.number = any ($1)
       and n.id = t.id
       and n.version = t.known_version',
    (
      select string_agg(format('%1$I = t.%1$I', c.name), ', ')
      from (
        select unnest(given)
        except
        select unnest('{id,kind,path,parent_id,name,created_at,deleted_at}'::text[])
        union
        select unnest('{state,version,updated_at}'::text[] || extra)
      ) c (name)
    )
  )
  using numbers;
  get diagnostics changed = row_count;
  if changed <> cardinality(numbers) then
    raise exception '% nodes were changed in the mount while they were imported', cardinality(numbers) - changed
      using errcode    = 'FS409',
            constraint = 'import_disturbed',
            hint       = 'Import again: the next call compares them with the rows that are staged then.';
  end if;
  return changed;
end
$$;

comment on function filestore.change_staged(text[], text[], bigint[]) is
  'Internal: Gives nodes that the mount has already the values of their staged rows: the staged columns of content, the version, and some further columns. FS409 when others have changed one of them since the import was planned.';

revoke all on function filestore.change_staged(text[], text[], bigint[]) from public;
--! EndIncluded functions/change_staged.sql
--! Included functions/create_staged.sql
create or replace function filestore.create_staged(numbers bigint[], looks_up_parents boolean)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  columns text;
  created bigint;
begin
  select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
  into columns
  from pg_attribute a
  where a.attrelid = 'filestore.nodes'::regclass
    and a.attnum > 0
    and not a.attisdropped
    and a.attname not in ('parent_path', 'root_of_mount_id');
  execute format(
    'insert into filestore.nodes (parent_path, %1$s)
     overriding system value
     select
       -- The parent may have another path than it had when the import was planned.
       case when $2 and t.live then null else t.parent_path end, %1$s
     from pg_temp.filestore_import_nodes t
     where t.number = any ($1)
     order by t.number',
    columns
  )
  using numbers, looks_up_parents;
  get diagnostics created = row_count;

  -- The trigger has counted tombstones too.
  insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
  select
    t.backend_mount_id,
    t.parent_id,
    -sum(t.size_bytes),
    -count(*) filter (where t.directory_path is null),
    -count(*) filter (where t.directory_path is not null),
    -count(*)
  from pg_temp.filestore_import_nodes t
  where t.number = any (numbers)
    and not t.live
  group by t.backend_mount_id, t.parent_id;
  return created;
end
$$;

comment on function filestore.create_staged(bigint[], boolean) is
  'Internal: Inserts staged nodes that the mount does not have.';

revoke all on function filestore.create_staged(bigint[], boolean) from public;
--! EndIncluded functions/create_staged.sql
--! Included functions/take_versions.sql
create or replace function filestore.take_versions(numbers bigint[])
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  taken bigint;
begin
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
        t.version > t.known_version + 1
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
       and v.fault is null',
    (
      select string_agg(format('%I', a.attname), ', ' order by a.attnum)
      from pg_attribute a
      where a.attrelid = 'filestore.snapshots'::regclass
        and a.attnum > 0
        and not a.attisdropped
    )
  )
  using numbers;
  get diagnostics taken = row_count;

  execute format(
    'insert into filestore.snapshots (valid_from, valid_to, %s)
     select o.updated_at, t.updated_at, %s
     from pg_temp.filestore_import_nodes t
     join pg_temp.filestore_import_old o on o.id = t.id
     where t.number = any ($1)
       and t.version = t.known_version + 1
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
        name       = case when t.live then '.filestore-import-' || n.id else n.name end,
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

  perform filestore.end_import_batch(import_id, cardinality(numbers), filestore.take_versions(numbers), 0);
  update pg_temp.filestore_import_nodes t
  set action = 'keep'
  where t.number = any (numbers);
  return true;
end
$$;

comment on function filestore.arrange_staged(bigint) is
  'Internal: Moves, deletes and restores nodes as they are staged, in one transaction, and creates the directories that are new. False when there is nothing to move.';

revoke all on function filestore.arrange_staged(bigint) from public;
--! EndIncluded functions/arrange_staged.sql
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
  nodes   bigint;
begin
  select
    coalesce(array_agg(t.number) filter (where t.action = 'create'), '{}'),
    coalesce(array_agg(t.number) filter (where t.action = 'change'), '{}')
  into created, changed
  from pg_temp.filestore_import_nodes t
  where t.number between first and last
    and t.fault is null;
  nodes := filestore.create_staged(created, looks_up_parents) + filestore.change_staged(import.given_columns, '{}', changed);
  perform filestore.end_import_batch(import_id, nodes, filestore.take_versions(created || changed), 0);
end
$$;

comment on function filestore.take_nodes(bigint, bigint, bigint, boolean) is
  'Internal: Imports a batch of staged nodes with their versions.';

revoke all on function filestore.take_nodes(bigint, bigint, bigint, boolean) from public;
--! EndIncluded functions/take_nodes.sql
--! Included functions/take_entries.sql
create or replace function filestore.take_entries(import_id bigint, first bigint, last bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  columns text;
  taken   bigint;
begin
  perform filestore.begin_import_batch(import_id, false);
  select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
  into columns
  from pg_attribute a
  where a.attrelid = 'filestore.journal_entries'::regclass
    and a.attnum > 0
    and not a.attisdropped;
  execute format(
    'insert into filestore.journal_entries (%1$s)
     overriding system value
     select %1$s
     from pg_temp.filestore_import_entries t
     where t.number between $1 and $2
       and t.action = ''create''
       and t.fault is null
     order by t.number',
    columns
  )
  using first, last;
  get diagnostics taken = row_count;
  perform filestore.end_import_batch(import_id, 0, 0, taken);
end
$$;

comment on function filestore.take_entries(bigint, bigint, bigint) is
  'Internal: Imports a batch of staged journal entries.';

revoke all on function filestore.take_entries(bigint, bigint, bigint) from public;
--! EndIncluded functions/take_entries.sql
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
--! Included functions/prepare_node_update.sql
create or replace function filestore.prepare_node_update()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  moves boolean := new.parent_id is distinct from old.parent_id or new.name is distinct from old.name;
begin
  if new.backend_mount_id is distinct from old.backend_mount_id or (new.parent_id is null) <> (old.parent_id is null) then
    raise exception '% cannot change its mount, nor become or cease to be a root', filestore.describe_node(old)
      using errcode    = 'FS422',
            constraint = 'nodes_fixed_check',
            hint       = 'Delete the node and create another one; the new node has a new id.';
  end if;

  if new.state is distinct from old.state then
    if new.state = 'deleted' then
      if old.parent_id is null then
        perform filestore.refuse_state_change(old, new.state);
      elsif new.deleted_at is null then
        new.deleted_at := date_trunc('milliseconds', statement_timestamp());
      elsif not isfinite(new.deleted_at) or new.deleted_at > clock_timestamp() + interval '1 millisecond' then
        raise exception '% cannot be deleted at %', filestore.describe_node(old), new.deleted_at
          using errcode    = 'FS422',
                constraint = 'nodes_deleted_at_check',
                hint       = 'Leave deleted_at out of the update, or give a moment in the past.';
      end if;
    else
      if (new.state = 'inconsistent' and old.state <> 'active') or (new.state = 'missing' and old.state not in ('active', 'inconsistent')) then
        perform filestore.refuse_state_change(old, new.state);
      end if;
      new.deleted_at := null;
    end if;
  end if;
  new.live := new.deleted_at is null;

  if new.live then
    if moves then
      if octet_length(new.name) > 255 then
        perform filestore.refuse_long_name(new.backend_mount_id, new.name);
      end if;
      if new.kind = 'directory' then
        -- For plain SQL. filestore.move_node takes this lock earlier, before any row.
        perform filestore.lock_tree(new.backend_mount_id, true);
      end if;
    end if;

    -- An update that restores a node and sets parent_live has also set parent_path, as restore_tree does. It needs no
    -- lookup: nodes_parent_fkey refuses a wrong path.
    if (moves and new.parent_id <> old.parent_id) or (not old.live and new.parent_live is not true) then
      new.parent_path := filestore.find_parent(new.backend_mount_id, new.parent_id, new.name);
    elsif not new.parent_live then
      -- The cascade of a directory that is being deleted has reached a live child.
      raise exception 'directory "%" is not empty: it holds "%"', old.parent_path, old.name
        using errcode    = 'FS409',
              constraint = 'nodes_not_empty',
              hint       = 'Delete the nodes in it first, or in the same statement.';
    end if;
    new.parent_live := case when new.parent_id is not null then true end;
    moves := moves or new.parent_path is distinct from old.parent_path;
  else
    if moves or new.parent_path is distinct from old.parent_path or (not old.live and new.deleted_at <> old.deleted_at) then
      -- nodes_parent_fkey does not cover tombstones: two that are moved into each other would be a cycle.
      if not filestore.is_import(new.backend_mount_id) then
        raise exception 'deleted % keeps its place and its deleted_at', filestore.describe_node(old)
          using errcode    = 'FS422',
                constraint = 'nodes_tombstone_check',
                hint       = 'Restore it first, or set its state to active in the same statement.';
      end if;
      moves := true;
    end if;
    new.parent_live := null;
  end if;

  if moves then
    new.path           := coalesce(filestore.child_path(new.parent_path, new.name), new.name);
    new.depth          := cardinality(string_to_array(new.path, '/'));
    new.directory_path := case when new.kind = 'directory' then new.path end;
    -- Without this check, the cascade of a directory that is moved below itself would not end. One statement that moves
    -- several directories into each other can pass the check. Then nodes_parent_fkey stops it, or the limit on the
    -- length of a path.
    if new.kind = 'directory' and old.live and (new.parent_path = old.path or starts_with(new.parent_path, old.path || '/')) then
      raise exception 'directory "%" cannot be moved into itself ("%")', old.path, new.parent_path
        using errcode    = 'FS422',
              constraint = 'nodes_cycle_check',
              hint       = 'Choose a parent outside of the directory that moves.';
    end if;
  end if;
  return new;
end
$$;

comment on function filestore.prepare_node_update() is
  'Sets the columns that follow from a node''s parent, name and state, and refuses changes that are never legal.';

revoke all on function filestore.prepare_node_update() from public;
--! EndIncluded functions/prepare_node_update.sql
--! Included functions/prepare_node_insert.sql
create or replace function filestore.prepare_node_insert()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.parent_path is null then
    -- The usual case of find_parent, without the cost of a call.
    select case when p.backend_mount_id = new.backend_mount_id and p.live then p.directory_path end
    into new.parent_path
    from filestore.nodes p
    where p.id = new.parent_id
    for key share;
    if new.parent_path is null and (new.parent_id is not null or new.name <> '') then
      new.parent_path := filestore.find_parent(new.backend_mount_id, new.parent_id, new.name);
    end if;
  end if;
  if new.parent_path is null then
    -- The root of a mount: only the trigger on backend_mounts creates a node without name and parent.
    new.path             := '';
    new.depth            := 0;
    new.root_of_mount_id := new.backend_mount_id;
  else
    new.parent_live := true;
    new.path        := filestore.child_path(new.parent_path, new.name);
    new.depth       := cardinality(string_to_array(new.path, '/'));
  end if;
  if new.kind = 'directory' then
    new.directory_path := new.path;
  end if;
  if new.state = 'deleted'
     or new.version <> 1
     or octet_length(new.name) > 255
     or new.updated_at > statement_timestamp()
     or new.updated_at = '-infinity' then
    perform filestore.refuse_created_node(new);
    if new.state = 'deleted' then
      -- Of an import.
      new.parent_live := null;
    end if;
  end if;
  return new;
end
$$;

comment on function filestore.prepare_node_insert() is
  'Sets the columns that follow from a new node''s parent, name and kind. Refuses a node without a parent, with an impossible updated_at or, except in an import, in state deleted or with a version other than 1.';

revoke all on function filestore.prepare_node_insert() from public;
--! EndIncluded functions/prepare_node_insert.sql
--! Included functions/refuse_created_node.sql
create or replace function filestore.refuse_created_node(node filestore.nodes)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  imported boolean := filestore.is_import(node.backend_mount_id);
begin
  if node.state = 'deleted' and not imported then
    raise exception 'node "%" cannot be created in state deleted', left(node.name, 200)
      using errcode    = 'FS422',
            constraint = 'nodes_born_live_check',
            hint       = 'Create it as active, and then delete it.';
  elsif node.version <> 1 and not imported then
    raise exception 'node "%" cannot be created at version %', left(node.path, 200), node.version
      using errcode    = 'FS422',
            constraint = 'version_check',
            hint       = 'Leave version out of the insert: the database counts it, from 1.';
  elsif node.updated_at > clock_timestamp() + interval '1 millisecond' or node.updated_at = '-infinity' then
    -- The next version would not begin after this one.
    raise exception 'node "%" cannot be created with updated_at %', left(node.path, 200), node.updated_at
      using errcode    = 'FS422',
            constraint = 'nodes_updated_at_check',
            hint       = 'Leave updated_at out of the insert, or give a moment in the past.';
  end if;
  if octet_length(node.name) > 255 then
    perform filestore.refuse_long_name(node.backend_mount_id, node.name);
  end if;
end
$$;

comment on function filestore.refuse_created_node(filestore.nodes) is
  'Internal: Raises FS422 for a new node with an impossible updated_at, with a name that is too long for a local mount or, except in an import, in state deleted or with a version other than 1.';

revoke all on function filestore.refuse_created_node(filestore.nodes) from public;
--! EndIncluded functions/refuse_created_node.sql
--! Included functions/guard_journal_entry.sql
create or replace function filestore.guard_journal_entry()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  moment timestamptz(3);
begin
  if old.id is null then
    -- An insert: there is no old row.
    if new.status not in ('queued', 'running') then
      if filestore.is_import(new.backend_mount_id) then
        return new;
      end if;
      raise exception 'journal entry "%" cannot be inserted as %', left(new.command, 40), new.status
        using errcode    = 'FS422',
              constraint = 'journal_entries_born_open_check',
              hint       = 'Insert it as queued or running, and finish it with filestore.finish_command.';
    end if;
    -- There is no foreign key: the journal outlives its mounts. In one condition, the lookup would also cost commands of no
    -- mount.
    if new.backend_mount_id is not null then
      if not exists (
        select
        from filestore.backend_mounts m
        where m.id = new.backend_mount_id
      ) then
        raise exception 'mount % does not exist', new.backend_mount_id
          using errcode    = 'FS404',
                constraint = 'backend_mounts_missing',
                hint       = 'To list the mounts, run: select id, mount_key from filestore.backend_mounts';
      end if;
    end if;
    new.created_at := date_trunc('milliseconds', clock_timestamp());
    new.started_at := case new.status when 'running' then new.created_at end;
    if new.completed_at is not null or new.duration_ms is not null then
      new.completed_at := null;
      new.duration_ms  := null;
    end if;
    return new;
  end if;

  if old.completed_at is not null then
    raise exception 'journal entry % (%) is % and never changes', old.id, old.command, old.status
      using errcode    = 'FS409',
            constraint = 'journal_entries_ended',
            hint       = 'Begin another entry instead.';
  elsif new.status = old.status or new.status = 'queued' then
    raise exception 'journal entry % (%) is %, and %', old.id, old.command, old.status,
      case when new.status = old.status then 'changes only together with its status' else 'cannot become ' || new.status end
      using errcode    = 'FS422',
            constraint = 'journal_entries_status_change_check',
            hint       = 'Set status from queued to running, or from either of them to succeeded, failed or canceled.';
  end if;
  moment := date_trunc('milliseconds', clock_timestamp());
  if new.status = 'running' then
    new.started_at   := moment;
    new.completed_at := null;
    new.duration_ms  := null;
  else
    new.started_at   := old.started_at;
    new.completed_at := greatest(moment, old.started_at);
    new.duration_ms  := (extract(epoch from new.completed_at - old.started_at) * 1000)::bigint;
  end if;
  return new;
end
$$;

comment on function filestore.guard_journal_entry() is
  'Lets a journal entry be inserted as queued or running only and for a mount that exists, and change its status forward only. Refuses every change of an ended entry. Sets its times. An import brings ended entries with their times.';

revoke all on function filestore.guard_journal_entry() from public;
--! EndIncluded functions/guard_journal_entry.sql
--! Included functions/guard_snapshot.sql
create or replace function filestore.guard_snapshot()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    if filestore.is_import(null) then
      return null;
    end if;
    raise exception 'filestore.snapshots cannot be written by hand'
      using errcode    = 'FS409',
            constraint = 'snapshots_fixed',
            hint       = 'Leave it to the database, which writes history when a node changes.';
  end if;
  raise exception 'version % of node % ("%") is history and cannot be changed', old.version, old.id, old.path
    using errcode    = 'FS409',
          constraint = 'snapshots_fixed',
          hint       = 'To bring an old version back, call filestore.revert_node. To remove the history, purge the node.';
end
$$;

comment on function filestore.guard_snapshot() is
  'Refuses to write history, except in an import, and to change it.';

revoke all on function filestore.guard_snapshot() from public;
--! EndIncluded functions/guard_snapshot.sql
--! Included functions/guard_history_removal.sql
create or replace function filestore.guard_history_removal()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  kept record;
begin
  select r.id, r.version, r.path
  into kept
  from (
    select o.id, max(o.version) as version, max(o.valid_to) as valid_to, max(o.path) as path
    from removed o
    group by o.id
  ) r
  -- "Offset 0" keeps these lookups by id. The planner would otherwise keep the row estimate of the session's first
  -- statement.
  cross join lateral (
    select n.backend_mount_id
    from filestore.nodes n
    where n.id = r.id
    offset 0
  ) n
  left join filestore.backend_mounts m on m.id = n.backend_mount_id
  where (r.valid_to <= m.history_horizon) is not true
     or exists (
       select
       from filestore.snapshots s
       where s.id = r.id
         and s.version < r.version
     )
  limit 1;
  if found and not filestore.is_import(null) then
    raise exception 'version % of node % ("%") is history and cannot be removed', kept.version, kept.id, kept.path
      using errcode    = 'FS409',
            constraint = 'snapshots_fixed',
            hint       = 'Call filestore.prune_history to remove old versions, or purge the node to remove all of them.';
  end if;
  return null;
end
$$;

comment on function filestore.guard_history_removal() is
  'Refuses to remove history while its node exists, except the oldest versions up to the horizon of the mount. An import may replace history.';

revoke all on function filestore.guard_history_removal() from public;
--! EndIncluded functions/guard_history_removal.sql
--! Included functions/refuse_state_change.sql
create or replace function filestore.refuse_state_change(node filestore.nodes, new_state text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if node.parent_id is null and new_state = 'deleted' then
    raise exception 'the root of a mount cannot be deleted (%)', filestore.describe_node(node)
      using errcode    = 'FS422',
            constraint = 'nodes_root_check',
            hint       = 'Delete the mount: that removes its root.';
  end if;
  if filestore.is_import(node.backend_mount_id) then
    -- Between two passes, a node may have changed several times.
    return;
  end if;
  raise exception '% cannot go from % to %', filestore.describe_node(node), node.state, new_state
    using errcode    = 'FS422',
          constraint = 'nodes_state_change_check',
          hint       = 'Make one of the allowed changes: active to inconsistent, missing or deleted; inconsistent to active, missing or deleted; missing to active or deleted; deleted to active.';
end
$$;

comment on function filestore.refuse_state_change(filestore.nodes, text) is
  'Internal: Raises FS422: a node cannot change to this state, except in an import.';

revoke all on function filestore.refuse_state_change(filestore.nodes, text) from public;
--! EndIncluded functions/refuse_state_change.sql
--! Included functions/keep_node_columns.sql
create or replace function filestore.keep_node_columns()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  given_version integer := new.version;
begin
  if new.id is distinct from old.id
     or new.root_of_mount_id is distinct from old.root_of_mount_id
     or new.kind is distinct from old.kind
     or new.created_at is distinct from old.created_at then
    raise exception '% cannot change its id, kind or created_at, nor become or cease to be a root', filestore.describe_node(old)
      using errcode    = 'FS422',
            constraint = 'nodes_fixed_check',
            hint       = 'Delete the node and create another one; the new node has a new id.';
  end if;

  -- Before the version is kept: an import gives it.
  if current_setting('filestore.backfill_id', true) = 'import' and filestore.is_import(new.backend_mount_id) then
    new.path           := old.path;
    new.depth          := old.depth;
    new.directory_path := old.directory_path;
    return new;
  end if;
  new.path           := old.path;
  new.depth          := old.depth;
  new.directory_path := old.directory_path;
  new.version        := old.version;
  new.updated_at     := old.updated_at;
  if given_version is distinct from old.version and (given_version is distinct from old.version + 1 or new *= old) then
    perform filestore.refuse_version(filestore.describe_node(old), old.version, given_version);
  end if;
  return new;
end
$$;

comment on function filestore.keep_node_columns() is
  'Refuses to change what a node keeps forever, or its version, except to increment it together with another change. Keeps the other columns that the database sets; an import gives version and updated_at.';

revoke all on function filestore.keep_node_columns() from public;
--! EndIncluded functions/keep_node_columns.sql
--! Included triggers/snapshots_guard_insert.sql
drop trigger if exists snapshots_guard_insert on filestore.snapshots;

create trigger snapshots_guard_insert
  before insert on filestore.snapshots
  for each statement
  when (
    pg_trigger_depth() = 0
  )
  execute function filestore.guard_snapshot();

comment on trigger snapshots_guard_insert on filestore.snapshots is
  'Refuses to insert history: only the trigger on nodes and imports write it.';
--! EndIncluded triggers/snapshots_guard_insert.sql
