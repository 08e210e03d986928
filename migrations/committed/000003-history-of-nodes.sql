--! Previous: sha1:476edacf908b7e15ef10dfc22c9d3be4bd6c4cf4
--! Hash: sha1:3c719661af34de323f9a6672e09c6e54e0498571
--! Message: History of nodes

-- Three extra columns, and then those of nodes in the same order. A new column is added at the end of both tables.
-- No foreign key: only the trigger on nodes writes here, and the key would cost a lookup for each version.
create table if not exists filestore.snapshots (
  valid_from               timestamptz(3) not null,
  valid_to                 timestamptz(3) not null,
  superseded_by_journal_id bigint,
  like filestore.nodes including comments,

  constraint snapshots_pkey
    primary key (id, version),
  constraint snapshots_valid_check
    check (valid_from < valid_to)
);

create index if not exists snapshots_path_idx
  on filestore.snapshots (backend_mount_id, path, valid_to);
-- A brin index needs a few bytes for many versions. A new version has the current time in valid_to, so a search reads
-- only pages that were written since the given moment, also where versions fill space that a purge freed.
create index if not exists snapshots_changed_idx
  on filestore.snapshots using brin (valid_to)
  with (pages_per_range = 16, autosummarize = on);

comment on table  filestore.snapshots                          is 'Superseded versions of nodes, one row per node and version: the columns of nodes as they were from valid_from until valid_to. id is the id of the node.';
comment on column filestore.snapshots.valid_from               is 'First moment at which this version was the current one.';
comment on column filestore.snapshots.valid_to                 is 'First moment at which it was superseded.';
comment on column filestore.snapshots.superseded_by_journal_id is 'Journal entry of the command that superseded it; null when the change had no entry.';
comment on constraint snapshots_pkey        on filestore.snapshots is 'One row per node and version.';
comment on constraint snapshots_valid_check on filestore.snapshots is 'valid_to is later than valid_from.';
comment on index filestore.snapshots_path_idx is 'The tree of a mount as it was at a moment.';
comment on index filestore.snapshots_changed_idx is 'Nodes that changed since a moment.';

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
  'Refuses to change what a node keeps forever, or its version, except to increment it together with another change. Keeps the other columns that the database sets.';

revoke all on function filestore.keep_node_columns() from public;
--! EndIncluded functions/keep_node_columns.sql
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
    -- at most an hour before the clock: retention counts from updated_at, and a "do" block may run for days.
    new.updated_at := greatest(
      date_trunc('milliseconds', greatest(statement_timestamp(), clock_timestamp() - interval '1 hour')),
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
--! Included functions/current_journal_entry.sql
create or replace function filestore.current_journal_entry()
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  setting text := current_setting('filestore.journal_entry_id', true);
  entry   bigint;
begin
  -- begin_work adds the transaction's number, so that a value from an earlier transaction is refused.
  if setting ~ '^[0-9]{1,18}/[0-9]{1,20}$' and split_part(setting, '/', 2) = pg_current_xact_id_if_assigned()::text then
    select j.id
    into entry
    from filestore.journal_entries j
    where j.id = split_part(setting, '/', 1)::bigint
      and j.status = 'running'
    -- As begin_work does, so that no other transaction ends the entry before this one commits.
    for no key update;
  end if;
  if entry is null then
    raise exception 'the setting filestore.journal_entry_id is "%", which is not a running journal entry of this transaction', left(setting, 40)
      using errcode    = 'FS422',
            constraint = 'journal_entry_id_check',
            hint       = 'Call filestore.begin_work(entry_id) at the start of the transaction, and filestore.finish_command at its end.';
  end if;
  return entry;
end
$$;

comment on function filestore.current_journal_entry() is
  'Internal: The running journal entry for which filestore.begin_work was called in this transaction. Call it when the setting filestore.journal_entry_id is set. FS422 when the setting has any other value.';

revoke all on function filestore.current_journal_entry() from public;
--! EndIncluded functions/current_journal_entry.sql
--! Included functions/guard_snapshot.sql
create or replace function filestore.guard_snapshot()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    raise exception 'history of node % cannot be written by hand', new.id
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
  'Refuses to write or change history.';

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
  from removed r
  -- "Offset 0" keeps this a lookup by id. The planner would otherwise keep the row estimate of the session's first
  -- statement.
  cross join lateral (
    select
    from filestore.nodes n
    where n.id = r.id
    offset 0
  ) node
  limit 1;
  if found then
    raise exception 'version % of node % ("%") is history and cannot be removed', kept.version, kept.id, kept.path
      using errcode    = 'FS409',
            constraint = 'snapshots_fixed',
            hint       = 'Purge the node: that removes its history.';
  end if;
  return null;
end
$$;

comment on function filestore.guard_history_removal() is
  'Refuses to remove history while its node exists.';

revoke all on function filestore.guard_history_removal() from public;
--! EndIncluded functions/guard_history_removal.sql

--! Included triggers/nodes_keep_columns.sql
drop trigger if exists nodes_keep_columns on filestore.nodes;

-- Before nodes_prepare_update, which sets some of these columns: triggers run in the order of their names. The usual
-- updates name none of them.
create trigger nodes_keep_columns
  before update of
    id,
    created_at,
    updated_at,
    depth,
    version,
    kind,
    path,
    directory_path,
    root_of_mount_id
  on filestore.nodes
  for each row
  execute function filestore.keep_node_columns();

comment on trigger nodes_keep_columns on filestore.nodes is
  'Keeps the columns that no writer chooses, in updates that set one of them.';
--! EndIncluded triggers/nodes_keep_columns.sql
--! Included triggers/nodes_set_version.sql
drop trigger if exists nodes_set_version on filestore.nodes;

-- After nodes_prepare_update: triggers run in the order of their names.
create trigger nodes_set_version
  before update on filestore.nodes
  for each row
  execute function filestore.set_node_version();

comment on trigger nodes_set_version on filestore.nodes is
  'Increments the version of a node that changes.';
--! EndIncluded triggers/nodes_set_version.sql
--! Included triggers/snapshots_guard.sql
drop trigger if exists snapshots_guard on filestore.snapshots;

create trigger snapshots_guard
  before update on filestore.snapshots
  for each row
  execute function filestore.guard_snapshot();

comment on trigger snapshots_guard on filestore.snapshots is
  'Refuses to change history.';
--! EndIncluded triggers/snapshots_guard.sql
--! Included triggers/snapshots_guard_insert.sql
drop trigger if exists snapshots_guard_insert on filestore.snapshots;

create trigger snapshots_guard_insert
  before insert on filestore.snapshots
  for each row
  when (
    pg_trigger_depth() = 0
  )
  execute function filestore.guard_snapshot();

comment on trigger snapshots_guard_insert on filestore.snapshots is
  'Refuses to insert history: only the trigger on nodes writes it.';
--! EndIncluded triggers/snapshots_guard_insert.sql
--! Included triggers/snapshots_guard_removal.sql
drop trigger if exists snapshots_guard_removal on filestore.snapshots;

create trigger snapshots_guard_removal
  after delete on filestore.snapshots
  referencing old table as removed
  for each statement
  execute function filestore.guard_history_removal();

comment on trigger snapshots_guard_removal on filestore.snapshots is
  'Refuses to remove the history of a node that exists.';
--! EndIncluded triggers/snapshots_guard_removal.sql
--! Included triggers/snapshots_refuse_truncate.sql
drop trigger if exists snapshots_refuse_truncate on filestore.snapshots;

create trigger snapshots_refuse_truncate
  before truncate on filestore.snapshots
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger snapshots_refuse_truncate on filestore.snapshots is
  'Refuses truncate, which would bypass the triggers that guard rows.';
--! EndIncluded triggers/snapshots_refuse_truncate.sql

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
  'Every version of every node. The current version, which is the row of nodes itself, has no valid_to.';

comment on column filestore.view_filestore_node_versions.valid_from               is 'First moment at which this version was the current one.';
comment on column filestore.view_filestore_node_versions.valid_to                 is 'First moment at which it was superseded; null for the current version.';
comment on column filestore.view_filestore_node_versions.superseded_by_journal_id is 'Journal entry of the command that superseded it; null for the current version, or when the change had no entry.';
--! EndIncluded views/view_filestore_node_versions.sql

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
end
$$;

comment on function filestore.node_at(bigint, timestamptz) is
  'The version of a node that was current at a moment; no row when the node did not exist yet.';

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
begin
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
  'The nodes at and below a path as they were at a moment, in order of path, without nodes that were deleted at that time.';

revoke all on function filestore.tree_at(text, text, timestamptz) from public;
--! EndIncluded functions/tree_at.sql
