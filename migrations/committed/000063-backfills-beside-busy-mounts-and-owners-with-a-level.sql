--! Previous: sha1:92bb0d0400b092b1434bc70c34a8b84638d8d82a
--! Hash: sha1:112847b88f3d556b37274e18cafa3aaf4afd907b
--! Message: Backfills beside busy mounts, and owners with a level

--! Included functions/fill_batch.sql
create or replace function filestore.fill_batch(job_id bigint, key_name text, batch integer, end_key bigint)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job       filestore.backfills;
  mount     record;
  -- The first row of the next batch, if a mount ends this one.
  next_key  bigint;
  found_key bigint;
  changed   bigint;
begin
  -- An earlier call may have ended the job before rows that this call has to fill.
  update filestore.backfills b
  set transaction_id = pg_current_xact_id(),
      finished_at    = null
  where b.id = job_id
    and (b.finished_at is null or b.last_key < end_key)
  returning * into job;
  if job.id is null then
    return false;
  end if;
  perform set_config('filestore.backfill_id', job_id::text, true);

  if job.table_name = 'nodes' then
    -- Like every transaction that writes several existing nodes, this takes tree locks first, then rows in order of id.
    -- A batch ends before the nodes of a 101st mount, since all transactions of the server share its table of locks. It
    -- waits only for the first one: writers of the mounts that it has locked would wait with it.
    for mount in
      select p.backend_mount_id as id, min(p.id) as first_id, row_number() over (order by min(p.id)) as place
      from (
        select n.id, n.backend_mount_id
        from filestore.nodes n
        where n.id > job.last_key
          and n.id <= end_key
        order by n.id
        limit batch
      ) p
      group by p.backend_mount_id
      order by place
    loop
      if mount.place = 1 then
        perform filestore.lock_tree(mount.id, false);
      elsif mount.place > 100 or not filestore.try_lock_tree(mount.id, false) then
        next_key := mount.first_id;
        exit;
      end if;
    end loop;
  end if;

  -- The expression is SQL of the schema's owner, so it is not quoted.
  execute format(
    'with part as (
       select t.%1$I as backfill_key
       from filestore.%2$I t
       where t.%1$I > $1
         and t.%1$I <= $3
       order by t.%1$I
       limit $2
       for no key update
     ),
     filled as (
       update filestore.%2$I
       set %3$I = (%4$s)
       from part
       where %1$I = part.backfill_key
         and %3$I is null
         and (%4$s) is not null
       returning 1
     )
     select (select max(p.backfill_key) from part p), (select count(*) from filled)',
    key_name, job.table_name, job.column_name, job.expression
  )
  using job.last_key, batch, coalesce(next_key - 1, end_key)
  into found_key, changed;
  -- All nodes before the next batch may have been purged in the meantime.
  found_key := coalesce(found_key, next_key - 1);

  update filestore.backfills b
  set last_key       = coalesce(found_key, b.last_key),
      filled         = b.filled + changed,
      -- A copy of this row on another server must not allow a later transaction with this number.
      transaction_id = null,
      updated_at     = date_trunc('milliseconds', clock_timestamp()),
      finished_at    = case when found_key is null then date_trunc('milliseconds', clock_timestamp()) end
  where b.id = job_id;
  return found_key is not null;
end
$$;

comment on function filestore.fill_batch(bigint, text, integer, bigint) is
  'Internal: Fills the next batch of a backfill, up to a key, in the current transaction, and returns whether there may be more. For filestore.backfill.';

revoke all on function filestore.fill_batch(bigint, text, integer, bigint) from public;
--! EndIncluded functions/fill_batch.sql
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
    -- Then the schema has the wrong owner, which is reported above.
    and not exists (select from leveled l join pg_namespace n on n.nspowner = l.id where n.nspname = 'filestore')
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
      -- A copy or a second upload changes both, but not the content, as an equal hash shows.
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

  -- All transactions of the server share its table of locks, hence the limit. The next call takes the next mounts, since only
  -- those with a tombstone that it can remove count. "Offset 0" looks into one mount after the other.
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
    -- It waits only for the first one: writers of the mounts that it has locked would wait with it.
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
--! Included functions/plan_files.sql
create or replace function filestore.plan_files(scan filestore.scans, base bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
-- For each of a few hashes and sorts. More memory would not be faster, and would grow with the mount.
set work_mem = '16MB'
as $$
declare
  -- The paths below the scanned directory are those from path || '/' up to path || '0', since '0' follows '/'. For the root,
  -- the upper bound is longer than any path (2600 bytes) and consists of the last character, U+10FFFF.
  lower_path constant text    := case when scan.path = '' then '' else scan.path || '/' end;
  upper_path constant text    := case when scan.path = '' then repeat(chr(1114111), 651) else scan.path || '0' end;
begin
  with recursive places as materialized (
    select d.node_id, d.path, null::text as lost_path, false as is_deleted
    from filestore.scan_directories d
    where d.scan_id = scan.id
      and d.node_id is not null
      and d.is_shifted
    union all
    -- No entry is a file of a lost directory, so these have no path to compare, only one to list.
    select c.node_id, null, c.path, c.action = 'delete'
    from filestore.scan_changes c
    where c.scan_id = scan.id
      and c.number > base
  ),
  files as (
    select n.*, case when p.node_id is null then n.path else filestore.child_path(p.path, n.name) end as final_path,
            case when p.lost_path is not null then filestore.child_path(p.lost_path, n.name) end as lost_path,
            coalesce(p.is_deleted, false) as is_below_deleted
    from (
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.version, n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity,
              n.content_hash, n.checksum, n.storage_class, n.created_at
      from filestore.nodes n
      where scan.is_recursive
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > lower_path
        and n.path < upper_path
        and n.directory_path is null
      union all
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.version, n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity,
              n.content_hash, n.checksum, n.storage_class, n.created_at
      from filestore.nodes n
      where not scan.is_recursive
        and n.parent_id = scan.directory_id
        and n.parent_live is not null
        and n.directory_path is null
    ) n
    left join places p on p.node_id = n.parent_id
    union all
    select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.version, n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity,
            n.content_hash, n.checksum, n.storage_class, n.created_at, filestore.child_path(p.path, n.name), filestore.child_path(p.lost_path, n.name), p.is_deleted
    from filestore.moved_in_nodes(scan) n
    join places p on p.node_id = n.parent_id
    where n.directory_path is null
  ),
  -- Most rows are equal, so that only their ids are kept.
  compared as materialized (
    select
      c.id,
      c.listed_at,
      c.is_equal and (c.updated_at < c.listed_at or not filestore.is_written_since(c.id, c.listed_at, scan.journal_entry_ids)) as is_seen,
      not c.is_equal as differs,
      case when not c.is_equal then c.path end as path,
      case when not c.is_equal then c.from_path end as from_path,
      case when not c.is_equal then c.final_path end as final_path,
      c.lost_path,
      case when not c.is_equal then c.state end as state,
      case when not c.is_equal then c.updated_at end as updated_at,
      case when not c.is_equal then c.version end as version,
      c.is_below_deleted,
      c.entry_key,
      c.node_key
    from (
      select
        e.path,
        e.listed_at,
        n.id,
        n.path as from_path,
        n.final_path,
        n.lost_path,
        n.state,
        n.updated_at,
        n.version,
        n.is_below_deleted,
        e.path is not null
          and n.id is not null
          and n.state <> 'missing'
          and (n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity, n.content_hash, n.checksum, n.storage_class)
            is not distinct from (
              e.size_bytes,
              coalesce(e.last_modified_at, n.last_modified_at),
              e.link_target,
              coalesce(e.backend_identity, n.backend_identity),
              coalesce(e.content_hash, n.content_hash),
              coalesce(e.checksum, n.checksum),
              coalesce(e.storage_class, n.storage_class)
            ) as is_equal,
        -- A file that an earlier plan of the scan has created counts, so that its twins stay ambiguous.
        case when (e.backend_identity <> n.backend_identity) is true or n.id is null or n.created_at >= scan.started_at then
          coalesce(
            'i' || e.backend_identity,
            case when n.id is null and scan.pairs_by_content and e.size_bytes > 0 then e.size_bytes || ' ' || e.content_hash end
          )
        end as entry_key,
        case when (e.backend_identity <> n.backend_identity) is true or e.path is null then
          coalesce(
            'i' || n.backend_identity,
            case when e.path is null and scan.pairs_by_content and n.size_bytes > 0 then n.size_bytes || ' ' || n.content_hash end
          )
        end as node_key
      from (
        select g.path, g.listed_at, g.size_bytes, g.last_modified_at, g.link_target, g.backend_identity, g.content_hash, g.checksum, g.storage_class
        from filestore.scan_entries g
        where g.scan_id = scan.id
          and g.kind = 'file'
          and g.fault is null
      ) e
      full join files n on n.final_path = e.path
      -- "Offset 0": the comparison would be evaluated for each of its uses.
      offset 0
    ) c
  ),
  found_nodes as (
    insert into filestore.scan_sightings (scan_id, number, moment, node_ids)
    select scan.id, base + 100000000000 + row_number() over (order by p.part, p.listed_at), p.listed_at, p.node_ids
    from (
      select c.id / 16384 as part, c.listed_at, array_agg(c.id) as node_ids
      from compared c
      where c.is_seen
      group by c.id / 16384, c.listed_at
    ) p
  ),
  diff as materialized (
    select c.*
    from compared c
    where c.differs
  ),
  wanted as materialized (
    select min(c.path) as path, c.entry_key as key, min(c.listed_at) as listed_at
    from compared c
    where c.entry_key is not null
    group by c.entry_key
    having count(*) = 1
  ),
  strays as (
    select d.id, d.from_path, d.node_key as key, d.updated_at, d.version
    from diff d
    where d.node_key is not null
    union all
    select o.id, o.path, w.key, o.updated_at, o.version
    from wanted w
    cross join lateral (
      select n.id, n.path, n.parent_id, n.updated_at, n.version
      from filestore.nodes n
      where hashtextextended(n.backend_identity, 0) = hashtextextended(substr(w.key, 2), 0)
        and n.backend_identity is not null
        and n.backend_identity = substr(w.key, 2)
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.directory_path is null
        and (n.state = 'missing' or n.updated_at >= w.listed_at)
      offset 0
    ) o
    -- A scan of everything has no nodes outside.
    where (scan.path <> '' or not scan.is_recursive)
      and starts_with(w.key, 'i')
      and not case when scan.is_recursive then o.path > lower_path and o.path < upper_path else o.parent_id = scan.directory_id end
      and not (scan.is_recursive and exists (select from places p where p.node_id = o.parent_id))
  ),
  pairs as materialized (
    select w.path, s.id, s.from_path, s.version,
            s.updated_at >= w.listed_at and filestore.is_written_since(s.id, w.listed_at, scan.journal_entry_ids) as is_held
    from wanted w
    join (
      select min(t.id) as id, min(t.from_path) as from_path, t.key, max(t.updated_at) as updated_at, min(t.version) as version
      from strays t
      group by t.key
      having count(*) = 1
    ) s on s.key = w.key
  ),
  -- Paths that others left since the scan began.
  vacated as materialized (
    select s.path, max(s.valid_to) as left_at
    from filestore.snapshots s
    where s.valid_to >= scan.started_at
      and s.backend_mount_id = scan.backend_mount_id
      and s.live
      and (s.superseded_by_journal_id = any (scan.journal_entry_ids)) is not true
    group by s.path
  ),
  -- Grouped by what they are joined on, as the next ones: the planner takes a recursive result for so many rows that a join with it
  -- would be split into a file for every few rows.
  held_paths as materialized (
    select d.path, bool_or(h.path is not null) as is_below_held
    from diff d
    left join vacated v on v.path = d.path
    left join filestore.scan_directories h
      on h.scan_id = scan.id
      and h.path = left(d.path, -strpos(reverse(d.path), '/'))
      and h.is_held
    where h.path is not null or v.left_at >= d.listed_at
    group by d.path
  ),
  follows as materialized (
    select p.id, d.id as blocker_id, h.path is not null as is_held
    from pairs p
    join diff d on d.path = p.path
    left join held_paths h on h.path = p.path
    where not p.is_held
  ),
  -- Nodes that cannot leave their path, since others have left the place where they belong, or since such a node is there.
  stuck as (
    select f.id
    from follows f
    -- As in "ranked" below.
    cross join string_to_table('1', ',') as a
    cross join string_to_table('1', ',') as b
    where f.is_held
    union
    select f.id
    from stuck s
    join follows f on f.blocker_id = s.id
  ),
  stuck_ids as materialized (
    select s.id
    from stuck s
    group by s.id
  ),
  decided as materialized (
    select
      d.*,
      mine.id as partner_id,
      mine.from_path as partner_path,
      mine.version as partner_version,
      theirs.id is not null as is_leaving,
      case
        when d.path is null then null
        when h.is_below_held or k.id is not null then 'skip'
        when d.id is not null and theirs.id is null then
          case
            when d.updated_at >= d.listed_at and filestore.is_written_since(d.id, d.listed_at, scan.journal_entry_ids) then 'skip'
            when d.state = 'missing' then 'find'
            else 'change'
          end
        when mine.is_held then 'skip'
        when h.path is not null or m.id is not null then 'skip'
        when mine.id is not null then 'move'
        else 'create'
      end as action
    from diff d
    left join pairs mine on mine.path = d.path
    left join pairs theirs on theirs.id = d.id and not theirs.is_held
    left join held_paths h on h.path = d.path
    left join stuck_ids k on k.id = d.id
    left join stuck_ids m on m.id = mine.id
  ),
  moves as materialized (
    select d.partner_id as id, d.path, d.id as blocker_id
    from decided d
    where d.action = 'move'
  ),
  -- In a chain, the last one moves first. Those in a circle have no rank; two that swap follow each other.
  ranked as (
    select m.id, 0 as rank
    from moves m
    -- The planner takes the two single rows for a million, so that it hashes the moves once, and not in each step.
    cross join string_to_table('1', ',') as a
    cross join string_to_table('1', ',') as b
    where not exists (select from moves o where o.id = m.blocker_id)
    union all
    select m.id, r.rank + 1
    from ranked r
    join moves m on m.blocker_id = r.id
  ),
  ranks as (
    select r.id, min(r.rank) as rank
    from ranked r
    group by r.id
  ),
  lost as (
    select
      d.id,
      coalesce(d.final_path, d.lost_path) as final_path,
      d.from_path,
      d.version,
      case
        when d.action = 'skip' or (d.updated_at >= scan.started_at and filestore.is_written_since(d.id, scan.started_at, scan.journal_entry_ids)) then 'skip'
        when d.is_below_deleted or d.path is not null or t.path is not null then 'delete'
        when d.state <> 'missing' then 'missing'
      end as action
    from decided d
    left join (
      select e.path
      from filestore.scan_entries e
      left join filestore.scan_directories h on h.scan_id = scan.id and h.path = e.path
      where e.scan_id = scan.id
        and e.kind = 'directory'
        and e.fault is null
        and h.is_held is not true
    ) t on t.path = d.final_path
    where d.id is not null
      and (d.path is null or d.is_leaving)
      and not exists (select from moves m where m.id = d.id)
  ),
  changes as (
    select case d.action when 'create' then 5 when 'change' then 6 when 'find' then 6 when 'move' then 3 else 9 end as step,
            case when d.action = 'move' then coalesce(r.rank, 1000000000) else 0 end as rank,
            coalesce(least(s.id, s.blocker_id), 0) as swap,
            d.action, d.path,
            case d.action when 'move' then d.partner_id when 'create' then null else d.id end as node_id,
            case d.action when 'move' then d.partner_version when 'create' then null else d.version end as version,
            case d.action when 'move' then d.partner_path when 'create' then null else d.from_path end as from_path
    from decided d
    left join ranks r on r.id = d.partner_id and d.action = 'move'
    left join moves s on s.id = d.id and s.blocker_id = d.partner_id and d.action = 'move'
    where d.action is not null
    union all
    select case l.action when 'delete' then 1 when 'missing' then 7 else 9 end, 0, 0, l.action, l.final_path, l.id, l.version, l.from_path
    from lost l
    where l.action is not null
  )
  insert into filestore.scan_changes (scan_id, number, node_id, version, kind, action, path, from_path)
  select
    scan.id,
    base + c.step * 1000000000000 + 100000000000 + row_number() over (order by c.step, c.rank, c.swap, c.path),
    c.node_id,
    c.version,
    'file',
    c.action,
    c.path,
    c.from_path
  from changes c;
end
$$;

comment on function filestore.plan_files(filestore.scans, bigint) is
  'Internal: Compares the files of a scan with those of the catalogue, at the places that they have when their directories have moved, and plans what to create, move, change, delete and mark as missing.';

revoke all on function filestore.plan_files(filestore.scans, bigint) from public;
--! EndIncluded functions/plan_files.sql
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
      select p.id, null::boolean
      from pg_temp.filestore_import_nodes p
      where (p.fault is not null or p.action = 'stay')
        and (changed is null or p.id = any (changed))
      union
      select t.id, t.action = 'keep'
      from below b
      join pg_temp.filestore_import_nodes t on t.parent_id = b.id
      left join filestore.nodes n on n.id = t.id
      where t.fault is null
        and t.action <> 'stay'
        -- A directory that is equal, but does not get the path with which the rows in it are planned, is not refused, and stays.
        and (t.action <> 'keep' or (n.path <> t.path and t.directory_path is not null and t.live))
    ),
    done as (
      update pg_temp.filestore_import_nodes t
      set fault  = case when not b.is_equal then 'import_parent_refused' end,
          action = case when b.is_equal then 'stay' else t.action end
      from below b
      where t.id = b.id
        and b.is_equal is not null
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
  'Internal: Whether a field of an object is a zero with more than 30 digits, whose text is as long as that of other numbers that filestore.has_long_values finds.';

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
);

comment on function filestore.has_long_values(jsonb) is
  'Internal: Whether a field of an object is an array, an object, or a number with more than 30 digits, whose text can be thousands of times as long as the value: that of 1e131071 has 131072 bytes. filestore.has_long_zeros finds zeros such as 0e-16383.';

revoke all on function filestore.has_long_values(jsonb) from public;
--! EndIncluded functions/has_long_values.sql
--! Included functions/refuse_long_values.sql
create or replace function filestore.refuse_long_values(elements jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Looked for once in all elements: a look at each element would take a seventh of the time of a batch of empty files.
  has_zeros constant boolean := exists (
    select
    from jsonb_path_query(elements, 'lax $[*].* ? (@ == 0)') as z (value)
    where scale(z.value::numeric) > 30
  );
  given record;
  field record;
begin
  select e.position, e.value - 'metadata' as fields
  into given
  from jsonb_array_elements(elements) with ordinality as e (value, position)
  where case jsonb_typeof(e.value)
    when 'object' then
      filestore.has_long_values(e.value - 'metadata') or (has_zeros and filestore.has_long_zeros(e.value - 'metadata'))
  end
  order by e.position
  limit 1;
  if not found then
    return;
  end if;

  select f.key, jsonb_typeof(f.value) as type
  into field
  from jsonb_each(given.fields) as f
  where filestore.has_long_values(jsonb_build_object(f.key, f.value))
     or filestore.has_long_zeros(jsonb_build_object(f.key, f.value))
  order by f.key
  limit 1;
  raise exception 'element % has the field "%" with %', given.position, left(field.key, 40),
    case field.type when 'number' then 'a number of more than 30 digits' else 'a value of type ' || field.type end
    using errcode    = 'FS422',
          constraint = 'nodes_batch_check',
          hint       = 'Give the values of columns as strings or numbers. Only metadata is an object.';
end
$$;

comment on function filestore.refuse_long_values(jsonb) is
  'Internal: Raises an error if a field of an element, other than metadata, has a value that filestore.has_long_values or filestore.has_long_zeros finds.';

revoke all on function filestore.refuse_long_values(jsonb) from public;
--! EndIncluded functions/refuse_long_values.sql
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

  select k.key
  into field
  from jsonb_each(settings) as k
  join pg_attribute a on a.attrelid = 'filestore.backend_mounts'::regclass and a.attname = k.key
  where a.atttypid <> 'jsonb'::regtype
    and (
      filestore.has_long_values(jsonb_build_object(k.key, k.value))
      or filestore.has_long_zeros(jsonb_build_object(k.key, k.value))
    )
  order by k.key
  limit 1;
  if found then
    raise exception 'the settings have the field "%" with %', field,
      case jsonb_typeof(settings -> field) when 'number' then 'a number of more than 30 digits' else 'a value of type ' || jsonb_typeof(settings -> field) end
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = 'Give it as a string or a number.';
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
