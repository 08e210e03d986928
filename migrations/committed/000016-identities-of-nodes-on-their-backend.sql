--! Previous: sha1:33cfad741cb2a528f21684c04d14c30854657908
--! Hash: sha1:40a4d4bb4c49f87eb6480f490a0ec3ab412216c6
--! Message: Identities of nodes on their backend

alter table filestore.nodes     add column if not exists backend_identity text collate "C";
alter table filestore.snapshots add column if not exists backend_identity text collate "C";

comment on column filestore.nodes.backend_identity     is 'A text that the object keeps when it is renamed or moved on its backend, such as inode and birth time; null when unknown. Hard links have the same one. At most 1024 bytes.';
comment on column filestore.snapshots.backend_identity is 'A text that the object keeps when it is renamed or moved on its backend, such as inode and birth time; null when unknown. Hard links have the same one. At most 1024 bytes.';

--! Included views/view_filestore_active_nodes.sql
drop view if exists filestore.view_filestore_active_nodes;

-- The view has all columns of nodes. Include this file again in a migration that adds a column.
create view filestore.view_filestore_active_nodes as
select
  n.*,
  m.mount_key,
  m.backend_kind,
  m.state as mount_state,
  filestore.location_uri(m.backend_kind, m.root_path, m.bucket, m.prefix, n.path) as location,
  s.last_seen_at,
  s.last_reconciled_at
from filestore.nodes n
join filestore.backend_mounts m on m.id = n.backend_mount_id
left join filestore.node_sightings s on s.node_id = n.id
where n.live;

comment on view filestore.view_filestore_active_nodes is
  'Every live node, with its mount, its location and its last sightings. mount_key and path identify it.';

comment on column filestore.view_filestore_active_nodes.mount_state is 'backend_mounts.state.';
comment on column filestore.view_filestore_active_nodes.location    is 'URI: file:///root/path or s3://bucket/prefix/path, percent-encoded.';
--! EndIncluded views/view_filestore_active_nodes.sql
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

drop function if exists filestore.create_node(bigint, text, filestore.node_kind, bigint, text, text, text, jsonb, timestamptz, text, timestamptz);
drop function if exists filestore.upsert_file(text, text, bigint, text, text, text, jsonb, timestamptz, text, timestamptz, integer, bigint);
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
      'nodes_backend_identity_check',
      node.backend_identity is null or octet_length(node.backend_identity) between 1 and 1024,
      format('has a backend_identity of %s bytes', octet_length(node.backend_identity)),
      'Give 1 to 1024 bytes, or null.'
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
  if node.metadata <> '{}' or coalesce(node.content_hash, node.storage_class, node.link_target, node.backend_identity) is not null then
    sound := sound
      and (node.content_hash is null or octet_length(node.content_hash) <= 1024)
      and (node.storage_class is null or octet_length(node.storage_class) <= 256)
      and (node.backend_identity is null or octet_length(node.backend_identity) between 1 and 1024)
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
--! Included functions/create_node.sql
create or replace function filestore.create_node(
  parent_id        bigint,
  name             text,
  kind             filestore.node_kind default 'file',
  size_bytes       bigint              default 0,
  checksum         text                default null,
  content_hash     text                default null,
  storage_class    text                default null,
  metadata         jsonb               default '{}',
  last_modified_at timestamptz         default null,
  link_target      text                default null,
  last_seen_at     timestamptz         default null,
  backend_identity text                default null
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
-- Arguments have the names of columns, and the columns in "on conflict" cannot be qualified.
#variable_conflict use_column
declare
  mount_id bigint;
  node     filestore.nodes;
begin
  perform filestore.check_name(create_node.name);
  -- Most digests are in canonical form already, and the table's check looks at their digits. Skipping the call saves a
  -- twentieth of a create.
  if octet_length(create_node.checksum) <> 71
     or not starts_with(create_node.checksum, 'sha256:')
     or create_node.checksum <> lower(create_node.checksum) then
    create_node.checksum := filestore.canonical_checksum(create_node.checksum);
  end if;
  select n.backend_mount_id
  into mount_id
  from filestore.nodes n
  where n.id = create_node.parent_id;

  insert into filestore.nodes (
    backend_mount_id,
    parent_id,
    name,
    kind,
    size_bytes,
    checksum,
    content_hash,
    storage_class,
    metadata,
    last_modified_at,
    link_target,
    backend_identity
  )
  values (
    mount_id,
    create_node.parent_id,
    create_node.name,
    coalesce(create_node.kind, 'file'),
    coalesce(create_node.size_bytes, 0),
    create_node.checksum,
    create_node.content_hash,
    create_node.storage_class,
    coalesce(create_node.metadata, '{}'),
    create_node.last_modified_at,
    create_node.link_target,
    create_node.backend_identity
  )
  -- "on conflict" names its index, so that an id that exists already (its sequence is behind) raises 23505 and not
  -- "the name is taken".
  on conflict (parent_id, name) where parent_live is not null do nothing
  returning * into node;

  if node.id is null then
    perform filestore.refuse_taken_name(create_node.parent_id, create_node.name);
  end if;
  if create_node.last_seen_at is not null then
    perform filestore.record_write_sighting(node.id, create_node.last_seen_at);
  end if;
  return node;
end
$$;

comment on function filestore.create_node(bigint, text, filestore.node_kind, bigint, text, text, text, jsonb, timestamptz, text, timestamptz, text) is
  'Creates a file or directory and returns it; last_seen_at also records a sighting. The checksum may have any form that filestore.canonical_checksum takes. FS404 when the parent is not a live directory, FS409 when the name is taken, FS422 when the name or the checksum is not valid.';

revoke all on function filestore.create_node(bigint, text, filestore.node_kind, bigint, text, text, text, jsonb, timestamptz, text, timestamptz, text) from public;
--! EndIncluded functions/create_node.sql
--! Included functions/upsert_file.sql
create or replace function filestore.upsert_file(
  mount_key        text,
  path             text,
  size_bytes       bigint      default 0,
  checksum         text        default null,
  content_hash     text        default null,
  storage_class    text        default null,
  metadata         jsonb       default null,
  last_modified_at timestamptz default null,
  link_target      text        default null,
  last_seen_at     timestamptz default null,
  expected_version integer     default null,
  expected_id      bigint      default null,
  backend_identity text        default null
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id  bigint := filestore.find_mount(upsert_file.mount_key);
  wanted    text   := filestore.canonical_path(upsert_file.path);
  file_name text   := substring(wanted from '[^/]+$');
  digest    text   := filestore.canonical_checksum(upsert_file.checksum);
  known     filestore.nodes;
  directory filestore.nodes;
  node      filestore.nodes;
begin
  if file_name is null then
    raise exception 'the path of a file is %', case when wanted is null then 'null' else 'empty' end
      using errcode    = 'FS422',
            constraint = 'nodes_path_check',
            hint       = 'Give the path of the file below the root of its mount.';
  end if;

  -- Tries again when the file or a directory above it is created, moved or deleted at the same time.
  for attempt in 1..100 loop
    select *
    into known
    from filestore.nodes n
    where n.backend_mount_id = mount_id
      and n.path = wanted
      and n.live;

    if known.directory_path is not null then
      raise exception '"%" on mount "%" is a directory', wanted, upsert_file.mount_key
        using errcode    = 'FS409',
              constraint = 'nodes_directory_in_the_way',
              hint       = 'Choose another path, or move or delete the directory.';
    elsif known.id is distinct from coalesce(upsert_file.expected_id, known.id) then
      raise exception 'file "%" on mount "%" %, but node % is expected', wanted, upsert_file.mount_key,
        coalesce('is node ' || known.id, 'does not exist'), upsert_file.expected_id
        using errcode    = 'FS409',
              constraint = 'nodes_stale',
              hint       = 'Read the path again, and decide again: the node was replaced, moved or deleted.';
    elsif coalesce(known.version, 0) <> upsert_file.expected_version then
      raise exception 'file "%" on mount "%" %', wanted, upsert_file.mount_key, case
        when known.id is null then format('does not exist, but version %s is expected', upsert_file.expected_version)
        when upsert_file.expected_version = 0 then format('exists, at version %s', known.version)
        else format('is at version %s, not %s', known.version, upsert_file.expected_version)
      end
        using errcode    = 'FS409',
              constraint = 'nodes_stale',
              hint       = 'Read it again, and decide again: it was changed since you read it.';
    end if;

    -- The exception releases the locks of a failed attempt, since the next one would otherwise take locks out of order.
    -- FS000 would not do here: as a condition, it means the whole class FS.
    begin
      if known.id is not null then
        update filestore.nodes n
        set size_bytes       = coalesce(upsert_file.size_bytes, 0),
            checksum         = digest,
            content_hash     = upsert_file.content_hash,
            storage_class    = upsert_file.storage_class,
            metadata         = coalesce(upsert_file.metadata, n.metadata),
            last_modified_at = upsert_file.last_modified_at,
            link_target      = upsert_file.link_target,
            backend_identity = upsert_file.backend_identity,
            state            = 'active'
        where n.id = known.id
          and n.live
          and n.path = wanted
          and n.version = coalesce(upsert_file.expected_version, n.version)
        returning * into node;
      else
        directory := filestore.ensure_directory(upsert_file.mount_key, left(wanted, -length(file_name)));
        -- As in ensure_child, the lock keeps the directory in place.
        insert into filestore.nodes (
          backend_mount_id,
          parent_id,
          parent_path,
          name,
          kind,
          size_bytes,
          checksum,
          content_hash,
          storage_class,
          metadata,
          last_modified_at,
          link_target,
          backend_identity
        )
        select
          mount_id,
          d.id,
          d.path,
          file_name,
          'file',
          coalesce(upsert_file.size_bytes, 0),
          digest,
          upsert_file.content_hash,
          upsert_file.storage_class,
          coalesce(upsert_file.metadata, '{}'),
          upsert_file.last_modified_at,
          upsert_file.link_target,
          upsert_file.backend_identity
        from filestore.nodes d
        where d.id = directory.id
          and d.live
          and d.path = directory.path
        for key share
        on conflict (parent_id, name) where parent_live is not null do nothing
        returning * into node;
      end if;
      if node.id is null then
        raise sqlstate 'FS001';
      end if;
    exception
      when sqlstate 'FS001' then
        null;
    end;

    if node.id is not null then
      if upsert_file.last_seen_at is not null then
        perform filestore.record_write_sighting(node.id, upsert_file.last_seen_at);
      end if;
      return node;
    end if;
  end loop;

  raise exception 'file "%" on mount "%", or a directory above it, keeps being moved or deleted', wanted, upsert_file.mount_key
    using errcode    = 'FS409',
          constraint = 'nodes_busy',
          hint       = 'Call filestore.upsert_file again.';
end
$$;

comment on function filestore.upsert_file(text, text, bigint, text, text, text, jsonb, timestamptz, text, timestamptz, integer, bigint, text) is
  'Creates the file at a path of a mount, with the missing directories above it, or overwrites it, and returns it. Content that is not given becomes null, and size_bytes 0; metadata that is not given stays. A missing or inconsistent file becomes active; last_seen_at also records a sighting. Any number of callers may write one path at once. FS404 when the mount does not exist. FS409 when the file is not the node expected_id, when it is not at expected_version (null: any; 0: it must not exist), when a directory is at its path, or when a file is where a directory is needed. FS422 when the path or the checksum is not valid.';

revoke all on function filestore.upsert_file(text, text, bigint, text, text, text, jsonb, timestamptz, text, timestamptz, integer, bigint, text) from public;
--! EndIncluded functions/upsert_file.sql
--! Included functions/copy_nodes.sql
create or replace function filestore.copy_nodes(
  node_id          bigint,
  new_parent_id    bigint,
  new_name         text,
  expected_version integer
)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join each node with its parent by a nested loop.
set enable_nestloop = off
as $$
declare
  ids       constant regclass := pg_get_serial_sequence('filestore.nodes', 'id');
  copy_id   constant bigint   := nextval(ids);
  columns   text;
  mount_id  bigint;
  directory text;
  source    record;
  copied    bigint;
begin
  select n.backend_mount_id
  into mount_id
  from filestore.nodes n
  where n.id = new_parent_id;

  -- Locks the new parent, so that its path and the paths of the directories above it cannot change. The source may be
  -- one of those directories, so its path is read after the lock.
  directory := filestore.find_parent(
    mount_id,
    new_parent_id,
    coalesce(new_name, (select n.name from filestore.nodes n where n.id = copy_nodes.node_id))
  );
  select n.backend_mount_id, n.parent_id, n.name, n.path
  into source
  from filestore.nodes n
  where n.id = copy_nodes.node_id;
  if source.backend_mount_id = mount_id
     and (source.path in ('', directory) or starts_with(directory, source.path || '/')) then
    raise exception 'directory "%" cannot be copied into itself ("%")', source.path, directory
      using errcode    = 'FS422',
            constraint = 'nodes_cycle_check',
            hint       = 'Choose a parent outside of the directory that is copied.';
  end if;

  if exists (
    select
    from filestore.nodes n
    where n.parent_id = new_parent_id
      and n.name = coalesce(new_name, source.name)
      and n.parent_live
  ) then
    perform filestore.refuse_taken_name(new_parent_id, coalesce(new_name, source.name));
  end if;

  -- A copy is another object of the backend.
  select string_agg(format('n.%I', c.name), ', ' order by c.name)
  into columns
  from unnest(array_remove(filestore.content_columns(), 'backend_identity')) as c (name);

  -- One statement reads one snapshot, so the copy is the tree of one moment, also when the source changes at the same
  -- time. The paths of parents are given, so that the trigger need not look them up.
  execute format(
    'with top as materialized (
       select
         n.backend_mount_id,
         n.path,
         coalesce($5, n.name) as new_name,
         coalesce(nullif($4, '''') || ''/'', '''') || coalesce($5, n.name) as new_path
       from filestore.nodes n
       where n.id = $1
         and n.live
         and n.version = coalesce($6, n.version)
     ),
     source as materialized (
       select
         case n.id when $1 then $2 else nextval($7) end as new_id,
         n.id, n.parent_id, n.parent_path, n.name, n.kind, n.state, %1$s
       from filestore.nodes n
       where n.backend_mount_id = (select t.backend_mount_id from top t)
         and n.live
         %2$s
     )
     insert into filestore.nodes (id, backend_mount_id, parent_id, parent_path, name, kind, state, %3$s)
     overriding system value
     select
       n.new_id,
       $8,
       case n.id when $1 then $3 else p.new_id end,
       case n.id
         when $1 then $4
         else (select t.new_path from top t)
           || coalesce(''/'' || nullif(ltrim(substr(n.parent_path, (select length(t.path) from top t) + 1), ''/''), ''''), '''')
       end,
       case n.id when $1 then (select t.new_name from top t) else n.name end,
       n.kind,
       n.state,
       %1$s
     from source n
     left join source p on p.id = n.parent_id and p.kind = ''directory''',
    columns,
    -- Without a condition on the path for the root: every node of the mount is below it.
    case
      when source.path <> '' then
        'and n.path >= (select t.path from top t)
         and n.path < (select t.path || ''0'' from top t)
         and (n.id = $1 or n.path >= (select t.path || ''/'' from top t))'
    end,
    replace(columns, 'n.', '')
  )
  using node_id, copy_id, new_parent_id, directory, new_name, expected_version, ids, mount_id;
  get diagnostics copied = row_count;
  return case when copied > 0 then copy_id end;
end
$$;

comment on function filestore.copy_nodes(bigint, bigint, text, integer) is
  'Internal: Inserts the rows of filestore.copy_tree. It runs as the owner, since services have no right on the sequence of ids. Returns the id of the copy; null when there is no live node at the expected version.';

revoke all on function filestore.copy_nodes(bigint, bigint, text, integer) from public;
--! EndIncluded functions/copy_nodes.sql
--! Included functions/copy_tree.sql
create or replace function filestore.copy_tree(
  node_id          bigint,
  new_parent_id    bigint,
  new_name         text    default null,
  expected_version integer default null
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  broken  text;
  copy_id bigint;
  source  filestore.nodes;
  node    filestore.nodes;
begin
  if new_name is not null then
    perform filestore.check_name(new_name);
  end if;
  select *
  into source
  from filestore.nodes n
  where n.id = copy_tree.node_id
    and n.live
    and n.version = coalesce(expected_version, n.version);
  if source.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  elsif source.parent_id is null and new_name is null then
    raise exception 'node % is the root of a mount: its copy needs a name', node_id
      using errcode    = 'FS422',
            constraint = 'nodes_root_check',
            hint       = 'Give new_name, and a directory of another mount.';
  end if;

  begin
    copy_id := filestore.copy_nodes(node_id, new_parent_id, new_name, expected_version);
  exception
    when unique_violation or check_violation then
      get stacked diagnostics broken = constraint_name;
      if broken = 'nodes_live_child_key' then
        perform filestore.refuse_taken_name(new_parent_id, coalesce(new_name, source.name));
      elsif broken = 'nodes_path_length_check' then
        perform filestore.refuse_long_copy(source, new_parent_id, coalesce(new_name, source.name));
      end if;
      raise;
  end;
  if copy_id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  end if;

  select *
  into node
  from filestore.nodes n
  where n.id = copy_id;
  return node;
end
$$;

comment on function filestore.copy_tree(bigint, bigint, text, integer) is
  'Copies a node with everything live below it into another directory, of the same or another mount, and returns the copy; new_name null keeps the name. The copies have new ids and version 1, and the content and state of the originals; history, sightings and backend_identity are not copied. FS404 when the node or the parent does not exist or is deleted, FS409 when the name is taken or the node is not at expected_version (null: any), FS422 when a directory would be copied into itself, a path would be too long, or the name is not valid.';

revoke all on function filestore.copy_tree(bigint, bigint, text, integer) from public;
--! EndIncluded functions/copy_tree.sql
