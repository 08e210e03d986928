--! Previous: sha1:ee69c9bafc8c7b80ad578f43d066c6b02afea869
--! Hash: sha1:29f997e99746a8458c9b14c5f0dfbac3813d82ca
--! Message: At most 30000 directories above the entries of a sync

--! Included functions/add_implied_directories.sql
create or replace function filestore.add_implied_directories(scan filestore.scans)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
as $$
declare
  -- filestore.sync_nodes creates all of them in one transaction. A few long paths have thousands of directories each.
  most constant integer := case when scan.started_at = 'infinity' then 30000 end;
  implied       integer := 0;
  stray         text;
  paths         text[];
begin
  -- From the bottom up: the directories of all entries, and then those above the ones that were added or changed. What was
  -- listed in a directory that others replace later is not in that one, so a directory counts as listed with its first entry.
  loop
    with parents as materialized (
      select left(e.path, -strpos(reverse(e.path), '/')) as path, min(e.listed_at) as listed_at
      from filestore.scan_entries e
      where e.scan_id = scan.id
        and (paths is null or e.path = any (paths))
        and e.fault is null
        and e.path <> scan.path
      group by left(e.path, -strpos(reverse(e.path), '/'))
    ),
    -- "Offset 0" keeps these lookups by path.
    known as materialized (
      select p.path, least(p.listed_at, e.listed_at) as listed_at, e.kind
      from parents p
      left join lateral (
        select o.kind, o.listed_at
        from filestore.scan_entries o
        where o.scan_id = scan.id
          and o.path = p.path
        offset 0
      ) e on true
      where p.path <> scan.path
        and (e.kind is distinct from 'directory' or e.listed_at > p.listed_at)
    ),
    added as (
      insert into filestore.scan_entries (scan_id, path, depth, kind, size_bytes, listed_at, is_implied)
      select scan.id, k.path, cardinality(string_to_array(k.path, '/')), 'directory', 0, k.listed_at, true
      from known k
      where k.kind is null
      returning path
    ),
    changed as (
      update filestore.scan_entries e
      set listed_at = k.listed_at
      from known k
      where k.kind = 'directory'
        and e.scan_id = scan.id
        and e.path = k.path
      returning e.path
    )
    select
      (select min(k.path) from known k where k.kind = 'file'),
      array(select a.path from added a union all select c.path from changed c)
    into stray, paths;
    if stray is not null then
      perform filestore.refuse_file_above(stray);
    end if;
    exit when paths = '{}';
    implied := implied + cardinality(paths);
    if implied > most then
      raise exception 'the entries need more than % directories that are not among them', most
        using errcode    = 'FS422',
              constraint = 'limit_check',
              hint       = 'Give fewer entries in one call, or those of the upper directories in an earlier call.';
    end if;
  end loop;
end
$$;

comment on function filestore.add_implied_directories(filestore.scans) is
  'Internal: Adds the directories of the entries of a scan that were not recorded, and those above them. A directory counts as listed no later than what is in it. FS422 when one of them is a file, or when filestore.sync_nodes needs more than 30000.';

revoke all on function filestore.add_implied_directories(filestore.scans) from public;
--! EndIncluded functions/add_implied_directories.sql
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
  'Creates the files and directories of a JSON array of at most 10000 objects, as filestore.record_entries takes them, with missing directories above them, or writes their content over what is there, and records sightings. All or none. Returns for each entry, in the order given, the path, id and version of the node, and whether it was created, changed, unchanged, or refused because no node can have its name. Values that an entry leaves out stay, unless the content is another one. It moves nothing, and marks nothing as missing. FS404 when the mount does not exist, FS409 when a file is where a directory is needed or the other way round, FS422 when an entry is not well formed, or when the entries need more than 30000 directories that are not among them.';

revoke all on function filestore.sync_nodes(text, jsonb, text) from public;
--! EndIncluded functions/sync_nodes.sql
