--! Previous: sha1:4251f2d66c4b9aeabd5b4c3f23df73c6ba7e2db3
--! Hash: sha1:b717d65fe9f9493e21b0099c6dda9f313cc3cb37
--! Message: Take functions from everyone after a restore

-- Write the next migration here, then: npm run db:commit -- -m "What it does"
--! Included functions/revoke_from_public.sql
create or replace function filestore.revoke_from_public()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  routines text;
begin
  select string_agg(p.oid::regprocedure::text, ', ')
  into routines
  from pg_proc p
  where p.pronamespace = 'filestore'::regnamespace
    and p.prosrc !~ 'range_constructor'
    and pg_has_role(p.proowner, 'usage')
    and exists (
      select
      from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
      where a.grantee = 0
    );
  if routines is not null then
    execute format('revoke all on routine %s from public', routines);
  end if;
end
$$;

comment on function filestore.revoke_from_public() is
  'Internal: Takes the functions from PUBLIC, which a restored dump leaves to everyone where it could not grant a role its rights, or left privileges out.';

revoke all on function filestore.revoke_from_public() from public;
--! EndIncluded functions/revoke_from_public.sql
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
  perform filestore.revoke_from_public();
  perform filestore.apply_access(grant_access.role_name, grant_access.level);
  perform filestore.attach_renewal();
end
$$;

comment on function filestore.grant_access(text, text) is
  'Gives a role the rights of a level (reader, service or operator), removes any other rights that the role had on the schema, takes functions from PUBLIC, and records the level, so that migrations renew the rights. For the owner of the schema.';

revoke all on function filestore.grant_access(text, text) from public;
--! EndIncluded functions/grant_access.sql
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
  perform filestore.revoke_from_public();
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
  'Grants every recorded role the rights of its level again, on the tables, columns and functions that exist now. Removes the level of a role that was dropped, with a warning, and grants nothing to another role of its name. Takes functions from PUBLIC, to which a restored dump may leave them. Every migration ends with it, in its own transaction.';

revoke all on function filestore.renew_access() from public;
--! EndIncluded functions/renew_access.sql
