--! Previous: sha1:37db03ceb35a5b65ff85d42997d3b8abc4ef6b3c
--! Hash: sha1:d480604dc6c3adaa0f49ab1164821c62170c139f
--! Message: Memberships that lead to the owner through rights to grant

-- Write the next migration here, then: npm run db:commit -- -m "What it does"
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
       or g.rolname in ('pg_write_all_data', 'pg_maintain', 'pg_write_server_files', 'pg_execute_server_program')
       or g.oid in (select o.owner from objects o)
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
    -- The server keeps the value as it was written, and takes it in any case.
    and exists (select from unnest(s.setconfig) c where lower(c) = 'session_replication_role=replica')
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
