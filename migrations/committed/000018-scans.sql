--! Previous: sha1:43cec307910ccd79cb3b71b4dfa1bd4698462e62
--! Hash: sha1:a526e1f6b79d11b1b95dadaf9adbd4824659a58e
--! Message: Scans

create table if not exists filestore.scans (
  id                bigint         generated always as identity (maxvalue 1099511627775),
  backend_mount_id  bigint         not null,
  directory_id      bigint         not null,
  path              text           collate "C" not null,
  is_recursive      boolean        not null default true,
  pairs_by_content  boolean        not null default false,
  principal         text           collate "C",
  state             text           not null default 'recording',
  started_at        timestamptz(3) not null default date_trunc('milliseconds', clock_timestamp()),
  expire_after_ms   bigint         not null default 3600000,
  expires_at        timestamptz(3) not null default date_trunc('milliseconds', clock_timestamp() + interval '1 hour'),
  ended_at          timestamptz(3),
  journal_entry_ids bigint[]       not null default '{}',
  planned           bigint,
  applied           bigint         not null default 0,
  plans             integer        not null default 0,
  settled           bigint,
  entries           bigint         not null default 0,
  refused           bigint         not null default 0,
  created           bigint         not null default 0,
  moved             bigint         not null default 0,
  changed           bigint         not null default 0,
  found             bigint         not null default 0,
  missing           bigint         not null default 0,
  deleted           bigint         not null default 0,
  skipped           bigint         not null default 0,
  seen              bigint         not null default 0,

  constraint scans_pkey
    primary key (id),
  constraint scans_backend_mount_fkey
    foreign key (backend_mount_id)
    references filestore.backend_mounts (id)
    on delete cascade,
  constraint scans_state_check
    check (state in ('recording', 'applying', 'finished', 'canceled', 'expired')),
  constraint scans_ended_check
    check ((ended_at is not null) = (state in ('finished', 'canceled', 'expired')))
);

create index if not exists scans_mount_idx
  on filestore.scans (backend_mount_id, path);
create index if not exists scans_running_idx
  on filestore.scans (expires_at)
  where ended_at is null;

comment on table  filestore.scans                   is 'Scans of a mount, a subtree or a directory: a service records what the backend has, and the catalogue then follows it. Written only by the functions of scans.';
comment on column filestore.scans.id                is 'Number of the scan.';
comment on column filestore.scans.backend_mount_id  is 'The mount that is scanned. A scan is deleted with its mount.';
comment on column filestore.scans.directory_id      is 'The scanned directory.';
comment on column filestore.scans.path              is 'Path of the scanned directory when the scan began.';
comment on column filestore.scans.is_recursive      is 'Whether the scan covers everything below the directory, or only the nodes in it.';
comment on column filestore.scans.pairs_by_content  is 'Whether files without an identity are also paired by content hash and size.';
comment on column filestore.scans.principal         is 'The user or service that asked for the scan.';
comment on column filestore.scans.state             is 'recording, applying, finished, canceled or expired.';
comment on column filestore.scans.started_at        is 'When the scan began. Nodes that others wrote later are left alone, unless their entries were listed after that.';
comment on column filestore.scans.expire_after_ms   is 'How long after the last call the scan expires, in milliseconds.';
comment on column filestore.scans.expires_at        is 'When the scan expires if no call follows.';
comment on column filestore.scans.ended_at          is 'When the scan finished, was canceled or expired; null before.';
comment on column filestore.scans.journal_entry_ids is 'Journal entries of the scan: more than one if the first one expired.';
comment on column filestore.scans.planned           is 'Internal: Number of the last planned change; null while there is no plan.';
comment on column filestore.scans.applied           is 'Internal: Number of the last change that was applied.';
comment on column filestore.scans.plans             is 'Internal: How often the changes were planned.';
comment on column filestore.scans.settled           is 'Internal: Number of the last sightings that were recorded; null before all changes are applied.';
comment on column filestore.scans.entries           is 'Recorded entries, without the directories that only their paths imply. 0 before the changes are planned.';
comment on column filestore.scans.refused           is 'Entries whose names no node can have.';
comment on column filestore.scans.created           is 'Nodes that were created.';
comment on column filestore.scans.moved             is 'Nodes that were moved or renamed; a directory counts once, whatever is below it.';
comment on column filestore.scans.changed           is 'Nodes whose content changed.';
comment on column filestore.scans.found             is 'Missing nodes that were found again at their path.';
comment on column filestore.scans.missing           is 'Nodes that were marked as missing.';
comment on column filestore.scans.deleted           is 'Nodes that were deleted, because something else has their path.';
comment on column filestore.scans.skipped           is 'Entries and nodes that were left alone, because others wrote to them after they were listed.';
comment on column filestore.scans.seen              is 'Nodes that were found, and have a new sighting.';
comment on constraint scans_backend_mount_fkey on filestore.scans is 'The mount exists; its scans are deleted with it.';
comment on constraint scans_ended_check        on filestore.scans is 'ended_at is set when the scan has ended, and only then.';
comment on index filestore.scans_mount_idx   is 'Scans of a mount.';
comment on index filestore.scans_running_idx is 'Scans that have not ended, by when they expire.';

-- Unlogged: after a crash the entries are gone, and the service scans again.
create unlogged table if not exists filestore.scan_entries (
  scan_id          bigint              not null,
  size_bytes       bigint              not null,
  listed_at        timestamptz(3)      not null,
  last_modified_at timestamptz(3),
  depth            integer,
  is_implied       boolean             not null default false,
  kind             filestore.node_kind not null,
  path             text                collate "C" not null,
  backend_identity text                collate "C",
  content_hash     text                collate "C",
  checksum         text                collate "C",
  storage_class    text,
  link_target      text                collate "C",
  fault            text                collate "C",

  constraint scan_entries_pkey
    primary key (scan_id, path),
  constraint scan_entries_sound_check
    check (
      size_bytes >= 0
      and (last_modified_at between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59.999Z') is not false
      and (octet_length(backend_identity) between 1 and 1024) is not false
      and (octet_length(content_hash) > 1024) is not true
      and (octet_length(storage_class) > 256) is not true
      -- Without "between": a dump writes its two comparisons without their parentheses, and verify would report a change.
      and (link_target is null or (kind = 'file' and octet_length(link_target) >= 1 and octet_length(link_target) <= 4096))
    )
);

create index if not exists scan_entries_directories_idx
  on filestore.scan_entries (scan_id, depth)
  where kind = 'directory';

comment on table  filestore.scan_entries                  is 'Internal: What the backend has, as a service recorded it for a scan that has not ended. Empty after a crash of the server.';
comment on column filestore.scan_entries.scan_id          is 'scans.id.';
comment on column filestore.scan_entries.size_bytes       is 'Size of the content in bytes; 0 for a directory.';
comment on column filestore.scan_entries.listed_at        is 'A moment before the service listed the object.';
comment on column filestore.scan_entries.last_modified_at is 'When the backend says the content was last modified; null when unknown.';
comment on column filestore.scan_entries.depth            is 'Number of segments in the path of a directory; null for a file.';
comment on column filestore.scan_entries.is_implied       is 'Whether the directory was not recorded, but is in the path of a recorded entry.';
comment on column filestore.scan_entries.kind             is 'file or directory.';
comment on column filestore.scan_entries.path             is 'Path below the root of the mount. If it is too long for a node: its beginning and a digest.';
comment on column filestore.scan_entries.backend_identity is 'As in nodes; null when unknown.';
comment on column filestore.scan_entries.content_hash     is 'As in nodes; null when unknown.';
comment on column filestore.scan_entries.checksum         is 'As in nodes; null when unknown.';
comment on column filestore.scan_entries.storage_class    is 'As in nodes; null when unknown.';
comment on column filestore.scan_entries.link_target      is 'As in nodes; null for everything but a symbolic link.';
comment on column filestore.scan_entries.fault            is 'Why it cannot be a node, as the reason of a refusal; null when it can.';
comment on constraint scan_entries_sound_check on filestore.scan_entries is 'Sizes, moments and texts are in the ranges that nodes allow.';
comment on index filestore.scan_entries_directories_idx is 'Directories of a scan, from the top down.';

--! Included functions/refuse_scan.sql
create or replace function filestore.refuse_scan(scan_id bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  scan filestore.scans;
begin
  select *
  into scan
  from filestore.scans s
  where s.id = refuse_scan.scan_id;

  if scan.id is null then
    raise exception 'scan % does not exist', scan_id
      using errcode    = 'FS404',
            constraint = 'scans_missing',
            hint       = 'Check the id: the scan was removed after its end, or with its mount, or never existed.';
  elsif scan.ended_at is not null then
    raise exception 'scan % is %', scan_id, scan.state
      using errcode    = 'FS409',
            constraint = 'scans_ended',
            hint       = 'Begin another scan.';
  elsif not exists (select from filestore.scan_entries e where e.scan_id = scan.id and e.path = scan.path) then
    raise exception 'the entries of scan % are lost, because the server crashed', scan_id
      using errcode    = 'FS409',
            constraint = 'scans_lost',
            hint       = 'Call filestore.cancel_scan, and scan again.';
  end if;
  raise exception 'scan % is being applied', scan_id
    using errcode    = 'FS409',
          constraint = 'scans_applying',
          hint       = 'Call filestore.apply_scan until it is finished, and begin another scan for more entries.';
end
$$;

comment on function filestore.refuse_scan(bigint) is
  'Internal: Raises FS404 or FS409, with the reason why a scan takes no entries or cannot be applied.';

revoke all on function filestore.refuse_scan(bigint) from public;
--! EndIncluded functions/refuse_scan.sql
--! Included functions/check_scanned_mount.sql
create or replace function filestore.check_scanned_mount(mount_id bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount filestore.backend_mounts;
begin
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = mount_id;

  if mount.held_by is not null then
    raise exception 'mount "%" is moving to another server', mount.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Scan it again when the move has ended, on the server that has the mount then.';
  elsif mount.erasing_since is not null then
    raise exception 'mount "%" is being erased (since %)', mount.mount_key, mount.erasing_since
      using errcode    = 'FS409',
            constraint = 'backend_mounts_erasing',
            hint       = 'Use another mount.';
  end if;
end
$$;

comment on function filestore.check_scanned_mount(bigint) is
  'Internal: Raises FS409 when a mount cannot be scanned, because it moves to another server or is being erased.';

revoke all on function filestore.check_scanned_mount(bigint) from public;
--! EndIncluded functions/check_scanned_mount.sql
--! Included functions/lock_scanned_mount.sql
create or replace function filestore.lock_scanned_mount(scan_id bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform
  from filestore.backend_mounts m
  where m.id = (
    select s.backend_mount_id
    from filestore.scans s
    where s.id = lock_scanned_mount.scan_id
  )
  for key share;
end
$$;

comment on function filestore.lock_scanned_mount(bigint) is
  'Internal: Locks the mount of a scan against its deletion, which takes first the mount and then its scans. Called before the scan is locked: the second update of a scan in a transaction checks its foreign key, and so do later writes of the caller.';

revoke all on function filestore.lock_scanned_mount(bigint) from public;
--! EndIncluded functions/lock_scanned_mount.sql
--! Included functions/end_scan.sql
create or replace function filestore.end_scan(scan filestore.scans, new_state text)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from filestore.scan_entries e
  where e.scan_id = scan.id;
  delete from filestore.scan_changes c
  where c.scan_id = scan.id;
  delete from filestore.scan_directories d
  where d.scan_id = scan.id;
  delete from filestore.scan_sightings g
  where g.scan_id = scan.id;

  -- Another caller may have ended the command, as filestore.expire_commands does.
  update filestore.journal_entries j
  set status = case new_state when 'canceled' then 'canceled' else 'failed' end,
      error  = jsonb_build_object('code', new_state, 'message', format('scan %s is %s', scan.id, new_state))
  where new_state <> 'finished'
    and j.id = scan.journal_entry_ids[cardinality(scan.journal_entry_ids)]
    and j.status = 'running';

  update filestore.scans s
  set state    = new_state,
      ended_at = date_trunc('milliseconds', clock_timestamp())
  where s.id = scan.id
  returning * into scan;
  return scan;
end
$$;

comment on function filestore.end_scan(filestore.scans, text) is
  'Internal: Ends a scan that the caller has locked, and removes its entries and its plan. Returns the scan.';

revoke all on function filestore.end_scan(filestore.scans, text) from public;
--! EndIncluded functions/end_scan.sql
--! Included functions/lock_scan.sql
create or replace function filestore.lock_scan(scan_id bigint)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  scan filestore.scans;
begin
  perform filestore.lock_scanned_mount(lock_scan.scan_id);
  begin
    select *
    into scan
    from filestore.scans s
    where s.id = lock_scan.scan_id
    for update nowait;
  exception
    when lock_not_available then
      raise exception 'another call works on scan %', scan_id
        using errcode    = 'FS409',
              constraint = 'scans_busy',
              hint       = 'Let one worker apply the scan, after all entries are recorded. If the other call has ended, call again.';
  end;
  if scan.state = 'finished' then
    return scan;
  elsif scan.id is null
     or scan.ended_at is not null
     or not exists (select from filestore.scan_entries e where e.scan_id = scan.id and e.path = scan.path) then
    perform filestore.refuse_scan(lock_scan.scan_id);
  end if;
  perform filestore.check_scanned_mount(scan.backend_mount_id);
  if not exists (select from filestore.nodes n where n.id = scan.directory_id and n.live and n.path = scan.path) then
    raise exception 'directory "%" of scan % was moved or deleted', scan.path, scan.id
      using errcode    = 'FS409',
            constraint = 'scans_directory_moved',
            hint       = 'Call filestore.cancel_scan, and scan the directory where it is now.';
  end if;
  return scan;
end
$$;

comment on function filestore.lock_scan(bigint) is
  'Internal: Locks a scan that can be applied or has finished, and returns it. FS404 or FS409 for any other.';

revoke all on function filestore.lock_scan(bigint) from public;
--! EndIncluded functions/lock_scan.sql
--! Included functions/begin_scan.sql
create or replace function filestore.begin_scan(
  mount_key       text,
  path            text     default '',
  recursive       boolean  default true,
  pair_by_content boolean  default false,
  principal       text     default null,
  expire_after    interval default '1 hour'
)
returns filestore.scans
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id constant bigint := filestore.find_mount(begin_scan.mount_key);
  top      filestore.nodes;
  scan     filestore.scans;
  twin     filestore.scans;
begin
  perform filestore.require_read_committed('filestore.begin_scan');
  perform filestore.check_retention(expire_after, 1);
  if octet_length(begin_scan.principal) > 4000 then
    -- Its command could not be recorded when it is applied.
    raise exception 'the principal of the scan has % bytes', octet_length(begin_scan.principal)
      using errcode    = 'check_violation',
            constraint = 'journal_entries_size_check',
            hint       = 'Give at most 4000 bytes, such as the name of a user.';
  end if;
  -- The lock lets one caller at a time look for scans that overlap.
  perform
  from filestore.backend_mounts m
  where m.id = mount_id
  for no key update;
  perform filestore.check_scanned_mount(mount_id);
  top := filestore.ensure_directory(begin_scan.mount_key, begin_scan.path);

  for twin in
    select *
    from filestore.scans s
    where s.backend_mount_id = mount_id
      and (
        s.path = top.path
        or (coalesce(begin_scan.recursive, true) and (top.path = '' or starts_with(s.path, top.path || '/')))
        or (s.is_recursive and (s.path = '' or starts_with(top.path, s.path || '/')))
      )
      and (s.ended_at is null or s.path = top.path)
    for update
  loop
    if twin.ended_at is not null then
      delete from filestore.scans s
      where s.id = twin.id;
    elsif twin.expires_at > clock_timestamp() then
      raise exception 'scan % of "%" on mount "%" is running', twin.id, twin.path, begin_scan.mount_key
        using errcode    = 'FS409',
              constraint = 'scans_running',
              hint       = format('Continue it, call filestore.cancel_scan, or wait until it expires (%s).', twin.expires_at);
    else
      perform filestore.end_scan(twin, 'expired');
    end if;
  end loop;

  insert into filestore.scans (backend_mount_id, directory_id, path, is_recursive, pairs_by_content, principal, expire_after_ms, expires_at)
  values (
    mount_id,
    top.id,
    top.path,
    coalesce(begin_scan.recursive, true),
    coalesce(begin_scan.pair_by_content, false),
    begin_scan.principal,
    (extract(epoch from begin_scan.expire_after) * 1000)::bigint,
    clock_timestamp() + begin_scan.expire_after
  )
  returning * into scan;
  -- A crash of the server empties the table: without this entry, the others are lost too.
  insert into filestore.scan_entries (scan_id, path, depth, kind, size_bytes, listed_at, is_implied)
  values (scan.id, scan.path, top.depth, 'directory', 0, scan.started_at, true);
  return scan;
end
$$;

comment on function filestore.begin_scan(text, text, boolean, boolean, text, interval) is
  'Begins a scan of a mount, of a directory with everything below it, or of the nodes in one directory (recursive false), and returns it. List the backend after this call. Creates the directory if it is not in the catalogue. With pair_by_content, files without an identity are paired by content hash and size. The scan expires when no call follows within expire_after. FS404 when the mount does not exist, FS409 when another scan covers a part of it, or when the mount moves or is being erased.';

revoke all on function filestore.begin_scan(text, text, boolean, boolean, text, interval) from public;
--! EndIncluded functions/begin_scan.sql
--! Included functions/cancel_scan.sql
create or replace function filestore.cancel_scan(scan_id bigint)
returns filestore.scans
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  scan filestore.scans;
begin
  perform filestore.lock_scanned_mount(cancel_scan.scan_id);
  select *
  into scan
  from filestore.scans s
  where s.id = cancel_scan.scan_id
  for update;
  if scan.state = 'canceled' then
    return scan;
  elsif scan.id is null or scan.ended_at is not null then
    perform filestore.refuse_scan(cancel_scan.scan_id);
  end if;
  return filestore.end_scan(scan, 'canceled');
end
$$;

comment on function filestore.cancel_scan(bigint) is
  'Ends a scan without applying the rest of it, and returns it. Changes that it has applied stay. Repeating the call changes nothing. FS404 when there is no such scan, FS409 when it finished or expired.';

revoke all on function filestore.cancel_scan(bigint) from public;
--! EndIncluded functions/cancel_scan.sql
--! Included functions/expire_scans.sql
create or replace function filestore.expire_scans(older_than interval default '7 days', batch integer default 1000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  scan  filestore.scans;
  ended integer := 0;
  old   integer;
  stray bigint;
begin
  perform filestore.check_retention(older_than, batch);
  for scan in
    select *
    from filestore.scans s
    where s.ended_at is null
      and s.expires_at < clock_timestamp()
    order by s.expires_at
    limit batch
  loop
    -- The mount before the scan, as in lock_scanned_mount, but without waiting.
    perform
    from filestore.backend_mounts m
    where m.id = scan.backend_mount_id
    for key share skip locked;
    continue when not found;
    select *
    into scan
    from filestore.scans s
    where s.id = scan.id
      and s.ended_at is null
      and s.expires_at < clock_timestamp()
    for update skip locked;
    continue when not found;
    perform filestore.end_scan(scan, 'expired');
    ended := ended + 1;
  end loop;

  delete from filestore.scans s
  where s.id = any (array(
    select o.id
    from filestore.scans o
    where o.ended_at < clock_timestamp() - older_than
    order by o.id
    limit batch
    for update skip locked
  ));
  get diagnostics old = row_count;
  -- Deleting a mount deletes its scans, but not their entries. Each scan costs one lookup, however many entries it has.
  loop
    select e.scan_id
    into stray
    from filestore.scan_entries e
    where e.scan_id > coalesce(stray, 0)
    order by e.scan_id
    limit 1;
    exit when not found;
    if not exists (select from filestore.scans s where s.id = stray) then
      delete from filestore.scan_entries e
      where e.scan_id = stray;
      delete from filestore.scan_changes c
      where c.scan_id = stray;
      delete from filestore.scan_sightings g
      where g.scan_id = stray;
    end if;
  end loop;
  return ended + old;
end
$$;

comment on function filestore.expire_scans(interval, integer) is
  'Ends the scans that expired, removes those that ended longer than older_than ago, at most batch of each, and the entries of scans that were deleted with their mount. Returns how many scans. Changes that an expired scan has applied stay.';

revoke all on function filestore.expire_scans(interval, integer) from public;
--! EndIncluded functions/expire_scans.sql
--! Included functions/check_entry_fields.sql
create or replace function filestore.check_entry_fields(entries jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  fields constant text[] := '{path,kind,size_bytes,last_modified_at,backend_identity,content_hash,checksum,storage_class,link_target}';
  given  record;
  field  record;
begin
  select e.position, e.value
  into given
  from jsonb_array_elements(entries) with ordinality as e (value, position)
  where jsonb_typeof(e.value) <> 'object'
     or jsonb_typeof(e.value -> 'path') is distinct from 'string'
     or e.value ->> 'path' in ('', '/')
     or e.value - fields <> '{}'
     -- Any other type would be stored as its JSON text, which can be much longer than the value.
     or jsonb_path_exists(e.value - 'size_bytes', 'strict $.* ? (@.type() != "string" && @.type() != "null")')
     or jsonb_typeof(e.value -> 'size_bytes') not in ('number', 'string', 'null')
  order by e.position
  limit 1;
  if found then
    select k.name, jsonb_typeof(given.value -> k.name) as type
    into field
    from unnest(fields) as k (name)
    where jsonb_typeof(given.value) = 'object'
      and jsonb_typeof(given.value -> k.name) not in ('string', 'null', case k.name when 'size_bytes' then 'number' else 'null' end)
    limit 1;
    raise exception 'entry % %', given.position, case
      when jsonb_typeof(given.value) <> 'object' then format('is of type %s, not an object', jsonb_typeof(given.value))
      when jsonb_typeof(given.value -> 'path') is distinct from 'string' then 'has no path that is a string'
      when given.value ->> 'path' in ('', '/') then 'has an empty path'
      when field.name is not null then format('has the field "%s" of type %s', field.name, field.type)
      else format('has the unknown field "%s"', left((select min(k.name) from jsonb_object_keys(given.value - fields) as k (name)), 40))
    end
      using errcode    = 'FS422',
            constraint = 'scan_entries_batch_check',
            hint       = format('Give an object with only these fields: %s. All are strings, except for size_bytes, a number.', array_to_string(fields, ', '));
  end if;
end
$$;

comment on function filestore.check_entry_fields(jsonb) is
  'Internal: Raises FS422 for the first entry of an array that is not an object with a path and known fields, and names its position.';

revoke all on function filestore.check_entry_fields(jsonb) from public;
--! EndIncluded functions/check_entry_fields.sql
--! Included functions/check_entries.sql
create or replace function filestore.check_entries(entries jsonb)
returns integer
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  types  jsonb;
  others jsonb;
  rest   jsonb;
begin
  if jsonb_typeof(entries) is distinct from 'array' then
    raise exception 'the entries are of type %, not an array of objects', coalesce(jsonb_typeof(entries), 'null')
      using errcode    = 'FS422',
            constraint = 'scan_entries_batch_check',
            hint       = 'Give a JSON array with an object for each entry, such as [{"path": "a.jpg", "size_bytes": 1}].';
  elsif jsonb_array_length(entries) > 10000 then
    raise exception 'the batch has % entries', jsonb_array_length(entries)
      using errcode    = 'FS422',
            constraint = 'limit_check',
            hint       = 'One call takes at most 10000 entries: call it several times.';
  end if;

  -- In most batches, sizes are numbers and all other values are strings. This proves it sooner than a look at each entry.
  types  := jsonb_path_query_array(entries, '$[*].*.type()');
  others := types - 'string';
  rest   := others - 'null';
  if rest <> jsonb_path_query_array(entries, '$[*].size_bytes.type()') - 'null' or rest - 'number' <> '[]' then
    perform filestore.check_entry_fields(entries);
  end if;
  return jsonb_array_length(types) - jsonb_array_length(others) + jsonb_array_length(rest);
end
$$;

comment on function filestore.check_entries(jsonb) is
  'Internal: Returns how many fields the entries have that are not null. Raises FS422 when they are not an array of at most 10000 objects, or when a value is not of the type of its field. The caller looks for unknown fields.';

revoke all on function filestore.check_entries(jsonb) from public;
--! EndIncluded functions/check_entries.sql
--! Included functions/scan_path_fault.sql
create or replace function filestore.scan_path_fault(path text, is_local boolean)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if is_local and path ~ E'(^|/)\\.{1,2}(/|$)|^/' then
    raise exception 'entry "%" is not below the scanned directory', regexp_replace(left(path, 200), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g')
      using errcode    = 'FS422',
            constraint = 'scan_entries_path_check',
            hint       = 'Give the path below the directory, without a slash at the start and without "." or "..". Nothing was recorded.';
  end if;
  return case
    when octet_length(path) > 2600                                          then 'nodes_path_length_check'
    when path ~ E'(^|/)\\.{0,2}(/|$)|[\\u0001-\\u001f\\u007f-\\u009f]'        then 'nodes_name_check'
    when exists (
      select
      from unnest(string_to_array(path, '/')) as s (name)
      where octet_length(s.name) > case when is_local then 255 else 1024 end
    ) then case when is_local then 'nodes_local_name_check' else 'nodes_name_check' end
  end;
end
$$;

comment on function filestore.scan_path_fault(text, boolean) is
  'Internal: Why a path cannot be that of a node: the reason of a refusal; null when it can. FS422 when it is on a local mount, and leads out of the scanned directory.';

revoke all on function filestore.scan_path_fault(text, boolean) from public;
--! EndIncluded functions/scan_path_fault.sql
--! Included functions/refuse_entries.sql
create or replace function filestore.refuse_entries(entries jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  given    record;
  fault    record;
  twin     record;
  modified timestamptz;
  value    filestore.scan_entries;
  mistake  text;
begin
  for given in
    select e.position, e.value
    from jsonb_array_elements(entries) with ordinality as e (value, position)
    order by e.position
  loop
    mistake := null;
    begin
      modified := coalesce((given.value ->> 'last_modified_at')::timestamptz, '2000-01-01T00:00:00Z');
    exception
      when data_exception then
        modified := 'infinity';
    end;
    begin
      value := jsonb_populate_record(null::filestore.scan_entries, given.value - '{path,kind,checksum,last_modified_at}'::text[]);
      perform filestore.canonical_checksum(given.value ->> 'checksum');
    exception
      when data_exception or sqlstate 'FS422' then
        mistake := sqlerrm;
    end;

    select *
    into fault
    from (values
      (
        'scan_entries_kind_check',
        coalesce(given.value ->> 'kind', 'file') in ('file', 'directory'),
        format('is of kind "%s"', left(given.value ->> 'kind', 40)),
        'Give file or directory. Leave other objects out, such as sockets.'
      ),
      (
        'scan_entries_moment_check',
        modified between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59.999Z',
        format('was last modified at "%s"', left(given.value ->> 'last_modified_at', 40)),
        'Give a moment from year 1 to year 9999, or leave it out.'
      ),
      (
        'scan_entries_batch_check',
        mistake is null,
        format('is not well formed: %s', left(mistake, 200)),
        'Correct the entry.'
      ),
      (
        'scan_entries_size_check',
        given.value ->> 'kind' = 'directory' or coalesce(value.size_bytes, 0) >= 0,
        format('has size %s', value.size_bytes),
        'Give a size of 0 or more.'
      ),
      (
        'scan_entries_identity_check',
        value.backend_identity is null or octet_length(value.backend_identity) between 1 and 1024,
        format('has an identity of %s bytes', octet_length(value.backend_identity)),
        'Give 1 to 1024 bytes, or leave it out.'
      ),
      (
        'scan_entries_batch_check',
        (value.content_hash is null or octet_length(value.content_hash) <= 1024)
          and (value.storage_class is null or octet_length(value.storage_class) <= 256)
          and (value.link_target is null or octet_length(value.link_target) between 1 and 4096),
        'has a text that is too long or empty',
        'Give a content_hash of at most 1024 bytes, a storage_class of at most 256 and a link_target of 1 to 4096.'
      ),
      (
        'scan_entries_batch_check',
        value.link_target is null or given.value ->> 'kind' is distinct from 'directory',
        'is a directory with a link_target',
        'Record a symbolic link as a file.'
      )
    ) as rules (name, holds, complaint, remedy)
    where rules.holds is not true
    limit 1;
    if found then
      raise exception 'entry % ("%") %', given.position,
        regexp_replace(left(given.value ->> 'path', 80), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g'), fault.complaint
        using errcode    = 'FS422',
              constraint = fault.name,
              hint       = fault.remedy || ' Nothing was recorded.';
    end if;
  end loop;

  select min(e.position) as first, max(e.position) as last, max(e.value ->> 'path') as path
  into twin
  from jsonb_array_elements(entries) with ordinality as e (value, position)
  group by case when e.value ->> 'kind' = 'directory' then rtrim(e.value ->> 'path', '/') else e.value ->> 'path' end
  having count(*) > 1
  order by 1
  limit 1;
  if found then
    raise exception 'entries % and % have the same path "%"', twin.first, twin.last,
      regexp_replace(left(twin.path, 200), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g')
      using errcode    = 'FS422',
            constraint = 'scan_entries_duplicate_check',
            hint       = 'Give each path once in a call. Nothing was recorded.';
  end if;
end
$$;

comment on function filestore.refuse_entries(jsonb) is
  'Internal: Raises FS422 for the first entry of a batch that is not well formed or given twice, and names its position. Returns when there is none.';

revoke all on function filestore.refuse_entries(jsonb) from public;
--! EndIncluded functions/refuse_entries.sql
--! Included functions/shorten_path.sql
create or replace function filestore.shorten_path(path text)
returns text
language sql
immutable
parallel safe
-- Without "set" and with "return", the server inlines it.
return case when octet_length(path) > 2600 then left(path, 400) || '... ' || md5(path) else path end;

comment on function filestore.shorten_path(text) is
  'Internal: The beginning and a digest of a path that is too long for a node, and for an index; any other path as it is.';

revoke all on function filestore.shorten_path(text) from public;
--! EndIncluded functions/shorten_path.sql
--! Included functions/refuse_file_above.sql
create or replace function filestore.refuse_file_above(path text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'entry "%" is a file, and other entries are below it', left(path, 200)
    using errcode    = 'FS422',
          constraint = 'scan_entries_kind_check',
          hint       = 'If the path changed its kind while you listed it, cancel the scan and scan again. In a bucket, leave out a key that has other keys below it.';
end
$$;

comment on function filestore.refuse_file_above(text) is
  'Internal: Raises FS422 because an entry is a file, and a directory of other entries.';

revoke all on function filestore.refuse_file_above(text) from public;
--! EndIncluded functions/refuse_file_above.sql
--! Included functions/add_implied_directories.sql
create or replace function filestore.add_implied_directories(scan filestore.scans)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
as $$
declare
  stray text;
  paths text[];
begin
  -- From the bottom up: the directories of all entries, and then those above the ones that were added or changed. What was
  -- listed in a directory that others replace later is not in that one, so a directory counts as listed with its first entry.
  loop
    with parents as materialized (
      select left(e.path, -strpos(reverse(e.path), '/')) as path, min(e.listed_at) as listed_at
      from filestore.scan_entries e
      where e.scan_id = scan.id
        and (paths is null or e.path = any (paths))
        and e.fault is null
        and e.path <> scan.path
      group by left(e.path, -strpos(reverse(e.path), '/'))
    ),
    -- "Offset 0" keeps these lookups by path.
    known as materialized (
      select p.path, least(p.listed_at, e.listed_at) as listed_at, e.kind
      from parents p
      left join lateral (
        select o.kind, o.listed_at
        from filestore.scan_entries o
        where o.scan_id = scan.id
          and o.path = p.path
        offset 0
      ) e on true
      where p.path <> scan.path
        and (e.kind is distinct from 'directory' or e.listed_at > p.listed_at)
    ),
    added as (
      insert into filestore.scan_entries (scan_id, path, depth, kind, size_bytes, listed_at, is_implied)
      select scan.id, k.path, cardinality(string_to_array(k.path, '/')), 'directory', 0, k.listed_at, true
      from known k
      where k.kind is null
      returning path
    ),
    changed as (
      update filestore.scan_entries e
      set listed_at = k.listed_at
      from known k
      where k.kind = 'directory'
        and e.scan_id = scan.id
        and e.path = k.path
      returning e.path
    )
    select
      (select min(k.path) from known k where k.kind = 'file'),
      array(select a.path from added a union all select c.path from changed c)
    into stray, paths;
    if stray is not null then
      perform filestore.refuse_file_above(stray);
    end if;
    exit when paths = '{}';
  end loop;
end
$$;

comment on function filestore.add_implied_directories(filestore.scans) is
  'Internal: Adds the directories of the entries of a scan that were not recorded, and those above them. A directory counts as listed no later than what is in it. FS422 when one of them is a file.';

revoke all on function filestore.add_implied_directories(filestore.scans) from public;
--! EndIncluded functions/add_implied_directories.sql
--! Included functions/remove_entries.sql
create or replace function filestore.remove_entries(scan filestore.scans, entries jsonb, prefix text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  other text;
begin
  with given as materialized (
    select
      filestore.shorten_path(prefix || case when r.kind = 'directory' and right(r.path, 1) = '/' then left(r.path, -1) else r.path end) as path,
      coalesce(r.kind, 'file') as kind
    from jsonb_to_recordset(entries) as r (path text, kind text)
  ),
  removed as (
    delete from filestore.scan_entries e
    where e.scan_id = scan.id
      and e.path = any (array(select g.path from given g))
    returning e.path, e.kind
  )
  select min(r.path)
  into other
  from removed r
  join given g on g.path = r.path
  where g.kind <> r.kind;
  if other is not null then
    raise exception 'entry "%" is recorded as another kind', left(other, 200)
      using errcode    = 'FS422',
            constraint = 'scan_entries_kind_check',
            hint       = 'If it changed its kind while you listed it, cancel the scan and scan again. Nothing was recorded.';
  end if;
end
$$;

comment on function filestore.remove_entries(filestore.scans, jsonb, text) is
  'Internal: Removes the recorded entries of a scan that are recorded again. FS422 when one of them is of another kind now.';

revoke all on function filestore.remove_entries(filestore.scans, jsonb, text) from public;
--! EndIncluded functions/remove_entries.sql
--! Included functions/add_entries.sql
create or replace function filestore.add_entries(
  scan      filestore.scans,
  entries   jsonb,
  fields    integer,
  directory text,
  moment    timestamptz
)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  is_local  constant boolean := exists (
    select
    from filestore.backend_mounts m
    where m.id = scan.backend_mount_id
      and m.backend_kind = 'local'
  );
  prefix    constant text    := case when directory = '' then '' else directory || '/' end;
  levels    constant integer := cardinality(string_to_array(directory, '/'));
  added     integer;
  are_usual boolean;
  parents   text[];
  stray     text;
begin
  for attempt in 1..2 loop
    begin
      with given as materialized (
        -- S3 lists a directory with a slash at its end.
        select
          case when r.kind = 'directory' and right(r.path, 1) = '/' then left(r.path, -1) else r.path end as own_path,
          num_nonnulls(
            r.path,
            r.kind,
            r.size_bytes,
            r.last_modified_at,
            r.backend_identity,
            r.content_hash,
            r.checksum,
            r.storage_class,
            r.link_target
          ) as fields,
          r.*
        from jsonb_to_recordset(entries) as r (
          path             text,
          kind             text,
          size_bytes       bigint,
          last_modified_at timestamptz,
          backend_identity text,
          content_hash     text,
          checksum         text,
          storage_class    text,
          link_target      text
        )
      ),
      facts as materialized (
        select
          count(*)      as entries,
          sum(g.fields) as fields,
          -- Most paths are short and plain. One expression proves it for all of them sooner than one for each.
          case
            when max(octet_length(g.own_path)) <= 200 and octet_length(prefix) <= 2000
              then '/' || string_agg(g.own_path, '/') || '/' !~ E'/\\.{0,2}/|[\\u0001-\\u001f\\u007f-\\u009f]'
            else false
          end as are_plain
        from given g
      ),
      judged as not materialized (
        select
          g.*,
          prefix || g.own_path as full_path,
          case
            when not (select f.are_plain from facts f)
              and (
                octet_length(g.own_path) > 200
                or octet_length(prefix) > 2000
                or g.own_path ~ E'(^|/)\\.{0,2}(/|$)|[\\u0001-\\u001f\\u007f-\\u009f]'
              )
              then filestore.scan_path_fault(prefix || g.own_path, is_local)
          end as fault
        from given g
      ),
      added_entries as (
        insert into filestore.scan_entries (
          scan_id,
          size_bytes,
          listed_at,
          last_modified_at,
          depth,
          kind,
          path,
          backend_identity,
          content_hash,
          checksum,
          storage_class,
          link_target,
          fault
        )
        select
          scan.id,
          case when j.kind = 'directory' then 0 else coalesce(j.size_bytes, 0) end,
          moment,
          j.last_modified_at,
          case when j.kind = 'directory' then levels + cardinality(string_to_array(j.own_path, '/')) end,
          coalesce(j.kind, 'file'),
          case when j.fault = 'nodes_path_length_check' then filestore.shorten_path(j.full_path) else j.full_path end,
          j.backend_identity,
          j.content_hash,
          case
            when j.checksum is null then null
            when octet_length(j.checksum) = 71 and starts_with(j.checksum, 'sha256:') and j.checksum = lower(j.checksum) then j.checksum
            else filestore.canonical_checksum(j.checksum)
          end,
          j.storage_class,
          j.link_target,
          j.fault
        from judged j
      )
      select
        f.entries,
        f.are_plain and f.fields = add_entries.fields,
        array(
          select distinct left(j.full_path, -strpos(reverse(j.full_path), '/'))
          from judged j
          where j.fault is null
        )
      into added, are_usual, parents
      from facts f;
      exit;
    exception
      when unique_violation then
        -- Some of them are recorded already. With "on conflict", each insert would cost half as much again.
        perform filestore.check_entry_fields(entries);
        if attempt = 2 then
          perform filestore.refuse_entries(entries);
          raise;
        end if;
        perform filestore.remove_entries(scan, entries, prefix);
      when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
        perform filestore.check_entry_fields(entries);
        perform filestore.refuse_entries(entries);
        raise;
    end;
  end loop;
  if are_usual is not true then
    perform filestore.check_entry_fields(entries);
  end if;
  -- Those that others record at the same time are found when the changes are planned.
  select min(e.path)
  into stray
  from filestore.scan_entries e
  where e.scan_id = scan.id
    and e.path = any (parents)
    and e.kind = 'file';
  if stray is not null then
    perform filestore.refuse_file_above(stray);
  end if;
  return added;
end
$$;

comment on function filestore.add_entries(filestore.scans, jsonb, integer, text, timestamptz) is
  'Internal: Records entries of a scan, whose paths are below a directory, and returns how many. An entry that is already recorded is replaced. FS422 when one is not well formed.';

revoke all on function filestore.add_entries(filestore.scans, jsonb, integer, text, timestamptz) from public;
--! EndIncluded functions/add_entries.sql
--! Included functions/record_entries.sql
create or replace function filestore.record_entries(
  scan_id   bigint,
  entries   jsonb,
  directory text        default '',
  listed_at timestamptz default null
)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  fields integer;
  scan   filestore.scans;
  place  text;
begin
  perform filestore.require_read_committed('filestore.record_entries');
  fields := filestore.check_entries(entries);
  perform filestore.lock_scanned_mount(record_entries.scan_id);
  update filestore.scans s
  set expires_at = clock_timestamp() + s.expire_after_ms * interval '1 millisecond'
  where s.id = record_entries.scan_id
    and s.expires_at < clock_timestamp() + s.expire_after_ms * interval '0.75 milliseconds'
    and s.ended_at is null;
  select *
  into scan
  from filestore.scans s
  where s.id = record_entries.scan_id
  -- Several callers may record entries at the same time, and one of them may renew the scan. To apply or end it, a caller
  -- locks it for update.
  for key share;
  if scan.state is distinct from 'recording'
     or not exists (select from filestore.scan_entries e where e.scan_id = scan.id and e.path = scan.path) then
    perform filestore.refuse_scan(record_entries.scan_id);
  end if;
  perform filestore.check_scanned_mount(scan.backend_mount_id);

  if not coalesce(record_entries.listed_at between scan.started_at and clock_timestamp(), true) then
    raise exception 'listed_at is %, which is before the scan began or in the future', record_entries.listed_at
      using errcode    = 'FS422',
            constraint = 'scan_entries_moment_check',
            hint       = 'Give a moment between the beginning of the scan and now, by the clock of the database, or leave it out.';
  end if;
  if directory is null or (directory <> '' and filestore.scan_path_fault(directory, exists (
    select
    from filestore.backend_mounts m
    where m.id = scan.backend_mount_id
      and m.backend_kind = 'local'
  )) is not null) then
    raise exception 'the directory of the entries is %, not a path below the scanned directory', coalesce(format('"%s"', left(directory, 200)), 'null')
      using errcode    = 'FS422',
            constraint = 'scan_entries_path_check',
            hint       = 'Give the path of a directory below the scanned one, or leave it out.';
  end if;
  place := case when directory = '' then scan.path else filestore.child_path(scan.path, directory) end;
  if not scan.is_recursive and (directory <> '' or exists (
    select
    from jsonb_array_elements(entries) as e (value)
    where strpos(rtrim(e.value ->> 'path', '/'), '/') > 0
  )) then
    raise exception 'scan % covers the nodes in "%", and not what is below them', scan.id, scan.path
      using errcode    = 'FS422',
            constraint = 'scan_entries_path_check',
            hint       = 'Give the names of the entries in the directory, or begin a scan with recursive => true. Nothing was recorded.';
  end if;
  return filestore.add_entries(scan, entries, fields, place, date_trunc('milliseconds', coalesce(record_entries.listed_at, scan.started_at)));
end
$$;

comment on function filestore.record_entries(bigint, jsonb, text, timestamptz) is
  'Records at most 10000 entries of a scan, a JSON array of objects with path, below the scanned directory or below a directory in it, and optionally kind (file by default), size_bytes, last_modified_at, backend_identity, content_hash, checksum, storage_class and link_target. Returns how many. An entry that was recorded before is replaced, so a call can be repeated. listed_at is a moment before they were listed; null for the beginning of the scan. Entries that cannot be nodes because of their names are counted as refused. FS404 when there is no such scan, FS409 when it takes no entries, FS422 when one of them is not well formed; nothing is recorded then.';

revoke all on function filestore.record_entries(bigint, jsonb, text, timestamptz) from public;
--! EndIncluded functions/record_entries.sql
--! Included functions/is_superseded.sql
create or replace function filestore.is_superseded(node filestore.nodes, version integer, entry_ids bigint[])
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Called for each row: a plan that was made while the history was empty would read all of it each time.
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
  -- A version that another transaction has committed since the statement began has no visible row of history, so the versions
  -- of the given commands are counted.
  return node.version > is_superseded.version and node.version - is_superseded.version > (
    select count(*)
    from filestore.snapshots s
    where s.id = node.id
      and s.version >= is_superseded.version
      and s.version < node.version
      and s.superseded_by_journal_id = any (entry_ids)
  );
end
$$;

comment on function filestore.is_superseded(filestore.nodes, integer, bigint[]) is
  'Internal: Whether another command than the given ones has changed a node after a version of it.';

revoke all on function filestore.is_superseded(filestore.nodes, integer, bigint[]) from public;
--! EndIncluded functions/is_superseded.sql
--! Included functions/is_written_since.sql
create or replace function filestore.is_written_since(node_id bigint, moment timestamptz, entry_ids bigint[])
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Called for each row: a plan that was made while the history was empty would read all of it each time.
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
  return exists (
    select
    from filestore.nodes n
    where n.id = is_written_since.node_id
      and n.created_at >= moment
  ) or exists (
    select
    from filestore.snapshots s
    where s.id = is_written_since.node_id
      and s.valid_to >= moment
      and (s.superseded_by_journal_id = any (entry_ids)) is not true
  );
end
$$;

comment on function filestore.is_written_since(bigint, timestamptz, bigint[]) is
  'Internal: Whether a node was created since a moment, or changed by another command than the given ones. For nodes whose updated_at is not before the moment.';

revoke all on function filestore.is_written_since(bigint, timestamptz, bigint[]) from public;
--! EndIncluded functions/is_written_since.sql
