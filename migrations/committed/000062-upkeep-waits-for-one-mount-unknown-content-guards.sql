--! Previous: sha1:310005b1c7d011318af17c4d4cc2f0ed8670dfc2
--! Hash: sha1:92bb0d0400b092b1434bc70c34a8b84638d8d82a
--! Message: Upkeep waits for one mount, unknown content, guards

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
    climb_far,
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
    has_long_values,
    has_long_zeros,
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
    refuse_long_values,
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
    climb_totals,
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
--! Included functions/check_access.sql
create or replace function filestore.check_access()
returns table (problem text, role_name text, kind text, object text, column_name text, privilege text)
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with recursive leveled as (
    select g.oid as id, l.role_name, l.level
    from filestore.access_levels l
    join pg_roles g on g.oid = l.role_oid and g.rolname = l.role_name
  ),
  replaced as (
    select l.role_name, g.oid
    from filestore.access_levels l
    left join pg_roles g on g.rolname = l.role_name
    where g.oid is distinct from l.role_oid
  ),
  expected as (
    select l.id, l.role_name, r.kind, r.object, r.column_name, r.privilege
    from leveled l
    cross join lateral filestore.access_rights(l.level) r
  ),
  objects as (
    select n.nspowner as owner, 'schema' as kind, 'filestore' as object, null::text as column_name, n.nspacl as acl
    from pg_namespace n
    where n.nspname = 'filestore'
    union all
    select c.relowner, case c.relkind when 'S' then 'sequence' else 'table' end, format('filestore.%I', c.relname), null, c.relacl
    from pg_class c
    where c.relnamespace = 'filestore'::regnamespace
      and c.relkind in ('r', 'p', 'v', 'm', 'S')
    union all
    select c.relowner, 'column', format('filestore.%I', c.relname), a.attname::text, a.attacl
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'filestore'::regnamespace
      and not a.attisdropped
      and a.attacl is not null
    union all
    -- A function without any grant or revoke is open to PUBLIC.
    select p.proowner, 'function', p.oid::regprocedure::text, null, coalesce(p.proacl, acldefault('f', p.proowner))
    from pg_proc p
    where p.pronamespace = 'filestore'::regnamespace
      -- The server creates the constructors of a range type, for PUBLIC, and dumps no rights on them.
      and not exists (
        select
        from pg_depend d
        where d.classid = 'pg_proc'::regclass
          and d.objid = p.oid
          and d.deptype = 'i'
      )
    union all
    -- Types have no rights that a level limits.
    select t.typowner, case t.typtype when 'd' then 'domain' else 'type' end, format('filestore.%I', t.typname), null, null
    from pg_type t
    where t.typnamespace = 'filestore'::regnamespace
      and t.typtype in ('d', 'r')
    union all
    -- A trigger on the bookkeeping runs as the role that migrates.
    select n.nspowner, 'schema', 'graphile_migrate', null, n.nspacl
    from pg_namespace n
    where n.nspname = 'graphile_migrate'
    union all
    select c.relowner, 'table', format('graphile_migrate.%I', c.relname), null, c.relacl
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'graphile_migrate'
      and c.relkind in ('r', 'p', 'v', 'm', 'f')
  ),
  granted as (
    select distinct x.grantee as id, coalesce(g.rolname::text, 'PUBLIC') as role_name, o.kind, o.object, o.column_name, p.privilege
    from objects o
    cross join lateral aclexplode(o.acl) x
    cross join lateral (values (x.privilege_type), (case when x.is_grantable then 'GRANT OPTION FOR ' || x.privilege_type end)) p (privilege)
    left join pg_roles g on g.oid = x.grantee
    where x.grantee <> o.owner
      and p.privilege is not null
      -- Any role may read the bookkeeping.
      and (p.privilege not in ('USAGE', 'SELECT') or not starts_with(o.object, 'graphile_migrate'))
  ),
  -- Roles whose members may do more than the level of the member allows.
  beyond as (
    select l.id, g.oid as other
    from leveled l
    join pg_roles g on g.oid <> l.id
    where g.rolsuper
       or g.rolname in ('pg_write_all_data', 'pg_maintain', 'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
       or g.oid in (select o.owner from objects o)
       or g.oid = (select d.datdba from pg_database d where d.datname = current_database())
       or has_parameter_privilege(g.oid, 'session_replication_role', 'set, alter system')
       or exists (
         select r.kind, r.object, r.column_name, r.privilege from granted r where r.id = g.oid
         except
         select e.kind, e.object, e.column_name, e.privilege from expected e where e.id = l.id
       )
  ),
  memberships as (
    select
      a.member,
      a.roleid,
      a.admin_option as may_grant,
      -- Up to PostgreSQL 15, a member of a role may always use its rights, and become it.
      coalesce((to_jsonb(a) ->> 'inherit_option')::boolean, true) as has_rights,
      coalesce((to_jsonb(a) ->> 'set_option')::boolean, true) as may_become
    from pg_auth_members a
  ),
  -- The roles whose rights a member has or can get. With those of a role that may grant another one, it may grant that one
  -- to itself, and then become it. Without, it becomes a role only through roles that it may become.
  used as (
    select l.id, l.role_name, m.roleid as direct, m.roleid as other, m.may_grant or m.may_become as becomes
    from leveled l
    join memberships m on m.member = l.id
    where m.may_grant or m.has_rights or m.may_become
    union
    select u.id, u.role_name, u.direct, m.roleid, m.may_grant or (u.becomes and m.may_become)
    from used u
    join memberships m on m.member = u.other
    where m.may_grant or m.has_rights or (u.becomes and m.may_become)
  ),
  -- Roles in whose sessions the guards have to work: those with a level, their members, and the owner.
  guarded as (
    select l.id
    from leveled l
    union
    select n.nspowner
    from pg_namespace n
    where n.nspname = 'filestore'
    union
    select m.member
    from guarded g
    join memberships m on m.roleid = g.id
    where m.has_rights or m.may_become
  )
  select
    case
      when g.role_name is null                      then 'missing'
      when starts_with(g.object, 'graphile_migrate') then 'right on the bookkeeping'
      else 'beyond its level'
    end,
    coalesce(e.role_name, g.role_name),
    coalesce(e.kind, g.kind),
    coalesce(e.object, g.object),
    coalesce(e.column_name, g.column_name),
    coalesce(e.privilege, g.privilege)
  from expected e
  full join granted g
    on g.id = e.id
    and g.kind = e.kind
    and g.object = e.object
    and coalesce(g.column_name, '') = coalesce(e.column_name, '')
    and g.privilege = e.privilege
  where (e.role_name is null or g.role_name is null)
    -- Reported once, and not for each right.
    and not exists (select from replaced r where r.oid = g.id)
  union all
  select case when r.oid is null then 'role is gone' else 'role was replaced' end, r.role_name, 'role', null, null, null
  from replaced r
  union all
  -- Each direct membership that leads to such a role.
  select distinct 'member of a role beyond its level', u.role_name, 'role', format('%I', pg_get_userbyid(u.direct)), null, null
  from used u
  join beyond b on b.id = u.id and b.other = u.other
  union all
  select 'superuser', l.role_name, 'role', format('%I', l.role_name), null, null
  from leveled l
  join pg_roles g on g.oid = l.id and g.rolsuper
  union all
  select 'owner beyond its level', l.role_name, o.kind, format('%I', o.name), null, null
  from leveled l
  join (
    select n.nspowner as owner, 'schema' as kind, n.nspname as name
    from pg_namespace n
    where n.nspname = 'filestore'
    union all
    select d.datdba, 'database', d.datname
    from pg_database d
    where d.datname = current_database()
  ) o on o.owner = l.id
  union all
  -- Up to PostgreSQL 15, it may grant itself any role but a superuser.
  select 'may grant itself roles', l.role_name, 'role', format('%I', l.role_name), null, null
  from leveled l
  join pg_roles g on g.oid = l.id and g.rolcreaterole and not g.rolsuper
  where current_setting('server_version_num')::integer < 160000
  union all
  select 'may switch triggers off', l.role_name, 'parameter', 'session_replication_role', null, null
  from leveled l
  join pg_roles g on g.oid = l.id and not g.rolsuper
  where has_parameter_privilege(l.id, 'session_replication_role', 'set, alter system')
  union all
  select 'triggers switched off', null, 'setting', concat_ws(' in ', r.name, d.name), null, null
  from pg_db_role_setting s
  cross join lateral (values (case when s.setrole <> 0 then format('role %I', pg_get_userbyid(s.setrole)) end)) r (name)
  cross join lateral (
    values (case when s.setdatabase <> 0 then format('database %I', current_database()) when s.setrole = 0 then 'role all' end)
  ) d (name)
  where s.setdatabase in (0, (select c.oid from pg_database c where c.datname = current_database()))
    and (s.setrole = 0 or exists (select from guarded g where g.id = s.setrole))
    -- The server keeps the value as it was written, and takes it in any case.
    and exists (select from unnest(s.setconfig) c where lower(c) = 'session_replication_role=replica')
  union all
  -- By a file of the server, or the options of the connection.
  select 'triggers switched off', null, 'setting', 'this session', null, null
  from pg_settings s
  where s.name = 'session_replication_role'
    and s.reset_val = 'replica'
    and not exists (
      select
      from pg_db_role_setting o
      cross join lateral unnest(o.setconfig) c
      where o.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
        and (o.setrole = 0 or pg_get_userbyid(o.setrole) = session_user)
        and lower(c) = 'session_replication_role=replica'
    )
  union all
  select distinct 'owned by another role', pg_get_userbyid(o.owner)::text, o.kind, o.object, null, null
  from objects o
  -- A sequence has the owner of its table.
  where o.kind not in ('column', 'sequence')
    and (not starts_with(o.object, 'graphile_migrate') or not (select g.rolsuper from pg_roles g where g.oid = o.owner))
    and o.owner <> (select n.nspowner from pg_namespace n where n.nspname = 'filestore')
  union all
  select 'not renewed by migrations', null, 'table', format('graphile_migrate.%I', c.relname), null, null
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'graphile_migrate'
    and c.relname in ('migrations', 'current')
    and not exists (
      select
      from pg_trigger t
      where t.tgrelid = c.oid
        and t.tgname = c.relname || '_renew_access'
        and t.tgenabled in ('O', 'A')
    )
  order by 2, 3, 4, 5, 6;
end
$$;

comment on function filestore.check_access() is
  'The rights on the schema that differ from the recorded levels: granted by hand to a role or to PUBLIC, granted on the bookkeeping of migrations or with grant option, held as a superuser or by membership in another role, missing, or no longer renewed by migrations. Also roles and settings that may switch triggers off, levels whose role was dropped or replaced by another role of its name, or owns the schema or the database, and objects whose owner is not that of the schema. No row means that every role has exactly the rights of its level, and migrations renew them.';

revoke all on function filestore.check_access() from public;
--! EndIncluded functions/check_access.sql
--! Included functions/has_long_zeros.sql
create or replace function filestore.has_long_zeros(fields jsonb)
returns boolean
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
-- No path of JSON sees how many digits a zero has.
return exists (
  select
  from jsonb_each(fields) as f
  where case when f.value = '0' then scale(f.value::numeric) > 30 end
);

comment on function filestore.has_long_zeros(jsonb) is
  'Internal: Whether a field of an object is a zero with more than 30 digits.';

revoke all on function filestore.has_long_zeros(jsonb) from public;
--! EndIncluded functions/has_long_zeros.sql
--! Included functions/has_long_values.sql
create or replace function filestore.has_long_values(fields jsonb)
returns boolean
language sql
immutable
parallel safe
-- Without "set" and with "return", the server inlines it. A condition about a value of another type is not met.
return jsonb_path_exists(
  fields,
  'strict $.* ? (@.type() != "string" && @.type() != "null" && (
    @.type() == "array" || @.type() == "object"
    || !(@ == 0 || @ >= 1e-30 && @ < 1e30 || @ <= -1e-30 && @ > -1e30)
  ))'
) or (jsonb_path_exists(fields, 'strict $.* ? (@ == 0)') and filestore.has_long_zeros(fields));

comment on function filestore.has_long_values(jsonb) is
  'Internal: Whether a field of an object is an array, an object, or a number with more than 30 digits, whose text can be thousands of times as long as the value: those of 1e131071 and 0e-16383 have 131072 and 16385 bytes.';

revoke all on function filestore.has_long_values(jsonb) from public;
--! EndIncluded functions/has_long_values.sql
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
    -- What the node or the entry lacks is unknown, and not different: an upload may have stored no moment and no hash.
    is_other := node.size_bytes <> entry.size_bytes
      or node.link_target is distinct from entry.link_target
      or (entry.content_hash <> node.content_hash) is true
      or (entry.checksum <> node.checksum) is true
      -- The same content, with an equal hash, gets both anew when it is copied or written again.
      or (
        ((entry.last_modified_at <> node.last_modified_at) is true or (entry.backend_identity <> node.backend_identity) is true)
        and (entry.content_hash = node.content_hash or entry.checksum = node.checksum) is not true
      );
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
--! Included functions/spread_refusals.sql
create or replace function filestore.spread_refusals()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- Each round looks up the rows that depend on those of the round before. Any other join would read all rows in each round.
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set plan_cache_mode = force_custom_plan
as $$
declare
  -- Rows that the last round refused, or left where they are. Null for the first round, in which all rows count.
  changed bigint[];
  handed  bigint[];
  taken   bigint[];
  filled  bigint[];
begin
  create index on pg_temp.filestore_import_nodes (id);
  create index on pg_temp.filestore_import_nodes (parent_id, name);
  loop
    -- All levels at once: a chain of directories would take a round for each.
    with recursive below (id, is_equal) as (
      select t.id, t.action = 'keep'
      from pg_temp.filestore_import_nodes p
      join pg_temp.filestore_import_nodes t on t.parent_id = p.id
      left join filestore.nodes n on n.id = t.id
      where (p.fault is not null or p.action = 'stay')
        and (changed is null or p.id = any (changed))
        and t.fault is null
        and t.action <> 'stay'
        -- A directory that is equal, but does not get the path with which the rows in it are planned, is not refused, and stays.
        and (t.action <> 'keep' or (n.path <> t.path and t.directory_path is not null and t.live))
      union
      select t.id, t.action = 'keep'
      from below b
      join pg_temp.filestore_import_nodes t on t.parent_id = b.id
      left join filestore.nodes n on n.id = t.id
      where t.fault is null
        and t.action <> 'stay'
        and (t.action <> 'keep' or (n.path <> t.path and t.directory_path is not null and t.live))
    ),
    done as (
      update pg_temp.filestore_import_nodes t
      set fault  = case when not b.is_equal then 'import_parent_refused' end,
          action = case when b.is_equal then 'stay' else t.action end
      from below b
      where t.id = b.id
        and t.fault is null
      returning t.id
    )
    select array_agg(d.id)
    into handed
    from done d;

    -- A live node of the mount that stays has the place, or is in a directory that would be deleted.
    with done as (
      update pg_temp.filestore_import_nodes t
      set fault = 'nodes_name_taken'
      from filestore.nodes n
      where n.parent_id = t.parent_id
        and n.name = t.name
        and n.parent_live
        and n.id <> t.id
        and (changed is null or n.id = any (changed || handed))
        and t.live
        and t.fault is null
        and not exists (
          select
          from pg_temp.filestore_import_nodes o
          where o.id = n.id
            and o.fault is null
        )
      returning t.id
    )
    select array_agg(d.id)
    into taken
    from done d;
    with done as (
      update pg_temp.filestore_import_nodes t
      set fault = 'nodes_not_empty'
      where t.action = 'move'
        and not t.live
        and t.fault is null
        and (changed is null or t.id = any (array(select n.parent_id from filestore.nodes n where n.id = any (changed || handed || taken))))
        and exists (
          select
          from filestore.nodes n
          where n.parent_id = t.id
            and n.parent_live
            and not exists (
              select
              from pg_temp.filestore_import_nodes o
              where o.id = n.id
                and o.fault is null
            )
        )
      returning t.id
    )
    select array_agg(d.id)
    into filled
    from done d;
    changed := coalesce(handed || taken || filled, '{}');
    exit when changed = '{}';
  end loop;
end
$$;

comment on function filestore.spread_refusals() is
  'Internal: Refuses the staged nodes that depend on refused ones, since a node that is refused stays where it is: those in it, those that would take its place, and directories that would be deleted with it.';

revoke all on function filestore.spread_refusals() from public;
--! EndIncluded functions/spread_refusals.sql
--! Included functions/check_staged_nodes.sql
create or replace function filestore.check_staged_nodes(mount_id bigint, given text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  -- A moment of this transaction is not in the future.
  moment   constant timestamptz := statement_timestamp();
  is_local constant boolean     := (select m.backend_kind = 'local' from filestore.backend_mounts m where m.id = mount_id);
  by_paths constant boolean     := 'parent_id' <> all (given);
  lowest   bigint;
  highest  bigint;
  refused  boolean;
begin
  select s.seqmin, greatest(s.seqmax - 200000, pg_sequence_last_value(s.seqrelid))
  into lowest, highest
  from pg_sequence s
  where s.seqrelid = pg_get_serial_sequence('filestore.nodes', 'id')::regclass;

  update pg_temp.filestore_import_nodes t
  set fault = f.fault
  from (
    select
      t.number,
      case
        when t.is_repeated and t.id is null then 'nodes_tombstone_check'
        when t.is_repeated then 'nodes_pkey'
        when t.id is null or t.id not between lowest and highest then 'import_id_check'
        when t.kind is null then 'node_kind_check'
        when t.state is null then 'node_state_check'
        when n.id is not null and t.known_version is null then 'nodes_pkey'
        when n.kind <> t.kind then 'nodes_fixed_check'
        when by_paths and (t.given_path ~ '(^|/)[.]{0,2}(/|$)') is not false then 'nodes_path_check'
        when not by_paths and not t.live and t.given_path ~ '(^|/)[.]{0,2}(/|$)|[[:cntrl:]]' then 'nodes_path_check'
        -- It is below one of these rows, or below itself.
        when t.level is null and p.id is not null then null
        when coalesce(p.id, o.id) is null then 'nodes_parent_missing'
        when p.id is null and o.backend_mount_id <> mount_id then 'nodes_parent_elsewhere'
        when coalesce(p.kind, o.kind) = 'file' then 'nodes_not_directory'
        when t.live and not coalesce(p.live, o.live) then 'nodes_parent_deleted'
        when t.live and t.given_path <> t.path then 'nodes_derived_path_check'
        when is_local and octet_length(t.name) > 255 then 'nodes_local_name_check'
        -- Changes of the new service have to follow.
        when t.action <> 'keep' and t.version > 2000000000 then 'nodes_version_check'
        when not isfinite(t.updated_at) or t.updated_at < '0001-01-01T00:00:00Z' or t.updated_at > moment then 'nodes_updated_at_check'
        when not isfinite(t.deleted_at) or t.deleted_at > moment then 'nodes_deleted_at_check'
        when not isfinite(t.created_at) or t.created_at < '0001-01-01T00:00:00Z' or t.created_at > moment then 'import_moment_check'
        when t.action <> 'keep' and (n.version >= t.version or n.updated_at >= t.updated_at) then 'nodes_stale'
        when t.action <> 'keep' and t.metadata <> '{}' and filestore.has_secret(t.metadata) then 'import_secret_check'
      end as fault
    from pg_temp.filestore_import_nodes t
    left join filestore.nodes n on n.id = t.id
    left join pg_temp.filestore_import_nodes p on p.id = t.parent_id and not p.is_repeated
    left join filestore.nodes o on o.id = t.parent_id
    where t.fault is null
  ) f
  where t.number = f.number
    and f.fault is not null;
  with recursive below (id) as (
    select t.id
    from pg_temp.filestore_import_nodes t
    where t.level is null
      and (
        t.fault is not null
        or exists (
          select
          from pg_temp.filestore_import_nodes p
          where p.id = t.parent_id
            and p.level is not null
        )
      )
    union
    select t.id
    from below b
    join pg_temp.filestore_import_nodes t on t.parent_id = b.id
    where t.level is null
  )
  update pg_temp.filestore_import_nodes t
  set fault = case when exists (select from below b where b.id = t.id) then 'import_parent_refused' else 'nodes_cycle_check' end
  where t.level is null
    and t.fault is null;

  -- Two live rows of one place: none of them is known to be the right one.
  update pg_temp.filestore_import_nodes t
  set fault = 'nodes_name_taken'
  from (
    select o.parent_id, o.name
    from pg_temp.filestore_import_nodes o
    where o.live
      and o.fault is null
    group by o.parent_id, o.name
    having count(*) > 1
  ) d
  where t.parent_id = d.parent_id
    and t.name = d.name
    and t.live
    and t.fault is null;
  perform filestore.check_staged_rows('filestore_import_nodes', 'nodes', '{}');

  perform filestore.spread_refusals();
end
$$;

comment on function filestore.check_staged_nodes(bigint, text[]) is
  'Internal: Sets the fault of each staged node that cannot be imported: the reason of a refusal.';

revoke all on function filestore.check_staged_nodes(bigint, text[]) from public;
--! EndIncluded functions/check_staged_nodes.sql
--! Included functions/try_lock_tree.sql
create or replace function filestore.try_lock_tree(mount_id bigint, exclusive boolean)
returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$
select case
  when exclusive then pg_try_advisory_xact_lock(hashtextextended('filestore.tree', mount_id))
  else pg_try_advisory_xact_lock_shared(hashtextextended('filestore.tree', mount_id))
end
$$;

comment on function filestore.try_lock_tree(bigint, boolean) is
  'Internal: Takes the tree lock of a mount if that needs no wait, and returns whether it did. For upkeep that holds the locks of other mounts, whose writers would wait too.';

revoke all on function filestore.try_lock_tree(bigint, boolean) from public;
--! EndIncluded functions/try_lock_tree.sql
--! Included functions/fold_rollups.sql
create or replace function filestore.fold_rollups(max_deltas integer default 10000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  -- Their directories are removed in any order, and the deltas with them.
  erasing   bigint[] := filestore.erasing_mounts();
  mount_ids bigint[];
  mount_id  bigint;
  locked    bigint[] := '{}';
  taken     integer;
  node_ids  bigint[];
  sizes     numeric[];
  files     numeric[];
  dirs      numeric[];
  children  numeric[];
  changed   bigint;
begin
  perform filestore.require_first_write('filestore.fold_rollups');
  perform filestore.check_limit('max_deltas', max_deltas);

  -- All transactions of the server share its table of locks, hence the limit. The mounts of the oldest deltas come first,
  -- and the next call takes the next ones.
  mount_ids := array(
    select d.backend_mount_id
    from (
      select r.id, r.backend_mount_id
      from filestore.rollup_deltas r
      where r.backend_mount_id <> all (erasing)
      order by r.id
      limit max_deltas
    ) d
    group by d.backend_mount_id
    order by min(d.id)
    limit 100
  );
  foreach mount_id in array mount_ids loop
    if filestore.try_lock_tree(mount_id, false) then
      locked := locked || mount_id;
    end if;
  end loop;
  -- While it waits for a long move, it holds the lock of no other mount, whose writers would wait too.
  if locked = '{}' and mount_ids <> '{}' then
    perform filestore.lock_tree(mount_ids[1], false);
    locked := mount_ids[1:1];
  end if;

  -- A separate statement after the locks, so that it sees the locked tree. It never takes "all ids up to this one",
  -- because a delta with a smaller id may commit later.
  with taken_deltas as (
    delete from filestore.rollup_deltas d
    where d.ctid = any (array(
      select r.ctid
      from filestore.rollup_deltas r
      where r.backend_mount_id = any (locked)
      order by r.id
      limit max_deltas
      for update skip locked
    ))
    returning d.directory_id, d.size_delta, d.file_delta, d.dir_delta, d.child_delta
  )
  select
    coalesce(sum(c.deltas), 0),
    array_agg(c.directory_id),
    array_agg(c.size_delta),
    array_agg(c.file_delta),
    array_agg(c.dir_delta),
    array_agg(c.child_delta)
  into taken, node_ids, sizes, files, dirs, children
  from (
    select
      t.directory_id,
      sum(t.size_delta)  as size_delta,
      sum(t.file_delta)  as file_delta,
      sum(t.dir_delta)   as dir_delta,
      sum(t.child_delta) as child_delta,
      count(*)           as deltas
    from taken_deltas t
    group by t.directory_id
  ) c;

  select c.*
  into node_ids, sizes, files, dirs, children
  from filestore.climb_totals(node_ids, sizes, files, dirs, children) c;

  -- In order of id, so that concurrent folds do not deadlock.
  perform
  from filestore.rollups r
  where r.node_id = any (node_ids)
  order by r.node_id
  for no key update;

  update filestore.rollups r
  set size_bytes  = r.size_bytes + t.size_delta,
      file_count  = r.file_count + t.file_delta,
      dir_count   = r.dir_count + t.dir_delta,
      child_count = r.child_count + t.child_delta,
      updated_at  = date_trunc('milliseconds', statement_timestamp())
  from unnest(node_ids, sizes, files, dirs, children) as t (node_id, size_delta, file_delta, dir_delta, child_delta)
  where r.node_id = t.node_id;

  get diagnostics changed = row_count;
  if changed <> coalesce(cardinality(node_ids), 0) then
    raise exception '% directories have totals to change, but only % of them have a row in rollups', cardinality(node_ids), changed
      using errcode    = 'FS409',
            constraint = 'rollups_missing',
            hint       = 'Call filestore.fold_rollups again. If it fails again, list the directories with filestore.check_integrity() and call filestore.recount_rollups.';
  end if;
  return taken;
end
$$;

comment on function filestore.fold_rollups(integer) is
  'Adds at most max_deltas pending deltas, of at most 100 mounts, to the totals of every directory above them, and returns how many; 0 when none are left, or another fold has locked them. A mount whose tree others have locked is left to the next call, unless all are. The totals that filestore.directory_totals returns do not change: reading them becomes cheaper.';

revoke all on function filestore.fold_rollups(integer) from public;
--! EndIncluded functions/fold_rollups.sql
--! Included functions/prune_history.sql
create or replace function filestore.prune_history(older_than interval, keep_versions integer default 1, batch integer default 1000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  deadline       timestamptz;
  after_id       bigint;
  first_id       bigint;
  last_id        bigint;
  mount_ids      bigint[];
  locked         bigint[];
  node_ids       bigint[];
  first_versions integer[];
  last_versions  integer[];
  places         tid[];
begin
  perform filestore.check_retention(older_than, batch);
  if keep_versions is null or keep_versions < 0 then
    raise exception 'keep_versions cannot be %', coalesce(keep_versions::text, 'null')
      using errcode    = 'FS422',
            constraint = 'retention_check',
            hint       = 'Give the number of superseded versions that each node keeps whatever their age, such as 1; 0 for none.';
  end if;
  perform filestore.require_read_committed('filestore.prune_history');
  -- One call at a time, so that two calls do not choose the same versions.
  insert into filestore.history_cursor as c
  default values
  on conflict on constraint history_cursor_pkey do update set position = c.position
  returning c.position into after_id;

  -- A running scan recognizes by the history what others wrote since it began.
  deadline := least(statement_timestamp() - older_than, (select min(s.started_at) from filestore.scans s where s.ended_at is null));

  -- From there to the last node, and only then from the first one.
  foreach first_id in array array[after_id, 0] loop
    select
      array_agg(p.node_id),
      array_agg(p.first_version),
      array_agg(p.last_version),
      array_agg(distinct p.backend_mount_id),
      -- The last node of a full batch may have more versions.
      max(p.node_id) - (sum(p.last_version - p.first_version + 1) >= batch)::integer
    into node_ids, first_versions, last_versions, mount_ids, last_id
    from filestore.prunable_versions(deadline, keep_versions, first_id, batch) p;
    exit when node_ids is not null;
  end loop;
  update filestore.history_cursor c
  set position = coalesce(last_id, 0);
  if node_ids is null then
    return 0;
  end if;

  -- A scan or a move that begins waits until the horizon is recorded. Those that have begun are known after the lock.
  -- It waits for one mount at most: writers of the mounts that it has locked would wait with it.
  locked := array(
    select m.id
    from filestore.backend_mounts m
    where m.id = any (mount_ids)
    order by m.id
    for no key update skip locked
  );
  if locked = '{}' then
    locked := array(
      select m.id
      from filestore.backend_mounts m
      where m.id = mount_ids[1]
      for no key update
    );
  end if;
  mount_ids := array(
    select unnest(locked)
    except
    select unnest(filestore.moving_mounts(true) || filestore.erasing_mounts())
  );
  deadline := least(deadline, (select min(s.started_at) from filestore.scans s where s.ended_at is null));

  -- A purge locks versions in another order, so those that it holds are left out. Later versions of the same node stay too,
  -- so that no history gets a gap. Nor may it begin with the gap: an import may have put earlier versions back meanwhile.
  places := array(
    select v.place
    from (
      select
        s.place,
        s.version - row_number() over (partition by s.id order by s.version) + 1 = s.first_version as is_next
      from (
        select s.id, s.version, s.ctid as place, c.first_version
        from unnest(node_ids, first_versions, last_versions) c (id, first_version, last_version)
        cross join lateral (
          select o.id, o.version, o.ctid
          from filestore.snapshots o
          where o.id = c.id
            and o.version <= c.last_version
            and o.valid_to < deadline
            and o.backend_mount_id = any (mount_ids)
          for update skip locked
        ) s
      ) s
    ) v
    where v.is_next
  );
  -- Before the versions are removed: only what ended at or before the horizon can be removed.
  update filestore.backend_mounts m
  set history_horizon = greatest(m.history_horizon, p.horizon)
  from (
    select s.backend_mount_id, max(s.valid_to) as horizon
    from filestore.snapshots s
    where s.ctid = any (places)
    group by s.backend_mount_id
  ) p
  where m.id = p.backend_mount_id;
  delete from filestore.snapshots s
  where s.ctid = any (places);
  return cardinality(places);
end
$$;

comment on function filestore.prune_history(interval, integer, integer) is
  'Removes at most batch superseded versions of live nodes that ended longer than older_than ago, the oldest of each node first, and returns how many. Each node keeps its newest keep_versions superseded versions. Repeat it until it returns 0. backend_mounts.history_horizon is the moment up to which versions were removed. Leaves out mounts that move, are being erased, or are locked by others, and what was written since the oldest running scan began.';

revoke all on function filestore.prune_history(interval, integer, integer) from public;
--! EndIncluded functions/prune_history.sql
--! Included functions/purge_deleted.sql
create or replace function filestore.purge_deleted(older_than interval, batch integer default 1000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Only one index has the tombstones of a parent in order of name, and it is taken even if the statistics know of none.
set enable_sort = off
as $$
declare
  deadline timestamptz;
  mount_id bigint;
  pending  bigint[];
  chosen   bigint[];
  removed  integer;
  refusal  text;
  is_first boolean := true;
  purged   integer := 0;
begin
  perform filestore.check_retention(older_than, batch);
  perform filestore.require_first_write('filestore.purge_deleted');
  -- Retention counts from updated_at, since the writer of a deletion chooses deleted_at. deleted_at is never later than
  -- updated_at, so its condition excludes no more rows, and has an index.
  deadline := statement_timestamp() - older_than;
  pending := array(
    select distinct d.directory_id
    from filestore.rollup_deltas d
  );

  -- All transactions of the server share its table of locks,
  -- hence the limit. The next call takes the next mounts, since only those with a tombstone that it can remove count.
  -- "Offset 0" looks into one mount after the other.
  for mount_id in
    select m.id
    from filestore.backend_mounts m
    -- The proof at a cut-over reads new rows only, so nothing is removed while a mount moves.
    where m.held_by is null
      and exists (
        select
        from filestore.nodes n
        where n.backend_mount_id = m.id
          and n.deleted_at < deadline
          and n.updated_at < deadline
          and n.id not in (select unnest(pending))
          and not exists (
            select
            from filestore.nodes c
            where c.parent_id = n.id
              and not c.live
            order by c.name
            offset 0
          )
        offset 0
      )
    order by m.id
    limit 100
  loop
    -- Only for the first one it waits: writers of the mounts that it has locked would wait with it.
    if is_first then
      perform filestore.lock_tree(mount_id, true);
      is_first := false;
    elsif not filestore.try_lock_tree(mount_id, true) then
      continue;
    end if;
    -- A directory with pending deltas stays: its deltas still have to be added to the directories above it.
    pending := array(
      select distinct d.directory_id
      from filestore.rollup_deltas d
      where d.backend_mount_id = mount_id
    );

    -- Each round removes tombstones without children, with those above that have no other child. So the number of rounds
    -- grows with the branches of a tree, and not with its depth. "Offset 0" and the order by name keep the search for
    -- children a lookup. Otherwise the planner reads all tombstones for each one, when its statistics
    -- know of none yet, or all nodes, when directories are large.
    while purged < batch loop
      chosen := array(
        select n.id
        from filestore.nodes n
        where n.backend_mount_id = mount_id
          and n.deleted_at < deadline
          and n.updated_at < deadline
          and n.id not in (select unnest(pending))
          and not exists (
            select
            from filestore.nodes c
            where c.parent_id = n.id
              and not c.live
            order by c.name
            offset 0
          )
        order by n.deleted_at, n.depth desc
        limit batch - purged
      );
      exit when chosen = '{}';
      chosen := array(
        with recursive above (id, parent_id) as (
          select n.id, n.parent_id
          from filestore.nodes n
          where n.id = any (chosen)
          union all
          select n.id, n.parent_id
          from above a
          cross join lateral (
            select p.id, p.parent_id
            from filestore.nodes p
            -- "Coalesce" as below: this is a lookup of one node.
            where p.id = a.parent_id
              and coalesce(p.deleted_at, 'infinity') < deadline
              and p.updated_at < deadline
              and p.id not in (select unnest(pending))
              and not exists (
                select
                from filestore.nodes c
                where c.parent_id = p.id
                  and not c.live
                  and c.id <> a.id
                order by c.name
                offset 0
              )
            offset 0
          ) n
        )
        select a.id
        from above a
        limit batch - purged
      );
      begin
        delete from filestore.nodes n
        -- Checked again, since a node may have been restored and deleted again in the meantime. "Coalesce" makes the
        -- planner use the primary key and not the indexes on tombstones.
        where n.id = any (chosen)
          and coalesce(n.deleted_at, 'infinity') < deadline
          and n.updated_at < deadline;
        get diagnostics removed = row_count;
      exception
        when sqlstate 'FS409' then
          get stacked diagnostics refusal = constraint_name;
          -- The mount has begun to move: the call goes on with the next one.
          exit when refusal = 'backend_mounts_moving' and exists (
            select
            from filestore.backend_mounts m
            where m.id = mount_id
              and m.held_by is not null
          );
          if refusal not in ('nodes_not_empty', 'rollup_deltas_pending') then
            raise;
          end if;
          -- A tombstone was changed in the meantime, so it is younger now, or nodes below it were deleted. The next round
          -- leaves those above it, and those that have pending deltas now.
          removed := 0;
          pending := array(
            select distinct d.directory_id
            from filestore.rollup_deltas d
            where d.backend_mount_id = mount_id
          );
      end;
      purged := purged + removed;
    end loop;
    exit when purged >= batch;
  end loop;
  return purged;
end
$$;

comment on function filestore.purge_deleted(interval, integer) is
  'Removes at most batch tombstones whose last change is longer than older_than ago, with their history, the oldest and deepest first, and returns how many. One call takes at most 100 mounts, and leaves those to the next call whose trees others have locked, except for the first one. Repeat it until it returns 0. Skips directories that have pending deltas.';

revoke all on function filestore.purge_deleted(interval, integer) from public;
--! EndIncluded functions/purge_deleted.sql
