--! Previous: sha1:3c719661af34de323f9a6672e09c6e54e0498571
--! Hash: sha1:1c78cc3e7090cbd116d942b137793c8262840fb0
--! Message: Journal of commands

do $$
begin
  if to_regtype('filestore.command_status') is null then
    create domain filestore.command_status as text collate "C"
      constraint command_status_check check (value in ('queued', 'running', 'succeeded', 'failed', 'canceled'));
  end if;
end
$$;

comment on domain filestore.command_status is 'The state of a command.';

-- No foreign key to nodes or mounts: the journal outlives what it describes.
create table if not exists filestore.journal_entries (
  id                bigint                   generated always as identity (maxvalue 1099511627775),
  backend_mount_id  bigint,
  command           text                     collate "C" not null,
  status            filestore.command_status not null default 'queued',
  executor_kind     text                     collate "C",
  principal         text                     collate "C",
  request_id        text                     collate "C",
  correlation_id    text                     collate "C",
  idempotency_key   text                     collate "C",
  primary_node_id   bigint,
  secondary_node_id bigint,
  affected_node_ids bigint[]                 not null default '{}',
  parameters        jsonb                    not null default '{}',
  result            jsonb,
  error             jsonb,
  started_at        timestamptz(3),
  completed_at      timestamptz(3),
  duration_ms       bigint,
  created_at        timestamptz(3)           not null default date_trunc('milliseconds', statement_timestamp()),

  constraint journal_entries_pkey
    primary key (id)
);

-- A failed or canceled entry leaves its key free, for a caller that wants to run the command again.
create unique index if not exists journal_entries_idempotency_key
  on filestore.journal_entries (command, idempotency_key)
  where idempotency_key is not null and status not in ('failed', 'canceled');
-- Not in order of id alone: the entries of a mount that moved here may have higher ids than later ones.
create index if not exists journal_entries_attempts_idx
  on filestore.journal_entries (command, idempotency_key, created_at, id)
  where idempotency_key is not null and status in ('failed', 'canceled');
-- Rows are inserted in the order of created_at, so a brin index of a few kilobytes is enough.
create index if not exists journal_entries_created_idx
  on filestore.journal_entries using brin (created_at);
create index if not exists journal_entries_status_idx
  on filestore.journal_entries (status, id)
  where status <> 'succeeded';
-- The next three indexes contain ended entries only, so that a command writes to them once, at its end. Other entries
-- are found by their status. The hash of a command always has eight bytes.
create index if not exists journal_entries_command_idx
  on filestore.journal_entries (hashtextextended(command, 0), id)
  where completed_at is not null;
create index if not exists journal_entries_mount_idx
  on filestore.journal_entries (backend_mount_id, id)
  where completed_at is not null;
create index if not exists journal_entries_nodes_idx
  on filestore.journal_entries using gin (array_remove(affected_node_ids || primary_node_id || secondary_node_id, null))
  where completed_at is not null;
create index if not exists journal_entries_correlation_idx
  on filestore.journal_entries (correlation_id)
  where correlation_id is not null;

comment on table  filestore.journal_entries                   is 'Append-only log of commands. It outlives the nodes and mounts it names, so it has no foreign keys.';
comment on column filestore.journal_entries.id                is 'Stable number of the command. Later commands of one database have higher numbers. Those of a mount that has moved keep the range of their old database.';
comment on column filestore.journal_entries.backend_mount_id  is 'Mount the command works on; null when it concerns none.';
comment on column filestore.journal_entries.command           is 'Name of the command, such as move_node.';
comment on column filestore.journal_entries.status            is 'queued, running, succeeded, failed or canceled.';
comment on column filestore.journal_entries.executor_kind     is 'Which kind of backend executed it, such as local or s3.';
comment on column filestore.journal_entries.principal         is 'The user or service that asked for it.';
comment on column filestore.journal_entries.request_id        is 'The request that carried it.';
comment on column filestore.journal_entries.correlation_id    is 'Id that the commands of one request share across services.';
comment on column filestore.journal_entries.idempotency_key   is 'Key by which a retry finds this entry; unique per command.';
comment on column filestore.journal_entries.primary_node_id   is 'The node that the command is about.';
comment on column filestore.journal_entries.secondary_node_id is 'The other node, such as the target of a move.';
comment on column filestore.journal_entries.affected_node_ids is 'Every node it changed.';
comment on column filestore.journal_entries.parameters        is 'The arguments of the command.';
comment on column filestore.journal_entries.result            is 'What the command returned, if it succeeded.';
comment on column filestore.journal_entries.error             is 'Why the command failed or was canceled.';
comment on column filestore.journal_entries.started_at        is 'When it started running. Set by trigger.';
comment on column filestore.journal_entries.completed_at      is 'When it succeeded, failed or was canceled. Set by trigger.';
comment on column filestore.journal_entries.duration_ms       is 'completed_at - started_at in milliseconds. Set by trigger.';
comment on column filestore.journal_entries.created_at        is 'When the entry was inserted. Set by trigger.';
comment on index filestore.journal_entries_idempotency_key is 'A command runs and succeeds at most once per key.';
comment on index filestore.journal_entries_attempts_idx    is 'Failed and canceled entries of an idempotency key, which leave it free, in order of time.';
comment on index filestore.journal_entries_created_idx     is 'Entries of a period, as for pruning.';
comment on index filestore.journal_entries_status_idx      is 'Commands that are unfinished or did not succeed.';
comment on index filestore.journal_entries_command_idx     is 'Ended entries of a command, in order of id.';
comment on index filestore.journal_entries_mount_idx       is 'Ended entries of a mount, in order of id.';
comment on index filestore.journal_entries_nodes_idx       is 'Ended commands in which a node is the primary, the secondary or an affected one: filestore.node_commands.';
comment on index filestore.journal_entries_correlation_idx is 'Commands that share a correlation_id.';

--! Included functions/is_sound_entry.sql
create or replace function filestore.is_sound_entry(entry filestore.journal_entries)
returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  sound boolean;
  fault record;
begin
  -- As in is_sound, what few entries need is in a branch, and a result of null counts as unsound.
  if entry.completed_at is null then
    sound := entry.status = case when entry.started_at is null then 'queued' else 'running' end and coalesce(entry.result, entry.error) is null;
  elsif entry.status = 'succeeded' then
    sound := entry.completed_at >= entry.started_at and entry.error is null;
  else
    sound := entry.status in ('failed', 'canceled')
      and (entry.completed_at >= entry.started_at) is not false
      and entry.result is null
      and (entry.status = 'canceled' or nullif(entry.error, 'null') is not null);
  end if;

  if coalesce(entry.principal, entry.request_id, entry.correlation_id, entry.executor_kind, entry.idempotency_key) is not null then
    sound := sound
      and octet_length(concat_ws('/', entry.command, entry.principal, entry.request_id, entry.correlation_id, entry.executor_kind)) <= 4096
      and (entry.correlation_id is null or octet_length(entry.correlation_id) <= 1024)
      and (entry.idempotency_key is null
           or (entry.idempotency_key <> '' and octet_length(entry.command) + octet_length(entry.idempotency_key) <= 1024));
  end if;
  if entry.parameters <> '{}' or entry.affected_node_ids <> '{}' or coalesce(entry.result, entry.error) is not null then
    sound := sound
      and filestore.is_small_json(entry.parameters, 1048576)
      and (entry.result is null or filestore.is_small_json(entry.result, 1048576))
      and (entry.error is null or filestore.is_small_json(entry.error, 1048576));
    if entry.affected_node_ids <> '{}' then
      sound := sound
        and array_ndims(entry.affected_node_ids) = 1
        and cardinality(entry.affected_node_ids) <= 100000
        and array_position(entry.affected_node_ids, null) is null;
    end if;
  end if;
  if sound and entry.command <> '' and octet_length(entry.command) <= 4096 then
    return true;
  end if;

  -- Only for an unsound entry: the first rule that it breaks.
  select *
  into fault
  from (values
    (
      'journal_entries_command_check',
      entry.command <> '',
      'has no command',
      'Give the name of the command, such as move_node.'
    ),
    (
      'journal_entries_started_check',
      (entry.started_at is not null or entry.status not in ('running', 'succeeded')) and (entry.started_at is null or entry.status <> 'queued'),
      format('is %s and has started_at %s', entry.status, coalesce(entry.started_at::text, 'null')),
      'Leave started_at out: the database sets it.'
    ),
    (
      'journal_entries_completed_check',
      (entry.completed_at is not null) = (entry.status in ('succeeded', 'failed', 'canceled'))
        and (entry.completed_at >= entry.started_at) is not false,
      format('is %s and has completed_at %s', entry.status, coalesce(entry.completed_at::text, 'null')),
      'Leave completed_at out: the database sets it.'
    ),
    (
      'journal_entries_outcome_check',
      (entry.result is null or entry.status = 'succeeded')
        and case entry.status when 'failed' then nullif(entry.error, 'null') is not null when 'canceled' then true else entry.error is null end,
      format('is %s and has %s', entry.status, case when entry.result is not null then 'a result' when entry.error is not null then 'an error' else 'no error' end),
      'Give a result only with succeeded, and an error only with failed, which needs one, or canceled.'
    ),
    (
      'journal_entries_idempotency_key_check',
      entry.idempotency_key is null or (entry.idempotency_key <> '' and octet_length(entry.command) + octet_length(entry.idempotency_key) <= 1024),
      'has an idempotency key that is empty or too long',
      'Give a key, or leave it out. Command and key have at most 1024 bytes together.'
    ),
    (
      'journal_entries_affected_check',
      case
        when coalesce(array_ndims(entry.affected_node_ids), 1) = 1
          then cardinality(entry.affected_node_ids) <= 100000 and array_position(entry.affected_node_ids, null) is null
        else false
      end,
      'has affected_node_ids that are not a plain list of ids',
      'Give at most 100000 ids in one dimension, without nulls. For a bigger tree, give the id of its top.'
    ),
    (
      'journal_entries_size_check',
      false,
      'is too big',
      'Give at most 1 MiB of JSON text and 500 levels each for parameters, result and error, 1024 bytes for correlation_id, and 4096 bytes for the other texts together.'
    )
  ) as rules (name, holds, complaint, remedy)
  where rules.holds is not true
  limit 1;

  raise exception 'journal entry "%" %', left(entry.command, 40), fault.complaint
    using errcode    = 'check_violation',
          constraint = fault.name,
          schema     = 'filestore',
          table      = 'journal_entries',
          hint       = fault.remedy;
end
$$;

comment on function filestore.is_sound_entry(filestore.journal_entries) is
  'Internal: The condition of journal_entries_sound_check: true when a journal entry is well formed on its own. Otherwise raises 23514 with the name of the broken rule.';

revoke all on function filestore.is_sound_entry(filestore.journal_entries) from public;
--! EndIncluded functions/is_sound_entry.sql

-- One check for the whole row, as on nodes.
do $$
begin
  if not exists (
    select from pg_constraint k
    where k.conrelid = 'filestore.journal_entries'::regclass
      and k.conname = 'journal_entries_sound_check'
  ) then
    alter table filestore.journal_entries
      add constraint journal_entries_sound_check check (filestore.is_sound_entry(journal_entries.*));
  end if;
end
$$;

comment on constraint journal_entries_sound_check on filestore.journal_entries is 'All rules about a single entry. The constraint field of the error names the broken rule.';

--! Included functions/check_retention.sql
create or replace function filestore.check_retention(older_than interval, batch integer)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if older_than is null or older_than < interval '0' or older_than > interval '1000 years' then
    raise exception 'older_than cannot be %', coalesce(older_than::text, 'null')
      using errcode    = 'FS422',
            constraint = 'retention_check',
            hint       = 'Give an age from 0 to 1000 years, such as interval ''30 days''.';
  end if;
  perform filestore.check_limit('batch', batch);
end
$$;

comment on function filestore.check_retention(interval, integer) is
  'Internal: Raises FS422 when an age or the size of a batch is null or out of range.';

revoke all on function filestore.check_retention(interval, integer) from public;
--! EndIncluded functions/check_retention.sql
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
  'Lets a journal entry be inserted as queued or running only, and change its status forward only. Refuses every change of an ended entry. Sets its times.';

revoke all on function filestore.guard_journal_entry() from public;
--! EndIncluded functions/guard_journal_entry.sql
--! Included functions/guard_journal_request.sql
create or replace function filestore.guard_journal_request()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Compared as bytes: 1 and 1.0 are equal in JSON.
  if row (
    new.id, new.backend_mount_id, new.command, new.executor_kind, new.principal, new.request_id,
    new.correlation_id, new.idempotency_key, new.parameters, new.created_at
  )::record *<> row (
    old.id, old.backend_mount_id, old.command, old.executor_kind, old.principal, old.request_id,
    old.correlation_id, old.idempotency_key, old.parameters, old.created_at
  )::record then
    raise exception 'journal entry % (%) cannot change its request', old.id, old.command
      using errcode    = 'FS422',
            constraint = 'journal_entries_fixed_check',
            hint       = 'Set only status, result, error and the columns of node ids.';
  end if;
  return new;
end
$$;

comment on function filestore.guard_journal_request() is
  'Refuses to change the request of a journal entry.';

revoke all on function filestore.guard_journal_request() from public;
--! EndIncluded functions/guard_journal_request.sql
--! Included functions/guard_journal_removal.sql
create or replace function filestore.guard_journal_removal()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if old.completed_at is null
     -- It continues on the new server of its mount.
     and not exists (
       select
       from filestore.backend_mounts m
       where m.id = old.backend_mount_id
         and m.erasing_since is not null
         and m.held_by is not null
     )
     and not filestore.is_erasing_copy(old.backend_mount_id) then
    raise exception 'journal entry % (%) is % and cannot be removed', old.id, old.command, old.status
      using errcode    = 'FS409',
            constraint = 'journal_entries_open',
            hint       = 'Finish it first, with filestore.finish_command or filestore.expire_commands.';
  end if;
  return old;
end
$$;

comment on function filestore.guard_journal_removal() is
  'Refuses to remove a journal entry that has not ended, unless its mount is erased here after it moved to another server, or after its move to this one was taken back.';

revoke all on function filestore.guard_journal_removal() from public;
--! EndIncluded functions/guard_journal_removal.sql
--! Included functions/refuse_entry.sql
create or replace function filestore.refuse_entry(entry_id bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  entry filestore.journal_entries;
begin
  select *
  into entry
  from filestore.journal_entries j
  where j.id = entry_id;

  if entry.id is null then
    raise exception 'journal entry % does not exist', entry_id
      using errcode    = 'FS404',
            constraint = 'journal_entries_missing',
            hint       = 'Check the id: the entry was pruned, or never existed.';
  elsif entry.status = 'queued' then
    raise exception 'journal entry % (%) is queued', entry.id, entry.command
      using errcode    = 'FS409',
            constraint = 'journal_entries_queued',
            hint       = 'Call filestore.start_command first.';
  elsif entry.status = 'running' then
    raise exception 'journal entry % (%) is running', entry.id, entry.command
      using errcode    = 'FS409',
            constraint = 'journal_entries_running',
            hint       = 'Take another entry: another caller has started this one.';
  end if;
  raise exception 'journal entry % (%) is %', entry.id, entry.command, entry.status
    using errcode    = 'FS409',
          constraint = 'journal_entries_ended',
          hint       = 'Roll the work back: another caller ended the entry, or it expired.';
end
$$;

comment on function filestore.refuse_entry(bigint) is
  'Internal: Raises FS404 or FS409, with the reason why a journal entry cannot be started or finished.';

revoke all on function filestore.refuse_entry(bigint) from public;
--! EndIncluded functions/refuse_entry.sql
--! Included functions/lock_command.sql
create or replace function filestore.lock_command(command text, idempotency_key text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Two numbers, so that the runbook finds every such lock by the first.
  space  constant integer := hashtext('filestore.command');
  number constant integer := hashtext(lock_command.command || '/' || lock_command.idempotency_key);
  usual  constant text    := current_setting('lock_timeout');
begin
  if pg_try_advisory_xact_lock(space, number) then
    return;
  end if;
  -- Any login can take the lock, so the wait has an end. The caller's lock_timeout stays if it is shorter.
  begin
    if usual = '0' or usual::interval > '10 s' then
      perform set_config('lock_timeout', '10s', true);
    end if;
    perform pg_advisory_xact_lock(space, number);
  exception
    when lock_not_available then
      raise exception 'another session holds idempotency key "%" of command %', left(lock_command.idempotency_key, 200), lock_command.command
        using errcode    = 'FS409',
              constraint = 'journal_entries_key_busy',
              hint       = 'Repeat the call. If it is refused again, docs/operations.md shows how to find the session: "A stranger holds a lock".';
  end;
  perform set_config('lock_timeout', usual, true);
end
$$;

comment on function filestore.lock_command(text, text) is
  'Internal: Locks an idempotency key of a command until the transaction ends, for filestore.begin_command. FS409 when another session has held it for 10 s, or for lock_timeout if that is shorter.';

revoke all on function filestore.lock_command(text, text) from public;
--! EndIncluded functions/lock_command.sql
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
  'Records a command before it runs, in a separate transaction. The caller runs the command when is_new is true. With an idempotency key that was used before, is_new is false and entry is the earlier one, running or finished; with retry_failed, a failed or canceled command runs again as a new entry. FS409 when the key was used with another mount, principal or parameters.';

revoke all on function filestore.begin_command(text, jsonb, bigint, text, text, text, text, text, bigint, bigint, boolean, boolean) from public;
--! EndIncluded functions/begin_command.sql
--! Included functions/start_command.sql
create or replace function filestore.start_command(entry_id bigint)
returns filestore.journal_entries
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  entry filestore.journal_entries;
begin
  update filestore.journal_entries j
  set status = 'running'
  where j.id = entry_id
    and j.status = 'queued'
  returning * into entry;

  if entry.id is null then
    perform filestore.refuse_entry(entry_id);
  end if;
  return entry;
end
$$;

comment on function filestore.start_command(bigint) is
  'Starts a queued command and returns its entry. If several callers try, one gets the entry and the others FS409. FS404 when there is no such entry.';

revoke all on function filestore.start_command(bigint) from public;
--! EndIncluded functions/start_command.sql
--! Included functions/begin_work.sql
create or replace function filestore.begin_work(entry_id bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The lock keeps expire_commands and a second worker from ending the entry before this transaction does. A shared
  -- lock would not do: two workers could hold it, and each would wait for the other to finish the entry.
  perform
  from filestore.journal_entries j
  where j.id = entry_id
    and j.status = 'running'
  for no key update;
  if not found then
    perform filestore.refuse_entry(entry_id);
  end if;
  perform set_config('filestore.journal_entry_id', format('%s/%s', entry_id, pg_current_xact_id()), true);
end
$$;

comment on function filestore.begin_work(bigint) is
  'Records every change of nodes from here to the end of the transaction as the work of a running journal entry: snapshots.superseded_by_journal_id. A second transaction that begins work on it waits until this one ends. FS404 when there is no such entry, FS409 when it is not running.';

revoke all on function filestore.begin_work(bigint) from public;
--! EndIncluded functions/begin_work.sql
--! Included functions/finish_command.sql
create or replace function filestore.finish_command(
  entry_id          bigint,
  status            filestore.command_status,
  result            jsonb    default null,
  error             jsonb    default null,
  affected_node_ids bigint[] default null,
  primary_node_id   bigint   default null,
  secondary_node_id bigint   default null
)
returns filestore.journal_entries
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  entry filestore.journal_entries;
begin
  if status is null or status not in ('succeeded', 'failed', 'canceled') then
    raise exception 'a command cannot finish as %', coalesce(status, 'null')
      using errcode    = 'FS422',
            constraint = 'journal_entries_status_change_check',
            hint       = 'Give succeeded, failed or canceled.';
  end if;

  update filestore.journal_entries j
  set status            = finish_command.status,
      result            = finish_command.result,
      error             = finish_command.error,
      affected_node_ids = coalesce(finish_command.affected_node_ids, j.affected_node_ids),
      primary_node_id   = coalesce(finish_command.primary_node_id, j.primary_node_id),
      secondary_node_id = coalesce(finish_command.secondary_node_id, j.secondary_node_id)
  where j.id = entry_id
    and (j.status = 'running' or (j.status = 'queued' and finish_command.status <> 'succeeded'))
  returning * into entry;

  if entry.id is null then
    -- The call may be a repetition, after a connection that broke before the answer arrived.
    select *
    into entry
    from filestore.journal_entries j
    where j.id = entry_id
      and j.status = finish_command.status
      and j.result is not distinct from finish_command.result
      and j.error is not distinct from finish_command.error;
    if entry.id is null then
      perform filestore.refuse_entry(entry_id);
    end if;
  end if;
  return entry;
end
$$;

comment on function filestore.finish_command(bigint, filestore.command_status, jsonb, jsonb, bigint[], bigint, bigint) is
  'Records how a command ended and returns its entry: succeeded with a result, failed with an error, or canceled. Record success in the transaction of the work, as its last statement. Record a failure in a separate transaction, after the work rolled back. Repeating the call with the same outcome changes nothing. FS404 when there is no such entry, FS409 when it ended otherwise.';

revoke all on function filestore.finish_command(bigint, filestore.command_status, jsonb, jsonb, bigint[], bigint, bigint) from public;
--! EndIncluded functions/finish_command.sql
--! Included functions/expire_commands.sql
create or replace function filestore.expire_commands(older_than interval, batch integer default 1000)
returns setof filestore.journal_entries
language plpgsql
rows 10
set search_path = pg_catalog, pg_temp
as $$
declare
  elsewhere bigint[];
  mount_ids bigint[];
begin
  perform filestore.check_retention(older_than, batch);
  -- A mount at its cut-over would refuse the call: a later call takes its commands. The lock keeps a cut-over from
  -- beginning after this.
  elsewhere := array(
    select m.id
    from (
      select unnest(filestore.moving_mounts(true))
      except
      select unnest(filestore.moving_mounts(false))
    ) m (id)
    where not pg_try_advisory_xact_lock_shared(hashtextextended('filestore.move', m.id))
  );
  elsewhere := elsewhere || filestore.moving_mounts(false);
  -- All transactions of the server share its table of locks, hence the limit.
  mount_ids := array(
    select o.backend_mount_id
    from (
      select r.backend_mount_id, r.started_at
      from filestore.journal_entries r
      where r.status = 'running'
        and r.started_at < statement_timestamp() - older_than
        -- Those of a mount that another server holds end there.
        and (r.backend_mount_id = any (elsewhere)) is not true
      order by r.started_at, r.id
      limit batch
    ) o
    where o.backend_mount_id is not null
    group by o.backend_mount_id
    order by min(o.started_at)
    limit 100
  );

  return query
  update filestore.journal_entries j
  set status = 'failed',
      error  = jsonb_build_object('code', 'expired', 'message', format('started longer than %s ago and never finished', older_than))
  -- An array, because "in (select ...)" may be planned as a join that runs the subquery again for each row, and then
  -- more than batch rows would change.
  where j.id = any (array(
    select o.id
    from filestore.journal_entries o
    where o.status = 'running'
      and o.started_at < statement_timestamp() - older_than
      and (o.backend_mount_id is null or o.backend_mount_id = any (mount_ids))
    order by o.started_at, o.id
    limit batch
    for update skip locked
  ))
  returning j.*;
end
$$;

comment on function filestore.expire_commands(interval, integer) is
  'Marks at most batch commands as failed that started longer than older_than ago and have not ended, the oldest first and of at most 100 mounts, and returns them. Skips mounts that another server holds, or that are at their cut-over. A worker that tries to finish such a command later gets FS409.';

revoke all on function filestore.expire_commands(interval, integer) from public;
--! EndIncluded functions/expire_commands.sql
--! Included functions/prune_journal.sql
create or replace function filestore.prune_journal(older_than interval, batch integer default 1000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  deadline timestamptz;
  moving   bigint[] := filestore.moving_mounts(true);
  pruned   integer;
begin
  perform filestore.check_retention(older_than, batch);
  deadline := statement_timestamp() - older_than;
  delete from filestore.journal_entries j
  where j.ctid = any (array(
    select o.ctid
    from filestore.journal_entries o
    -- An entry ends after its creation, so the condition on created_at excludes no other entry. It has an index.
    where o.created_at < deadline
      and o.completed_at < deadline
      -- The proof at a cut-over reads new rows only, so nothing is removed while a mount moves.
      and (o.backend_mount_id = any (moving)) is not true
    limit batch
    for update skip locked
  ));
  get diagnostics pruned = row_count;
  return pruned;
end
$$;

comment on function filestore.prune_journal(interval, integer) is
  'Removes at most batch entries that ended longer than older_than ago, and returns how many. Repeat it until it returns 0. Entries that have not ended stay, whatever their age.';

revoke all on function filestore.prune_journal(interval, integer) from public;
--! EndIncluded functions/prune_journal.sql
--! Included functions/list_commands.sql
create or replace function filestore.list_commands(
  mount_id  bigint                   default null,
  command   text                     default null,
  status    filestore.command_status default null,
  before_id bigint                   default null,
  page_size bigint                   default 100
)
returns setof filestore.journal_entries
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
  of_mount   constant text := case when mount_id is not null then 'j.backend_mount_id = $1' end;
  of_command constant text := case when command is not null then 'hashtextextended(j.command, 0) = hashtextextended($2, 0) and j.command = $2' end;
  of_status  constant text := case when status is not null then 'j.status = $3' end;
  -- Only the index on the status contains entries that have not ended. They are few: all are read and then sorted.
  open       constant text := concat_ws(' and ', of_mount, of_command, $open$j.status in ('queued', 'running') and j.id < $4 offset 0$open$);
  chosen     text;
begin
  perform filestore.check_limit('page_size', page_size, 100000);

  -- A single condition is written as a range. For an equality, the planner may walk the primary key backwards, which is
  -- slow when the value has become rare. With two conditions, it looks the rarer value up.
  if status <> 'succeeded' then
    chosen := concat_ws(' and ', of_mount, of_command, $range$
      j.status <> 'succeeded' and j.status >= $3 and (j.status, j.id) < ($3, $4)
      order by j.status desc, j.id desc$range$);
  elsif of_mount is null and of_command is not null then
    chosen := concat_ws(' and ', of_status, $range$
      j.completed_at is not null and j.command = $2 and hashtextextended(j.command, 0) >= hashtextextended($2, 0)
      and (hashtextextended(j.command, 0), j.id) < (hashtextextended($2, 0), $4)
      order by hashtextextended(j.command, 0) desc, j.id desc$range$);
  elsif of_mount is not null and of_command is null then
    chosen := concat_ws(' and ', of_status, $range$
      j.completed_at is not null and j.backend_mount_id >= $1 and (j.backend_mount_id, j.id) < ($1, $4)
      order by j.backend_mount_id desc, j.id desc$range$);
  elsif of_mount is not null then
    chosen := concat_ws(' and ', of_mount, of_command, of_status, 'j.completed_at is not null and j.id < $4 order by j.id desc');
  else
    chosen := concat_ws(' and ', of_status, 'j.id < $4 order by j.id desc');
  end if;

  return query execute format(
    $query$
      select j.*
      from (
        (select j.* from filestore.journal_entries j where %s limit $5)
        union all
        (select j.* from filestore.journal_entries j where %s)
      ) j
      order by j.id desc
      limit $5
    $query$,
    chosen,
    case when status is null and (of_mount is not null or of_command is not null) then open else 'false' end
  )
  using mount_id, command, status, coalesce(before_id, 9223372036854775807), page_size;
end
$$;

comment on function filestore.list_commands(bigint, text, filestore.command_status, bigint, bigint) is
  'A page of the journal, the highest ids first: all entries, or those of a mount, of a command, or with a status. The newest entries have the highest ids, unless a mount moved here from a database with a higher number. For the next page, give the last id of this one as before_id.';

revoke all on function filestore.list_commands(bigint, text, filestore.command_status, bigint, bigint) from public;
--! EndIncluded functions/list_commands.sql
--! Included functions/node_commands.sql
create or replace function filestore.node_commands(node_id bigint, before_id bigint default null, page_size bigint default 20)
returns setof filestore.journal_entries
language plpgsql
stable
rows 20
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.check_limit('page_size', page_size, 100000);
  return query
  select j.*
  from (
    (
      select j.*
      from filestore.journal_entries j
      where j.completed_at is not null
        -- The expression of journal_entries_nodes_idx.
        and array_remove(j.affected_node_ids || j.primary_node_id || j.secondary_node_id, null) @> array[node_commands.node_id]
      -- "Offset 0": all entries of the node are read and then sorted. The planner overestimates their number, and would
      -- walk the primary key instead.
      offset 0
    )
    union all
    (
      select j.*
      from filestore.journal_entries j
      where j.status in ('queued', 'running')
        and node_commands.node_id = any (j.affected_node_ids || j.primary_node_id || j.secondary_node_id)
      offset 0
    )
  ) j
  where j.id < coalesce(before_id, 9223372036854775807)
  order by j.id desc
  limit page_size;
end
$$;

comment on function filestore.node_commands(bigint, bigint, bigint) is
  'A page of the commands in which a node is the primary, the secondary or an affected one, in the order of filestore.list_commands. For the next page, give the last id of this one as before_id.';

revoke all on function filestore.node_commands(bigint, bigint, bigint) from public;
--! EndIncluded functions/node_commands.sql

--! Included triggers/journal_entries_guard.sql
drop trigger if exists journal_entries_guard on filestore.journal_entries;

create trigger journal_entries_guard
  before insert or update on filestore.journal_entries
  for each row
  execute function filestore.guard_journal_entry();

comment on trigger journal_entries_guard on filestore.journal_entries is
  'Lets the status of an entry go forward only, from queued or running, and sets its times.';
--! EndIncluded triggers/journal_entries_guard.sql
--! Included triggers/journal_entries_guard_request.sql
drop trigger if exists journal_entries_guard_request on filestore.journal_entries;

-- The columns that nothing changes after the insert. The usual updates name none of them.
create trigger journal_entries_guard_request
  before update of
    id,
    backend_mount_id,
    command,
    executor_kind,
    principal,
    request_id,
    correlation_id,
    idempotency_key,
    parameters,
    created_at
  on filestore.journal_entries
  for each row
  execute function filestore.guard_journal_request();

comment on trigger journal_entries_guard_request on filestore.journal_entries is
  'Refuses to change the request of an entry.';
--! EndIncluded triggers/journal_entries_guard_request.sql
--! Included triggers/journal_entries_guard_removal.sql
drop trigger if exists journal_entries_guard_removal on filestore.journal_entries;

create trigger journal_entries_guard_removal
  before delete on filestore.journal_entries
  for each row
  execute function filestore.guard_journal_removal();

comment on trigger journal_entries_guard_removal on filestore.journal_entries is
  'Refuses to remove entries that have not ended.';
--! EndIncluded triggers/journal_entries_guard_removal.sql
--! Included triggers/journal_entries_refuse_truncate.sql
drop trigger if exists journal_entries_refuse_truncate on filestore.journal_entries;

create trigger journal_entries_refuse_truncate
  before truncate on filestore.journal_entries
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger journal_entries_refuse_truncate on filestore.journal_entries is
  'Refuses truncate, which would bypass the triggers that guard rows.';
--! EndIncluded triggers/journal_entries_refuse_truncate.sql
