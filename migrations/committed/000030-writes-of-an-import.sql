--! Previous: sha1:cb7ee50dbb21356218e894b602255f14cef3b64a
--! Hash: sha1:a7b0bf9fc6adba2efed96f38a6a477c392ea5e0d
--! Message: Writes of an import

create table if not exists filestore.imports (
  id               bigint         generated always as identity,
  backend_mount_id bigint         not null,
  takes_nodes      boolean        not null,
  given_columns    text[]         not null default '{}',
  nodes            bigint         not null default 0,
  versions         bigint         not null default 0,
  entries          bigint         not null default 0,
  refused          bigint         not null default 0,
  transaction_id   xid8,
  started_at       timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),
  updated_at       timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),
  finished_at      timestamptz(3),

  constraint imports_pkey
    primary key (id)
);

comment on table  filestore.imports                  is 'Progress of filestore.import_nodes, one row per call. Only the owner writes it.';
comment on column filestore.imports.id               is 'Number of the import.';
comment on column filestore.imports.backend_mount_id is 'The mount that gets the nodes. The row stays when the mount is deleted.';
comment on column filestore.imports.takes_nodes      is 'Whether it imports nodes, and not only journal entries. One of each kind can run for a mount at once.';
comment on column filestore.imports.given_columns    is 'Columns of nodes that the staging table has.';
comment on column filestore.imports.nodes            is 'Nodes that were created or changed so far.';
comment on column filestore.imports.versions         is 'Superseded versions that were imported so far.';
comment on column filestore.imports.entries          is 'Journal entries that were imported so far.';
comment on column filestore.imports.refused          is 'Staged rows that cannot be imported.';
comment on column filestore.imports.transaction_id   is 'The transaction that imports a batch now; null between batches. Only this transaction may write tombstones, versions and history.';
comment on column filestore.imports.started_at       is 'When it began.';
comment on column filestore.imports.updated_at       is 'When the last batch ended.';
comment on column filestore.imports.finished_at      is 'When it ended, or another import into the mount began; null before.';

--! Included functions/is_import.sql
create or replace function filestore.is_import(mount_id bigint)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Any role can set filestore.backfill_id. Only the owner can write to imports, so its transaction_id is the proof.
  return coalesce(current_setting('filestore.backfill_id', true), '') = 'import' and exists (
    select
    from filestore.imports i
    where i.transaction_id = pg_current_xact_id_if_assigned()
      and (i.backend_mount_id = is_import.mount_id or is_import.mount_id is null)
  );
end
$$;

comment on function filestore.is_import(bigint) is
  'Internal: Whether the transaction is a batch of filestore.import_nodes into a mount; null means any mount.';

revoke all on function filestore.is_import(bigint) from public;
--! EndIncluded functions/is_import.sql

--! Included functions/is_backfill.sql
create or replace function filestore.is_backfill(before jsonb, after jsonb)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('filestore.backfill_id', true) = 'import' then
    return filestore.is_import((after ->> 'backend_mount_id')::bigint);
  end if;
  -- Any role can set filestore.backfill_id. Only the owner can write to backfills, so its transaction_id is the proof.
  return exists (
    select
    from filestore.backfills b
    where b.id::text = current_setting('filestore.backfill_id', true)
      and b.transaction_id = pg_current_xact_id_if_assigned()
      and before -> b.column_name = 'null'
      and before - b.column_name = after - b.column_name
  );
end
$$;

comment on function filestore.is_backfill(jsonb, jsonb) is
  'Internal: Whether a row keeps the version that it is given: a batch of filestore.backfill is its only change, or an import writes it. Called when the setting filestore.backfill_id is set.';

revoke all on function filestore.is_backfill(jsonb, jsonb) from public;
--! EndIncluded functions/is_backfill.sql

--! Included functions/prepare_node_update.sql
create or replace function filestore.prepare_node_update()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  moves boolean := new.parent_id is distinct from old.parent_id or new.name is distinct from old.name;
begin
  if new.backend_mount_id is distinct from old.backend_mount_id or (new.parent_id is null) <> (old.parent_id is null) then
    raise exception '% cannot change its mount, nor become or cease to be a root', filestore.describe_node(old)
      using errcode    = 'FS422',
            constraint = 'nodes_fixed_check',
            hint       = 'Delete the node and create another one; the new node has a new id.';
  end if;

  if new.state is distinct from old.state then
    if new.state = 'deleted' then
      if old.parent_id is null then
        perform filestore.refuse_state_change(old, new.state);
      elsif new.deleted_at is null then
        new.deleted_at := date_trunc('milliseconds', statement_timestamp());
      elsif not isfinite(new.deleted_at) or new.deleted_at > clock_timestamp() + interval '1 millisecond' then
        raise exception '% cannot be deleted at %', filestore.describe_node(old), new.deleted_at
          using errcode    = 'FS422',
                constraint = 'nodes_deleted_at_check',
                hint       = 'Leave deleted_at out of the update, or give a moment in the past.';
      end if;
    else
      if (new.state = 'inconsistent' and old.state <> 'active') or (new.state = 'missing' and old.state not in ('active', 'inconsistent')) then
        perform filestore.refuse_state_change(old, new.state);
      end if;
      new.deleted_at := null;
    end if;
  end if;
  new.live := new.deleted_at is null;

  if new.live then
    if moves then
      if octet_length(new.name) > 255 then
        perform filestore.refuse_long_name(new.backend_mount_id, new.name);
      end if;
      if new.kind = 'directory' then
        -- For plain SQL. filestore.move_node takes this lock earlier, before any row.
        perform filestore.lock_tree(new.backend_mount_id, true);
      end if;
    end if;

    -- An update that restores a node and sets parent_live has also set parent_path, as restore_tree does. It needs no
    -- lookup: nodes_parent_fkey refuses a wrong path.
    if (moves and new.parent_id <> old.parent_id) or (not old.live and new.parent_live is not true) then
      new.parent_path := filestore.find_parent(new.backend_mount_id, new.parent_id, new.name);
    elsif not new.parent_live then
      -- The cascade of a directory that is being deleted has reached a live child.
      raise exception 'directory "%" is not empty: it holds "%"', old.parent_path, old.name
        using errcode    = 'FS409',
              constraint = 'nodes_not_empty',
              hint       = 'Delete the nodes in it first, or in the same statement.';
    end if;
    new.parent_live := case when new.parent_id is not null then true end;
    moves := moves or new.parent_path is distinct from old.parent_path;
  else
    if moves or new.parent_path is distinct from old.parent_path or (not old.live and new.deleted_at <> old.deleted_at) then
      -- nodes_parent_fkey does not cover tombstones: two that are moved into each other would be a cycle.
      if not filestore.is_import(new.backend_mount_id) then
        raise exception 'deleted % keeps its place and its deleted_at', filestore.describe_node(old)
          using errcode    = 'FS422',
                constraint = 'nodes_tombstone_check',
                hint       = 'Restore it first, or set its state to active in the same statement.';
      end if;
      moves := true;
    end if;
    new.parent_live := null;
  end if;

  if moves then
    new.path           := coalesce(filestore.child_path(new.parent_path, new.name), new.name);
    new.depth          := cardinality(string_to_array(new.path, '/'));
    new.directory_path := case when new.kind = 'directory' then new.path end;
    -- Without this check, the cascade of a directory that is moved below itself would not end. One statement that moves
    -- several directories into each other can pass the check. Then nodes_parent_fkey stops it, or the limit on the
    -- length of a path.
    if new.kind = 'directory' and old.live and (new.parent_path = old.path or starts_with(new.parent_path, old.path || '/')) then
      raise exception 'directory "%" cannot be moved into itself ("%")', old.path, new.parent_path
        using errcode    = 'FS422',
              constraint = 'nodes_cycle_check',
              hint       = 'Choose a parent outside of the directory that moves.';
    end if;
  end if;
  return new;
end
$$;

comment on function filestore.prepare_node_update() is
  'Sets the columns that follow from a node''s parent, name and state, and refuses changes that are never legal.';

revoke all on function filestore.prepare_node_update() from public;
--! EndIncluded functions/prepare_node_update.sql

--! Included functions/prepare_node_insert.sql
create or replace function filestore.prepare_node_insert()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.parent_path is null then
    -- The usual case of find_parent, without the cost of a call.
    select case when p.backend_mount_id = new.backend_mount_id and p.live then p.directory_path end
    into new.parent_path
    from filestore.nodes p
    where p.id = new.parent_id
    for key share;
    if new.parent_path is null and (new.parent_id is not null or new.name <> '') then
      new.parent_path := filestore.find_parent(new.backend_mount_id, new.parent_id, new.name);
    end if;
  end if;
  if new.parent_path is null then
    -- The root of a mount: only the trigger on backend_mounts creates a node without name and parent.
    new.path             := '';
    new.depth            := 0;
    new.root_of_mount_id := new.backend_mount_id;
  else
    new.parent_live := true;
    new.path        := filestore.child_path(new.parent_path, new.name);
    new.depth       := cardinality(string_to_array(new.path, '/'));
  end if;
  if new.kind = 'directory' then
    new.directory_path := new.path;
  end if;
  if new.state = 'deleted'
     or new.version <> 1
     or octet_length(new.name) > 255
     or new.updated_at > statement_timestamp()
     or new.updated_at = '-infinity' then
    perform filestore.refuse_created_node(new);
    if new.state = 'deleted' then
      -- Of an import.
      new.parent_live := null;
    end if;
  end if;
  return new;
end
$$;

comment on function filestore.prepare_node_insert() is
  'Sets the columns that follow from a new node''s parent, name and kind. Refuses a node without a parent, with an impossible updated_at or, except in an import, in state deleted or with a version other than 1.';

revoke all on function filestore.prepare_node_insert() from public;
--! EndIncluded functions/prepare_node_insert.sql

--! Included functions/refuse_created_node.sql
create or replace function filestore.refuse_created_node(node filestore.nodes)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  imported boolean := filestore.is_import(node.backend_mount_id);
begin
  if node.state = 'deleted' and not imported then
    raise exception 'node "%" cannot be created in state deleted', left(node.name, 200)
      using errcode    = 'FS422',
            constraint = 'nodes_born_live_check',
            hint       = 'Create it as active, and then delete it.';
  elsif node.version <> 1 and not imported then
    raise exception 'node "%" cannot be created at version %', left(node.path, 200), node.version
      using errcode    = 'FS422',
            constraint = 'version_check',
            hint       = 'Leave version out of the insert: the database counts it, from 1.';
  elsif node.updated_at > clock_timestamp() + interval '1 millisecond' or node.updated_at = '-infinity' then
    -- The next version would not begin after this one.
    raise exception 'node "%" cannot be created with updated_at %', left(node.path, 200), node.updated_at
      using errcode    = 'FS422',
            constraint = 'nodes_updated_at_check',
            hint       = 'Leave updated_at out of the insert, or give a moment in the past.';
  end if;
  if octet_length(node.name) > 255 then
    perform filestore.refuse_long_name(node.backend_mount_id, node.name);
  end if;
end
$$;

comment on function filestore.refuse_created_node(filestore.nodes) is
  'Internal: Raises FS422 for a new node with an impossible updated_at, with a name that is too long for a local mount or, except in an import, in state deleted or with a version other than 1.';

revoke all on function filestore.refuse_created_node(filestore.nodes) from public;
--! EndIncluded functions/refuse_created_node.sql

--! Included functions/guard_journal_entry.sql
create or replace function filestore.guard_journal_entry()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  moment timestamptz(3);
begin
  if old.id is null then
    -- An insert: there is no old row.
    if new.status not in ('queued', 'running') then
      if filestore.is_import(new.backend_mount_id) then
        return new;
      end if;
      raise exception 'journal entry "%" cannot be inserted as %', left(new.command, 40), new.status
        using errcode    = 'FS422',
              constraint = 'journal_entries_born_open_check',
              hint       = 'Insert it as queued or running, and finish it with filestore.finish_command.';
    end if;
    -- There is no foreign key: the journal outlives its mounts. In one condition, the lookup would also cost commands of no
    -- mount.
    if new.backend_mount_id is not null then
      if not exists (
        select
        from filestore.backend_mounts m
        where m.id = new.backend_mount_id
      ) then
        raise exception 'mount % does not exist', new.backend_mount_id
          using errcode    = 'FS404',
                constraint = 'backend_mounts_missing',
                hint       = 'To list the mounts, run: select id, mount_key from filestore.backend_mounts';
      end if;
    end if;
    new.created_at := date_trunc('milliseconds', clock_timestamp());
    new.started_at := case new.status when 'running' then new.created_at end;
    if new.completed_at is not null or new.duration_ms is not null then
      new.completed_at := null;
      new.duration_ms  := null;
    end if;
    return new;
  end if;

  if old.completed_at is not null then
    raise exception 'journal entry % (%) is % and never changes', old.id, old.command, old.status
      using errcode    = 'FS409',
            constraint = 'journal_entries_ended',
            hint       = 'Begin another entry instead.';
  elsif new.status = old.status or new.status = 'queued' then
    raise exception 'journal entry % (%) is %, and %', old.id, old.command, old.status,
      case when new.status = old.status then 'changes only together with its status' else 'cannot become ' || new.status end
      using errcode    = 'FS422',
            constraint = 'journal_entries_status_change_check',
            hint       = 'Set status from queued to running, or from either of them to succeeded, failed or canceled.';
  end if;
  moment := date_trunc('milliseconds', clock_timestamp());
  if new.status = 'running' then
    new.started_at   := moment;
    new.completed_at := null;
    new.duration_ms  := null;
  else
    new.started_at   := old.started_at;
    new.completed_at := greatest(moment, old.started_at);
    new.duration_ms  := (extract(epoch from new.completed_at - old.started_at) * 1000)::bigint;
  end if;
  return new;
end
$$;

comment on function filestore.guard_journal_entry() is
  'Lets a journal entry be inserted as queued or running only and for a mount that exists, and change its status forward only. Refuses every change of an ended entry. Sets its times. An import brings ended entries with their times.';

revoke all on function filestore.guard_journal_entry() from public;
--! EndIncluded functions/guard_journal_entry.sql

--! Included functions/guard_snapshot.sql
create or replace function filestore.guard_snapshot()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    if filestore.is_import(null) then
      return null;
    end if;
    raise exception 'filestore.snapshots cannot be written by hand'
      using errcode    = 'FS409',
            constraint = 'snapshots_fixed',
            hint       = 'Leave it to the database, which writes history when a node changes.';
  end if;
  raise exception 'version % of node % ("%") is history and cannot be changed', old.version, old.id, old.path
    using errcode    = 'FS409',
          constraint = 'snapshots_fixed',
          hint       = 'To bring an old version back, call filestore.revert_node. To remove the history, purge the node.';
end
$$;

comment on function filestore.guard_snapshot() is
  'Refuses to write history, except in an import, and to change it.';

revoke all on function filestore.guard_snapshot() from public;
--! EndIncluded functions/guard_snapshot.sql

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
  if found and not filestore.is_import(null) then
    raise exception 'version % of node % ("%") is history and cannot be removed', kept.version, kept.id, kept.path
      using errcode    = 'FS409',
            constraint = 'snapshots_fixed',
            hint       = 'Call filestore.prune_history to remove old versions, or purge the node to remove all of them.';
  end if;
  return null;
end
$$;

comment on function filestore.guard_history_removal() is
  'Refuses to remove history while its node exists, except the oldest versions up to the horizon of the mount. An import may replace history.';

revoke all on function filestore.guard_history_removal() from public;
--! EndIncluded functions/guard_history_removal.sql

--! Included functions/refuse_state_change.sql
create or replace function filestore.refuse_state_change(node filestore.nodes, new_state text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if node.parent_id is null and new_state = 'deleted' then
    raise exception 'the root of a mount cannot be deleted (%)', filestore.describe_node(node)
      using errcode    = 'FS422',
            constraint = 'nodes_root_check',
            hint       = 'Delete the mount: that removes its root.';
  end if;
  if filestore.is_import(node.backend_mount_id) then
    -- Between two passes, a node may have changed several times.
    return;
  end if;
  raise exception '% cannot go from % to %', filestore.describe_node(node), node.state, new_state
    using errcode    = 'FS422',
          constraint = 'nodes_state_change_check',
          hint       = 'Make one of the allowed changes: active to inconsistent, missing or deleted; inconsistent to active, missing or deleted; missing to active or deleted; deleted to active.';
end
$$;

comment on function filestore.refuse_state_change(filestore.nodes, text) is
  'Internal: Raises FS422: a node cannot change to this state, except in an import.';

revoke all on function filestore.refuse_state_change(filestore.nodes, text) from public;
--! EndIncluded functions/refuse_state_change.sql

--! Included functions/keep_node_columns.sql
create or replace function filestore.keep_node_columns()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  given_version integer := new.version;
begin
  if new.id is distinct from old.id
     or new.root_of_mount_id is distinct from old.root_of_mount_id
     or new.kind is distinct from old.kind
     or new.created_at is distinct from old.created_at then
    raise exception '% cannot change its id, kind or created_at, nor become or cease to be a root', filestore.describe_node(old)
      using errcode    = 'FS422',
            constraint = 'nodes_fixed_check',
            hint       = 'Delete the node and create another one; the new node has a new id.';
  end if;

  -- Before the version is kept: an import gives it.
  if current_setting('filestore.backfill_id', true) = 'import' and filestore.is_import(new.backend_mount_id) then
    new.path           := old.path;
    new.depth          := old.depth;
    new.directory_path := old.directory_path;
    return new;
  end if;
  new.path           := old.path;
  new.depth          := old.depth;
  new.directory_path := old.directory_path;
  new.version        := old.version;
  new.updated_at     := old.updated_at;
  if given_version is distinct from old.version and (given_version is distinct from old.version + 1 or new *= old) then
    perform filestore.refuse_version(filestore.describe_node(old), old.version, given_version);
  end if;
  return new;
end
$$;

comment on function filestore.keep_node_columns() is
  'Refuses to change what a node keeps forever, or its version, except to increment it together with another change. Keeps the other columns that the database sets; an import gives version and updated_at.';

revoke all on function filestore.keep_node_columns() from public;
--! EndIncluded functions/keep_node_columns.sql

--! Included triggers/snapshots_guard_insert.sql
drop trigger if exists snapshots_guard_insert on filestore.snapshots;

create trigger snapshots_guard_insert
  before insert on filestore.snapshots
  for each statement
  when (
    pg_trigger_depth() = 0
  )
  execute function filestore.guard_snapshot();

comment on trigger snapshots_guard_insert on filestore.snapshots is
  'Refuses to insert history: only the trigger on nodes and imports write it.';
--! EndIncluded triggers/snapshots_guard_insert.sql
