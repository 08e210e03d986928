--! Previous: sha1:c55264ab38af369cbc9677a7e423bcb8e14e53a6
--! Hash: sha1:476edacf908b7e15ef10dfc22c9d3be4bd6c4cf4
--! Message: The tree of nodes

-- The two enumerations are domains: the server keeps their checks for the session, and the generated row types list
-- their values.
do $$
begin
  if to_regtype('filestore.node_kind') is null then
    create domain filestore.node_kind as text collate "C"
      constraint node_kind_check check (value in ('file', 'directory'));
  end if;
  if to_regtype('filestore.node_state') is null then
    create domain filestore.node_state as text collate "C"
      constraint node_state_check check (value in ('active', 'inconsistent', 'missing', 'deleted'));
  end if;
end
$$;

comment on domain filestore.node_kind  is 'What a node is: file or directory.';
comment on domain filestore.node_state is 'What the catalogue last knew of a node.';

-- No generated columns: the server would read their expressions from the catalog at every statement, and "replica
-- identity full" would make updates fail on PostgreSQL 18.
create table if not exists filestore.nodes (
  -- To reach a column, Postgres steps over each text and null before it. So the columns that every search and sum reads
  -- come first.
  id               bigint               generated always as identity (maxvalue 1099511627775),
  backend_mount_id bigint               not null,
  size_bytes       bigint               not null default 0,
  created_at       timestamptz(3)       not null default date_trunc('milliseconds', statement_timestamp()),
  updated_at       timestamptz(3)       not null default date_trunc('milliseconds', statement_timestamp()),
  depth            integer              not null,
  version          integer              not null default 1,
  live             boolean              not null default true,
  kind             filestore.node_kind  not null,
  state            filestore.node_state not null default 'active',
  parent_id        bigint,
  parent_path      text                 collate "C",
  parent_live      boolean,
  name             text                 collate "C" not null,
  path             text                 collate "C" not null,
  directory_path   text                 collate "C",
  checksum         text                 collate "C",
  content_hash     text                 collate "C",
  storage_class    text,
  link_target      text                 collate "C",
  metadata         jsonb                not null default '{}',
  last_modified_at timestamptz(3),
  deleted_at       timestamptz(3),
  -- Only the root node references its mount. The mount of other nodes follows from their parents, and a foreign key on
  -- all of them would make every writer lock the mount's row.
  root_of_mount_id bigint,

  constraint nodes_pkey
    primary key (id),
  -- The target of nodes_parent_fkey. A file has no directory_path, so it can have no children. A tombstone is not live,
  -- so no live row can be below it.
  -- The mount is not the first column: statistics may not know a new mount yet. The planner then expects one row of it, and
  -- the key would look for the children of a directory by reading the whole mount. Nor is the id: this index is wider than
  -- that of nodes_pkey.
  constraint nodes_directory_key
    unique (directory_path, id, backend_mount_id, live),
  -- The columns are plain. With generated columns in a referenced key, any before-update trigger makes any update of a
  -- directory take the strongest row lock, and concurrent creates in it wait.
  constraint nodes_parent_fkey
    foreign key (backend_mount_id, parent_id, parent_path, parent_live)
    references filestore.nodes (backend_mount_id, id, directory_path, live)
    on update cascade,
  -- No cascade: it would erase a whole mount in one statement. A trigger removes the root of a mount that is deleted,
  -- and refuses when the mount has other nodes.
  constraint nodes_backend_mount_fkey
    foreign key (root_of_mount_id)
    references filestore.backend_mounts (id)
);

create unique index if not exists nodes_root_key
  on filestore.nodes (root_of_mount_id)
  where root_of_mount_id is not null;
-- The predicate uses parent_live and not deleted_at, which would select the same rows. The cascade compares all four
-- key columns by equality. That implies "parent_live is not null", but nothing about deleted_at, so it would read the
-- whole table once per moved directory.
-- The mount is left out, since it follows from the parent: the index is narrower, and parent_id alone finds its rows.
create unique index if not exists nodes_live_child_key
  on filestore.nodes (parent_id, name)
  where parent_live is not null;
-- Always empty. nodes_parent_fkey looks for children with parent_live = false. The planner turns that into "not
-- parent_live", for which it cannot use the index above: without this one, it would read all nodes.
create index if not exists nodes_dead_child_idx
  on filestore.nodes (parent_id)
  where not parent_live;
-- Not unique: parent and name make live paths unique already, and a second unique index would raise 23505 in spite of
-- "on conflict".
create index if not exists nodes_live_path_idx
  on filestore.nodes (backend_mount_id, path)
  where live;
-- The predicate differs from that of nodes_purge_idx. Otherwise, right after a mass delete, the planner may use
-- nodes_purge_idx here and read every tombstone at every lookup.
create index if not exists nodes_tombstone_parent_idx
  on filestore.nodes (parent_id, name, id)
  where not live;
-- With deleted_at and id, a lookup reads only the last deleted tombstone of a path, even if the path is reused all day.
create index if not exists nodes_dead_path_idx
  on filestore.nodes (backend_mount_id, path, deleted_at, id)
  where not live;
-- Retention counts from updated_at, but an index on that column would make every update write to all indexes.
create index if not exists nodes_purge_idx
  on filestore.nodes (backend_mount_id, deleted_at, depth desc)
  where deleted_at is not null;
-- With eight bytes per digest, the index has a fifth of the size of one on the text. A hash index would slow down
-- without limit when many files are equal.
create index if not exists nodes_checksum_idx
  on filestore.nodes (hashtextextended(checksum, 0))
  where checksum is not null;
create index if not exists nodes_unsettled_idx
  on filestore.nodes (backend_mount_id, state, id)
  where state in ('inconsistent', 'missing');
-- Not partial: the planner cannot infer "metadata <> '{}'" from "metadata @> $1". Each search reads the whole list of
-- pending entries, so the list is kept short.
create index if not exists nodes_metadata_idx
  on filestore.nodes using gin (metadata jsonb_path_ops)
  with (gin_pending_list_limit = 64);

comment on table  filestore.nodes                  is 'One row per file or directory, live or tombstone. nodes_parent_fkey guarantees the tree: the parent of every live row is a live directory of the same mount, at parent_path.';
comment on column filestore.nodes.id               is 'Stable number of the node, for other services to refer to. Never reused: a new node at the same path has a new id.';
comment on column filestore.nodes.backend_mount_id is 'The mount whose tree the node belongs to. Never changes.';
comment on column filestore.nodes.size_bytes       is 'Size of the content in bytes; 0 for a directory.';
comment on column filestore.nodes.created_at       is 'When the row was inserted. Never changes.';
comment on column filestore.nodes.updated_at       is 'When version last changed, in whole milliseconds. Each change sets a later moment. On a tombstone, retention counts from here.';
comment on column filestore.nodes.depth            is 'Number of segments in path: 0 for the root. Set by trigger.';
comment on column filestore.nodes.version          is 'Optimistic version: a trigger adds 1 at every change.';
comment on column filestore.nodes.live             is 'Whether deleted_at is null, as a plain column that keys can refer to. Set by trigger.';
comment on column filestore.nodes.kind             is 'file or directory. Never changes.';
comment on column filestore.nodes.state            is 'active, inconsistent (drift seen), missing (not found on the backend) or deleted (tombstone).';
comment on column filestore.nodes.parent_id        is 'The directory that holds the node; null for the root of a mount only.';
comment on column filestore.nodes.parent_path      is 'Path of the parent, kept up to date by nodes_parent_fkey while the node is live. A tombstone keeps the path that the parent had when the node was deleted. Set by trigger when null.';
comment on column filestore.nodes.parent_live      is 'True while the node is live; null on a root and on a tombstone, so that nodes_parent_fkey does not apply to it. Set by trigger.';
comment on column filestore.nodes.name             is 'Last segment of the path; empty for the root only. At most 255 bytes on local mounts, 1024 on S3.';
comment on column filestore.nodes.path             is 'Path below the mount''s root, without leading slash; empty for the root. At most 2600 bytes. Set by trigger.';
comment on column filestore.nodes.directory_path   is 'Same as path for a directory, null for a file. nodes_parent_fkey refers to it. Set by trigger.';
comment on column filestore.nodes.checksum         is 'Verified digest of the content, as algorithm:hex in lower case, such as md5:0cc175b9c0f1b6a831c399e269772661.';
comment on column filestore.nodes.content_hash     is 'The backend''s own identity of the content, such as an ETag; only comparable within one backend. At most 1024 bytes.';
comment on column filestore.nodes.storage_class    is 'The backend''s storage class, such as STANDARD_IA. At most 256 bytes.';
comment on column filestore.nodes.link_target      is 'A symbolic link''s target, as the backend stores it; null for everything else. The catalogue does not follow it. At most 4096 bytes.';
comment on column filestore.nodes.metadata         is 'A JSON object with data of the service. At most 64 KiB as text.';
comment on column filestore.nodes.last_modified_at is 'When the backend says the content was last modified.';
comment on column filestore.nodes.deleted_at       is 'When the node was deleted, as its writer says; all rows of one recursive delete share it. Null while the node is live.';
comment on column filestore.nodes.root_of_mount_id is 'Same as backend_mount_id on a root, null elsewhere. nodes_backend_mount_fkey checks it. Set by trigger.';

comment on constraint nodes_directory_key      on filestore.nodes is 'The target of nodes_parent_fkey: a live directory and its path.';
comment on constraint nodes_parent_fkey        on filestore.nodes is 'The parent exists on the same mount, is a live directory, and is at parent_path. The cascade moves the subtree.';
comment on constraint nodes_backend_mount_fkey on filestore.nodes is 'The mount exists; it cannot be deleted while it holds nodes.';
comment on index filestore.nodes_root_key             is 'One root per mount.';
comment on index filestore.nodes_live_child_key       is 'At most one live node per name and directory; lists a directory by keyset; serves the cascade.';
comment on index filestore.nodes_dead_child_idx       is 'For nodes_parent_fkey, when a directory is restored or purged.';
comment on index filestore.nodes_live_path_idx        is 'Lookup and prefix scan by path.';
comment on index filestore.nodes_tombstone_parent_idx is 'Tombstones below a directory: purge and restore; lists them by keyset.';
comment on index filestore.nodes_dead_path_idx        is 'Tombstones at a path, by when they were deleted.';
comment on index filestore.nodes_purge_idx            is 'Tombstones of a mount in the order in which they are purged: the oldest first, and of those the deepest.';
comment on index filestore.nodes_checksum_idx         is 'Nodes with a given content, by filestore.find_by_checksum.';
comment on index filestore.nodes_unsettled_idx        is 'Work list of the reconciler: inconsistent and missing nodes of a mount.';
comment on index filestore.nodes_metadata_idx         is 'Nodes whose metadata contains a given object: metadata @> ''{"key": "value"}''.';

--! Included functions/child_path.sql
create or replace function filestore.child_path(parent_path text, name text)
returns text
language sql
immutable
parallel safe
-- Without "set" and with "return", the server inlines it.
return case parent_path when '' then '' else parent_path || '/' end || name;

comment on function filestore.child_path(text, text) is
  'Internal: The path of a node with a name in the directory at parent_path, which is empty for the root of a mount. Null when parent_path is null.';

revoke all on function filestore.child_path(text, text) from public;
--! EndIncluded functions/child_path.sql
--! Included functions/refuse_unsound.sql
create or replace function filestore.refuse_unsound(node filestore.nodes)
returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  shown text := regexp_replace(left(node.name, 40), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g');
  fault record;
begin
  -- The first rule that the row breaks. A result of null counts as broken.
  select *
  into fault
  from (values
    (
      'nodes_root_check',
      case
        when node.parent_id is null then
          node.parent_path is null and node.name = '' and node.kind = 'directory' and node.live and node.root_of_mount_id = node.backend_mount_id
        else node.parent_path is not null and node.root_of_mount_id is null
      end,
      'must have a parent, or be the nameless live root directory of its mount',
      'Give a parent_id. Only the root has none, and it is created with its mount.'
    ),
    (
      'nodes_name_check',
      (node.name <> '' or node.parent_id is null) and node.name not in ('.', '..') and octet_length(node.name) <= 1024 and node.name !~ E'[/\\u0001-\\u001f\\u007f-\\u009f]',
      'must have a name that is one segment of a path',
      'Give a name that is not empty, "." or "..", without "/" and control characters, of at most 1024 bytes.'
    ),
    (
      'nodes_path_length_check',
      octet_length(node.path) <= 2600,
      format('has a path of %s bytes', octet_length(node.path)),
      'Give a shorter name or another parent: a path has at most 2600 bytes.'
    ),
    (
      'nodes_derived_path_check',
      node.path = coalesce(filestore.child_path(node.parent_path, node.name), node.name)
        and node.depth = cardinality(string_to_array(node.path, '/')),
      'must have the path and depth that follow from its parent and name',
      'Leave path and depth out: the database sets them.'
    ),
    (
      'nodes_live_check',
      node.live = (node.deleted_at is null)
        and node.live = (node.state <> 'deleted')
        and case when node.live and node.parent_id is not null then node.parent_live else node.parent_live is null end,
      'has values of live, state, deleted_at and parent_live that do not agree',
      'Set only state: the database sets the other three.'
    ),
    (
      'nodes_size_check',
      node.size_bytes >= 0 and (node.kind = 'file' or node.size_bytes = 0),
      format('cannot have size %s', node.size_bytes),
      'Give a size of 0 or more for a file, and 0 for a directory.'
    ),
    (
      'nodes_directory_check',
      case node.kind when 'directory' then node.directory_path = node.path else node.directory_path is null end,
      'must have its path in directory_path if it is a directory, and null if it is a file',
      'Leave directory_path out: the database sets it.'
    ),
    (
      'nodes_checksum_check',
      node.checksum is null or (octet_length(node.checksum) <= 1024 and node.checksum ~ '^[a-z0-9][a-z0-9-]*:[0-9a-f]+$'),
      'has a checksum that is not algorithm:hex in lower case',
      'Write it like sha256:9f86d081..., at most 1024 bytes.'
    ),
    (
      'nodes_content_hash_check',
      node.content_hash is null or octet_length(node.content_hash) <= 1024,
      format('has a content_hash of %s bytes', octet_length(node.content_hash)),
      'Give at most 1024 bytes.'
    ),
    (
      'nodes_storage_class_check',
      node.storage_class is null or octet_length(node.storage_class) <= 256,
      format('has a storage_class of %s bytes', octet_length(node.storage_class)),
      'Give at most 256 bytes.'
    ),
    (
      'nodes_link_target_check',
      node.link_target is null or (octet_length(node.link_target) between 1 and 4096 and node.kind = 'file'),
      case node.kind when 'file' then format('has a link_target of %s bytes', octet_length(node.link_target)) else 'is a directory with a link_target' end,
      'Give a target of 1 to 4096 bytes, and only for a file.'
    ),
    (
      'nodes_metadata_check',
      jsonb_typeof(node.metadata) = 'object' and filestore.is_small_json(node.metadata, 65536),
      case jsonb_typeof(node.metadata) when 'object' then 'has metadata of more than 65536 bytes or 500 levels' else 'has metadata that is no JSON object' end,
      'Give a JSON object of at most 65536 bytes, written as text, and 500 levels.'
    ),
    (
      'nodes_last_modified_check',
      node.last_modified_at is null or node.last_modified_at between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59.999Z',
      format('cannot have last_modified_at %s', node.last_modified_at),
      'Give a moment from year 1 to year 9999, or null.'
    ),
    (
      'nodes_deleted_at_check',
      node.deleted_at is null or node.deleted_at >= '0001-01-01T00:00:00Z',
      format('cannot have deleted_at %s', node.deleted_at),
      'Give a moment from year 1 on, or leave it out.'
    ),
    (
      'nodes_version_check',
      node.version >= 1,
      format('cannot have version %s', node.version),
      'Leave version out: the database sets it.'
    )
  ) as rules (name, holds, complaint, remedy)
  where rules.holds is not true
  limit 1;

  raise exception 'node "%" %', shown, coalesce(fault.complaint, 'breaks a rule of filestore.is_sound')
    using errcode    = 'check_violation',
          constraint = coalesce(fault.name, 'nodes_sound_check'),
          schema     = 'filestore',
          table      = 'nodes',
          hint       = coalesce(fault.remedy, 'Read the rules in filestore.is_sound, and correct the row.');
end
$$;

comment on function filestore.refuse_unsound(filestore.nodes) is
  'Internal: Raises 23514 with the first rule that a row of nodes breaks, and its remedy.';

revoke all on function filestore.refuse_unsound(filestore.nodes) from public;
--! EndIncluded functions/refuse_unsound.sql
--! Included functions/is_sound.sql
create or replace function filestore.is_sound(node filestore.nodes)
returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  sound boolean;
begin
  -- Before a pattern is matched against a name or path of any length.
  if octet_length(node.path) > 1024 then
    if octet_length(node.path) > 2600 or octet_length(node.name) > 1024 then
      perform filestore.refuse_unsound(node);
    end if;
  end if;

  -- In each transaction, the server prepares an expression again, with all of its operators, before it evaluates it the
  -- first time. So what few rows need is in a branch. A result of null counts as unsound.
  if node.directory_path is not null then
    sound := node.kind = 'directory'
      and node.directory_path = node.path
      and node.size_bytes = 0
      and case
        when node.live then node.state <> 'deleted' and node.deleted_at is null and (node.parent_live or node.parent_id is null)
        else node.state = 'deleted' and node.deleted_at >= '0001-01-01T00:00:00Z' and node.parent_live is null
      end;
  elsif node.live then
    sound := node.kind = 'file' and node.size_bytes >= 0 and node.state <> 'deleted' and node.deleted_at is null and node.parent_live;
  else
    sound := node.kind = 'file'
      and node.size_bytes >= 0
      and node.state = 'deleted'
      and node.deleted_at >= '0001-01-01T00:00:00Z'
      and node.parent_live is null;
  end if;

  if node.parent_id is null then
    sound := sound
      and node.parent_path is null
      and node.parent_live is null
      and node.name = ''
      and node.path = ''
      and node.depth = 0
      and node.kind = 'directory'
      and node.live
      and node.root_of_mount_id = node.backend_mount_id;
  else
    sound := sound
      and node.name !~ E'^[.]{0,2}$|[/\\u0001-\\u001f\\u007f-\\u009f]'
      and node.path = filestore.child_path(node.parent_path, node.name)
      and node.depth = cardinality(string_to_array(node.path, '/'))
      and node.root_of_mount_id is null;
  end if;

  if node.checksum is not null then
    sound := sound and octet_length(node.checksum) <= 1024 and node.checksum ~ '^[a-z0-9][a-z0-9-]*:[0-9a-f]+$';
  end if;
  if node.metadata <> '{}' or coalesce(node.content_hash, node.storage_class, node.link_target) is not null then
    sound := sound
      and (node.content_hash is null or octet_length(node.content_hash) <= 1024)
      and (node.storage_class is null or octet_length(node.storage_class) <= 256)
      and (node.link_target is null or (octet_length(node.link_target) between 1 and 4096 and node.kind = 'file'))
      and jsonb_typeof(node.metadata) = 'object'
      and filestore.is_small_json(node.metadata, 65536);
  end if;

  if sound
     and node.version >= 1
     and (node.last_modified_at between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59.999Z') is not false then
    return true;
  end if;
  -- Finds the rule.
  perform filestore.refuse_unsound(node);
  return false;
end
$$;

comment on function filestore.is_sound(filestore.nodes) is
  'Internal: The condition of nodes_sound_check: true when a row of nodes is well formed on its own. Otherwise raises 23514 with the name of the broken rule.';

revoke all on function filestore.is_sound(filestore.nodes) from public;
--! EndIncluded functions/is_sound.sql

-- One check calls one function for the whole row. The server parses the text of a check at every statement, but keeps a
-- compiled function for the session.
do $$
begin
  if not exists (
    select from pg_constraint k
    where k.conrelid = 'filestore.nodes'::regclass
      and k.conname = 'nodes_sound_check'
  ) then
    alter table filestore.nodes
      add constraint nodes_sound_check check (filestore.is_sound(nodes.*));
  end if;
end
$$;

comment on constraint nodes_sound_check on filestore.nodes is 'All rules about a single row. The constraint field of the error names the broken rule.';

--! Included functions/describe_node.sql
create or replace function filestore.describe_node(node filestore.nodes)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return format('node %s ("%s")', node.id, node.path);
end
$$;

comment on function filestore.describe_node(filestore.nodes) is
  'Internal: How error messages name a node: by its id and path.';

revoke all on function filestore.describe_node(filestore.nodes) from public;
--! EndIncluded functions/describe_node.sql
--! Included functions/find_parent.sql
create or replace function filestore.find_parent(node_mount_id bigint, node_parent_id bigint, node_name text)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  found_path text;
  shown      text;
  parent     record;
  fault      record;
begin
  -- With the lock, a create waits for a concurrent move of the parent and reads the new path. Without it, the create
  -- would read the old path and violate nodes_parent_fkey.
  select case when p.backend_mount_id = node_mount_id and p.live then p.directory_path end
  into found_path
  from filestore.nodes p
  where p.id = node_parent_id
  for key share;
  if found_path is not null then
    return found_path;
  end if;

  select p.backend_mount_id, p.path, p.directory_path, p.live
  into parent
  from filestore.nodes p
  where p.id = node_parent_id;
  shown := regexp_replace(left(node_name, 40), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g');
  select *
  into fault
  from (values
    (
      'nodes_parent_missing',
      node_parent_id is not null,
      format('node "%s" has no parent', shown),
      'Give the id of a directory. Only the root of a mount has no parent; it is created with the mount.'
    ),
    (
      'nodes_parent_missing',
      parent.backend_mount_id is not null,
      format('parent %s of node "%s" does not exist', node_parent_id, shown),
      'Choose an existing directory: this one was purged, or never existed.'
    ),
    (
      'nodes_parent_elsewhere',
      parent.backend_mount_id = node_mount_id,
      format('parent %s ("%s") of node "%s" is on mount %s, not on mount %s',
             node_parent_id, parent.path, shown, parent.backend_mount_id, coalesce(node_mount_id::text, 'null')),
      'Choose a directory of the same mount. To move a node to another mount, create it there and delete it here.'
    ),
    (
      'nodes_not_directory',
      parent.directory_path is not null,
      format('parent %s ("%s") of node "%s" is a file', node_parent_id, parent.path, shown),
      'Choose a directory as parent.'
    ),
    (
      'nodes_parent_deleted',
      false,
      format('parent %s ("%s") of node "%s" is deleted', node_parent_id, parent.path, shown),
      'Restore it first with filestore.restore_node, or choose another directory.'
    )
  ) as rules (name, holds, complaint, remedy)
  where rules.holds is not true
  limit 1;

  raise exception '%', fault.complaint
    using errcode    = 'FS404',
          constraint = fault.name,
          hint       = fault.remedy;
end
$$;

comment on function filestore.find_parent(bigint, bigint, text) is
  'Internal: Locks the directory that is to be a node''s parent against moves, and returns its path. FS404 when it is not a live directory of the mount.';

revoke all on function filestore.find_parent(bigint, bigint, text) from public;
--! EndIncluded functions/find_parent.sql
--! Included functions/refuse_long_name.sql
create or replace function filestore.refuse_long_name(node_mount_id bigint, node_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from filestore.backend_mounts m where m.id = node_mount_id and m.backend_kind = 'local') then
    raise exception 'name "%..." has % bytes', left(node_name, 40), octet_length(node_name)
      using errcode    = 'FS422',
            constraint = 'nodes_local_name_check',
            hint       = 'Give a shorter name: on a local mount, at most 255 bytes.';
  end if;
end
$$;

comment on function filestore.refuse_long_name(bigint, text) is
  'Internal: Raises FS422 when the mount is a local one. Called only for names longer than 255 bytes.';

revoke all on function filestore.refuse_long_name(bigint, text) from public;
--! EndIncluded functions/refuse_long_name.sql
--! Included functions/refuse_state_change.sql
create or replace function filestore.refuse_state_change(node filestore.nodes, new_state text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if node.parent_id is null and new_state = 'deleted' then
    raise exception 'the root of a mount cannot be deleted (%)', filestore.describe_node(node)
      using errcode    = 'FS422',
            constraint = 'nodes_root_check',
            hint       = 'Delete the mount: that removes its root.';
  end if;
  raise exception '% cannot go from % to %', filestore.describe_node(node), node.state, new_state
    using errcode    = 'FS422',
          constraint = 'nodes_state_change_check',
          hint       = 'Make one of the allowed changes: active to inconsistent, missing or deleted; inconsistent to active, missing or deleted; missing to active or deleted; deleted to active.';
end
$$;

comment on function filestore.refuse_state_change(filestore.nodes, text) is
  'Internal: Raises FS422: a node cannot change to this state.';

revoke all on function filestore.refuse_state_change(filestore.nodes, text) from public;
--! EndIncluded functions/refuse_state_change.sql
--! Included functions/refuse_created_node.sql
create or replace function filestore.refuse_created_node(node filestore.nodes)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if node.state = 'deleted' then
    raise exception 'node "%" cannot be created in state deleted', left(node.name, 200)
      using errcode    = 'FS422',
            constraint = 'nodes_born_live_check',
            hint       = 'Create it as active, and then delete it.';
  elsif node.version <> 1 then
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
  'Internal: Raises FS422 for a new node in state deleted, with a version other than 1, with an impossible updated_at, or with a name that is too long for a local mount.';

revoke all on function filestore.refuse_created_node(filestore.nodes) from public;
--! EndIncluded functions/refuse_created_node.sql
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
  end if;
  return new;
end
$$;

comment on function filestore.prepare_node_insert() is
  'Sets the columns that follow from a new node''s parent, name and kind. Refuses a node without a parent, in state deleted, with a version other than 1, or with an impossible updated_at.';

revoke all on function filestore.prepare_node_insert() from public;
--! EndIncluded functions/prepare_node_insert.sql
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
      raise exception 'deleted % keeps its place and its deleted_at', filestore.describe_node(old)
        using errcode    = 'FS422',
              constraint = 'nodes_tombstone_check',
              hint       = 'Restore it first, or set its state to active in the same statement.';
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
--! Included functions/guard_node_removal.sql
create or replace function filestore.guard_node_removal()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_sort = off
as $$
declare
  erasing bigint[] := filestore.erasing_mounts();
  stray   record;
begin
  select r.id, r.path
  into stray
  from removed r
  where r.live
    and r.backend_mount_id <> all (erasing)
    -- At depth 1, the statement itself deletes from nodes. Deeper, the trigger on backend_mounts removes a root.
    and (r.parent_id is not null or pg_trigger_depth() = 1)
  limit 1;
  if found then
    raise exception 'node % ("%") is live: only tombstones can be removed', stray.id, stray.path
      using errcode    = 'FS409',
            constraint = 'nodes_alive',
            hint       = 'Delete it first, with filestore.delete_node or by setting its state to deleted.';
  end if;

  -- nodes_parent_fkey covers live children only, so this looks for tombstones below the removed rows. No new ones can
  -- appear: no child can be created in a tombstone, and a deleted child never moves.
  select c.id, c.path, c.parent_id
  into stray
  from removed r
  -- "Offset 0" and the order by name keep this a lookup, as in filestore.purge_deleted.
  cross join lateral (
    select n.id, n.path, n.parent_id
    from filestore.nodes n
    where n.parent_id = r.id
      and not n.live
    order by n.name
    limit 1
    offset 0
  ) c
  where r.directory_path is not null
    and r.backend_mount_id <> all (erasing)
  limit 1;
  if found then
    raise exception 'node % cannot be removed: node % ("%") is below it', stray.parent_id, stray.id, stray.path
      using errcode    = 'FS409',
            constraint = 'nodes_not_empty',
            hint       = 'Remove the nodes below it first, or all in one statement.';
  end if;
  return null;
end
$$;

comment on function filestore.guard_node_removal() is
  'Refuses to remove a row that is not a tombstone, or that another row names as its parent.';

revoke all on function filestore.guard_node_removal() from public;
--! EndIncluded functions/guard_node_removal.sql
--! Included functions/create_mount_root.sql
create or replace function filestore.create_mount_root()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into filestore.nodes (backend_mount_id, name, directory_path, kind)
  values (new.id, '', '', 'directory');
  return null;
end
$$;

comment on function filestore.create_mount_root() is
  'Gives a new mount the root node of its tree.';

revoke all on function filestore.create_mount_root() from public;
--! EndIncluded functions/create_mount_root.sql
--! Included functions/remove_mount_root.sql
create or replace function filestore.remove_mount_root()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.require_read_committed('deleting a mount');
  perform filestore.lock_tree(old.id, true);
  -- Waits for concurrent creates directly below the root, so that the next statement sees them.
  perform
  from filestore.nodes n
  where n.root_of_mount_id = old.id
  for update;

  -- In order of path, so that each half is a lookup in an index, however large the other mounts are.
  perform
  from (
    (
      select n.path
      from filestore.nodes n
      where n.backend_mount_id = old.id
        and n.live
        and n.path > ''
      order by n.path
      limit 1
    )
    union all
    (
      select n.path
      from filestore.nodes n
      where n.backend_mount_id = old.id
        and not n.live
      order by n.path
      limit 1
    )
  ) held;
  if found then
    raise exception 'mount "%" still holds nodes', old.mount_key
      using errcode    = 'FS409',
            constraint = 'nodes_not_empty',
            hint       = 'Delete and purge all its nodes first, or call filestore.erase_mount.';
  end if;
  -- The pending deltas of an empty mount add up to zero, so they can be removed without folding.
  delete from filestore.rollup_deltas d
  where d.backend_mount_id = old.id;
  delete from filestore.nodes n
  where n.root_of_mount_id = old.id;
  return old;
end
$$;

comment on function filestore.remove_mount_root() is
  'Removes the root of a mount that is being deleted. Refuses when the mount has other nodes, tombstones included.';

revoke all on function filestore.remove_mount_root() from public;
--! EndIncluded functions/remove_mount_root.sql
--! Included functions/delete_mount.sql
create or replace function filestore.delete_mount(mount_key text)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint := filestore.find_mount(delete_mount.mount_key);
begin
  -- Before any row of the mount, as in erase_mount. The trigger runs only once the row is locked.
  perform filestore.lock_tree(mount_id, true);
  delete from filestore.backend_mounts m
  where m.id = mount_id;
  if not found then
    -- Another call deleted it during the wait for the lock.
    perform filestore.delete_mount(delete_mount.mount_key);
  end if;
end
$$;

comment on function filestore.delete_mount(text) is
  'Deletes a mount whose only node is its root. FS404 when there is no such mount, FS409 when it has other nodes, tombstones included: purge them first, or let the owner call filestore.erase_mount.';

revoke all on function filestore.delete_mount(text) from public;
--! EndIncluded functions/delete_mount.sql

--! Included triggers/nodes_prepare_insert.sql
drop trigger if exists nodes_prepare_insert on filestore.nodes;

create trigger nodes_prepare_insert
  before insert on filestore.nodes
  for each row
  execute function filestore.prepare_node_insert();

comment on trigger nodes_prepare_insert on filestore.nodes is
  'Sets the columns that follow from parent, name and kind. When parent_path is given, the parent is not looked up.';
--! EndIncluded triggers/nodes_prepare_insert.sql
--! Included triggers/nodes_prepare_update.sql
drop trigger if exists nodes_prepare_update on filestore.nodes;

-- Without the columns of content: a write of content, the usual update, does not pay for these rules.
create trigger nodes_prepare_update
  before update of
    backend_mount_id,
    live,
    state,
    parent_id,
    parent_path,
    parent_live,
    name,
    deleted_at
  on filestore.nodes
  for each row
  execute function filestore.prepare_node_update();

comment on trigger nodes_prepare_update on filestore.nodes is
  'Keeps derived columns and the state consistent, in updates that set a column of place or state.';
--! EndIncluded triggers/nodes_prepare_update.sql
--! Included triggers/nodes_guard_removal.sql
drop trigger if exists nodes_guard_removal on filestore.nodes;

create trigger nodes_guard_removal
  after delete on filestore.nodes
  referencing old table as removed
  for each statement
  execute function filestore.guard_node_removal();

comment on trigger nodes_guard_removal on filestore.nodes is
  'Refuses to remove live nodes, and nodes that are still the parent of another.';
--! EndIncluded triggers/nodes_guard_removal.sql
--! Included triggers/nodes_refuse_truncate.sql
drop trigger if exists nodes_refuse_truncate on filestore.nodes;

create trigger nodes_refuse_truncate
  before truncate on filestore.nodes
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger nodes_refuse_truncate on filestore.nodes is
  'Refuses truncate, which would bypass the triggers that guard rows.';
--! EndIncluded triggers/nodes_refuse_truncate.sql
--! Included triggers/backend_mounts_create_root.sql
drop trigger if exists backend_mounts_create_root on filestore.backend_mounts;

create trigger backend_mounts_create_root
  after insert on filestore.backend_mounts
  for each row
  execute function filestore.create_mount_root();

comment on trigger backend_mounts_create_root on filestore.backend_mounts is
  'Creates the root node of a new mount.';
--! EndIncluded triggers/backend_mounts_create_root.sql
--! Included triggers/backend_mounts_remove_root.sql
drop trigger if exists backend_mounts_remove_root on filestore.backend_mounts;

create trigger backend_mounts_remove_root
  before delete on filestore.backend_mounts
  for each row
  execute function filestore.remove_mount_root();

comment on trigger backend_mounts_remove_root on filestore.backend_mounts is
  'Removes the root of an empty mount that is being deleted, and refuses to delete any other mount.';
--! EndIncluded triggers/backend_mounts_remove_root.sql
