--! Previous: sha1:c3e17e5b66a69309e9545cb7f7d50dbd751d1955
--! Hash: sha1:a84bbe8078eb59da7cbd517349a2d6d60b68c094
--! Message: Overlapping scans in order of their paths

--! Included functions/check_integrity.sql
create or replace function filestore.check_integrity()
returns table (problem text, backend_mount_id bigint, node_id bigint, detail text)
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Nodes of these mounts are being removed, or arrive from another server, in any order.
  left_out bigint[] := array(
    select m.id
    from filestore.backend_mounts m
    where m.erasing_since is not null
  ) || filestore.moving_mounts(false);
  local_mounts bigint[] := array(
    select m.id
    from filestore.backend_mounts m
    where m.backend_kind = 'local'
  );
  -- A clock that is a little ahead is no problem.
  tomorrow timestamptz := statement_timestamp() + interval '1 day';
begin
  -- All statements of a stable function read one snapshot, so concurrent writes do not disturb the check.
  return query
  select
    case
      when p.id is null                                                     then 'orphan'
      when p.backend_mount_id <> n.backend_mount_id                         then 'parent on another mount'
      when p.kind <> 'directory'                                            then 'parent is a file'
      when n.live and not p.live                                            then 'live below deleted'
      else 'path mismatch'
    end,
    n.backend_mount_id,
    n.id,
    format('"%s", parent %s%s', n.path, n.parent_id, ' ("' || p.path || '")')
  from filestore.nodes n
  left join filestore.nodes p on p.id = n.parent_id
  where n.parent_id is not null
    and n.backend_mount_id <> all (left_out)
    and (
      p.id is null
      or p.backend_mount_id <> n.backend_mount_id
      or p.kind <> 'directory'
      or (n.live and (not p.live or n.path <> filestore.child_path(p.path, n.name)))
    );

  return query
  select
    case when n.live and octet_length(n.name) > 255 then 'name too long' else 'moment in the future' end,
    n.backend_mount_id,
    n.id,
    format('"%s", updated at %s, deleted at %s', n.path, n.updated_at, coalesce(n.deleted_at::text, 'no moment'))
  from filestore.nodes n
  where n.backend_mount_id <> all (left_out)
    and (
      n.updated_at > tomorrow
      or n.deleted_at > tomorrow
      or (octet_length(n.name) > 255 and n.live and n.backend_mount_id = any (local_mounts))
    );

  -- A directory whose parent exists, but which a walk down from the roots does not reach, is in a cycle.
  return query
  with recursive reached (id) as (
    select n.id
    from filestore.nodes n
    where n.parent_id is null
       or not exists (select from filestore.nodes p where p.id = n.parent_id)
    union all
    select c.id
    from reached r
    -- "Offset 0" keeps these lookups. The chain of parents of a tombstone can be thousands long.
    cross join lateral (
      select n.id
      from filestore.nodes n
      where n.parent_id = r.id
        and n.parent_live
        and n.directory_path is not null
      union all
      (
        select n.id
        from filestore.nodes n
        where n.parent_id = r.id
          and not n.live
          and n.directory_path is not null
        order by n.name
      )
      offset 0
    ) c
  )
  select 'cycle', n.backend_mount_id, n.id, format('"%s" is below itself', n.path)
  from filestore.nodes n
  where n.directory_path is not null
    and not exists (select from reached r where r.id = n.id);

  return query
  select 'duplicate live path', n.backend_mount_id, min(n.id), format('"%s", %s times', n.path, count(*))
  from filestore.nodes n
  where n.live
  group by n.backend_mount_id, n.path
  having count(*) > 1;

  return query
  select 'nodes of no mount', n.backend_mount_id, min(n.id), format('%s nodes', count(*))
  from filestore.nodes n
  where n.backend_mount_id <> all (left_out)
    and not exists (select from filestore.backend_mounts m where m.id = n.backend_mount_id)
  group by n.backend_mount_id;

  return query
  select f.problem, m.id, null::bigint, format('mount "%s"', m.mount_key)
  from filestore.backend_mounts m
  cross join lateral (
    select case
      when m.erasing_since is not null and m.state = 'active' then 'active while it is erased'
      when m.held_by is not null and not exists (
        select
        from filestore.moves v
        where v.mount_id = m.id
          and v.written_by = filestore.database_number()
          and v.step <> 'canceled'
      ) then 'held by no move'
      when m.id <> all (left_out) and not exists (select from filestore.nodes n where n.root_of_mount_id = m.id) then 'mount without a root'
    end as problem
  ) f
  where f.problem is not null;

  return query
  select v.problem, v.backend_mount_id, v.id, format('"%s", version %s', v.path, v.version)
  from (
    select
      w.*,
      case
        when w.previous_version = w.version                      then null
        -- Versions that ended at or before the horizon may be pruned.
        when w.previous_version is null and w.version <> 1
             and (w.valid_from <= m.history_horizon) is not true then 'missing version'
        when w.previous_version <> w.version - 1                 then 'missing version'
        when w.previous_valid_to > w.valid_from                  then 'overlapping versions'
        when w.previous_valid_to < w.valid_from                  then 'gap between versions'
        when w.valid_from <> w.updated_at                        then 'gap between versions'
      end as problem
    from (
      select
        u.*,
        lag(u.version) over one_node  as previous_version,
        lag(u.valid_to) over one_node as previous_valid_to
      from filestore.view_filestore_node_versions u
      where u.backend_mount_id <> all (left_out)
      window one_node as (partition by u.id order by u.version, u.valid_to nulls last)
    ) w
    left join filestore.backend_mounts m on m.id = w.backend_mount_id
  ) v
  where v.problem is not null;

  return query
  select
    case
      when n.id is null                                                         then 'history of no node'
      when n.backend_mount_id <> s.backend_mount_id                             then 'history on another mount'
      when n.root_of_mount_id is distinct from s.root_of_mount_id               then 'history on another mount'
      when s.version >= n.version                                               then 'version after the current one'
      else 'history of another node'
    end,
    s.backend_mount_id,
    s.id,
    format('"%s", version %s', s.path, s.version)
  from filestore.snapshots s
  left join filestore.nodes n on n.id = s.id
  where s.backend_mount_id <> all (left_out)
    and (
      n.backend_mount_id is distinct from s.backend_mount_id
      or n.root_of_mount_id is distinct from s.root_of_mount_id
      or s.version >= n.version
      or s.kind <> n.kind
      or s.created_at <> n.created_at
    );

  return query
  select
    'wrong totals',
    m.id,
    a.node_id,
    format(
      '"%s": %s instead of %s bytes, %s files, %s directories, %s children',
      a.path,
      case
        when a.size_bytes is null then 'no row in rollups'
        else format('%s bytes, %s files, %s directories, %s children', a.size_bytes, a.file_count, a.dir_count, a.child_count)
      end,
      a.expected_size_bytes,
      a.expected_file_count,
      a.expected_dir_count,
      a.expected_child_count
    )
  from filestore.backend_mounts m
  cross join lateral filestore.audit_rollups(m.mount_key) a
  where m.id <> all (left_out);

  return query
  select 'delta of no directory', d.backend_mount_id, d.directory_id, format('delta %s', d.id)
  from filestore.rollup_deltas d
  where d.backend_mount_id <> all (left_out)
    and not exists (
      select
      from filestore.nodes n
      where n.id = d.directory_id
        and n.backend_mount_id = d.backend_mount_id
        and n.directory_path is not null
    );

  return query
  select 'totals of no directory', n.backend_mount_id, r.node_id, coalesce('"' || n.path || '" is a file', 'the node does not exist')
  from filestore.rollups r
  left join filestore.nodes n on n.id = r.node_id
  where n.directory_path is null;

  return query
  select
    case when n.id is null then 'sighting of no node' else 'sighting in the future' end,
    n.backend_mount_id,
    s.node_id,
    coalesce('last seen at ' || s.last_seen_at, 'never seen')
  from filestore.node_sightings s
  left join filestore.nodes n on n.id = s.node_id
  where n.id is null
     or s.last_seen_at > tomorrow
     or s.last_reconciled_at > tomorrow;

  return query
  select 'scan of no mount', s.backend_mount_id, null::bigint, format('scan %s of "%s"', s.id, s.path)
  from filestore.scans s
  where not exists (
    select
    from filestore.backend_mounts m
    where m.id = s.backend_mount_id
  );

  -- In order of paths, what is below a scan follows it up to its end: comparing each pair would take minutes with thousands
  -- of running scans, and looking each path above one up with deep ones.
  return query
  select 'scans that overlap', o.backend_mount_id, null::bigint, format('scan %s of "%s", beside scan %s', o.id, o.path, o.other)
  from (
    select
      a.*,
      coalesce(
        nullif(min(a.id) over (partition by a.backend_mount_id, a.path), a.id),
        case when a.above[1] > a.place then a.above[2]::bigint end
      ) as other
    from (
      select
        p.*,
        -- Of those before it, the scan that reaches farthest.
        max(case when p.is_recursive then array[left(p.place, -1) || '0', p.id::text] collate "C" end) over (
          partition by p.backend_mount_id
          order by p.place, p.id
          rows between unbounded preceding and 1 preceding
        ) as above
      from (
        select s.*, ('/' || s.path || case when s.path <> '' then '/' else '' end) collate "C" as place
        from filestore.scans s
        where s.ended_at is null
      ) p
    ) a
  ) o
  where o.other is not null;

  return query
  select 'id out of range', null::bigint, case i.table_name when 'nodes' then i.id end, format('filestore.%s: %s', i.table_name, i.id)
  from (values
    ('nodes', (select min(n.id) from filestore.nodes n)),
    ('nodes', (select max(n.id) from filestore.nodes n)),
    ('backend_mounts', (select min(m.id) from filestore.backend_mounts m)),
    ('backend_mounts', (select max(m.id) from filestore.backend_mounts m)),
    ('journal_entries', (select min(j.id) from filestore.journal_entries j)),
    ('journal_entries', (select max(j.id) from filestore.journal_entries j))
  ) as i (table_name, id)
  where i.id not between 1 and 9007199254740991;

  return query
  select f.problem, m.id, null::bigint, format('mount "%s", %s', m.mount_key, s.column_name)
  from filestore.backend_mounts m
  cross join lateral (values
    ('config', m.config),
    ('access_policy', m.access_policy),
    ('labels', m.labels),
    ('credentials_ref', to_jsonb(m.credentials_ref)),
    ('endpoint', to_jsonb(m.endpoint)),
    ('display_name', to_jsonb(m.display_name)),
    ('description', to_jsonb(m.description)),
    ('contact', to_jsonb(m.contact))
  ) as s (column_name, settings)
  cross join lateral (
    select case
      when jsonb_path_exists(s.settings, 'strict $.**{33}') or not filestore.is_small_json(s.settings, 65536) then 'settings too big'
      when filestore.find_secret(s.settings) is not null then 'secret in a mount'
    end as problem
  ) f
  where f.problem is not null;

  return query
  select
    case when i.highest_id is null then 'ids run out' else 'sequence behind its table' end,
    null::bigint,
    null::bigint,
    format('filestore.%s: %s', i.table_name, i.problem)
  from filestore.check_sequences() i;

  return query
  select 'guard switched off', null::bigint, null::bigint, format('%s %s on %s', g.what, g.name, g.owner)
  from (
    select 'trigger' as what, t.tgname as name, t.tgrelid::regclass::text as owner
    from pg_trigger t
    join pg_class c on c.oid = t.tgrelid and c.relnamespace = 'filestore'::regnamespace
    where t.tgenabled not in ('O', 'A')
      -- The triggers of moves are enabled only while a mount moves.
      and (
        t.tgfoid <> 'filestore.guard_move()'::regprocedure
        or filestore.moving_mounts(true) <> '{}'
      )
    union all
    select 'constraint', k.conname, coalesce(nullif(k.conrelid, 0)::regclass::text, 'domain ' || k.contypid::regtype)
    from pg_constraint k
    where k.connamespace = 'filestore'::regnamespace
      and not k.convalidated
  ) g;
end
$$;

comment on function filestore.check_integrity() is
  'Reads the whole catalogue and returns one row per problem; no row means that it is sound. Run it after a restore, a crash, or a session with triggers switched off. It reads one snapshot and blocks nothing. It leaves out mounts that are being erased or that another server holds.';

revoke all on function filestore.check_integrity() from public;
--! EndIncluded functions/check_integrity.sql
