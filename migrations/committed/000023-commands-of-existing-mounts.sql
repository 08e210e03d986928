--! Previous: sha1:c592a00f7d8e1420040c2af1b3efc3dcd50f9310
--! Hash: sha1:9d50525ab82cb87d26f61a031959a4b2123c5a3f
--! Message: Commands of existing mounts

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
  'Lets a journal entry be inserted as queued or running only and for a mount that exists, and change its status forward only. Refuses every change of an ended entry. Sets its times.';

revoke all on function filestore.guard_journal_entry() from public;
--! EndIncluded functions/guard_journal_entry.sql

--! Included functions/begin_command.sql
create or replace function filestore.begin_command(
  command           text,
  parameters        jsonb   default '{}',
  mount_id          bigint  default null,
  principal         text    default null,
  idempotency_key   text    default null,
  request_id        text    default null,
  correlation_id    text    default null,
  executor_kind     text    default null,
  primary_node_id   bigint  default null,
  secondary_node_id bigint  default null,
  queue             boolean default false,
  retry_failed      boolean default false,
  out is_new        boolean,
  out entry         filestore.journal_entries
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if command is null or command = '' then
    raise exception 'the command is empty'
      using errcode    = 'FS422',
            constraint = 'journal_entries_command_check',
            hint       = 'Give the name of the command, such as move_node.';
  end if;

  if idempotency_key is not null then
    if idempotency_key = '' or octet_length(command) + octet_length(idempotency_key) > 1024 then
      raise exception 'the idempotency key of command % is empty or too long', left(command, 40)
        using errcode    = 'FS422',
              constraint = 'journal_entries_idempotency_key_check',
              hint       = 'Give a key, or leave it out. Command and key have at most 1024 bytes together.';
    end if;
    perform filestore.require_read_committed('filestore.begin_command with an idempotency key');
    -- When two callers use one key, the second waits here until the first has committed, and then finds its entry.
    perform filestore.lock_command(command, idempotency_key);

    select j.*
    into entry
    from filestore.journal_entries j
    where j.command = begin_command.command
      and j.idempotency_key = begin_command.idempotency_key
      and j.status not in ('failed', 'canceled');

    if entry.id is null then
      -- The key is free: look for the latest entry that failed under it.
      select j.*
      into entry
      from filestore.journal_entries j
      where j.command = begin_command.command
        and j.idempotency_key = begin_command.idempotency_key
        and j.status in ('failed', 'canceled')
      order by j.created_at desc, j.id desc
      limit 1;
    end if;

    if entry.id is not null
       and (entry.backend_mount_id, entry.principal, entry.parameters) is distinct from (mount_id, principal, coalesce(parameters, '{}')) then
      raise exception 'idempotency key "%" of command % belongs to entry %, which has another mount, principal or parameters', idempotency_key, command, entry.id
        using errcode    = 'FS409',
              constraint = 'journal_entries_key_taken',
              hint       = 'To retry that command, repeat all of them. For another command, use another key.';
    end if;
    if entry.id is not null and not (coalesce(retry_failed, false) and entry.status in ('failed', 'canceled')) then
      is_new := false;
      return;
    end if;
  end if;

  insert into filestore.journal_entries (
    backend_mount_id,
    command,
    status,
    executor_kind,
    principal,
    request_id,
    correlation_id,
    idempotency_key,
    primary_node_id,
    secondary_node_id,
    parameters
  )
  values (
    begin_command.mount_id,
    begin_command.command,
    case when queue then 'queued' else 'running' end,
    begin_command.executor_kind,
    begin_command.principal,
    begin_command.request_id,
    begin_command.correlation_id,
    begin_command.idempotency_key,
    begin_command.primary_node_id,
    begin_command.secondary_node_id,
    coalesce(begin_command.parameters, '{}')
  )
  returning * into entry;
  is_new := true;
end
$$;

comment on function filestore.begin_command(text, jsonb, bigint, text, text, text, text, text, bigint, bigint, boolean, boolean) is
  'Records a command before it runs, in a separate transaction. The caller runs the command when is_new is true. With an idempotency key that was used before, is_new is false and entry is the earlier one, running or finished; with retry_failed, a failed or canceled command runs again as a new entry. FS404 when a new entry names a mount that does not exist. FS409 when the key was used with another mount, principal or parameters.';

revoke all on function filestore.begin_command(text, jsonb, bigint, text, text, text, text, text, bigint, bigint, boolean, boolean) from public;
--! EndIncluded functions/begin_command.sql
