--! Previous: sha1:065e0cb310db66f33e2a3813efe34c980051a849
--! Hash: sha1:310005b1c7d011318af17c4d4cc2f0ed8670dfc2
--! Message: Sightings once, last paths, content of other files

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
    node.storage_class    := coalesce(entry.storage_class, case when not is_other then node.storage_class end);
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
    select d.node_id, d.path, null::text as lost_path, false as is_deleted
    from filestore.scan_directories d
    where d.scan_id = scan.id
      and d.node_id is not null
      and d.is_shifted
    union all
    select c.node_id, null, c.path, c.action = 'delete'
    from filestore.scan_changes c
    where c.scan_id = scan.id
      and c.number > base
  ),
  files as (
    select n.*, case when p.node_id is null then n.path else filestore.child_path(p.path, n.name) end as final_path,
            case when p.lost_path is not null then filestore.child_path(p.lost_path, n.name) end as lost_path,
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
            n.content_hash, n.checksum, n.storage_class, n.created_at, filestore.child_path(p.path, n.name), filestore.child_path(p.lost_path, n.name), p.is_deleted
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
      c.lost_path,
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
        n.lost_path,
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
      coalesce(d.final_path, d.lost_path) as final_path,
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
    select case l.action when 'delete' then 1 when 'missing' then 7 else 9 end, 0, 0, l.action, l.final_path, l.id, l.version, l.from_path
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
--! Included functions/settle_scan.sql
create or replace function filestore.settle_scan(scan filestore.scans, max_nodes integer)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  part record;
  last bigint;
  done integer := 0;
begin
  if scan.settled is null then
    -- The nodes that the plan changed. Created ones have sightings already, and those of unchanged ones are planned, which
    -- includes what an earlier plan changed, except for the scanned directory.
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
        and (c.number > scan.plans * 100000000000000 or c.path = scan.path)
        and c.action in ('move', 'change', 'find')
      group by c.node_id / 16384, e.listed_at
    ) p;
    scan.settled := 0;
  end if;

  for part in
    select g.number, cardinality(g.node_ids) as nodes
    from filestore.scan_sightings g
    where g.scan_id = scan.id
      and g.number > scan.settled
    order by g.number
  loop
    exit when done >= max_nodes;
    last := part.number;
    done := done + part.nodes;
  end loop;
  -- All at once, because the ids of one part are not all above those of the part before it.
  scan.seen := scan.seen + (
    select filestore.see_nodes_at(coalesce(array_agg(i.id order by i.id), '{}'), coalesce(array_agg(g.moment order by i.id), '{}'))
    from filestore.scan_sightings g
    cross join lateral unnest(g.node_ids) as i (id)
    where g.scan_id = scan.id
      and g.number > scan.settled
      and g.number <= last
  );
  scan.settled := coalesce(last, scan.settled);
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
        -- It has no default here: null is refused, and listed as null.
        when c.name = 'version' then 'v.version'
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
         coalesce(case when s.version + 1::bigint = s.first_version then s.first_from end, lead(s.updated_at) over later, s.node_updated_at) as until,
         -- The mount may lack the beginning of the history: it was refused, not staged, or pruned.
         case when s.version < s.known_version and s.version >= s.first_version then ''keep'' else ''create'' end as action,
         case
           when s.node_version is null then ''nodes_missing''
           when s.bad_state then ''node_state_check''
           when strpos(s.given_name, ''/'') > 0 then ''nodes_name_check''
           when (s.whole_path ~ ''(^|/)[.]{0,2}(/|$)|[[:cntrl:]]'') is not false then ''nodes_path_check''
           when s.version + 1::bigint <> coalesce(lead(s.version) over later, s.node_version)
                or s.version < 1
                or s.version is null
                or s.updated_at >= coalesce(case when s.version + 1::bigint = s.first_version then s.first_from end, lead(s.updated_at) over later, s.node_updated_at)
                or (s.version = s.known_version and s.first_version is not null and s.updated_at <> s.known_updated_at)
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
           %s as given_name,
           t.number      as node_number,
           t.version     as node_version,
           t.known_version,
           n.updated_at  as known_updated_at,
           h.first_version,
           h.first_from,
           t.updated_at  as node_updated_at,
           t.created_at  as node_created_at,
           t.kind        as node_kind,
           case when (s.version > t.known_version) is not false then t.parent_id else n.parent_id end     as node_parent_id,
           case when (s.version > t.known_version) is not false then t.parent_path else n.parent_path end as node_above
         from (select %s from %s s) s
         left join pg_temp.filestore_import_nodes t on t.id = s.id and t.fault is null
         left join filestore.nodes n on n.id = s.id and t.known_version is not null
         left join (
           select o.id, min(o.version) as first_version, min(o.valid_from) as first_from
           from filestore.snapshots o
           where o.backend_mount_id = $1
           group by o.id
         ) h on h.id = n.id
       ) s
       window later as (partition by s.id, s.version is null order by s.version)
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
    case when 'name' = any (given) and 'path' <> all (given) then 's.name' else 'null::text' end,
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
