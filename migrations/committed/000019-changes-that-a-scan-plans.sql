--! Previous: sha1:a526e1f6b79d11b1b95dadaf9adbd4824659a58e
--! Hash: sha1:47026e9e422b3af9fa65815a9804d0a4933f3e33
--! Message: Changes that a scan plans

create unlogged table if not exists filestore.scan_directories (
  scan_id    bigint  not null,
  depth      integer not null,
  path       text    collate "C" not null,
  node_id    bigint,
  from_path  text    collate "C",
  partner_id bigint,
  blocker_id bigint,
  is_held    boolean not null default false,
  is_shifted boolean not null default true,

  constraint scan_directories_pkey
    primary key (scan_id, path)
);

create index if not exists scan_directories_node_idx
  on filestore.scan_directories (scan_id, node_id)
  where node_id is not null;
create index if not exists scan_directories_partner_idx
  on filestore.scan_directories (scan_id, partner_id)
  where partner_id is not null;

comment on table  filestore.scan_directories            is 'Internal: While a scan is planned: the recorded directories that are new or elsewhere in the catalogue, and the directories below them.';
comment on column filestore.scan_directories.scan_id    is 'scans.id.';
comment on column filestore.scan_directories.depth      is 'Number of segments in path.';
comment on column filestore.scan_directories.path       is 'scan_entries.path.';
comment on column filestore.scan_directories.node_id    is 'The node of the directory; null when the directory is new.';
comment on column filestore.scan_directories.from_path  is 'Path of that node before the scan.';
comment on column filestore.scan_directories.partner_id is 'The only node with the identity of the entry, if it is at another path.';
comment on column filestore.scan_directories.blocker_id is 'Another node that has to leave the path first.';
comment on column filestore.scan_directories.is_held    is 'Whether the directory is left alone, because others wrote to the node with its identity.';
comment on column filestore.scan_directories.is_shifted is 'Whether the node was not at this path before the scan.';
comment on index filestore.scan_directories_node_idx    is 'The path of a node after the scan.';
comment on index filestore.scan_directories_partner_idx is 'The directory that a node moves to.';

create unlogged table if not exists filestore.scan_changes (
  scan_id   bigint              not null,
  number    bigint              not null,
  node_id   bigint,
  version   integer,
  kind      filestore.node_kind not null,
  action    text                collate "C" not null,
  path      text                collate "C" not null,
  from_path text                collate "C",

  constraint scan_changes_pkey
    primary key (scan_id, number)
);

-- Without scan_id, and lookups say "scan_id + 0": with stale statistics, the planner would read all changes of a scan by the
-- primary key for each node.
create index if not exists scan_changes_node_idx
  on filestore.scan_changes (node_id)
  where node_id is not null;

comment on table  filestore.scan_changes           is 'Internal: The planned changes of a scan that has not ended, in the order in which they are applied. Empty after a crash of the server. filestore.scan_differences lists them.';
comment on column filestore.scan_changes.scan_id   is 'scans.id.';
comment on column filestore.scan_changes.number    is 'Place in the order; not contiguous.';
comment on column filestore.scan_changes.node_id   is 'The node; null for one that will be created.';
comment on column filestore.scan_changes.version   is 'Version of the node when the change was planned. A node that others have changed since is left alone.';
comment on column filestore.scan_changes.kind      is 'file or directory.';
comment on column filestore.scan_changes.action    is 'create, move, change, find, missing, delete, skip, or keep for a node that is still missing.';
comment on column filestore.scan_changes.path      is 'Path after the scan.';
comment on column filestore.scan_changes.from_path is 'Path before the scan; null for a node that will be created.';
comment on index filestore.scan_changes_node_idx is 'The planned changes of a node.';

create unlogged table if not exists filestore.scan_sightings (
  scan_id  bigint         not null,
  number   bigint         not null,
  moment   timestamptz(3) not null,
  node_ids bigint[]       not null,

  constraint scan_sightings_pkey
    primary key (scan_id, number)
);

-- Compressing thousands of ids takes longer than recording their sightings.
alter table filestore.scan_sightings alter column node_ids set storage external;

comment on table  filestore.scan_sightings          is 'Internal: The nodes that a scan found, until their sightings are recorded. Each row has the ids of one range.';
comment on column filestore.scan_sightings.scan_id  is 'scans.id.';
comment on column filestore.scan_sightings.number   is 'Place in the order; not contiguous.';
comment on column filestore.scan_sightings.moment   is 'When the nodes were listed.';
comment on column filestore.scan_sightings.node_ids is 'The nodes, at most 16,384.';

--! Included functions/find_partners.sql
create or replace function filestore.find_partners(scan filestore.scans)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
as $$
declare
  -- The paths below the scanned directory are those from path || '/' up to path || '0', since '0' follows '/'. For the root,
  -- the upper bound is longer than any path (2600 bytes) and consists of the last character, U+10FFFF.
  lower_path constant text    := case when scan.path = '' then '' else scan.path || '/' end;
  upper_path constant text    := case when scan.path = '' then repeat(chr(1114111), 651) else scan.path || '0' end;
  longest    integer;
  held       text[];
  paths      text[];
begin
  held := array(select d.path from filestore.scan_directories d where d.scan_id = scan.id and d.is_held);
  -- A node at its own path is no partner. Nodes outside of the scan are partners only when they are missing: an
  -- object that another scan saw may have several paths.
  with wanted as materialized (
    select d.path, e.backend_identity, e.listed_at
    from filestore.scan_directories d
    join filestore.scan_entries e on e.scan_id = d.scan_id and e.path = d.path
    where d.scan_id = scan.id
      and e.backend_identity is not null
  ),
  strays as materialized (
    select n.id, n.path, n.backend_identity, n.updated_at
    from (
      select n.id, n.path, n.backend_identity, n.updated_at
      from filestore.nodes n
      where scan.is_recursive
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > lower_path
        and n.path < upper_path
        and n.directory_path is not null
        and n.backend_identity is not null
      union all
      select n.id, n.path, n.backend_identity, n.updated_at
      from filestore.nodes n
      where not scan.is_recursive
        and n.parent_id = scan.directory_id
        and n.parent_live is not null
        and n.directory_path is not null
        and n.backend_identity is not null
    ) n
    left join filestore.scan_entries e on e.scan_id = scan.id and e.path = n.path and e.kind = 'directory' and e.fault is null
    where e.path is null
       or e.backend_identity <> n.backend_identity
    union all
    select o.id, o.path, o.backend_identity, o.updated_at
    from wanted w
    cross join lateral (
      select n.id, n.path, n.parent_id, n.backend_identity, n.updated_at
      from filestore.nodes n
      where hashtextextended(n.backend_identity, 0) = hashtextextended(w.backend_identity, 0)
        and n.backend_identity is not null
        and n.backend_identity = w.backend_identity
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.directory_path is not null
        and (n.state = 'missing' or n.updated_at >= w.listed_at)
      offset 0
    ) o
    -- A scan of everything has no nodes outside.
    where (scan.path <> '' or not scan.is_recursive)
      and not case when scan.is_recursive then o.path > lower_path and o.path < upper_path else o.parent_id = scan.directory_id end
      and not starts_with(scan.path || '/', o.path || '/')
  ),
  pairs as (
    select w.path, s.id, s.path as from_path,
           s.updated_at >= w.listed_at and filestore.is_written_since(s.id, w.listed_at, scan.journal_entry_ids) as is_held
    from (
      select min(a.path) as path, a.backend_identity, min(a.listed_at) as listed_at
      from wanted a
      group by a.backend_identity
      having count(*) = 1
    ) w
    join (
      select min(b.id) as id, min(b.path) as path, b.backend_identity, max(b.updated_at) as updated_at
      from strays b
      group by b.backend_identity
      having count(*) = 1
    ) s on s.backend_identity = w.backend_identity
  )
  update filestore.scan_directories d
  set partner_id = case when not (d.is_held or p.is_held) then p.id end,
      from_path  = p.from_path,
      is_held    = d.is_held or p.is_held
  from pairs p
  where d.scan_id = scan.id
    and d.path = p.path;

  -- What cannot move below a directory that is held, or to such a path, stays where it is, and so does what would take its place.
  paths := array(select d.path from filestore.scan_directories d where d.scan_id = scan.id and d.is_held);
  while paths <> '{}' loop
    with stuck as (
      update filestore.scan_directories d
      set is_held    = true,
          partner_id = null
      where d.scan_id = scan.id
        and not d.is_held
        and (
          left(d.path, -strpos(reverse(d.path), '/')) = any (paths)
          or d.path = any (array(select h.from_path from filestore.scan_directories h where h.scan_id = scan.id and h.path = any (held)))
        )
      returning d.path
    )
    select array(select s.path from stuck s)
    into paths;
    held := paths;
  end loop;

  -- A directory does not move if a path below it would become too long. Then its nodes move one by one.
  select max(octet_length(d.path) - octet_length(d.from_path))
  into longest
  from filestore.scan_directories d
  where d.scan_id = scan.id
    and d.partner_id is not null;
  if coalesce(longest, 0) <= 0 or not exists (
    select
    from filestore.nodes n
    where n.backend_mount_id = scan.backend_mount_id
      and n.live
      and octet_length(n.path) > 2600 - longest
  ) then
    return;
  end if;
  update filestore.scan_directories d
  set partner_id = null
  where d.scan_id = scan.id
    and d.partner_id is not null
    and exists (
      select
      from filestore.nodes n
      where n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > d.from_path || '/'
        and n.path < d.from_path || '0'
        and octet_length(n.path) + octet_length(d.path) - octet_length(d.from_path) > 2600
    );
end
$$;

comment on function filestore.find_partners(filestore.scans) is
  'Internal: Finds, for the directories of a scan that are not at their path in the catalogue, the node with the same identity, if it is the only one and no other entry has the identity.';

revoke all on function filestore.find_partners(filestore.scans) from public;
--! EndIncluded functions/find_partners.sql
--! Included functions/place_directories.sql
create or replace function filestore.place_directories(scan filestore.scans)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  level   integer;
  deepest integer;
begin
  select min(d.depth)
  into level
  from filestore.scan_directories d
  where d.scan_id = scan.id;
  select max(e.depth)
  into deepest
  from filestore.scan_entries e
  where e.scan_id = scan.id
    and e.kind = 'directory'
    and e.fault is null;

  -- From the top down, since the place of a directory follows from the one above it.
  while level <= deepest loop
    -- Each directory is looked up. With stale statistics, joins would read all directories for each level.
    insert into filestore.scan_directories (scan_id, depth, path)
    select e.scan_id, e.depth, e.path
    from filestore.scan_entries e
    where e.scan_id = scan.id
      and e.kind = 'directory'
      and e.depth = level
      and e.fault is null
      and (
        select p.is_shifted
        from filestore.scan_directories p
        where p.scan_id = e.scan_id
          and p.path = left(e.path, -strpos(reverse(e.path), '/'))
      )
    on conflict do nothing;

    update filestore.scan_directories d
    set (node_id, from_path, blocker_id, is_held, is_shifted) = (
      select
        c.chosen_id,
        f.path,
        case when c.occupant_id <> coalesce(c.chosen_id, 0) then c.occupant_id end,
        c.is_held,
        f.path is distinct from d.path
      from (
        select
          w.is_held,
          o.id as occupant_id,
          case
            when w.is_held then null
            -- Path before identity, unless the node at the path has a place elsewhere.
            when o.id is not null and (o.id = d.partner_id or not exists (
              select
              from filestore.scan_directories a
              where a.scan_id = d.scan_id
                and a.partner_id = o.id
            )) then o.id
            else d.partner_id
          end as chosen_id
        from (
          select
            d.is_held or coalesce(p.is_held, false) as is_held,
            case
              when p.path is not null then p.node_id
              else (
                select n.id
                from filestore.nodes n
                where n.backend_mount_id = scan.backend_mount_id
                  and n.path = left(d.path, -strpos(reverse(d.path), '/'))
                  and n.live
                  and n.directory_path is not null
              )
            end as parent_id
          from (values (true)) as one_row
          left join lateral (
            select t.path, t.node_id, t.is_held
            from filestore.scan_directories t
            where t.scan_id = d.scan_id
              and t.path = left(d.path, -strpos(reverse(d.path), '/'))
            offset 0
          ) p on true
        ) w
        left join lateral (
          select n.id
          from filestore.nodes n
          where n.parent_id = w.parent_id
            and n.name = right(d.path, strpos(reverse('/' || d.path), '/') - 1)
            and n.parent_live
            and n.directory_path is not null
          offset 0
        ) o on true
      ) c
      left join lateral (
        select n.path
        from filestore.nodes n
        where n.id = c.chosen_id
        offset 0
      ) f on true
    )
    where d.scan_id = scan.id
      and d.depth = level;

    level := level + 1;
    if not exists (
      select
      from filestore.scan_directories d
      where d.scan_id = scan.id
        and d.depth >= level - 1
        and (d.is_shifted or d.depth >= level)
    ) then
      return;
    end if;
  end loop;
end
$$;

comment on function filestore.place_directories(filestore.scans) is
  'Internal: Decides which node each recorded directory is, if that is not the one at its path or there is none, and which are new.';

revoke all on function filestore.place_directories(filestore.scans) from public;
--! EndIncluded functions/place_directories.sql
--! Included functions/moved_in_nodes.sql
create or replace function filestore.moved_in_nodes(scan filestore.scans)
returns setof filestore.nodes
language plpgsql
stable
rows 1000
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
  -- A scan of everything has nothing outside, and one of one directory does not look below the directories in it.
  if scan.path = '' or not scan.is_recursive then
    return;
  end if;
  return query
  select distinct on (n.id) n.*
  from (
    select t.id, t.path
    from filestore.scan_directories d
    -- "Offset 0" keeps this a lookup by id.
    cross join lateral (
      select o.id, o.path
      from filestore.nodes o
      where o.id = d.node_id
      offset 0
    ) t
    where d.scan_id = scan.id
      and d.is_shifted
      and not starts_with(t.path, scan.path || '/')
  ) t
  -- "Offset 0" keeps this a range of the index.
  cross join lateral (
    select o.*
    from filestore.nodes o
    where o.backend_mount_id = scan.backend_mount_id
      and o.live
      and o.path > t.path || '/'
      and o.path < t.path || '0'
    offset 0
  ) n;
end
$$;

comment on function filestore.moved_in_nodes(filestore.scans) is
  'Internal: The live nodes below the directories that a scan of a subtree moves in from outside of it.';

revoke all on function filestore.moved_in_nodes(filestore.scans) from public;
--! EndIncluded functions/moved_in_nodes.sql

--! Included functions/plan_lost_directories.sql
create or replace function filestore.plan_lost_directories(scan filestore.scans, base bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
as $$
declare
  -- The paths below the scanned directory are those from path || '/' up to path || '0', since '0' follows '/'. For the root,
  -- the upper bound is longer than any path (2600 bytes) and consists of the last character, U+10FFFF.
  lower_path constant text    := case when scan.path = '' then '' else scan.path || '/' end;
  upper_path constant text    := case when scan.path = '' then repeat(chr(1114111), 651) else scan.path || '0' end;
begin
  with recursive lost as materialized (
    select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.version
    from (
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.version
      from filestore.nodes n
      where scan.is_recursive
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > lower_path
        and n.path < upper_path
        and n.directory_path is not null
      union all
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.version
      from filestore.nodes n
      where not scan.is_recursive
        and n.parent_id = scan.directory_id
        and n.parent_live is not null
        and n.directory_path is not null
      union all
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.version
      from filestore.moved_in_nodes(scan) n
      where n.directory_path is not null
    ) n
    left join filestore.scan_entries e on e.scan_id = scan.id and e.path = n.path and e.kind = 'directory' and e.fault is null
    left join filestore.scan_directories d on d.scan_id = scan.id and d.path = n.path
    where (e.path is null or (d.path is not null and d.node_id is distinct from n.id))
      and not exists (select from filestore.scan_directories a where a.scan_id = scan.id and a.node_id = n.id)
  ),
  placed as (
    select l.*, case when a.path is null then l.path else filestore.child_path(a.path, l.name) end as final_path,
            false as is_below_deleted
    from lost l
    left join filestore.scan_directories a on a.scan_id = scan.id and a.node_id = l.parent_id and a.is_shifted
    where not exists (select from lost p where p.id = l.parent_id)
    union all
    select l.*, p.final_path || '/' || l.name, p.is_below_deleted or exists (
      select
      from filestore.scan_entries e
      where e.scan_id = scan.id
        and e.path = p.final_path
        and e.fault is null
        -- Then the directory above is left alone too.
        and not exists (select from filestore.scan_directories h where h.scan_id = scan.id and h.path = p.final_path and h.is_held)
    )
    from placed p
    join lost l on l.parent_id = p.id
  ),
  decided as (
    select
      p.*,
      case
        when p.is_held or (p.updated_at >= scan.started_at and filestore.is_written_since(p.id, scan.started_at, scan.journal_entry_ids)) then 'skip'
        when not p.is_taken then case when p.state = 'missing' then 'keep' else 'missing' end
        -- Something else has its path now. It stays if others wrote to nodes below it.
        when exists (
          select
          from filestore.nodes n
          where n.backend_mount_id = scan.backend_mount_id
            and n.live
            and n.path > p.path || '/'
            and n.path < p.path || '0'
            and n.updated_at >= scan.started_at
            and filestore.is_written_since(n.id, scan.started_at, scan.journal_entry_ids)
        ) then 'skip'
        else 'delete'
      end as action
    from (
      select
        q.*,
        q.is_below_deleted or exists (
          select from filestore.scan_entries e where e.scan_id = scan.id and e.path = q.final_path and e.fault is null
        ) as is_taken,
        exists (select from filestore.scan_directories h where h.scan_id = scan.id and h.path = q.final_path and h.is_held) as is_held
      from placed q
    ) p
  )
  insert into filestore.scan_changes (scan_id, number, node_id, version, kind, action, path, from_path)
  select
    scan.id,
    base + case d.action when 'delete' then 4500000000000 when 'missing' then 7000000000000 else 9000000000000 end
      + row_number() over (order by d.path desc),
    d.id,
    d.version,
    'directory',
    d.action,
    d.final_path,
    d.path
  from decided d;
end
$$;

comment on function filestore.plan_lost_directories(filestore.scans, bigint) is
  'Internal: Plans for the directories that a scan did not find: to be marked as missing, or to be deleted if something else has their path.';

revoke all on function filestore.plan_lost_directories(filestore.scans, bigint) from public;
--! EndIncluded functions/plan_lost_directories.sql
--! Included functions/plan_files.sql
create or replace function filestore.plan_files(scan filestore.scans, base bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
-- For each of a few hashes and sorts. More memory would not be faster, and would grow with the mount.
set work_mem = '16MB'
as $$
declare
  -- The paths below the scanned directory are those from path || '/' up to path || '0', since '0' follows '/'. For the root,
  -- the upper bound is longer than any path (2600 bytes) and consists of the last character, U+10FFFF.
  lower_path constant text    := case when scan.path = '' then '' else scan.path || '/' end;
  upper_path constant text    := case when scan.path = '' then repeat(chr(1114111), 651) else scan.path || '0' end;
begin
  with recursive places as materialized (
    select d.node_id, d.path, false as is_deleted
    from filestore.scan_directories d
    where d.scan_id = scan.id
      and d.node_id is not null
      and d.is_shifted
    union all
    select c.node_id, null, c.action = 'delete'
    from filestore.scan_changes c
    where c.scan_id = scan.id
      and c.number > base
  ),
  files as (
    select n.*, case when p.node_id is null then n.path else filestore.child_path(p.path, n.name) end as final_path,
            coalesce(p.is_deleted, false) as is_below_deleted
    from (
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.version, n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity,
              n.content_hash, n.checksum, n.storage_class, n.created_at
      from filestore.nodes n
      where scan.is_recursive
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > lower_path
        and n.path < upper_path
        and n.directory_path is null
      union all
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.version, n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity,
              n.content_hash, n.checksum, n.storage_class, n.created_at
      from filestore.nodes n
      where not scan.is_recursive
        and n.parent_id = scan.directory_id
        and n.parent_live is not null
        and n.directory_path is null
    ) n
    left join places p on p.node_id = n.parent_id
    union all
    select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.version, n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity,
            n.content_hash, n.checksum, n.storage_class, n.created_at, filestore.child_path(p.path, n.name), p.is_deleted
    from filestore.moved_in_nodes(scan) n
    join places p on p.node_id = n.parent_id
    where n.directory_path is null
  ),
  -- Most rows are equal, so that only their ids are kept.
  compared as materialized (
    select
      c.id,
      c.listed_at,
      c.is_equal and (c.updated_at < c.listed_at or not filestore.is_written_since(c.id, c.listed_at, scan.journal_entry_ids)) as is_seen,
      not c.is_equal as differs,
      case when not c.is_equal then c.path end as path,
      case when not c.is_equal then c.from_path end as from_path,
      case when not c.is_equal then c.final_path end as final_path,
      case when not c.is_equal then c.state end as state,
      case when not c.is_equal then c.updated_at end as updated_at,
      case when not c.is_equal then c.version end as version,
      c.is_below_deleted,
      c.entry_key,
      c.node_key
    from (
      select
        e.path,
        e.listed_at,
        n.id,
        n.path as from_path,
        n.final_path,
        n.state,
        n.updated_at,
        n.version,
        n.is_below_deleted,
        e.path is not null
          and n.id is not null
          and n.state <> 'missing'
          and (n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity, n.content_hash, n.checksum, n.storage_class)
            is not distinct from (
              e.size_bytes,
              coalesce(e.last_modified_at, n.last_modified_at),
              e.link_target,
              coalesce(e.backend_identity, n.backend_identity),
              coalesce(e.content_hash, n.content_hash),
              coalesce(e.checksum, n.checksum),
              coalesce(e.storage_class, n.storage_class)
            ) as is_equal,
        -- A file that an earlier plan of the scan has created counts, so that its twins stay ambiguous.
        case when (e.backend_identity <> n.backend_identity) is true or n.id is null or n.created_at >= scan.started_at then
          coalesce(
            'i' || e.backend_identity,
            case when n.id is null and scan.pairs_by_content and e.size_bytes > 0 then e.size_bytes || ' ' || e.content_hash end
          )
        end as entry_key,
        case when (e.backend_identity <> n.backend_identity) is true or e.path is null then
          coalesce(
            'i' || n.backend_identity,
            case when e.path is null and scan.pairs_by_content and n.size_bytes > 0 then n.size_bytes || ' ' || n.content_hash end
          )
        end as node_key
      from (
        select g.path, g.listed_at, g.size_bytes, g.last_modified_at, g.link_target, g.backend_identity, g.content_hash, g.checksum, g.storage_class
        from filestore.scan_entries g
        where g.scan_id = scan.id
          and g.kind = 'file'
          and g.fault is null
      ) e
      full join files n on n.final_path = e.path
      -- "Offset 0": the comparison would be evaluated for each of its uses.
      offset 0
    ) c
  ),
  found_nodes as (
    insert into filestore.scan_sightings (scan_id, number, moment, node_ids)
    select scan.id, base + 100000000000 + row_number() over (order by p.part, p.listed_at), p.listed_at, p.node_ids
    from (
      select c.id / 16384 as part, c.listed_at, array_agg(c.id) as node_ids
      from compared c
      where c.is_seen
      group by c.id / 16384, c.listed_at
    ) p
  ),
  diff as materialized (
    select c.*
    from compared c
    where c.differs
  ),
  wanted as materialized (
    select min(c.path) as path, c.entry_key as key, min(c.listed_at) as listed_at
    from compared c
    where c.entry_key is not null
    group by c.entry_key
    having count(*) = 1
  ),
  strays as (
    select d.id, d.from_path, d.node_key as key, d.updated_at, d.version
    from diff d
    where d.node_key is not null
    union all
    select o.id, o.path, w.key, o.updated_at, o.version
    from wanted w
    cross join lateral (
      select n.id, n.path, n.parent_id, n.updated_at, n.version
      from filestore.nodes n
      where hashtextextended(n.backend_identity, 0) = hashtextextended(substr(w.key, 2), 0)
        and n.backend_identity is not null
        and n.backend_identity = substr(w.key, 2)
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.directory_path is null
        and (n.state = 'missing' or n.updated_at >= w.listed_at)
      offset 0
    ) o
    -- A scan of everything has no nodes outside.
    where (scan.path <> '' or not scan.is_recursive)
      and starts_with(w.key, 'i')
      and not case when scan.is_recursive then o.path > lower_path and o.path < upper_path else o.parent_id = scan.directory_id end
      and not (scan.is_recursive and exists (select from places p where p.node_id = o.parent_id))
  ),
  pairs as materialized (
    select w.path, s.id, s.from_path, s.version,
            s.updated_at >= w.listed_at and filestore.is_written_since(s.id, w.listed_at, scan.journal_entry_ids) as is_held
    from wanted w
    join (
      select min(t.id) as id, min(t.from_path) as from_path, t.key, max(t.updated_at) as updated_at, min(t.version) as version
      from strays t
      group by t.key
      having count(*) = 1
    ) s on s.key = w.key
  ),
  -- Paths that others left since the scan began.
  vacated as materialized (
    select s.path, max(s.valid_to) as left_at
    from filestore.snapshots s
    where s.valid_to >= scan.started_at
      and s.backend_mount_id = scan.backend_mount_id
      and s.live
      and (s.superseded_by_journal_id = any (scan.journal_entry_ids)) is not true
    group by s.path
  ),
  -- Grouped by what they are joined on, as the next ones: the planner takes a recursive result for so many rows that a join with it
  -- would be split into a file for every few rows.
  held_paths as materialized (
    select d.path, bool_or(h.path is not null) as is_below_held
    from diff d
    left join vacated v on v.path = d.path
    left join filestore.scan_directories h
      on h.scan_id = scan.id
      and h.path = left(d.path, -strpos(reverse(d.path), '/'))
      and h.is_held
    where h.path is not null or v.left_at >= d.listed_at
    group by d.path
  ),
  follows as materialized (
    select p.id, d.id as blocker_id, h.path is not null as is_held
    from pairs p
    join diff d on d.path = p.path
    left join held_paths h on h.path = p.path
    where not p.is_held
  ),
  -- Nodes that cannot leave their path, since others have left the place where they belong, or since such a node is there.
  stuck as (
    select f.id
    from follows f
    -- As in "ranked" below.
    cross join string_to_table('1', ',') as a
    cross join string_to_table('1', ',') as b
    where f.is_held
    union
    select f.id
    from stuck s
    join follows f on f.blocker_id = s.id
  ),
  stuck_ids as materialized (
    select s.id
    from stuck s
    group by s.id
  ),
  decided as materialized (
    select
      d.*,
      mine.id as partner_id,
      mine.from_path as partner_path,
      mine.version as partner_version,
      theirs.id is not null as is_leaving,
      case
        when d.path is null then null
        when h.is_below_held or k.id is not null then 'skip'
        when d.id is not null and theirs.id is null then
          case
            when d.updated_at >= d.listed_at and filestore.is_written_since(d.id, d.listed_at, scan.journal_entry_ids) then 'skip'
            when d.state = 'missing' then 'find'
            else 'change'
          end
        when mine.is_held then 'skip'
        when h.path is not null or m.id is not null then 'skip'
        when mine.id is not null then 'move'
        else 'create'
      end as action
    from diff d
    left join pairs mine on mine.path = d.path
    left join pairs theirs on theirs.id = d.id and not theirs.is_held
    left join held_paths h on h.path = d.path
    left join stuck_ids k on k.id = d.id
    left join stuck_ids m on m.id = mine.id
  ),
  moves as materialized (
    select d.partner_id as id, d.path, d.id as blocker_id
    from decided d
    where d.action = 'move'
  ),
  -- In a chain, the last one moves first. Those in a circle have no rank; two that swap follow each other.
  ranked as (
    select m.id, 0 as rank
    from moves m
    -- The planner takes the two single rows for a million, so that it hashes the moves once, and not in each step.
    cross join string_to_table('1', ',') as a
    cross join string_to_table('1', ',') as b
    where not exists (select from moves o where o.id = m.blocker_id)
    union all
    select m.id, r.rank + 1
    from ranked r
    join moves m on m.blocker_id = r.id
  ),
  ranks as (
    select r.id, min(r.rank) as rank
    from ranked r
    group by r.id
  ),
  lost as (
    select
      d.id,
      d.final_path,
      d.from_path,
      d.version,
      case
        when d.action = 'skip' or (d.updated_at >= scan.started_at and filestore.is_written_since(d.id, scan.started_at, scan.journal_entry_ids)) then 'skip'
        when d.is_below_deleted or d.path is not null or t.path is not null then 'delete'
        when d.state <> 'missing' then 'missing'
      end as action
    from decided d
    left join (
      select e.path
      from filestore.scan_entries e
      left join filestore.scan_directories h on h.scan_id = scan.id and h.path = e.path
      where e.scan_id = scan.id
        and e.kind = 'directory'
        and e.fault is null
        and h.is_held is not true
    ) t on t.path = d.final_path
    where d.id is not null
      and (d.path is null or d.is_leaving)
      and not exists (select from moves m where m.id = d.id)
  ),
  changes as (
    select case d.action when 'create' then 5 when 'change' then 6 when 'find' then 6 when 'move' then 3 else 9 end as step,
            case when d.action = 'move' then coalesce(r.rank, 1000000000) else 0 end as rank,
            coalesce(least(s.id, s.blocker_id), 0) as swap,
            d.action, d.path,
            case d.action when 'move' then d.partner_id when 'create' then null else d.id end as node_id,
            case d.action when 'move' then d.partner_version when 'create' then null else d.version end as version,
            case d.action when 'move' then d.partner_path when 'create' then null else d.from_path end as from_path
    from decided d
    left join ranks r on r.id = d.partner_id and d.action = 'move'
    left join moves s on s.id = d.id and s.blocker_id = d.partner_id and d.action = 'move'
    where d.action is not null
    union all
    select case l.action when 'delete' then 1 when 'missing' then 7 else 9 end, 0, 0, l.action, coalesce(l.final_path, l.from_path), l.id, l.version, l.from_path
    from lost l
    where l.action is not null
  )
  insert into filestore.scan_changes (scan_id, number, node_id, version, kind, action, path, from_path)
  select
    scan.id,
    base + c.step * 1000000000000 + 100000000000 + row_number() over (order by c.step, c.rank, c.swap, c.path),
    c.node_id,
    c.version,
    'file',
    c.action,
    c.path,
    c.from_path
  from changes c;
end
$$;

comment on function filestore.plan_files(filestore.scans, bigint) is
  'Internal: Compares the files of a scan with those of the catalogue, at the places that they have when their directories have moved, and plans what to create, move, change, delete and mark as missing.';

revoke all on function filestore.plan_files(filestore.scans, bigint) from public;
--! EndIncluded functions/plan_files.sql
--! Included functions/plan_directories.sql
create or replace function filestore.plan_directories(scan filestore.scans, base bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
set work_mem = '64MB'
as $$
begin
  with recursive moves as materialized (
    select d.depth, d.path, d.node_id, d.from_path, d.blocker_id, n.version
    from filestore.scan_directories d
    -- Lookups: a join could read all nodes for a scan of one directory.
    cross join lateral (
      select o.parent_id, o.parent_path, o.name, o.version
      from filestore.nodes o
      where o.id = d.node_id
      offset 0
    ) n
    left join filestore.scan_directories p on p.scan_id = d.scan_id and p.node_id = n.parent_id and p.is_shifted
    where d.scan_id = scan.id
      and d.is_shifted
      -- The others are where they belong as soon as the directories above them are.
      and filestore.child_path(coalesce(p.path, n.parent_path), n.name) <> d.path
  ),
  -- In a chain, the last one moves first. Those in a circle have no rank; two that swap follow each other.
  ranked as (
    select m.node_id, m.depth, 0 as rank
    from moves m
    -- The planner takes the two single rows for a million, so that it hashes the moves once, and not in each step.
    cross join string_to_table('1', ',') as a
    cross join string_to_table('1', ',') as b
    where not exists (select from moves o where o.node_id = m.blocker_id and o.depth = m.depth)
    union all
    select m.node_id, m.depth, r.rank + 1
    from ranked r
    join moves m on m.blocker_id = r.node_id and m.depth = r.depth
  ),
  placed as (
    select m.depth, 'move' as action, coalesce(r.rank, 1000000000) as rank, coalesce(least(s.node_id, s.blocker_id), 0) as swap, m.path, m.node_id, m.version, m.from_path
    from moves m
    left join ranked r on r.node_id = m.node_id
    left join moves s on s.node_id = m.blocker_id and s.blocker_id = m.node_id and s.depth = m.depth
    union all
    select d.depth, 'create', 2000000000, 0, d.path, null, null, null
    from filestore.scan_directories d
    where d.scan_id = scan.id
      and d.node_id is null
      and not d.is_held
  )
  insert into filestore.scan_changes (scan_id, number, node_id, version, kind, action, path, from_path)
  select
    scan.id,
    base + 2000000000000 + row_number() over (order by p.depth, p.rank, p.swap, p.path),
    p.node_id,
    p.version,
    'directory',
    p.action,
    p.path,
    p.from_path
  from placed p;

  with compared as materialized (
    select
      n.id,
      n.version,
      n.state,
      e.path,
      n.path as from_path,
      e.listed_at,
      n.updated_at >= e.listed_at and filestore.is_written_since(n.id, e.listed_at, scan.journal_entry_ids) as is_written,
      n.state = 'missing'
        or (e.last_modified_at is distinct from n.last_modified_at and e.last_modified_at is not null)
        or (e.backend_identity is distinct from n.backend_identity and e.backend_identity is not null) as differs
    from filestore.scan_entries e
    left join filestore.scan_directories d on d.scan_id = e.scan_id and d.path = e.path
    cross join lateral (
      select o.*
      from filestore.nodes o
      where o.backend_mount_id = scan.backend_mount_id
        and o.live
        and o.path = case when d.path is null then e.path else d.from_path end
      offset 0
    ) n
    where e.scan_id = scan.id
      and e.kind = 'directory'
      and e.fault is null
      -- Of the scanned directory, only its state is known.
      and (e.path <> scan.path or n.state = 'missing')
      and n.directory_path is not null
      -- "Not in" is hashed once. An anti join could read all changes for each directory.
      and n.id not in (
        select c.node_id
        from filestore.scan_changes c
        where c.scan_id = scan.id
          and c.number > base
          and c.action = 'move'
      )
  ),
  found_nodes as (
    insert into filestore.scan_sightings (scan_id, number, moment, node_ids)
    select scan.id, base + 200000000000 + row_number() over (order by p.part, p.listed_at), p.listed_at, p.node_ids
    from (
      select c.id / 16384 as part, c.listed_at, array_agg(c.id) as node_ids
      from compared c
      where not c.differs
        and not c.is_written
      group by c.id / 16384, c.listed_at
    ) p
  )
  insert into filestore.scan_changes (scan_id, number, node_id, version, kind, action, path, from_path)
  select
    scan.id,
    base + case when c.is_written then 9 else 6 end * 1000000000000 + 500000000000 + row_number() over (order by c.path),
    c.id,
    c.version,
    'directory',
    case when c.is_written then 'skip' when c.state = 'missing' then 'find' else 'change' end,
    c.path,
    c.from_path
  from compared c
  where c.differs;
end
$$;

comment on function filestore.plan_directories(filestore.scans, bigint) is
  'Internal: Plans the moves and creates of directories that filestore.place_directories decided, from the top down, and the changes of directories.';

revoke all on function filestore.plan_directories(filestore.scans, bigint) from public;
--! EndIncluded functions/plan_directories.sql
--! Included functions/plan_scan.sql
create or replace function filestore.plan_scan(scan filestore.scans)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
-- A plan for the tables as they were at an earlier scan of the session may be far too slow.
set plan_cache_mode = force_custom_plan
as $$
declare
  -- A number has the plan, the step (two digits) and the place in it (twelve digits). So all changes of a plan come after those
  -- of an earlier one. Steps: 1 deletes of files, 2 directories from the top down, 3 moves of files, 4 deletes of directories,
  -- 5 creates of files, 6 changes, 7 what is missing, 9 what is left alone.
  -- Until a scan is applied, each plan replaces the one before it.
  plan constant integer := case scan.state when 'recording' then 1 else scan.plans + 1 end;
  base constant bigint  := plan * 100000000000000;
begin
  delete from filestore.scan_directories d
  where d.scan_id = scan.id;
  delete from filestore.scan_changes c
  where c.scan_id = scan.id
    and c.number > scan.applied;
  delete from filestore.scan_sightings g
  where g.scan_id = scan.id;
  perform filestore.add_implied_directories(scan);

  -- Directories that are new, or have another identity than the node at their path. Left alone: those that others have
  -- moved, deleted or replaced since they were listed.
  insert into filestore.scan_directories (scan_id, depth, path, is_held)
  select e.scan_id, e.depth, e.path, h.is_held
  from filestore.scan_entries e
  -- One lookup for each directory. A join could read the whole mount for a scan of one directory.
  left join lateral (
    select o.id, o.backend_identity, o.updated_at
    from filestore.nodes o
    where o.backend_mount_id = scan.backend_mount_id
      and o.path = e.path
      and o.live
      and o.directory_path is not null
    offset 0
  ) n on true
  cross join lateral (
    select
      (n.id is null or n.updated_at >= e.listed_at)
        and filestore.is_vacated(
          scan,
          e.path,
          e.listed_at,
          case when (n.backend_identity <> e.backend_identity) is not true then n.id end
        ) as is_held
    offset 0
  ) h
  where e.scan_id = scan.id
    and e.kind = 'directory'
    and e.fault is null
    and e.path <> scan.path
    and (n.id is null or n.backend_identity <> e.backend_identity or h.is_held);
  if found then
    perform filestore.find_partners(scan);
    perform filestore.place_directories(scan);
  end if;

  perform filestore.plan_lost_directories(scan, base);
  perform filestore.plan_files(scan, base);
  perform filestore.plan_directories(scan, base);
  if not scan.is_recursive then
    -- The nodes below a directory that is gone are gone too, and deleted before it.
    insert into filestore.scan_changes (scan_id, number, node_id, version, kind, action, path, from_path)
    select
      scan.id,
      base + case when c.action <> 'delete' then 7900000000000 when n.kind = 'file' then 1500000000000 else 4000000000000 end
        + row_number() over (order by n.path desc),
      n.id,
      n.version,
      n.kind,
      case c.action when 'delete' then 'delete' else 'missing' end,
      n.path,
      n.path
    from filestore.scan_changes c
    join filestore.nodes n
      on n.backend_mount_id = scan.backend_mount_id
     and n.live
     and n.path > c.from_path || '/'
     and n.path < c.from_path || '0'
    where c.scan_id = scan.id
      and c.number > base
      and c.kind = 'directory'
      and (c.action = 'delete' or (c.action in ('missing', 'keep') and n.state <> 'missing'))
      and not (n.updated_at >= scan.started_at and filestore.is_written_since(n.id, scan.started_at, scan.journal_entry_ids))
      and not exists (
        select
        from filestore.scan_changes m
        where m.scan_id = scan.id
          and m.number > base
          and m.node_id = n.id
          and m.action = 'move'
      );
  end if;
  delete from filestore.scan_directories d
  where d.scan_id = scan.id;

  update filestore.scans s
  set plans   = plan,
      planned = coalesce((select max(c.number) from filestore.scan_changes c where c.scan_id = s.id), 0),
      applied = greatest(s.applied, base),
      skipped = (select count(*) from filestore.scan_changes c where c.scan_id = s.id and c.action = 'skip'),
      entries = greatest(s.entries, r.entries),
      refused = r.refused
  from (
    select count(*) filter (where not e.is_implied) as entries, count(e.fault) as refused
    from filestore.scan_entries e
    where e.scan_id = scan.id
  ) r
  where s.id = scan.id
  returning s.* into scan;
  return scan;
end
$$;

comment on function filestore.plan_scan(filestore.scans) is
  'Internal: Compares the entries of a scan with the catalogue, and plans the changes. Nothing else is changed. Returns the scan.';

revoke all on function filestore.plan_scan(filestore.scans) from public;
--! EndIncluded functions/plan_scan.sql
--! Included functions/scan_differences.sql
create or replace function filestore.scan_differences(scan_id bigint, after_number bigint default 0, page_size bigint default 1000)
returns table (number bigint, action text, kind filestore.node_kind, path text, from_path text, node_id bigint)
language plpgsql
security definer
rows 1000
set search_path = pg_catalog, pg_temp
as $$
declare
  scan filestore.scans;
begin
  perform filestore.require_read_committed('filestore.scan_differences');
  perform filestore.check_limit('page_size', page_size, 100000);
  scan := filestore.lock_scan(scan_differences.scan_id);
  -- A plan of a scan that is being applied is made by filestore.apply_scan, which looks for too many missing nodes.
  if scan.state = 'finished' or (scan.state = 'applying' and scan.planned is null) then
    perform filestore.refuse_scan(scan_differences.scan_id);
  end if;
  if scan.planned is null or (scan.state = 'recording' and coalesce(after_number, 0) = 0) then
    scan := filestore.plan_scan(scan);
  end if;
  return query
  select d.number, d.action, d.kind, d.path, d.from_path, d.node_id
  from (
    select c.number, c.action, c.kind, c.path, c.from_path, c.node_id
    from filestore.scan_changes c
    where c.scan_id = scan.id
      and c.number > coalesce(after_number, 0)
      and c.action <> 'keep'
    union all
    -- After all changes.
    select 9000000000000000000 + row_number() over (order by e.path), 'refuse', e.kind, e.path, null, null
    from filestore.scan_entries e
    where e.scan_id = scan.id
      and e.fault is not null
  ) d
  where d.number > coalesce(after_number, 0)
  order by d.number
  limit page_size;
end
$$;

comment on function filestore.scan_differences(bigint, bigint, bigint) is
  'A page of what filestore.apply_scan would do, in its order, without doing it: create, move, change, find (a missing node is there again), missing, delete (something else has the path), skip (others wrote to it since it was listed) and refuse (a name that no node can have). For the next page, give the last number of this one as after_number. It plans the changes first. FS404 when there is no such scan, FS409 when it has ended or another call works on it.';

revoke all on function filestore.scan_differences(bigint, bigint, bigint) from public;
--! EndIncluded functions/scan_differences.sql
