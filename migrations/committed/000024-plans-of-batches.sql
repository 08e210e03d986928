--! Previous: sha1:9d50525ab82cb87d26f61a031959a4b2123c5a3f
--! Hash: sha1:96d36144dacc0aa5d70413454df0bf0bf5825264
--! Message: Plans of batches

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

--! Included functions/erase_batch.sql
create or replace function filestore.erase_batch(mount_id bigint, batch integer, newest bigint)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
-- A session plans the checks of foreign keys once: on a small table, each would read all nodes for ever.
set enable_seqscan = off
as $$
declare
  chosen       bigint[];
  lowest       text;
  frozen       bigint;
  before       bigint;
  -- A server that has or gets the mount has its journal too.
  with_journal boolean := filestore.is_erasing_copy(mount_id) or exists (
    select
    from filestore.backend_mounts m
    where m.id = mount_id
      and m.held_by is not null
  );
  refusal      text;
begin
  perform filestore.lock_tree(mount_id, true);
  -- Tombstones in any order. Then live nodes in descending order of path, because nodes_parent_fkey requires children
  -- to be removed before their directory.
  chosen := array(
    select n.id
    from filestore.nodes n
    where n.backend_mount_id = mount_id
      and n.deleted_at is not null
    order by n.deleted_at
    limit batch
  );
  if cardinality(chosen) < batch then
    lowest := coalesce((
      select n.path
      from filestore.nodes n
      where n.backend_mount_id = mount_id
        and n.live
      order by n.path desc
      offset batch - cardinality(chosen) - 1
      limit 1
    ), '');
    -- Creates in these directories wait until the batch has ended. Without the lock, they would undo every batch. The loop
    -- repeats until it finds no directory that was created in the meantime.
    loop
      before := frozen;
      perform
      from filestore.nodes n
      where n.backend_mount_id = mount_id
        and n.live
        and n.path >= lowest
        and n.directory_path is not null
      order by n.id
      for update;
      get diagnostics frozen = row_count;
      exit when frozen = 0 or frozen = before;
    end loop;
    -- With the files that were created while the batch waited for its locks.
    chosen := chosen || array(
      select n.id
      from filestore.nodes n
      where n.backend_mount_id = mount_id
        and n.live
        and n.path >= lowest
        and n.path > ''
    );
  end if;
  -- Writers that create faster than a batch removes would never let it end, so the next batch is larger.
  if exists (select from unnest(chosen) c (id) where c.id > newest and c.id >> 40 = newest >> 40) then
    batch := least(batch, 500000000) * 2;
  end if;

  begin
    if lowest = '' then
      -- With that of the root, which is removed later: in order of id, as in record_sightings.
      perform
      from filestore.node_sightings s
      where s.node_id = any (chosen || (select n.id from filestore.nodes n where n.root_of_mount_id = mount_id))
      order by s.node_id
      for update;
    end if;
    delete from filestore.nodes n
    where n.id = any (chosen);
    -- After the nodes, because an update that had to end first appended its delta.
    delete from filestore.rollup_deltas d
    where d.backend_mount_id = mount_id;
    if chosen <> '{}' then
      raise notice '% nodes erased', cardinality(chosen);
    end if;
    -- The last batch also removes the mount, because its locks are released at its end.
    if lowest is distinct from '' then
      return batch;
    end if;
    if with_journal then
      delete from filestore.journal_entries j
      where j.id = any (array(
        select o.id
        from filestore.journal_entries o
        where o.backend_mount_id = mount_id
        limit batch
      ));
      if found then
        return batch;
      end if;
      -- The history in a copy whose nodes have not arrived.
      delete from filestore.snapshots s
      where s.backend_mount_id = mount_id
        and not exists (select from filestore.nodes n where n.id = s.id);
    end if;
    delete from filestore.backend_mounts m
    where m.id = mount_id;
    delete from filestore.nodes n
    where n.backend_mount_id = mount_id;
  exception
    when foreign_key_violation then
      -- A node was restored in one of these directories: the next batch has it.
      return batch;
    when sqlstate 'FS409' then
      get stacked diagnostics refusal = constraint_name;
      if refusal <> 'nodes_not_empty' then
        raise;
      end if;
      return batch;
  end;
  return 0;
end
$$;

comment on function filestore.erase_batch(bigint, integer, bigint) is
  'Internal: Removes the next rows of a mount that is being erased, and in the end the mount. Returns the size of the next batch, which is doubled after nodes with ids above newest in its range; 0 at the end.';

revoke all on function filestore.erase_batch(bigint, integer, bigint) from public;
--! EndIncluded functions/erase_batch.sql
