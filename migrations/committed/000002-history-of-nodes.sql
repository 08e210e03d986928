--! Previous: sha1:b67c2843c26cf3ed4d0eddbdde1ce8e32d7e5bfc
--! Hash: sha1:b4377166120a2bad9a19648ae200101956806ed1
--! Message: History of nodes

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
  live                     boolean     not null,
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
comment on column filestore.snapshots.live                     is 'False when it was deleted.';
comment on column filestore.snapshots.last_modified_at         is 'Its last_modified_at then.';
comment on column filestore.snapshots.deleted_at               is 'Its deleted_at then.';
comment on column filestore.snapshots.valid_from               is 'First moment at which this version was the current one.';
comment on column filestore.snapshots.valid_to                 is 'First moment at which it no longer was.';
comment on column filestore.snapshots.superseded_by_journal_id is 'Journal entry of the command that superseded it; null when none was named.';
comment on constraint snapshots_pkey        on filestore.snapshots is 'One row a node and version.';
comment on constraint snapshots_node_fkey   on filestore.snapshots is 'The node exists, living or tombstoned; purging it erases its history.';
comment on constraint snapshots_valid_check on filestore.snapshots is 'A version was valid for some time.';
comment on index filestore.snapshots_path_idx is 'The tree of a mount as it was at a moment.';

--! Included functions/current_journal_entry.sql
create or replace function filestore.current_journal_entry()
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  setting text := current_setting('filestore.journal_entry_id', true);
begin
  -- After the transaction that set it, it is '' and not null.
  if setting is null or setting = '' then
    return null;
  elsif setting !~ '^[0-9]{1,18}$' then
    raise exception 'the setting filestore.journal_entry_id is "%", not the number of a journal entry', left(setting, 40)
      using errcode = 'FS422',
            hint    = 'select set_config(''filestore.journal_entry_id'', entry_id::text, true)';
  end if;
  return setting::bigint;
end
$$;

comment on function filestore.current_journal_entry() is
  'The journal entry of the command that this transaction carries out, from the setting filestore.journal_entry_id; null when none is named.';

revoke all on function filestore.current_journal_entry() from public;
--! EndIncluded functions/current_journal_entry.sql
--! Included functions/record_node_version.sql
create or replace function filestore.record_node_version()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into filestore.snapshots (
    node_id,
    version,
    backend_mount_id,
    parent_id,
    name,
    path,
    kind,
    size_bytes,
    checksum,
    content_hash,
    storage_class,
    metadata,
    state,
    live,
    last_modified_at,
    deleted_at,
    valid_from,
    valid_to,
    superseded_by_journal_id
  )
  values (
    old.id,
    old.version,
    old.backend_mount_id,
    old.parent_id,
    old.name,
    old.path,
    old.kind,
    old.size_bytes,
    old.checksum,
    old.content_hash,
    old.storage_class,
    old.metadata,
    old.state,
    old.live,
    old.last_modified_at,
    old.deleted_at,
    old.updated_at,
    new.updated_at,
    filestore.current_journal_entry()
  );
  return null;
end
$$;

comment on function filestore.record_node_version() is
  'Keeps the version of a node that an update supersedes.';

revoke all on function filestore.record_node_version() from public;
--! EndIncluded functions/record_node_version.sql
--! Included functions/guard_snapshot.sql
create or replace function filestore.guard_snapshot()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A purged node takes its history along: then it is gone already.
  if tg_op = 'DELETE' and not exists (select from filestore.nodes n where n.id = old.node_id) then
    return old;
  end if;
  if tg_op = 'INSERT' then
    raise exception 'history of node % cannot be written by hand', new.node_id
      using errcode = 'FS409',
            hint    = 'It is kept by the database when a node changes.';
  end if;
  raise exception 'version % of node % ("%") is history and cannot be changed', old.version, old.node_id, old.path
    using errcode = 'FS409',
          hint    = 'To bring an old version back, call filestore.revert_node; history goes when its node is purged.';
end
$$;

comment on function filestore.guard_snapshot() is
  'Refuses to write or change history, or to remove it while its node exists.';

revoke all on function filestore.guard_snapshot() from public;
--! EndIncluded functions/guard_snapshot.sql
--! Included functions/find_mount.sql
create or replace function filestore.find_mount(mount_key text)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint;
begin
  select m.id
  into mount_id
  from filestore.backend_mounts m
  where m.mount_key = find_mount.mount_key;

  if mount_id is null then
    raise exception 'mount "%" does not exist', mount_key
      using errcode = 'FS404',
            hint    = 'select mount_key from filestore.backend_mounts lists the mounts.';
  end if;
  return mount_id;
end
$$;

comment on function filestore.find_mount(text) is
  'The id of the mount with a key; FS404 when there is none.';

revoke all on function filestore.find_mount(text) from public;
--! EndIncluded functions/find_mount.sql
--! Included functions/check_limit.sql
create or replace function filestore.check_limit(argument text, value integer)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if value is null or value < 1 then
    raise exception '% is %', argument, coalesce(value::text, 'null')
      using errcode = 'FS422',
            hint    = 'Give the number of rows that one call may take, at least 1.';
  end if;
end
$$;

comment on function filestore.check_limit(text, integer) is
  'Raises FS422 when the number of rows that a call may take makes no sense.';

revoke all on function filestore.check_limit(text, integer) from public;
--! EndIncluded functions/check_limit.sql
--! Included functions/check_name.sql
create or replace function filestore.check_name(name text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  fault text := case
    when name is null                                then 'is null'
    when name in ('', '.', '..')                     then 'is no name'
    when strpos(name, '/') > 0                       then 'contains a slash'
    when name ~ '[\u0001-\u001f\u007f-\u009f]'       then 'contains a control character'
    when octet_length(name) > 1024                   then format('has %s bytes', octet_length(name))
  end;
begin
  if fault is not null then
    raise exception 'name "%" %', left(regexp_replace(name, '[\u0001-\u001f\u007f-\u009f]', '?', 'g'), 40), fault
      using errcode = 'FS422',
            hint    = 'A name is a segment of a path: not empty, "." or "..", without "/" and control characters, at most 1024 bytes.';
  end if;
end
$$;

comment on function filestore.check_name(text) is
  'Raises FS422 when a name cannot be a segment of a path.';

revoke all on function filestore.check_name(text) from public;
--! EndIncluded functions/check_name.sql
--! Included functions/canonical_path.sql
create or replace function filestore.canonical_path(path text)
returns text
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  segments  text[] := array_remove(array_remove(string_to_array(path, '/'), ''), '.');
  segment   text;
  canonical text   := array_to_string(segments, '/');
begin
  foreach segment in array segments loop
    if segment = '..' then
      raise exception 'path "%" contains ".."', left(path, 200)
        using errcode = 'FS422',
              hint    = 'Resolve it first: where ".." leads is the backend''s business.';
    end if;
    perform filestore.check_name(segment);
  end loop;
  if octet_length(canonical) > 2600 then
    raise exception 'path "%…" has % bytes', left(canonical, 40), octet_length(canonical)
      using errcode = 'FS422',
            hint    = 'A path has at most 2600 bytes.';
  end if;
  return canonical;
end
$$;

comment on function filestore.canonical_path(text) is
  'A path as nodes.path holds it: without leading, trailing and repeated slashes and without "." segments. canonical_path(''/a//./b/'') is ''a/b''. FS422 for "..", control characters, and what is too long.';

revoke all on function filestore.canonical_path(text) from public;
--! EndIncluded functions/canonical_path.sql

--! Included triggers/nodes_record_version.sql
drop trigger if exists nodes_record_version on filestore.nodes;

-- For each row and for these columns, so that a heartbeat, which supersedes
-- nothing, costs nothing: a statement's trigger with transition tables cannot
-- name columns, and cannot look into its rows beforehand.
create trigger nodes_record_version
  after update of
    id,
    backend_mount_id,
    parent_id,
    parent_path,
    parent_live,
    name,
    directory_path,
    live,
    kind,
    size_bytes,
    checksum,
    content_hash,
    storage_class,
    metadata,
    state,
    version,
    last_modified_at,
    created_at,
    updated_at,
    deleted_at
  on filestore.nodes
  for each row
  when (
    old.version <> new.version
  )
  execute function filestore.record_node_version();

comment on trigger nodes_record_version on filestore.nodes is
  'No version of a node is lost.';
--! EndIncluded triggers/nodes_record_version.sql
--! Included triggers/snapshots_guard.sql
drop trigger if exists snapshots_guard on filestore.snapshots;

create trigger snapshots_guard
  before update or delete on filestore.snapshots
  for each row
  execute function filestore.guard_snapshot();

comment on trigger snapshots_guard on filestore.snapshots is
  'History is never changed; it goes with its node.';
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
  'History is written by the trigger on nodes only.';
--! EndIncluded triggers/snapshots_guard_insert.sql
--! Included triggers/snapshots_refuse_truncate.sql
drop trigger if exists snapshots_refuse_truncate on filestore.snapshots;

create trigger snapshots_refuse_truncate
  before truncate on filestore.snapshots
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger snapshots_refuse_truncate on filestore.snapshots is
  'Truncate would bypass the guards on rows.';
--! EndIncluded triggers/snapshots_refuse_truncate.sql

--! Included views/view_filestore_node_versions.sql
drop view if exists filestore.view_filestore_node_versions;

create view filestore.view_filestore_node_versions as
select
  s.node_id,
  s.version,
  s.backend_mount_id,
  s.parent_id,
  s.name,
  s.path,
  s.kind,
  s.size_bytes,
  s.checksum,
  s.content_hash,
  s.storage_class,
  s.metadata,
  s.state,
  s.live,
  s.last_modified_at,
  s.deleted_at,
  s.valid_from,
  s.valid_to,
  s.superseded_by_journal_id
from filestore.snapshots s
union all
select
  n.id,
  n.version::integer,
  n.backend_mount_id,
  n.parent_id,
  n.name::text,
  n.path,
  n.kind::text,
  n.size_bytes::bigint,
  n.checksum::text,
  n.content_hash,
  n.storage_class,
  n.metadata::jsonb,
  n.state::text,
  n.live,
  n.last_modified_at,
  n.deleted_at,
  n.updated_at,
  null,
  null
from filestore.nodes n;

comment on view filestore.view_filestore_node_versions is
  'Every version of every node, the current one included: its valid_to is null.';

comment on column filestore.view_filestore_node_versions.node_id                  is 'nodes.id.';
comment on column filestore.view_filestore_node_versions.version                  is 'Optimistic version, counted from 1.';
comment on column filestore.view_filestore_node_versions.backend_mount_id         is 'nodes.backend_mount_id.';
comment on column filestore.view_filestore_node_versions.parent_id                is 'Its parent in this version; null for a root.';
comment on column filestore.view_filestore_node_versions.name                     is 'Its name in this version; empty for a root.';
comment on column filestore.view_filestore_node_versions.path                     is 'Its path in this version.';
comment on column filestore.view_filestore_node_versions.kind                     is 'file or directory.';
comment on column filestore.view_filestore_node_versions.size_bytes               is 'Bytes; 0 for a directory.';
comment on column filestore.view_filestore_node_versions.checksum                 is 'algorithm:hex.';
comment on column filestore.view_filestore_node_versions.content_hash             is 'The backend''s own identity of the content.';
comment on column filestore.view_filestore_node_versions.storage_class            is 'The backend''s storage class.';
comment on column filestore.view_filestore_node_versions.metadata                 is 'A JSON object of the service''s own.';
comment on column filestore.view_filestore_node_versions.state                    is 'active, inconsistent, missing or deleted.';
comment on column filestore.view_filestore_node_versions.live                     is 'False when it was deleted.';
comment on column filestore.view_filestore_node_versions.last_modified_at         is 'What the backend said.';
comment on column filestore.view_filestore_node_versions.deleted_at               is 'When it was deleted.';
comment on column filestore.view_filestore_node_versions.valid_from               is 'First moment at which this version was the current one.';
comment on column filestore.view_filestore_node_versions.valid_to                 is 'First moment at which it no longer was; null for the current one.';
comment on column filestore.view_filestore_node_versions.superseded_by_journal_id is 'Journal entry of the command that superseded it; null when none was named.';
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
  where v.node_id = node_at.node_id
    and v.valid_from <= moment
    and (v.valid_to > moment or v.valid_to is null);
end
$$;

comment on function filestore.node_at(bigint, timestamptz) is
  'The version of a node that was current at a moment; no row when the node was not there yet.';

revoke all on function filestore.node_at(bigint, timestamptz) from public;
--! EndIncluded functions/node_at.sql
--! Included functions/tree_at.sql
create or replace function filestore.tree_at(mount_key text, path text, moment timestamptz)
returns setof filestore.snapshots
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint := filestore.find_mount(tree_at.mount_key);
  top      text   := filestore.canonical_path(tree_at.path);
  -- '0' follows '/'. Below the root no path reaches the upper bound: it has
  -- at most 2600 bytes, and U+10FFFF is the last character there is.
  lower    text   := case when top = '' then '' else top || '/' end;
  upper    text   := case when top = '' then repeat(U&'\+10FFFF', 651) else top || '0' end;
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
  'The tree at and below a path as it was at a moment, in order of path; what was deleted then is left out.';

revoke all on function filestore.tree_at(text, text, timestamptz) from public;
--! EndIncluded functions/tree_at.sql
