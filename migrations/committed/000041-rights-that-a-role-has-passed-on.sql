--! Previous: sha1:97c6ce1b5bd48082ea23c42ea8b830936b8fc3b8
--! Hash: sha1:6893f6811e87dbb3546bc359604e2e7fd9857d40
--! Message: Rights that a role has passed on

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
  'Internal: Grants a role exactly the rights of a level. With null, removes all its rights on the schema. FS422 for the owner of the schema, FS409 when the role has passed rights on.';

revoke all on function filestore.apply_access(text, text) from public;
--! EndIncluded functions/apply_access.sql
