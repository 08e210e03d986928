--! Previous: sha1:b4377166120a2bad9a19648ae200101956806ed1
--! Hash: sha1:0cb7e3f3f0aad8198572f2c2a7693189b24fe89c
--! Message: Journal of commands

-- No foreign key to nodes or mounts: the journal outlives what it describes.
create table if not exists filestore.journal_entries (
  id                bigint      generated always as identity,
  backend_mount_id  bigint,
  command           text        not null,
  status            text        not null default 'queued',
  executor_kind     text,
  principal         text,
  request_id        text,
  correlation_id    text,
  idempotency_key   text,
  primary_node_id   bigint,
  secondary_node_id bigint,
  affected_node_ids bigint[]    not null default '{}',
  parameters        jsonb       not null default '{}',
  result            jsonb,
  error             jsonb,
  started_at        timestamptz,
  completed_at      timestamptz,
  duration_ms       bigint      generated always as (
                      (extract(epoch from completed_at - started_at) * 1000)::bigint
                    ) stored,
  created_at        timestamptz not null default statement_timestamp(),

  constraint journal_entries_pkey
    primary key (id),
  constraint journal_entries_command_check
    check (command <> ''),
  constraint journal_entries_status_check
    check (status in ('queued', 'running', 'succeeded', 'failed', 'canceled')),
  constraint journal_entries_started_check
    check (
      case status
        when 'queued'    then started_at is null
        when 'running'   then started_at is not null
        when 'succeeded' then started_at is not null
        else true
      end
    ),
  constraint journal_entries_completed_check
    check ((completed_at is not null) = (status in ('succeeded', 'failed', 'canceled'))),
  constraint journal_entries_order_check
    check (completed_at >= started_at and isfinite(started_at) and isfinite(completed_at)),
  constraint journal_entries_outcome_check
    check (
      (result is null or status = 'succeeded')
      and (error is null or status in ('failed', 'canceled'))
      and (error is not null or status <> 'failed')
    ),
  constraint journal_entries_idempotency_key_check
    check (idempotency_key <> '' and octet_length(command) + octet_length(idempotency_key) <= 1024),
  constraint journal_entries_correlation_id_check
    check (octet_length(correlation_id) <= 1024)
);

-- A retry finds the first entry. One that failed or was canceled leaves its key
-- free, for a caller that wants to run the command again.
create unique index if not exists journal_entries_idempotency_key
  on filestore.journal_entries (command, idempotency_key)
  where idempotency_key is not null and status not in ('failed', 'canceled');
-- The entries of a key, those that failed among them.
create index if not exists journal_entries_attempts_idx
  on filestore.journal_entries (command, idempotency_key, id)
  where idempotency_key is not null;
-- Rows arrive in the order of created_at, so that pruning and "what happened
-- between" need a few kilobytes of index, not a btree.
create index if not exists journal_entries_created_idx
  on filestore.journal_entries using brin (created_at);
-- Unfinished commands: the few that are open, out of millions.
create index if not exists journal_entries_open_idx
  on filestore.journal_entries (status, created_at)
  where status in ('queued', 'running');
-- What happened to a node: affected_node_ids @> array[42].
create index if not exists journal_entries_affected_idx
  on filestore.journal_entries using gin (affected_node_ids);
-- All commands of one request across services.
create index if not exists journal_entries_correlation_idx
  on filestore.journal_entries (correlation_id)
  where correlation_id is not null;

comment on table  filestore.journal_entries                   is 'Append-only log of commands. It outlives the nodes and mounts it names, so it has no foreign keys.';
comment on column filestore.journal_entries.id                is 'Stable, monotonic number of the command.';
comment on column filestore.journal_entries.backend_mount_id  is 'Mount the command worked on, if one.';
comment on column filestore.journal_entries.command           is 'Name of the command, such as move_node.';
comment on column filestore.journal_entries.status            is 'queued, running, succeeded, failed or canceled.';
comment on column filestore.journal_entries.executor_kind     is 'Which kind of backend executed it, such as local or s3.';
comment on column filestore.journal_entries.principal         is 'Who asked for it.';
comment on column filestore.journal_entries.request_id        is 'The request that carried it.';
comment on column filestore.journal_entries.correlation_id    is 'What ties it to commands of other services.';
comment on column filestore.journal_entries.idempotency_key   is 'Key by which a retry finds this entry; unique for a command.';
comment on column filestore.journal_entries.primary_node_id   is 'The node it is about.';
comment on column filestore.journal_entries.secondary_node_id is 'The other node, such as the target of a move.';
comment on column filestore.journal_entries.affected_node_ids is 'Every node it changed.';
comment on column filestore.journal_entries.parameters        is 'The payload.';
comment on column filestore.journal_entries.result            is 'What it returned; only of one that succeeded.';
comment on column filestore.journal_entries.error             is 'Why it failed or was canceled.';
comment on column filestore.journal_entries.started_at        is 'When the executor began.';
comment on column filestore.journal_entries.completed_at      is 'When it ended, one way or another.';
comment on column filestore.journal_entries.duration_ms       is 'completed_at - started_at in milliseconds.';
comment on column filestore.journal_entries.created_at        is 'When it was written down.';
comment on constraint journal_entries_started_check   on filestore.journal_entries is 'A queued command has not started; a running or succeeded one has.';
comment on constraint journal_entries_completed_check on filestore.journal_entries is 'A command has completed_at exactly when it is succeeded, failed or canceled.';
comment on constraint journal_entries_order_check     on filestore.journal_entries is 'A command does not end before it starts, and both are moments.';
comment on constraint journal_entries_outcome_check   on filestore.journal_entries is 'result belongs to success; error to failure, which needs one, or cancellation.';
comment on index filestore.journal_entries_idempotency_key is 'A command runs and succeeds once for a key.';
comment on index filestore.journal_entries_attempts_idx    is 'The entries of a key, the latest last.';
comment on index filestore.journal_entries_created_idx     is 'Entries of a span of time; pruning.';
comment on index filestore.journal_entries_open_idx        is 'Unfinished commands.';
comment on index filestore.journal_entries_affected_idx    is 'Commands that changed a node.';
comment on index filestore.journal_entries_correlation_idx is 'Commands of one correlation.';

--! Included functions/check_retention.sql
create or replace function filestore.check_retention(older_than interval, batch integer)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if older_than is null or older_than < interval '0' or older_than > interval '1000 years' then
    raise exception 'older_than is %', coalesce(older_than::text, 'null')
      using errcode = 'FS422',
            hint    = 'Give an age, such as interval ''30 days''.';
  end if;
  perform filestore.check_limit('batch', batch);
end
$$;

comment on function filestore.check_retention(interval, integer) is
  'Raises FS422 when an age or the size of a batch makes no sense.';

revoke all on function filestore.check_retention(interval, integer) from public;
--! EndIncluded functions/check_retention.sql
--! Included functions/guard_journal_entry.sql
create or replace function filestore.guard_journal_entry()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'DELETE' then
    if old.completed_at is null then
      raise exception 'journal entry % (%) is % and cannot be removed', old.id, old.command, old.status
        using errcode = 'FS409',
              hint    = 'Finish it first, or let filestore.expire_commands do so.';
    end if;
    return old;
  end if;

  if old.completed_at is not null then
    raise exception 'journal entry % (%) is % and never changes', old.id, old.command, old.status
      using errcode = 'FS409',
            hint    = 'What happens next is another entry.';
  elsif new.status = old.status or new.status = 'queued' then
    raise exception 'journal entry % (%) can only go on from %', old.id, old.command, old.status
      using errcode = 'FS422',
            hint    = 'An entry is written to start or to finish it: queued to running, and both to succeeded, failed or canceled.';
  elsif (new.id, new.backend_mount_id, new.command, new.executor_kind, new.principal, new.request_id,
         new.correlation_id, new.idempotency_key, new.parameters, new.created_at)
        is distinct from
        (old.id, old.backend_mount_id, old.command, old.executor_kind, old.principal, old.request_id,
         old.correlation_id, old.idempotency_key, old.parameters, old.created_at)
        or new.started_at is distinct from coalesce(old.started_at, new.started_at) then
    raise exception 'journal entry % (%) cannot change what was asked for, by whom and when', old.id, old.command
      using errcode = 'FS422',
            hint    = 'Its status, result, error, nodes and times of start and end are all that is still open.';
  end if;
  return new;
end
$$;

comment on function filestore.guard_journal_entry() is
  'Lets a journal entry only go forward, and never change once it is finished.';

revoke all on function filestore.guard_journal_entry() from public;
--! EndIncluded functions/guard_journal_entry.sql
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
      using errcode = 'FS404',
            hint    = 'It was never there, or it was pruned.';
  end if;
  raise exception 'journal entry % (%) is %', entry.id, entry.command, entry.status
    using errcode = 'FS409',
          hint    = 'Only a queued entry starts, only a running one succeeds, and what has ended stays: another caller was faster, or it expired.';
end
$$;

comment on function filestore.refuse_entry(bigint) is
  'Says why a journal entry cannot be started or finished: FS404 or FS409.';

revoke all on function filestore.refuse_entry(bigint) from public;
--! EndIncluded functions/refuse_entry.sql
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
  if command is null or command = '' or idempotency_key = '' then
    raise exception 'the % is empty', case when idempotency_key = '' then 'idempotency key' else 'command' end
      using errcode = 'FS422',
            hint    = 'Name the command; without a key, leave idempotency_key out.';
  end if;
  is_new       := true;
  parameters   := coalesce(parameters, '{}');
  queue        := coalesce(queue, false);
  retry_failed := coalesce(retry_failed, false);
  if idempotency_key is not null then
    perform filestore.require_read_committed('filestore.begin_command with an idempotency key');
    -- Two callers with one key: the second looks when the first has committed.
    perform pg_advisory_xact_lock(hashtextextended('filestore.command', 0) # hashtextextended(command || '/' || idempotency_key, 1));

    select j.*
    into entry
    from filestore.journal_entries j
    where j.command = begin_command.command
      and j.idempotency_key = begin_command.idempotency_key
    -- The one that holds the key, else the latest that failed.
    order by j.status in ('failed', 'canceled'), j.id desc
    limit 1;

    if entry.id is not null
       and (entry.backend_mount_id, entry.principal, entry.parameters) is distinct from (mount_id, principal, parameters) then
      raise exception 'idempotency key "%" of command % belongs to entry %, which has another mount, principal or parameters', idempotency_key, command, entry.id
        using errcode = 'FS409',
              hint    = 'A retry repeats all of them; another command needs another key.';
    end if;
    is_new := entry.id is null or (retry_failed and entry.status in ('failed', 'canceled'));
  end if;

  if is_new then
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
      parameters,
      started_at
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
      begin_command.parameters,
      case when not queue then statement_timestamp() end
    )
    returning * into entry;
  end if;
end
$$;

comment on function filestore.begin_command(text, jsonb, bigint, text, text, text, text, text, bigint, bigint, boolean, boolean) is
  'Writes a command down before it runs, in a transaction of its own: is_new says that the caller is to run it. With an idempotency key that was used before, is_new is false and entry is the earlier one, running or finished; one that failed or was canceled runs again as a new entry with retry_failed. FS409 when the key was used with another mount, principal or parameters.';

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
  set status     = 'running',
      started_at = statement_timestamp()
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
  'Takes a queued command to run it: of several callers one gets the entry, the others FS409. FS404 when there is no such entry.';

revoke all on function filestore.start_command(bigint) from public;
--! EndIncluded functions/start_command.sql
--! Included functions/finish_command.sql
create or replace function filestore.finish_command(
  entry_id          bigint,
  status            text,
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
      using errcode = 'FS422',
            hint    = 'It is succeeded, failed or canceled.';
  end if;

  update filestore.journal_entries j
  set status            = finish_command.status,
      result            = finish_command.result,
      error             = finish_command.error,
      completed_at      = greatest(clock_timestamp(), j.started_at),
      affected_node_ids = coalesce(finish_command.affected_node_ids, j.affected_node_ids),
      primary_node_id   = coalesce(finish_command.primary_node_id, j.primary_node_id),
      secondary_node_id = coalesce(finish_command.secondary_node_id, j.secondary_node_id)
  where j.id = entry_id
    and (j.status = 'running' or (j.status = 'queued' and finish_command.status <> 'succeeded'))
  returning * into entry;

  if entry.id is null then
    -- Said twice, as after a connection that broke before the answer came.
    select *
    into entry
    from filestore.journal_entries j
    where j.id = entry_id
      and j.status = finish_command.status
      and j.result is not distinct from finish_command.result
      and j.error is not distinct from finish_command.error;
  end if;
  if entry.id is null then
    perform filestore.refuse_entry(entry_id);
  end if;
  return entry;
end
$$;

comment on function filestore.finish_command(bigint, text, jsonb, jsonb, bigint[], bigint, bigint) is
  'Writes down how a command ended and returns its entry: succeeded with a result, failed with an error, or canceled. Success belongs into the transaction of the work; failure into one of its own, after the work rolled back. Repeating it with the same outcome changes nothing. FS404 when there is no such entry, FS409 when it ended otherwise.';

revoke all on function filestore.finish_command(bigint, text, jsonb, jsonb, bigint[], bigint, bigint) from public;
--! EndIncluded functions/finish_command.sql
--! Included functions/expire_commands.sql
create or replace function filestore.expire_commands(older_than interval, batch integer default 1000)
returns setof filestore.journal_entries
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.check_retention(older_than, batch);
  return query
  update filestore.journal_entries j
  set status       = 'failed',
      error        = jsonb_build_object('code', 'expired', 'message', format('no word of it since it started, longer than %s ago', older_than)),
      completed_at = greatest(clock_timestamp(), j.started_at)
  -- An array, not "in (select …)": planned as a join, the choice would be made
  -- anew for each row, and more than batch would go.
  where j.id = any (array(
    select o.id
    from filestore.journal_entries o
    where o.status = 'running'
      and o.started_at < statement_timestamp() - older_than
    order by o.created_at
    limit batch
    for update skip locked
  ))
  returning j.*;
end
$$;

comment on function filestore.expire_commands(interval, integer) is
  'Marks commands that began longer than older_than ago and never ended as failed, the oldest first, at most batch, and returns them. Who was to end one and comes back late gets FS409.';

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
  pruned   integer;
begin
  perform filestore.check_retention(older_than, batch);
  deadline := statement_timestamp() - older_than;
  delete from filestore.journal_entries j
  where j.ctid = any (array(
    select o.ctid
    from filestore.journal_entries o
    -- An entry ends after it was created: the index on created_at leads there.
    where o.created_at < deadline
      and o.completed_at < deadline
    limit batch
    for update skip locked
  ));
  get diagnostics pruned = row_count;
  return pruned;
end
$$;

comment on function filestore.prune_journal(interval, integer) is
  'Removes at most batch entries that ended longer than older_than ago, and says how many: repeat it until it says 0. What has not ended stays, however old.';

revoke all on function filestore.prune_journal(interval, integer) from public;
--! EndIncluded functions/prune_journal.sql

--! Included triggers/journal_entries_guard.sql
drop trigger if exists journal_entries_guard on filestore.journal_entries;

create trigger journal_entries_guard
  before update or delete on filestore.journal_entries
  for each row
  execute function filestore.guard_journal_entry();

comment on trigger journal_entries_guard on filestore.journal_entries is
  'The journal only goes forward.';
--! EndIncluded triggers/journal_entries_guard.sql
--! Included triggers/journal_entries_refuse_truncate.sql
drop trigger if exists journal_entries_refuse_truncate on filestore.journal_entries;

create trigger journal_entries_refuse_truncate
  before truncate on filestore.journal_entries
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger journal_entries_refuse_truncate on filestore.journal_entries is
  'Truncate would bypass the guards on rows.';
--! EndIncluded triggers/journal_entries_refuse_truncate.sql
