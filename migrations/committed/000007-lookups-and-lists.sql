--! Previous: sha1:cd646c7111b2c6405835dad99805ff01c09a6ae9
--! Hash: sha1:6ecc5ad25da3a63196374a04032b994c296c820d
--! Message: Lookups and lists

--! Included functions/check_limit.sql
create or replace function filestore.check_limit(argument text, value bigint, max_value bigint default 2147483647)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if value is null or value < 1 or value > max_value then
    raise exception '% cannot be %', argument, coalesce(value::text, 'null')
      using errcode    = 'FS422',
            constraint = 'limit_check',
            hint       = format('Give the number of rows that one call may take, from 1 to %s.', max_value);
  end if;
end
$$;

comment on function filestore.check_limit(text, bigint, bigint) is
  'Internal: Raises FS422 when the number of rows of one call is null, below 1 or above max_value.';

revoke all on function filestore.check_limit(text, bigint, bigint) from public;
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
    when octet_length(name) > 1024                   then format('has %s bytes', octet_length(name))
    when name in ('', '.', '..')                     then 'is no name'
    when strpos(name, '/') > 0                       then 'contains a slash'
    when name ~ E'[\\u0001-\\u001f\\u007f-\\u009f]'       then 'contains a control character'
  end;
begin
  if fault is not null then
    raise exception '% %', coalesce('name "' || regexp_replace(left(name, 40), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g') || '"', 'the name'), fault
      using errcode    = 'FS422',
            constraint = 'nodes_name_check',
            hint       = 'Give one segment of a path: not empty, not "." or "..", without "/" and control characters, at most 1024 bytes.';
  end if;
end
$$;

comment on function filestore.check_name(text) is
  'Internal: Raises FS422 when a name cannot be a segment of a path.';

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
  segments  text[];
  segment   text;
  canonical text;
begin
  -- Most paths are canonical already, and one expression proves it sooner than a look at each segment.
  if octet_length(path) <= 1024 then
    if path !~ E'(^|/)\\.{0,2}(/|$)|[\\u0001-\\u001f\\u007f-\\u009f]' then
      return path;
    end if;
  end if;

  -- A longer text is not even split.
  if octet_length(path) <= 4096 then
    segments := array_remove(array_remove(string_to_array(path, '/'), ''), '.');
  end if;
  canonical := coalesce(array_to_string(segments, '/'), path);
  if octet_length(canonical) > 2600 then
    raise exception 'path "%..." has % bytes', regexp_replace(left(canonical, 40), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g'), octet_length(canonical)
      using errcode    = 'FS422',
            constraint = 'nodes_path_length_check',
            hint       = 'A path has at most 2600 bytes, and 4096 with the slashes and dots that its conversion removes.';
  end if;
  foreach segment in array segments loop
    if segment = '..' then
      raise exception 'path "%" contains ".."', left(path, 200)
        using errcode    = 'FS422',
              constraint = 'nodes_path_check',
              hint       = 'Resolve ".." first: only the backend knows where it leads.';
    end if;
    perform filestore.check_name(segment);
  end loop;
  return canonical;
end
$$;

comment on function filestore.canonical_path(text) is
  'Converts a path to the form of nodes.path: no leading, trailing or repeated slashes, and no "." segments. canonical_path(''/a//./b/'') is ''a/b''. FS422 for "..", control characters, and a path that is too long.';

revoke all on function filestore.canonical_path(text) from public;
--! EndIncluded functions/canonical_path.sql
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
    -- Without its slash, a root_path of '/' would be empty.
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
            hint       = 'To list what the directory held, give with_deleted => true.';
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
  'A page of the nodes in a live directory, in order of name. With with_deleted, the directory may be deleted, and tombstones are listed too, in order of name and id. For the next page, give the last name of this one as after_name, and if tombstones are listed, also the last id as after_id. FS404 when there is no such directory.';

revoke all on function filestore.list_directory(bigint, text, bigint, boolean, bigint) from public;
--! EndIncluded functions/list_directory.sql
--! Included functions/list_totals.sql
create or replace function filestore.list_totals(node_ids bigint[])
returns table (
  node_id           bigint,
  size_bytes        numeric,
  file_count        bigint,
  dir_count         bigint,
  child_count       bigint,
  consistency_state filestore.totals_state
)
language plpgsql
stable
rows 200
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  most      constant integer := 10000;
  mount_ids bigint[];
begin
  if cardinality(node_ids) > most then
    raise exception 'the call has % ids, which are too many', cardinality(node_ids)
      using errcode    = 'FS422',
            constraint = 'node_ids_check',
            hint       = format('Give at most %s, such as those of one page.', most);
  end if;

  -- In a stable function, this statement and the next read one snapshot. "Offset 0" keeps lookups by id, also when
  -- statistics are stale.
  mount_ids := array(
    select distinct m.backend_mount_id
    from unnest(node_ids) as g (id)
    cross join lateral (
      select n.backend_mount_id
      from filestore.nodes n
      where n.id = g.id
        and n.directory_path is not null
      offset 0
    ) m
  );

  return query
  select
    g.id,
    r.size_bytes + coalesce(p.size_delta, 0),
    (r.file_count + coalesce(p.file_delta, 0))::bigint,
    (r.dir_count + coalesce(p.dir_delta, 0))::bigint,
    (r.child_count + coalesce(p.child_delta, 0))::bigint,
    (case when r.consistency_state = 'stale' then 'stale' when p.node_id is not null then 'pending' else 'up_to_date' end)::filestore.totals_state
  from (
    select u.id, min(u.place) as place
    from unnest(node_ids) with ordinality as u (id, place)
    group by u.id
  ) g
  cross join lateral (
    select f.*
    from filestore.rollups f
    where f.node_id = g.id
    offset 0
  ) r
  left join filestore.pending_totals(mount_ids) p on p.node_id = g.id
  order by g.place;
end
$$;

comment on function filestore.list_totals(bigint[]) is
  'The totals of several directories of any mounts, as filestore.directory_totals returns them for one, in one pass over the pending deltas. One row for each directory, deleted or not, in the order of the ids; no row for a file, an unknown id or null. FS422 when there are more than 10000 ids.';

revoke all on function filestore.list_totals(bigint[]) from public;
--! EndIncluded functions/list_totals.sql
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
