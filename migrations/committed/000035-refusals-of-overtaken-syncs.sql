--! Previous: sha1:319a86f80c239c39fa32b9de66a1c5bb6267287a
--! Hash: sha1:b5465ab4af1536a508c465e6305ede8c12c7edbd
--! Message: Refusals of syncs and erasures that found too late what others did

--! Included functions/begin_erasing.sql
create or replace function filestore.begin_erasing(mount_key text, batch integer)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id constant bigint := filestore.find_mount(begin_erasing.mount_key);
  mount    filestore.backend_mounts;
  move     filestore.moves;
begin
  -- A batch that waited for a lock would leave the sightings that were recorded in the meantime.
  perform filestore.require_read_committed('filestore.erase_mount');
  perform filestore.check_limit('batch', batch);
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = mount_id
  for update;
  if not found then
    -- It was deleted during the wait for its row.
    return filestore.begin_erasing(begin_erasing.mount_key, batch);
  end if;
  if mount.held_by is not null then
    select *
    into move
    from filestore.moves m
    where m.mount_id = mount.id
      and m.written_by = filestore.database_number()
    order by m.started_at desc
    limit 1;
    if move.source_number is distinct from move.written_by or move.step is distinct from 'finished' then
      raise exception 'mount "%" is moving between servers', mount.mount_key
        using errcode    = 'FS409',
              constraint = 'backend_mounts_moving',
              hint       = 'Finish the move with filestore.finish_move, or take it back with filestore.cancel_move, which also erases the copy.';
    end if;
  elsif mount.erasing_since is null and mount.state = 'active' then
    raise exception 'mount "%" is active: it cannot be erased', mount.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_active',
            hint       = 'When no service uses it any more, set its state to inactive.';
  end if;
  -- An update that changes nothing would be refused, because another server has the mount.
  update filestore.backend_mounts m
  set erasing_since = date_trunc('milliseconds', statement_timestamp())
  where m.id = mount.id
    and m.erasing_since is null;
  return mount.id;
end
$$;

comment on function filestore.begin_erasing(text, integer) is
  'Internal: Marks a mount as being erased, and returns its id. FS409 when it is active, or its move is not finished.';

revoke all on function filestore.begin_erasing(text, integer) from public;
--! EndIncluded functions/begin_erasing.sql
--! Included functions/sync_files.sql
create or replace function filestore.sync_files(scan filestore.scans)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  wrong text;
begin
  insert into filestore.scan_changes (scan_id, number, kind, action, path)
  select scan.id, row_number() over (order by e.path), 'file', 'create', e.path
  from filestore.scan_entries e
  -- "Offset 0" keeps these lookups by path. With stale statistics, the planner would read the whole mount for each entry.
  left join lateral (
    select true as is_there
    from filestore.nodes n
    where n.backend_mount_id = scan.backend_mount_id
      and n.path = e.path
      and n.live
    offset 0
  ) n on true
  where e.scan_id = scan.id
    and e.kind = 'file'
    and e.fault is null
    and n.is_there is null;
  perform filestore.create_scanned_files(scan, 1000000);

  -- A separate statement, which sees what others have created in the meantime.
  select n.path
  into wrong
  from filestore.scan_entries e
  cross join lateral (
    select o.*
    from filestore.nodes o
    where o.backend_mount_id = scan.backend_mount_id
      and o.path = e.path
      and o.live
    offset 0
  ) n
  where e.scan_id = scan.id
    and e.kind = 'file'
    and n.directory_path is not null
  limit 1;
  if found then
    raise exception '"%" is a directory', wrong
      using errcode    = 'FS409',
            constraint = 'nodes_directory_in_the_way',
            hint       = 'Move or delete the directory: an entry is a file there. Nothing was written.';
  end if;

  scan.applied := 1000000;
  insert into filestore.scan_changes (scan_id, number, node_id, kind, action, path)
  select scan.id, scan.applied + row_number() over (order by (n.node).id), (n.node).id, (n.node).kind, 'change', e.path
  from filestore.scan_entries e
  cross join lateral (
    select o as node
    from filestore.nodes o
    where o.backend_mount_id = scan.backend_mount_id
      and o.path = e.path
      and o.live
    offset 0
  ) n
  where e.scan_id = scan.id
    and e.fault is null
    and exists (select from filestore.follow_entry(n.node, e) f where f *<> n.node);
  perform filestore.change_scanned(scan, 2000000);
  -- Another node may have the path now, which has not got the content of the entry.
  select c.path
  into wrong
  from filestore.scan_changes c
  where c.scan_id = scan.id
    and c.number > scan.applied
    and c.action = 'skip'
  limit 1;
  if found then
    perform filestore.refuse_vanished(wrong);
  end if;
  -- Those that were created have sightings already.
  perform filestore.see_nodes(
    array(
      select n.id
      from filestore.scan_entries e
      cross join lateral (
        select o.id
        from filestore.nodes o
        where o.backend_mount_id = scan.backend_mount_id
          and o.path = e.path
          and o.live
        offset 0
      ) n
      where e.scan_id = scan.id
        and e.fault is null
    ),
    date_trunc('milliseconds', clock_timestamp())
  );
end
$$;

comment on function filestore.sync_files(filestore.scans) is
  'Internal: Creates and overwrites the files of the entries of filestore.sync_nodes, overwrites their directories, and records sightings.';

revoke all on function filestore.sync_files(filestore.scans) from public;
--! EndIncluded functions/sync_files.sql
--! Included functions/sync_nodes.sql
create or replace function filestore.sync_nodes(mount_key text, entries jsonb, directory text default '')
returns table (path text, node_id bigint, version integer, outcome text)
language plpgsql
security definer
rows 1000
set search_path = pg_catalog, pg_temp
-- A session plans the checks of foreign keys once: on a small table, each would read all nodes for ever.
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  place      constant text := filestore.canonical_path(sync_nodes.directory);
  fields     integer;
  scan       filestore.scans;
  found_path text;
begin
  perform filestore.require_read_committed('filestore.sync_nodes');
  fields := filestore.check_entries(sync_nodes.entries);
  if place is null then
    raise exception 'the directory of the entries is null'
      using errcode    = 'FS422',
            constraint = 'nodes_path_check',
            hint       = 'Give the path of the directory; the root is ''''.';
  end if;
  -- The scan has no row, so no other call sees it. It begins in the future, so it overwrites what others have written.
  scan.id                := nextval(pg_get_serial_sequence('filestore.scans', 'id'));
  scan.backend_mount_id  := filestore.find_mount(sync_nodes.mount_key);
  scan.path              := '';
  scan.is_recursive      := true;
  scan.started_at          := 'infinity';
  scan.journal_entry_ids := '{}';
  scan.applied           := 0;
  perform filestore.lock_tree(scan.backend_mount_id, false);
  perform filestore.ensure_directory(sync_nodes.mount_key, place);
  perform filestore.add_entries(scan, sync_nodes.entries, fields, place, scan.started_at);
  perform filestore.add_implied_directories(scan);

  for found_path in
    select e.path
    from filestore.scan_entries e
    where e.scan_id = scan.id
      and e.kind = 'directory'
      and e.fault is null
    order by e.path
  loop
    perform filestore.sync_directory(scan, found_path);
  end loop;
  perform filestore.sync_files(scan);

  return query
  with given as (
    select g.position,
           g.value ->> 'kind' as kind,
           filestore.child_path(place, case when g.value ->> 'kind' = 'directory' and right(g.value ->> 'path', 1) = '/' then left(g.value ->> 'path', -1) else g.value ->> 'path' end) as path
    from jsonb_array_elements(sync_nodes.entries) with ordinality as g (value, position)
  )
  select
    g.path,
    n.id,
    n.version,
    case
      -- Another caller may have replaced a file by a directory after it was compared.
      when (n.directory_path is not null) = (g.kind is not distinct from 'directory') and n.id is not null then coalesce(
        (
          select case c.action when 'create' then 'created' else 'changed' end
          from filestore.scan_changes c
          where c.scan_id + 0 = scan.id
            and c.node_id = n.id
            and c.action <> 'skip'
          limit 1
        ),
        'unchanged'
      )
      when e.fault is not null then 'refused'
      else filestore.refuse_vanished(g.path)
    end
  from given g
  left join lateral (
    select o.id, o.version, o.directory_path
    from filestore.nodes o
    where o.backend_mount_id = scan.backend_mount_id
      and o.path = g.path
      and o.live
    offset 0
  ) n on true
  left join lateral (
    select o.fault
    from filestore.scan_entries o
    where o.scan_id = scan.id
      and o.path = filestore.shorten_path(g.path)
    offset 0
  ) e on n.id is null
  order by g.position;

  delete from filestore.scan_entries e
  where e.scan_id = scan.id;
  delete from filestore.scan_changes c
  where c.scan_id = scan.id;
end
$$;

comment on function filestore.sync_nodes(text, jsonb, text) is
  'Creates the files and directories of a JSON array of at most 10000 objects, as filestore.record_entries takes them, with missing directories above them, or writes their content over what is there, and records sightings. All or none. Returns for each entry, in the order given, the path, id and version of the node, and whether it was created, changed, unchanged, or refused because no node can have its name. Values that an entry leaves out stay, unless the content is another one. It moves nothing, and marks nothing as missing. FS404 when the mount does not exist, FS409 when a file is where a directory is needed or the other way round, FS422 when an entry is not well formed.';

revoke all on function filestore.sync_nodes(text, jsonb, text) from public;
--! EndIncluded functions/sync_nodes.sql
