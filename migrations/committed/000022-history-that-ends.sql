--! Previous: sha1:01671a20007222dfd18dfe6255744aaf125d73f8
--! Hash: sha1:c592a00f7d8e1420040c2af1b3efc3dcd50f9310
--! Message: History that ends

alter table filestore.backend_mounts add column if not exists history_horizon timestamptz(3);

comment on column filestore.backend_mounts.history_horizon is 'The trees of the mount are known from this moment on: the last moment at which a version ended that filestore.prune_history removed. Null while no version was removed. A change of it alone does not change version.';

create table if not exists filestore.history_cursor (
  is_only  boolean not null default true,
  position bigint  not null default 0,

  constraint history_cursor_pkey
    primary key (is_only),
  constraint history_cursor_only_check
    check (is_only)
);

comment on table  filestore.history_cursor          is 'Internal: Where filestore.prune_history continues: one row, which each call locks. A wrong position only costs time.';
comment on column filestore.history_cursor.is_only  is 'True: there is at most one row.';
comment on column filestore.history_cursor.position is 'Id of the last node that a call has looked at; 0 to begin with the first node.';
comment on constraint history_cursor_only_check on filestore.history_cursor is 'There is at most one row.';

--! Included views/view_filestore_node_versions.sql
drop view if exists filestore.view_filestore_node_versions;

-- snapshots and nodes must have the same columns in the same order. The gate "history columns" compares them.
create view filestore.view_filestore_node_versions as
select s.*
from filestore.snapshots s
union all
select
  n.updated_at,
  null::timestamptz(3),
  null::bigint,
  n.*
from filestore.nodes n;

comment on view filestore.view_filestore_node_versions is
  'Every version of every node, except those that filestore.prune_history removed. The current version, which is the row of nodes itself, has no valid_to.';

comment on column filestore.view_filestore_node_versions.valid_from               is 'First moment at which this version was the current one.';
comment on column filestore.view_filestore_node_versions.valid_to                 is 'First moment at which it was superseded; null for the current version.';
comment on column filestore.view_filestore_node_versions.superseded_by_journal_id is 'Journal entry of the command that superseded it; null for the current version, or when the change had no entry.';
--! EndIncluded views/view_filestore_node_versions.sql
--! Included functions/prepare_mount.sql
create or replace function filestore.prepare_mount()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  given_version integer := new.version;
  before        filestore.backend_mounts;
begin
  if new.config is distinct from old.config then
    perform filestore.check_mount_settings('config', new.config);
  end if;
  if new.access_policy is distinct from old.access_policy then
    perform filestore.check_mount_settings('access_policy', new.access_policy);
  end if;
  if new.credentials_ref is distinct from old.credentials_ref then
    perform filestore.check_mount_settings('credentials_ref', to_jsonb(new.credentials_ref));
  end if;
  if new.labels is distinct from old.labels then
    perform filestore.check_mount_settings('labels', new.labels);
  end if;
  -- Not state_reason: no text of a failure may keep a service from writing a state.
  if (new.endpoint, new.display_name, new.description, new.contact)
     is distinct from (old.endpoint, old.display_name, old.description, old.contact) then
    perform filestore.check_mount_settings('endpoint', to_jsonb(new.endpoint));
    perform filestore.check_mount_settings('display_name', to_jsonb(new.display_name));
    perform filestore.check_mount_settings('description', to_jsonb(new.description));
    perform filestore.check_mount_settings('contact', to_jsonb(new.contact));
  end if;
  if new.mount_key is distinct from old.mount_key and exists (
    select
    from filestore.moves m
    where m.mount_key = new.mount_key
      and m.mount_id <> new.id
      and m.written_by = m.target_number
      and m.finished_at is null
  ) then
    raise exception 'mount "%" is moving to this server', new.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_mount_key_key',
            hint       = 'Choose another key.';
  end if;
  if tg_op = 'INSERT' then
    return new;
  end if;

  if new.id is distinct from old.id
     or new.backend_kind is distinct from old.backend_kind
     or new.created_at is distinct from old.created_at then
    raise exception 'mount "%" cannot change its id, backend_kind or created_at', old.mount_key
      using errcode    = 'FS422',
            constraint = 'backend_mounts_fixed_check',
            hint       = 'Register another mount instead.';
  end if;

  if new.erasing_since is not null and new.state = 'active' and old.state <> 'active' then
    raise exception 'mount "%" is being erased (since %)', old.mount_key, new.erasing_since
      using errcode    = 'FS409',
            constraint = 'backend_mounts_erasing',
            hint       = 'Register another mount.';
  end if;

  if (new.mount_key, new.root_path, new.endpoint, new.bucket, new.prefix)
     is distinct from (old.mount_key, old.root_path, old.endpoint, old.bucket, old.prefix) then
    if old.held_by is not null or exists (select from filestore.moves m where m.mount_id = old.id and m.finished_at is null) then
      raise exception 'mount "%" keeps its key and place while it moves to another server', old.mount_key
        using errcode    = 'FS409',
              constraint = 'backend_mounts_moving',
              hint       = 'Repeat the change on the new server when filestore.view_filestore_mount_moves there says that the move is finished.';
    end if;
  end if;

  -- The whole row is compared, so that new columns are included, except the horizon, which is not a setting.
  new.version    := old.version;
  new.updated_at := old.updated_at;
  before                 := old;
  before.history_horizon := new.history_horizon;
  if new *<> before
     and (coalesce(current_setting('filestore.backfill_id', true), '') = '' or not filestore.is_backfill(to_jsonb(old), to_jsonb(new))) then
    new.version    := old.version + 1;
    new.updated_at := greatest(date_trunc('milliseconds', statement_timestamp()), old.updated_at + interval '1 millisecond');
  end if;
  if given_version is distinct from old.version and given_version is distinct from new.version then
    perform filestore.refuse_version(format('mount "%s"', old.mount_key), old.version, given_version);
  end if;
  return new;
end
$$;

comment on function filestore.prepare_mount() is
  'Refuses a secret in a mount''s settings, and the key of a mount that is moving to this server. Refuses to change the id, backend_kind or created_at of a mount, its key or place while it moves to another server, and its state to active while it is erased. Increments the version at every other change, except of history_horizon alone.';

revoke all on function filestore.prepare_mount() from public;
--! EndIncluded functions/prepare_mount.sql
--! Included functions/guard_history_removal.sql
create or replace function filestore.guard_history_removal()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  kept record;
begin
  select r.id, r.version, r.path
  into kept
  from (
    select o.id, max(o.version) as version, max(o.valid_to) as valid_to, max(o.path) as path
    from removed o
    group by o.id
  ) r
  -- "Offset 0" keeps these lookups by id. The planner would otherwise keep the row estimate of the session's first
  -- statement.
  cross join lateral (
    select n.backend_mount_id
    from filestore.nodes n
    where n.id = r.id
    offset 0
  ) n
  left join filestore.backend_mounts m on m.id = n.backend_mount_id
  where (r.valid_to <= m.history_horizon) is not true
     or exists (
       select
       from filestore.snapshots s
       where s.id = r.id
         and s.version < r.version
     )
  limit 1;
  if found then
    raise exception 'version % of node % ("%") is history and cannot be removed', kept.version, kept.id, kept.path
      using errcode    = 'FS409',
            constraint = 'snapshots_fixed',
            hint       = 'Call filestore.prune_history to remove old versions, or purge the node to remove all of them.';
  end if;
  return null;
end
$$;

comment on function filestore.guard_history_removal() is
  'Refuses to remove history while its node exists, except the oldest versions up to the horizon of the mount.';

revoke all on function filestore.guard_history_removal() from public;
--! EndIncluded functions/guard_history_removal.sql
--! Included functions/refuse_pruned.sql
create or replace function filestore.refuse_pruned(node_id bigint)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  oldest record;
begin
  select v.version, v.valid_from, v.path
  into oldest
  from filestore.view_filestore_node_versions v
  where v.id = refuse_pruned.node_id
  order by v.version
  limit 1;
  if not found then
    raise exception 'node % does not exist', coalesce(node_id::text, 'null')
      using errcode    = 'FS404',
            constraint = 'nodes_missing',
            hint       = 'Check the id: the node was purged, or never existed.';
  end if;
  raise exception 'the history of node % ("%") begins with version %', node_id, oldest.path, oldest.version
    using errcode    = 'FS404',
          constraint = 'snapshots_pruned',
          hint       = format('Choose this version (from %s) or a later one: filestore.prune_history removed the earlier versions.', oldest.valid_from);
end
$$;

comment on function filestore.refuse_pruned(bigint) is
  'Internal: Raises FS404 because a version was pruned, and names the oldest version of the node that is left. FS404 also when there is no such node.';

revoke all on function filestore.refuse_pruned(bigint) from public;
--! EndIncluded functions/refuse_pruned.sql
--! Included functions/node_at.sql
create or replace function filestore.node_at(node_id bigint, moment timestamptz)
returns setof filestore.snapshots
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select v.*
  from filestore.view_filestore_node_versions v
  where v.id = node_at.node_id
    and v.valid_from <= moment
    and (v.valid_to > moment or v.valid_to is null);
  -- Without a version, the node did not exist yet, or the version was pruned.
  if not found and exists (
    select
    from filestore.nodes n
    where n.id = node_at.node_id
      and n.created_at <= moment
  ) then
    perform filestore.refuse_pruned(node_at.node_id);
  end if;
end
$$;

comment on function filestore.node_at(bigint, timestamptz) is
  'The version of a node that was current at a moment; no row when the node did not exist yet. FS404 when filestore.prune_history removed the version.';

revoke all on function filestore.node_at(bigint, timestamptz) from public;
--! EndIncluded functions/node_at.sql
--! Included functions/tree_at.sql
create or replace function filestore.tree_at(mount_key text, path text, moment timestamptz)
returns setof filestore.snapshots
language plpgsql
stable
rows 1000
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint := filestore.find_mount(tree_at.mount_key);
  top      text   := filestore.canonical_path(tree_at.path);
  -- The paths below top are those from top || '/' up to top || '0', since '0' follows '/'. For the root, the upper bound
  -- is longer than any path (2600 bytes) and consists of the last character, U+10FFFF.
  lower    text   := case when top = '' then '' else top || '/' end;
  upper    text   := case when top = '' then repeat(chr(1114111), 651) else top || '0' end;
  horizon  timestamptz := (select m.history_horizon from filestore.backend_mounts m where m.id = mount_id);
begin
  if moment < horizon then
    raise exception 'the trees of mount "%" are known from % on, and not at %', tree_at.mount_key, horizon, moment
      using errcode    = 'FS404',
            constraint = 'snapshots_pruned',
            hint       = 'Choose this moment or a later one: filestore.prune_history removed earlier versions.';
  end if;
  return query
  select v.*
  from filestore.view_filestore_node_versions v
  where v.backend_mount_id = mount_id
    and v.live
    and v.valid_from <= moment
    and (v.valid_to > moment or v.valid_to is null)
    and (v.path = top or (v.path >= lower and v.path < upper))
  order by v.path;
end
$$;

comment on function filestore.tree_at(text, text, timestamptz) is
  'The nodes at and below a path as they were at a moment, in order of path, without nodes that were deleted at that time. FS404 when the moment is before backend_mounts.history_horizon.';

revoke all on function filestore.tree_at(text, text, timestamptz) from public;
--! EndIncluded functions/tree_at.sql
--! Included functions/revert_node.sql
create or replace function filestore.revert_node(
  node_id          bigint,
  version          integer,
  expected_version integer default null
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  taken text;
  past  filestore.snapshots;
  node  filestore.nodes;
begin
  perform filestore.lock_tree(n.backend_mount_id, n.directory_path is not null)
  from filestore.nodes n
  where n.id = revert_node.node_id;

  select *
  into past
  from filestore.snapshots s
  where s.id = revert_node.node_id
    and s.version = revert_node.version;
  if past.id is null and exists (
    select
    from filestore.nodes n
    where n.id = revert_node.node_id
      and n.version > revert_node.version
      and revert_node.version > 0
  ) then
    perform filestore.refuse_pruned(node_id);
  elsif past.id is null then
    raise exception 'node % has no past version %', node_id, version
      using errcode    = 'FS404',
            constraint = 'snapshots_missing',
            hint       = 'Choose a version that filestore.view_filestore_node_versions lists.';
  elsif not past.live then
    raise exception 'in version % node % ("%") was deleted', version, node_id, past.path
      using errcode    = 'FS422',
            constraint = 'snapshots_deleted_check',
            hint       = 'To delete it, call filestore.delete_node.';
  end if;

  begin
    execute format(
      'update filestore.nodes n
       set (parent_id, name, %s) = row ($1.parent_id, $1.name, %s),
           state = case when n.live then n.state else ''active'' end
       where n.id = $1.id
         and n.version = coalesce($2, n.version)
       returning *',
      (select string_agg(quote_ident(c.name), ', ' order by c.name) from unnest(filestore.content_columns()) as c (name)),
      (select string_agg('$1.' || quote_ident(c.name), ', ' order by c.name) from unnest(filestore.content_columns()) as c (name))
    )
    using past, expected_version
    into node;
  exception
    when unique_violation then
      get stacked diagnostics taken = constraint_name;
      if taken <> 'nodes_live_child_key' then
        raise;
      end if;
      perform filestore.refuse_taken_name(past.parent_id, past.name);
  end;

  if node.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  end if;
  return node;
end
$$;

comment on function filestore.revert_node(bigint, integer, integer) is
  'Brings the place, name and content of an old version of a node back as a new version, and returns the node. Its state does not change, but a deleted node is restored. FS404 when there is no such version, or it was pruned, or its parent is deleted or does not exist any more, FS409 when the name is taken or the node is not at expected_version (null: any), FS422 when it was deleted in that version.';

revoke all on function filestore.revert_node(bigint, integer, integer) from public;
--! EndIncluded functions/revert_node.sql
--! Included functions/check_integrity.sql
create or replace function filestore.check_integrity()
returns table (problem text, backend_mount_id bigint, node_id bigint, detail text)
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Nodes of these mounts are being removed, or arrive from another server, in any order.
  left_out bigint[] := array(
    select m.id
    from filestore.backend_mounts m
    where m.erasing_since is not null
  ) || filestore.moving_mounts(false);
begin
  -- All statements of a stable function read one snapshot, so concurrent writes do not disturb the check.
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
    format('"%s", parent %s%s', n.path, n.parent_id, ' ("' || p.path || '")')
  from filestore.nodes n
  left join filestore.nodes p on p.id = n.parent_id
  where n.parent_id is not null
    and n.backend_mount_id <> all (left_out)
    and (
      p.id is null
      or p.backend_mount_id <> n.backend_mount_id
      or p.kind <> 'directory'
      or (n.live and (not p.live or n.path <> filestore.child_path(p.path, n.name)))
    );

  -- A directory whose parent exists, but which a walk down from the roots does not reach, is in a cycle.
  return query
  with recursive reached (id) as (
    select n.id
    from filestore.nodes n
    where n.parent_id is null
       or not exists (select from filestore.nodes p where p.id = n.parent_id)
    union all
    select c.id
    from reached r
    -- "Offset 0" keeps these lookups. The chain of parents of a tombstone can be thousands long.
    cross join lateral (
      select n.id
      from filestore.nodes n
      where n.parent_id = r.id
        and n.parent_live
        and n.directory_path is not null
      union all
      (
        select n.id
        from filestore.nodes n
        where n.parent_id = r.id
          and not n.live
          and n.directory_path is not null
        order by n.name
      )
      offset 0
    ) c
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
  select 'nodes of no mount', n.backend_mount_id, min(n.id), format('%s nodes', count(*))
  from filestore.nodes n
  where n.backend_mount_id <> all (left_out)
    and not exists (select from filestore.backend_mounts m where m.id = n.backend_mount_id)
  group by n.backend_mount_id;

  return query
  select 'mount without a root', m.id, null::bigint, format('mount "%s"', m.mount_key)
  from filestore.backend_mounts m
  where m.id <> all (left_out)
    and not exists (select from filestore.nodes n where n.root_of_mount_id = m.id);

  return query
  select v.problem, v.backend_mount_id, v.id, format('"%s", version %s', v.path, v.version)
  from (
    select
      w.*,
      case
        -- Versions that ended at or before the horizon may be pruned.
        when w.previous_version is null and w.version <> 1
             and (w.valid_from <= m.history_horizon) is not true then 'missing version'
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
      where u.backend_mount_id <> all (left_out)
      window one_node as (partition by u.id order by u.version, u.valid_to nulls last)
    ) w
    left join filestore.backend_mounts m on m.id = w.backend_mount_id
  ) v
  where v.problem is not null;

  return query
  select
    case when n.id is null then 'history of no node' else 'history on another mount' end,
    s.backend_mount_id,
    s.id,
    format('"%s", version %s', s.path, s.version)
  from filestore.snapshots s
  left join filestore.nodes n on n.id = s.id
  where s.backend_mount_id <> all (left_out)
    and (n.backend_mount_id is distinct from s.backend_mount_id or n.root_of_mount_id is distinct from s.root_of_mount_id);

  return query
  select
    'wrong totals',
    m.id,
    a.node_id,
    format(
      '"%s": %s instead of %s bytes, %s files, %s directories, %s children',
      a.path,
      case
        when a.size_bytes is null then 'no row in rollups'
        else format('%s bytes, %s files, %s directories, %s children', a.size_bytes, a.file_count, a.dir_count, a.child_count)
      end,
      a.expected_size_bytes,
      a.expected_file_count,
      a.expected_dir_count,
      a.expected_child_count
    )
  from filestore.backend_mounts m
  cross join lateral filestore.audit_rollups(m.mount_key) a
  where m.id <> all (left_out);

  return query
  select 'delta of no directory', d.backend_mount_id, d.directory_id, format('delta %s', d.id)
  from filestore.rollup_deltas d
  where d.backend_mount_id <> all (left_out)
    and not exists (
      select
      from filestore.nodes n
      where n.id = d.directory_id
        and n.backend_mount_id = d.backend_mount_id
        and n.directory_path is not null
    );

  return query
  select 'totals of no directory', n.backend_mount_id, r.node_id, coalesce('"' || n.path || '" is a file', 'the node does not exist')
  from filestore.rollups r
  left join filestore.nodes n on n.id = r.node_id
  where n.directory_path is null;

  return query
  select 'sighting of no node', null::bigint, s.node_id, coalesce('last seen at ' || s.last_seen_at, 'never seen')
  from filestore.node_sightings s
  where not exists (select from filestore.nodes n where n.id = s.node_id);

  return query
  select f.problem, m.id, null::bigint, format('mount "%s", %s', m.mount_key, s.column_name)
  from filestore.backend_mounts m
  cross join lateral (values
    ('config', m.config),
    ('access_policy', m.access_policy),
    ('labels', m.labels),
    ('credentials_ref', to_jsonb(m.credentials_ref)),
    ('endpoint', to_jsonb(m.endpoint)),
    ('display_name', to_jsonb(m.display_name)),
    ('description', to_jsonb(m.description)),
    ('contact', to_jsonb(m.contact))
  ) as s (column_name, settings)
  cross join lateral (
    select case
      when jsonb_path_exists(s.settings, 'strict $.**{33}') or not filestore.is_small_json(s.settings, 65536) then 'settings too big'
      when filestore.find_secret(s.settings) is not null then 'secret in a mount'
    end as problem
  ) f
  where f.problem is not null;

  return query
  select
    case when i.highest_id is null then 'ids run out' else 'sequence behind its table' end,
    null::bigint,
    null::bigint,
    format('filestore.%s: %s', i.table_name, i.problem)
  from filestore.check_sequences() i;

  return query
  select 'guard switched off', null::bigint, null::bigint, format('%s %s on %s', g.what, g.name, g.owner::regclass)
  from (
    select 'trigger' as what, t.tgname as name, t.tgrelid as owner
    from pg_trigger t
    where t.tgenabled not in ('O', 'A')
      -- The triggers of moves are enabled only while a mount moves.
      and (
        t.tgfoid <> 'filestore.guard_move()'::regprocedure
        or filestore.moving_mounts(true) <> '{}'
      )
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
  'Reads the whole catalogue and returns one row per problem; no row means that it is sound. Run it after a restore, a crash, or a session with triggers switched off. It reads one snapshot and blocks nothing. It leaves out mounts that are being erased or that another server holds.';

revoke all on function filestore.check_integrity() from public;
--! EndIncluded functions/check_integrity.sql
--! Included functions/prunable_versions.sql
create or replace function filestore.prunable_versions(deadline timestamptz, keep_versions integer, after_id bigint, batch integer)
returns table (node_id bigint, first_version integer, last_version integer, backend_mount_id bigint)
language plpgsql
stable
rows 1000
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Their history is being removed, or copied to another server.
  left_out constant bigint[] := filestore.moving_mounts(true) || filestore.erasing_mounts();
begin
  return query
  with recursive oldest as (
    -- One lookup for each node that has history. The newer versions of a node are not read.
    (
      select s.id, s.version, s.valid_to, s.backend_mount_id
      from filestore.snapshots s
      where s.id > after_id
      order by s.id, s.version
      limit 1
    )
    union all
    select n.id, n.version, n.valid_to, n.backend_mount_id
    from oldest o
    cross join lateral (
      select s.id, s.version, s.valid_to, s.backend_mount_id
      from filestore.snapshots s
      where s.id > o.id
      order by s.id, s.version
      limit 1
    ) n
  )
  select c.id, c.first_version, max(c.version), c.backend_mount_id
  from (
    -- The limit ends the recursion. "Offset 0" keeps the lookups.
    select o.id, o.version as first_version, v.version, o.backend_mount_id
    from oldest o
    cross join lateral (
      select n.version
      from filestore.nodes n
      where n.id = o.id
        and n.live
      offset 0
    ) n
    cross join lateral (
      select s.version
      from filestore.snapshots s
      where s.id = o.id
        and s.version < n.version - keep_versions
        and s.valid_to < deadline
      order by s.version
      limit batch
    ) v
    where o.valid_to < deadline
      and o.version < n.version - keep_versions
      and o.backend_mount_id <> all (left_out)
    limit batch
  ) c
  group by c.id, c.first_version, c.backend_mount_id
  order by c.id;
end
$$;

comment on function filestore.prunable_versions(timestamptz, integer, bigint, integer) is
  'Internal: Up to batch versions that filestore.prune_history may remove, of nodes with ids above after_id: for each node a range that begins with its oldest version.';

revoke all on function filestore.prunable_versions(timestamptz, integer, bigint, integer) from public;
--! EndIncluded functions/prunable_versions.sql
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
  perform
  from filestore.backend_mounts m
  where m.id = any (mount_ids)
  order by m.id
  for no key update;
  mount_ids := array(
    select unnest(mount_ids)
    except
    select unnest(filestore.moving_mounts(true) || filestore.erasing_mounts())
  );
  deadline := least(deadline, (select min(s.started_at) from filestore.scans s where s.ended_at is null));

  -- A purge locks versions in another order, so those that it holds are left out. Later versions of the same node stay too,
  -- so that no history gets a gap.
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
            and o.version between c.first_version and c.last_version
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
  'Removes at most batch superseded versions of live nodes that ended longer than older_than ago, the oldest of each node first, and returns how many. Each node keeps its newest keep_versions superseded versions. Repeat it until it returns 0. backend_mounts.history_horizon is the moment up to which versions were removed. Leaves out mounts that move or are being erased, and what was written since the oldest running scan began.';

revoke all on function filestore.prune_history(interval, integer, integer) from public;
--! EndIncluded functions/prune_history.sql
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
    refuse_pruned,
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
    start_command,
    sync_nodes,
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
