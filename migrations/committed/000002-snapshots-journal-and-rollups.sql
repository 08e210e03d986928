--! Previous: sha1:3e80109891596167eca6bed20b58a88833b09fe2
--! Hash: sha1:b77180827b2503e13fcf13e803766688943c9975
--! Message: Snapshots, journal and rollups

create table if not exists filestore.snapshots (
  node_id                  bigint      not null,
  version                  integer     not null,
  backend_mount_id         bigint      not null,
  parent_id                bigint,
  name                     text        collate "C" not null,
  path                     text        collate "C" not null,
  kind                     text        not null,
  size_bytes               bigint      not null,
  checksum                 text        collate "C",
  content_hash             text        collate "C",
  storage_class            text,
  metadata                 jsonb       not null,
  state                    text        not null,
  last_modified_at         timestamptz,
  deleted_at               timestamptz,
  valid_from               timestamptz not null,
  valid_to                 timestamptz not null,
  superseded_by_journal_id bigint,

  constraint snapshots_pkey
    primary key (node_id, version),
  -- Purging a node erases its history; the journal keeps the fact.
  constraint snapshots_node_fkey
    foreign key (node_id)
    references filestore.nodes (id)
    on delete cascade,
  constraint snapshots_valid_check
    check (valid_from < valid_to)
);

-- The tree of a mount as it was at a moment.
create index if not exists snapshots_path_idx
  on filestore.snapshots (backend_mount_id, path, valid_to);

comment on table  filestore.snapshots                          is 'Superseded versions of nodes, one row a node and version: what the row said from valid_from until valid_to.';
comment on column filestore.snapshots.node_id                  is 'The node.';
comment on column filestore.snapshots.version                  is 'The version that was superseded.';
comment on column filestore.snapshots.backend_mount_id         is 'Its mount.';
comment on column filestore.snapshots.parent_id                is 'Its parent then; null for a root.';
comment on column filestore.snapshots.name                     is 'Its name then.';
comment on column filestore.snapshots.path                     is 'Its path then.';
comment on column filestore.snapshots.kind                     is 'file or directory.';
comment on column filestore.snapshots.size_bytes               is 'Its size then, in bytes.';
comment on column filestore.snapshots.checksum                 is 'Its checksum then.';
comment on column filestore.snapshots.content_hash             is 'Its content_hash then.';
comment on column filestore.snapshots.storage_class            is 'Its storage class then.';
comment on column filestore.snapshots.metadata                 is 'Its metadata then.';
comment on column filestore.snapshots.state                    is 'Its state then.';
comment on column filestore.snapshots.last_modified_at         is 'Its last_modified_at then.';
comment on column filestore.snapshots.deleted_at               is 'Its deleted_at then.';
comment on column filestore.snapshots.valid_from               is 'First moment at which this version was the current one.';
comment on column filestore.snapshots.valid_to                 is 'First moment at which it no longer was.';
comment on column filestore.snapshots.superseded_by_journal_id is 'Journal entry of the command that superseded it; null when none was named.';
comment on constraint snapshots_pkey        on filestore.snapshots is 'One row a node and version.';
comment on constraint snapshots_node_fkey   on filestore.snapshots is 'The node exists, living or tombstoned; purging it erases its history.';
comment on constraint snapshots_valid_check on filestore.snapshots is 'A version was valid for some time.';
comment on index filestore.snapshots_path_idx is 'The tree of a mount as it was at a moment.';

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
    check (completed_at >= started_at),
  constraint journal_entries_outcome_check
    check (
      (result is null or status = 'succeeded')
      and (error is null or status in ('failed', 'canceled'))
      and (error is not null or status <> 'failed')
    ),
  constraint journal_entries_idempotency_key_check
    check (idempotency_key <> '')
);

-- A retry finds the first entry.
create unique index if not exists journal_entries_idempotency_key
  on filestore.journal_entries (command, idempotency_key)
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
comment on constraint journal_entries_order_check     on filestore.journal_entries is 'A command does not end before it starts.';
comment on constraint journal_entries_outcome_check   on filestore.journal_entries is 'result belongs to success; error to failure, which needs one, or cancellation.';
comment on index filestore.journal_entries_idempotency_key is 'A retry finds the first entry.';
comment on index filestore.journal_entries_created_idx     is 'Entries of a span of time; pruning.';
comment on index filestore.journal_entries_open_idx        is 'Unfinished commands.';
comment on index filestore.journal_entries_affected_idx    is 'Commands that changed a node.';
comment on index filestore.journal_entries_correlation_idx is 'Commands of one correlation.';

-- No check that a total is not negative: totals are folded from appended
-- changes in any order, so that one may dip below zero before the rest of its
-- changes arrive, and clamping it would lose that. No index on the counters:
-- they change at every fold.
create table if not exists filestore.rollups (
  node_id            bigint      not null,
  size_bytes         bigint      not null default 0,
  file_count         bigint      not null default 0,
  dir_count          bigint      not null default 0,
  consistency_state  text        not null default 'up_to_date',
  last_calculated_at timestamptz not null default statement_timestamp(),
  updated_at         timestamptz not null default statement_timestamp(),

  constraint rollups_pkey
    primary key (node_id),
  -- Derived data goes with what it is derived from.
  constraint rollups_node_fkey
    foreign key (node_id)
    references filestore.nodes (id)
    on delete cascade,
  constraint rollups_consistency_state_check
    check (consistency_state in ('up_to_date', 'stale'))
);

comment on table  filestore.rollups                    is 'Totals of the live nodes in the whole subtree below a directory, itself not counted, as far as they are folded.';
comment on column filestore.rollups.node_id            is 'The directory.';
comment on column filestore.rollups.size_bytes         is 'Sum of size_bytes of the files below.';
comment on column filestore.rollups.file_count         is 'Number of files below.';
comment on column filestore.rollups.dir_count          is 'Number of directories below.';
comment on column filestore.rollups.consistency_state  is 'up_to_date, or stale when the totals are known to need a recount.';
comment on column filestore.rollups.last_calculated_at is 'When the totals were last recounted from the nodes.';
comment on column filestore.rollups.updated_at         is 'When the totals last changed.';
comment on constraint rollups_node_fkey on filestore.rollups is 'The directory exists, living or tombstoned; its totals go with it.';
