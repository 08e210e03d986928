--! Previous: -
--! Hash: sha1:b67c2843c26cf3ed4d0eddbdde1ce8e32d7e5bfc
--! Message: Mounts and the tree of nodes

-- Names are compared and measured as UTF-8 bytes: in another encoding the
-- rules about control characters and lengths would mean something else.
do $$
begin
  if current_setting('server_encoding') <> 'UTF8' then
    raise exception 'filestore needs a database encoded in UTF8, this one is %', current_setting('server_encoding')
      using errcode = 'FS422',
            hint    = 'Create the database with: create database … encoding ''UTF8'' template template0';
  end if;
end
$$;

create schema if not exists filestore;

comment on schema filestore is
  'Catalogue of files and directories on local disks and in S3. Grown by graphile-migrate migrations only.';

create table if not exists filestore.backend_mounts (
  id              bigint      generated always as identity,
  mount_key       text        collate "C" not null,
  backend_kind    text        not null,
  root_path       text        collate "C",
  bucket          text        collate "C",
  prefix          text        collate "C",
  config          jsonb       not null default '{}',
  credentials_ref text,
  access_mode     text        not null default 'rw',
  access_policy   jsonb       not null default '{}',
  state           text        not null default 'active',
  version         integer     not null default 1,
  created_at      timestamptz not null default statement_timestamp(),
  updated_at      timestamptz not null default statement_timestamp(),

  constraint backend_mounts_pkey
    primary key (id),
  constraint backend_mounts_mount_key_key
    unique (mount_key),
  constraint backend_mounts_mount_key_check
    check (mount_key ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'),
  constraint backend_mounts_backend_kind_check
    check (backend_kind in ('local', 's3')),
  constraint backend_mounts_access_mode_check
    check (access_mode in ('rw', 'ro')),
  constraint backend_mounts_state_check
    check (state in ('active', 'inactive', 'offline', 'degraded', 'error')),
  constraint backend_mounts_version_check
    check (version >= 1),
  constraint backend_mounts_place_check
    check (
      case backend_kind
        when 'local' then root_path is not null and bucket is null and prefix is null
        when 's3'    then root_path is null and bucket is not null
      end
    ),
  -- Absolute and canonical: one spelling a directory, so that the unique
  -- index on it means what it says.
  constraint backend_mounts_root_path_check
    check (
      root_path = '/'
      or (octet_length(root_path) <= 2048 and root_path ~ '^(/[^/]+)+$' and root_path !~ '/\.{1,2}(/|$)' and root_path !~ '[\u0001-\u001f\u007f-\u009f]')
    ),
  constraint backend_mounts_bucket_check
    check (bucket ~ '^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$'),
  -- No prefix is null, never '': one spelling for "the whole bucket".
  constraint backend_mounts_prefix_check
    check (prefix ~ '^[^/]+(/[^/]+)*$' and octet_length(prefix) <= 1024 and prefix !~ '[\u0001-\u001f\u007f-\u009f]'),
  constraint backend_mounts_config_check
    check (jsonb_typeof(config) = 'object'),
  constraint backend_mounts_access_policy_check
    check (jsonb_typeof(access_policy) = 'object'),
  -- A name that smells of a secret, at any depth. The secret itself belongs
  -- into a secret store, its name into credentials_ref.
  constraint backend_mounts_config_secret_check
    check (
      not jsonb_path_exists(
        config,
        '$.** ? (@.type() == "object").keyvalue().key ? (@ like_regex "secret|passw|passphrase|credential|token|(private|access|api)[_ -]?key" flag "i")'
      )
    )
);

-- Lookup of the mount that owns a place; two mounts never claim the same one.
create unique index if not exists backend_mounts_root_path_key
  on filestore.backend_mounts (root_path)
  where backend_kind = 'local';
create unique index if not exists backend_mounts_bucket_prefix_key
  on filestore.backend_mounts (bucket, prefix) nulls not distinct
  where backend_kind = 's3';

comment on table  filestore.backend_mounts                 is 'A configured root: a directory of a local disk, or a bucket (and prefix) in S3. Inserting one creates the root node of its tree.';
comment on column filestore.backend_mounts.id              is 'Stable number of the mount; never reused.';
comment on column filestore.backend_mounts.mount_key       is 'Name by which services and people address the mount: letters, digits, dot, underscore, hyphen; at most 128 bytes.';
comment on column filestore.backend_mounts.backend_kind    is 'local or s3. Never changes.';
comment on column filestore.backend_mounts.root_path       is 'Local mounts: absolute, canonical path of the directory. Null on S3.';
comment on column filestore.backend_mounts.bucket          is 'S3 mounts: name of the bucket. Null on local mounts.';
comment on column filestore.backend_mounts.prefix          is 'S3 mounts: key prefix without leading or trailing slash; null for the whole bucket.';
comment on column filestore.backend_mounts.config          is 'Settings of the backend, such as region or endpoint. A key that names a secret is refused.';
comment on column filestore.backend_mounts.credentials_ref is 'Name of the secret that opens the backend; never the secret.';
comment on column filestore.backend_mounts.access_mode     is 'rw, or ro for a mount that commands must not change.';
comment on column filestore.backend_mounts.access_policy   is 'Who may do what on the mount, as the service defines it.';
comment on column filestore.backend_mounts.state           is 'active, inactive, offline, degraded or error: what the service last knew of the backend.';
comment on column filestore.backend_mounts.version         is 'Optimistic version: counted by a trigger, +1 on every change.';
comment on column filestore.backend_mounts.created_at      is 'When the row was inserted.';
comment on column filestore.backend_mounts.updated_at      is 'When version last moved.';

comment on constraint backend_mounts_place_check         on filestore.backend_mounts is 'Local: root_path and nothing else. S3: bucket, perhaps prefix, no root_path.';
comment on constraint backend_mounts_root_path_check     on filestore.backend_mounts is 'root_path is absolute, without empty, "." or ".." segments, without a trailing slash or control characters.';
comment on constraint backend_mounts_config_secret_check on filestore.backend_mounts is 'config carries no key that names a secret: put the name of the secret into credentials_ref.';
comment on index filestore.backend_mounts_root_path_key     is 'One local mount a directory.';
comment on index filestore.backend_mounts_bucket_prefix_key is 'One S3 mount a bucket and prefix.';

-- The rules for one column stand in domains, not in checks of the table: the
-- server reads a table's checks anew from the catalog at every statement and
-- keeps a domain's for the session, which is a fifth of an insert's time.
do $$
begin
  if to_regtype('filestore.node_kind') is null then
    create domain filestore.node_kind as text
      constraint node_kind_check check (value in ('file', 'directory'));
  end if;
  if to_regtype('filestore.node_state') is null then
    create domain filestore.node_state as text
      constraint node_state_check check (value in ('active', 'inconsistent', 'missing', 'deleted'));
  end if;
  if to_regtype('filestore.node_name') is null then
    create domain filestore.node_name as text collate "C"
      constraint node_name_check check (value not in ('.', '..') and octet_length(value) <= 1024 and value !~ '[/\u0001-\u001f\u007f-\u009f]');
  end if;
  if to_regtype('filestore.checksum') is null then
    create domain filestore.checksum as text collate "C"
      constraint checksum_check check (value ~ '^[a-z0-9][a-z0-9-]*:[0-9a-f]+$' and octet_length(value) <= 1024);
  end if;
  if to_regtype('filestore.byte_count') is null then
    create domain filestore.byte_count as bigint
      constraint byte_count_check check (value >= 0);
  end if;
  if to_regtype('filestore.json_object') is null then
    create domain filestore.json_object as jsonb
      constraint json_object_check check (jsonb_typeof(value) = 'object');
  end if;
  if to_regtype('filestore.version_number') is null then
    create domain filestore.version_number as integer
      constraint version_number_check check (value >= 1);
  end if;
end
$$;

comment on domain filestore.node_kind      is 'What a node is: file or directory.';
comment on domain filestore.node_state     is 'What the catalogue last knew of a node.';
comment on domain filestore.node_name      is 'A segment of a path: not "." or "..", without "/" and control characters, at most 1024 bytes. Empty for roots only.';
comment on domain filestore.checksum       is 'A verified digest, as algorithm:hex in lower case.';
comment on domain filestore.byte_count     is 'A number of bytes, not negative.';
comment on domain filestore.json_object    is 'A JSON object.';
comment on domain filestore.version_number is 'An optimistic version, counted from 1.';

create table if not exists filestore.nodes (
  id                 bigint                   generated always as identity,
  backend_mount_id   bigint                   not null,
  parent_id          bigint,
  parent_path        text                     collate "C",
  parent_live        boolean,
  name               filestore.node_name      not null,
  path               text                     collate "C" not null generated always as (
                       coalesce(nullif(parent_path, '') || '/', '') || name
                     ) stored,
  depth              integer                  not null generated always as (
                       coalesce(cardinality(string_to_array(parent_path, '/')) + 1, 0)
                     ) stored,
  directory_path     text                     collate "C",
  live               boolean                  not null default true,
  kind               filestore.node_kind      not null,
  size_bytes         filestore.byte_count     not null default 0,
  checksum           filestore.checksum,
  content_hash       text                     collate "C",
  storage_class      text,
  metadata           filestore.json_object    not null default '{}',
  state              filestore.node_state     not null default 'active',
  version            filestore.version_number not null default 1,
  last_seen_at       timestamptz,
  last_modified_at   timestamptz,
  last_reconciled_at timestamptz,
  created_at         timestamptz              not null default statement_timestamp(),
  updated_at         timestamptz              not null default statement_timestamp(),
  deleted_at         timestamptz,
  -- The mount, on its root node only: what the other nodes' mount is follows
  -- from their parents', and a key on all of them would make every writer of a
  -- mount lock that one row.
  root_of_mount_id   bigint                   generated always as (
                       case when parent_id is null then backend_mount_id end
                     ) stored,

  constraint nodes_pkey
    primary key (id),
  -- What a child's key refers to. A file has no directory_path, so nothing
  -- can be its child; a tombstone is not live, so no live row can be below it.
  constraint nodes_directory_key
    unique (backend_mount_id, id, directory_path, live),
  -- Proves for every live node but a root: the parent exists, is on the same
  -- mount, is a directory, is alive, and stands at parent_path. The cascade
  -- carries a renamed or moved directory's subtree.
  -- Its columns are plain, not generated: with generated columns in a
  -- referenced key any before-update trigger makes any update of a directory
  -- take the strongest row lock, and creates in it wait for a heartbeat.
  constraint nodes_parent_fkey
    foreign key (backend_mount_id, parent_id, parent_path, parent_live)
    references filestore.nodes (backend_mount_id, id, directory_path, live)
    on update cascade,
  -- No action: a mount is deleted by its own trigger, and only when it holds
  -- nothing. A cascade here would erase a populated mount in one statement.
  constraint nodes_backend_mount_fkey
    foreign key (root_of_mount_id)
    references filestore.backend_mounts (id),
  -- A btree key ends near 2 704 bytes. At the latest it ends the cascade of
  -- directories that one statement moved in a ring.
  constraint nodes_path_length_check
    check (octet_length(path) <= 2600),
  -- In these checks a null, such as a file's directory_path, counts as true.
  constraint nodes_root_check
    check (
      case
        when parent_id is null then parent_path is null and name = '' and kind = 'directory' and live
        else parent_path is not null and name <> ''
      end
    ),
  constraint nodes_live_check
    check (
      live = (deleted_at is null)
      and live = (state <> 'deleted')
      and (parent_live is not null) = (live and parent_id is not null)
      and parent_live
    ),
  constraint nodes_directory_check
    check (
      (kind = 'directory') = (directory_path is not null)
      and directory_path = path
      and (kind = 'file' or size_bytes = 0)
    )
);

-- One root a mount.
create unique index if not exists nodes_root_key
  on filestore.nodes (root_of_mount_id)
  where root_of_mount_id is not null;
-- One live name a directory; lists a directory by keyset; serves the cascade's
-- own lookup. The predicate is parent_live, not deleted_at: the cascade
-- compares all four key columns by equality, which implies "parent_live is not
-- null" and nothing about deleted_at, so with that predicate it would read
-- the whole table once per moved directory. Both select the same rows.
create unique index if not exists nodes_live_child_key
  on filestore.nodes (backend_mount_id, parent_id, name)
  where parent_live is not null;
-- Always empty, and looked into when a directory is restored or purged: the key
-- then asks for children whose parent_live is false. With the value in the
-- plan that becomes "not parent_live", which implies no "is not null", and
-- without this index all nodes would be read.
create index if not exists nodes_dead_child_idx
  on filestore.nodes (backend_mount_id, parent_id)
  where not parent_live;
-- Lookup and prefix scan by path. Not unique: the tree makes live paths unique
-- already, and a second unique index would leak 23505 past "on conflict".
create index if not exists nodes_live_path_idx
  on filestore.nodes (backend_mount_id, path)
  where live;
-- Tombstones below a directory: purge and restore. Its predicate is not that of
-- nodes_purge_idx, which right after a mass delete looks as good to the planner
-- and reads every tombstone at every look.
create index if not exists nodes_tombstone_parent_idx
  on filestore.nodes (parent_id)
  where not live;
-- Purge: the oldest tombstones of a mount, what is deepest first.
create index if not exists nodes_purge_idx
  on filestore.nodes (backend_mount_id, deleted_at, depth desc)
  where deleted_at is not null;
-- Which nodes hold this content.
create index if not exists nodes_checksum_idx
  on filestore.nodes (checksum)
  where checksum is not null;
-- Work list of the reconciler. A state change of these few rows is not a HOT
-- update; a heartbeat on an active node is.
create index if not exists nodes_unsettled_idx
  on filestore.nodes (backend_mount_id, state, id)
  where state in ('inconsistent', 'missing');
-- metadata @> '{"key": "value"}'.
create index if not exists nodes_metadata_idx
  on filestore.nodes using gin (metadata jsonb_path_ops)
  where metadata <> '{}';

comment on table  filestore.nodes                    is 'One row a file or directory, living or tombstoned. The tree proves itself: nodes_parent_fkey ties every live row to a live directory of the same mount at parent_path.';
comment on column filestore.nodes.id                 is 'Stable number of the node; other services attach to it. Never reused: a path used again has a new id.';
comment on column filestore.nodes.backend_mount_id   is 'The mount whose tree the node belongs to. Never changes.';
comment on column filestore.nodes.parent_id          is 'The directory that holds the node; null for the root of a mount only.';
comment on column filestore.nodes.parent_path        is 'Path of the parent, kept equal to it by nodes_parent_fkey while the node lives; on a tombstone, where the parent stood when the node was deleted. Filled by trigger when null.';
comment on column filestore.nodes.parent_live        is 'True while the node lives; null on a root and on a tombstone, which so leaves the key. Filled by trigger when null.';
comment on column filestore.nodes.name               is 'Last segment of the path; empty for the root only. At most 255 bytes on local mounts, 1024 on S3.';
comment on column filestore.nodes.path               is 'Path below the mount''s root, without leading slash; empty for the root. At most 2600 bytes.';
comment on column filestore.nodes.depth              is 'Number of segments in path: 0 for the root.';
comment on column filestore.nodes.directory_path     is 'path for a directory, null for a file: what the keys of children refer to. Filled by trigger when null.';
comment on column filestore.nodes.live               is 'deleted_at is null, as a plain column that keys can refer to. Filled by trigger.';
comment on column filestore.nodes.kind               is 'file or directory. Never changes.';
comment on column filestore.nodes.size_bytes         is 'Size of the content in bytes; 0 for a directory.';
comment on column filestore.nodes.checksum           is 'Verified digest of the content, as algorithm:hex in lower case, such as sha256:9f86….';
comment on column filestore.nodes.content_hash       is 'The backend''s own identity of the content, such as an ETag: comparable with itself only.';
comment on column filestore.nodes.storage_class      is 'The backend''s storage class, such as STANDARD_IA.';
comment on column filestore.nodes.metadata           is 'A JSON object of the service''s own.';
comment on column filestore.nodes.state              is 'active, inconsistent (drift seen), missing (not found on the backend) or deleted (tombstone).';
comment on column filestore.nodes.version            is 'Optimistic version: counted by trigger, +1 on every change but a heartbeat.';
comment on column filestore.nodes.last_seen_at       is 'Heartbeat: when a watcher last saw the node. Does not move version.';
comment on column filestore.nodes.last_modified_at   is 'When the backend says the content was last modified.';
comment on column filestore.nodes.last_reconciled_at is 'Heartbeat: when a reconciler last compared the node with the backend. Does not move version.';
comment on column filestore.nodes.created_at         is 'When the row was inserted. Never changes.';
comment on column filestore.nodes.updated_at         is 'When version last moved; strictly later than before.';
comment on column filestore.nodes.root_of_mount_id   is 'backend_mount_id on a root, null elsewhere: the side of nodes_backend_mount_fkey that refers.';
comment on column filestore.nodes.deleted_at         is 'When the node was deleted; all rows of one recursive delete share it. Null while the node lives.';

comment on constraint nodes_directory_key        on filestore.nodes is 'What nodes_parent_fkey refers to: a live directory at its path.';
comment on constraint nodes_parent_fkey          on filestore.nodes is 'The parent exists, on the same mount, is a live directory, and stands at parent_path. Carries moves to the subtree.';
comment on constraint nodes_backend_mount_fkey   on filestore.nodes is 'The mount exists; it cannot be deleted while it holds nodes.';
comment on constraint nodes_path_length_check    on filestore.nodes is 'A path has at most 2600 bytes, the most an index entry can hold.';
comment on constraint nodes_root_check           on filestore.nodes is 'A root is a nameless live directory without parent; every other node has a name and a parent.';
comment on constraint nodes_live_check           on filestore.nodes is 'live, deleted_at, state and parent_live say the same.';
comment on constraint nodes_directory_check      on filestore.nodes is 'A directory, and no file, has its path in directory_path; its size is 0.';
comment on index filestore.nodes_root_key             is 'One root a mount.';
comment on index filestore.nodes_live_child_key       is 'One live name a directory; lists a directory; serves the cascade.';
comment on index filestore.nodes_dead_child_idx is 'Always empty: what the tree''s key asks for when a directory is restored or purged.';
comment on index filestore.nodes_live_path_idx        is 'Lookup and prefix scan by path.';
comment on index filestore.nodes_tombstone_parent_idx is 'Tombstones below a directory.';
comment on index filestore.nodes_purge_idx is 'Tombstones in the order in which they are purged.';
comment on index filestore.nodes_checksum_idx         is 'Nodes with a given content.';
comment on index filestore.nodes_unsettled_idx        is 'Inconsistent and missing nodes of a mount.';
comment on index filestore.nodes_metadata_idx         is 'Nodes whose metadata contains a given object.';

--! Included functions/percent_encode.sql
create or replace function filestore.percent_encode(value text)
returns text
language sql
stable strict parallel safe
begin atomic
  -- RFC 3986: the characters of a path segment and "/" stay, every other
  -- character becomes its UTF-8 bytes in hexadecimal.
  select case
    when value ~ '^[A-Za-z0-9._~!$&''()*+,;=:@/-]*$' then value
    else (
      select string_agg(
        case
          when c.character ~ '[A-Za-z0-9._~!$&''()*+,;=:@/-]' then c.character
          else upper(regexp_replace(encode(convert_to(c.character, 'UTF8'), 'hex'), '(..)', '%\1', 'g'))
        end,
        '' order by c.position
      )
      from string_to_table(value, null) with ordinality as c (character, position)
    )
  end;
end;

comment on function filestore.percent_encode(text) is
  'A path as it stands in a URI: percent_encode(''a b/é'') is ''a%20b/%C3%A9''.';

revoke all on function filestore.percent_encode(text) from public;
--! EndIncluded functions/percent_encode.sql
--! Included functions/location_uri.sql
create or replace function filestore.location_uri(backend_kind text, root_path text, bucket text, prefix text, path text)
returns text
language sql
stable parallel safe
begin atomic
  select case backend_kind
    -- A root_path of '/' brings the slash that stands between it and path.
    when 'local' then 'file://' || filestore.percent_encode(
      rtrim(root_path, '/') || case when path <> '' or root_path = '/' then '/' else '' end || path
    )
    when 's3'    then 's3://' || filestore.percent_encode(concat_ws('/', bucket, prefix, nullif(path, '')))
  end;
end;

comment on function filestore.location_uri(text, text, text, text, text) is
  'Where a path of a mount is, as a URI: file:///root/path or s3://bucket/prefix/path.';

revoke all on function filestore.location_uri(text, text, text, text, text) from public;
--! EndIncluded functions/location_uri.sql
--! Included functions/lock_tree.sql
create or replace function filestore.lock_tree(mount_id bigint, exclusive boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if mount_id is null or exclusive is null then
    raise exception 'the % of lock_tree is null', case when mount_id is null then 'mount' else 'mode' end
      using errcode = 'FS422',
            hint    = 'Give the id of a mount, and whether the lock is exclusive.';
  elsif exclusive then
    perform pg_advisory_xact_lock(hashtextextended('filestore.tree', mount_id));
  else
    perform pg_advisory_xact_lock_shared(hashtextextended('filestore.tree', mount_id));
  end if;
end
$$;

comment on function filestore.lock_tree(bigint, boolean) is
  'Locks the shape of a mount''s tree until the transaction ends, before any row of it. Exclusive: who moves or renames directories, deletes or restores trees, purges. Shared: who folds totals, moves a file, restores one node, writes several existing rows (in order of id), or creates in several existing directories. Nobody else. Never shared first and then exclusive.';

revoke all on function filestore.lock_tree(bigint, boolean) from public;
--! EndIncluded functions/lock_tree.sql
--! Included functions/require_read_committed.sql
create or replace function filestore.require_read_committed(action text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Who waits for a lock and then looks must see what was done meanwhile.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception '% is not possible in a % transaction', action, current_setting('transaction_isolation')
      using errcode = 'FS409',
            hint    = 'Do it in a READ COMMITTED transaction.';
  end if;
end
$$;

comment on function filestore.require_read_committed(text) is
  'Raises FS409 in a transaction whose snapshot is older than the locks it takes.';

revoke all on function filestore.require_read_committed(text) from public;
--! EndIncluded functions/require_read_committed.sql
--! Included functions/next_version.sql
create or replace function filestore.next_version(row_name text, current_version integer, given_version integer, changed boolean)
returns integer
language plpgsql
immutable
as $$
begin
  if given_version = current_version then
    return current_version + changed::integer;
  elsif given_version = current_version + 1 and changed then
    return given_version;
  elsif given_version = current_version + 1 then
    raise exception '% did not change, so its version stays at %', row_name, current_version
      using errcode = 'FS422',
            hint    = 'Leave version out of the update: it is counted by the database.';
  end if;
  raise exception '% is at version %, it cannot be set to version %', row_name, current_version, given_version
    using errcode = 'FS409',
          hint    = 'Leave version out of the update: it is counted by the database. To detect a lost race, add "where version = …" and look at the number of rows changed.';
end
$$;

comment on function filestore.next_version(text, integer, integer, boolean) is
  'The version of a row after an update: one more when it changed. Refuses a version that the caller chose otherwise.';

revoke all on function filestore.next_version(text, integer, integer, boolean) from public;
--! EndIncluded functions/next_version.sql
--! Included functions/refuse_truncate.sql
create or replace function filestore.refuse_truncate()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'filestore.% cannot be truncated', tg_table_name
    using errcode = 'FS409',
          hint    = 'Delete rows instead: truncate runs no row trigger.';
end
$$;

comment on function filestore.refuse_truncate() is
  'Refuses truncate, which would bypass every guard on rows.';

revoke all on function filestore.refuse_truncate() from public;
--! EndIncluded functions/refuse_truncate.sql
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
  -- Waits for whoever is creating something at the top; the next statement
  -- then sees it.
  perform
  from filestore.nodes n
  where n.root_of_mount_id = old.id
  for update;

  if exists (
    select
    from filestore.nodes n
    where n.backend_mount_id = old.id
      and n.parent_id is not null
  ) then
    raise exception 'mount "%" still holds nodes', old.mount_key
      using errcode = 'FS409',
            hint    = 'Delete and purge its nodes first; tombstones count.';
  end if;
  -- They add up to nothing, and there is nothing left to add them to.
  delete from filestore.rollup_deltas d
  where d.backend_mount_id = old.id;
  delete from filestore.nodes n
  where n.root_of_mount_id = old.id;
  return old;
end
$$;

comment on function filestore.remove_mount_root() is
  'Removes the lone root of a mount that is being deleted; refuses when the mount holds anything else.';

revoke all on function filestore.remove_mount_root() from public;
--! EndIncluded functions/remove_mount_root.sql
--! Included functions/prepare_mount_update.sql
create or replace function filestore.prepare_mount_update()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  changed boolean;
begin
  if new.id is distinct from old.id
     or new.backend_kind is distinct from old.backend_kind
     or new.created_at is distinct from old.created_at then
    raise exception 'mount "%" cannot change its id, backend_kind or created_at', old.mount_key
      using errcode = 'FS422',
            hint    = 'Insert another mount for another backend.';
  end if;

  changed := (new.mount_key, new.root_path, new.bucket, new.prefix, new.config, new.credentials_ref,
              new.access_mode, new.access_policy, new.state)
             is distinct from
             (old.mount_key, old.root_path, old.bucket, old.prefix, old.config, old.credentials_ref,
              old.access_mode, old.access_policy, old.state);
  new.version    := filestore.next_version(format('mount "%s"', old.mount_key), old.version, new.version, changed);
  new.updated_at := case
    when changed then greatest(statement_timestamp(), old.updated_at + interval '1 microsecond')
    else old.updated_at
  end;
  return new;
end
$$;

comment on function filestore.prepare_mount_update() is
  'Refuses a change of what a mount is; counts the version of every other change.';

revoke all on function filestore.prepare_mount_update() from public;
--! EndIncluded functions/prepare_mount_update.sql
--! Included functions/find_parent.sql
create or replace function filestore.find_parent(node_mount_id bigint, node_parent_id bigint, node_name text)
returns text
language plpgsql
as $$
declare
  parent record;
begin
  -- Without the lock, a create that races a move of the parent reads the old
  -- path and fails at the key; with it, it waits and reads the new one.
  select p.backend_mount_id, p.path, p.directory_path, p.live
  into parent
  from filestore.nodes p
  where p.id = node_parent_id
  for key share;

  if parent.backend_mount_id = node_mount_id and parent.directory_path is not null and parent.live then
    return parent.directory_path;
  end if;

  raise exception '%', case
    when node_parent_id is null
      then format('node "%s" has no parent', node_name)
    when parent.backend_mount_id is null
      then format('parent %s of node "%s" does not exist', node_parent_id, node_name)
    when parent.backend_mount_id <> node_mount_id
      then format('parent %s ("%s") of node "%s" is on mount %s, not on mount %s',
                  node_parent_id, parent.path, node_name, parent.backend_mount_id, node_mount_id)
    when parent.directory_path is null
      then format('parent %s ("%s") of node "%s" is a file', node_parent_id, parent.path, node_name)
    else format('parent %s ("%s") of node "%s" is deleted', node_parent_id, parent.path, node_name)
  end
    using errcode = 'FS404',
          hint    = 'A node needs a live directory of its own mount as parent; only a mount''s own root has none, and it comes with the mount.';
end
$$;

comment on function filestore.find_parent(bigint, bigint, text) is
  'The path of a directory that is to be a node''s parent, locked against moves; FS404 when it cannot be.';

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
    raise exception 'name "%…" has % bytes', left(node_name, 40), octet_length(node_name)
      using errcode = 'FS422',
            hint    = 'A name on a local mount has at most 255 bytes.';
  end if;
end
$$;

comment on function filestore.refuse_long_name(bigint, text) is
  'Raises FS422 when the mount is a local one: called for names longer than 255 bytes only.';

revoke all on function filestore.refuse_long_name(bigint, text) from public;
--! EndIncluded functions/refuse_long_name.sql
--! Included functions/check_state_change.sql
create or replace function filestore.check_state_change(node_name text, is_root boolean, old_state text, new_state text)
returns void
language plpgsql
immutable
as $$
begin
  if is_root and new_state = 'deleted' then
    raise exception 'the root of a mount cannot be deleted (%)', node_name
      using errcode = 'FS422',
            hint    = 'Delete the mount; its root goes with it.';
  end if;
  if (new_state = 'inconsistent' and old_state <> 'active')
     or (new_state = 'missing' and old_state not in ('active', 'inconsistent')) then
    raise exception '% cannot go from % to %', node_name, old_state, new_state
      using errcode = 'FS422',
            hint    = 'Legal: active to inconsistent, missing or deleted; inconsistent to active, missing or deleted; missing to active or deleted; deleted to active.';
  end if;
end
$$;

comment on function filestore.check_state_change(text, boolean, text, text) is
  'Lets a node''s state change only along the legal transitions.';

revoke all on function filestore.check_state_change(text, boolean, text, text) from public;
--! EndIncluded functions/check_state_change.sql
--! Included functions/prepare_node_insert.sql
create or replace function filestore.prepare_node_insert()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.state = 'deleted' then
    raise exception 'node "%" cannot be created in state deleted', new.name
      using errcode = 'FS422',
            hint    = 'Insert it active and delete it.';
  end if;

  -- Only the mount's own trigger makes a node without name and parent.
  if new.parent_id is not null or new.name <> '' then
    if new.parent_path is null then
      new.parent_path := filestore.find_parent(new.backend_mount_id, new.parent_id, new.name);
    end if;
    new.parent_live := coalesce(new.parent_live, true);
  end if;
  if new.kind = 'directory' then
    -- Not new.path: a generated column is not yet computed here.
    new.directory_path := coalesce(new.directory_path, coalesce(nullif(new.parent_path, '') || '/', '') || new.name);
  end if;
  return new;
end
$$;

comment on function filestore.prepare_node_insert() is
  'Fills what the writer of a node left out; refuses one that is born dead or without a parent.';

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
  changed   boolean;
  node_name text := format('node %s ("%s")', old.id, old.path);
begin
  if new.id is distinct from old.id
     or new.backend_mount_id is distinct from old.backend_mount_id
     or new.kind is distinct from old.kind
     or new.created_at is distinct from old.created_at
     or (new.parent_id is null) <> (old.parent_id is null) then
    raise exception '% cannot change its id, backend_mount_id, kind or created_at, nor become or cease to be a root', node_name
      using errcode = 'FS422',
            hint    = 'Delete the node and create another one; the new node has a new id.';
  end if;
  if new.name is distinct from old.name and octet_length(new.name) > 255 then
    perform filestore.refuse_long_name(new.backend_mount_id, new.name);
  end if;

  if new.state is distinct from old.state then
    perform filestore.check_state_change(node_name, old.parent_id is null, old.state, new.state);
    new.deleted_at := case when new.state = 'deleted' then coalesce(new.deleted_at, statement_timestamp()) end;
    if not isfinite(new.deleted_at) or new.deleted_at > clock_timestamp() then
      raise exception '% cannot be deleted at %', node_name, new.deleted_at
        using errcode = 'FS422',
              hint    = 'Leave deleted_at out of the update, or give a moment that has been.';
    end if;
  end if;
  new.live := new.deleted_at is null;

  if not new.live and (new.parent_id, new.parent_path, new.name) is distinct from (old.parent_id, old.parent_path, old.name)
     or not old.live and not new.live and new.deleted_at <> old.deleted_at then
    -- The key does not see tombstones: two moved into each other would be a ring.
    raise exception 'deleted % keeps its place and its deleted_at', node_name
      using errcode = 'FS422',
            hint    = 'Restore it first, or in the same statement by setting its state to active.';
  end if;
  if new.kind = 'directory' and (new.parent_id <> old.parent_id or new.name <> old.name) then
    -- For SQL that does not come through move_node, which takes it before any row.
    perform filestore.lock_tree(new.backend_mount_id, true);
  end if;

  if new.parent_id <> old.parent_id or (new.live and not old.live) then
    new.parent_path := filestore.find_parent(new.backend_mount_id, new.parent_id, new.name);
  elsif new.live and not new.parent_live then
    -- The cascade of a directory that is being deleted has reached a live child.
    raise exception 'directory "%" is not empty: it holds "%"', old.parent_path, old.name
      using errcode = 'FS409',
            hint    = 'Delete what it holds in the same statement, or first.';
  end if;
  new.parent_live := case when new.live and new.parent_id is not null then true end;

  if new.kind = 'directory' then
    -- Not new.path: a generated column is not yet computed here.
    new.directory_path := coalesce(nullif(new.parent_path, '') || '/', '') || new.name;
    -- The cascade of a directory below itself would run on. Several moved in a
    -- ring by one statement can evade this; nodes_parent_fkey or, at the
    -- latest, nodes_path_length_check ends that.
    if old.live and (new.parent_path = old.path or starts_with(new.parent_path, old.path || '/')) then
      raise exception 'directory "%" cannot be moved into itself ("%")', old.path, new.parent_path
        using errcode = 'FS422',
              hint    = 'Choose a parent outside of the directory that moves.';
    end if;
  end if;

  -- last_seen_at and last_reconciled_at are heartbeats; they do not count.
  changed := (new.parent_id, new.parent_path, new.name, new.size_bytes, new.checksum, new.content_hash,
              new.storage_class, new.metadata, new.state, new.last_modified_at, new.deleted_at)
             is distinct from
             (old.parent_id, old.parent_path, old.name, old.size_bytes, old.checksum, old.content_hash,
              old.storage_class, old.metadata, old.state, old.last_modified_at, old.deleted_at);
  new.version    := filestore.next_version(node_name, old.version, new.version, changed);
  -- The later of the two, so that the rows of one move change at one moment
  -- and two changes of a row in one statement still have an order.
  new.updated_at := case
    when changed then greatest(statement_timestamp(), old.updated_at + interval '1 microsecond')
    else old.updated_at
  end;
  return new;
end
$$;

comment on function filestore.prepare_node_update() is
  'Fills what follows from a node''s parent, name and state, counts its version, and refuses what is never legal.';

revoke all on function filestore.prepare_node_update() from public;
--! EndIncluded functions/prepare_node_update.sql
--! Included functions/guard_node_purge.sql
create or replace function filestore.guard_node_purge()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Depth 1 is a delete on nodes itself; deeper, the mount's own trigger
  -- removes the root of a mount that goes.
  if old.parent_id is not null or pg_trigger_depth() = 1 then
    raise exception 'node % ("%") is alive: only tombstones can be removed', old.id, old.path
      using errcode = 'FS409',
            hint    = 'Set its state to deleted first.';
  end if;
  return old;
end
$$;

comment on function filestore.guard_node_purge() is
  'Refuses to remove a row that is not a tombstone.';

revoke all on function filestore.guard_node_purge() from public;
--! EndIncluded functions/guard_node_purge.sql
--! Included functions/refuse_orphans.sql
create or replace function filestore.refuse_orphans()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  orphan record;
begin
  -- The key sees live children only; a tombstone below a removed tombstone is
  -- found here. None can slip in meanwhile: a tombstone gets no child, and a
  -- deleted child never moves.
  select c.id, c.path, c.parent_id
  into orphan
  from removed r
  -- "Offset 0" keeps this a lookup: right after a mass delete, statistics that
  -- know of no tombstones would turn it into a join of all with all.
  cross join lateral (
    select n.id, n.path, n.parent_id
    from filestore.nodes n
    where n.parent_id = r.id
      and not n.live
    limit 1
    offset 0
  ) c
  where r.directory_path is not null
  limit 1;

  if found then
    raise exception 'node % cannot be removed: node % ("%") is below it', orphan.parent_id, orphan.id, orphan.path
      using errcode = 'FS409',
            hint    = 'Remove children first, or all in one statement.';
  end if;
  return null;
end
$$;

comment on function filestore.refuse_orphans() is
  'Refuses to remove a row while another one names it as its parent.';

revoke all on function filestore.refuse_orphans() from public;
--! EndIncluded functions/refuse_orphans.sql

--! Included triggers/backend_mounts_create_root.sql
drop trigger if exists backend_mounts_create_root on filestore.backend_mounts;

create trigger backend_mounts_create_root
  after insert on filestore.backend_mounts
  for each row
  execute function filestore.create_mount_root();

comment on trigger backend_mounts_create_root on filestore.backend_mounts is
  'A mount comes with the root of its tree.';
--! EndIncluded triggers/backend_mounts_create_root.sql
--! Included triggers/backend_mounts_prepare_update.sql
drop trigger if exists backend_mounts_prepare_update on filestore.backend_mounts;

create trigger backend_mounts_prepare_update
  before update on filestore.backend_mounts
  for each row
  execute function filestore.prepare_mount_update();

comment on trigger backend_mounts_prepare_update on filestore.backend_mounts is
  'What a mount is never changes; every other change counts.';
--! EndIncluded triggers/backend_mounts_prepare_update.sql
--! Included triggers/backend_mounts_remove_root.sql
drop trigger if exists backend_mounts_remove_root on filestore.backend_mounts;

create trigger backend_mounts_remove_root
  before delete on filestore.backend_mounts
  for each row
  execute function filestore.remove_mount_root();

comment on trigger backend_mounts_remove_root on filestore.backend_mounts is
  'A mount that holds nothing can be deleted, its root with it.';
--! EndIncluded triggers/backend_mounts_remove_root.sql
--! Included triggers/backend_mounts_refuse_truncate.sql
drop trigger if exists backend_mounts_refuse_truncate on filestore.backend_mounts;

create trigger backend_mounts_refuse_truncate
  before truncate on filestore.backend_mounts
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger backend_mounts_refuse_truncate on filestore.backend_mounts is
  'Truncate would bypass the guards on rows.';
--! EndIncluded triggers/backend_mounts_refuse_truncate.sql
--! Included triggers/nodes_prepare_insert.sql
drop trigger if exists nodes_prepare_insert on filestore.nodes;

create trigger nodes_prepare_insert
  before insert on filestore.nodes
  for each row
  when (
    new.parent_path is null
    or new.parent_live is null
    or new.kind = 'directory'
  )
  execute function filestore.prepare_node_insert();

comment on trigger nodes_prepare_insert on filestore.nodes is
  'Fills what the writer left out. A loader of files that fills the parent''s columns pays nothing.';
--! EndIncluded triggers/nodes_prepare_insert.sql
--! Included triggers/nodes_prepare_update.sql
drop trigger if exists nodes_prepare_update on filestore.nodes;

-- Every column that can be set, but for the heartbeats: an update that sets
-- these alone has nothing to prepare.
create trigger nodes_prepare_update
  before update of
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
  execute function filestore.prepare_node_update();

comment on trigger nodes_prepare_update on filestore.nodes is
  'Keeps derived columns, state and version in step.';
--! EndIncluded triggers/nodes_prepare_update.sql
--! Included triggers/nodes_guard_purge.sql
drop trigger if exists nodes_guard_purge on filestore.nodes;

create trigger nodes_guard_purge
  before delete on filestore.nodes
  for each row
  when (
    old.deleted_at is null
  )
  execute function filestore.guard_node_purge();

comment on trigger nodes_guard_purge on filestore.nodes is
  'Only tombstones can be removed.';
--! EndIncluded triggers/nodes_guard_purge.sql
--! Included triggers/nodes_refuse_orphans.sql
drop trigger if exists nodes_refuse_orphans on filestore.nodes;

create trigger nodes_refuse_orphans
  after delete on filestore.nodes
  referencing old table as removed
  for each statement
  execute function filestore.refuse_orphans();

comment on trigger nodes_refuse_orphans on filestore.nodes is
  'No row may lose its parent.';
--! EndIncluded triggers/nodes_refuse_orphans.sql
--! Included triggers/nodes_refuse_truncate.sql
drop trigger if exists nodes_refuse_truncate on filestore.nodes;

create trigger nodes_refuse_truncate
  before truncate on filestore.nodes
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger nodes_refuse_truncate on filestore.nodes is
  'Truncate would bypass the guards on rows.';
--! EndIncluded triggers/nodes_refuse_truncate.sql

--! Included views/view_filestore_active_nodes.sql
drop view if exists filestore.view_filestore_active_nodes;

-- Base types, not domains: a recursive query or a union over a domain's column
-- needs casts.
create view filestore.view_filestore_active_nodes as
select
  n.id,
  n.backend_mount_id,
  m.mount_key,
  m.backend_kind,
  m.state as mount_state,
  n.parent_id,
  n.name::text as name,
  n.path,
  n.depth,
  n.kind::text as kind,
  n.size_bytes::bigint as size_bytes,
  n.checksum::text as checksum,
  n.content_hash,
  n.storage_class,
  n.metadata::jsonb as metadata,
  n.state::text as state,
  n.version::integer as version,
  filestore.location_uri(m.backend_kind, m.root_path, m.bucket, m.prefix, n.path) as location,
  n.last_seen_at,
  n.last_modified_at,
  n.last_reconciled_at,
  n.created_at,
  n.updated_at
from filestore.nodes n
join filestore.backend_mounts m on m.id = n.backend_mount_id
where n.live;

comment on view filestore.view_filestore_active_nodes is
  'Every node that is not deleted, with the mount that holds it and where it is. mount_key and path address it.';

comment on column filestore.view_filestore_active_nodes.id                 is 'nodes.id.';
comment on column filestore.view_filestore_active_nodes.backend_mount_id   is 'nodes.backend_mount_id.';
comment on column filestore.view_filestore_active_nodes.mount_key          is 'backend_mounts.mount_key.';
comment on column filestore.view_filestore_active_nodes.backend_kind       is 'backend_mounts.backend_kind: local or s3.';
comment on column filestore.view_filestore_active_nodes.mount_state        is 'backend_mounts.state.';
comment on column filestore.view_filestore_active_nodes.parent_id          is 'nodes.parent_id; null for a root.';
comment on column filestore.view_filestore_active_nodes.name               is 'nodes.name; empty for a root.';
comment on column filestore.view_filestore_active_nodes.path               is 'Canonical path below the mount''s root; empty for the root.';
comment on column filestore.view_filestore_active_nodes.depth              is 'Number of segments in path.';
comment on column filestore.view_filestore_active_nodes.kind               is 'file or directory.';
comment on column filestore.view_filestore_active_nodes.size_bytes         is 'Bytes; 0 for a directory.';
comment on column filestore.view_filestore_active_nodes.checksum           is 'algorithm:hex.';
comment on column filestore.view_filestore_active_nodes.content_hash       is 'The backend''s own identity of the content.';
comment on column filestore.view_filestore_active_nodes.storage_class      is 'The backend''s storage class.';
comment on column filestore.view_filestore_active_nodes.metadata           is 'A JSON object of the service''s own.';
comment on column filestore.view_filestore_active_nodes.state              is 'active, inconsistent or missing.';
comment on column filestore.view_filestore_active_nodes.version            is 'Optimistic version.';
comment on column filestore.view_filestore_active_nodes.location           is 'URI: file:///root/path or s3://bucket/prefix/path, percent-encoded.';
comment on column filestore.view_filestore_active_nodes.last_seen_at       is 'Heartbeat of a watcher.';
comment on column filestore.view_filestore_active_nodes.last_modified_at   is 'What the backend says.';
comment on column filestore.view_filestore_active_nodes.last_reconciled_at is 'Heartbeat of a reconciler.';
comment on column filestore.view_filestore_active_nodes.created_at         is 'When the node was inserted.';
comment on column filestore.view_filestore_active_nodes.updated_at         is 'When version last moved.';
--! EndIncluded views/view_filestore_active_nodes.sql
