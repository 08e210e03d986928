--! Previous: sha1:7c2d9efe6a057066b1a455f3bb90ae286b1e86d5
--! Hash: sha1:e26d1d0e14b7cb127b17e38c4737d8b145d20bc0
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
--! Included functions/apply_access.sql
create or replace function filestore.apply_access(role_name text, level text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  owner     constant regrole := (select n.nspowner from pg_namespace n where n.nspname = 'filestore');
  grantees  text;
  statement text;
begin
  if role_name::name = (select r.rolname from pg_roles r where r.oid = owner) then
    raise exception 'role "%" owns the schema', role_name
      using errcode    = 'FS422',
            constraint = 'access_owner_check',
            hint       = 'Use another role, and delete this one from filestore.access_levels if it is there. Triggers and functions run as the owner, and need all of its rights.';
  end if;
  perform filestore.revoke_from_public();
  begin
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
  exception
    when dependent_objects_still_exist then
      select string_agg(distinct case a.grantee when 0 then 'PUBLIC' else pg_get_userbyid(a.grantee) end, ', ')
      into grantees
      from (
        select c.relacl as rights
        from pg_class c
        where c.relnamespace = 'filestore'::regnamespace
        union all
        select c.attacl
        from pg_attribute c
        join pg_class t on t.oid = c.attrelid
        where t.relnamespace = 'filestore'::regnamespace
        union all
        select p.proacl
        from pg_proc p
        where p.pronamespace = 'filestore'::regnamespace
        union all
        select n.nspacl
        from pg_namespace n
        where n.nspname = 'filestore'
      ) o
      cross join aclexplode(o.rights) a
      where a.grantor = (select r.oid from pg_roles r where r.rolname = apply_access.role_name);
      raise exception 'role "%" has passed rights on the schema on to: %', role_name, grantees
        using errcode    = 'FS409',
              constraint = 'access_passed_on',
              hint       = format('Take them back, as the owner: revoke all on all tables in schema filestore from %1$I cascade; revoke all on all routines in schema filestore from %1$I cascade; revoke all on schema filestore from %1$I cascade. Then call filestore.grant_access for each of these roles, and again for this one, if it has a level.', role_name);
  end;
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
  'Internal: Grants a role exactly the rights of a level. With null, removes all its rights on the schema. Takes functions from PUBLIC. FS422 for the owner of the schema, FS409 when the role has passed rights on.';

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
