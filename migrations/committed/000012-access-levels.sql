--! Previous: sha1:fbc742ea9498b8862f9bbd4976871d4c0ea4eb49
--! Hash: sha1:6a62260d6fef7dd05386cafb9549695fa722712f
--! Message: Access levels

create table if not exists filestore.access_levels (
  role_name  text           collate "C" not null,
  role_oid   oid            not null,
  level      text           not null,
  granted_at timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),

  constraint access_levels_pkey
    primary key (role_name),
  constraint access_levels_level_check
    check (level in ('reader', 'service', 'operator'))
);

comment on table  filestore.access_levels            is 'The level that filestore.grant_access gave to each role. Every migration renews its rights, by filestore.renew_access.';
comment on column filestore.access_levels.role_name  is 'Name of the role in the cluster.';
comment on column filestore.access_levels.role_oid   is 'Number of the role in the cluster. A role that later gets the same name has another number, and so no level.';
comment on column filestore.access_levels.level      is 'reader, service or operator.';
comment on column filestore.access_levels.granted_at is 'When the level was last granted.';

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
    check_limit,
    check_name,
    climb_totals,
    content_columns,
    database_number,
    directory_totals,
    find_by_checksum,
    find_mount,
    guard_statements,
    list_commands,
    list_directory,
    list_totals,
    list_unseen,
    location_uri,
    move_progress,
    move_slot,
    move_steps,
    move_subscription,
    node_at,
    node_by_path,
    node_commands,
    node_location,
    pending_totals,
    percent_encode,
    real_depths,
    server_timeline,
    subscription_errors,
    tree_at
  }';
  services  constant text[] := '{
    begin_command,
    begin_work,
    check_batch,
    check_retention,
    child_path,
    copy_nodes,
    copy_tree,
    create_node,
    create_nodes,
    delete_batch,
    delete_node,
    describe_element,
    ensure_child,
    ensure_directory,
    expire_commands,
    finish_command,
    fold_rollups,
    freeze_tree,
    is_small_json,
    holds_mount,
    is_sound,
    is_sound_entry,
    lock_command,
    lock_parents,
    lock_tree,
    lock_trees,
    merge_metadata,
    mount_place,
    move_node,
    moving_mounts,
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
    start_command,
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
    ('backend_mounts', 'INSERT', '{id,erasing_since,held_by,version,created_at,updated_at}'::text[]),
    ('backend_mounts', 'UPDATE', '{id,backend_kind,erasing_since,held_by,version,created_at,updated_at}'),
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
--! Included functions/apply_access.sql
create or replace function filestore.apply_access(role_name text, level text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  owner     constant regrole := (select n.nspowner from pg_namespace n where n.nspname = 'filestore');
  statement text;
begin
  if role_name::name = (select r.rolname from pg_roles r where r.oid = owner) then
    raise exception 'role "%" owns the schema', role_name
      using errcode    = 'FS422',
            constraint = 'access_owner_check',
            hint       = 'Use another role, and delete this one from filestore.access_levels if it is there. Triggers and functions run as the owner, and need all of its rights.';
  end if;
  -- Removes the rights of an earlier level, and rights that were granted by hand.
  execute format('revoke all on schema filestore from %I', role_name);
  execute format('revoke all on all tables in schema filestore from %I', role_name);
  execute format('revoke all on all sequences in schema filestore from %I', role_name);
  -- Not the constructors of a range type: a superuser owns them, and each revoke would print a warning.
  execute (
    select format('revoke all on routine %s from %I', string_agg(p.oid::regprocedure::text, ', '), role_name)
    from pg_proc p
    where p.pronamespace = 'filestore'::regnamespace
      and p.prosrc !~ 'range_constructor'
  );
  execute format('alter default privileges for role %s in schema filestore revoke all on tables from %I', owner, role_name);
  if level is null then
    if to_regclass('graphile_migrate.migrations') is not null then
      execute format('revoke select on graphile_migrate.migrations from %I', role_name);
      execute format('revoke usage on schema graphile_migrate from %I', role_name);
    end if;
    return;
  end if;

  for statement in
    select format(
      'grant %s%s on %s %s to %I',
      r.privilege,
      ' (' || string_agg(quote_ident(r.column_name), ', ' order by r.column_name) || ')',
      case r.kind when 'column' then 'table' else r.kind end,
      r.object,
      role_name
    )
    from filestore.access_rights(level) r
    group by r.kind, r.object, r.privilege
  loop
    -- access_rights quotes the names that it reads from the catalog.
    execute statement;
  end loop;
  -- A view that a migration recreates is readable at once.
  execute format('alter default privileges for role %s in schema filestore grant select on tables to %I', owner, role_name);
  -- A service reads this table at its start, to see whether the schema is up to date.
  if to_regclass('graphile_migrate.migrations') is not null then
    execute format('grant usage on schema graphile_migrate to %I', role_name);
    execute format('grant select on graphile_migrate.migrations to %I', role_name);
  end if;
end
$$;

comment on function filestore.apply_access(text, text) is
  'Internal: Grants a role exactly the rights of a level. With null, removes all its rights on the schema. FS422 for the owner of the schema.';

revoke all on function filestore.apply_access(text, text) from public;
--! EndIncluded functions/apply_access.sql
--! Included functions/renew_access.sql
create or replace function filestore.renew_access()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  grantee record;
begin
  -- Without the lock, a concurrent grant or revoke would fail with "tuple concurrently updated".
  lock table filestore.access_levels in share row exclusive mode;
  -- Only roles whose rights differ: granting all rights of a role again writes hundreds of catalog rows.
  for grantee in
    select a.role_name, a.level, a.role_oid, r.oid as found_oid
    from filestore.access_levels a
    left join pg_roles r on r.rolname = a.role_name
    where r.oid is distinct from a.role_oid
       or a.role_name in (select c.role_name from filestore.check_access() c where c.privilege is not null)
       or exists (
         select
         from pg_class c
         join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'graphile_migrate'
           and c.relname = 'migrations'
           and not has_table_privilege(r.oid, c.oid, 'select')
       )
    order by a.role_name
  loop
    if grantee.found_oid is null then
      raise warning 'role "%" no longer exists: its level % is removed from filestore.access_levels', grantee.role_name, grantee.level
        using errcode    = 'FS404',
              constraint = 'access_role_missing';
      delete from filestore.access_levels a
      where a.role_name = grantee.role_name;
      continue;
    elsif grantee.found_oid <> grantee.role_oid then
      raise warning 'role "%" is not the role that got level %, and gets no rights: a role of this name was dropped, or the database was restored', grantee.role_name, grantee.level
        using errcode    = 'FS409',
              constraint = 'access_role_replaced',
              hint       = 'Call filestore.grant_access for the role that exists now, or filestore.revoke_access.';
      continue;
    end if;
    begin
      perform filestore.apply_access(grantee.role_name, grantee.level);
    exception
      when insufficient_privilege then
        raise exception 'the rights of role "%" could not be granted again: %', grantee.role_name, sqlerrm
          using errcode    = 'FS422',
                constraint = 'access_owner_check',
                hint       = 'The owner of the schema must own all objects in it. Use "reassign owned by ... to ...", or move other objects to another schema.';
    end;
  end loop;
end
$$;

comment on function filestore.renew_access() is
  'Grants every recorded role the rights of its level again, on the tables, columns and functions that exist now. Removes the level of a role that was dropped, with a warning, and grants nothing to another role of its name. Every migration ends with it, in its own transaction.';

revoke all on function filestore.renew_access() from public;
--! EndIncluded functions/renew_access.sql
--! Included functions/renew_after_migration.sql
create or replace function filestore.renew_after_migration()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Runs as the role that migrates, not as the owner of the schema: that role owns the objects it has just created.
  perform filestore.renew_access();
  return null;
end
$$;

comment on function filestore.renew_after_migration() is
  'Trigger function on the tables of graphile-migrate: renews the rights in the transaction that records a migration.';

revoke all on function filestore.renew_after_migration() from public;
--! EndIncluded functions/renew_after_migration.sql
--! Included functions/attach_renewal.sql
create or replace function filestore.attach_renewal()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  bookkeeping record;
begin
  -- graphile-migrate creates these tables, and recreates lost ones. Its watch mode writes to "current" at every save.
  for bookkeeping in
    select c.oid::regclass as name, c.relname || '_renew_access' as trigger_name
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'graphile_migrate'
      and c.relname in ('migrations', 'current')
      and c.relkind = 'r'
      and not exists (
        select
        from pg_trigger t
        where t.tgrelid = c.oid
          and t.tgname = c.relname || '_renew_access'
          and t.tgenabled in ('O', 'A')
      )
  loop
    execute format('drop trigger if exists %I on %s', bookkeeping.trigger_name, bookkeeping.name);
    execute format(
      'create trigger %I after insert on %s for each statement execute function filestore.renew_after_migration()',
      bookkeeping.trigger_name,
      bookkeeping.name
    );
  end loop;
end
$$;

comment on function filestore.attach_renewal() is
  'Makes every migration renew the rights of the recorded roles, whichever program applies it. Calling it again changes nothing. For the owner of the schema.';

revoke all on function filestore.attach_renewal() from public;
--! EndIncluded functions/attach_renewal.sql
--! Included functions/grant_access.sql
create or replace function filestore.grant_access(role_name text, level text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Refuses an unknown level.
  perform filestore.access_rights(level);
  if not exists (select from pg_roles r where r.rolname = role_name) then
    raise exception 'role "%" does not exist', coalesce(role_name, 'null')
      using errcode    = 'FS404',
            constraint = 'access_role_missing',
            hint       = 'Create the role first. Migrations do not create roles, because roles belong to the whole cluster.';
  end if;

  lock table filestore.access_levels in share row exclusive mode;
  insert into filestore.access_levels (role_name, role_oid, level)
  select r.rolname, r.oid, grant_access.level
  from pg_roles r
  where r.rolname = grant_access.role_name
  on conflict on constraint access_levels_pkey do update
  set role_oid   = excluded.role_oid,
      level      = excluded.level,
      granted_at = excluded.granted_at;
  perform filestore.apply_access(grant_access.role_name, grant_access.level);
  perform filestore.attach_renewal();
end
$$;

comment on function filestore.grant_access(text, text) is
  'Gives a role the rights of a level (reader, service or operator), removes any other rights that the role had on the schema, and records the level, so that migrations renew the rights. For the owner of the schema.';

revoke all on function filestore.grant_access(text, text) from public;
--! EndIncluded functions/grant_access.sql
--! Included functions/revoke_access.sql
create or replace function filestore.revoke_access(role_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  lock table filestore.access_levels in share row exclusive mode;
  delete from filestore.access_levels a
  where a.role_name = revoke_access.role_name;
  -- The level of a dropped role is removed, too.
  if exists (select from pg_roles r where r.rolname = revoke_access.role_name) then
    perform filestore.apply_access(role_name, null);
  elsif not found then
    raise exception 'role "%" does not exist, and has no level', coalesce(role_name, 'null')
      using errcode    = 'FS404',
            constraint = 'access_role_missing',
            hint       = 'Check the name. filestore.access_levels lists the roles that have a level.';
  end if;
end
$$;

comment on function filestore.revoke_access(text) is
  'Removes all rights of a role on the schema, and its recorded level, also of a role that was dropped. FS404 when there is neither such a role nor a level. For the owner of the schema.';

revoke all on function filestore.revoke_access(text) from public;
--! EndIncluded functions/revoke_access.sql
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
  with leveled as (
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
       or g.rolname in ('pg_write_all_data', 'pg_maintain', 'pg_write_server_files', 'pg_execute_server_program')
       or g.oid in (select o.owner from objects o)
       or exists (
         select r.kind, r.object, r.column_name, r.privilege from granted r where r.id = g.oid
         except
         select e.kind, e.object, e.column_name, e.privilege from expected e where e.id = l.id
       )
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
  select distinct 'member of a role beyond its level', l.role_name, 'role', format('%I', m.rolname), null, null
  from leveled l
  join pg_auth_members a on a.member = l.id
  join pg_roles m on m.oid = a.roleid
  join beyond b on b.id = l.id
  where pg_has_role(m.oid, b.other, 'member')
    -- Up to PostgreSQL 15, a member of a role may always use its rights.
    and (
      a.admin_option
      or pg_has_role(l.id, b.other, 'usage')
      or pg_has_role(l.id, b.other, case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end)
    )
  union all
  select 'superuser', l.role_name, 'role', format('%I', l.role_name), null, null
  from leveled l
  join pg_roles g on g.oid = l.id and g.rolsuper
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
  where has_parameter_privilege(l.id, 'session_replication_role', 'set')
  union all
  select 'triggers switched off', null, 'setting', concat_ws(' in ', r.name, d.name), null, null
  from pg_db_role_setting s
  cross join lateral (values (case when s.setrole <> 0 then format('role %I', pg_get_userbyid(s.setrole)) end)) r (name)
  cross join lateral (
    values (case when s.setdatabase <> 0 then format('database %I', current_database()) when s.setrole = 0 then 'role all' end)
  ) d (name)
  where s.setdatabase in (0, (select c.oid from pg_database c where c.datname = current_database()))
    and (s.setrole = 0 or exists (select from leveled l where l.id = s.setrole))
    and 'session_replication_role=replica' = any (s.setconfig)
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
  'The rights on the schema that differ from the recorded levels: granted by hand to a role or to PUBLIC, granted on the bookkeeping of migrations or with grant option, held as a superuser or by membership in another role, missing, or no longer renewed by migrations. Also roles and settings that may switch triggers off, levels whose role was dropped or replaced by another role of its name, and objects whose owner is not that of the schema. No row means that every role has exactly the rights of its level, and migrations renew them.';

revoke all on function filestore.check_access() from public;
--! EndIncluded functions/check_access.sql

-- From here on, every migration renews the rights.
select filestore.attach_renewal();
