--! Previous: sha1:0831492dd8f7d6be706b37532fa5875d9650cda8
--! Hash: sha1:1aae05d194cd75c179164d1518f5308ac4562909
--! Message: Integrity in one reading

--! Included functions/audit_totals.sql
create or replace function filestore.audit_totals(mount_id bigint)
returns table (
  backend_mount_id     bigint,
  node_id              bigint,
  path                 text,
  size_bytes           numeric,
  file_count           bigint,
  dir_count            bigint,
  child_count          bigint,
  expected_size_bytes  numeric,
  expected_file_count  bigint,
  expected_dir_count   bigint,
  expected_child_count bigint
)
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
set jit = off
-- A plan for one mount and for all would read all nodes for each.
set plan_cache_mode = force_custom_plan
as $$
begin
  return query
  -- One snapshot gives both the sums of the live nodes and the folded and pending totals. For a deleted directory,
  -- both should be zero.
  with parts (id, mount_id, path, has_totals, size_bytes, files, dirs, children, expected_size, expected_files, expected_dirs, expected_children) as (
    select
      n.id,
      n.backend_mount_id,
      n.path,
      r.node_id is not null,
      r.size_bytes,
      r.file_count,
      r.dir_count,
      r.child_count,
      0,
      0,
      0,
      0
    from filestore.nodes n
    left join filestore.rollups r on r.node_id = n.id
    where (audit_totals.mount_id is null or n.backend_mount_id = audit_totals.mount_id)
      and n.directory_path is not null
    -- A sum and not joins: with statistics of an empty tree, the planner would compare each directory with each delta.
    union all
    select p.node_id, null, null, null, p.size_delta, p.file_delta, p.dir_delta, p.child_delta, 0, 0, 0, 0
    from filestore.pending_totals(case when audit_totals.mount_id is not null then array[audit_totals.mount_id] end) p
    union all
    select t.node_id, null, null, null, 0, 0, 0, 0, t.size_sum, t.file_sum, t.dir_sum, t.child_sum
    from (
      select
        array_agg(d.parent_id) as ids,
        array_agg(d.sizes)     as sizes,
        array_agg(d.files)     as files,
        array_agg(d.dirs)      as dirs,
        array_agg(d.children)  as children
      from (
        select
          n.parent_id,
          sum(n.size_bytes)                                    as sizes,
          count(*) filter (where n.directory_path is null)     as files,
          count(*) filter (where n.directory_path is not null) as dirs,
          count(*)                                             as children
        from filestore.nodes n
        where (audit_totals.mount_id is null or n.backend_mount_id = audit_totals.mount_id)
          and n.live
          and n.parent_id is not null
        group by n.parent_id
      ) d
    ) e
    cross join lateral filestore.climb_totals(e.ids, e.sizes, e.files, e.dirs, e.children) x
    cross join lateral unnest(x.directory_ids, x.sizes, x.files, x.dirs, x.children) as t (node_id, size_sum, file_sum, dir_sum, child_sum)
  ),
  summed as (
    select
      p.id,
      max(p.mount_id)                  as mount_id,
      max(p.path)                      as path,
      bool_or(p.has_totals)            as has_totals,
      sum(p.size_bytes)                as size_bytes,
      sum(p.files)::bigint             as files,
      sum(p.dirs)::bigint              as dirs,
      sum(p.children)::bigint          as children,
      sum(p.expected_size)             as expected_size,
      sum(p.expected_files)::bigint    as expected_files,
      sum(p.expected_dirs)::bigint     as expected_dirs,
      sum(p.expected_children)::bigint as expected_children
    from parts p
    group by p.id
  )
  select
    s.mount_id,
    s.id,
    s.path,
    case when s.has_totals then s.size_bytes end,
    case when s.has_totals then s.files end,
    case when s.has_totals then s.dirs end,
    case when s.has_totals then s.children end,
    s.expected_size,
    s.expected_files,
    s.expected_dirs,
    s.expected_children
  from summed s
  where s.path is not null
    and (
      not s.has_totals
      or (s.size_bytes, s.files, s.dirs, s.children) <> (s.expected_size, s.expected_files, s.expected_dirs, s.expected_children)
    );
end
$$;

comment on function filestore.audit_totals(bigint) is
  'Internal: The directories of a mount, or of all at once when it is null, whose totals differ from the sums of their live nodes. The pending deltas are read once.';

revoke all on function filestore.audit_totals(bigint) from public;
--! EndIncluded functions/audit_totals.sql
--! Included functions/audit_rollups.sql
create or replace function filestore.audit_rollups(mount_key text)
returns table (
  node_id              bigint,
  path                 text,
  size_bytes           numeric,
  file_count           bigint,
  dir_count            bigint,
  child_count          bigint,
  expected_size_bytes  numeric,
  expected_file_count  bigint,
  expected_dir_count   bigint,
  expected_child_count bigint
)
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    a.node_id,
    a.path,
    a.size_bytes,
    a.file_count,
    a.dir_count,
    a.child_count,
    a.expected_size_bytes,
    a.expected_file_count,
    a.expected_dir_count,
    a.expected_child_count
  from filestore.audit_totals(filestore.find_mount(audit_rollups.mount_key)) a
  order by a.path;
end
$$;

comment on function filestore.audit_rollups(text) is
  'The directories of a mount whose totals differ from the sums of its live nodes. There are none unless triggers were switched off. filestore.recount_rollups corrects them. FS404 when the mount does not exist.';

revoke all on function filestore.audit_rollups(text) from public;
--! EndIncluded functions/audit_rollups.sql
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
  from filestore.audit_totals(null) a
  join filestore.backend_mounts m on m.id = a.backend_mount_id
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
--! Included functions/access_rights.sql
create or replace function filestore.access_rights(level text)
returns table (kind text, object text, column_name text, privilege text)
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
  readers   constant text[] := '{
    access_rights,
    canonical_checksum,
    canonical_path,
    check_access,
    check_count,
    check_limit,
    check_list,
    check_name,
    climb_totals,
    command_by_id,
    content_columns,
    count_nodes,
    database_number,
    directory_totals,
    find_by_checksum,
    find_mount,
    guard_statements,
    list_commands,
    list_directory,
    list_mounts,
    list_nodes,
    list_totals,
    list_unseen,
    listed_directory,
    location_uri,
    mount_by_id,
    mount_by_key,
    move_progress,
    move_slot,
    move_steps,
    move_subscription,
    node_at,
    node_by_id,
    node_by_path,
    node_commands,
    node_location,
    node_versions,
    nodes_by_id,
    nodes_by_path,
    pending_totals,
    percent_encode,
    real_depths,
    refuse_pruned,
    refuse_range,
    search_nodes,
    server_timeline,
    subscription_errors,
    tree_at
  }';
  services  constant text[] := '{
    apply_scan,
    begin_command,
    begin_scan,
    begin_work,
    cancel_scan,
    check_batch,
    check_changes,
    check_retention,
    child_path,
    copy_nodes,
    copy_tree,
    create_mount,
    create_node,
    create_nodes,
    delete_batch,
    delete_node,
    describe_element,
    ensure_child,
    ensure_directory,
    expire_commands,
    expire_scans,
    finish_command,
    fold_rollups,
    freeze_tree,
    holds_mount,
    is_small_json,
    is_sound,
    is_sound_entry,
    lock_command,
    lock_parents,
    lock_tree,
    lock_trees,
    merge_metadata,
    merge_nodes,
    mount_fields,
    mount_place,
    move_node,
    moving_mounts,
    record_entries,
    record_sightings,
    record_write_sighting,
    refuse_element,
    refuse_entry,
    refuse_long_copy,
    refuse_stale,
    refuse_taken_name,
    refuse_taken_names,
    refuse_unsound,
    require_first_write,
    require_read_committed,
    restore_node,
    restore_tree,
    revert_node,
    scan_differences,
    set_states,
    start_command,
    sync_nodes,
    update_mount,
    update_nodes,
    upsert_directory,
    upsert_file,
    writable_mount
  }';
  operators constant text[] := '{
    audit_rollups,
    audit_totals,
    check_integrity,
    check_sequences,
    delete_mount,
    find_secret,
    holds_secret,
    names_secret,
    prune_history,
    prune_journal,
    purge_deleted,
    recount_rollups
  }';
begin
  if level is null or level not in ('reader', 'service', 'operator') then
    raise exception 'there is no level "%"', coalesce(level, 'null')
      using errcode    = 'FS422',
            constraint = 'access_level_check',
            hint       = 'The levels are reader, service and operator.';
  end if;

  return query
  select 'schema', 'filestore', null::text, 'USAGE'
  union all
  select 'table', format('filestore.%I', c.relname), null, 'SELECT'
  from pg_class c
  where c.relnamespace = 'filestore'::regnamespace
    and c.relkind in ('r', 'p', 'v', 'm')
  union all
  select 'function', p.oid::regprocedure::text, null, 'EXECUTE'
  from pg_proc p
  where p.pronamespace = 'filestore'::regnamespace
    and p.proname = any (
      readers
      || case when level in ('service', 'operator') then services end
      || case when level = 'operator' then operators end
    );

  -- Every column that the database does not set itself. No level may update, delete or truncate a whole table, because
  -- that right also permits "lock table ... in access exclusive mode".
  return query
  select 'column', format('filestore.%I', own.table_name), a.attname::text, own.privilege
  from (values
    ('backend_mounts', 'INSERT', '{id,erasing_since,held_by,history_horizon,version,created_at,updated_at}'::text[]),
    ('backend_mounts', 'UPDATE', '{id,backend_kind,erasing_since,held_by,history_horizon,version,created_at,updated_at}'),
    ('nodes', 'INSERT', '{id,root_of_mount_id,parent_live,path,depth,directory_path,live,version,created_at,updated_at,deleted_at}'),
    ('nodes', 'UPDATE', '{id,backend_mount_id,root_of_mount_id,parent_path,parent_live,path,depth,directory_path,kind,live,version,created_at,updated_at}'),
    ('journal_entries', 'INSERT', '{id,result,error,started_at,completed_at,duration_ms,created_at}'),
    ('journal_entries', 'UPDATE', '{id,backend_mount_id,command,executor_kind,principal,request_id,correlation_id,idempotency_key,parameters,'
      'started_at,completed_at,duration_ms,created_at}')
  ) as own (table_name, privilege, columns)
  join pg_attribute a on a.attrelid = format('filestore.%I', own.table_name)::regclass
  where level in ('service', 'operator')
    and a.attnum > 0
    and not a.attisdropped
    and a.attname <> all (own.columns);

  if level = 'operator' then
    return query
    values
      ('column', format('filestore.%I', 'rollups'), 'consistency_state', 'UPDATE');
  end if;
end
$$;

comment on function filestore.access_rights(text) is
  'The rights that a level needs, read from the catalog, so that new tables and columns are included. reader: reads everything. service: also writes mounts, nodes, sightings and the journal, through the guards. operator: a service that may also purge, prune, recount and delete mounts.';

revoke all on function filestore.access_rights(text) from public;
--! EndIncluded functions/access_rights.sql
