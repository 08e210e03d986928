--! Previous: sha1:9ab4888d3264109c68017e0a566fd2aa250e2082
--! Hash: sha1:01671a20007222dfd18dfe6255744aaf125d73f8
--! Message: Changes that a scan applies

--! Included functions/refuse_missing_share.sql
create or replace function filestore.refuse_missing_share(scan filestore.scans, max_missing_share numeric)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- The paths below the scanned directory are those from path || '/' up to path || '0', since '0' follows '/'. For the root,
  -- the upper bound is longer than any path (2600 bytes) and consists of the last character, U+10FFFF.
  lower_path constant text    := case when scan.path = '' then '' else scan.path || '/' end;
  upper_path constant text    := case when scan.path = '' then repeat(chr(1114111), 651) else scan.path || '0' end;
  lost       bigint;
  outside    bigint;
  live       bigint;
begin
  -- Those below directories that it moves in, or that are gone from one directory, are outside of it.
  select count(*), count(*) filter (where not case
    when scan.is_recursive then n.path > lower_path and n.path < upper_path
    else n.parent_id = scan.directory_id
  end)
  into lost, outside
  from filestore.scan_changes c
  join filestore.nodes n on n.id = c.node_id
  where c.scan_id = scan.id
    and c.number > scan.applied
    and c.action in ('missing', 'delete')
    and n.state <> 'missing';
  if lost <= 100 then
    return;
  end if;
  select count(*)
  into live
  from (
    select n.id
    from filestore.nodes n
    where scan.is_recursive
      and n.backend_mount_id = scan.backend_mount_id
      and n.live
      and n.path > lower_path
      and n.path < upper_path
      and n.state <> 'missing'
    union all
    select n.id
    from filestore.nodes n
    where not scan.is_recursive
      and n.parent_id = scan.directory_id
      and n.parent_live is not null
      and n.state <> 'missing'
  ) n;
  live := live + outside;
  if lost > live * max_missing_share then
    raise exception 'scan % did not find % of the % nodes that it covers', scan.id, lost, live
      using errcode    = 'FS409',
            constraint = 'scans_too_many_missing',
            hint       = 'Check that the disk is mounted, and that everything was listed. If the nodes are gone, call filestore.apply_scan with a larger max_missing_share, such as 1. filestore.scan_differences lists them.';
  end if;
end
$$;

comment on function filestore.refuse_missing_share(filestore.scans, numeric) is
  'Internal: Raises FS409 when a scan did not find more than a share of the live nodes that it covers, and more than 100.';

revoke all on function filestore.refuse_missing_share(filestore.scans, numeric) from public;
--! EndIncluded functions/refuse_missing_share.sql
--! Included functions/follow_entry.sql
create or replace function filestore.follow_entry(node filestore.nodes, entry filestore.scan_entries)
returns setof filestore.nodes
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  is_other boolean;
begin
  if entry.kind = 'directory' then
    node.last_modified_at := coalesce(entry.last_modified_at, node.last_modified_at);
  else
    is_other := node.size_bytes <> entry.size_bytes
      or node.link_target is distinct from entry.link_target
      or (entry.last_modified_at is distinct from node.last_modified_at and entry.last_modified_at is not null)
      or (entry.content_hash is distinct from node.content_hash and entry.content_hash is not null)
      or (entry.checksum <> node.checksum) is true
      or (entry.backend_identity <> node.backend_identity) is true;
    node.size_bytes       := entry.size_bytes;
    node.link_target      := entry.link_target;
    -- Of another content, only the values of the entry are known.
    node.last_modified_at := coalesce(entry.last_modified_at, case when not is_other then node.last_modified_at end);
    node.content_hash     := coalesce(entry.content_hash, case when not is_other then node.content_hash end);
    node.checksum         := coalesce(entry.checksum, case when not is_other then node.checksum end);
    node.storage_class    := coalesce(entry.storage_class, node.storage_class);
  end if;
  node.backend_identity := coalesce(entry.backend_identity, case when is_other is not true then node.backend_identity end);
  if node.state = 'missing' or is_other then
    node.state := 'active';
  end if;
  return next node;
end
$$;

comment on function filestore.follow_entry(filestore.nodes, filestore.scan_entries) is
  'Internal: A node with the content that an entry of a scan has. Values that the entry leaves out stay, or become null if the content is another one. A missing node becomes active, and an inconsistent one with another content.';

revoke all on function filestore.follow_entry(filestore.nodes, filestore.scan_entries) from public;
--! EndIncluded functions/follow_entry.sql
--! Included functions/park_node.sql
create or replace function filestore.park_node(node_id bigint, new_parent_id bigint default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  short_name constant text := '~' || to_hex(node_id);
  place      record;
  names      text[];
  free_name  text;
begin
  select p.id, octet_length(filestore.child_path(p.path, short_name)) <= octet_length(n.path) as is_short
  into place
  from filestore.nodes n
  join filestore.nodes p on p.id = coalesce(park_node.new_parent_id, n.parent_id)
  where n.id = park_node.node_id;
  names := array(select repeat('~', i) || short_name from generate_series(0, 200) as s (i));
  if not place.is_short then
    -- No path below may become longer, since it could become too long.
    names := array(select chr(i) from generate_series(33, 126) as s (i) where chr(i) not in ('.', '/')) || names;
  end if;
  foreach free_name in array names loop
    exit when not exists (
      select
      from filestore.nodes n
      where n.parent_id = place.id
        and n.name = free_name
        and n.parent_live
    );
  end loop;
  update filestore.nodes n
  set parent_id = place.id,
      name      = free_name
  where n.id = park_node.node_id
    and n.live;
  if not found then
    raise sqlstate 'FS001';
  end if;
end
$$;

comment on function filestore.park_node(bigint, bigint) is
  'Internal: Gives a node a temporary name, in its directory or in another one, so that another node can have its own. For nodes in a circle of moves. Raises FS001 when others have deleted it in the meantime.';

revoke all on function filestore.park_node(bigint, bigint) from public;
--! EndIncluded functions/park_node.sql
--! Included functions/delete_scanned.sql
create or replace function filestore.delete_scanned(scan filestore.scans, node_id bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  refusal    text;
  deleted_id bigint;
begin
  update filestore.nodes n
  set state = 'deleted'
  where n.id = delete_scanned.node_id
    and n.live
    and exists (
      select
      from filestore.scan_changes c
      where c.scan_id + 0 = scan.id
        and c.node_id = n.id
        and c.number > scan.plans * 100000000000000
        and not (n.version > c.version and filestore.is_superseded(n, c.version, scan.journal_entry_ids))
    )
  returning n.id into deleted_id;
  return deleted_id;
exception
  when sqlstate 'FS409' then
    get stacked diagnostics refusal = constraint_name;
    if refusal <> 'nodes_not_empty' then
      raise;
    end if;
    return null;
end
$$;

comment on function filestore.delete_scanned(filestore.scans, bigint) is
  'Internal: Deletes a directory whose path something else has in a scan, and returns its id; null when others have written to it or created nodes in it.';

revoke all on function filestore.delete_scanned(filestore.scans, bigint) from public;
--! EndIncluded functions/delete_scanned.sql
--! Included functions/clear_place.sql
create or replace function filestore.clear_place(scan filestore.scans, occupant_id bigint, number bigint)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  last_place constant bigint := scan.plans * 100000000000000 + 5000000000000;
  occupant   filestore.nodes;
  leaving    bigint[];
  doomed     bigint;
begin
  select *
  into occupant
  from filestore.nodes n
  where n.id = clear_place.occupant_id
    and exists (
      select
      from (
        -- "Offset 0": the planner would read all changes by their numbers.
        select c.number, c.action
        from filestore.scan_changes c
        where c.scan_id + 0 = scan.id
          and c.node_id = clear_place.occupant_id
        offset 0
      ) c
      where c.number > clear_place.number
        and c.number < last_place
        and (c.action = 'move' or n.directory_path is not null)
    );
  if occupant.id is null then
    -- Others have created it.
    return null;
  end if;

  if exists (select from filestore.scan_changes c where c.scan_id + 0 = scan.id and c.node_id = occupant.id and c.action = 'delete') then
    leaving := array(
      select n.id
      from filestore.nodes n
      where n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > occupant.path || '/'
        and n.path < occupant.path || '0'
        and exists (
          select
          from filestore.scan_changes c
          where c.scan_id + 0 = scan.id
            and c.node_id = n.id
            and c.action = 'move'
        )
      order by n.path
      limit 101
    );
    -- It is deleted at its own path, unless too much has to leave it before.
    if cardinality(leaving) <= 100 then
      perform filestore.park_node(n.id, r.id)
      from filestore.nodes n
      join filestore.nodes r on r.root_of_mount_id = n.backend_mount_id
      where n.id = any (leaving);
      for doomed in
        select n.id
        from filestore.nodes n
        where n.backend_mount_id = scan.backend_mount_id
          and n.live
          and (n.path = occupant.path or (n.path > occupant.path || '/' and n.path < occupant.path || '0'))
        order by n.path desc
      loop
        if filestore.delete_scanned(scan, doomed) is null then
          raise sqlstate 'FS001';
        end if;
      end loop;
      return leaving;
    end if;
  end if;
  perform filestore.park_node(occupant.id);
  return array[occupant.id];
end
$$;

comment on function filestore.clear_place(filestore.scans, bigint, bigint) is
  'Internal: Makes room for a planned change whose place another node has, by temporary names for nodes that move later, or by deleting a directory that is to be deleted anyway. Returns the nodes with temporary names; null when the node does not leave. Raises FS001 when others have written in the meantime.';

revoke all on function filestore.clear_place(filestore.scans, bigint, bigint) from public;
--! EndIncluded functions/clear_place.sql
--! Included functions/is_vacated.sql
create or replace function filestore.is_vacated(scan filestore.scans, path text, moment timestamptz, node_id bigint)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Called for each row: a plan that was made while the history was empty would read all of it each time.
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
  return exists (
    select
    from filestore.snapshots s
    where s.backend_mount_id = scan.backend_mount_id
      and s.path = is_vacated.path
      and s.valid_to >= is_vacated.moment
      and s.live
      and s.id is distinct from is_vacated.node_id
      and (s.superseded_by_journal_id = any (scan.journal_entry_ids)) is not true
  );
end
$$;

comment on function filestore.is_vacated(filestore.scans, text, timestamptz, bigint) is
  'Internal: Whether another command than those of a scan moved or deleted a node at a path since a moment, other than the given node. What was listed there before is not there, and not in a node that is there now.';

revoke all on function filestore.is_vacated(filestore.scans, text, timestamptz, bigint) from public;
--! EndIncluded functions/is_vacated.sql
--! Included functions/create_scanned_directory.sql
create or replace function filestore.create_scanned_directory(
  scan        filestore.scans,
  parent_id   bigint,
  parent_path text,
  name        text,
  path        text
)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  created_id bigint;
begin
  with created as (
    insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind, last_modified_at, backend_identity)
    select
      scan.backend_mount_id,
      create_scanned_directory.parent_id,
      create_scanned_directory.parent_path,
      create_scanned_directory.name,
      'directory',
      e.last_modified_at,
      e.backend_identity
    from filestore.scan_entries e
    where e.scan_id = scan.id
      and e.path = create_scanned_directory.path
    on conflict (parent_id, name) where parent_live is not null do nothing
    returning id
  )
  insert into filestore.node_sightings (node_id, last_seen_at, last_reconciled_at)
  select s.id, m.moment, m.moment
  from created s
  join filestore.scan_entries e on e.scan_id = scan.id and e.path = create_scanned_directory.path
  -- Entries of filestore.sync_nodes have no moment of their listing.
  cross join lateral (select least(e.listed_at, date_trunc('milliseconds', clock_timestamp())) as moment) m
  returning node_id into created_id;
  return created_id;
end
$$;

comment on function filestore.create_scanned_directory(filestore.scans, bigint, text, text, text) is
  'Internal: Creates a directory that a scan found, and returns its id; null when others have created a node there.';

revoke all on function filestore.create_scanned_directory(filestore.scans, bigint, text, text, text) from public;
--! EndIncluded functions/create_scanned_directory.sql
--! Included functions/move_scanned.sql
create or replace function filestore.move_scanned(
  scan      filestore.scans,
  node_id   bigint,
  parent_id bigint,
  name      text,
  path      text
)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  moved_id bigint;
begin
  -- One version, also when the content is another one.
  update filestore.nodes n
  set parent_id        = move_scanned.parent_id,
      name             = move_scanned.name,
      state            = f.state,
      size_bytes       = f.size_bytes,
      last_modified_at = f.last_modified_at,
      link_target      = f.link_target,
      content_hash     = f.content_hash,
      checksum         = f.checksum,
      storage_class    = f.storage_class,
      backend_identity = f.backend_identity
  from filestore.nodes o
  join filestore.scan_entries e on e.scan_id = scan.id and e.path = move_scanned.path
  cross join lateral filestore.follow_entry(o, e) f
  where n.id = move_scanned.node_id
    and o.id = n.id
    and n.version = o.version
    and n.live
    and exists (
      select
      from filestore.scan_changes c
      where c.scan_id + 0 = scan.id
        and c.node_id = o.id
        and c.number > scan.plans * 100000000000000
        and not (o.updated_at >= e.listed_at and filestore.is_written_since(o.id, e.listed_at, scan.journal_entry_ids))
        and not (o.version > c.version and filestore.is_superseded(o, c.version, scan.journal_entry_ids))
    )
  returning n.id into moved_id;
  return moved_id;
end
$$;

comment on function filestore.move_scanned(filestore.scans, bigint, bigint, text, text) is
  'Internal: Moves a node to the place of its entry, with the content of the entry, and returns its id; null when others have written to it.';

revoke all on function filestore.move_scanned(filestore.scans, bigint, bigint, text, text) from public;
--! EndIncluded functions/move_scanned.sql
--! Included functions/place_nodes.sql
create or replace function filestore.place_nodes(scan filestore.scans, max_nodes integer)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  last_place constant bigint  := scan.plans * 100000000000000 + 5000000000000;
  parked     bigint[]         := '{}';
  placed     integer          := 0;
  change     record;
  parent     record;
  occupant   bigint;
  cleared    bigint[];
  own_name   text;
  placed_id  bigint;
  moment     timestamptz;
begin
  for change in
    select c.*
    from filestore.scan_changes c
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number < last_place
    order by c.number
  loop
    -- No node keeps a temporary name when the transaction ends.
    exit when placed >= max_nodes and parked = '{}';
    placed       := placed + 1;
    placed_id    := null;
    scan.applied := change.number;

    if change.action = 'delete' then
      -- It may be deleted already, to make room.
      placed_id := coalesce(
        filestore.delete_scanned(scan, change.node_id),
        (select n.id from filestore.nodes n where n.id = change.node_id and not n.live)
      );
      scan.deleted := scan.deleted + (placed_id is not null)::integer;
    else
      own_name := right(change.path, strpos(reverse('/' || change.path), '/') - 1);
      select e.listed_at
      into moment
      from filestore.scan_entries e
      where e.scan_id = scan.id
        and e.path = change.path;
      select n.id, n.path
      into parent
      from filestore.nodes n
      where n.backend_mount_id = scan.backend_mount_id
        and n.path = left(change.path, -strpos(reverse(change.path), '/'))
        and n.live
        and n.directory_path is not null
        and ((n.id = scan.directory_id) is true or not filestore.is_vacated(scan, n.path, moment, n.id))
        and not filestore.is_vacated(scan, change.path, moment, change.node_id)
      for key share;
      select n.id
      into occupant
      from filestore.nodes n
      where n.parent_id = parent.id
        and n.name = own_name
        and n.parent_live
        and n.id is distinct from change.node_id;
      if occupant is not null then
        cleared  := filestore.clear_place(scan, occupant, change.number);
        occupant := case when cleared is null then occupant end;
        parked   := parked || cleared;
      end if;
      if parent.id is not null and occupant is null then
        if change.action = 'create' then
          placed_id    := filestore.create_scanned_directory(scan, parent.id, parent.path, own_name, change.path);
          scan.created := scan.created + (placed_id is not null)::integer;
          scan.seen    := scan.seen + (placed_id is not null)::integer;
        else
          placed_id  := filestore.move_scanned(scan, change.node_id, parent.id, own_name, change.path);
          scan.moved := scan.moved + (placed_id is not null)::integer;
        end if;
      end if;
    end if;

    if placed_id is null then
      -- Others have written in the meantime. A node with a temporary name cannot stay: the changes are planned again.
      if change.node_id = any (parked) then
        raise sqlstate 'FS001';
      end if;
      scan.skipped := scan.skipped + 1;
    end if;
    parked := array_remove(parked, change.node_id);
    if placed_id is distinct from change.node_id then
      update filestore.scan_changes c
      set node_id = placed_id,
          action  = case when placed_id is null then 'skip' else c.action end
      where c.scan_id = scan.id
        and c.number = change.number;
    end if;
  end loop;
  if parked <> '{}' then
    raise sqlstate 'FS001';
  end if;

  update filestore.scans s
  set applied = scan.applied,
      created = scan.created,
      seen    = scan.seen,
      moved   = scan.moved,
      deleted = scan.deleted,
      skipped = scan.skipped
  where s.id = scan.id;
  return scan;
end
$$;

comment on function filestore.place_nodes(filestore.scans, integer) is
  'Internal: Carries out the next planned moves of directories and files, creates of directories and deletes of directories, each in its order. Ends after max_nodes, but not while a node has a temporary name. The caller holds the exclusive tree lock. Raises FS001 when the changes have to be planned again.';

revoke all on function filestore.place_nodes(filestore.scans, integer) from public;
--! EndIncluded functions/place_nodes.sql
--! Included functions/skip_changes.sql
create or replace function filestore.skip_changes(scan filestore.scans, last bigint, changed_ids bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
as $$
declare
  left_out bigint;
begin
  select count(*)
  into left_out
  from filestore.scan_changes c
  where c.scan_id = scan.id
    and c.number > scan.applied
    and c.number <= last;
  if left_out = cardinality(changed_ids) then
    return;
  end if;

  update filestore.scan_changes c
  set action = 'skip'
  where c.scan_id = scan.id
    and c.number > scan.applied
    and c.number <= last
    and not exists (select from unnest(changed_ids) as i (id) where i.id = c.node_id);
  update filestore.scans s
  set skipped = s.skipped + left_out - cardinality(changed_ids)
  where s.id = scan.id;
end
$$;

comment on function filestore.skip_changes(filestore.scans, bigint, bigint[]) is
  'Internal: Notes which of the planned changes up to a number were left out, because others have written in the meantime.';

revoke all on function filestore.skip_changes(filestore.scans, bigint, bigint[]) from public;
--! EndIncluded functions/skip_changes.sql
--! Included functions/remove_scanned.sql
create or replace function filestore.remove_scanned(scan filestore.scans, last bigint, new_state text)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  removed_ids bigint[];
begin
  with locked as materialized (
    select n.id
    from filestore.scan_changes c
    join filestore.nodes n on n.id = c.node_id
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number <= last
      and n.live
      and n.state <> new_state
      and not (n.version > c.version and filestore.is_superseded(n, c.version, scan.journal_entry_ids))
    order by n.id
    for update of n
  ),
  removed as (
    update filestore.nodes n
    set state = new_state
    from locked l
    where n.id = l.id
    returning n.id
  )
  select coalesce(array_agg(r.id), '{}')
  into removed_ids
  from removed r;
  perform filestore.skip_changes(scan, last, removed_ids);

  update filestore.scans s
  set missing = s.missing + case new_state when 'missing' then cardinality(removed_ids) else 0 end,
      deleted = s.deleted + case new_state when 'deleted' then cardinality(removed_ids) else 0 end,
      applied = last
  where s.id = scan.id
  returning * into scan;
  return scan;
end
$$;

comment on function filestore.remove_scanned(filestore.scans, bigint, text) is
  'Internal: Marks the nodes of the planned changes up to a number as missing, or deletes them. Leaves out what others have written in the meantime.';

revoke all on function filestore.remove_scanned(filestore.scans, bigint, text) from public;
--! EndIncluded functions/remove_scanned.sql
--! Included functions/create_scanned_files.sql
create or replace function filestore.create_scanned_files(scan filestore.scans, last bigint)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
as $$
#variable_conflict use_column
declare
  before     constant pg_snapshot := pg_current_snapshot();
  made       integer;
  noted_rows integer;
begin
  with given as materialized (
    select e.*, c.number, left(e.path, -strpos(reverse(e.path), '/')) as parent_path
    from filestore.scan_changes c
    cross join lateral (
      select o.*
      from filestore.scan_entries o
      where o.scan_id = c.scan_id
        and o.path = c.path
      offset 0
    ) e
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number <= last
  ),
  -- The caller holds the shared tree lock, so they stay where they are.
  parents as materialized (
    select n.id, n.path
    from filestore.nodes n
    where n.backend_mount_id = scan.backend_mount_id
      and n.path = any (array(select distinct g.parent_path from given g))
      and n.live
      and n.directory_path is not null
    order by n.id
    for key share
  ),
  usable as materialized (
    select p.id, p.path, g.listed_at
    from parents p
    join (select distinct g.parent_path, g.listed_at from given g) g on g.parent_path = p.path
    where (p.id = scan.directory_id) is true or not filestore.is_vacated(scan, p.path, g.listed_at, p.id)
  ),
  created as (
    insert into filestore.nodes (
      backend_mount_id,
      parent_id,
      parent_path,
      name,
      kind,
      size_bytes,
      checksum,
      content_hash,
      storage_class,
      last_modified_at,
      link_target,
      backend_identity
    )
    select
      scan.backend_mount_id,
      p.id,
      p.path,
      right(g.path, strpos(reverse('/' || g.path), '/') - 1),
      'file',
      g.size_bytes,
      g.checksum,
      g.content_hash,
      g.storage_class,
      g.last_modified_at,
      g.link_target,
      g.backend_identity
    from given g
    join usable p on p.path = g.parent_path and p.listed_at = g.listed_at
    where not filestore.is_vacated(scan, g.path, g.listed_at, null)
    order by p.id, g.path
    on conflict (parent_id, name) where parent_live is not null do nothing
    returning id, path
  ),
  seen as (
    insert into filestore.node_sightings (node_id, last_seen_at, last_reconciled_at)
    select c.id, m.moment, m.moment
    from created c
    join given g on g.path = c.path
    -- Entries of filestore.sync_nodes have no moment of their listing.
    cross join lateral (select least(g.listed_at, date_trunc('milliseconds', clock_timestamp())) as moment) m
  ),
  noted as (
    update filestore.scan_changes c
    set node_id = m.id,
        action  = case when m.id is null then 'skip' else c.action end
    from given g
    left join created m on m.path = g.path
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number <= last
      and c.number = g.number
    returning m.id
  )
  select count(n.id), count(*)
  into made, noted_rows
  from noted n;

  -- A separate statement, which sees a delete or move for which the insert has waited. Not needed if no other transaction has
  -- ended since the first snapshot.
  if pg_current_snapshot()::text <> before::text and exists (
    select
    from filestore.scan_changes c
    cross join lateral (
      select o.path, o.listed_at
      from filestore.scan_entries o
      where o.scan_id = c.scan_id
        and o.path = c.path
      offset 0
    ) e
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number <= last
      and c.action = 'create'
      and filestore.is_vacated(scan, e.path, e.listed_at, null)
  ) then
    raise sqlstate 'FS001';
  end if;

  update filestore.scans s
  set created = s.created + made,
      seen    = s.seen + made,
      skipped = s.skipped + noted_rows - made,
      applied = last
  where s.id = scan.id
  returning * into scan;
  return scan;
end
$$;

comment on function filestore.create_scanned_files(filestore.scans, bigint) is
  'Internal: Carries out the planned creates of files up to a number, and records their sightings. Leaves out what others have created, moved or deleted in the meantime. Raises FS001 when the changes have to be planned again.';

revoke all on function filestore.create_scanned_files(filestore.scans, bigint) from public;
--! EndIncluded functions/create_scanned_files.sql
--! Included functions/change_scanned.sql
create or replace function filestore.change_scanned(scan filestore.scans, last bigint)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  changed_ids bigint[];
  found_ids   bigint[];
begin
  with locked as materialized (
    select n as node, e.entry
    from filestore.scan_changes c
    join filestore.nodes n on n.id = c.node_id
    -- "Offset 0" keeps this a lookup by path. With stale statistics, the planner would read all entries for each row.
    cross join lateral (
      select o.*
      from filestore.scan_entries o
      where o.scan_id = c.scan_id
        and o.path = c.path
      offset 0
    ) o
    cross join lateral (select row (o.*)::filestore.scan_entries as entry) e
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number <= last
      and n.live
      and n.path = c.path
      -- Changes of filestore.sync_nodes have no version.
      and (n.version > c.version and filestore.is_superseded(n, c.version, scan.journal_entry_ids)) is not true
    order by n.id
    for no key update of n
  ),
  changed as (
    update filestore.nodes n
    set state            = f.state,
        size_bytes       = f.size_bytes,
        last_modified_at = f.last_modified_at,
        link_target      = f.link_target,
        content_hash     = f.content_hash,
        checksum         = f.checksum,
        storage_class    = f.storage_class,
        backend_identity = f.backend_identity
    from locked l
    cross join lateral filestore.follow_entry(l.node, l.entry) f
    where n.id = (l.node).id
    returning n.id, (l.node).state = 'missing' as was_missing
  )
  select
    coalesce(array_agg(c.id) filter (where not c.was_missing), '{}'),
    coalesce(array_agg(c.id) filter (where c.was_missing), '{}')
  into changed_ids, found_ids
  from changed c;
  perform filestore.skip_changes(scan, last, changed_ids || found_ids);

  update filestore.scans s
  set changed = s.changed + cardinality(changed_ids),
      found   = s.found + cardinality(found_ids),
      applied = last
  where s.id = scan.id
  returning * into scan;
  return scan;
end
$$;

comment on function filestore.change_scanned(filestore.scans, bigint) is
  'Internal: Carries out the planned changes of content up to a number. Missing nodes that were found become active. Leaves out what others have written in the meantime.';

revoke all on function filestore.change_scanned(filestore.scans, bigint) from public;
--! EndIncluded functions/change_scanned.sql
--! Included functions/settle_scan.sql
create or replace function filestore.settle_scan(scan filestore.scans, max_nodes integer)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  part record;
  done integer := 0;
begin
  if scan.settled is null then
    -- The nodes that the scan changed. Created ones have sightings already, and those of unchanged ones are planned.
    insert into filestore.scan_sightings (scan_id, number, moment, node_ids)
    select scan.id, scan.planned + 10000000000000 + row_number() over (order by p.part, p.listed_at), p.listed_at, p.node_ids
    from (
      select c.node_id / 16384 as part, e.listed_at, array_agg(c.node_id) as node_ids
      from filestore.scan_changes c
      -- "Offset 0" keeps this a lookup by path.
      cross join lateral (
        select o.listed_at
        from filestore.scan_entries o
        where o.scan_id = c.scan_id
          and o.path = c.path
        offset 0
      ) e
      where c.scan_id = scan.id
        and c.action in ('move', 'change', 'find')
      group by c.node_id / 16384, e.listed_at
    ) p;
    scan.settled := 0;
  end if;

  for part in
    select g.number, g.moment, g.node_ids
    from filestore.scan_sightings g
    where g.scan_id = scan.id
      and g.number > scan.settled
    order by g.number
  loop
    exit when done >= max_nodes;
    scan.seen    := scan.seen + filestore.see_nodes(part.node_ids, part.moment);
    scan.settled := part.number;
    done         := done + cardinality(part.node_ids);
  end loop;
  update filestore.scans s
  set seen    = scan.seen,
      settled = scan.settled
  where s.id = scan.id;
  return scan;
end
$$;

comment on function filestore.settle_scan(filestore.scans, integer) is
  'Internal: Records the sightings of about max_nodes nodes that a scan found, and returns the scan. The caller holds the shared tree lock.';

revoke all on function filestore.settle_scan(filestore.scans, integer) from public;
--! EndIncluded functions/settle_scan.sql
--! Included functions/begin_scan_work.sql
create or replace function filestore.begin_scan_work(scan filestore.scans)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  entry filestore.journal_entries;
begin
  select *
  into entry
  from filestore.journal_entries j
  where j.id = scan.journal_entry_ids[cardinality(scan.journal_entry_ids)]
    and j.status = 'running';
  -- The first call, or one after filestore.expire_commands ended the entry.
  if entry.id is null then
    entry := (filestore.begin_command(
      'scan',
      jsonb_build_object('scan_id', scan.id, 'path', scan.path, 'recursive', scan.is_recursive),
      mount_id        => scan.backend_mount_id,
      principal       => scan.principal,
      primary_node_id => scan.directory_id
    )).entry;
    update filestore.scans s
    set journal_entry_ids = s.journal_entry_ids || entry.id
    where s.id = scan.id
    returning * into scan;
  end if;
  perform filestore.begin_work(entry.id);
  return scan;
end
$$;

comment on function filestore.begin_scan_work(filestore.scans) is
  'Internal: Begins work on the command of a scan, and begins the command first if it has none that runs. Returns the scan.';

revoke all on function filestore.begin_scan_work(filestore.scans) from public;
--! EndIncluded functions/begin_scan_work.sql
--! Included functions/finish_scan.sql
create or replace function filestore.finish_scan(scan filestore.scans)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.finish_command(
    scan.journal_entry_ids[cardinality(scan.journal_entry_ids)],
    'succeeded',
    result            => jsonb_build_object(
      'entries', scan.entries,
      'created', scan.created,
      'moved',   scan.moved,
      'changed', scan.changed,
      'found',   scan.found,
      'missing', scan.missing,
      'deleted', scan.deleted,
      'skipped', scan.skipped,
      'refused', scan.refused,
      'seen',    scan.seen
    ),
    -- As many as an entry may have. The history of each changed node names the entry, also beyond that number.
    affected_node_ids => array(
      select distinct a.node_id
      from (
        select c.node_id
        from filestore.scan_changes c
        where c.scan_id = scan.id
          and c.node_id is not null
          and c.action in ('create', 'move', 'change', 'find', 'missing', 'delete')
        order by c.number
        limit 100000
      ) a
    )
  );
  return filestore.end_scan(scan, 'finished');
end
$$;

comment on function filestore.finish_scan(filestore.scans) is
  'Internal: Ends a scan of which everything is applied, and its command, with the counts as its result. Returns the scan.';

revoke all on function filestore.finish_scan(filestore.scans) from public;
--! EndIncluded functions/finish_scan.sql
--! Included functions/next_change.sql
create or replace function filestore.next_change(scan filestore.scans)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
select coalesce(min(c.number), 9000000000000)
from filestore.scan_changes c
where c.scan_id = scan.id
  and c.number > scan.applied
$$;

comment on function filestore.next_change(filestore.scans) is
  'Internal: Number of the next planned change of a scan; when there is none, a number of step 9.';

revoke all on function filestore.next_change(filestore.scans) from public;
--! EndIncluded functions/next_change.sql
--! Included functions/apply_batch.sql
create or replace function filestore.apply_batch(scan filestore.scans, step integer, max_nodes integer)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
-- A session plans the checks of foreign keys once: on a small table, each would read all nodes for ever.
set enable_seqscan = off
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
--! Included functions/apply_scan.sql
create or replace function filestore.apply_scan(
  scan_id           bigint,
  max_missing_share numeric default 0.2,
  max_nodes         integer default 10000
)
returns filestore.scans
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  scan filestore.scans;
  step integer;
begin
  perform filestore.require_first_write('filestore.apply_scan');
  perform filestore.check_limit('max_nodes', max_nodes, 100000);
  if max_missing_share is null or max_missing_share not between 0 and 1 then
    raise exception 'max_missing_share is %', coalesce(max_missing_share::text, 'null')
      using errcode    = 'FS422',
            constraint = 'missing_share_check',
            hint       = 'Give a share of the live nodes, from 0 to 1.';
  end if;
  -- The tree lock comes before the row of the scan, since deleting the mount takes them in this order. So the exception
  -- releases the row again.
  begin
    scan := filestore.lock_scan(apply_scan.scan_id);
    if scan.state = 'applying' and scan.planned is not null then
      raise sqlstate 'FS001';
    end if;
  exception
    when sqlstate 'FS001' then
      step := filestore.next_change(scan) / 1000000000000 % 100;
      perform filestore.lock_tree(scan.backend_mount_id, step between 2 and 4);
      scan := filestore.lock_scan(apply_scan.scan_id);
      if scan.planned is null or step is distinct from filestore.next_change(scan) / 1000000000000 % 100 then
        -- Another worker has gone on in the meantime.
        return scan;
      end if;
  end;
  if scan.state = 'finished' then
    return scan;
  end if;

  update filestore.scans s
  set state      = 'applying',
      planned    = case s.state when 'applying' then s.planned end,
      expires_at = clock_timestamp() + s.expire_after_ms * interval '1 millisecond'
  where s.id = scan.id
  returning * into scan;
  if scan.planned is null then
    scan := filestore.plan_scan(scan);
    perform filestore.refuse_missing_share(scan, max_missing_share);
    return scan;
  end if;

  begin
    scan := filestore.apply_batch(scan, step, max_nodes);
  exception
    when unique_violation or foreign_key_violation or sqlstate 'FS001' or sqlstate 'FS404' then
      -- Others have written in the meantime: the next call plans again.
      if scan.settled is not null then
        raise;
      elsif scan.plans >= 100 then
        raise exception 'scan % was planned % times, and others have written each time', scan.id, scan.plans
          using errcode    = 'FS409',
                constraint = 'scans_disturbed',
                hint       = 'Call filestore.cancel_scan, and scan again. What the scan has applied stays.';
      end if;
      update filestore.scans s
      set planned = null
      where s.id = scan.id
      returning * into scan;
  end;
  perform set_config('filestore.journal_entry_id', '', true);
  return scan;
end
$$;

comment on function filestore.apply_scan(bigint, numeric, integer) is
  'Makes the catalogue follow the entries of a scan, about max_nodes in a call, and returns the scan. Repeat it until its state is finished, each time in a separate transaction. It can be killed at any moment: the next call continues. The first call plans all changes; it refuses with FS409 when more than max_missing_share of the live nodes that the scan covers, and more than 100, were not found. FS404 when there is no such scan; FS409 also when it has ended, when another call works on it, when the server has lost its entries, when others write each time that it is planned, when its directory was moved or deleted, and when its mount moves or is being erased.';

revoke all on function filestore.apply_scan(bigint, numeric, integer) from public;
--! EndIncluded functions/apply_scan.sql
