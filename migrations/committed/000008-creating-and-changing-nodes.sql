--! Previous: sha1:6ecc5ad25da3a63196374a04032b994c296c820d
--! Hash: sha1:798f87fc00ea7d927f6c390b86c0a65957b4468d
--! Message: Creating and changing nodes

--! Included functions/writable_mount.sql
create or replace function filestore.writable_mount(mount_key text)
returns filestore.backend_mounts
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- In a condition, the server would not call it for an empty table.
  mount_id constant bigint := filestore.find_mount(writable_mount.mount_key);
  mount    filestore.backend_mounts;
begin
  -- Takes no lock: each lock would be a write to the mount's row, which all commands of the mount share.
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = mount_id;

  -- First, because a mount that has moved is erased here.
  if mount.held_by is not null and not filestore.holds_mount(mount.id) then
    raise exception 'mount "%" is moving, and this server does not take its writes', mount.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Repeat the command on the server that holds the mount. During the cut-over, no server takes writes: repeat it after a moment.';
  elsif mount.erasing_since is not null then
    raise exception 'mount "%" is being erased (since %)', mount.mount_key, mount.erasing_since
      using errcode    = 'FS409',
            constraint = 'backend_mounts_erasing',
            hint       = 'Use another mount.';
  elsif mount.access_mode <> 'rw' then
    raise exception 'mount "%" is read-only', mount.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_read_only',
            hint       = 'Use another mount, or set its access_mode to ''rw''.';
  elsif mount.state in ('inactive', 'offline', 'error') then
    raise exception 'mount "%" is %', mount.mount_key,
      mount.state || coalesce(': ' || regexp_replace(left(mount.state_reason, 200), E'[\\u0001-\\u001f\\u007f-\\u009f]', ' ', 'g'), '')
      using errcode    = 'FS409',
            constraint = 'backend_mounts_inactive',
            hint       = 'Set its state to ''active'' when the backend is ready.';
  end if;
  return mount;
end
$$;

comment on function filestore.writable_mount(text) is
  'The mount with a key, if a service may change files on its backend. FS404 when there is none, FS409 when it is read-only, inactive, offline, in error, moving to another server or being erased. It takes no lock. No other function checks this: the catalogue also records changes on a mount that commands must not change.';

revoke all on function filestore.writable_mount(text) from public;
--! EndIncluded functions/writable_mount.sql
--! Included functions/refuse_stale.sql
create or replace function filestore.refuse_stale(node_id bigint, expected_version integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  node filestore.nodes;
begin
  select *
  into node
  from filestore.nodes n
  where n.id = refuse_stale.node_id;

  if node.id is null then
    raise exception 'node % does not exist', node_id
      using errcode    = 'FS404',
            constraint = 'nodes_missing',
            hint       = 'Check the id: the node was purged, or never existed.';
  elsif node.version = coalesce(expected_version, node.version) and not node.live then
    raise exception 'node % ("%") is deleted', node.id, node.path
      using errcode    = 'FS404',
            constraint = 'nodes_deleted',
            hint       = 'To bring it back, call filestore.restore_node.';
  elsif node.version = coalesce(expected_version, node.version) then
    raise exception 'node % ("%") was changed or restored at the same time', node.id, node.path
      using errcode    = 'FS409',
            constraint = 'nodes_stale',
            hint       = 'Read it again, and decide again.';
  end if;
  raise exception 'node % ("%") is at version %, not %', node.id, node.path, node.version, expected_version
    using errcode    = 'FS409',
          constraint = 'nodes_stale',
          hint       = 'Read it again, and decide again: it was changed since you read it.';
end
$$;

comment on function filestore.refuse_stale(bigint, integer) is
  'Internal: Raises FS404 or FS409, with the reason why there is no live node at the expected version.';

revoke all on function filestore.refuse_stale(bigint, integer) from public;
--! EndIncluded functions/refuse_stale.sql
--! Included functions/refuse_taken_name.sql
create or replace function filestore.refuse_taken_name(directory_id bigint, name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'name "%" is taken in directory % ("%")', name, directory_id,
    (select n.path from filestore.nodes n where n.id = refuse_taken_name.directory_id)
    using errcode    = 'FS409',
          constraint = 'nodes_name_taken',
          hint       = 'Choose another name, or move or delete the node that has it.';
end
$$;

comment on function filestore.refuse_taken_name(bigint, text) is
  'Internal: Raises FS409: a live node of the directory has the name.';

revoke all on function filestore.refuse_taken_name(bigint, text) from public;
--! EndIncluded functions/refuse_taken_name.sql
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
  last_seen_at     timestamptz         default null
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
    link_target
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
    create_node.link_target
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

comment on function filestore.create_node(bigint, text, filestore.node_kind, bigint, text, text, text, jsonb, timestamptz, text, timestamptz) is
  'Creates a file or directory and returns it; last_seen_at also records a sighting. The checksum may have any form that filestore.canonical_checksum takes. FS404 when the parent is not a live directory, FS409 when the name is taken, FS422 when the name or the checksum is not valid.';

revoke all on function filestore.create_node(bigint, text, filestore.node_kind, bigint, text, text, text, jsonb, timestamptz, text, timestamptz) from public;
--! EndIncluded functions/create_node.sql
--! Included functions/ensure_child.sql
create or replace function filestore.ensure_child(directory filestore.nodes, name text)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
-- Arguments have the names of columns, and the columns in "on conflict" cannot be qualified.
#variable_conflict use_column
declare
  child filestore.nodes;
begin
  for attempt in 1..2 loop
    select *
    into child
    from filestore.nodes n
    where n.backend_mount_id = directory.backend_mount_id
      and n.parent_id = directory.id
      and n.parent_live
      and n.name = ensure_child.name;
    exit when child.id is not null or attempt = 2;

    -- The directory may have moved since it was read, and the child would be created in the wrong place. The lock keeps
    -- it in place until the transaction ends. If it did move, the exception below releases the lock again, since the
    -- caller's next attempt would otherwise take locks out of order.
    begin
      perform
      from filestore.nodes n
      where n.id = directory.id
        and n.live
        and n.path = directory.path
      for key share;
      if not found then
        raise sqlstate 'FS001';
      end if;
    exception
      when sqlstate 'FS001' then
        exit;
    end;

    -- If another caller has created the child, the second attempt finds it.
    insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
    values (directory.backend_mount_id, directory.id, ensure_child.name, 'directory')
    on conflict (parent_id, name) where parent_live is not null do nothing
    returning * into child;
    exit when child.id is not null;
  end loop;
  return child;
end
$$;

comment on function filestore.ensure_child(filestore.nodes, text) is
  'Internal: The live node with a name in a directory. If there is none, a directory is created. Null when the given directory has moved or is deleted.';

revoke all on function filestore.ensure_child(filestore.nodes, text) from public;
--! EndIncluded functions/ensure_child.sql
--! Included functions/ensure_directory.sql
create or replace function filestore.ensure_directory(mount_key text, path text)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id  bigint := filestore.find_mount(ensure_directory.mount_key);
  wanted    text   := filestore.canonical_path(ensure_directory.path);
  segment   text;
  directory filestore.nodes;
  child     filestore.nodes;
begin
  if wanted is null then
    raise exception 'path is null'
      using errcode    = 'FS422',
            constraint = 'nodes_path_check',
            hint       = 'Give the path of the directory; the root is ''/''.';
  end if;

  -- Tries again when a directory of the path is moved or deleted at the same time.
  for attempt in 1..100 loop
    child := null;
    select *
    into directory
    from filestore.nodes n
    where n.backend_mount_id = mount_id
      and n.path = wanted
      and n.live;

    if directory.id is null then
      select *
      into directory
      from filestore.nodes n
      where n.root_of_mount_id = mount_id;

      foreach segment in array string_to_array(wanted, '/') loop
        child := filestore.ensure_child(directory, segment);
        -- Stop if the directory has moved: its children would be created in the wrong place.
        exit when child.directory_path is null
               or child.path <> filestore.child_path(directory.path, segment);
        directory := child;
      end loop;
    end if;

    if directory.path = wanted and directory.directory_path is not null then
      return directory;
    elsif directory.path = wanted or (child.kind = 'file' and starts_with(wanted || '/', child.path || '/')) then
      raise exception '"%" on mount "%" is a file', coalesce(child.path, directory.path), mount_key
        using errcode    = 'FS409',
              constraint = 'nodes_file_in_the_way',
              hint       = format('Move or delete the file: the path "%s" needs a directory there.', wanted);
    end if;
  end loop;

  raise exception 'directory "%" on mount "%" keeps being moved or deleted', wanted, mount_key
    using errcode    = 'FS409',
          constraint = 'nodes_busy',
          hint       = 'Call filestore.ensure_directory again.';
end
$$;

comment on function filestore.ensure_directory(text, text) is
  'Returns the directory at a path of a mount, and creates it and the missing directories above it. Any number of callers may ask for the same one at once. FS404 when the mount does not exist, FS409 when a file is in the way, FS422 when the path is not valid.';

revoke all on function filestore.ensure_directory(text, text) from public;
--! EndIncluded functions/ensure_directory.sql
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
  expected_id      bigint      default null
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
          link_target
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
          upsert_file.link_target
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

comment on function filestore.upsert_file(text, text, bigint, text, text, text, jsonb, timestamptz, text, timestamptz, integer, bigint) is
  'Creates the file at a path of a mount, with the missing directories above it, or overwrites it, and returns it. Content that is not given becomes null, and size_bytes 0; metadata that is not given stays. A missing or inconsistent file becomes active; last_seen_at also records a sighting. Any number of callers may write one path at once. FS404 when the mount does not exist. FS409 when the file is not the node expected_id, when it is not at expected_version (null: any; 0: it must not exist), when a directory is at its path, or when a file is where a directory is needed. FS422 when the path or the checksum is not valid.';

revoke all on function filestore.upsert_file(text, text, bigint, text, text, text, jsonb, timestamptz, text, timestamptz, integer, bigint) from public;
--! EndIncluded functions/upsert_file.sql
--! Included functions/merge_metadata.sql
create or replace function filestore.merge_metadata(
  node_id          bigint,
  set_values       jsonb   default '{}',
  unset_keys       text[]  default '{}',
  expected_version integer default null
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  node filestore.nodes;
begin
  if jsonb_typeof(set_values) is distinct from 'object' then
    raise exception 'set_values is of type %, not an object', coalesce(jsonb_typeof(set_values), 'null')
      using errcode    = 'FS422',
            constraint = 'nodes_metadata_check',
            hint       = 'Give an object with the keys to set, such as {"tag": "x"}, or {} to set none.';
  end if;

  -- The update computes the result from the row that it locks, so that no concurrent change is lost.
  update filestore.nodes n
  set metadata = (n.metadata - coalesce(unset_keys, '{}')) || set_values
  where n.id = merge_metadata.node_id
    and n.live
    and n.version = coalesce(expected_version, n.version)
  returning * into node;

  if node.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  end if;
  return node;
end
$$;

comment on function filestore.merge_metadata(bigint, jsonb, text[], integer) is
  'Removes keys from the metadata of a node, then sets others, and returns the node. A key that is in both is set. Values are replaced whole: nested objects are not merged. FS404 when the node does not exist or is deleted, FS409 when it is not at expected_version (null: any), FS422 when set_values is not an object.';

revoke all on function filestore.merge_metadata(bigint, jsonb, text[], integer) from public;
--! EndIncluded functions/merge_metadata.sql
--! Included functions/move_node.sql
create or replace function filestore.move_node(
  node_id          bigint,
  new_parent_id    bigint  default null,
  new_name         text    default null,
  expected_version integer default null
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  taken text;
  node  filestore.nodes;
begin
  if new_name is not null then
    perform filestore.check_name(new_name);
  end if;
  perform filestore.lock_tree(n.backend_mount_id, n.directory_path is not null)
  from filestore.nodes n
  where n.id = move_node.node_id;

  if exists (
    select
    from filestore.nodes n
    where n.id = move_node.node_id
      and n.parent_id is null
  ) then
    raise exception 'node % is the root of a mount: it cannot be moved or renamed', node_id
      using errcode    = 'FS422',
            constraint = 'nodes_root_check',
            hint       = 'Move or rename the nodes below it, or change the mount.';
  end if;

  begin
    update filestore.nodes n
    set parent_id = coalesce(new_parent_id, n.parent_id),
        name      = coalesce(new_name, n.name)
    where n.id = move_node.node_id
      and n.live
      and n.version = coalesce(expected_version, n.version)
    returning * into node;
  exception
    when unique_violation then
      get stacked diagnostics taken = constraint_name;
      if taken <> 'nodes_live_child_key' then
        raise;
      end if;
      select *
      into node
      from filestore.nodes n
      where n.id = move_node.node_id;
      perform filestore.refuse_taken_name(coalesce(new_parent_id, node.parent_id), coalesce(new_name, node.name));
  end;

  if node.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  end if;
  return node;
end
$$;

comment on function filestore.move_node(bigint, bigint, text, integer) is
  'Moves a node with everything below it to another directory of its mount, renames it, or both; null keeps the parent or the name. Returns the node. FS404 when the node or the parent does not exist or is deleted, FS409 when the name is taken or the node is not at expected_version (null: any), FS422 when a directory would move into itself, the node is a root, or the name is not valid.';

revoke all on function filestore.move_node(bigint, bigint, text, integer) from public;
--! EndIncluded functions/move_node.sql
