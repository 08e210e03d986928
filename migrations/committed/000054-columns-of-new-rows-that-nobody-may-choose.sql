--! Previous: sha1:88ac143cd51cb0f2e07331eab52b697b6b34c683
--! Hash: sha1:65da1a890305d7f209111b620ceef7a16c900cd1
--! Message: Columns of new rows that nobody may choose

-- After a commit in a "do" block or a procedure, a transaction begins later than the statement. No moment of a node is before
-- the transaction that wrote it.
alter table filestore.nodes
  alter column created_at set default date_trunc('milliseconds', greatest(statement_timestamp(), transaction_timestamp())),
  alter column updated_at set default date_trunc('milliseconds', greatest(statement_timestamp(), transaction_timestamp()));

--! Included functions/refuse_chosen_columns.sql
create or replace function filestore.refuse_chosen_columns(table_name text, description text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Of the session, and not the owner, as which triggers run.
  writer constant name := case current_setting('role') when 'none' then session_user else current_setting('role') end;
begin
  -- PostgreSQL asks for this right only if the statement names the column, and not if a view has a default for it.
  if not has_column_privilege(writer, table_name, 'id', 'insert') then
    raise exception '% cannot be created with columns that only the database sets, such as id and created_at', description
      using errcode    = 'FS422',
            constraint = 'chosen_columns_check',
            hint       = 'Leave them out of the insert, and drop their defaults from the view.';
  end if;
end
$$;

comment on function filestore.refuse_chosen_columns(text, text) is
  'Internal: Raises FS422 unless the role of the session may insert every column of a table. For a new row in which the columns that the database sets have other values.';

revoke all on function filestore.refuse_chosen_columns(text, text) from public;
--! EndIncluded functions/refuse_chosen_columns.sql
--! Included functions/prepare_node_insert.sql
create or replace function filestore.prepare_node_insert()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  last_id bigint;
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
     or new.created_at <> new.updated_at
     or new.updated_at <> date_trunc('milliseconds', greatest(statement_timestamp(), transaction_timestamp())) then
    perform filestore.refuse_created_node(new);
    if new.state = 'deleted' then
      -- Of an import.
      new.parent_live := null;
    end if;
  end if;
  -- Others may have taken an id since this one.
  if new.id is distinct from pg_sequence_last_value('filestore.nodes_id_seq') then
    last_id := coalesce(pg_sequence_last_value('filestore.nodes_id_seq'), 0);
    if new.id > last_id or (new.id - 1) >> 40 <> (last_id - 1) >> 40 then
      perform filestore.refuse_chosen_columns('filestore.nodes', format('node "%s"', left(new.path, 200)));
    end if;
  end if;
  return new;
end
$$;

comment on function filestore.prepare_node_insert() is
  'Sets the columns that follow from a new node''s parent, name and kind. Refuses a node without a parent, with an impossible updated_at, with an id or moments that its writer has no right to choose or, except in an import, in state deleted or with a version other than 1.';

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
  elsif (node.created_at, node.updated_at)
        is distinct from (node.updated_at, date_trunc('milliseconds', greatest(statement_timestamp(), transaction_timestamp()))) then
    perform filestore.refuse_chosen_columns('filestore.nodes', format('node "%s"', left(node.path, 200)));
  end if;
  if octet_length(node.name) > 255 then
    perform filestore.refuse_long_name(node.backend_mount_id, node.name);
  end if;
end
$$;

comment on function filestore.refuse_created_node(filestore.nodes) is
  'Internal: Raises FS422 for a new node with an impossible updated_at, with moments that its writer has no right to choose, with a name that is too long for a local mount or, except in an import, in state deleted or with a version other than 1.';

revoke all on function filestore.refuse_created_node(filestore.nodes) from public;
--! EndIncluded functions/refuse_created_node.sql
--! Included functions/lies_below.sql
create or replace function filestore.lies_below(node_id bigint, directory_id bigint)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  above bigint := node_id;
begin
  -- A path of 2600 bytes has 1300 names. Rows that were changed by hand may be a ring.
  for level in 1..1310 loop
    if above is null or above = directory_id then
      return above = directory_id;
    end if;
    select n.parent_id
    into above
    from filestore.nodes n
    where n.id = above;
  end loop;
  return true;
end
$$;

comment on function filestore.lies_below(bigint, bigint) is
  'Internal: Whether a node is a directory or lies below it, by the ids of parents. Null for a node that does not exist.';

revoke all on function filestore.lies_below(bigint, bigint) from public;
--! EndIncluded functions/lies_below.sql
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
        new.deleted_at := date_trunc('milliseconds', greatest(statement_timestamp(), transaction_timestamp()));
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

  -- nodes_parent_fkey proves a new row at the end of its statement, and only if it is still the present version. A function
  -- in "returning" can replace it before, by a tombstone or below another parent.
  if old.created_at >= date_trunc('milliseconds', transaction_timestamp()) then
    if old.live and (not new.live or new.parent_id <> old.parent_id) then
      perform filestore.require_parent(old);
    end if;
  end if;

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
    -- Without this check, the cascade of a directory that is moved below itself would not end. While a statement moves a
    -- directory, those below it still have their old paths, so parents are also followed by their ids.
    if new.kind = 'directory' and (
      (old.live and (new.parent_path = old.path or starts_with(new.parent_path, old.path || '/')))
      or (new.parent_id <> old.parent_id and filestore.lies_below(new.parent_id, new.id))
    ) then
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
--! Included functions/set_node_version.sql
create or replace function filestore.set_node_version()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The whole row is compared, so that new columns are included.
  if new *<> old then
    if current_setting('filestore.backfill_id', true) <> '' then
      if filestore.is_backfill(to_jsonb(old), to_jsonb(new)) then
        return new;
      end if;
    end if;
    new.version    := old.version + 1;
    -- All rows of one move get the same moment, and two changes of a row in one statement get different ones. The moment is
    -- not before the transaction, which begins later than the statement in a "do" block that has committed, and at most an
    -- hour before the clock: retention counts from updated_at, and a "do" block may run for days.
    new.updated_at := greatest(
      date_trunc('milliseconds', greatest(statement_timestamp(), transaction_timestamp(), clock_timestamp() - interval '1 hour')),
      old.updated_at + interval '1 millisecond'
    );
  end if;
  return new;
end
$$;

comment on function filestore.set_node_version() is
  'Increments the version of a node that changes, and sets updated_at. A batch of filestore.backfill adds no version.';

revoke all on function filestore.set_node_version() from public;
--! EndIncluded functions/set_node_version.sql
--! Included functions/guard_journal_entry.sql
create or replace function filestore.guard_journal_entry()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  moment  timestamptz(3);
  last_id bigint;
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
    last_id := coalesce(pg_sequence_last_value('filestore.journal_entries_id_seq'), 0);
    -- Others may have taken an id since this one.
    if new.id <> last_id then
      if new.id > last_id or (new.id - 1) >> 40 <> (last_id - 1) >> 40 then
        perform filestore.refuse_chosen_columns('filestore.journal_entries', format('journal entry "%s"', left(new.command, 40)));
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

  if coalesce(current_setting('filestore.backfill_id', true), '') <> '' then
    if filestore.is_backfill(to_jsonb(old), to_jsonb(new)) then
      return new;
    end if;
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
  'Lets a journal entry be inserted as queued or running only, for a mount that exists and with an id of the sequence, and change its status forward only. Refuses every change of an ended entry, except by a backfill. Sets its times. An import brings ended entries with their times.';

revoke all on function filestore.guard_journal_entry() from public;
--! EndIncluded functions/guard_journal_entry.sql
--! Included functions/prepare_mount.sql
create or replace function filestore.prepare_mount()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  given_version integer := new.version;
  last_id       bigint;
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
    last_id := coalesce(pg_sequence_last_value('filestore.backend_mounts_id_seq'), 0);
    if new.id > last_id
       or (new.id - 1) >> 40 <> (last_id - 1) >> 40
       or new.version <> 1
       or new.created_at <> new.updated_at
       or new.updated_at <> date_trunc('milliseconds', statement_timestamp())
       or num_nonnulls(new.held_by, new.erasing_since, new.history_horizon) > 0 then
      perform filestore.refuse_chosen_columns('filestore.backend_mounts', format('mount "%s"', new.mount_key));
    end if;
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
  'Refuses a secret in a mount''s settings, the key of a mount that is moving to this server, and a new mount whose writer chose columns that only the database sets. Refuses to change the id, backend_kind or created_at of a mount, its key or place while it moves to another server, and its state to active while it is erased. Increments the version at every other change, except of history_horizon alone.';

revoke all on function filestore.prepare_mount() from public;
--! EndIncluded functions/prepare_mount.sql
