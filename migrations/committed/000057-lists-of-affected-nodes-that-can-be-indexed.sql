--! Previous: sha1:2e7dfa78de6215f8da2125b95ece1b2f40c7a974
--! Hash: sha1:37db03ceb35a5b65ff85d42997d3b8abc4ef6b3c
--! Message: Lists of affected nodes that can be indexed

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
        -- The index journal_entries_nodes_idx appends two ids.
        and array_upper(entry.affected_node_ids, 1) <= 2000000000
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
          then cardinality(entry.affected_node_ids) <= 100000
            and coalesce(array_upper(entry.affected_node_ids, 1), 0) <= 2000000000
            and array_position(entry.affected_node_ids, null) is null
        else false
      end,
      'has affected_node_ids that are not a plain list of ids',
      'Give at most 100000 ids in one dimension, without nulls. For a bigger tree, give the id of its top.'
    ),
    (
      'journal_entries_size_check',
      false,
      case
        when not filestore.is_small_json(entry.parameters, 1048576) then 'has parameters of more than 1048576 bytes as JSON text, or of more than 500 levels'
        when not filestore.is_small_json(entry.result, 1048576) then 'has a result of more than 1048576 bytes as JSON text, or of more than 500 levels'
        when not filestore.is_small_json(entry.error, 1048576) then 'has an error of more than 1048576 bytes as JSON text, or of more than 500 levels'
        when octet_length(entry.correlation_id) > 1024 then 'has a correlation_id of more than 1024 bytes'
        else 'has texts of more than 4096 bytes together'
      end,
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
