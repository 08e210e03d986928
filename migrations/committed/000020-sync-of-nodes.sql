--! Previous: sha1:47026e9e422b3af9fa65815a9804d0a4933f3e33
--! Hash: sha1:9ab4888d3264109c68017e0a566fd2aa250e2082
--! Message: Sync of nodes

--! Included functions/see_nodes.sql
create or replace function filestore.see_nodes(node_ids bigint[], moment timestamptz)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would read all sightings.
set enable_hashjoin = off
set enable_mergejoin = off
-- The index has the rows in order of id, so that concurrent calls do not deadlock.
set enable_seqscan = off
set enable_bitmapscan = off
-- A custom plan would estimate each id.
set plan_cache_mode = force_generic_plan
as $$
declare
  known integer;
  added integer := 0;
begin
  update filestore.node_sightings s
  -- "Greatest": a report that arrives late changes nothing.
  set last_seen_at       = greatest(s.last_seen_at, moment),
      last_reconciled_at = greatest(s.last_reconciled_at, moment)
  where s.node_id = any (node_ids);
  get diagnostics known = row_count;
  if known < cardinality(node_ids) then
    -- The caller holds the shared tree lock, so none of them is purged.
    insert into filestore.node_sightings (node_id, last_seen_at, last_reconciled_at)
    select n.id, moment, moment
    from unnest(node_ids) as i (id)
    join filestore.nodes n on n.id = i.id
    where not exists (select from filestore.node_sightings s where s.node_id = i.id)
    order by n.id
    on conflict do nothing;
    get diagnostics added = row_count;
  end if;
  return known + added;
end
$$;

comment on function filestore.see_nodes(bigint[], timestamptz) is
  'Internal: Records that nodes of one mount were seen and compared with their backend, and returns how many of them exist. The caller holds the shared tree lock.';

revoke all on function filestore.see_nodes(bigint[], timestamptz) from public;
--! EndIncluded functions/see_nodes.sql
--! Included functions/refuse_vanished.sql
create or replace function filestore.refuse_vanished(path text)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception '"%" was deleted by another caller at the same time', path
    using errcode    = 'FS409',
          constraint = 'nodes_busy',
          hint       = 'Call filestore.sync_nodes again. Nothing was written.';
end
$$;

comment on function filestore.refuse_vanished(text) is
  'Internal: Raises FS409 because a node of filestore.sync_nodes was deleted while it worked.';

revoke all on function filestore.refuse_vanished(text) from public;
--! EndIncluded functions/refuse_vanished.sql
--! Included functions/sync_directory.sql
create or replace function filestore.sync_directory(scan filestore.scans, path text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  parent record;
  there  filestore.nodes;
  made   bigint;
begin
  -- The second attempt finds what another caller has created.
  for attempt in 1..2 loop
    select *
    into there
    from filestore.nodes n
    where n.backend_mount_id = scan.backend_mount_id
      and n.path = sync_directory.path
      and n.live
    -- It cannot be deleted until the transaction ends.
    for key share;
    exit when there.id is not null;
    select n.id, n.path
    into parent
    from filestore.nodes n
    where n.backend_mount_id = scan.backend_mount_id
      and n.path = left(sync_directory.path, -strpos(reverse(sync_directory.path), '/'))
      and n.live
      and n.directory_path is not null
    for key share;
    made := filestore.create_scanned_directory(
      scan,
      parent.id,
      parent.path,
      right(sync_directory.path, strpos(reverse('/' || sync_directory.path), '/') - 1),
      sync_directory.path
    );
    if made is not null then
      insert into filestore.scan_changes (scan_id, number, node_id, kind, action, path)
      values (scan.id, -made, made, 'directory', 'create', sync_directory.path);
      return;
    end if;
  end loop;
  if there.id is null then
    perform filestore.refuse_vanished(path);
  elsif there.directory_path is null then
    raise exception '"%" is a file', sync_directory.path
      using errcode    = 'FS409',
            constraint = 'nodes_file_in_the_way',
            hint       = 'Move or delete the file: an entry needs a directory there. Nothing was written.';
  end if;
end
$$;

comment on function filestore.sync_directory(filestore.scans, text) is
  'Internal: Creates a directory of the entries of filestore.sync_nodes, if it does not exist. FS409 when a file is there.';

revoke all on function filestore.sync_directory(filestore.scans, text) from public;
--! EndIncluded functions/sync_directory.sql
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
           filestore.child_path(place, case when g.value ->> 'kind' = 'directory' and right(g.value ->> 'path', 1) = '/' then left(g.value ->> 'path', -1) else g.value ->> 'path' end) as path
    from jsonb_array_elements(sync_nodes.entries) with ordinality as g (value, position)
  )
  select
    g.path,
    n.id,
    n.version,
    case
      when n.id is not null then coalesce(
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
    select o.id, o.version
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
