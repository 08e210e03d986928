--! Previous: sha1:546a28077cbc424defba6a163126b1f4ebc737a9
--! Hash: sha1:a1c229c388403e949072d79041dcfdc03701296f
--! Message: Integrity and access

--! Included functions/check_integrity.sql
create or replace function filestore.check_integrity()
returns table (problem text, backend_mount_id bigint, node_id bigint, detail text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Stable: all of it reads one snapshot, so that it can run beside any traffic.
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
    format('"%s", parent %s ("%s")', n.path, n.parent_id, p.path)
  from filestore.nodes n
  left join filestore.nodes p on p.id = n.parent_id
  where n.parent_id is not null
    and (
      p.id is null
      or p.backend_mount_id <> n.backend_mount_id
      or p.kind <> 'directory'
      or (n.live and (not p.live or n.path <> coalesce(nullif(p.path, '') || '/', '') || n.name))
    );

  -- Whatever a walk down from the roots does not reach, though its parent is
  -- there, hangs in a ring.
  return query
  with recursive reached (id) as (
    select n.id
    from filestore.nodes n
    where n.parent_id is null
       or not exists (select from filestore.nodes p where p.id = n.parent_id)
    union all
    select n.id
    from reached r
    join filestore.nodes n on n.parent_id = r.id
    where n.directory_path is not null
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
  select 'mount without a root', m.id, null::bigint, format('mount "%s"', m.mount_key)
  from filestore.backend_mounts m
  where not exists (select from filestore.nodes n where n.root_of_mount_id = m.id);

  return query
  select v.problem, v.backend_mount_id, v.node_id, format('"%s", version %s', v.path, v.version)
  from (
    select
      w.*,
      case
        when w.previous_version is null and w.version <> 1       then 'missing version'
        when w.previous_version <> w.version - 1                 then 'missing version'
        when w.previous_valid_to > w.valid_from                  then 'overlapping versions'
        when w.previous_valid_to < w.valid_from                  then 'gap between versions'
      end as problem
    from (
      select
        u.*,
        lag(u.version) over one_node  as previous_version,
        lag(u.valid_to) over one_node as previous_valid_to
      from filestore.view_filestore_node_versions u
      window one_node as (partition by u.node_id order by u.version, u.valid_to nulls last)
    ) w
  ) v
  where v.problem is not null;

  return query
  select 'history of no node', s.backend_mount_id, s.node_id, format('"%s", version %s', s.path, s.version)
  from filestore.snapshots s
  where not exists (select from filestore.nodes n where n.id = s.node_id);

  return query
  select
    'wrong totals',
    m.id,
    a.node_id,
    format('"%s": %s bytes, %s files, %s directories instead of %s, %s, %s', a.path, a.size_bytes, a.file_count, a.dir_count,
           a.expected_size_bytes, a.expected_file_count, a.expected_dir_count)
  from filestore.backend_mounts m
  cross join lateral filestore.audit_rollups(m.mount_key) a;

  return query
  select 'delta of no directory', d.backend_mount_id, d.directory_id, format('delta %s', d.id)
  from filestore.rollup_deltas d
  where not exists (
    select
    from filestore.nodes n
    where n.id = d.directory_id
      and n.backend_mount_id = d.backend_mount_id
      and n.directory_path is not null
  );

  return query
  select 'totals of no directory', n.backend_mount_id, r.node_id, format('"%s"', n.path)
  from filestore.rollups r
  left join filestore.nodes n on n.id = r.node_id
  where n.directory_path is null;

  return query
  select 'guard switched off', null::bigint, null::bigint, format('%s %s on %s', g.what, g.name, g.owner::regclass)
  from (
    select 'trigger' as what, t.tgname as name, t.tgrelid as owner
    from pg_trigger t
    where t.tgenabled not in ('O', 'A')
    union all
    select 'constraint', k.conname, k.conrelid
    from pg_constraint k
    where not k.convalidated
  ) g
  join pg_class c on c.oid = g.owner
  where c.relnamespace = 'filestore'::regnamespace;
end
$$;

comment on function filestore.check_integrity() is
  'Reads the whole catalogue and returns a row for everything that should not be: no row is the good answer. For use after a restore, a crash, or a session with triggers switched off; it reads one snapshot and stands in nobody''s way.';

revoke all on function filestore.check_integrity() from public;
--! EndIncluded functions/check_integrity.sql
--! Included functions/grant_access.sql
create or replace function filestore.grant_access(role_name text, level text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  grantee   text;
  owner     constant regrole := (select n.nspowner from pg_namespace n where n.nspname = 'filestore');
  readers   constant text := 'percent_encode, location_uri, canonical_path, check_name, check_limit, find_mount, node_by_path, node_location, list_directory, '
    || 'find_by_checksum, node_at, tree_at, directory_totals';
  writers   constant text := 'lock_tree, refuse_stale, refuse_taken_name, create_node, ensure_child, ensure_directory, move_node, freeze_tree, '
    || 'delete_node, delete_batch, restore_node, revert_node, require_read_committed, require_first_write, begin_command, start_command, finish_command, refuse_entry, fold_rollups';
  operators constant text := 'check_retention, expire_commands, prune_journal, purge_deleted, audit_rollups, recount_rollups, check_integrity';
begin
  if level is null or level not in ('reader', 'service', 'operator') then
    raise exception 'there is no level "%"', coalesce(level, 'null')
      using errcode = 'FS422',
            hint    = 'The levels are reader, service and operator.';
  elsif not exists (select from pg_roles r where r.rolname = role_name) then
    raise exception 'role "%" does not exist', coalesce(role_name, 'null')
      using errcode = 'FS404',
            hint    = 'Create it first: roles belong to the cluster, not to the schema.';
  elsif role_name::name = (select r.rolname from pg_roles r where r.oid = owner) then
    raise exception 'role "%" owns the schema', role_name
      using errcode = 'FS422',
            hint    = 'The owner may do everything, and triggers and functions work as the owner: a level would take that away.';
  end if;
  grantee := quote_ident(role_name);

  -- What an earlier level gave and this one does not.
  execute format('revoke all on schema filestore from %s', grantee);
  execute format('revoke all on all tables in schema filestore from %s', grantee);
  execute format('revoke all on all sequences in schema filestore from %s', grantee);
  execute format('revoke all on all functions in schema filestore from %s', grantee);

  execute format('grant usage on schema filestore to %s', grantee);
  execute format('grant select on all tables in schema filestore to %s', grantee);
  execute format('alter default privileges for role %s in schema filestore grant select on tables to %s', owner, grantee);
  execute format('grant execute on function filestore.%s to %s', replace(readers, ', ', ', filestore.'), grantee);
  -- So that a service can ask at its start whether the schema is up to date.
  if to_regclass('graphile_migrate.migrations') is not null then
    execute format('grant usage on schema graphile_migrate to %s', grantee);
    execute format('grant select on graphile_migrate.migrations to %s', grantee);
  end if;

  if level in ('service', 'operator') then
    -- Column by column: what the database counts and stamps is not among them.
    execute format('grant update on filestore.backend_mounts, filestore.journal_entries to %s', grantee);
    execute format(
      'grant insert (mount_key, backend_kind, root_path, bucket, prefix, config, credentials_ref, access_mode, access_policy, state) '
      || 'on filestore.backend_mounts to %s', grantee);
    execute format(
      'grant insert (backend_mount_id, command, status, executor_kind, principal, request_id, correlation_id, idempotency_key, '
      || 'primary_node_id, secondary_node_id, affected_node_ids, parameters, result, error, started_at, completed_at) '
      || 'on filestore.journal_entries to %s', grantee);
    execute format(
      'grant insert (backend_mount_id, parent_id, parent_path, parent_live, name, directory_path, kind, size_bytes, checksum, '
      || 'content_hash, storage_class, metadata, state, last_seen_at, last_modified_at, last_reconciled_at) on filestore.nodes to %s', grantee);
    execute format(
      'grant update (parent_id, name, size_bytes, checksum, content_hash, storage_class, metadata, state, deleted_at, '
      || 'last_seen_at, last_modified_at, last_reconciled_at) on filestore.nodes to %s', grantee);
    execute format('grant execute on function filestore.%s to %s', replace(writers, ', ', ', filestore.'), grantee);
  end if;

  if level = 'operator' then
    execute format('grant delete on filestore.backend_mounts to %s', grantee);
    execute format('grant update (consistency_state) on filestore.rollups to %s', grantee);
    execute format('grant execute on function filestore.%s to %s', replace(operators, ', ', ', filestore.'), grantee);
  end if;
end
$$;

comment on function filestore.grant_access(text, text) is
  'Gives a role what its level needs, and takes away what it had beyond it. reader: sees everything. service: writes mounts, nodes and the journal, through the guards. operator: a service that may also purge, prune, recount and delete mounts. To be called by the owner of the schema, again after a migration that adds functions; later tables are covered.';

revoke all on function filestore.grant_access(text, text) from public;
--! EndIncluded functions/grant_access.sql
