--! Previous: sha1:78f6de8cd0bf65c92eff95007c1a15769692f02b
--! Hash: sha1:cb7ee50dbb21356218e894b602255f14cef3b64a
--! Message: Copies that merge

do $$
begin
  if to_regtype('filestore.copy_conflict') is null then
    create domain filestore.copy_conflict as text collate "C"
      constraint copy_conflict_check check (value in ('refuse', 'skip', 'overwrite'));
  end if;
end
$$;

comment on domain filestore.copy_conflict is 'What a copy does where a node of the same name exists.';

drop function if exists filestore.copy_tree(bigint, bigint, text, integer);

--! Included functions/merge_nodes.sql
create or replace function filestore.merge_nodes(
  source_id        bigint,
  new_parent_id    bigint,
  new_name         text,
  expected_version integer,
  on_conflict      filestore.copy_conflict
)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
-- A plan that was made while the tables were empty and analyzed would read the whole table for each row.
set enable_seqscan = off
-- With stale statistics, the planner would join each node with its parent by a nested loop.
set enable_nestloop = off
as $$
declare
  ids      constant regclass := pg_get_serial_sequence('filestore.nodes', 'id');
  mount_id constant bigint   := (select n.backend_mount_id from filestore.nodes n where n.id = new_parent_id);
  source   filestore.nodes;
  target   filestore.nodes;
  columns  text[];
  outcome  record;
begin
  if mount_id is null then
    return null;
  end if;
  -- Before any row of the mount is locked: directories must not move until their new children exist.
  perform filestore.lock_tree(mount_id, false);
  select *
  into source
  from filestore.nodes n
  where n.id = source_id
    and n.live
    and n.version = coalesce(expected_version, n.version);
  if source.id is null then
    perform filestore.refuse_stale(source_id, expected_version);
  end if;
  select *
  into target
  from filestore.nodes n
  where n.parent_id = new_parent_id
    and n.name = coalesce(new_name, source.name)
    and n.parent_live;
  if target.id is null then
    return null;
  end if;
  if source.backend_mount_id = target.backend_mount_id
     and (target.path = source.path or source.path = '' or starts_with(target.path, source.path || '/')) then
    raise exception '"%" cannot be copied into itself ("%")', source.path, target.path
      using errcode    = 'FS422',
            constraint = 'nodes_cycle_check',
            hint       = 'Choose a parent outside of the directory that is copied.';
  end if;

  -- A copy is another object of the backend.
  columns := array(
    select format('%I', c.name)
    from unnest(array_remove(filestore.content_columns(), 'backend_identity')) as c (name)
    order by c.name
  );
  -- One statement reads one snapshot: the nodes of the source, and what is at their places.
  execute format(
    $merge$
      with placed as materialized (
        select s.*, t.id as target_id, t.kind as target_kind
        from (
          select n.*, case when n.path = $2 then $4 else $4 || '/' || substr(n.path, case $2 when '' then 1 else length($2) + 2 end) end as new_path
          from filestore.nodes n
          where n.backend_mount_id = $1
            and n.live
            and n.path >= $2
            and n.path < case $2 when '' then repeat(chr(1114111), 651) else $2 || '0' end
            and ($2 in ('', n.path) or n.path >= $2 || '/')
        ) s
        -- "Offset 0" keeps lookups by path, also when statistics are stale.
        left join lateral (
          select f.id, f.kind
          from filestore.nodes f
          where f.backend_mount_id = $3
            and f.path = s.new_path
            and f.live
          offset 0
        ) t on true
      ),
      conflict as materialized (
        select p.new_path, p.target_kind
        from placed p
        where p.kind <> p.target_kind
        order by p.new_path
        limit 1
      ),
      numbered as materialized (
        select p.*, coalesce(p.target_id, nextval($5)) as new_id
        from placed p
        where not exists (select from conflict)
      ),
      -- In order of id, so that concurrent calls do not deadlock.
      locked as materialized (
        select n.id
        from filestore.nodes n
        where n.id = any (array(
          select p.target_id
          from numbered p
          where p.kind = 'file'
            and p.target_id is not null
            and $6
        ))
        order by n.id
        for no key update
      ),
      -- A file may have been moved or deleted since the statement began.
      overwritten as (
        update filestore.nodes n
        set state = 'active', %1$s
        from numbered p
        where n.id = any (array(select l.id from locked l))
          and n.id = p.target_id
          and n.live
          and n.path = p.new_path
        returning n.id
      ),
      created as (
        insert into filestore.nodes (id, backend_mount_id, parent_id, parent_path, name, kind, state, %2$s)
        overriding system value
        select p.new_id, $3, d.new_id, d.new_path, p.name, p.kind, p.state, %3$s
        from numbered p
        join numbered d on d.id = p.parent_id
        where p.target_id is null
      )
      select
        (select c.new_path from conflict c) as path,
        (select c.target_kind from conflict c) as kind,
        (select count(*) from locked) <> (select count(*) from overwritten) or not exists (
          select
          from filestore.nodes n
          where n.id = $9
            and n.live
            and n.path = $4
        ) as is_changed,
        not exists (
          select
          from filestore.nodes n
          where n.id = $7
            and n.live
            and n.path = $2
            and n.version = coalesce($8, n.version)
        ) as is_stale
    $merge$,
    (select string_agg(format('%1$s = p.%1$s', c.name), ', ') from unnest(columns) as c (name)),
    array_to_string(columns, ', '),
    (select string_agg('p.' || c.name, ', ') from unnest(columns) as c (name))
  )
  using
    source.backend_mount_id,
    source.path,
    target.backend_mount_id,
    target.path,
    ids,
    on_conflict = 'overwrite',
    source_id,
    expected_version,
    target.id
  into outcome;

  -- The source and the target were read before, without a lock, and this is another snapshot.
  if outcome.is_stale then
    perform filestore.refuse_stale(source_id, expected_version);
  elsif outcome.kind = 'directory' then
    raise exception '"%" is a directory, and would be replaced by a file', outcome.path
      using errcode    = 'FS409',
            constraint = 'nodes_directory_in_the_way',
            hint       = 'Move or delete the directory, or copy with another name.';
  elsif outcome.kind = 'file' then
    raise exception '"%" is a file, and would be replaced by a directory', outcome.path
      using errcode    = 'FS409',
            constraint = 'nodes_file_in_the_way',
            hint       = 'Move or delete the file, or copy with another name.';
  elsif outcome.is_changed then
    raise sqlstate 'FS001';
  end if;
  return target.id;
exception
  when unique_violation or foreign_key_violation or sqlstate 'FS001' then
    raise exception 'the directory "%" was changed at the same time', target.path
      using errcode    = 'FS409',
            constraint = 'nodes_busy',
            hint       = 'Try again. Nothing was copied.';
end
$$;

comment on function filestore.merge_nodes(bigint, bigint, text, integer, filestore.copy_conflict) is
  'Internal: Copies a node onto one that exists, for filestore.copy_tree: files are overwritten or skipped, directories merged. Returns the id of that node; null when the name is free. It runs as the owner, since services have no right on the sequence of ids.';

revoke all on function filestore.merge_nodes(bigint, bigint, text, integer, filestore.copy_conflict) from public;
--! EndIncluded functions/merge_nodes.sql

--! Included functions/copy_tree.sql
create or replace function filestore.copy_tree(
  node_id          bigint,
  new_parent_id    bigint,
  new_name         text                    default null,
  expected_version integer                 default null,
  on_conflict      filestore.copy_conflict default 'refuse'
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  broken  text;
  copy_id bigint;
  source  filestore.nodes;
  node    filestore.nodes;
begin
  if new_name is not null then
    perform filestore.check_name(new_name);
  end if;
  select *
  into source
  from filestore.nodes n
  where n.id = copy_tree.node_id
    and n.live
    and n.version = coalesce(expected_version, n.version);
  if source.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  elsif source.parent_id is null and new_name is null then
    raise exception 'node % is the root of a mount: its copy needs a name', node_id
      using errcode    = 'FS422',
            constraint = 'nodes_root_check',
            hint       = 'Give new_name, and a directory of another mount.';
  end if;

  begin
    if on_conflict in ('skip', 'overwrite') then
      copy_id := filestore.merge_nodes(node_id, new_parent_id, new_name, expected_version, on_conflict);
    end if;
    if copy_id is null then
      copy_id := filestore.copy_nodes(node_id, new_parent_id, new_name, expected_version);
    end if;
  exception
    when unique_violation or check_violation or sqlstate 'FS409' then
      get stacked diagnostics broken = constraint_name;
      if broken in ('nodes_live_child_key', 'nodes_name_taken') and on_conflict in ('skip', 'overwrite') then
        raise exception 'the name "%" was taken at the same time', coalesce(new_name, source.name)
          using errcode    = 'FS409',
                constraint = 'nodes_busy',
                hint       = 'Try again. Nothing was copied.';
      elsif broken = 'nodes_live_child_key' then
        perform filestore.refuse_taken_name(new_parent_id, coalesce(new_name, source.name));
      elsif broken = 'nodes_path_length_check' then
        perform filestore.refuse_long_copy(source, new_parent_id, coalesce(new_name, source.name));
      end if;
      raise;
  end;
  if copy_id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  end if;

  select *
  into node
  from filestore.nodes n
  where n.id = copy_id;
  return node;
end
$$;

comment on function filestore.copy_tree(bigint, bigint, text, integer, filestore.copy_conflict) is
  'Copies a node with everything live below it into another directory, of the same or another mount, and returns the copy; new_name null keeps the name. The copies have new ids and version 1, and the content and state of the originals; history, sightings and backend_identity are not copied. When the name is taken, on_conflict decides: refuse; skip, which keeps files that exist; or overwrite, which replaces their content. Directories that exist are then merged, and keep their own content. FS404 when the node or the parent does not exist or is deleted, FS409 when the name is taken, a file would replace a directory or a directory a file, or the node is not at expected_version (null: any), FS422 when a directory would be copied into itself, a path would be too long, or the name is not valid.';

revoke all on function filestore.copy_tree(bigint, bigint, text, integer, filestore.copy_conflict) from public;
--! EndIncluded functions/copy_tree.sql

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
