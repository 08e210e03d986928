--! Previous: sha1:b5465ab4af1536a508c465e6305ede8c12c7edbd
--! Hash: sha1:ad904e9081058ef3a863d43436227cf16d5b6b0e
--! Message: Cursors and limits that refusals name

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
drop function if exists filestore.refuse_range(text, text, bigint);
--! Included functions/refuse_range.sql
create or replace function filestore.refuse_range(
  mount_key         text,
  directory         text,
  max_nodes         bigint,
  states            text[],
  metadata_contains jsonb,
  order_by          text default 'path'
)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'this would read more than % nodes of mount "%" below "%"', max_nodes, mount_key, directory
    using errcode    = 'FS422',
          constraint = 'nodes_range_check',
          hint       = format('Give one of these: %s.', concat_ws(
            '; ',
            'a directory with fewer nodes below it',
            case when order_by <> 'path' then 'order_by path' end,
            case when not states <@ '{inconsistent,missing}' then 'only the states inconsistent and missing' end,
            case when metadata_contains is null then 'metadata_contains' end,
            case when max_nodes < 10000000 then 'a larger max_nodes, up to 10000000' end
          ));
end
$$;

comment on function filestore.refuse_range(text, text, bigint, text[], jsonb, text) is
  'Internal: Raises FS422: a list or count would read more nodes than max_nodes. The hint names only what the call does not have.';

revoke all on function filestore.refuse_range(text, text, bigint, text[], jsonb, text) from public;
--! EndIncluded functions/refuse_range.sql
--! Included functions/count_nodes.sql
create or replace function filestore.count_nodes(
  mount_key         text,
  path              text        default '',
  states            text[]      default '{active,inconsistent,missing}',
  kinds             text[]      default null,
  name_contains     text        default null,
  metadata_contains jsonb       default null,
  max_depth         integer     default null,
  changed_since     timestamptz default null,
  min_size          bigint      default null,
  max_size          bigint      default null,
  max_nodes         bigint      default 100000,
  out nodes         bigint,
  out is_estimate   boolean
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  mount_id     constant bigint  := filestore.find_mount(count_nodes.mount_key);
  directory    constant text    := coalesce(filestore.canonical_path(count_nodes.path), '');
  wanted       constant text[]  := array(select s from unnest(coalesce(states, '{active,inconsistent,missing}')) s where s is not null);
  is_dead      constant boolean := 'deleted' = any (wanted);
  directory_id constant bigint  := filestore.listed_directory(mount_id, directory, is_dead);
  -- Without a condition on single nodes, the totals are the answer.
  is_total     constant boolean := wanted @> '{active,inconsistent,missing}'
    and not is_dead
    and coalesce(name_contains, '') = ''
    and num_nonnulls(metadata_contains, changed_since, min_size, max_size) = 0
    and (max_depth is null or (max_depth = 1 and kinds is null));
  examined     bigint;
  matched      bigint;
  totals       record;
begin
  perform filestore.check_limit('max_nodes', max_nodes, 10000000);
  perform filestore.check_list(states, kinds, metadata_contains, max_depth);

  is_estimate := false;
  if not is_total then
    select s.examined, s.matched
    into examined, matched
    from filestore.search_nodes(
      mount_id,
      directory_id,
      directory,
      wanted,
      kinds,
      name_contains,
      metadata_contains,
      max_depth,
      changed_since,
      min_size,
      max_size,
      -- Every order but that of path reads all nodes.
      'size',
      false,
      null,
      null,
      0,
      max_nodes
    ) s;
    nodes := matched;
    if examined <= max_nodes then
      return;
    elsif is_dead then
      perform filestore.refuse_range(count_nodes.mount_key, directory, max_nodes, wanted, metadata_contains);
    end if;
    is_estimate := true;
  end if;

  select *
  into totals
  from filestore.directory_totals(directory_id);
  nodes := case
    when is_estimate then
      round(matched::numeric / examined * case max_depth when 1 then totals.child_count else totals.file_count + totals.dir_count end)
    when max_depth = 1 then totals.child_count
    else
      case when kinds is null or 'file' = any (kinds) then totals.file_count else 0 end
        + case when kinds is null or 'directory' = any (kinds) then totals.dir_count else 0 end
  end;
end
$$;

comment on function filestore.count_nodes(text, text, text[], text[], text, jsonb, integer, timestamptz, bigint, bigint, bigint) is
  'The number of nodes of filestore.list_nodes with the same conditions. It is exact when at most max_nodes nodes have to be read, and for all live nodes or those of a kind, which the totals count. Otherwise is_estimate is true, and the share of the first max_nodes nodes that meet the conditions is taken for that of all. FS404 when the mount or the directory does not exist, FS422 when the state deleted is given, and more than max_nodes nodes would be read.';

revoke all on function filestore.count_nodes(text, text, text[], text[], text, jsonb, integer, timestamptz, bigint, bigint, bigint) from public;
--! EndIncluded functions/count_nodes.sql
--! Included functions/list_nodes.sql
create or replace function filestore.list_nodes(
  mount_key         text,
  path              text                 default '',
  states            text[]               default '{active,inconsistent,missing}',
  kinds             text[]               default null,
  name_contains     text                 default null,
  metadata_contains jsonb                default null,
  max_depth         integer              default null,
  changed_since     timestamptz          default null,
  min_size          bigint               default null,
  max_size          bigint               default null,
  order_by          filestore.node_order default 'path',
  descending        boolean              default false,
  after_cursor      text                 default null,
  page_size         bigint               default 100,
  with_sightings    boolean              default false,
  with_totals       boolean              default false,
  max_nodes         bigint               default 100000
)
returns table (
  cursor             text,
  node               filestore.nodes,
  last_seen_at       timestamptz,
  last_reconciled_at timestamptz,
  total_bytes        numeric,
  file_count         bigint,
  dir_count          bigint,
  child_count        bigint,
  consistency_state  filestore.totals_state,
  last_calculated_at timestamptz
)
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
-- A plan that was made while the tables were empty and analyzed would read the whole table for each row.
set enable_seqscan = off
as $$
declare
  mount_id  constant bigint := filestore.find_mount(list_nodes.mount_key);
  directory constant text   := coalesce(filestore.canonical_path(list_nodes.path), '');
  wanted    constant text[] := array(select s from unnest(coalesce(states, '{active,inconsistent,missing}')) s where s is not null);
  -- In one directory, both orders are the same, and an index has it.
  ordering  constant text   := case when max_depth = 1 and order_by = 'name' then 'path' else coalesce(order_by, 'path') end;
  -- Which list a cursor is of. Another direction, directory or mount has other rows after it.
  mark      constant text   := left(encode(sha256(convert_to(concat_ws(':', mount_id, coalesce(descending, false), directory), 'UTF8')), 'hex'), 8);
  after     text[];
  page      record;
begin
  perform filestore.check_limit('page_size', page_size, 10000);
  perform filestore.check_limit('max_nodes', max_nodes, 10000000);
  perform filestore.check_list(states, kinds, metadata_contains, max_depth);
  if after_cursor is not null then
    -- Release 1.2.0 gave cursors without a mark.
    after := regexp_match(after_cursor, '^(path|name|size|change)(?:[.]([0-9a-f]{8}))?:([0-9]{1,18}):(.*)$');
    if after[1] is distinct from ordering
       or after[2] <> mark
       or (ordering = 'size' and after[4] !~ '^[0-9]{1,19}$')
       -- Milliseconds: more digits are beyond the range of a moment.
       or (ordering = 'change' and after[4] !~ '^-?[0-9]{1,15}$')
       or (ordering = 'path' and not starts_with(after[4], case when directory = '' then '' else directory || '/' end)) then
      raise exception 'after_cursor "%" is not of this list', left(after_cursor, 200)
        using errcode    = 'FS422',
              constraint = 'cursor_check',
              hint       = 'Give the cursor of the last row of the page before, and the same mount, path, order and direction.';
    end if;
  end if;

  select *
  into page
  from filestore.search_nodes(
    mount_id,
    filestore.listed_directory(mount_id, directory, 'deleted' = any (wanted)),
    directory,
    wanted,
    kinds,
    name_contains,
    metadata_contains,
    max_depth,
    changed_since,
    min_size,
    max_size,
    ordering,
    coalesce(descending, false),
    after[4],
    after[3]::bigint,
    page_size,
    max_nodes
  );
  if page.examined > max_nodes then
    perform filestore.refuse_range(list_nodes.mount_key, directory, max_nodes, wanted, metadata_contains, ordering);
  end if;

  return query
  select
    concat_ws(':', ordering || '.' || mark, (n.node).id, case ordering
      when 'path' then (n.node).path
      when 'name' then (n.node).name
      when 'size' then (n.node).size_bytes::text
      else (extract(epoch from (n.node).updated_at) * 1000)::bigint::text
    end),
    n.node,
    s.last_seen_at,
    s.last_reconciled_at,
    t.size_bytes,
    t.file_count,
    t.dir_count,
    t.child_count,
    t.consistency_state,
    t.last_calculated_at
  from unnest(page.node_ids) with ordinality as g (id, place)
  -- "Offset 0" keeps lookups by id, also when statistics are stale, and leaves out what is not requested.
  cross join lateral (
    select f as node
    from filestore.nodes f
    where f.id = g.id
    offset 0
  ) n
  left join lateral (
    select f.last_seen_at, f.last_reconciled_at
    from filestore.node_sightings f
    where f.node_id = g.id
      and with_sightings
    offset 0
  ) s on true
  left join (
    select f.*
    from filestore.list_totals(page.node_ids, with_recounts => true) f
    where with_totals
    offset 0
  ) t on t.node_id = g.id
  order by g.place;
end
$$;

comment on function filestore.list_nodes(text, text, text[], text[], text, jsonb, integer, timestamptz, bigint, bigint, filestore.node_order, boolean, text, bigint, boolean, boolean, bigint) is
  'A page of the nodes below a directory, the root by default, that meet all conditions: live nodes by default, and tombstones with the state deleted. For the next page, give the cursor of the last row as after_cursor. max_depth 1 lists the directory alone. name_contains ignores case. Sizes are those of nodes, 0 for directories. With with_sightings and with_totals, rows also have the sightings, and the totals of directories, as filestore.list_totals returns them, with the moment of their last recount; otherwise these columns are null. FS404 when the mount or the directory does not exist, FS422 when the list would read more than max_nodes nodes, or the cursor is of another mount, path, order or direction.';

revoke all on function filestore.list_nodes(text, text, text[], text[], text, jsonb, integer, timestamptz, bigint, bigint, filestore.node_order, boolean, text, bigint, boolean, boolean, bigint) from public;
--! EndIncluded functions/list_nodes.sql
