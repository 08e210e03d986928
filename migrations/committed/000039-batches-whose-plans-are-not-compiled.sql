--! Previous: sha1:241c701d749a67ed80713cd68ca550bf20a02b03
--! Hash: sha1:a3e350a278536e0b153b2ce59194ff7d8ccb4854
--! Message: Batches whose plans are not compiled

--! Included functions/apply_batch.sql
create or replace function filestore.apply_batch(scan filestore.scans, step integer, max_nodes integer)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
-- A session plans the checks of foreign keys once: on a small table, each would read all nodes for ever.
set enable_seqscan = off
-- The server would take a plan that has to scan a table for an expensive one, and compile it.
set jit = off
as $$
declare
  next constant bigint := filestore.next_change(scan);
  last  bigint;
begin
  scan := filestore.begin_scan_work(scan);
  if step between 2 and 4 then
    return filestore.place_nodes(scan, max_nodes);
  elsif step < 9 then
    select max(b.number)
    into last
    from (
      select c.number
      from filestore.scan_changes c
      where c.scan_id = scan.id
        and c.number > scan.applied
        and c.number < (next / 1000000000000 + 1) * 1000000000000
      order by c.number
      limit max_nodes
    ) b;
    return case step
      when 1 then filestore.remove_scanned(scan, last, 'deleted')
      when 5 then filestore.create_scanned_files(scan, last)
      when 6 then filestore.change_scanned(scan, last)
      when 7 then filestore.remove_scanned(scan, last, 'missing')
    end;
  end if;
  -- Sightings are narrow rows.
  scan := filestore.settle_scan(scan, max_nodes * 5);
  if exists (select from filestore.scan_sightings g where g.scan_id = scan.id and g.number > scan.settled) then
    return scan;
  end if;
  return filestore.finish_scan(scan);
end
$$;

comment on function filestore.apply_batch(filestore.scans, integer, integer) is
  'Internal: Carries out the next part of the plan of a scan: deletes of files, moves of directories and files, creates, changes, what is missing, sightings, and the end. Returns the scan. The caller holds the tree lock, exclusively for the steps from 2 to 4.';

revoke all on function filestore.apply_batch(filestore.scans, integer, integer) from public;
--! EndIncluded functions/apply_batch.sql

--! Included functions/nodes_by_path.sql
create or replace function filestore.nodes_by_path(mount_key text, paths text[], with_deleted boolean default false)
returns setof filestore.nodes
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
-- A plan that was made while the tables were empty and analyzed would read the whole table for each row.
set enable_seqscan = off
-- The server would take a plan that has to scan a table for an expensive one, and compile it.
set jit = off
as $$
declare
  mount_id constant bigint := filestore.find_mount(nodes_by_path.mount_key);
begin
  perform filestore.check_count('paths', cardinality(paths));
  return query
  select n.*
  from (
    select filestore.canonical_path(u.path) as path, min(u.place) as place
    from unnest(paths) with ordinality as u (path, place)
    group by 1
  ) g
  -- Of each half the first row, in the order of its index. "Limit" also keeps lookups by path when statistics are stale.
  cross join lateral (
    (
      select f.*
      from filestore.nodes f
      where f.backend_mount_id = mount_id
        and f.path = g.path
        and f.live
      limit 1
    )
    union all
    (
      select f.*
      from filestore.nodes f
      where f.backend_mount_id = mount_id
        and f.path = g.path
        and not f.live
        and with_deleted
      order by
        f.deleted_at desc,
        f.id desc
      limit 1
    )
    limit 1
  ) n
  order by g.place;
end
$$;

comment on function filestore.nodes_by_path(text, text[], boolean) is
  'The live nodes at the given paths of a mount, in the order of the paths, which need not be canonical. With with_deleted, also the tombstone that was deleted last where no live node is. No row for a path without a node, or null. FS404 when the mount does not exist, FS422 when a path is not valid, or there are more than 10000.';

revoke all on function filestore.nodes_by_path(text, text[], boolean) from public;
--! EndIncluded functions/nodes_by_path.sql

--! Included functions/erase_batch.sql
create or replace function filestore.erase_batch(mount_id bigint, batch integer, newest bigint)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
-- A session plans the checks of foreign keys once: on a small table, each would read all nodes for ever.
set enable_seqscan = off
-- The server would take a plan that has to scan a table for an expensive one, and compile it.
set jit = off
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

--! Included functions/nodes_by_id.sql
create or replace function filestore.nodes_by_id(node_ids bigint[])
returns setof filestore.nodes
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
-- A plan that was made while the tables were empty and analyzed would read the whole table for each row.
set enable_seqscan = off
-- The server would take a plan that has to scan a table for an expensive one, and compile it.
set jit = off
as $$
begin
  perform filestore.check_count('ids', cardinality(node_ids));
  return query
  select n.*
  from (
    select u.id, min(u.place) as place
    from unnest(node_ids) with ordinality as u (id, place)
    group by u.id
  ) g
  -- "Offset 0" keeps lookups by id, also when statistics are stale.
  cross join lateral (
    select f.*
    from filestore.nodes f
    where f.id = g.id
    offset 0
  ) n
  order by g.place;
end
$$;

comment on function filestore.nodes_by_id(bigint[]) is
  'The nodes with the given ids, live or deleted, in the order of the ids. No row for an unknown id or null. FS422 when there are more than 10000 ids.';

revoke all on function filestore.nodes_by_id(bigint[]) from public;
--! EndIncluded functions/nodes_by_id.sql

