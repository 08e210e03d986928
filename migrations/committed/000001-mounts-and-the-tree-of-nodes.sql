--! Previous: -
--! Hash: sha1:858fc7beab077dd30f6c22e30a8a98232e5c30e1
--! Message: Mounts and the tree of nodes

-- Names are compared and measured as UTF-8 bytes. In another encoding, the rules about lengths and control characters
-- would be wrong.
do $$
begin
  if current_setting('server_encoding') <> 'UTF8' then
    raise exception 'the database is encoded in %, but filestore needs UTF8', current_setting('server_encoding')
      using errcode = 'FS422',
            hint    = 'Create the database with: create database ... encoding ''UTF8'' template template0';
  end if;
end
$$;

create schema if not exists filestore;

comment on schema filestore is
  'Catalogue of files and directories on local disks and in S3. Grown by graphile-migrate migrations only.';

do $$
begin
  if to_regtype('filestore.place') is null then
    create type filestore.place as range (subtype = text, collation = "C");
  end if;
end
$$;

comment on type filestore.place is 'The text of a place and of everything in it. Two places overlap when they are equal or one is inside the other.';

--! Included functions/mount_place.sql
create or replace function filestore.mount_place(
  backend_kind text,
  root_path text default null,
  endpoint text default null,
  bucket text default null,
  prefix text default null
)
returns filestore.place
language sql
immutable parallel safe
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  -- The text ends with a slash, and '0' follows '/': the range has this place and all texts that begin with it.
  select filestore.place(p.name, left(p.name, -1) || '0')
  from (
    select case
      when backend_kind = 'local' then rtrim(root_path, '/') || '/'
      else 's3:' || coalesce(endpoint, '') || ' ' || bucket || '/' || coalesce(prefix || '/', '')
    end
  ) as p (name);
end;

comment on function filestore.mount_place(text, text, text, text, text) is
  'The place of a mount: a directory, or an endpoint, bucket and prefix, with everything in it. The places of two mounts do not overlap (&&).';

revoke all on function filestore.mount_place(text, text, text, text, text) from public;
--! EndIncluded functions/mount_place.sql

create table if not exists filestore.backend_mounts (
  id              bigint         generated always as identity (maxvalue 1099511627775),
  mount_key       text           collate "C" not null,
  display_name    text,
  description     text,
  labels          jsonb          not null default '{}',
  contact         text,
  backend_kind    text           not null,
  root_path       text           collate "C",
  endpoint        text           collate "C",
  bucket          text           collate "C",
  prefix          text           collate "C",
  config          jsonb          not null default '{}',
  credentials_ref text,
  access_mode     text           not null default 'rw',
  access_policy   jsonb          not null default '{}',
  state           text           not null default 'active',
  state_reason    text,
  erasing_since   timestamptz(3),
  held_by         integer,
  version         integer        not null default 1,
  created_at      timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),
  updated_at      timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),

  constraint backend_mounts_pkey
    primary key (id),
  constraint backend_mounts_mount_key_key
    unique (mount_key),
  constraint backend_mounts_mount_key_check
    check (octet_length(mount_key) <= 128 and mount_key ~ '^[A-Za-z0-9][A-Za-z0-9._-]*$'),
  constraint backend_mounts_backend_kind_check
    check (backend_kind in ('local', 's3')),
  constraint backend_mounts_access_mode_check
    check (access_mode in ('rw', 'ro')),
  constraint backend_mounts_state_check
    check (state in ('active', 'inactive', 'offline', 'degraded', 'error', 'unknown')),
  constraint backend_mounts_version_check
    check (version >= 1),
  constraint backend_mounts_place_check
    check (
      case backend_kind
        when 'local' then root_path is not null and endpoint is null and bucket is null and prefix is null
        when 's3'    then root_path is null and bucket is not null
      end
    ),
  -- Each place has one spelling, so that the exclusion finds every other mount of it. Places are short, so that several fit
  -- on a page of its index.
  constraint backend_mounts_root_path_check
    check (
      root_path = '/'
      or (octet_length(root_path) <= 1024 and root_path ~ '^(/[^/]+)+$' and root_path !~ '/\.{1,2}(/|$)' and root_path !~ '[\u0001-\u001f\u007f-\u009f]')
    ),
  -- In lower case, without a trailing slash and without the port that the scheme has anyway.
  constraint backend_mounts_endpoint_check
    check (
      octet_length(endpoint) <= 255
      and endpoint ~ '^https?://([a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[[][0-9a-f:.]+[]])(:[1-9][0-9]{0,4})?(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$'
      and endpoint !~ '^(http://[^/]*:80|https://[^/]*:443)(/|$)'
    ),
  constraint backend_mounts_bucket_check
    check (octet_length(bucket) >= 3 and octet_length(bucket) <= 255 and bucket ~ '^[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]$'),
  -- Null and never '' for the whole bucket, so that it has one spelling.
  constraint backend_mounts_prefix_check
    check (octet_length(prefix) <= 512 and prefix ~ '^[^/]+(/[^/]+)*$' and prefix !~ '[\u0001-\u001f\u007f-\u009f]'),
  constraint backend_mounts_display_name_check
    check (display_name <> '' and octet_length(display_name) <= 256 and display_name !~ '[\u0001-\u001f\u007f-\u009f]'),
  constraint backend_mounts_description_check
    check (octet_length(description) <= 8192 and description !~ '[\u0001-\u0008\u000b-\u001f\u007f-\u009f]'),
  constraint backend_mounts_labels_check
    check (jsonb_typeof(labels) = 'object'),
  constraint backend_mounts_contact_check
    check (contact <> '' and octet_length(contact) <= 256 and contact !~ '[\u0001-\u001f\u007f-\u009f]'),
  constraint backend_mounts_credentials_ref_check
    check (credentials_ref <> '' and octet_length(credentials_ref) <= 1024 and credentials_ref !~ '[\u0001-\u001f\u007f-\u009f]'),
  constraint backend_mounts_state_reason_check
    check (octet_length(state_reason) <= 8192),
  constraint backend_mounts_config_check
    check (jsonb_typeof(config) = 'object'),
  constraint backend_mounts_access_policy_check
    check (jsonb_typeof(access_policy) = 'object'),
  constraint backend_mounts_place_excl
    exclude using gist (filestore.mount_place(backend_kind, root_path, endpoint, bucket, prefix) with &&)
);

comment on table  filestore.backend_mounts                 is 'A configured root: a directory of a local disk, or a bucket (and prefix) in S3. Inserting one creates the root node of its tree.';
comment on column filestore.backend_mounts.id              is 'Stable number of the mount; never reused.';
comment on column filestore.backend_mounts.mount_key       is 'Name by which services and people address the mount: letters, digits, dot, underscore, hyphen; at most 128 bytes.';
comment on column filestore.backend_mounts.display_name    is 'Name for people; at most 256 bytes.';
comment on column filestore.backend_mounts.description     is 'What the mount is for; at most 8 KiB. It has tabs and line feeds, but no other control characters. A secret in it is refused.';
comment on column filestore.backend_mounts.labels          is 'A JSON object by which people group mounts, such as {"team": "imaging"}. A secret in it is refused; at most 64 KiB as text.';
comment on column filestore.backend_mounts.contact         is 'Contact for questions about the mount, such as a mail address; at most 256 bytes, without control characters.';
comment on column filestore.backend_mounts.backend_kind    is 'local or s3. Never changes.';
comment on column filestore.backend_mounts.root_path       is 'Local mounts: absolute, canonical path of the directory. Null on S3.';
comment on column filestore.backend_mounts.endpoint        is 'S3 mounts: URL of the server, such as https://minio.example:9000, in lower case and without a trailing slash; null for the provider''s default. Null on local mounts.';
comment on column filestore.backend_mounts.bucket          is 'S3 mounts: name of the bucket. Null on local mounts.';
comment on column filestore.backend_mounts.prefix          is 'S3 mounts: key prefix without leading or trailing slash; null for the whole bucket.';
comment on column filestore.backend_mounts.config          is 'Settings of the backend, such as its region. A secret in it is refused; at most 64 KiB as text.';
comment on column filestore.backend_mounts.credentials_ref is 'Name of the secret with the credentials of the backend; never the secret itself. At most 1024 bytes, without control characters.';
comment on column filestore.backend_mounts.access_mode     is 'rw, or ro for a mount that commands must not change.';
comment on column filestore.backend_mounts.access_policy   is 'Who may do what on the mount, as the service defines it. A secret in it is refused; at most 64 KiB as text.';
comment on column filestore.backend_mounts.state           is 'active, inactive, offline, degraded, error or unknown: what the service last knew of the backend.';
comment on column filestore.backend_mounts.state_reason    is 'Why the mount is in its state; at most 8 KiB. Write it together with the state.';
comment on column filestore.backend_mounts.erasing_since   is 'When the owner began to erase the mount with everything in it; null otherwise. Set by filestore.erase_mount only.';
comment on column filestore.backend_mounts.held_by         is 'While the mount moves to another server: the number of the database that takes its writes, or -1 for none, during the cut-over. Null otherwise. Set only by the functions that move it.';
comment on column filestore.backend_mounts.version         is 'Optimistic version: a trigger adds 1 at every change.';
comment on column filestore.backend_mounts.created_at      is 'When the row was inserted.';
comment on column filestore.backend_mounts.updated_at      is 'When version last changed.';

comment on constraint backend_mounts_place_check         on filestore.backend_mounts is 'A local mount has only root_path. An S3 mount has bucket, perhaps endpoint and prefix, but no root_path.';
comment on constraint backend_mounts_root_path_check     on filestore.backend_mounts is 'root_path is absolute, without empty, "." or ".." segments, without a trailing slash or control characters.';
comment on constraint backend_mounts_endpoint_check      on filestore.backend_mounts is 'endpoint is an http or https URL with one spelling: lower case, no trailing slash, no default port, no user, no query.';
comment on constraint backend_mounts_place_excl          on filestore.backend_mounts is 'No mount is at the place of another mount, or inside it.';

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
comment on column filestore.nodes.updated_at       is 'When version last changed, in whole milliseconds; later at every change. On a tombstone, retention counts from here.';
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
--! Included functions/is_small_json.sql
create or replace function filestore.is_small_json(value jsonb, bytes integer)
returns boolean
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A number such as 1e131071 is stored in 8 bytes, but its text has 131072. In strict mode, the numbers of an array are
  -- not found twice.
  numbers jsonb   := jsonb_path_query_array(value, 'strict $.** ? (@.type() == "number")');
  more    integer := jsonb_array_length(numbers);
  size    integer := 0;
begin
  if more > 32 then
    while more > 0 and size <= bytes loop
      more := more - 1;
      size := size + octet_length(numbers ->> more);
    end loop;
    if size > bytes then
      return false;
    end if;
  end if;
  -- Everything but numbers has at most six times as many bytes as it is stored in.
  size := octet_length(value::text);
  -- JSON.stringify, and the readers of some other languages, end with an error after some thousand levels or fewer.
  if size > 1000 and size <= bytes then
    return not jsonb_path_exists(value, 'strict $.**{501}');
  end if;
  return size <= bytes;
end
$$;

comment on function filestore.is_small_json(jsonb, integer) is
  'Internal: Whether the text of a JSON value, which is what a reader gets, has at most so many bytes, and at most 500 levels. The text is not built when long numbers would make it huge.';

revoke all on function filestore.is_small_json(jsonb, integer) from public;
--! EndIncluded functions/is_small_json.sql
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
      'must be live or deleted by all of live, state, deleted_at and parent_live',
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
      'has a link_target that is not valid',
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
  if node.parent_id is null then
    sound := node.parent_path is null
      and node.parent_live is null
      and node.name = ''
      and node.path = ''
      and node.depth = 0
      and node.kind = 'directory'
      and node.live
      and node.root_of_mount_id = node.backend_mount_id;
  else
    sound := node.name !~ E'^[.]{0,2}$|[/\\u0001-\\u001f\\u007f-\\u009f]'
      and node.path = filestore.child_path(node.parent_path, node.name)
      and node.depth = cardinality(string_to_array(node.path, '/'))
      and node.root_of_mount_id is null;
  end if;

  if node.live then
    sound := sound
      and node.deleted_at is null
      and node.state <> 'deleted'
      and (node.parent_live or node.parent_id is null);
  else
    sound := sound
      and node.deleted_at >= '0001-01-01T00:00:00Z'
      and node.state = 'deleted'
      and node.parent_live is null;
  end if;

  if node.kind = 'directory' then
    sound := sound and node.directory_path = node.path and node.size_bytes = 0;
  else
    sound := sound and node.directory_path is null and node.size_bytes >= 0;
  end if;

  if node.checksum is not null then
    sound := sound and octet_length(node.checksum) <= 1024 and node.checksum ~ '^[a-z0-9][a-z0-9-]*:[0-9a-f]+$';
  end if;
  if coalesce(node.content_hash, node.storage_class, node.link_target) is not null then
    sound := sound
      and (node.content_hash is null or octet_length(node.content_hash) <= 1024)
      and (node.storage_class is null or octet_length(node.storage_class) <= 256)
      and (node.link_target is null or (octet_length(node.link_target) between 1 and 4096 and node.kind = 'file'));
  end if;
  if node.metadata <> '{}' then
    sound := sound and jsonb_typeof(node.metadata) = 'object' and filestore.is_small_json(node.metadata, 65536);
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
  'Internal: The condition of nodes_sound_check: true when a row of nodes is well formed by itself. Otherwise raises 23514 with the name of the broken rule.';

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

--! Included functions/percent_encode.sql
create or replace function filestore.percent_encode(value text)
returns text
language sql
stable strict parallel safe
begin atomic
  -- RFC 3986: "/" and the characters of a path segment stay. Every other character becomes its UTF-8 bytes in
  -- hexadecimal.
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
  'Internal: A path encoded for a URI: percent_encode(''a b/#'') is ''a%20b/%23''.';

revoke all on function filestore.percent_encode(text) from public;
--! EndIncluded functions/percent_encode.sql
--! Included functions/location_uri.sql
create or replace function filestore.location_uri(backend_kind text, root_path text, bucket text, prefix text, path text)
returns text
language sql
stable parallel safe
begin atomic
  select case backend_kind
    -- A root_path of '/' already ends with the slash between it and path.
    when 'local' then 'file://' || filestore.percent_encode(
      rtrim(root_path, '/') || case when path <> '' or root_path = '/' then '/' else '' end || path
    )
    when 's3'    then 's3://' || filestore.percent_encode(concat_ws('/', bucket, prefix, nullif(path, '')))
  end;
end;

comment on function filestore.location_uri(text, text, text, text, text) is
  'Internal: The location of a path of a mount, as a URI: file:///root/path or s3://bucket/prefix/path.';

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
      using errcode    = 'FS422',
            constraint = 'tree_lock_check',
            hint       = 'Give the id of a mount, and whether the lock is exclusive.';
  elsif exclusive then
    perform pg_advisory_xact_lock(hashtextextended('filestore.tree', mount_id));
  else
    perform pg_advisory_xact_lock_shared(hashtextextended('filestore.tree', mount_id));
  end if;
end
$$;

comment on function filestore.lock_tree(bigint, boolean) is
  'Locks the shape of a mount''s tree until the transaction ends. Take it before any row of the mount, and never shared first and then exclusive. Exclusive: to move or rename directories, delete or restore trees, purge. Shared: to fold totals, move a file, restore one node, record first sightings, write several existing rows (in order of id), or create in several existing directories. No other operation needs it.';

revoke all on function filestore.lock_tree(bigint, boolean) from public;
--! EndIncluded functions/lock_tree.sql
--! Included functions/lock_trees.sql
create or replace function filestore.lock_trees(mount_ids bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint;
begin
  -- All transactions of the server share its table of locks.
  if cardinality(mount_ids) > 100 then
    raise exception 'the call concerns % mounts, which are too many', cardinality(mount_ids)
      using errcode    = 'FS422',
            constraint = 'mount_ids_check',
            hint       = 'Give nodes of at most 100 mounts in one call, such as those of one mount, and commit after each call.';
  end if;
  for mount_id in
    select m.id
    from unnest(mount_ids) as m (id)
    order by m.id
  loop
    perform filestore.lock_tree(mount_id, false);
  end loop;
end
$$;

comment on function filestore.lock_trees(bigint[]) is
  'Internal: Takes the shared tree locks of at most 100 mounts, in order of id. FS422 for more, since each lock takes a place in the table of locks of the whole server.';

revoke all on function filestore.lock_trees(bigint[]) from public;
--! EndIncluded functions/lock_trees.sql
--! Included functions/require_read_committed.sql
create or replace function filestore.require_read_committed(action text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- After waiting for a lock, a function must see rows that were committed during the wait. At other isolation levels,
  -- the snapshot is older.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception '% is not possible in a transaction with isolation level %', action, current_setting('transaction_isolation')
      using errcode    = 'FS409',
            constraint = 'read_committed_check',
            hint       = 'Use a READ COMMITTED transaction.';
  end if;
end
$$;

comment on function filestore.require_read_committed(text) is
  'Internal: Raises FS409 in a transaction that is not READ COMMITTED: its snapshot would be older than the locks that it takes.';

revoke all on function filestore.require_read_committed(text) from public;
--! EndIncluded functions/require_read_committed.sql
--! Included functions/refuse_version.sql
create or replace function filestore.refuse_version(row_name text, current_version integer, given_version integer)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if given_version = current_version + 1 then
    raise exception '% did not change, so its version stays at %', row_name, current_version
      using errcode    = 'FS422',
            constraint = 'version_chosen',
            hint       = 'Leave version out of the update: the database increments it.';
  end if;
  raise exception '% is at version %, and cannot be set to version %', row_name, current_version, given_version
    using errcode    = 'FS409',
          constraint = 'version_chosen',
          hint       = 'Leave version out of the update: the database increments it. To detect a concurrent change, add "where version = ..." and check the number of changed rows.';
end
$$;

comment on function filestore.refuse_version(text, integer, integer) is
  'Internal: Raises FS409 or FS422: an update cannot set the version.';

revoke all on function filestore.refuse_version(text, integer, integer) from public;
--! EndIncluded functions/refuse_version.sql
--! Included functions/refuse_truncate.sql
create or replace function filestore.refuse_truncate()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'filestore.% cannot be truncated', tg_table_name
    using errcode    = 'FS409',
          constraint = 'truncate_check',
          hint       = 'Delete the rows instead: truncate does not run the triggers that guard them.';
end
$$;

comment on function filestore.refuse_truncate() is
  'Refuses truncate, which would bypass the triggers that guard rows.';

revoke all on function filestore.refuse_truncate() from public;
--! EndIncluded functions/refuse_truncate.sql
--! Included functions/holds_secret.sql
create or replace function filestore.holds_secret(given text)
returns boolean
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Without backslashes, since a caller may have switched standard_conforming_strings off.
  url         constant text := '(^|[[:space:]"''`=(<,;:])//[^/?#@:[:space:]]*:(?!xxx)[^/?#@:[:space:]<{$*[(][^/?#@[:space:]]*@[^[:space:]]'
    || '|[^[:space:]:@/]:[^[:space:]:@/]+@(tcp|udp|unix)[(]';
  private_key constant text := '-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY';
  credentials constant text := '([Aa]uthorization|AUTHORIZATION)["'']? ?[:=] ?["'']?([Bb]earer|BEARER|[Bb]asic|BASIC|[Tt]oken) +[[:alnum:]_~-]*([0-9.+/=]|[a-z][A-Z])'
    || '|^([Bb]earer|BEARER) +[[:alnum:]_-]{2,}[.][[:alnum:]_-]{2,}[.][[:alnum:]_-]{2,}$';
  issued      constant text := '(^|[^[:alnum:]])('
    || 'gh[opsur]_[[:alnum:]]{10}|github_pat_[[:alnum:]]{10}|glpat-[[:alnum:]_-]{10}|xox[a-z]-[[:alnum:]-]{10}|[rs]k_(live|test)_[[:alnum:]]{10}'
    || '|sk-(ant-|proj-)?[[:alnum:]]{16}|AIza[[:alnum:]_-]{20}|hv[brs][.][[:alnum:]_-]{10}|npm_[[:alnum:]]{20}'
    || '|eyJ[[:alnum:]_-]{5,}[.][[:alnum:]_-]{5,}[.])';
begin
  return (strpos(given, '@') > 0 and given ~ url)
    or (strpos(given, 'PRIVATE KEY') > 0 and given ~ private_key)
    or given ~ credentials
    or given ~ issued;
end
$$;

comment on function filestore.holds_secret(text) is
  'Internal: Whether a text contains what can only be a secret: a URL with a password, a private key, an Authorization header with its value, or a token with the prefix of its issuer. docs/schema.md has the rule.';

revoke all on function filestore.holds_secret(text) from public;
--! EndIncluded functions/holds_secret.sql
--! Included functions/names_secret.sql
create or replace function filestore.names_secret(name text, value text)
returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Matched against a name whose words are separated by blanks. Without backslashes, since a caller may have switched
  -- standard_conforming_strings off.
  ending    constant text := 's?[0-9]*( (values?|text|string|str|plain|plaintext|clear|cleartext|raw|data|content|pem|base64|b64|hex|encoded'
    || '|current|old|new|previous|primary|secondary|main|default|prod|production|staging|dev|test|live|v?[0-9]+))*$';
  password  constant text := '((password|passwd|passphrase|passcode)|(^| )(pwd|pw)|(^|(^| )(db|database|user|admin|root|smtp|ftp|ssh|mysql|pg|redis|proxy) ?)(pass|pwd))';
  other     constant text := '((secret|private|api|signing|encryption|hmac|shared|master|account)( ?access)? ?key'
    || '|^secret|(^| )(client|app|application|consumer|api|shared|webhook|signing|jwt|oauth2?|hmac|auth|cookie|session|user|totp|aws|azure|s3|db) ?secret'
    || '|^token|(^| )(access|refresh|auth|api|bearer|id|session|security|sas|bot|personal|deploy|jwt|oauth2?|app|client|user|admin|service|account|github|gitlab|slack|vault|npm|registry|storage|aws|azure|gcp|s3|private|webhook) ?token'
    || '|shared ?access ?signature)';
  -- "usesToken" and "maxTokens" are about secrets.
  about     constant text := '^(uses?|using|has|have|is|no|non|not|needs?|requires?|required|allows?|enabled?|disabled?|skip|with|without|max|min|num|count|rotate|reset|forgot|change|show|hide|mask|ask|prompt|validate|verify|expires?)( |$)';
  state     constant text := '^(yes|no|on|off|true|false|none|null|nil|unset|missing|required|optional|enabled|disabled|always|never|auto|default|unknown'
    || '|expired|invalid|revoked|rotated|rotating|removed|redacted|hidden|masked|pending|active|inactive|hourly|daily|weekly|monthly|yearly'
    || '|string|text|see|ask|n/a|tbd|todo|prompt|env|file|header|cookie|query|static|dynamic|shared|managed|manual|automatic|opaque|kubernetes'
    || '|iam|sso|oidc|rbac|ldap|saml|mtls|oauth2?|jwt|bearer|basic|digest|kerberos|vault|kms|sts|bcrypt|argon2|sha256)$';
  -- A placeholder, a name of a variable, a file, a URL, or a path.
  reference constant text := '^([[<{%]|#[{]|[$][{(A-Za-z_]|@[A-Za-z]+[.]|__[A-Z]|[*.#_-]+$|[xX]{3,}$|[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$|[A-Za-z0-9_.-]+[.](pem|key|txt|json|ya?ml|env|p12|pfx|jks)$'
    || '|[.]{0,2}/|~/|[A-Za-z][A-Za-z0-9+.-]*:[^[:space:]]|[a-z0-9_.-]+(/[a-z0-9_.-]+)+$)';
  secret    text;
  words     text;
begin
  if name !~* 'pass|pwd|pw|secret|token|key|sig' or coalesce(btrim(value), '') = '' then
    return false;
  end if;
  secret := left(btrim(value), 300);
  if (length(secret) < 12 and lower(secret) ~ state) or secret ~ reference then
    return false;
  elsif name ~* '^[?&](x-[a-z]+-)?sig(nature)?$' then
    -- A signed URL.
    return true;
  end if;

  -- "dbPassword2", "DBPassword" and "DB_PASSWORD" become "db password". A longer name is not that of a secret.
  words := btrim(regexp_replace(
    lower(regexp_replace(regexp_replace(right(name, 100), '([a-z0-9])([A-Z])', E'\\1 \\2', 'g'), '([A-Z]+)([A-Z][a-z])', E'\\1 \\2', 'g')),
    '[^a-z0-9]+', ' ', 'g'
  ));
  if words ~ about then
    return false;
  elsif words ~ (password || ending) then
    return secret !~ '^[0-9]{1,3}$' and (secret !~ '[[:space:]]' or words ~ 'passphrase');
  end if;
  -- The name of a secret in a store, such as media-s3, is not the secret. The key of an account may be its name.
  return words ~ (other || ending)
    and secret !~ '^[0-9.]+$|[[:space:]]'
    and (secret !~ '^[A-Za-z]+$' or words !~ '(signing|encryption|shared|master|account) ?key')
    and (secret !~ '^[a-z][a-z0-9]*(-[a-z0-9]+)+$' or secret ~ '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$');
end
$$;

comment on function filestore.names_secret(text, text) is
  'Internal: Whether a setting with this name and value is a secret: the name ends in the word for one, and the value is not a state, a placeholder or a reference. docs/schema.md has the rule.';

revoke all on function filestore.names_secret(text, text) from public;
--! EndIncluded functions/names_secret.sql
--! Included functions/find_secret.sql
create or replace function filestore.find_secret(settings jsonb)
returns text
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
-- The parts of 64 KiB of JSON fit.
set work_mem = '32MB'
as $$
declare
  -- E'' strings, since a caller may have switched standard_conforming_strings off. The tokens have no common characters
  -- with those after them, so that the time is linear.
  assignment constant text := E'([?&]?[A-Za-z0-9_.-]+)(?:["'']?=["'']?|["'']? =>? ["'']|["''] ?: ?["'']?|: ?["''])([^[:space:]&;,"'']+)';
  line       constant text := E'^[ \t]*(?:- )?([A-Za-z0-9_.-]+)(?:: +| ?= ?)([^[:space:]"'']+)[ \t\r]*$';
  element    constant text := '<([A-Za-z0-9_.:-]+)>([^<>[:space:]]+)<';
  words      constant text := 'pass|pwd|pw|secret|token|key|sig';
  part       record;
  given      text;
begin
  for part in
    with recursive parts (path, parent, key, name, value) as (
      select case jsonb_typeof(find_secret.settings) when 'string' then 'the value' end, null::text, null::text, null::text, find_secret.settings
      union all
      -- Shortened, so that the parts together have no more than a multiple of the bytes of the settings.
      select left(concat_ws('.', p.path, left(c.key, 100)), 300), p.path, c.key, right(c.name, 100), c.value
      from parts p
      cross join lateral (
        -- The value of {"name": "...", "value": "..."} has that name, and {"password": {"value": "..."}} is passwordValue.
        select
          o.key,
          case
            when n.name is not null then n.name
            when p.name ~* words and o.key !~* words and length(o.key) <= 20 and filestore.names_secret('password_' || o.key, '?') then p.name || '_' || o.key
            else o.key
          end as name,
          o.value
        from jsonb_each(case jsonb_typeof(p.value) when 'object' then p.value end) o
        left join lateral (
          select coalesce(p.value ->> 'name', p.value ->> 'Name', p.value ->> 'key', p.value ->> 'Key', p.value ->> 'variable', p.value ->> 'header') as name
          where lower(o.key) in ('val', 'value')
        ) n on true
        union all
        select (a.position - 1)::text, p.name, a.value
        from jsonb_array_elements(case jsonb_typeof(p.value) when 'array' then p.value end) with ordinality as a (value, position)
        where jsonb_typeof(a.value) in ('object', 'array')
           or (jsonb_typeof(a.value) = 'string' and (p.name ~* words or length(a.value #>> '{}') >= 8))
      ) c
      where jsonb_typeof(p.value) in ('object', 'array')
    )
    select p.path, p.parent, p.key, p.name, p.value
    from parts p
    where p.path is not null
  loop
    if length(part.key) > 8 and filestore.holds_secret(part.key) then
      -- The path leaves out this key, because the key contains the secret.
      return concat_ws('.', part.parent, '***');
    elsif jsonb_typeof(part.value) not in ('string', 'number') then
      continue;
    end if;
    given := part.value #>> '{}';
    if part.name ~* words and filestore.names_secret(part.name, given) then
      return part.path;
    elsif length(given) < 7 or jsonb_typeof(part.value) = 'number' then
      continue;
    elsif filestore.holds_secret(case when part.name ~* 'auth|header' then 'Authorization: ' end || given) or filestore.holds_secret(given) then
      return part.path;
    elsif given ~* words and given ~ '[=:>]' and exists (
      select
      from (
        select regexp_matches(given, assignment, 'g')
        union all
        -- A line of prose may be "Password: 1Password".
        select regexp_matches(given, line, 'gn')
        where part.key is not null
        union all
        select regexp_matches(given, element, 'g')
      ) found (pair)
      where found.pair[1] ~* words
        and filestore.names_secret(found.pair[1], found.pair[2])
    ) then
      return part.path;
    end if;
  end loop;
  return null;
end
$$;

comment on function filestore.find_secret(jsonb) is
  'Internal: The path of the first part of a JSON value that looks like a secret, or null: a setting with the name of a secret and a value that can be one, an assignment of one in a text, or a text that contains what can only be a secret. docs/schema.md has the rule. Its time and memory grow with the size of the value.';

revoke all on function filestore.find_secret(jsonb) from public;
--! EndIncluded functions/find_secret.sql
--! Included functions/check_settings.sql
create or replace function filestore.check_settings(column_name text, settings jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  secret text;
begin
  if jsonb_path_exists(settings, 'strict $.**{33}') then
    raise exception '% nests deeper than 32 levels', column_name
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_depth_check',
            hint       = 'Give a value with at most 32 levels.';
  elsif not filestore.is_small_json(settings, 65536) then
    raise exception '% has more than 65536 bytes', column_name
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_size_check',
            hint       = 'Give at most 65536 bytes of JSON text.';
  end if;
  secret := filestore.find_secret(settings);
  if secret is not null then
    -- A check constraint would quote the row, and so the secret, to the client and in the server's log.
    raise exception '% contains a secret: %', column_name, left(secret, 200)
      using errcode    = 'FS422',
            constraint = 'backend_mounts_secret_check',
            hint       = 'Put the secret into a secret store, and its name into credentials_ref. docs/schema.md has the rule.';
  end if;
end
$$;

comment on function filestore.check_settings(text, jsonb) is
  'Internal: Raises FS422 when settings of a mount are too big, nest too deeply or contain a secret, without quoting it.';

revoke all on function filestore.check_settings(text, jsonb) from public;
--! EndIncluded functions/check_settings.sql
--! Included functions/is_backfill.sql
create or replace function filestore.is_backfill(before jsonb, after jsonb)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Any role can set filestore.backfill_id. Only the owner can write to backfills, so its transaction_id is the proof.
  return exists (
    select
    from filestore.backfills b
    where b.id::text = current_setting('filestore.backfill_id', true)
      and b.transaction_id = pg_current_xact_id_if_assigned()
      and before -> b.column_name = 'null'
      and before - b.column_name = after - b.column_name
  );
end
$$;

comment on function filestore.is_backfill(jsonb, jsonb) is
  'Internal: Whether a batch of filestore.backfill is the only change of a row, so that its version stays. Called when the setting filestore.backfill_id is set.';

revoke all on function filestore.is_backfill(jsonb, jsonb) from public;
--! EndIncluded functions/is_backfill.sql
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

  if exists (
    select
    from filestore.nodes n
    where n.backend_mount_id = old.id
      and n.parent_id is not null
  ) then
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
--! Included functions/prepare_mount.sql
create or replace function filestore.prepare_mount()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  given_version integer := new.version;
begin
  if new.config is distinct from old.config then
    perform filestore.check_settings('config', new.config);
  end if;
  if new.access_policy is distinct from old.access_policy then
    perform filestore.check_settings('access_policy', new.access_policy);
  end if;
  if new.credentials_ref is distinct from old.credentials_ref then
    perform filestore.check_settings('credentials_ref', to_jsonb(new.credentials_ref));
  end if;
  if new.labels is distinct from old.labels then
    perform filestore.check_settings('labels', new.labels);
  end if;
  -- Not state_reason: no text of a failure may keep a service from writing a state.
  if (new.endpoint, new.display_name, new.description, new.contact)
     is distinct from (old.endpoint, old.display_name, old.description, old.contact) then
    perform filestore.check_settings('endpoint', to_jsonb(new.endpoint));
    perform filestore.check_settings('display_name', to_jsonb(new.display_name));
    perform filestore.check_settings('description', to_jsonb(new.description));
    perform filestore.check_settings('contact', to_jsonb(new.contact));
  end if;
  if tg_op = 'INSERT' then
    return new;
  end if;

  if new.id is distinct from old.id
     or new.backend_kind is distinct from old.backend_kind
     or new.created_at is distinct from old.created_at then
    raise exception 'mount "%" cannot change its id, backend_kind or created_at', old.mount_key
      using errcode    = 'FS422',
            constraint = 'backend_mounts_fixed_check',
            hint       = 'Register another mount instead.';
  end if;

  -- The whole row is compared, so that new columns are included.
  new.version    := old.version;
  new.updated_at := old.updated_at;
  if new *<> old
     and (coalesce(current_setting('filestore.backfill_id', true), '') = '' or not filestore.is_backfill(to_jsonb(old), to_jsonb(new))) then
    new.version    := old.version + 1;
    new.updated_at := greatest(date_trunc('milliseconds', statement_timestamp()), old.updated_at + interval '1 millisecond');
  end if;
  if given_version is distinct from old.version and given_version is distinct from new.version then
    perform filestore.refuse_version(format('mount "%s"', old.mount_key), old.version, given_version);
  end if;
  return new;
end
$$;

comment on function filestore.prepare_mount() is
  'Refuses a secret in a mount''s settings, and a change of its id, backend_kind or created_at. Increments the version at every other change.';

revoke all on function filestore.prepare_mount() from public;
--! EndIncluded functions/prepare_mount.sql
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
             node_parent_id, parent.path, shown, parent.backend_mount_id, node_mount_id),
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
--! EndIncluded functions/refuse_created_node.sql
--! Included functions/prepare_node_insert.sql
create or replace function filestore.prepare_node_insert()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.parent_id is null and new.name = '' then
    -- The root of a mount: only the trigger on backend_mounts creates a node without name and parent.
    new.path             := '';
    new.depth            := 0;
    new.root_of_mount_id := new.backend_mount_id;
  else
    if new.parent_path is null then
      -- The usual case of find_parent, without the cost of a call.
      select case when p.backend_mount_id = new.backend_mount_id and p.live then p.directory_path end
      into new.parent_path
      from filestore.nodes p
      where p.id = new.parent_id
      for key share;
      if new.parent_path is null then
        new.parent_path := filestore.find_parent(new.backend_mount_id, new.parent_id, new.name);
      end if;
    end if;
    new.parent_live      := true;
    new.path             := filestore.child_path(new.parent_path, new.name);
    new.depth            := cardinality(string_to_array(new.path, '/'));
    new.root_of_mount_id := null;
  end if;
  if new.kind = 'directory' then
    new.directory_path := new.path;
  end if;
  if new.state = 'deleted'
     or new.version <> 1
     or octet_length(new.name) > 255
     or new.updated_at > clock_timestamp() + interval '1 millisecond'
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
  given_version integer := new.version;
begin
  if new.id is distinct from old.id
     or new.backend_mount_id is distinct from old.backend_mount_id
     or new.root_of_mount_id is distinct from old.root_of_mount_id
     or new.kind is distinct from old.kind
     or new.created_at is distinct from old.created_at
     or (new.parent_id is null) <> (old.parent_id is null) then
    raise exception '% cannot change its id, backend_mount_id, kind or created_at, nor become or cease to be a root', filestore.describe_node(old)
      using errcode    = 'FS422',
            constraint = 'nodes_fixed_check',
            hint       = 'Delete the node and create another one; the new node has a new id.';
  end if;

  if new.state is distinct from old.state then
    if (new.state = 'deleted' and old.parent_id is null)
       or (new.state = 'inconsistent' and old.state <> 'active')
       or (new.state = 'missing' and old.state not in ('active', 'inconsistent')) then
      perform filestore.refuse_state_change(old, new.state);
    end if;
    new.deleted_at := case when new.state = 'deleted' then coalesce(new.deleted_at, date_trunc('milliseconds', statement_timestamp())) end;
    if not isfinite(new.deleted_at) or new.deleted_at > clock_timestamp() + interval '1 millisecond' then
      raise exception '% cannot be deleted at %', filestore.describe_node(old), new.deleted_at
        using errcode    = 'FS422',
              constraint = 'nodes_deleted_at_check',
              hint       = 'Leave deleted_at out of the update, or give a moment in the past.';
    end if;
  end if;
  new.live := new.deleted_at is null;

  if not new.live
     and (
       (new.parent_id, new.parent_path, new.name) is distinct from (old.parent_id, old.parent_path, old.name)
       or (not old.live and new.deleted_at <> old.deleted_at)
     ) then
    -- nodes_parent_fkey does not cover tombstones: two that are moved into each other would be a cycle.
    raise exception 'deleted % keeps its place and its deleted_at', filestore.describe_node(old)
      using errcode    = 'FS422',
            constraint = 'nodes_tombstone_check',
            hint       = 'Restore it first, or set its state to active in the same statement.';
  end if;

  if new.parent_id is distinct from old.parent_id or new.name is distinct from old.name then
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
  if new.parent_id is distinct from old.parent_id or (new.live and not old.live and new.parent_live is not true) then
    new.parent_path := filestore.find_parent(new.backend_mount_id, new.parent_id, new.name);
  elsif new.live and not new.parent_live then
    -- The cascade of a directory that is being deleted has reached a live child.
    raise exception 'directory "%" is not empty: it holds "%"', old.parent_path, old.name
      using errcode    = 'FS409',
            constraint = 'nodes_not_empty',
            hint       = 'Delete the nodes in it first, or in the same statement.';
  end if;
  new.parent_live := case when new.live and new.parent_id is not null then true end;

  if new.parent_path is distinct from old.parent_path or new.name is distinct from old.name then
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
  else
    new.path           := old.path;
    new.depth          := old.depth;
    new.directory_path := old.directory_path;
  end if;

  -- The whole row is compared, so that new columns are included.
  new.version    := old.version;
  new.updated_at := old.updated_at;
  if new *<> old
     and (coalesce(current_setting('filestore.backfill_id', true), '') = '' or not filestore.is_backfill(to_jsonb(old), to_jsonb(new))) then
    new.version    := old.version + 1;
    -- All rows of one move get the same moment, and two changes of a row in one statement get different ones. After an
    -- hour, the clock is used: retention counts from updated_at, and a "do" block may run for days.
    new.updated_at := greatest(
      date_trunc('milliseconds', case when clock_timestamp() < statement_timestamp() + interval '1 hour' then statement_timestamp() else clock_timestamp() end),
      old.updated_at + interval '1 millisecond'
    );
  end if;
  if given_version is distinct from old.version and given_version is distinct from new.version then
    perform filestore.refuse_version(filestore.describe_node(old), old.version, given_version);
  end if;
  return new;
end
$$;

comment on function filestore.prepare_node_update() is
  'Sets the columns that follow from a node''s parent, name and state, increments its version, and refuses changes that are never legal.';

revoke all on function filestore.prepare_node_update() from public;
--! EndIncluded functions/prepare_node_update.sql
--! Included functions/guard_node_removal.sql
create or replace function filestore.guard_node_removal()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- While a mount is being erased, its nodes are removed in any order.
  erasing bigint[] := array(
    select m.id
    from filestore.backend_mounts m
    where m.erasing_since is not null
    union all
    select c.mount_id
    from filestore.moves c
    where c.step = 'erasing'
  );
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
    raise exception 'node % ("%") is alive: only tombstones can be removed', stray.id, stray.path
      using errcode    = 'FS409',
            constraint = 'nodes_alive',
            hint       = 'Delete it first, with filestore.delete_node or by setting its state to deleted.';
  end if;

  -- nodes_parent_fkey covers live children only, so this looks for tombstones below the removed rows. No new ones can
  -- appear: no child can be created in a tombstone, and a deleted child never moves.
  select c.id, c.path, c.parent_id
  into stray
  from removed r
  -- "Offset 0" keeps this a lookup. Right after a mass delete, the statistics know of no tombstones yet, and the
  -- planner would compare every pair of rows.
  cross join lateral (
    select n.id, n.path, n.parent_id
    from filestore.nodes n
    where n.parent_id = r.id
      and not n.live
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

--! Included triggers/backend_mounts_create_root.sql
drop trigger if exists backend_mounts_create_root on filestore.backend_mounts;

create trigger backend_mounts_create_root
  after insert on filestore.backend_mounts
  for each row
  execute function filestore.create_mount_root();

comment on trigger backend_mounts_create_root on filestore.backend_mounts is
  'Creates the root node of a new mount.';
--! EndIncluded triggers/backend_mounts_create_root.sql
--! Included triggers/backend_mounts_prepare.sql
drop trigger if exists backend_mounts_prepare on filestore.backend_mounts;

create trigger backend_mounts_prepare
  before insert or update on filestore.backend_mounts
  for each row
  execute function filestore.prepare_mount();

comment on trigger backend_mounts_prepare on filestore.backend_mounts is
  'Refuses secrets and changes of a mount''s identity, and increments its version.';
--! EndIncluded triggers/backend_mounts_prepare.sql
--! Included triggers/backend_mounts_remove_root.sql
drop trigger if exists backend_mounts_remove_root on filestore.backend_mounts;

create trigger backend_mounts_remove_root
  before delete on filestore.backend_mounts
  for each row
  execute function filestore.remove_mount_root();

comment on trigger backend_mounts_remove_root on filestore.backend_mounts is
  'Removes the root of an empty mount that is being deleted, and refuses to delete any other mount.';
--! EndIncluded triggers/backend_mounts_remove_root.sql
--! Included triggers/backend_mounts_refuse_truncate.sql
drop trigger if exists backend_mounts_refuse_truncate on filestore.backend_mounts;

create trigger backend_mounts_refuse_truncate
  before truncate on filestore.backend_mounts
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger backend_mounts_refuse_truncate on filestore.backend_mounts is
  'Refuses truncate, which would bypass the triggers that guard rows.';
--! EndIncluded triggers/backend_mounts_refuse_truncate.sql
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

create trigger nodes_prepare_update
  before update on filestore.nodes
  for each row
  execute function filestore.prepare_node_update();

comment on trigger nodes_prepare_update on filestore.nodes is
  'Keeps derived columns, state and version consistent.';
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
