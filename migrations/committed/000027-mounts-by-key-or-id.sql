--! Previous: sha1:c38b9d5865dcaa0ab68e82fcc6c10dbcb1ac730d
--! Hash: sha1:dbdc44302d2fccc12e8334a0a4c426bd5438ad37
--! Message: Mounts by key or id

--! Included functions/find_mount.sql
create or replace function filestore.find_mount(mount_key text)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint;
begin
  select m.id
  into mount_id
  from filestore.backend_mounts m
  where m.mount_key = find_mount.mount_key;

  if mount_id is null then
    select m.id
    into mount_id
    from filestore.backend_mounts m
    where m.id = substring(find_mount.mount_key from '^#([0-9]{1,18})$')::bigint;
    if mount_id is null then
      raise exception 'mount "%" does not exist', left(mount_key, 128)
        using errcode    = 'FS404',
              constraint = 'backend_mounts_missing',
              hint       = 'To list the mounts, run: select mount_key from filestore.backend_mounts';
    end if;
  end if;
  return mount_id;
end
$$;

comment on function filestore.find_mount(text) is
  'Internal: The id of the mount with a key, or with an id that is written as #1, which is no key; FS404 when there is none.';

revoke all on function filestore.find_mount(text) from public;
--! EndIncluded functions/find_mount.sql

--! Included functions/mount_by_id.sql
create or replace function filestore.mount_by_id(mount_id bigint)
returns setof filestore.backend_mounts
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select m.*
  from filestore.backend_mounts m
  where m.id = mount_by_id.mount_id;
end
$$;

comment on function filestore.mount_by_id(bigint) is
  'The mount with an id, or no row.';

revoke all on function filestore.mount_by_id(bigint) from public;
--! EndIncluded functions/mount_by_id.sql

--! Included functions/mount_by_key.sql
create or replace function filestore.mount_by_key(mount_key text)
returns setof filestore.backend_mounts
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select m.*
  from filestore.backend_mounts m
  where m.mount_key = mount_by_key.mount_key;
end
$$;

comment on function filestore.mount_by_key(text) is
  'The mount with a key, or no row.';

revoke all on function filestore.mount_by_key(text) from public;
--! EndIncluded functions/mount_by_key.sql

--! Included functions/list_mounts.sql
create or replace function filestore.list_mounts(after_key text default '', page_size bigint default 1000)
returns setof filestore.backend_mounts
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.check_limit('page_size', page_size, 100000);
  return query
  select m.*
  from filestore.backend_mounts m
  where m.mount_key > coalesce(after_key, '')
  order by m.mount_key
  limit page_size;
end
$$;

comment on function filestore.list_mounts(text, bigint) is
  'A page of the mounts, in order of key. For the next page, give the last key of this one as after_key.';

revoke all on function filestore.list_mounts(text, bigint) from public;
--! EndIncluded functions/list_mounts.sql

--! Included functions/mount_fields.sql
create or replace function filestore.mount_fields(settings jsonb, privilege text)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- The columns that services may write, so that new ones are included.
  allowed constant text[] := array(
    select r.column_name
    from filestore.access_rights('service') r
    where r.kind = 'column'
      and r.object = format('filestore.%I', 'backend_mounts')
      and r.privilege = mount_fields.privilege
  );
  field   text;
begin
  if jsonb_typeof(settings) is distinct from 'object' then
    raise exception 'the settings of the mount are of type %, not an object', coalesce(jsonb_typeof(settings), 'null')
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = 'Give an object with columns of filestore.backend_mounts, such as {"state": "offline"}.';
  end if;
  select k.name
  into field
  from jsonb_object_keys(settings - allowed) as k (name)
  order by k.name
  limit 1;
  if found then
    raise exception 'the settings have the field "%", which %', left(field, 40),
      case
        when exists (select from pg_attribute a where a.attrelid = 'filestore.backend_mounts'::regclass and a.attnum > 0 and a.attname = field)
          then 'is fixed or set by the database'
        else 'a mount does not have'
      end
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = format('Give only these fields: %s.', array_to_string(allowed, ', '));
  end if;
  return array(
    select k.name
    from jsonb_object_keys(settings) as k (name)
    order by k.name
  );
end
$$;

comment on function filestore.mount_fields(jsonb, text) is
  'Internal: The columns of the settings of a mount that are inserted or updated. FS422 when these are not an object of columns that a service may write.';

revoke all on function filestore.mount_fields(jsonb, text) from public;
--! EndIncluded functions/mount_fields.sql

--! Included functions/create_mount.sql
create or replace function filestore.create_mount(mount jsonb)
returns filestore.backend_mounts
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  columns text;
  problem text;
  created filestore.backend_mounts;
begin
  select string_agg(quote_ident(f.name), ', ')
  into columns
  from unnest(filestore.mount_fields(mount, 'INSERT')) as f (name);

  -- A column that is left out gets its default.
  execute format(
    'insert into filestore.backend_mounts (%1$s) select %1$s from jsonb_populate_record(null::filestore.backend_mounts, $1) returning *',
    coalesce(columns, 'mount_key')
  )
  using mount
  into created;
  return created;
exception
  when not_null_violation or data_exception then
    -- The server gives no reason for these.
    get stacked diagnostics problem = message_text;
    raise exception 'the settings of the mount: %', left(problem, 300)
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = 'Correct that field. Nothing was written.';
end
$$;

comment on function filestore.create_mount(jsonb) is
  'Registers a mount, with the root of its tree. The object has columns of backend_mounts: mount_key, backend_kind, the place (root_path, or bucket and perhaps endpoint and prefix), and optionally any other that a service may write. 23505 when the key is taken, 23P01 when another mount has the place or a part of it, FS422 or 23514 when a field or value is not valid.';

revoke all on function filestore.create_mount(jsonb) from public;
--! EndIncluded functions/create_mount.sql

--! Included functions/update_mount.sql
create or replace function filestore.update_mount(mount_key text, changes jsonb, expected_version integer default null)
returns filestore.backend_mounts
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id constant bigint := filestore.find_mount(update_mount.mount_key);
  columns  text;
  problem  text;
  mount    filestore.backend_mounts;
begin
  select string_agg(quote_ident(f.name), ', ')
  into columns
  from unnest(filestore.mount_fields(changes, 'UPDATE')) as f (name);

  -- A column that is left out keeps its value.
  if columns is null then
    select *
    into mount
    from filestore.backend_mounts m
    where m.id = mount_id
      and m.version = coalesce(expected_version, m.version);
  else
    execute format(
      'update filestore.backend_mounts m
       set (%1$s) = (select %1$s from jsonb_populate_record(m, $2))
       where m.id = $1
         and m.version = coalesce($3, m.version)
       returning m.*',
      columns
    )
    using mount_id, changes, expected_version
    into mount;
  end if;

  if mount.id is null then
    raise exception 'mount "%" is not at version %', update_mount.mount_key, expected_version
      using errcode    = 'FS409',
            constraint = 'backend_mounts_stale',
            hint       = 'Read the mount again, and decide again.';
  end if;
  return mount;
exception
  when not_null_violation or data_exception then
    -- The server gives no reason for these.
    get stacked diagnostics problem = message_text;
    raise exception 'the settings of the mount: %', left(problem, 300)
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = 'Correct that field. Nothing was written.';
end
$$;

comment on function filestore.update_mount(text, jsonb, integer) is
  'Changes settings or the state of a mount, and returns it. The object has columns of backend_mounts; one that is left out keeps its value, and null clears it. FS404 when the mount does not exist, FS409 when it is not at expected_version (null: any), FS422 or 23514 when a field or value is not valid.';

revoke all on function filestore.update_mount(text, jsonb, integer) from public;
--! EndIncluded functions/update_mount.sql
