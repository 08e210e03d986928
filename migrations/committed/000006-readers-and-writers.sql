--! Previous: sha1:5d642092f141624feecba85e376cc24b913e60e8
--! Hash: sha1:1caa4ea0e6ddfca030e2c8743ae9fc65904af60b
--! Message: Readers and writers

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
--! Included views/view_filestore_directories.sql
drop view if exists filestore.view_filestore_directories;

create view filestore.view_filestore_directories as
select
  n.id,
  n.backend_mount_id,
  m.mount_key,
  n.parent_id,
  n.name,
  n.path,
  n.depth,
  r.size_bytes + coalesce(p.size_delta, 0) as size_bytes,
  (r.file_count + coalesce(p.file_delta, 0))::bigint as file_count,
  (r.dir_count + coalesce(p.dir_delta, 0))::bigint as dir_count,
  (r.child_count + coalesce(p.child_delta, 0))::bigint as child_count,
  (case
    when r.consistency_state = 'stale' then 'stale'
    when p.node_id is not null         then 'pending'
    else 'up_to_date'
  end)::filestore.totals_state as consistency_state,
  r.last_calculated_at,
  r.updated_at
from filestore.nodes n
join filestore.backend_mounts m on m.id = n.backend_mount_id
-- Each directory has a row in rollups. An inner join would make the planner expect a hundredth of them, and join the view
-- row by row.
left join filestore.rollups r on r.node_id = n.id
left join filestore.pending_totals(null) p on p.node_id = n.id
where n.live
  and n.directory_path is not null;

comment on view filestore.view_filestore_directories is
  'Every live directory with the totals of its whole subtree, exact at this moment. For one directory, filestore.directory_totals is faster, and for a list of them filestore.list_totals.';

comment on column filestore.view_filestore_directories.size_bytes         is 'Bytes of the files below.';
comment on column filestore.view_filestore_directories.file_count         is 'Number of files below.';
comment on column filestore.view_filestore_directories.dir_count          is 'Number of directories below, itself not counted.';
comment on column filestore.view_filestore_directories.child_count        is 'Number of live files and directories directly in it.';
comment on column filestore.view_filestore_directories.consistency_state  is 'up_to_date; pending when these exact totals include deltas that are not folded yet; stale from when the totals are marked so until filestore.recount_rollups.';
comment on column filestore.view_filestore_directories.updated_at         is 'When deltas were last folded into the totals.';
--! EndIncluded views/view_filestore_directories.sql

--! Included functions/writable_mount.sql
create or replace function filestore.writable_mount(mount_key text)
returns filestore.backend_mounts
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  mount filestore.backend_mounts;
begin
  -- Takes no lock: each lock would be a write to the mount's row, which all commands of the mount share.
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = filestore.find_mount(writable_mount.mount_key);

  -- First, because a mount that has moved is erased here.
  if mount.held_by is not null
     and mount.held_by <> filestore.database_number()
     and not filestore.may_take_mount(mount.id) then
    raise exception 'mount "%" is moving to another server', mount.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Repeat it on the server that holds the mount. During the cut-over no server takes writes: repeat it after a moment.';
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
--! Included functions/delete_mount.sql
create or replace function filestore.delete_mount(mount_key text)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from filestore.backend_mounts m
  where m.id = filestore.find_mount(delete_mount.mount_key);
end
$$;

comment on function filestore.delete_mount(text) is
  'Deletes a mount whose only node is its root. FS404 when there is no such mount, FS409 when it has other nodes, tombstones included: purge them first, or let the owner call filestore.erase_mount.';

revoke all on function filestore.delete_mount(text) from public;
--! EndIncluded functions/delete_mount.sql
--! Included functions/node_by_path.sql
create or replace function filestore.node_by_path(mount_key text, path text, with_deleted boolean default false)
returns setof filestore.nodes
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id  bigint := filestore.find_mount(node_by_path.mount_key);
  node_path text   := filestore.canonical_path(node_by_path.path);
begin
  return query
  select n.*
  from filestore.nodes n
  where n.backend_mount_id = mount_id
    and n.path = node_path
    and n.live;

  if not found and with_deleted then
    -- In the order of nodes_dead_path_idx, so without a sort: a path that is often reused has thousands of tombstones.
    return query
    select n.*
    from filestore.nodes n
    where n.backend_mount_id = mount_id
      and n.path = node_path
      and not n.live
    order by
      n.deleted_at desc,
      n.id desc
    limit 1;
  end if;
end
$$;

comment on function filestore.node_by_path(text, text, boolean) is
  'The live node at a path of a mount, or no row. With with_deleted, the tombstone that was deleted last, if no live node is there. The path need not be canonical. FS404 when the mount does not exist.';

revoke all on function filestore.node_by_path(text, text, boolean) from public;
--! EndIncluded functions/node_by_path.sql
--! Included functions/node_location.sql
create or replace function filestore.node_location(node_id bigint)
returns text
language sql
stable
begin atomic
  select filestore.location_uri(m.backend_kind, m.root_path, m.bucket, m.prefix, n.path)
  from filestore.nodes n
  join filestore.backend_mounts m on m.id = n.backend_mount_id
  where n.id = node_id;
end;

comment on function filestore.node_location(bigint) is
  'The location of a node as a URI, file:///root/path or s3://bucket/prefix/path; of a deleted node, where it was. Null when there is no such node.';

revoke all on function filestore.node_location(bigint) from public;
--! EndIncluded functions/node_location.sql
--! Included functions/list_directory.sql
create or replace function filestore.list_directory(
  directory_id bigint,
  after_name   text    default '',
  page_size    bigint  default 1000,
  with_deleted boolean default false,
  after_id     bigint  default null
)
returns setof filestore.nodes
language plpgsql
stable
rows 1000
set search_path = pg_catalog, pg_temp
as $$
declare
  directory filestore.nodes;
  -- Without an id, the page begins after all nodes of the name.
  last_name text   := coalesce(after_name, '');
  last_id   bigint := coalesce(after_id, 9223372036854775807);
begin
  perform filestore.check_limit('page_size', page_size, 100000);
  select *
  into directory
  from filestore.nodes n
  where n.id = list_directory.directory_id;

  if directory.id is null then
    raise exception 'directory % does not exist', coalesce(directory_id::text, 'null')
      using errcode    = 'FS404',
            constraint = 'nodes_missing',
            hint       = 'Choose an existing directory: this one was purged, or never existed.';
  elsif not directory.live and not coalesce(with_deleted, false) then
    raise exception 'node % ("%") is deleted', directory.id, directory.path
      using errcode    = 'FS404',
            constraint = 'nodes_deleted',
            hint       = 'To list what it held, call it with with_deleted => true.';
  elsif directory.directory_path is null then
    raise exception 'node % ("%") is a file', directory.id, directory.path
      using errcode    = 'FS404',
            constraint = 'nodes_not_directory',
            hint       = 'Give the id of a directory.';
  end if;

  if with_deleted then
    -- Each half reads one page of an index. One condition for both would read the whole directory and sort it.
    return query
    select n.*
    from (
      (
        select l.*
        from filestore.nodes l
        where l.parent_id = directory.id
          and l.parent_live
          and (l.name, l.id) > (last_name, last_id)
        order by
          l.name,
          l.id
        limit page_size
      )
      union all
      (
        select d.*
        from filestore.nodes d
        where d.parent_id = directory.id
          and not d.live
          and (d.name, d.id) > (last_name, last_id)
        order by
          d.name,
          d.id
        limit page_size
      )
    ) n
    order by
      n.name,
      n.id
    limit page_size;
  else
    return query
    select n.*
    from filestore.nodes n
    where n.parent_id = directory.id
      and n.parent_live
      and (n.name, n.id) > (last_name, last_id)
    order by n.name
    limit page_size;
  end if;
end
$$;

comment on function filestore.list_directory(bigint, text, bigint, boolean, bigint) is
  'A page of the nodes in a live directory, in order of name. With with_deleted, the directory may be deleted, and tombstones are listed too, in order of name and id. For the next page, give the last name of this one as after_name, and with with_deleted also its id as after_id. FS404 when there is no such directory.';

revoke all on function filestore.list_directory(bigint, text, bigint, boolean, bigint) from public;
--! EndIncluded functions/list_directory.sql
--! Included functions/canonical_checksum.sql
create or replace function filestore.canonical_checksum(checksum text, algorithm text default null)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  prefix    text;
  digest    text;
  name      text;
  is_hex    boolean;
  expected  integer;
  body      text;
  padded    text;
  decoded   bytea;
  amount    text;
  fault     text;
  canonical text;
  remedy    text := 'Give the whole digest as algorithm:hex, such as sha256:9f86..., as bare hex, or as base64.';
begin
  if checksum is null then
    return null;
  end if;
  -- Most checksums are canonical already. A bound such as {64} would make the pattern several times as slow.
  if algorithm is null
     and octet_length(checksum) = (case split_part(checksum, ':', 1) when 'sha256' then 71 when 'md5' then 36 when 'sha1' then 45 end)
     and checksum ~ '^[a-z0-9]+:[0-9a-f]+$' then
    return checksum;
  elsif greatest(octet_length(checksum), octet_length(algorithm)) > 1024 then
    raise exception 'the checksum has % bytes, and its algorithm %', octet_length(checksum), coalesce(octet_length(algorithm), 0)
      using errcode    = 'FS422',
            constraint = 'nodes_checksum_check',
            hint       = 'A checksum has at most 1024 bytes.';
  end if;

  -- With "collate", a Turkish database does not turn I into a dotless i.
  prefix := lower(nullif(split_part(checksum, ':', 1), checksum) collate "C");
  digest := substr(checksum, coalesce(length(prefix) + 2, 1));
  is_hex := digest ~ '^[0-9A-Fa-f]+$';
  name   := coalesce(prefix, lower(algorithm collate "C"));
  expected := case translate(name, '-_', '')
    when 'md5'       then 16
    when 'sha1'      then 20
    when 'sha224'    then 28
    when 'sha256'    then 32
    when 'sha384'    then 48
    when 'sha512'    then 64
    when 'blake3'    then 32
    when 'crc32'     then 4
    when 'crc32c'    then 4
    when 'crc64nvme' then 8
  end;
  if expected is not null then
    name := translate(name, '-_', '');
  end if;

  if is_hex then
    amount := format('%s hexadecimal digits', length(digest));
  -- Base64 or base64url, with all of the padding or none.
  elsif digest ~ '^([A-Za-z0-9+/]+|[A-Za-z0-9_-]+)={0,2}$' and digest !~ '^[0-9A-Fa-f]+-[0-9]+$' then
    body   := rtrim(translate(digest, '-_', '+/'), '=');
    padded := rpad(body, (length(body) + 3) / 4 * 4, '=');
    if length(body) % 4 <> 1 and length(digest) in (length(body), length(padded)) then
      decoded := decode(padded, 'base64');
      -- Encoding again detects a truncated or mistyped text: it has bits beyond the last byte.
      if replace(encode(decoded, 'base64'), E'\n', '') <> padded then
        decoded := null;
      end if;
    end if;
    amount := format('%s bytes in base64', length(decoded));
  end if;

  if translate(prefix, '-_', '') <> translate(lower(algorithm collate "C"), '-_', '') then
    fault  := format('is a checksum of %s, not of %s', left(prefix, 40), left(algorithm, 40));
    remedy := 'Leave the algorithm out, or give the one of the checksum.';
  elsif name !~ '^[a-z0-9][a-z0-9-]*$' then
    fault := format('has the algorithm "%s", which is not a valid name', left(name, 40));
  elsif not is_hex and decoded is null then
    fault  := 'is neither hexadecimal nor base64';
    remedy := remedy || ' Store the checksum of a multipart upload (digest-parts) in content_hash.';
  elsif name is null then
    name := case coalesce(length(decoded), length(digest) / 2)
      when 16 then 'md5'
      when 20 then 'sha1'
      when 32 then 'sha256'
      when 48 then 'sha384'
      when 64 then 'sha512'
    end;
    if name is null or (is_hex and length(digest) % 2 = 1) then
      fault  := format('has %s, from which the algorithm cannot be derived', amount);
      remedy := 'Name the algorithm. Without one: md5 (16 bytes), sha1 (20), sha256 (32), sha384 (48), sha512 (64).';
    end if;
  elsif expected is null then
    if prefix is null or not is_hex then
      fault  := format('has the algorithm "%s", whose length is unknown', left(name, 40));
      remedy := 'Give it as algorithm:hex.';
    end if;
  elsif coalesce(length(decoded) <> expected, length(digest) <> 2 * expected) then
    fault  := format('has %s, but %s has %s bytes (%s hexadecimal digits)', amount, name, expected, 2 * expected);
  end if;

  if fault is null then
    canonical := name || ':' || coalesce(encode(decoded, 'hex'), lower(digest collate "C"));
    if octet_length(canonical) <= 1024 then
      return canonical;
    end if;
    fault  := format('has %s bytes', octet_length(canonical));
    remedy := 'A checksum has at most 1024 bytes.';
  end if;
  raise exception '%', regexp_replace(format('checksum "%s" %s', left(checksum, 80), fault), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g')
    using errcode    = 'FS422',
          constraint = 'nodes_checksum_check',
          hint       = remedy;
end
$$;

comment on function filestore.canonical_checksum(text, text) is
  'Converts a checksum to the form of nodes.checksum: algorithm:hex in lower case. It takes algorithm:hex in any case, bare hex, base64 or base64url. The algorithm is the prefix, the argument, or derived from the length. FS422 when the length does not fit the algorithm, when prefix and argument differ, or when the form is unknown.';

revoke all on function filestore.canonical_checksum(text, text) from public;
--! EndIncluded functions/canonical_checksum.sql
--! Included functions/list_unseen.sql
create or replace function filestore.list_unseen(
  mount_key     text,
  since         timestamptz,
  after_path    text   default '',
  max_nodes     bigint default 10000,
  out node_ids  bigint[],
  out next_path text
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  mount_id  bigint         := filestore.find_mount(list_unseen.mount_key);
  last_path text           := coalesce(after_path, '');
  -- Sightings are rounded down to milliseconds. Rounding the moment too keeps one of the same millisecond from counting
  -- as earlier.
  pass      timestamptz(3) := date_trunc('milliseconds', since);
begin
  perform filestore.check_limit('max_nodes', max_nodes, 100000);
  if since is null then
    raise exception 'since is null'
      using errcode    = 'FS422',
            constraint = 'node_sightings_moment_check',
            hint       = 'Give the moment at which the pass over the mount began.';
  elsif since > clock_timestamp() then
    -- With a moment in the future, all nodes would count as unseen.
    raise exception 'since is %, which is in the future', since
      using errcode    = 'FS422',
            constraint = 'node_sightings_moment_check',
            hint       = 'Give the moment at which the pass over the mount began, by the clock of the database.';
  end if;

  select
    -- A node that was created during the pass does not count: the pass may have read its directory before.
    coalesce(array_agg(w.id order by w.path) filter (where w.created_at < pass and coalesce(w.last_seen_at < pass, true)), '{}'),
    case when count(*) = max_nodes then max(w.path) end
  into node_ids, next_path
  from (
    select
      n.id,
      n.path,
      n.created_at,
      -- One lookup for each node. A join could read all sightings at every call.
      (select s.last_seen_at from filestore.node_sightings s where s.node_id = n.id) as last_seen_at
    from filestore.nodes n
    where n.backend_mount_id = mount_id
      and n.path > last_path
      and n.live
    order by n.path
    limit max_nodes
  ) w;
end
$$;

comment on function filestore.list_unseen(text, timestamptz, text, bigint) is
  'Looks at the next max_nodes live nodes of a mount in order of path. Returns the ids of those that were neither created nor seen since a moment, and in next_path the after_path of the next call: null at the end of the mount. FS404 when the mount does not exist, FS422 when the moment is in the future.';

revoke all on function filestore.list_unseen(text, timestamptz, text, bigint) from public;
--! EndIncluded functions/list_unseen.sql
--! Included functions/find_by_checksum.sql
create or replace function filestore.find_by_checksum(checksum text)
returns setof filestore.nodes
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Converted once, not for each row.
  find_by_checksum.checksum := filestore.canonical_checksum(find_by_checksum.checksum);
  return query
  select n.*
  from filestore.nodes n
  -- The first condition uses nodes_checksum_idx, which holds eight bytes of each digest.
  where hashtextextended(n.checksum, 0) = hashtextextended(find_by_checksum.checksum, 0)
    and n.checksum = find_by_checksum.checksum
    and n.live
  order by n.id;
end
$$;

comment on function filestore.find_by_checksum(text) is
  'The live files with a checksum, given in any form that filestore.canonical_checksum takes. FS422 when it is not valid.';

revoke all on function filestore.find_by_checksum(text) from public;
--! EndIncluded functions/find_by_checksum.sql
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
    -- it in place until the transaction ends. If it did move, the exception releases the lock again, since the next
    -- attempt would otherwise take locks out of order.
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
          hint       = 'Call it again.';
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
          hint       = 'Call it again.';
end
$$;

comment on function filestore.upsert_file(text, text, bigint, text, text, text, jsonb, timestamptz, text, timestamptz, integer, bigint) is
  'Creates the file at a path of a mount, with the missing directories above it, or overwrites it, and returns it. Content that is not given becomes null; metadata that is not given stays. A missing or inconsistent file becomes active; last_seen_at also records a sighting. Any number of callers may write one path at once. FS404 when the mount does not exist. FS409 when the file is not the node expected_id, when it is not at expected_version (null: any; 0: it must not exist), when a directory is at its path, or when a file is where a directory is needed. FS422 when the path or the checksum is not valid.';

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
  'Moves a node with everything below it to another directory of its mount, renames it, or both; null keeps the parent or the name. Returns the node. FS404 when the node or the parent does not exist or is deleted, FS409 when the name is taken or the node is not at expected_version (null: any), FS422 when a directory would move into itself.';

revoke all on function filestore.move_node(bigint, bigint, text, integer) from public;
--! EndIncluded functions/move_node.sql
--! Included functions/freeze_tree.sql
create or replace function filestore.freeze_tree(mount_id bigint, top_path text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  frozen bigint := 0;
  before bigint;
begin
  -- A create needs a key share lock on its parent, so no child can be created in a locked directory. The loop repeats
  -- until it finds no directory that was created in the meantime.
  loop
    before := frozen;
    select count(*)
    into frozen
    from (
      select
      from filestore.nodes n
      where n.backend_mount_id = freeze_tree.mount_id
        and n.live
        and n.directory_path is not null
        and (n.path = top_path or (n.path >= top_path || '/' and n.path < top_path || '0'))
      order by n.id
      for update
    ) locked;
    exit when frozen = before;
  end loop;
end
$$;

comment on function filestore.freeze_tree(bigint, text) is
  'Internal: Locks every live directory at and below a path, so that nothing can be created there until the transaction ends. The caller holds the exclusive tree lock, so nothing can be moved there either.';

revoke all on function filestore.freeze_tree(bigint, text) from public;
--! EndIncluded functions/freeze_tree.sql
--! Included functions/delete_node.sql
create or replace function filestore.delete_node(
  node_id          bigint,
  expected_version integer default null,
  recursive        boolean default false
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  node  filestore.nodes;
  child text;
begin
  if recursive then
    perform filestore.lock_tree(n.backend_mount_id, true)
    from filestore.nodes n
    where n.id = delete_node.node_id;
  end if;

  select *
  into node
  from filestore.nodes n
  where n.id = delete_node.node_id
    and n.live
    and n.version = coalesce(expected_version, n.version)
  for update;
  if node.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  elsif node.parent_id is null then
    raise exception 'node % is the root of a mount: it cannot be deleted', node_id
      using errcode    = 'FS422',
            constraint = 'nodes_root_check',
            hint       = 'Delete the mount: that removes its root.';
  end if;

  if recursive and node.directory_path is not null then
    perform filestore.freeze_tree(node.backend_mount_id, node.path);
    update filestore.nodes n
    set state = 'deleted'
    where n.backend_mount_id = node.backend_mount_id
      and n.live
      and (n.path = node.path or (n.path >= node.path || '/' and n.path < node.path || '0'));
  else
    -- Looks for a child before the update: the update's cascade would wait for the children's locks while it holds the
    -- directory's, which can deadlock.
    select n.name
    into child
    from filestore.nodes n
    where n.backend_mount_id = node.backend_mount_id
      and n.parent_id = node.id
      and n.parent_live
    limit 1;
    if found then
      raise exception 'directory "%" is not empty: it holds "%"', node.path, child
        using errcode    = 'FS409',
              constraint = 'nodes_not_empty',
              hint       = 'Delete what it holds first, or everything with recursive => true.';
    end if;
    update filestore.nodes n
    set state = 'deleted'
    where n.id = node.id;
  end if;

  select *
  into node
  from filestore.nodes n
  where n.id = delete_node.node_id;
  return node;
end
$$;

comment on function filestore.delete_node(bigint, integer, boolean) is
  'Deletes a node and returns its tombstone; with recursive, everything below it too, all with the same deleted_at. FS404 when it does not exist or is deleted, FS409 when it is a directory that is not empty (without recursive) or not at expected_version (null: any).';

revoke all on function filestore.delete_node(bigint, integer, boolean) from public;
--! EndIncluded functions/delete_node.sql
--! Included functions/delete_batch.sql
create or replace function filestore.delete_batch(
  node_id   bigint,
  max_nodes integer     default 10000,
  moment    timestamptz default date_trunc('milliseconds', statement_timestamp())
)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  top    record;
  batch  bigint[];
  before bigint[];
begin
  perform filestore.check_limit('max_nodes', max_nodes);
  perform filestore.lock_tree(n.backend_mount_id, true)
  from filestore.nodes n
  where n.id = delete_batch.node_id;

  select n.backend_mount_id, n.path
  into top
  from filestore.nodes n
  where n.id = delete_batch.node_id
    and n.live
    and n.parent_id is not null;

  -- In descending order of path, so that children come before their directory. No child can be created in a locked
  -- directory, and the next round finds a child that was created before the lock.
  loop
    before := batch;
    batch  := array(
      select n.id
      from filestore.nodes n
      where n.backend_mount_id = top.backend_mount_id
        and n.live
        and (n.path = top.path or (n.path >= top.path || '/' and n.path < top.path || '0'))
      order by n.path desc
      limit max_nodes
      for update
    );
    exit when batch = before;
  end loop;

  update filestore.nodes n
  set state      = 'deleted',
      deleted_at = moment
  where n.id = any (batch);
  return cardinality(batch);
end
$$;

comment on function filestore.delete_batch(bigint, integer, timestamptz) is
  'Deletes at most max_nodes of a tree, children before their directory, and returns how many. Repeat it until it returns 0, each time in a separate transaction and with the same moment. The moment becomes deleted_at, and restore_node restores nodes with the same deleted_at as one tree. After each call, the remaining nodes are a valid tree.';

revoke all on function filestore.delete_batch(bigint, integer, timestamptz) from public;
--! EndIncluded functions/delete_batch.sql
--! Included functions/restore_tree.sql
create or replace function filestore.restore_tree(top filestore.nodes, moment timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  level bigint[] := array[top.id];
begin
  -- From the top down, since a node needs a live parent. When batches deleted them, two tombstones can have the same
  -- parent, name and moment: the later one is restored.
  loop
    level := array(
      select distinct on (n.parent_id, n.name) n.id
      from filestore.nodes n
      where n.parent_id = any (level)
        and not n.live
        and n.deleted_at = moment
      order by n.parent_id, n.name, n.updated_at desc, n.id desc
    );
    exit when level = '{}';
    -- Because parent_live is set here, the trigger does not look up the parent of each node.
    update filestore.nodes n
    set state       = 'active',
        parent_live = true,
        parent_path = p.directory_path
    from filestore.nodes p
    where n.id = any (level)
      and p.id = n.parent_id;
  end loop;
end
$$;

comment on function filestore.restore_tree(filestore.nodes, timestamptz) is
  'Internal: Restores the nodes below a directory that were deleted at a given moment, as filestore.restore_node does after it restored the directory. It holds the exclusive tree lock.';

revoke all on function filestore.restore_tree(filestore.nodes, timestamptz) from public;
--! EndIncluded functions/restore_tree.sql
--! Included functions/restore_node.sql
create or replace function filestore.restore_node(
  node_id          bigint,
  expected_version integer default null,
  with_tree        boolean default false
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  taken text;
  tomb  filestore.nodes;
  node  filestore.nodes;
begin
  perform filestore.lock_tree(n.backend_mount_id, with_tree)
  from filestore.nodes n
  where n.id = restore_node.node_id;

  select *
  into tomb
  from filestore.nodes n
  where n.id = restore_node.node_id
    and n.version = coalesce(expected_version, n.version)
  for update;
  if tomb.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  elsif tomb.live then
    raise exception 'node % ("%") is not deleted', tomb.id, tomb.path
      using errcode    = 'FS409',
            constraint = 'nodes_alive',
            hint       = 'To bring an old version of a live node back, call filestore.revert_node.';
  end if;

  begin
    update filestore.nodes n
    set state = 'active'
    where n.id = tomb.id
    returning * into node;
  exception
    when unique_violation then
      get stacked diagnostics taken = constraint_name;
      if taken <> 'nodes_live_child_key' then
        raise;
      end if;
      perform filestore.refuse_taken_name(tomb.parent_id, tomb.name);
  end;

  if with_tree then
    perform filestore.restore_tree(node, tomb.deleted_at);
  end if;
  return node;
end
$$;

comment on function filestore.restore_node(bigint, integer, boolean) is
  'Restores a deleted node in its directory and returns it. With with_tree, also restores everything below it that was deleted together with it. FS404 when it does not exist or its parent is deleted, FS409 when it is not deleted, its name is taken, or it is not at expected_version (null: any).';

revoke all on function filestore.restore_node(bigint, integer, boolean) from public;
--! EndIncluded functions/restore_node.sql
--! Included functions/content_columns.sql
create or replace function filestore.content_columns()
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select a.attname::text
    from pg_attribute a
    where a.attrelid = 'filestore.nodes'::regclass
      and a.attnum > 0
      and not a.attisdropped
      -- These columns hold the identity, place and state of a node. Every other column is content.
      and a.attname <> all ('{id,backend_mount_id,root_of_mount_id,parent_id,parent_path,parent_live,name,path,depth,directory_path,kind}'
        || '{live,state,version,created_at,updated_at,deleted_at}'::text[])
    order by a.attnum
  );
end
$$;

comment on function filestore.content_columns() is
  'Internal: The columns of nodes that hold content: services write them, and filestore.revert_node restores them. Read from the catalog, so that a new column is included.';

revoke all on function filestore.content_columns() from public;
--! EndIncluded functions/content_columns.sql
--! Included functions/revert_node.sql
create or replace function filestore.revert_node(
  node_id          bigint,
  version          integer,
  expected_version integer default null
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  taken text;
  past  filestore.snapshots;
  node  filestore.nodes;
begin
  perform filestore.lock_tree(n.backend_mount_id, n.directory_path is not null)
  from filestore.nodes n
  where n.id = revert_node.node_id;

  select *
  into past
  from filestore.snapshots s
  where s.id = revert_node.node_id
    and s.version = revert_node.version;
  if past.id is null then
    raise exception 'node % has no past version %', node_id, version
      using errcode    = 'FS404',
            constraint = 'snapshots_missing',
            hint       = 'Choose a version that filestore.view_filestore_node_versions lists.';
  elsif not past.live then
    raise exception 'in version % node % ("%") was deleted', version, node_id, past.path
      using errcode    = 'FS422',
            constraint = 'snapshots_deleted',
            hint       = 'To delete it, call filestore.delete_node.';
  end if;

  begin
    execute format(
      'update filestore.nodes n
       set (parent_id, name, %s) = row ($1.parent_id, $1.name, %s),
           state = case when n.live then n.state else ''active'' end
       where n.id = $1.id
         and n.version = coalesce($2, n.version)
       returning *',
      (select string_agg(quote_ident(c.name), ', ' order by c.name) from unnest(filestore.content_columns()) as c (name)),
      (select string_agg('$1.' || quote_ident(c.name), ', ' order by c.name) from unnest(filestore.content_columns()) as c (name))
    )
    using past, expected_version
    into node;
  exception
    when unique_violation then
      get stacked diagnostics taken = constraint_name;
      if taken <> 'nodes_live_child_key' then
        raise;
      end if;
      perform filestore.refuse_taken_name(past.parent_id, past.name);
  end;

  if node.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  end if;
  return node;
end
$$;

comment on function filestore.revert_node(bigint, integer, integer) is
  'Brings the place, name and content of an old version of a node back as a new version, and returns the node. Its state does not change, but a deleted node is restored. FS404 when there is no such version or its parent does not exist any more, FS409 when the name is taken or the node is not at expected_version (null: any), FS422 when it was deleted in that version.';

revoke all on function filestore.revert_node(bigint, integer, integer) from public;
--! EndIncluded functions/revert_node.sql
--! Included functions/refuse_long_copy.sql
create or replace function filestore.refuse_long_copy(source filestore.nodes, new_parent_id bigint, new_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  new_path text := (
    select filestore.child_path(p.path, new_name)
    from filestore.nodes p
    where p.id = new_parent_id
  );
  node record;
begin
  select n.id, n.path, c.bytes
  into node
  from filestore.nodes n
  -- Below the root of a mount, paths begin without a slash.
  cross join lateral (
    select octet_length(new_path) + octet_length(n.path) - octet_length(source.path) + (source.path = '' and n.path <> '')::integer as bytes
  ) c
  where n.backend_mount_id = source.backend_mount_id
    and n.live
    and (n.id = source.id or source.path = '' or (n.path >= source.path || '/' and n.path < source.path || '0'))
    and c.bytes > 2600
  order by n.path
  limit 1;

  if found then
    raise exception 'the copy of node % ("%") would have a path of % bytes', node.id, left(node.path, 200), node.bytes
      using errcode    = 'FS422',
            constraint = 'nodes_path_length_check',
            hint       = 'Copy into a directory with a shorter path, or give a shorter name: a path has at most 2600 bytes.';
  end if;
end
$$;

comment on function filestore.refuse_long_copy(filestore.nodes, bigint, text) is
  'Internal: Raises FS422 for the first node of a tree whose path would be too long in the copy.';

revoke all on function filestore.refuse_long_copy(filestore.nodes, bigint, text) from public;
--! EndIncluded functions/refuse_long_copy.sql
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

  select string_agg(format('n.%I', c.name), ', ' order by c.name)
  into columns
  from unnest(filestore.content_columns()) as c (name);

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
  'Copies a node with everything live below it into another directory, of the same or another mount, and returns the copy; new_name null keeps the name. The copies have new ids and version 1, and the content and state of the originals; history and sightings are not copied. FS404 when the node or the parent does not exist or is deleted, FS409 when the name is taken or the node is not at expected_version (null: any), FS422 when a directory would be copied into itself or a path would be too long.';

revoke all on function filestore.copy_tree(bigint, bigint, text, integer) from public;
--! EndIncluded functions/copy_tree.sql
--! Included functions/describe_element.sql
create or replace function filestore.describe_element(place bigint, node jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return format('element %s%s', place, ' ("' || regexp_replace(left(node ->> 'name', 40), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g') || '")');
end
$$;

comment on function filestore.describe_element(bigint, jsonb) is
  'Internal: How error messages name an element of a batch of filestore.create_nodes: by its position, from 1, and its name.';

revoke all on function filestore.describe_element(bigint, jsonb) from public;
--! EndIncluded functions/describe_element.sql
--! Included functions/check_batch.sql
create or replace function filestore.check_batch(nodes jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  fields text[] := '{parent_id,name,kind,state}'::text[] || filestore.content_columns();
  given  record;
  field  text;
begin
  if jsonb_typeof(nodes) is distinct from 'array' then
    raise exception 'the batch is of type %, not an array of objects', coalesce(jsonb_typeof(nodes), 'null')
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = 'Give a JSON array with an object for each node, such as [{"parent_id": 1, "name": "a"}].';
  elsif jsonb_array_length(nodes) > 10000 then
    raise exception 'the batch has % nodes', jsonb_array_length(nodes)
      using errcode    = 'FS422',
            constraint = 'limit_check',
            hint       = 'One call takes at most 10000 nodes: call it several times.';
  end if;

  select e.position, e.value
  into given
  from jsonb_array_elements(nodes) with ordinality as e (value, position)
  where case jsonb_typeof(e.value)
          when 'object' then
            e.value - fields <> '{}'
            or not coalesce(e.value ->> 'parent_id' ~ '^[0-9]{1,18}$', true)
            -- Any other type would be stored as its JSON text.
            or jsonb_typeof(e.value -> 'name') not in ('string', 'null')
          else true
        end
  order by e.position
  limit 1;
  if not found then
    return;
  end if;

  if jsonb_typeof(given.value) <> 'object' then
    raise exception 'element % is of type %, not an object', given.position, jsonb_typeof(given.value)
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = 'Give an object for each node, with at least parent_id and name.';
  end if;

  select k.name
  into field
  from jsonb_object_keys(given.value - fields) as k (name)
  order by k.name
  limit 1;
  if not found and jsonb_typeof(given.value -> 'name') not in ('string', 'null') then
    raise exception 'the name of element % is of type %, not a string', given.position, jsonb_typeof(given.value -> 'name')
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = 'Give the name as a JSON string.';
  elsif not found then
    raise exception '% has a parent_id that is not an id', filestore.describe_element(given.position, given.value)
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = 'Give the id of a directory, as a number or a string of digits.';
  end if;
  raise exception '% has the field "%", which %', filestore.describe_element(given.position, given.value), left(field, 40),
    case
      when exists (select from pg_attribute a where a.attrelid = 'filestore.nodes'::regclass and a.attnum > 0 and a.attname = field)
        then 'the database sets'
      else 'a node does not have'
    end
    using errcode    = 'FS422',
          constraint = 'nodes_batch_check',
          hint       = format('Give only these fields: %s.', array_to_string(fields, ', '));
end
$$;

comment on function filestore.check_batch(jsonb) is
  'Internal: Raises FS422 when filestore.create_nodes cannot read a batch, and names the position.';

revoke all on function filestore.check_batch(jsonb) from public;
--! EndIncluded functions/check_batch.sql
--! Included functions/lock_parents.sql
create or replace function filestore.lock_parents(nodes jsonb)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  ids      bigint[] := array(
    select distinct (e.value ->> 'parent_id')::bigint
    from jsonb_array_elements(nodes) as e (value)
  );
  parents  jsonb;
  usable   bigint[];
  unusable bigint;
  faults   text;
begin
  if cardinality(ids) > 1 then
    perform filestore.lock_trees(array(
      select distinct n.backend_mount_id
      from filestore.nodes n
      where n.id = any (ids)
    ));
  end if;

  -- A separate statement after the locks, so that it sees the new path of a parent that moved.
  select
    coalesce(jsonb_agg(jsonb_build_object('id', p.id, 'backend_mount_id', p.backend_mount_id, 'path', p.directory_path)), '[]'),
    coalesce(array_agg(p.id), '{}')
  into parents, usable
  from (
    select n.id, n.backend_mount_id, n.directory_path, n.live
    from filestore.nodes n
    where n.id = any (ids)
    order by n.id
    for key share
  ) p
  where p.live
    and p.directory_path is not null;

  if cardinality(usable) = cardinality(ids) then
    return parents;
  end if;

  select
    count(*),
    string_agg(
      case
        when f.parent_id is null
          then format('%s has no parent_id', filestore.describe_element(f.position, f.element))
        else format(
          'parent %s of %s %s',
          f.parent_id,
          filestore.describe_element(f.position, f.element),
          coalesce(
            (select case when n.directory_path is null then 'is a file' else 'is deleted' end from filestore.nodes n where n.id = f.parent_id),
            'does not exist'
          )
        )
      end,
      ', ' order by f.position
    ) filter (where f.number <= 10)
  into unusable, faults
  from (
    select g.parent_id, g.position, g.element, row_number() over (order by g.position) as number
    from (
      select distinct on (o.parent_id) o.parent_id, o.position, o.element
      from (
        select (e.value ->> 'parent_id')::bigint as parent_id, e.position, e.value as element
        from jsonb_array_elements(nodes) with ordinality as e (value, position)
      ) o
      where o.parent_id is null or o.parent_id <> all (usable)
      order by o.parent_id, o.position
    ) g
  ) f;
  raise exception '%', faults || case when unusable > 10 then format(', and %s more', unusable - 10) else '' end
    using errcode    = 'FS404',
          constraint = 'nodes_parents_missing',
          hint       = 'Give the id of a live directory as the parent of each node. Nothing was created.';
end
$$;

comment on function filestore.lock_parents(jsonb) is
  'Internal: Locks the parents of a batch of filestore.create_nodes against moves, in order of id, and returns their mounts and paths. It takes shared tree locks first when there are several parents. FS404 names those that are not live directories.';

revoke all on function filestore.lock_parents(jsonb) from public;
--! EndIncluded functions/lock_parents.sql
--! Included functions/refuse_taken_names.sql
create or replace function filestore.refuse_taken_names(nodes jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  twin  record;
  taken record;
begin
  select g.parent_id, g.positions, g.element
  into twin
  from (
    select
      (e.value ->> 'parent_id')::bigint as parent_id,
      array_agg(e.position order by e.position) as positions,
      min(e.value::text)::jsonb as element
    from jsonb_array_elements(nodes) with ordinality as e (value, position)
    group by (e.value ->> 'parent_id')::bigint, e.value ->> 'name'
    having count(*) > 1
  ) g
  order by g.positions
  limit 1;
  if found then
    raise exception '% has the same name and parent (%) as element %',
      filestore.describe_element(twin.positions[2], twin.element), twin.parent_id, twin.positions[1]
      using errcode    = 'FS409',
            constraint = 'nodes_name_taken',
            hint       = 'Leave one of them out, or give it another name. Nothing was created.';
  end if;

  select g.parent_id, g.position, g.element, p.path
  into taken
  from (
    select (e.value ->> 'parent_id')::bigint as parent_id, e.position, e.value as element
    from jsonb_array_elements(nodes) with ordinality as e (value, position)
  ) g
  cross join lateral (
    -- "Offset 0" keeps this a lookup for each element.
    select (select d.path from filestore.nodes d where d.id = n.parent_id) as path
    from filestore.nodes n
    where n.parent_id = g.parent_id
      and n.name = g.element ->> 'name'
      and n.parent_live
    offset 0
  ) p
  order by g.position
  limit 1;
  if found then
    raise exception '%: the name is taken in directory % ("%")',
      filestore.describe_element(taken.position, taken.element), taken.parent_id, taken.path
      using errcode    = 'FS409',
            constraint = 'nodes_name_taken',
            hint       = 'Choose another name, or move or delete the node that has it. Nothing was created.';
  end if;
end
$$;

comment on function filestore.refuse_taken_names(jsonb) is
  'Internal: Raises FS409 for the first element of a batch of filestore.create_nodes whose name is given twice, or taken by a live node. Returns when there is none.';

revoke all on function filestore.refuse_taken_names(jsonb) from public;
--! EndIncluded functions/refuse_taken_names.sql
--! Included functions/refuse_element.sql
create or replace function filestore.refuse_element(creation text, nodes jsonb, parents jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  first   integer := 0;
  last    integer := jsonb_array_length(nodes) - 1;
  middle  integer;
  code    text;
  broken  text;
  message text;
  remedy  text;
begin
  -- A binary search: each half of the batch is created and rolled back, until one element is left. FS000 would not do
  -- here: as a condition, it means the whole class FS.
  while first < last loop
    middle := (first + last) / 2;
    begin
      execute creation using jsonb_path_query_array(nodes, '$[$first to $last]', jsonb_build_object('first', first, 'last', middle)), parents;
      raise sqlstate 'FS001';
    exception
      when sqlstate 'FS001' then
        first := middle + 1;
      when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
        last := middle;
    end;
  end loop;

  begin
    perform filestore.check_name(nodes -> first ->> 'name');
    execute creation using jsonb_build_array(nodes -> first), parents;
  exception
    when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
      get stacked diagnostics code = returned_sqlstate, broken = constraint_name, message = message_text, remedy = pg_exception_hint;
      if broken = 'nodes_live_child_key' then
        perform filestore.refuse_taken_names(nodes);
      end if;
      -- The server gives no reason when a value does not fit its type.
      if code like '22%' then
        code   := 'FS422';
        broken := 'nodes_batch_check';
      end if;
      -- Shortened, since the server quotes the whole value when it does not fit its type.
      raise exception '%: %', filestore.describe_element(first + 1, nodes -> first), left(message, 300)
        -- Code and reason are those of the error that the element caused.
        using errcode    = code,
              constraint = broken,
              schema     = 'filestore',
              hint       = coalesce(nullif(remedy, ''), 'Correct the element. Nothing was created.');
  end;
  -- The element alone is valid, so its name is that of an earlier element.
  perform filestore.refuse_taken_names(nodes);
end
$$;

comment on function filestore.refuse_element(text, jsonb, jsonb) is
  'Internal: Finds the first element of a batch of filestore.create_nodes that cannot be created, and raises its error. Returns when all of them can be created.';

revoke all on function filestore.refuse_element(text, jsonb, jsonb) from public;
--! EndIncluded functions/refuse_element.sql
--! Included functions/create_nodes.sql
create or replace function filestore.create_nodes(nodes jsonb)
returns setof filestore.nodes
language plpgsql
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  columns  text;
  fields   text;
  creation text;
  parents  jsonb;
  broken   text;
begin
  perform filestore.check_batch(nodes);
  parents := filestore.lock_parents(nodes);

  -- A column that an element leaves out gets its default.
  select
    string_agg(quote_ident(a.attname), ', ' order by a.attnum),
    string_agg(
      case
        when a.attname = 'kind' then 'coalesce(r.kind, ''file'')'
        -- As in create_node: most digests are in canonical form already.
        when a.attname = 'checksum' then 'case
          when r.checksum is null then null
          when octet_length(r.checksum) = 71 and starts_with(r.checksum, ''sha256:'') and r.checksum = lower(r.checksum) then r.checksum
          else filestore.canonical_checksum(r.checksum)
        end'
        when d.adbin is null then format('r.%I', a.attname)
        when a.attnotnull then format('coalesce(r.%I, %s)', a.attname, pg_get_expr(d.adbin, d.adrelid))
        else format('case when $1 -> (r.position::integer - 1) ? %L then r.%I else %s end', a.attname, a.attname, pg_get_expr(d.adbin, d.adrelid))
      end || ' as ' || quote_ident(a.attname),
      ', ' order by a.attnum
    )
  into columns, fields
  from pg_attribute a
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = 'filestore.nodes'::regclass
    and a.attname = any ('{kind,state}'::text[] || filestore.content_columns());

  -- In order of parent and name, so that two batches with the same names do not deadlock.
  creation := format(
    'with given as materialized (
       select r.position, r.parent_id, r.name, %2$s
       from jsonb_populate_recordset(null::filestore.nodes, $1) with ordinality as r (%3$s, position)
     ),
     created as (
       insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, %1$s)
       select p.backend_mount_id, g.parent_id, p.path, %4$s
       from given g
       join jsonb_to_recordset($2) as p (id bigint, backend_mount_id bigint, path text) on p.id = g.parent_id
       order by g.parent_id, g.name
       returning *
     )
     select c.*
     from created c
     join given g on g.parent_id = c.parent_id and g.name = c.name
     order by g.position',
    columns,
    fields,
    (
      select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
      from pg_attribute a
      where a.attrelid = 'filestore.nodes'::regclass
        and a.attnum > 0
        and not a.attisdropped
    ),
    -- "E": a session may have switched standard_conforming_strings off.
    'g.name, ' || regexp_replace(columns, '(^|, )', E'\\1g.', 'g')
  );
  begin
    return query execute creation using nodes, parents;
  exception
    when unique_violation then
      get stacked diagnostics broken = constraint_name;
      perform filestore.refuse_taken_names(nodes);
      if broken = 'nodes_live_child_key' then
        -- The node that had the name is gone again, or this transaction does not see it.
        raise exception 'a name of the batch was taken at the same time'
          using errcode    = 'FS409',
                constraint = 'nodes_name_taken',
                hint       = 'Try again. Nothing was created.';
      end if;
      raise;
    when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
      perform filestore.refuse_element(creation, nodes, parents);
      raise;
  end;
end
$$;

comment on function filestore.create_nodes(jsonb) is
  'Creates the nodes that a JSON array of at most 10000 objects describes, on at most 100 mounts, all or none, and returns them in the order given. An object has parent_id and name, and optionally kind (file by default), state and any content column of nodes; a column that it leaves out gets its default. FS404 when a parent is not a live directory, FS409 when a name is taken or given twice, FS422 or 23514 when an element is not well formed; the message names the position, from 1.';

revoke all on function filestore.create_nodes(jsonb) from public;
--! EndIncluded functions/create_nodes.sql
--! Included functions/purge_deleted.sql
create or replace function filestore.purge_deleted(older_than interval, batch integer default 1000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  deadline timestamptz;
  mount_id bigint;
  pending  bigint[];
  chosen   bigint[];
  removed  integer;
  purged   integer     := 0;
begin
  perform filestore.check_retention(older_than, batch);
  perform filestore.require_first_write('filestore.purge_deleted');
  -- Retention counts from updated_at, since the writer of a deletion chooses deleted_at. deleted_at is never later than
  -- updated_at, so its condition excludes no more rows, and has an index.
  deadline := statement_timestamp() - older_than;
  pending := array(
    select distinct d.directory_id
    from filestore.rollup_deltas d
  );

  -- In order of id, so that concurrent purges do not deadlock. All transactions of the server share its table of locks,
  -- hence the limit. The next call takes the next mounts, since only those with a tombstone that it can remove count.
  -- "Offset 0" looks into one mount after the other.
  for mount_id in
    select m.id
    from filestore.backend_mounts m
    -- The proof at a cut-over reads new rows only, so nothing is removed while a mount moves.
    where m.held_by is null
      and exists (
        select
        from filestore.nodes n
        where n.backend_mount_id = m.id
          and n.deleted_at < deadline
          and n.updated_at < deadline
          and n.id not in (select unnest(pending))
          and not exists (
            select
            from filestore.nodes c
            where c.parent_id = n.id
              and not c.live
            offset 0
          )
        offset 0
      )
    order by m.id
    limit 100
  loop
    perform filestore.lock_tree(mount_id, true);
    -- A directory with pending deltas stays: its deltas still have to be added to the directories above it.
    pending := array(
      select distinct d.directory_id
      from filestore.rollup_deltas d
      where d.backend_mount_id = mount_id
    );

    -- Each round removes tombstones without children, and the next round their parents. "Offset 0" keeps the search for
    -- children a lookup. Right after a mass delete, the statistics know of no tombstones yet, and the planner would
    -- compare every pair of rows.
    while purged < batch loop
      chosen := array(
        select n.id
        from filestore.nodes n
        where n.backend_mount_id = mount_id
          and n.deleted_at < deadline
          and n.updated_at < deadline
          and n.id not in (select unnest(pending))
          and not exists (
            select
            from filestore.nodes c
            where c.parent_id = n.id
              and not c.live
            offset 0
          )
        order by n.deleted_at, n.depth desc
        limit batch - purged
      );
      exit when chosen = '{}';
      delete from filestore.nodes n
      -- Checked again, since a node may have been restored and deleted again in the meantime. "Coalesce" makes the
      -- planner use the primary key and not the indexes on tombstones.
      where n.id = any (chosen)
        and coalesce(n.deleted_at, 'infinity') < deadline
        and n.updated_at < deadline;
      get diagnostics removed = row_count;
      purged := purged + removed;
    end loop;
    exit when purged >= batch;
  end loop;
  return purged;
end
$$;

comment on function filestore.purge_deleted(interval, integer) is
  'Removes at most batch tombstones of at most 100 mounts, with their history, whose last change is longer than older_than ago, the oldest and deepest first, and returns how many. Repeat it until it returns 0. Skips directories that have pending deltas.';

revoke all on function filestore.purge_deleted(interval, integer) from public;
--! EndIncluded functions/purge_deleted.sql
