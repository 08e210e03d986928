--! Previous: sha1:29f997e99746a8458c9b14c5f0dfbac3813d82ca
--! Hash: sha1:5fbfd7ff87245aa3a847f993d5e6a6bcfca5a6ee
--! Message: Ids that are used up

--! Included functions/check_sequences.sql
create or replace function filestore.check_sequences()
returns table (table_name text, next_id bigint, highest_id bigint, problem text)
language plpgsql
stable
security definer
rows 10
set search_path = pg_catalog, pg_temp
as $$
declare
  own     record;
  last_id bigint;
begin
  for own in
    select c.relname, a.attname, s.seqmin, s.seqmax, s.seqincrement, s.seqrelid::regclass as sequence
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attidentity <> ''
    join pg_depend d on d.refobjid = c.oid and d.refobjsubid = a.attnum and d.deptype = 'i' and d.classid = 'pg_class'::regclass
    join pg_sequence s on s.seqrelid = d.objid
    where c.relnamespace = 'filestore'::regnamespace
    order by c.relname
  loop
    table_name := own.relname;
    last_id    := pg_sequence_last_value(own.sequence);
    -- After the highest number of a bigint, there is no next one.
    next_id    := case
      when last_id is null then own.seqmin
      else least(last_id, 9223372036854775807 - own.seqincrement) + own.seqincrement
    end;
    -- A mount that was moved here from another database has ids of that database's range.
    execute format('select max(%I) from filestore.%I where %I between $1 and $2', own.attname, own.relname, own.attname)
    using own.seqmin, own.seqmax
    into highest_id;
    if highest_id >= next_id then
      problem := format('the next id is %s, but row %s exists', next_id, highest_id);
      return next;
    end if;
    if next_id > own.seqmax - (own.seqmax - own.seqmin) / 10 then
      problem    := format('%s ids are left', own.seqmax - coalesce(last_id, own.seqmin - 1));
      highest_id := null;
      return next;
    end if;
  end loop;
end
$$;

comment on function filestore.check_sequences() is
  'The tables whose next id is not above the ids of their rows. This happens when a logical subscriber takes over, since sequences are not replicated. Also those that have less than a tenth of their ids left, with null as highest_id. No row means that every sequence is ahead. docs/upkeep.md shows how to set a sequence with setval.';

revoke all on function filestore.check_sequences() from public;
--! EndIncluded functions/check_sequences.sql
--! Included functions/create_nodes.sql
create or replace function filestore.create_nodes(nodes jsonb)
returns setof filestore.nodes
language plpgsql
rows 100
set search_path = pg_catalog, pg_temp
-- A session plans the checks of foreign keys once: on a small table, each would read all nodes for ever.
set enable_seqscan = off
set jit = off
as $$
declare
  columns  text;
  fields   text;
  creation text;
  parents  jsonb;
  broken   text;
begin
  perform filestore.check_batch(nodes);
  parents := filestore.lock_parents(nodes);

  -- A column that an element leaves out gets its default.
  select
    string_agg(quote_ident(a.attname), ', ' order by a.attnum),
    string_agg(
      case
        when a.attname = 'kind' then 'coalesce(r.kind, ''file'')'
        -- As in create_node: most digests are in canonical form already.
        when a.attname = 'checksum' then 'case
          when r.checksum is null then null
          when octet_length(r.checksum) = 71 and starts_with(r.checksum, ''sha256:'') and r.checksum = lower(r.checksum) then r.checksum
          else filestore.canonical_checksum(r.checksum)
        end'
        when d.adbin is null then format('r.%I', a.attname)
        when a.attnotnull then format('coalesce(r.%I, %s)', a.attname, pg_get_expr(d.adbin, d.adrelid))
        else format('case when $1 -> (r.position::integer - 1) ? %L then r.%I else %s end', a.attname, a.attname, pg_get_expr(d.adbin, d.adrelid))
      end || ' as ' || quote_ident(a.attname),
      ', ' order by a.attnum
    )
  into columns, fields
  from pg_attribute a
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = 'filestore.nodes'::regclass
    and a.attname = any ('{kind,state}'::text[] || filestore.content_columns());

  -- In order of parent and name, so that two batches with the same names do not deadlock.
  creation := format(
    'with given as materialized (
       select r.position, r.parent_id, r.name, %2$s
       from jsonb_populate_recordset(null::filestore.nodes, $1) with ordinality as r (%3$s, position)
     ),
     created as (
       insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, %1$s)
       select p.backend_mount_id, g.parent_id, p.path, %4$s
       from given g
       join jsonb_to_recordset($2) as p (id bigint, backend_mount_id bigint, path text) on p.id = g.parent_id
       order by g.parent_id, g.name
       returning *
     )
     select c.*
     from created c
     join given g on g.parent_id = c.parent_id and g.name = c.name
     order by g.position',
    columns,
    fields,
    (
      select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
      from pg_attribute a
      where a.attrelid = 'filestore.nodes'::regclass
        and a.attnum > 0
        and not a.attisdropped
    ),
    -- "E": a session may have switched standard_conforming_strings off.
    'g.name, ' || regexp_replace(columns, '(^|, )', E'\\1g.', 'g')
  );
  begin
    return query execute creation using nodes, parents;
  exception
    when unique_violation then
      get stacked diagnostics broken = constraint_name;
      perform filestore.refuse_taken_names(nodes);
      if broken = 'nodes_live_child_key' then
        -- The node that had the name is gone again, or this transaction does not see it.
        raise exception 'a name of the batch was taken at the same time'
          using errcode    = 'FS409',
                constraint = 'nodes_name_taken',
                hint       = 'Try again. Nothing was created.';
      end if;
      raise;
    when sequence_generator_limit_exceeded then
      raise;
    when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
      perform filestore.refuse_element(creation, nodes, parents);
      raise;
  end;
end
$$;

comment on function filestore.create_nodes(jsonb) is
  'Creates the nodes that a JSON array of at most 10000 objects describes, on at most 100 mounts, all or none, and returns them in the order given. An object has parent_id and name, and optionally kind (file by default), state and any content column of nodes; a column that it leaves out gets its default. FS404 when a parent is not a live directory, FS409 when a name is taken or given twice, FS422 or 23514 when an element is not well formed; the message names the position, from 1.';

revoke all on function filestore.create_nodes(jsonb) from public;
--! EndIncluded functions/create_nodes.sql
--! Included functions/create_mount.sql
create or replace function filestore.create_mount(mount jsonb)
returns filestore.backend_mounts
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  columns text;
  problem text;
  created filestore.backend_mounts;
begin
  select string_agg(quote_ident(f.name), ', ')
  into columns
  from unnest(filestore.mount_fields(mount, 'INSERT')) as f (name);

  -- A column that is left out gets its default.
  execute format(
    'insert into filestore.backend_mounts (%1$s) select %1$s from jsonb_populate_record(null::filestore.backend_mounts, $1) returning *',
    coalesce(columns, 'mount_key')
  )
  using mount
  into created;
  return created;
exception
  when sequence_generator_limit_exceeded then
    raise;
  when not_null_violation or data_exception then
    -- The server gives no reason for these.
    get stacked diagnostics problem = message_text;
    raise exception 'the settings of the mount: %', left(problem, 300)
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = 'Correct that field. Nothing was written.';
end
$$;

comment on function filestore.create_mount(jsonb) is
  'Registers a mount, with the root of its tree. The object has columns of backend_mounts: mount_key, backend_kind, the place (root_path, or bucket and perhaps endpoint and prefix), and optionally any other that a service may write. 23505 when the key is taken, 23P01 when another mount has the place or a part of it, FS422 or 23514 when a field or value is not valid.';

revoke all on function filestore.create_mount(jsonb) from public;
--! EndIncluded functions/create_mount.sql
