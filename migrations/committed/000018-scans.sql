--! Previous: sha1:d96bc0c3bc854df7ab38104518b5df66d0eef63a
--! Hash: sha1:2fec58cfd851dec1e6a1a2f6cff291fa0748518b
--! Message: Scans

create table if not exists filestore.scans (
  id                bigint         generated always as identity (maxvalue 1099511627775),
  backend_mount_id  bigint         not null,
  top_id            bigint         not null,
  path              text           collate "C" not null,
  is_recursive      boolean        not null default true,
  pairs_content     boolean        not null default false,
  principal         text           collate "C",
  state             text           not null default 'recording',
  began_at          timestamptz(3) not null default date_trunc('milliseconds', clock_timestamp()),
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

comment on table  filestore.scans                   is 'Scans: passes over a mount, a subtree or a directory, of which a service records what the backend has, and which the catalogue then follows. Written only by the functions of scans.';
comment on column filestore.scans.id                is 'Number of the scan.';
comment on column filestore.scans.backend_mount_id  is 'The mount that is scanned. A scan is deleted with its mount.';
comment on column filestore.scans.top_id            is 'The scanned directory.';
comment on column filestore.scans.path              is 'Path of the scanned directory when the scan began.';
comment on column filestore.scans.is_recursive      is 'Whether the scan covers everything below the directory, or only the nodes in it.';
comment on column filestore.scans.pairs_content     is 'Whether files without an identity are also paired by content hash and size.';
comment on column filestore.scans.principal         is 'The user or service that asked for it.';
comment on column filestore.scans.state             is 'recording, applying, finished, canceled or expired.';
comment on column filestore.scans.began_at          is 'When it began. What was written later is not touched, unless its entry was listed later.';
comment on column filestore.scans.expire_after_ms   is 'How long after its last call the scan expires, in milliseconds.';
comment on column filestore.scans.expires_at        is 'When it expires if no call follows.';
comment on column filestore.scans.ended_at          is 'When it finished, was canceled or expired; null before.';
comment on column filestore.scans.journal_entry_ids is 'Journal entries of its commands: more than one if the first expired.';
comment on column filestore.scans.planned           is 'Number of the last planned change; null while there is no plan.';
comment on column filestore.scans.applied           is 'Number of the last change that was applied.';
comment on column filestore.scans.plans             is 'How often the changes were planned.';
comment on column filestore.scans.settled           is 'Number of the last sightings that were recorded; null before all changes are applied.';
comment on column filestore.scans.entries           is 'Recorded entries when the changes were planned, without implied directories.';
comment on column filestore.scans.refused           is 'Entries that cannot be nodes because of their names.';
comment on column filestore.scans.created           is 'Nodes that it created.';
comment on column filestore.scans.moved             is 'Nodes that it moved; a directory counts once, whatever is below it.';
comment on column filestore.scans.changed           is 'Nodes of which it changed the content.';
comment on column filestore.scans.found             is 'Missing nodes that it found again.';
comment on column filestore.scans.missing           is 'Nodes that it marked as missing.';
comment on column filestore.scans.deleted           is 'Nodes that it deleted, because something else has their path.';
comment on column filestore.scans.skipped           is 'Entries and nodes that it did not touch, because others wrote to them after they were listed.';
comment on column filestore.scans.seen              is 'Nodes of which it recorded a sighting.';
comment on constraint scans_backend_mount_fkey on filestore.scans is 'The mount exists; its scans are deleted with it.';
comment on constraint scans_ended_check        on filestore.scans is 'A scan has ended_at when it has ended.';
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
      and (link_target is null or (octet_length(link_target) between 1 and 4096 and kind = 'file'))
    )
);

create index if not exists scan_entries_directories_idx
  on filestore.scan_entries (scan_id, depth)
  where kind = 'directory';

comment on table  filestore.scan_entries                  is 'The objects of a backend, as a service recorded them for a scan that has not ended. Empty after a crash of the server.';
comment on column filestore.scan_entries.scan_id          is 'scans.id.';
comment on column filestore.scan_entries.size_bytes       is 'Size of the content in bytes; 0 for a directory.';
comment on column filestore.scan_entries.listed_at        is 'A moment before the service listed it.';
comment on column filestore.scan_entries.last_modified_at is 'When the backend says the content was last modified; null when unknown.';
comment on column filestore.scan_entries.depth            is 'Number of segments in the path of a directory; null for a file.';
comment on column filestore.scan_entries.is_implied       is 'Whether it was not recorded, but is a directory of recorded entries.';
comment on column filestore.scan_entries.kind             is 'file or directory.';
comment on column filestore.scan_entries.path             is 'Path below the root of the mount. Of a path that is too long for a node, the beginning and a digest.';
comment on column filestore.scan_entries.backend_identity is 'As in nodes; null when unknown.';
comment on column filestore.scan_entries.content_hash     is 'As in nodes; null when unknown.';
comment on column filestore.scan_entries.checksum         is 'As in nodes; null when unknown.';
comment on column filestore.scan_entries.storage_class    is 'As in nodes; null when unknown.';
comment on column filestore.scan_entries.link_target      is 'As in nodes; null for everything but a symbolic link.';
comment on column filestore.scan_entries.fault            is 'Why it cannot be a node: the reason of a refusal; null when it can.';
comment on constraint scan_entries_sound_check on filestore.scan_entries is 'Sizes, moments and texts are in the range of those of nodes.';
comment on index filestore.scan_entries_directories_idx is 'Directories of a scan, from the top down.';

create unlogged table if not exists filestore.scan_directories (
  scan_id    bigint  not null,
  depth      integer not null,
  path       text    collate "C" not null,
  node_id    bigint,
  from_path  text    collate "C",
  partner_id bigint,
  blocker_id bigint,
  is_held    boolean not null default false,
  is_shifted boolean not null default true,

  constraint scan_directories_pkey
    primary key (scan_id, path)
);

create index if not exists scan_directories_node_idx
  on filestore.scan_directories (scan_id, node_id)
  where node_id is not null;
create index if not exists scan_directories_partner_idx
  on filestore.scan_directories (scan_id, partner_id)
  where partner_id is not null;

comment on table  filestore.scan_directories            is 'While the changes of a scan are planned: the recorded directories that are new or elsewhere in the catalogue, and what is below them.';
comment on column filestore.scan_directories.scan_id    is 'scans.id.';
comment on column filestore.scan_directories.depth      is 'Number of segments in path.';
comment on column filestore.scan_directories.path       is 'scan_entries.path.';
comment on column filestore.scan_directories.node_id    is 'The node that is this directory; null when it is a new one.';
comment on column filestore.scan_directories.from_path  is 'Path of this node before the scan.';
comment on column filestore.scan_directories.partner_id is 'The only node that has the identity of the entry, and is not at its path.';
comment on column filestore.scan_directories.blocker_id is 'Another node that has to leave the path first.';
comment on column filestore.scan_directories.is_held    is 'Whether others wrote to the node with this identity, so that the directory is left alone.';
comment on column filestore.scan_directories.is_shifted is 'Whether this node is not the one that was at the path before.';
comment on index filestore.scan_directories_node_idx    is 'The place of a node after the scan.';
comment on index filestore.scan_directories_partner_idx is 'Whether a node has a place elsewhere.';

create unlogged table if not exists filestore.scan_changes (
  scan_id   bigint              not null,
  number    bigint              not null,
  node_id   bigint,
  kind      filestore.node_kind not null,
  action    text                collate "C" not null,
  path      text                collate "C" not null,
  from_path text                collate "C",

  constraint scan_changes_pkey
    primary key (scan_id, number)
);

create index if not exists scan_changes_node_idx
  on filestore.scan_changes (scan_id, node_id)
  where node_id is not null;

comment on table  filestore.scan_changes           is 'The planned changes of a scan that has not ended, in the order in which they are applied. Empty after a crash of the server.';
comment on column filestore.scan_changes.scan_id   is 'scans.id.';
comment on column filestore.scan_changes.number    is 'Place in the order; not contiguous.';
comment on column filestore.scan_changes.node_id   is 'The node; null for one that will be created.';
comment on column filestore.scan_changes.kind      is 'file or directory.';
comment on column filestore.scan_changes.action    is 'create, move, change, missing, delete or skip.';
comment on column filestore.scan_changes.path      is 'Path after the scan.';
comment on column filestore.scan_changes.from_path is 'Path before the scan; null for a node that will be created.';
comment on index filestore.scan_changes_node_idx is 'The planned changes of a node.';

create unlogged table if not exists filestore.scan_sightings (
  scan_id  bigint         not null,
  number   bigint         not null,
  moment   timestamptz(3) not null,
  node_ids bigint[]       not null,

  constraint scan_sightings_pkey
    primary key (scan_id, number)
);

-- Compressing ten thousand ids takes longer than recording their sightings.
alter table filestore.scan_sightings alter column node_ids set storage external;

comment on table  filestore.scan_sightings          is 'The nodes that a scan found, until their sightings are recorded: at most 10,000 in a row.';
comment on column filestore.scan_sightings.scan_id  is 'scans.id.';
comment on column filestore.scan_sightings.number   is 'Place in the order; not contiguous.';
comment on column filestore.scan_sightings.moment   is 'When they were listed.';
comment on column filestore.scan_sightings.node_ids is 'The nodes, in order of id.';

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
    raise exception 'the entries of scan % are lost, since the server crashed', scan_id
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
--! Included functions/end_scan.sql
create or replace function filestore.end_scan(scan filestore.scans, new_state text)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from filestore.scan_entries e
  where e.scan_id = scan.id;
  delete from filestore.scan_directories d
  where d.scan_id = scan.id;
  delete from filestore.scan_changes c
  where c.scan_id = scan.id;
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
  begin
    select *
    into scan
    from filestore.scans s
    where s.id = lock_scan.scan_id
    for no key update nowait;
  exception
    when lock_not_available then
      raise exception 'another call works on scan %', scan_id
        using errcode    = 'FS409',
              constraint = 'scans_busy',
              hint       = 'Let one worker apply the scan, after all entries are recorded. Repeat the call if that one ended.';
  end;
  if scan.state = 'finished' then
    return scan;
  elsif scan.id is null
     or scan.ended_at is not null
     or not exists (select from filestore.scan_entries e where e.scan_id = scan.id and e.path = scan.path) then
    perform filestore.refuse_scan(lock_scan.scan_id);
  end if;
  perform filestore.check_scanned_mount(scan.backend_mount_id);
  if not exists (select from filestore.nodes n where n.id = scan.top_id and n.live and n.path = scan.path) then
    raise exception 'directory "%" of scan % was moved or deleted', scan.path, scan.id
      using errcode    = 'FS409',
            constraint = 'scans_top_moved',
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
  mount_key     text,
  path          text     default '',
  is_recursive  boolean  default true,
  pairs_content boolean  default false,
  principal     text     default null,
  expire_after  interval default '1 hour'
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
        or (coalesce(begin_scan.is_recursive, true) and (top.path = '' or starts_with(s.path, top.path || '/')))
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

  insert into filestore.scans (backend_mount_id, top_id, path, is_recursive, pairs_content, principal, expire_after_ms, expires_at)
  values (
    mount_id,
    top.id,
    top.path,
    coalesce(begin_scan.is_recursive, true),
    coalesce(begin_scan.pairs_content, false),
    begin_scan.principal,
    (extract(epoch from begin_scan.expire_after) * 1000)::bigint,
    clock_timestamp() + begin_scan.expire_after
  )
  returning * into scan;
  -- While this entry is there, the server has not lost the others.
  insert into filestore.scan_entries (scan_id, path, depth, kind, size_bytes, listed_at, is_implied)
  values (scan.id, scan.path, top.depth, 'directory', 0, scan.began_at, true);
  return scan;
end
$$;

comment on function filestore.begin_scan(text, text, boolean, boolean, text, interval) is
  'Begins a scan of a mount, of a directory with everything below it, or of the nodes in one directory (is_recursive false), and returns it. List the backend after this call. Creates the directory if it is not in the catalogue. With pairs_content, files without an identity are paired by content hash and size. The scan expires expire_after its last call. FS404 when the mount does not exist, FS409 when another scan covers a part of it, or when the mount moves or is being erased.';

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
  select *
  into scan
  from filestore.scans s
  where s.id = cancel_scan.scan_id
  for no key update;
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
    for no key update skip locked
  loop
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
  -- A mount takes its scans along, but not their entries. Each scan is one lookup, however many entries it has.
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
--! Included functions/check_entries.sql
create or replace function filestore.check_entries(entries jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  fields constant text[] := '{path,kind,size_bytes,last_modified_at,backend_identity,content_hash,checksum,storage_class,link_target}';
  given  record;
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

  select e.position, e.value
  into given
  from jsonb_array_elements(entries) with ordinality as e (value, position)
  where jsonb_typeof(e.value) <> 'object'
     or jsonb_typeof(e.value -> 'path') is distinct from 'string'
     or e.value ->> 'path' in ('', '/')
     or e.value - fields <> '{}'
  order by e.position
  limit 1;
  if found then
    raise exception 'entry % %', given.position, case
      when jsonb_typeof(given.value) <> 'object' then format('is of type %s, not an object', jsonb_typeof(given.value))
      when jsonb_typeof(given.value -> 'path') is distinct from 'string' then 'has no path that is a string'
      when given.value ->> 'path' in ('', '/') then 'has an empty path'
      else format('has the field "%s"', left((select min(k.name) from jsonb_object_keys(given.value - fields) as k (name)), 40))
    end
      using errcode    = 'FS422',
            constraint = 'scan_entries_batch_check',
            hint       = format('Give an object with only these fields: %s.', array_to_string(fields, ', '));
  end if;
end
$$;

comment on function filestore.check_entries(jsonb) is
  'Internal: Raises FS422 when entries are not an array of at most 10000 objects with known fields.';

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
        'A symbolic link is a file.'
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
            constraint = 'scan_entries_twice_check',
            hint       = 'Give each path once in a call. Nothing was recorded.';
  end if;
end
$$;

comment on function filestore.refuse_entries(jsonb) is
  'Internal: Raises FS422 for the first entry of a batch that is not well formed or given twice, and names its position. Returns when there is none.';

revoke all on function filestore.refuse_entries(jsonb) from public;
--! EndIncluded functions/refuse_entries.sql
--! Included functions/add_implied_directories.sql
create or replace function filestore.add_implied_directories(scan filestore.scans, paths text[], moment timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  stray text;
begin
  -- From the bottom up: the directory above a recorded one is recorded too.
  while cardinality(paths) > 0 loop
    select e.path
    into stray
    from filestore.scan_entries e
    where e.scan_id = scan.id
      and e.path = any (paths)
      and e.kind = 'file'
    limit 1;
    if found then
      raise exception 'entry "%" is a file, and other entries are below it', left(stray, 200)
        using errcode    = 'FS422',
              constraint = 'scan_entries_kind_check',
              hint       = 'If a path changed its kind while you listed it, cancel the scan and scan again. Nothing was recorded.';
    end if;

    with added as (
      insert into filestore.scan_entries (scan_id, path, depth, kind, size_bytes, listed_at, is_implied)
      select scan.id, p.path, cardinality(string_to_array(p.path, '/')), 'directory', 0, moment, true
      from unnest(paths) as p (path)
      where p.path <> scan.path
      order by p.path
      on conflict do nothing
      returning path
    )
    select array_agg(distinct left(a.path, -strpos(reverse(a.path), '/')))
    into paths
    from added a;
  end loop;
end
$$;

comment on function filestore.add_implied_directories(filestore.scans, text[], timestamptz) is
  'Internal: Records the directories of entries, if they are not recorded yet, and those above them. FS422 when one of them is a file.';

revoke all on function filestore.add_implied_directories(filestore.scans, text[], timestamptz) from public;
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
      prefix || case when r.kind = 'directory' and right(r.path, 1) = '/' then left(r.path, -1) else r.path end as path,
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
create or replace function filestore.add_entries(scan filestore.scans, entries jsonb, directory text, moment timestamptz)
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
  parents   text[];
begin
  for attempt in 1..2 loop
    begin
      with added_entries as (
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
          case when g.kind = 'directory' then 0 else coalesce(g.size_bytes, 0) end,
          moment,
          g.last_modified_at,
          case when g.kind = 'directory' then levels + cardinality(string_to_array(g.own_path, '/')) end,
          coalesce(g.kind, 'file'),
          case when g.fault = 'nodes_path_length_check' then left(g.path, 400) || '... ' || md5(g.path) else g.path end,
          g.backend_identity,
          g.content_hash,
          case
            when g.checksum is null then null
            when octet_length(g.checksum) = 71 and starts_with(g.checksum, 'sha256:') and g.checksum = lower(g.checksum) then g.checksum
            else filestore.canonical_checksum(g.checksum)
          end,
          g.storage_class,
          g.link_target,
          g.fault
        from (
          select
            o.*,
            prefix || o.own_path as path,
            -- Most paths are short and plain. One expression proves it sooner than a look at each segment.
            case
              when octet_length(o.own_path) > 200
                or octet_length(prefix) > 2000
                or o.own_path ~ E'(^|/)\\.{0,2}(/|$)|[\\u0001-\\u001f\\u007f-\\u009f]'
                then filestore.scan_path_fault(prefix || o.own_path, is_local)
            end as fault
          from (
            -- S3 lists a directory with a slash at its end.
            select case when r.kind = 'directory' and right(r.path, 1) = '/' then left(r.path, -1) else r.path end as own_path, r.*
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
          ) o (own_path, given_path, kind, size_bytes, last_modified_at, backend_identity, content_hash, checksum, storage_class, link_target)
        ) g
        returning scan_entries.path, scan_entries.fault
      )
      select
        (select count(*) from added_entries),
        array(select distinct left(a.path, -strpos(reverse(a.path), '/')) from added_entries a where a.fault is null)
      into added, parents;
      exit;
    exception
      when unique_violation then
        -- Some of them are recorded already. An insert that expects it would cost half as much again for all others.
        if attempt = 2 then
          perform filestore.refuse_entries(entries);
          raise;
        end if;
        perform filestore.remove_entries(scan, entries, prefix);
      when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
        perform filestore.refuse_entries(entries);
        raise;
    end;
  end loop;
  perform filestore.add_implied_directories(scan, parents, moment);
  return added;
end
$$;

comment on function filestore.add_entries(filestore.scans, jsonb, text, timestamptz) is
  'Internal: Records entries of a scan, whose paths are below a directory, and the directories that they imply. Returns how many. An entry that is already recorded is replaced. FS422 when one is not well formed.';

revoke all on function filestore.add_entries(filestore.scans, jsonb, text, timestamptz) from public;
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
  scan  filestore.scans;
  place text;
begin
  perform filestore.check_entries(entries);
  -- Before the shared lock below: several callers may record entries at the same time.
  update filestore.scans s
  set expires_at = clock_timestamp() + s.expire_after_ms * interval '1 millisecond'
  where s.id = record_entries.scan_id
    and s.expires_at < clock_timestamp() + s.expire_after_ms * interval '0.75 milliseconds'
    and s.ended_at is null;
  select *
  into scan
  from filestore.scans s
  where s.id = record_entries.scan_id
  for share;
  if scan.state is distinct from 'recording'
     or not exists (select from filestore.scan_entries e where e.scan_id = scan.id and e.path = scan.path) then
    perform filestore.refuse_scan(record_entries.scan_id);
  end if;
  perform filestore.check_scanned_mount(scan.backend_mount_id);

  if not coalesce(record_entries.listed_at between scan.began_at and clock_timestamp(), true) then
    raise exception 'entries cannot be listed at %', record_entries.listed_at
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
    raise exception 'the directory of the entries is %', coalesce(format('"%s"', left(directory, 200)), 'null')
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
            hint       = 'Give the names of the entries in the directory, or begin a scan with is_recursive. Nothing was recorded.';
  end if;
  return filestore.add_entries(scan, entries, place, coalesce(record_entries.listed_at, scan.began_at));
end
$$;

comment on function filestore.record_entries(bigint, jsonb, text, timestamptz) is
  'Records at most 10000 entries of a scan, a JSON array of objects with path, below the scanned directory or below a directory in it, and optionally kind (file by default), size_bytes, last_modified_at, backend_identity, content_hash, checksum, storage_class and link_target. Returns how many. An entry that was recorded before is replaced, so a call can be repeated. listed_at is a moment before they were listed; null for the beginning of the scan. Entries that cannot be nodes because of their names are counted as refused. FS404 when there is no such scan, FS409 when it takes no entries, FS422 when one of them is not well formed; nothing is recorded then.';

revoke all on function filestore.record_entries(bigint, jsonb, text, timestamptz) from public;
--! EndIncluded functions/record_entries.sql
--! Included functions/is_written_since.sql
create or replace function filestore.is_written_since(node_id bigint, moment timestamptz, entry_ids bigint[])
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
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
--! Included functions/find_partners.sql
create or replace function filestore.find_partners(scan filestore.scans)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
set plan_cache_mode = force_custom_plan
as $$
declare
  -- The paths below the scanned directory are those from path || '/' up to path || '0', since '0' follows '/'. For the root,
  -- the upper bound is longer than any path (2600 bytes) and consists of the last character, U+10FFFF.
  lower_path constant text    := case when scan.path = '' then '' else scan.path || '/' end;
  upper_path constant text    := case when scan.path = '' then repeat(chr(1114111), 651) else scan.path || '0' end;
  longest    integer;
begin
  -- A node at its own path is no partner. Nodes outside of the scan are partners only when they are missing: an
  -- object that another scan saw may have several paths.
  with wanted as materialized (
    select d.path, e.backend_identity, e.listed_at
    from filestore.scan_directories d
    join filestore.scan_entries e on e.scan_id = d.scan_id and e.path = d.path
    where d.scan_id = scan.id
      and e.backend_identity is not null
  ),
  strays as materialized (
    select n.id, n.path, n.backend_identity, n.updated_at
    from (
      select n.id, n.path, n.backend_identity, n.updated_at
      from filestore.nodes n
      where scan.is_recursive
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > lower_path
        and n.path < upper_path
        and n.directory_path is not null
        and n.backend_identity is not null
      union all
      select n.id, n.path, n.backend_identity, n.updated_at
      from filestore.nodes n
      where not scan.is_recursive
        and n.parent_id = scan.top_id
        and n.parent_live is not null
        and n.directory_path is not null
        and n.backend_identity is not null
    ) n
    left join filestore.scan_entries e on e.scan_id = scan.id and e.path = n.path and e.kind = 'directory' and e.fault is null
    where e.path is null
       or e.backend_identity <> n.backend_identity
    union all
    select o.id, o.path, o.backend_identity, o.updated_at
    from wanted w
    cross join lateral (
      select n.id, n.path, n.parent_id, n.backend_identity, n.updated_at
      from filestore.nodes n
      where hashtextextended(n.backend_identity, 0) = hashtextextended(w.backend_identity, 0)
        and n.backend_identity is not null
        and n.backend_identity = w.backend_identity
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.directory_path is not null
        and (n.state = 'missing' or n.updated_at >= w.listed_at)
      offset 0
    ) o
    -- A scan of everything has no nodes outside.
    where (scan.path <> '' or not scan.is_recursive)
      and not case when scan.is_recursive then o.path > lower_path and o.path < upper_path else o.parent_id = scan.top_id end
      and not starts_with(scan.path || '/', o.path || '/')
  ),
  pairs as (
    select w.path, s.id, s.path as from_path,
           s.updated_at >= w.listed_at and filestore.is_written_since(s.id, w.listed_at, scan.journal_entry_ids) as is_held
    from (
      select min(a.path) as path, a.backend_identity, min(a.listed_at) as listed_at
      from wanted a
      group by a.backend_identity
      having count(*) = 1
    ) w
    join (
      select min(b.id) as id, min(b.path) as path, b.backend_identity, max(b.updated_at) as updated_at
      from strays b
      group by b.backend_identity
      having count(*) = 1
    ) s on s.backend_identity = w.backend_identity
  )
  update filestore.scan_directories d
  set partner_id = case when not p.is_held then p.id end,
      from_path  = p.from_path,
      is_held    = p.is_held
  from pairs p
  where d.scan_id = scan.id
    and d.path = p.path;

  -- A directory does not move if a path below it would become too long. Then its nodes move one by one.
  select max(octet_length(d.path) - octet_length(d.from_path))
  into longest
  from filestore.scan_directories d
  where d.scan_id = scan.id
    and d.partner_id is not null;
  if coalesce(longest, 0) <= 0 or not exists (
    select
    from filestore.nodes n
    where n.backend_mount_id = scan.backend_mount_id
      and n.live
      and octet_length(n.path) > 2600 - longest
  ) then
    return;
  end if;
  update filestore.scan_directories d
  set partner_id = null
  where d.scan_id = scan.id
    and d.partner_id is not null
    and exists (
      select
      from filestore.nodes n
      where n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > d.from_path || '/'
        and n.path < d.from_path || '0'
        and octet_length(n.path) + octet_length(d.path) - octet_length(d.from_path) > 2600
    );
end
$$;

comment on function filestore.find_partners(filestore.scans) is
  'Internal: Finds, for the directories of a scan that are not at their path in the catalogue, the node with the same identity, if it is the only one and no other entry has the identity.';

revoke all on function filestore.find_partners(filestore.scans) from public;
--! EndIncluded functions/find_partners.sql
--! Included functions/place_directories.sql
create or replace function filestore.place_directories(scan filestore.scans)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  level   integer;
  deepest integer;
begin
  select min(d.depth)
  into level
  from filestore.scan_directories d
  where d.scan_id = scan.id;
  select max(e.depth)
  into deepest
  from filestore.scan_entries e
  where e.scan_id = scan.id
    and e.kind = 'directory'
    and e.fault is null;

  -- From the top down, since the place of a directory follows from the one above it.
  while level <= deepest loop
    insert into filestore.scan_directories (scan_id, depth, path)
    select e.scan_id, e.depth, e.path
    from filestore.scan_entries e
    join filestore.scan_directories p
      on p.scan_id = e.scan_id
     and p.path = left(e.path, -strpos(reverse(e.path), '/'))
     and p.is_shifted
    where e.scan_id = scan.id
      and e.kind = 'directory'
      and e.depth = level
      and e.fault is null
    on conflict do nothing;

    update filestore.scan_directories d
    set node_id    = c.chosen_id,
        from_path  = f.path,
        blocker_id = case when c.occupant_id <> coalesce(c.chosen_id, 0) then c.occupant_id end,
        is_held    = c.is_held,
        is_shifted = f.path is distinct from d.path
    from (
      select
        w.path,
        w.is_held,
        o.id as occupant_id,
        case
          when w.is_held then null
          -- Path before identity, unless the node at the path has a place elsewhere.
          when o.id is not null and (o.id = w.partner_id or not exists (
            select
            from filestore.scan_directories a
            where a.scan_id = scan.id
              and a.partner_id = o.id
          )) then o.id
          else w.partner_id
        end as chosen_id
      from (
        select
          t.path,
          t.partner_id,
          t.is_held or coalesce(p.is_held, false) as is_held,
          case
            when p.path is not null then p.node_id
            else (
              select n.id
              from filestore.nodes n
              where n.backend_mount_id = scan.backend_mount_id
                and n.path = left(t.path, -strpos(reverse(t.path), '/'))
                and n.live
                and n.directory_path is not null
            )
          end as parent_id
        from filestore.scan_directories t
        left join filestore.scan_directories p
          on p.scan_id = t.scan_id
         and p.path = left(t.path, -strpos(reverse(t.path), '/'))
        where t.scan_id = scan.id
          and t.depth = level
      ) w
      left join lateral (
        select n.id
        from filestore.nodes n
        where n.parent_id = w.parent_id
          and n.name = right(w.path, strpos(reverse('/' || w.path), '/') - 1)
          and n.parent_live
          and n.directory_path is not null
        offset 0
      ) o on true
    ) c
    left join lateral (
      select n.path
      from filestore.nodes n
      where n.id = c.chosen_id
      -- "Offset 0" keeps this a lookup.
      offset 0
    ) f on true
    where d.scan_id = scan.id
      and d.path = c.path;

    level := level + 1;
    if not exists (
      select
      from filestore.scan_directories d
      where d.scan_id = scan.id
        and d.depth >= level - case when d.is_shifted then 1 else 0 end
    ) then
      return;
    end if;
  end loop;
end
$$;

comment on function filestore.place_directories(filestore.scans) is
  'Internal: Decides which node each recorded directory is, if that is not the one at its path or there is none, and which are new.';

revoke all on function filestore.place_directories(filestore.scans) from public;
--! EndIncluded functions/place_directories.sql
--! Included functions/plan_lost_directories.sql
create or replace function filestore.plan_lost_directories(scan filestore.scans, base bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
set plan_cache_mode = force_custom_plan
as $$
declare
  -- The paths below the scanned directory are those from path || '/' up to path || '0', since '0' follows '/'. For the root,
  -- the upper bound is longer than any path (2600 bytes) and consists of the last character, U+10FFFF.
  lower_path constant text    := case when scan.path = '' then '' else scan.path || '/' end;
  upper_path constant text    := case when scan.path = '' then repeat(chr(1114111), 651) else scan.path || '0' end;
begin
  with recursive lost as materialized (
    select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at
    from (
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at
      from filestore.nodes n
      where scan.is_recursive
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > lower_path
        and n.path < upper_path
        and n.directory_path is not null
      union all
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at
      from filestore.nodes n
      where not scan.is_recursive
        and n.parent_id = scan.top_id
        and n.parent_live is not null
        and n.directory_path is not null
    ) n
    left join filestore.scan_entries e on e.scan_id = scan.id and e.path = n.path and e.kind = 'directory' and e.fault is null
    left join filestore.scan_directories d on d.scan_id = scan.id and d.path = n.path
    where (e.path is null or (d.path is not null and d.node_id is distinct from n.id))
      and not exists (select from filestore.scan_directories a where a.scan_id = scan.id and a.node_id = n.id)
  ),
  placed as (
    select l.*, case when a.path is null then l.path else filestore.child_path(a.path, l.name) end as final_path,
            false as is_below_deleted
    from lost l
    left join filestore.scan_directories a on a.scan_id = scan.id and a.node_id = l.parent_id and a.is_shifted
    where not exists (select from lost p where p.id = l.parent_id)
    union all
    select l.*, p.final_path || '/' || l.name, p.is_below_deleted or exists (
      select from filestore.scan_entries e where e.scan_id = scan.id and e.path = p.final_path and e.fault is null
    )
    from placed p
    join lost l on l.parent_id = p.id
  ),
  decided as (
    select
      p.*,
      case
        when p.is_held or (p.updated_at >= scan.began_at and filestore.is_written_since(p.id, scan.began_at, scan.journal_entry_ids)) then 'skip'
        when not p.is_taken then case when p.state = 'missing' then 'keep' else 'missing' end
        -- Something else has its path now. It stays if others wrote to nodes below it.
        when exists (
          select
          from filestore.nodes n
          where n.backend_mount_id = scan.backend_mount_id
            and n.live
            and n.path > p.path || '/'
            and n.path < p.path || '0'
            and n.updated_at >= scan.began_at
            and filestore.is_written_since(n.id, scan.began_at, scan.journal_entry_ids)
        ) then 'skip'
        else 'delete'
      end as action
    from (
      select
        q.*,
        q.is_below_deleted or exists (
          select from filestore.scan_entries e where e.scan_id = scan.id and e.path = q.final_path and e.fault is null
        ) as is_taken,
        exists (select from filestore.scan_directories h where h.scan_id = scan.id and h.path = q.final_path and h.is_held) as is_held
      from placed q
    ) p
  )
  insert into filestore.scan_changes (scan_id, number, node_id, kind, action, path, from_path)
  select
    scan.id,
    base + case d.action when 'delete' then 4 when 'missing' then 7 else 9 end * 1000000000000
      + row_number() over (order by d.path desc),
    d.id,
    'directory',
    d.action,
    d.final_path,
    d.path
  from decided d;
end
$$;

comment on function filestore.plan_lost_directories(filestore.scans, bigint) is
  'Internal: Plans for the directories that a scan did not find: to be marked as missing, or to be deleted if something else has their path.';

revoke all on function filestore.plan_lost_directories(filestore.scans, bigint) from public;
--! EndIncluded functions/plan_lost_directories.sql
--! Included functions/plan_files.sql
create or replace function filestore.plan_files(scan filestore.scans, base bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
set plan_cache_mode = force_custom_plan
set work_mem = '64MB'
as $$
declare
  -- The paths below the scanned directory are those from path || '/' up to path || '0', since '0' follows '/'. For the root,
  -- the upper bound is longer than any path (2600 bytes) and consists of the last character, U+10FFFF.
  lower_path constant text    := case when scan.path = '' then '' else scan.path || '/' end;
  upper_path constant text    := case when scan.path = '' then repeat(chr(1114111), 651) else scan.path || '0' end;
begin
  with recursive places as materialized (
    select d.node_id, d.path, false as is_deleted
    from filestore.scan_directories d
    where d.scan_id = scan.id
      and d.node_id is not null
      and d.is_shifted
    union all
    select c.node_id, null, c.action = 'delete'
    from filestore.scan_changes c
    where c.scan_id = scan.id
      and c.number > base
  ),
  files as (
    select n.*, case when p.node_id is null then n.path else filestore.child_path(p.path, n.name) end as final_path,
            coalesce(p.is_deleted, false) as is_below_deleted
    from (
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity,
              n.content_hash, n.checksum, n.storage_class, n.created_at
      from filestore.nodes n
      where scan.is_recursive
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > lower_path
        and n.path < upper_path
        and n.directory_path is null
      union all
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity,
              n.content_hash, n.checksum, n.storage_class, n.created_at
      from filestore.nodes n
      where not scan.is_recursive
        and n.parent_id = scan.top_id
        and n.parent_live is not null
        and n.directory_path is null
    ) n
    left join places p on p.node_id = n.parent_id
    union all
    -- Files below directories that come from outside of the scan.
    select n.*, filestore.child_path(d.path, n.name), false
    from filestore.scan_directories d
    cross join lateral (
      select n.id, n.parent_id, n.name, n.path, n.state, n.updated_at, n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity,
        n.content_hash, n.checksum, n.storage_class, n.created_at
      from filestore.nodes n
      where n.parent_id = d.node_id
        and n.parent_live is not null
        and n.directory_path is null
      offset 0
    ) n
    where scan.is_recursive
      and scan.path <> ''
      and d.scan_id = scan.id
      and d.is_shifted
      and not (n.path > lower_path and n.path < upper_path)
  ),
  -- Most rows are equal, so that only their ids are kept.
  compared as materialized (
    select
      c.id,
      c.listed_at,
      c.is_equal and (c.updated_at < c.listed_at or not filestore.is_written_since(c.id, c.listed_at, scan.journal_entry_ids)) as is_seen,
      not c.is_equal as differs,
      case when not c.is_equal then c.path end as path,
      case when not c.is_equal then c.from_path end as from_path,
      case when not c.is_equal then c.final_path end as final_path,
      case when not c.is_equal then c.state end as state,
      case when not c.is_equal then c.updated_at end as updated_at,
      c.is_below_deleted,
      c.entry_key,
      c.node_key
    from (
      select
        e.path,
        e.listed_at,
        n.id,
        n.path as from_path,
        n.final_path,
        n.state,
        n.updated_at,
        n.is_below_deleted,
        e.path is not null
          and n.id is not null
          and n.state <> 'missing'
          and (n.size_bytes, n.last_modified_at, n.link_target, n.backend_identity, n.content_hash, n.checksum, n.storage_class)
            is not distinct from (
              e.size_bytes,
              coalesce(e.last_modified_at, n.last_modified_at),
              e.link_target,
              coalesce(e.backend_identity, n.backend_identity),
              coalesce(e.content_hash, n.content_hash),
              coalesce(e.checksum, n.checksum),
              coalesce(e.storage_class, n.storage_class)
            ) as is_equal,
        -- A file that an earlier plan of the scan has created counts, so that its twins stay ambiguous.
        case when (e.backend_identity <> n.backend_identity) is true or n.id is null or n.created_at >= scan.began_at then
          coalesce(
            'i' || e.backend_identity,
            case when n.id is null and scan.pairs_content and e.size_bytes > 0 then e.size_bytes || ' ' || e.content_hash end
          )
        end as entry_key,
        case when (e.backend_identity <> n.backend_identity) is true or e.path is null then
          coalesce(
            'i' || n.backend_identity,
            case when e.path is null and scan.pairs_content and n.size_bytes > 0 then n.size_bytes || ' ' || n.content_hash end
          )
        end as node_key
      from (
        select g.path, g.listed_at, g.size_bytes, g.last_modified_at, g.link_target, g.backend_identity, g.content_hash, g.checksum, g.storage_class
        from filestore.scan_entries g
        where g.scan_id = scan.id
          and g.kind = 'file'
          and g.fault is null
      ) e
      full join files n on n.final_path = e.path
      -- "Offset 0": the comparison would be evaluated for each of its uses.
      offset 0
    ) c
  ),
  found_nodes as (
    insert into filestore.scan_sightings (scan_id, number, moment, node_ids)
    select scan.id, base + 100000000000 + row_number() over (), p.listed_at, p.node_ids
    from (
      select s.listed_at, array_agg(s.id order by s.id) as node_ids
      from (
        select c.id, c.listed_at, (row_number() over (partition by c.listed_at order by c.id) - 1) / 10000 as part
        from compared c
        where c.is_seen
      ) s
      group by s.listed_at, s.part
    ) p
  ),
  diff as materialized (
    select c.*
    from compared c
    where c.differs
  ),
  wanted as materialized (
    select min(c.path) as path, c.entry_key as key, min(c.listed_at) as listed_at
    from compared c
    where c.entry_key is not null
    group by c.entry_key
    having count(*) = 1
  ),
  strays as (
    select d.id, d.from_path, d.node_key as key, d.updated_at
    from diff d
    where d.node_key is not null
    union all
    select o.id, o.path, w.key, o.updated_at
    from wanted w
    cross join lateral (
      select n.id, n.path, n.parent_id, n.updated_at
      from filestore.nodes n
      where hashtextextended(n.backend_identity, 0) = hashtextextended(substr(w.key, 2), 0)
        and n.backend_identity is not null
        and n.backend_identity = substr(w.key, 2)
        and n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.directory_path is null
        and (n.state = 'missing' or n.updated_at >= w.listed_at)
      offset 0
    ) o
    -- A scan of everything has no nodes outside.
    where (scan.path <> '' or not scan.is_recursive)
      and starts_with(w.key, 'i')
      and not case when scan.is_recursive then o.path > lower_path and o.path < upper_path else o.parent_id = scan.top_id end
      and not exists (select from places p where p.node_id = o.parent_id)
  ),
  pairs as materialized (
    select w.path, s.id, s.from_path,
            s.updated_at >= w.listed_at and filestore.is_written_since(s.id, w.listed_at, scan.journal_entry_ids) as is_held
    from wanted w
    join (
      select min(t.id) as id, min(t.from_path) as from_path, t.key, max(t.updated_at) as updated_at
      from strays t
      group by t.key
      having count(*) = 1
    ) s on s.key = w.key
  ),
  -- Paths that others left since the scan began.
  vacated as materialized (
    select s.path, max(s.valid_to) as left_at
    from filestore.snapshots s
    where s.valid_to >= scan.began_at
      and s.backend_mount_id = scan.backend_mount_id
      and s.live
      and (s.superseded_by_journal_id = any (scan.journal_entry_ids)) is not true
    group by s.path
  ),
  decided as materialized (
    select
      d.*,
      mine.id as partner_id,
      mine.from_path as partner_path,
      theirs.id is not null as is_leaving,
      case
        when d.path is null then null
        when h.path is not null then 'skip'
        when d.id is not null and theirs.id is null then
          case when d.updated_at >= d.listed_at and filestore.is_written_since(d.id, d.listed_at, scan.journal_entry_ids) then 'skip' else 'change' end
        when mine.is_held then 'skip'
        when d.id is null and v.left_at >= d.listed_at then 'skip'
        when mine.id is not null then 'move'
        else 'create'
      end as action
    from diff d
    left join pairs mine on mine.path = d.path
    left join pairs theirs on theirs.id = d.id and not theirs.is_held
    left join vacated v on v.path = d.path
    left join filestore.scan_directories h
      on h.scan_id = scan.id
      and h.path = left(d.path, -strpos(reverse(d.path), '/'))
      and h.is_held
  ),
  moves as materialized (
    select d.partner_id as id, d.path, d.id as blocker_id
    from decided d
    where d.action = 'move'
  ),
  -- In a chain, the last one moves first. Those in a circle have no rank.
  ranked as (
    select m.id, 0 as rank
    from moves m
    where not exists (select from moves b where b.id = m.blocker_id)
    union all
    select m.id, r.rank + 1
    from ranked r
    join moves m on m.blocker_id = r.id
  ),
  lost as (
    select
      d.id,
      d.final_path,
      d.from_path,
      case
        when d.action = 'skip' or (d.updated_at >= scan.began_at and filestore.is_written_since(d.id, scan.began_at, scan.journal_entry_ids)) then 'skip'
        when d.is_below_deleted or d.path is not null or t.path is not null then 'delete'
        when d.state <> 'missing' then 'missing'
      end as action
    from decided d
    left join (
      select e.path
      from filestore.scan_entries e
      left join filestore.scan_directories h on h.scan_id = scan.id and h.path = e.path
      where e.scan_id = scan.id
        and e.kind = 'directory'
        and e.fault is null
        and h.is_held is not true
    ) t on t.path = d.final_path
    where d.id is not null
      and (d.path is null or d.is_leaving)
      and not exists (select from moves m where m.id = d.id)
  ),
  changes as (
    select case d.action when 'create' then 5 when 'change' then 6 when 'move' then 3 else 9 end as step,
            case when d.action = 'move' then coalesce(r.rank, 1000000000) else 0 end as rank,
            d.action, d.path,
            case d.action when 'move' then d.partner_id when 'create' then null else d.id end as node_id,
            case d.action when 'move' then d.partner_path when 'create' then null else d.from_path end as from_path
    from decided d
    left join ranked r on r.id = d.partner_id and d.action = 'move'
    where d.action is not null
    union all
    select case l.action when 'delete' then 1 when 'missing' then 7 else 9 end, 0, l.action, coalesce(l.final_path, l.from_path), l.id, l.from_path
    from lost l
    where l.action is not null
  )
  insert into filestore.scan_changes (scan_id, number, node_id, kind, action, path, from_path)
  select
    scan.id,
    base + c.step * 1000000000000 + 100000000000 + row_number() over (order by c.step, c.rank, c.path),
    c.node_id,
    'file',
    c.action,
    c.path,
    c.from_path
  from changes c;
end
$$;

comment on function filestore.plan_files(filestore.scans, bigint) is
  'Internal: Compares the files of a scan with those of the catalogue, at the places that they have when their directories have moved, and plans what to create, move, change, delete and mark as missing.';

revoke all on function filestore.plan_files(filestore.scans, bigint) from public;
--! EndIncluded functions/plan_files.sql
--! Included functions/plan_directories.sql
create or replace function filestore.plan_directories(scan filestore.scans, base bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
as $$
begin
  with recursive moves as materialized (
    select d.depth, d.path, d.node_id, d.from_path, d.blocker_id
    from filestore.scan_directories d
    -- Lookups: a join could read all nodes for a scan of one directory.
    cross join lateral (
      select o.parent_id, o.parent_path, o.name
      from filestore.nodes o
      where o.id = d.node_id
      offset 0
    ) n
    left join filestore.scan_directories p on p.scan_id = d.scan_id and p.node_id = n.parent_id and p.is_shifted
    where d.scan_id = scan.id
      and d.is_shifted
      -- The others are where they belong as soon as the directories above them are.
      and filestore.child_path(coalesce(p.path, n.parent_path), n.name) <> d.path
  ),
  -- In a chain, the last one moves first. Those in a circle have no rank.
  ranked as (
    select m.node_id, m.depth, 0 as rank
    from moves m
    where not exists (select from moves b where b.node_id = m.blocker_id and b.depth = m.depth)
    union all
    select m.node_id, m.depth, r.rank + 1
    from ranked r
    join moves m on m.blocker_id = r.node_id and m.depth = r.depth
  ),
  placed as (
    select m.depth, 'move' as action, coalesce(r.rank, 1000000000) as rank, m.path, m.node_id, m.from_path
    from moves m
    left join ranked r on r.node_id = m.node_id
    union all
    select d.depth, 'create', 2000000000, d.path, null, null
    from filestore.scan_directories d
    where d.scan_id = scan.id
      and d.node_id is null
      and not d.is_held
  )
  insert into filestore.scan_changes (scan_id, number, node_id, kind, action, path, from_path)
  select
    scan.id,
    base + 2000000000000 + row_number() over (order by p.depth, p.rank, p.path),
    p.node_id,
    'directory',
    p.action,
    p.path,
    p.from_path
  from placed p;

  with compared as materialized (
    select
      n.id,
      e.path,
      n.path as from_path,
      e.listed_at,
      n.updated_at >= e.listed_at and filestore.is_written_since(n.id, e.listed_at, scan.journal_entry_ids) as is_written,
      n.state = 'missing'
        or (e.last_modified_at is distinct from n.last_modified_at and e.last_modified_at is not null)
        or (e.backend_identity is distinct from n.backend_identity and e.backend_identity is not null) as differs
    from filestore.scan_entries e
    left join filestore.scan_directories d on d.scan_id = e.scan_id and d.path = e.path
    cross join lateral (
      select o.*
      from filestore.nodes o
      where o.backend_mount_id = scan.backend_mount_id
        and o.live
        and o.path = case when d.path is null then e.path else d.from_path end
      offset 0
    ) n
    where e.scan_id = scan.id
      and e.kind = 'directory'
      and e.fault is null
      and e.path <> scan.path
      and n.directory_path is not null
      and not exists (
        select
        from filestore.scan_changes c
        where c.scan_id = scan.id
          and c.node_id = n.id
          and c.number > base
          and c.action = 'move'
      )
  ),
  found_nodes as (
    insert into filestore.scan_sightings (scan_id, number, moment, node_ids)
    select scan.id, base + 200000000000 + row_number() over (), p.listed_at, p.node_ids
    from (
      select s.listed_at, array_agg(s.id order by s.id) as node_ids
      from (
        select c.id, c.listed_at, (row_number() over (partition by c.listed_at order by c.id) - 1) / 10000 as part
        from compared c
        where not c.differs
          and not c.is_written
      ) s
      group by s.listed_at, s.part
    ) p
  )
  insert into filestore.scan_changes (scan_id, number, node_id, kind, action, path, from_path)
  select
    scan.id,
    base + case when c.is_written then 9 else 6 end * 1000000000000 + 500000000000 + row_number() over (order by c.path),
    c.id,
    'directory',
    case when c.is_written then 'skip' else 'change' end,
    c.path,
    c.from_path
  from compared c
  where c.differs;
end
$$;

comment on function filestore.plan_directories(filestore.scans, bigint) is
  'Internal: Plans the moves and creates of directories that filestore.place_directories decided, from the top down, and the changes of directories.';

revoke all on function filestore.plan_directories(filestore.scans, bigint) from public;
--! EndIncluded functions/plan_directories.sql
--! Included functions/plan_scan.sql
create or replace function filestore.plan_scan(scan filestore.scans)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
as $$
declare
  -- A number has the plan, the step (two digits) and the place in it (twelve digits). So all changes of a plan come after those
  -- of an earlier one. Steps: 1 deletes of files, 2 directories from the top down, 3 moves of files, 4 deletes of directories,
  -- 5 creates of files, 6 changes, 7 what is missing, 9 what is left alone.
  base constant bigint := (scan.plans + 1) * 100000000000000;
begin
  delete from filestore.scan_directories d
  where d.scan_id = scan.id;
  delete from filestore.scan_changes c
  where c.scan_id = scan.id
    and c.number > scan.applied;
  delete from filestore.scan_sightings g
  where g.scan_id = scan.id;

  -- Directories that are new, or have another identity than the node at their path. Left alone: those that others have
  -- moved or deleted since they were listed.
  insert into filestore.scan_directories (scan_id, depth, path, is_held)
  select e.scan_id, e.depth, e.path, n.id is null and exists (
    select
    from filestore.snapshots s
    where s.backend_mount_id = scan.backend_mount_id
      and s.path = e.path
      and s.valid_to >= e.listed_at
      and s.live
      and (s.superseded_by_journal_id = any (scan.journal_entry_ids)) is not true
  )
  from filestore.scan_entries e
  -- One lookup for each directory. A join could read the whole mount for a scan of one directory.
  left join lateral (
    select o.id, o.backend_identity
    from filestore.nodes o
    where o.backend_mount_id = scan.backend_mount_id
      and o.path = e.path
      and o.live
      and o.directory_path is not null
    offset 0
  ) n on true
  where e.scan_id = scan.id
    and e.kind = 'directory'
    and e.fault is null
    and e.path <> scan.path
    and (n.id is null or n.backend_identity <> e.backend_identity);
  if found then
    perform filestore.find_partners(scan);
    perform filestore.place_directories(scan);
  end if;

  perform filestore.plan_lost_directories(scan, base);
  perform filestore.plan_files(scan, base);
  perform filestore.plan_directories(scan, base);
  if not scan.is_recursive then
    -- The nodes below a directory that is gone are gone too.
    insert into filestore.scan_changes (scan_id, number, node_id, kind, action, path, from_path)
    select scan.id, base + 7900000000000 + row_number() over (order by n.path), n.id, n.kind, 'missing', n.path, n.path
    from filestore.scan_changes c
    join filestore.nodes n
      on n.backend_mount_id = scan.backend_mount_id
     and n.live
     and n.path > c.from_path || '/'
     and n.path < c.from_path || '0'
    where c.scan_id = scan.id
      and c.number > base
      and c.kind = 'directory'
      and c.action = 'missing'
      and n.state <> 'missing'
      and not (n.updated_at >= scan.began_at and filestore.is_written_since(n.id, scan.began_at, scan.journal_entry_ids));
  end if;
  delete from filestore.scan_directories d
  where d.scan_id = scan.id;

  update filestore.scans s
  set plans   = s.plans + 1,
      planned = coalesce((select max(c.number) from filestore.scan_changes c where c.scan_id = s.id), 0),
      applied = greatest(s.applied, base),
      skipped = (select count(*) from filestore.scan_changes c where c.scan_id = s.id and c.action = 'skip'),
      entries = greatest(s.entries, (select count(*) from filestore.scan_entries e where e.scan_id = s.id and not e.is_implied)),
      refused = (select count(*) from filestore.scan_entries e where e.scan_id = s.id and e.fault is not null)
  where s.id = scan.id
  returning * into scan;
  return scan;
end
$$;

comment on function filestore.plan_scan(filestore.scans) is
  'Internal: Compares the entries of a scan with the catalogue, and plans the changes. Nothing else is changed. Returns the scan.';

revoke all on function filestore.plan_scan(filestore.scans) from public;
--! EndIncluded functions/plan_scan.sql
--! Included functions/refuse_missing_share.sql
create or replace function filestore.refuse_missing_share(scan filestore.scans, max_missing_share numeric)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- The paths below the scanned directory are those from path || '/' up to path || '0', since '0' follows '/'. For the root,
  -- the upper bound is longer than any path (2600 bytes) and consists of the last character, U+10FFFF.
  lower_path constant text    := case when scan.path = '' then '' else scan.path || '/' end;
  upper_path constant text    := case when scan.path = '' then repeat(chr(1114111), 651) else scan.path || '0' end;
  lost       bigint;
  live       bigint;
begin
  select count(*)
  into lost
  from filestore.scan_changes c
  where c.scan_id = scan.id
    and c.number > scan.applied
    and c.action in ('missing', 'delete');
  if lost <= 100 then
    return;
  end if;
  select count(*)
  into live
  from (
    select n.id
    from filestore.nodes n
    where scan.is_recursive
      and n.backend_mount_id = scan.backend_mount_id
      and n.live
      and n.path > lower_path
      and n.path < upper_path
      and n.state <> 'missing'
    union all
    select n.id
    from filestore.nodes n
    where not scan.is_recursive
      and n.parent_id = scan.top_id
      and n.parent_live is not null
      and n.state <> 'missing'
  ) n;
  if not scan.is_recursive then
    live := live + lost;
  end if;
  if lost > live * max_missing_share then
    raise exception 'scan % of "%" did not find % of % nodes', scan.id, scan.path, lost, live
      using errcode    = 'FS409',
            constraint = 'scans_missing_share',
            hint       = 'Check that the disk is mounted, and that everything was listed. If the nodes are gone, call filestore.apply_scan with a larger max_missing_share, such as 1. filestore.scan_differences lists them.';
  end if;
end
$$;

comment on function filestore.refuse_missing_share(filestore.scans, numeric) is
  'Internal: Raises FS409 when a scan did not find more than a share of the live nodes that it covers, and more than 100.';

revoke all on function filestore.refuse_missing_share(filestore.scans, numeric) from public;
--! EndIncluded functions/refuse_missing_share.sql
--! Included functions/scan_differences.sql
create or replace function filestore.scan_differences(scan_id bigint, after_number bigint default 0, page_size bigint default 1000)
returns table (number bigint, action text, kind text, path text, from_path text, node_id bigint)
language plpgsql
security definer
rows 1000
set search_path = pg_catalog, pg_temp
as $$
declare
  scan filestore.scans;
begin
  perform filestore.require_read_committed('filestore.scan_differences');
  perform filestore.check_limit('page_size', page_size, 100000);
  scan := filestore.lock_scan(scan_differences.scan_id);
  if scan.state = 'finished' then
    perform filestore.refuse_scan(scan_differences.scan_id);
  end if;
  if scan.planned is null or (scan.state = 'recording' and coalesce(after_number, 0) = 0) then
    scan := filestore.plan_scan(scan);
  end if;
  return query
  select d.number, d.action, d.kind::text, d.path, d.from_path, d.node_id
  from (
    select c.number, c.action, c.kind, c.path, c.from_path, c.node_id
    from filestore.scan_changes c
    where c.scan_id = scan.id
      and c.number > coalesce(after_number, 0)
      and c.action <> 'keep'
    union all
    -- After all changes.
    select 9000000000000000000 + row_number() over (order by e.path), 'refuse', e.kind, e.path, null, null
    from filestore.scan_entries e
    where e.scan_id = scan.id
      and e.fault is not null
  ) d
  where d.number > coalesce(after_number, 0)
  order by d.number
  limit page_size;
end
$$;

comment on function filestore.scan_differences(bigint, bigint, bigint) is
  'A page of what filestore.apply_scan would do, in its order, without doing it: create, move, change (also a missing node that was found), missing, delete (something else has the path), skip (others wrote to it since it was listed) and refuse (a name that no node can have). For the next page, give the last number of this one as after_number. It plans the changes first. FS404 when there is no such scan, FS409 when it has ended or another call works on it.';

revoke all on function filestore.scan_differences(bigint, bigint, bigint) from public;
--! EndIncluded functions/scan_differences.sql
--! Included functions/follow_entry.sql
create or replace function filestore.follow_entry(node filestore.nodes, entry filestore.scan_entries)
returns setof filestore.nodes
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  is_other boolean;
begin
  if entry.kind = 'directory' then
    node.last_modified_at := coalesce(entry.last_modified_at, node.last_modified_at);
  else
    is_other := node.size_bytes <> entry.size_bytes
      or node.link_target is distinct from entry.link_target
      or (entry.last_modified_at is distinct from node.last_modified_at and entry.last_modified_at is not null)
      or (entry.content_hash is distinct from node.content_hash and entry.content_hash is not null)
      or (entry.checksum <> node.checksum) is true
      or (entry.backend_identity <> node.backend_identity) is true;
    node.size_bytes       := entry.size_bytes;
    node.link_target      := entry.link_target;
    -- Of another content, only the values of the entry are known.
    node.last_modified_at := coalesce(entry.last_modified_at, case when not is_other then node.last_modified_at end);
    node.content_hash     := coalesce(entry.content_hash, case when not is_other then node.content_hash end);
    node.checksum         := coalesce(entry.checksum, case when not is_other then node.checksum end);
    node.storage_class    := coalesce(entry.storage_class, node.storage_class);
  end if;
  node.backend_identity := coalesce(entry.backend_identity, case when is_other is not true then node.backend_identity end);
  if node.state = 'missing' or is_other then
    node.state := 'active';
  end if;
  return next node;
end
$$;

comment on function filestore.follow_entry(filestore.nodes, filestore.scan_entries) is
  'Internal: A node with the content that an entry of a scan has. Values that the entry leaves out stay, or become null if the content is another one. A missing node becomes active, and an inconsistent one with another content.';

revoke all on function filestore.follow_entry(filestore.nodes, filestore.scan_entries) from public;
--! EndIncluded functions/follow_entry.sql
--! Included functions/park_node.sql
create or replace function filestore.park_node(node_id bigint, new_parent_id bigint default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Short, so that no path below becomes too long.
  free_name text := '~' || to_hex(node_id);
  place_id  bigint;
begin
  select coalesce(park_node.new_parent_id, n.parent_id)
  into place_id
  from filestore.nodes n
  where n.id = park_node.node_id;
  while exists (
    select
    from filestore.nodes n
    where n.parent_id = place_id
      and n.name = free_name
      and n.parent_live
  ) loop
    free_name := '~' || free_name;
  end loop;
  update filestore.nodes n
  set parent_id = place_id,
      name      = free_name
  where n.id = park_node.node_id;
end
$$;

comment on function filestore.park_node(bigint, bigint) is
  'Internal: Gives a node a temporary name, in its directory or in another one, so that another node can have its own. For nodes in a circle of moves.';

revoke all on function filestore.park_node(bigint, bigint) from public;
--! EndIncluded functions/park_node.sql
--! Included functions/delete_scanned.sql
create or replace function filestore.delete_scanned(scan filestore.scans, node_id bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  refusal    text;
  deleted_id bigint;
begin
  update filestore.nodes n
  set state = 'deleted'
  where n.id = delete_scanned.node_id
    and n.live
    and not (n.updated_at >= scan.began_at and filestore.is_written_since(n.id, scan.began_at, scan.journal_entry_ids))
  returning n.id into deleted_id;
  return deleted_id;
exception
  when sqlstate 'FS409' then
    get stacked diagnostics refusal = constraint_name;
    if refusal <> 'nodes_not_empty' then
      raise;
    end if;
    return null;
end
$$;

comment on function filestore.delete_scanned(filestore.scans, bigint) is
  'Internal: Deletes a directory whose path something else has in a scan, and returns its id; null when others have written to it or created nodes in it.';

revoke all on function filestore.delete_scanned(filestore.scans, bigint) from public;
--! EndIncluded functions/delete_scanned.sql
--! Included functions/clear_place.sql
create or replace function filestore.clear_place(scan filestore.scans, occupant_id bigint, number bigint)
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  last_place constant bigint := scan.plans * 100000000000000 + 5000000000000;
  occupant   filestore.nodes;
  leaving    bigint[];
  doomed     bigint;
begin
  select *
  into occupant
  from filestore.nodes n
  where n.id = clear_place.occupant_id
    and exists (
      select
      from (
        -- "Offset 0": the planner would read all changes by their numbers.
        select c.number, c.action
        from filestore.scan_changes c
        where c.scan_id = scan.id
          and c.node_id = clear_place.occupant_id
        offset 0
      ) c
      where c.number > clear_place.number
        and c.number < last_place
        and (c.action = 'move' or n.directory_path is not null)
    );
  if occupant.id is null then
    -- Others have created it.
    return null;
  end if;

  if exists (select from filestore.scan_changes c where c.scan_id = scan.id and c.node_id = occupant.id and c.action = 'delete') then
    leaving := array(
      select n.id
      from filestore.nodes n
      where n.backend_mount_id = scan.backend_mount_id
        and n.live
        and n.path > occupant.path || '/'
        and n.path < occupant.path || '0'
        and exists (
          select
          from filestore.scan_changes c
          where c.scan_id = scan.id
            and c.node_id = n.id
            and c.action = 'move'
        )
      order by n.path
      limit 101
    );
    -- It is deleted at its own path, unless too much has to leave it before.
    if cardinality(leaving) <= 100 then
      perform filestore.park_node(n.id, r.id)
      from filestore.nodes n
      join filestore.nodes r on r.root_of_mount_id = n.backend_mount_id
      where n.id = any (leaving);
      for doomed in
        select n.id
        from filestore.nodes n
        where n.backend_mount_id = scan.backend_mount_id
          and n.live
          and (n.path = occupant.path or (n.path > occupant.path || '/' and n.path < occupant.path || '0'))
        order by n.path desc
      loop
        if filestore.delete_scanned(scan, doomed) is null then
          raise sqlstate 'FS001';
        end if;
      end loop;
      return leaving;
    end if;
  end if;
  perform filestore.park_node(occupant.id);
  return array[occupant.id];
end
$$;

comment on function filestore.clear_place(filestore.scans, bigint, bigint) is
  'Internal: Makes room for a planned change whose place another node has, by temporary names for nodes that move later, or by deleting a directory that is to be deleted anyway. Returns the nodes with temporary names; null when the node does not leave. Raises FS001 when others have written in the meantime.';

revoke all on function filestore.clear_place(filestore.scans, bigint, bigint) from public;
--! EndIncluded functions/clear_place.sql
--! Included functions/create_scanned_directory.sql
create or replace function filestore.create_scanned_directory(
  scan        filestore.scans,
  parent_id   bigint,
  parent_path text,
  name        text,
  path        text
)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  created_id bigint;
begin
  with created as (
    insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind, last_modified_at, backend_identity)
    select
      scan.backend_mount_id,
      create_scanned_directory.parent_id,
      create_scanned_directory.parent_path,
      create_scanned_directory.name,
      'directory',
      e.last_modified_at,
      e.backend_identity
    from filestore.scan_entries e
    where e.scan_id = scan.id
      and e.path = create_scanned_directory.path
    on conflict (parent_id, name) where parent_live is not null do nothing
    returning id
  )
  insert into filestore.node_sightings (node_id, last_seen_at, last_reconciled_at)
  select s.id, m.moment, m.moment
  from created s
  join filestore.scan_entries e on e.scan_id = scan.id and e.path = create_scanned_directory.path
  -- Entries of filestore.sync_nodes have no moment of their listing.
  cross join lateral (select least(e.listed_at, date_trunc('milliseconds', clock_timestamp())) as moment) m
  returning node_id into created_id;
  return created_id;
end
$$;

comment on function filestore.create_scanned_directory(filestore.scans, bigint, text, text, text) is
  'Internal: Creates a directory that a scan found, and returns its id; null when others have created a node there.';

revoke all on function filestore.create_scanned_directory(filestore.scans, bigint, text, text, text) from public;
--! EndIncluded functions/create_scanned_directory.sql
--! Included functions/move_scanned.sql
create or replace function filestore.move_scanned(
  scan      filestore.scans,
  node_id   bigint,
  parent_id bigint,
  name      text,
  path      text
)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  moved_id bigint;
begin
  -- One version, also when the content is another one.
  update filestore.nodes n
  set parent_id        = move_scanned.parent_id,
      name             = move_scanned.name,
      state            = f.state,
      size_bytes       = f.size_bytes,
      last_modified_at = f.last_modified_at,
      link_target      = f.link_target,
      content_hash     = f.content_hash,
      checksum         = f.checksum,
      storage_class    = f.storage_class,
      backend_identity = f.backend_identity
  from filestore.nodes o
  join filestore.scan_entries e on e.scan_id = scan.id and e.path = move_scanned.path
  cross join lateral filestore.follow_entry(o, e) f
  where n.id = move_scanned.node_id
    and o.id = n.id
    and n.version = o.version
    and n.live
    and not (o.updated_at >= e.listed_at and filestore.is_written_since(o.id, e.listed_at, scan.journal_entry_ids))
  returning n.id into moved_id;
  return moved_id;
end
$$;

comment on function filestore.move_scanned(filestore.scans, bigint, bigint, text, text) is
  'Internal: Moves a node to the place of its entry, with the content of the entry, and returns its id; null when others have written to it.';

revoke all on function filestore.move_scanned(filestore.scans, bigint, bigint, text, text) from public;
--! EndIncluded functions/move_scanned.sql
--! Included functions/place_nodes.sql
create or replace function filestore.place_nodes(scan filestore.scans, max_nodes integer)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  last_place constant bigint  := scan.plans * 100000000000000 + 5000000000000;
  parked     bigint[]         := '{}';
  placed     integer          := 0;
  change     record;
  parent     record;
  occupant   bigint;
  cleared    bigint[];
  own_name   text;
  placed_id  bigint;
begin
  for change in
    select c.*
    from filestore.scan_changes c
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number < last_place
    order by c.number
  loop
    -- No node keeps a temporary name when the transaction ends.
    exit when placed >= max_nodes and parked = '{}';
    placed       := placed + 1;
    placed_id    := null;
    scan.applied := change.number;

    if change.action = 'delete' then
      -- It may be deleted already, to make room.
      placed_id := coalesce(
        filestore.delete_scanned(scan, change.node_id),
        (select n.id from filestore.nodes n where n.id = change.node_id and not n.live)
      );
      scan.deleted := scan.deleted + (placed_id is not null)::integer;
    else
      own_name := right(change.path, strpos(reverse('/' || change.path), '/') - 1);
      select n.id, n.path
      into parent
      from filestore.nodes n
      where n.backend_mount_id = scan.backend_mount_id
        and n.path = left(change.path, -strpos(reverse(change.path), '/'))
        and n.live
        and n.directory_path is not null
      for key share;
      select n.id
      into occupant
      from filestore.nodes n
      where n.parent_id = parent.id
        and n.name = own_name
        and n.parent_live
        and n.id is distinct from change.node_id;
      if occupant is not null then
        cleared  := filestore.clear_place(scan, occupant, change.number);
        occupant := case when cleared is null then occupant end;
        parked   := parked || cleared;
      end if;
      if parent.id is not null and occupant is null then
        if change.action = 'create' then
          placed_id    := filestore.create_scanned_directory(scan, parent.id, parent.path, own_name, change.path);
          scan.created := scan.created + (placed_id is not null)::integer;
          scan.seen    := scan.seen + (placed_id is not null)::integer;
        else
          placed_id  := filestore.move_scanned(scan, change.node_id, parent.id, own_name, change.path);
          scan.moved := scan.moved + (placed_id is not null)::integer;
        end if;
      end if;
    end if;

    if placed_id is null then
      -- Others have written in the meantime. A node with a temporary name cannot stay: the changes are planned again.
      if change.node_id = any (parked) then
        raise sqlstate 'FS001';
      end if;
      scan.skipped := scan.skipped + 1;
    end if;
    parked := array_remove(parked, change.node_id);
    if placed_id is distinct from change.node_id then
      update filestore.scan_changes c
      set node_id = placed_id,
          action  = case when placed_id is null then 'skip' else c.action end
      where c.scan_id = scan.id
        and c.number = change.number;
    end if;
  end loop;
  if parked <> '{}' then
    raise sqlstate 'FS001';
  end if;

  update filestore.scans s
  set applied = scan.applied,
      created = scan.created,
      seen    = scan.seen,
      moved   = scan.moved,
      deleted = scan.deleted,
      skipped = scan.skipped
  where s.id = scan.id;
  return scan;
end
$$;

comment on function filestore.place_nodes(filestore.scans, integer) is
  'Internal: Carries out the next planned moves of directories and files, creates of directories and deletes of directories, each in its order. Ends after max_nodes, but not while a node has a temporary name. The caller holds the exclusive tree lock. Raises FS001 when the changes have to be planned again.';

revoke all on function filestore.place_nodes(filestore.scans, integer) from public;
--! EndIncluded functions/place_nodes.sql
--! Included functions/skip_changes.sql
create or replace function filestore.skip_changes(scan filestore.scans, last bigint, changed_ids bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
as $$
declare
  left_out bigint;
begin
  select count(*)
  into left_out
  from filestore.scan_changes c
  where c.scan_id = scan.id
    and c.number > scan.applied
    and c.number <= last;
  if left_out = cardinality(changed_ids) then
    return;
  end if;

  update filestore.scan_changes c
  set action = 'skip'
  where c.scan_id = scan.id
    and c.number > scan.applied
    and c.number <= last
    and not exists (select from unnest(changed_ids) as i (id) where i.id = c.node_id);
  update filestore.scans s
  set skipped = s.skipped + left_out - cardinality(changed_ids)
  where s.id = scan.id;
end
$$;

comment on function filestore.skip_changes(filestore.scans, bigint, bigint[]) is
  'Internal: Notes which of the planned changes up to a number were left out, because others have written in the meantime.';

revoke all on function filestore.skip_changes(filestore.scans, bigint, bigint[]) from public;
--! EndIncluded functions/skip_changes.sql
--! Included functions/remove_scanned.sql
create or replace function filestore.remove_scanned(scan filestore.scans, last bigint, new_state text)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  removed_ids bigint[];
begin
  with locked as materialized (
    select n.id
    from filestore.scan_changes c
    join filestore.nodes n on n.id = c.node_id
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number <= last
      and n.live
      and n.state <> new_state
      and not (n.updated_at >= scan.began_at and filestore.is_written_since(n.id, scan.began_at, scan.journal_entry_ids))
    order by n.id
    for update of n
  ),
  removed as (
    update filestore.nodes n
    set state = new_state
    from locked l
    where n.id = l.id
    returning n.id
  )
  select coalesce(array_agg(r.id), '{}')
  into removed_ids
  from removed r;
  perform filestore.skip_changes(scan, last, removed_ids);

  update filestore.scans s
  set missing = s.missing + case new_state when 'missing' then cardinality(removed_ids) else 0 end,
      deleted = s.deleted + case new_state when 'deleted' then cardinality(removed_ids) else 0 end,
      applied = last
  where s.id = scan.id
  returning * into scan;
  return scan;
end
$$;

comment on function filestore.remove_scanned(filestore.scans, bigint, text) is
  'Internal: Marks the nodes of the planned changes up to a number as missing, or deletes them. Leaves out what others have written in the meantime.';

revoke all on function filestore.remove_scanned(filestore.scans, bigint, text) from public;
--! EndIncluded functions/remove_scanned.sql
--! Included functions/create_scanned_files.sql
create or replace function filestore.create_scanned_files(scan filestore.scans, last bigint)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join everything row by row.
set enable_nestloop = off
as $$
#variable_conflict use_column
declare
  made       integer;
  noted_rows integer;
begin
  with given as materialized (
    select e.*, c.number, left(e.path, -strpos(reverse(e.path), '/')) as parent_path
    from filestore.scan_changes c
    cross join lateral (
      select o.*
      from filestore.scan_entries o
      where o.scan_id = c.scan_id
        and o.path = c.path
      offset 0
    ) e
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number <= last
  ),
  -- The caller holds the shared tree lock, so they stay where they are.
  parents as materialized (
    select n.id, n.path
    from filestore.nodes n
    where n.backend_mount_id = scan.backend_mount_id
      and n.path = any (array(select distinct g.parent_path from given g))
      and n.live
      and n.directory_path is not null
    order by n.id
    for key share
  ),
  created as (
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
      last_modified_at,
      link_target,
      backend_identity
    )
    select
      scan.backend_mount_id,
      p.id,
      p.path,
      right(g.path, strpos(reverse('/' || g.path), '/') - 1),
      'file',
      g.size_bytes,
      g.checksum,
      g.content_hash,
      g.storage_class,
      g.last_modified_at,
      g.link_target,
      g.backend_identity
    from given g
    join parents p on p.path = g.parent_path
    order by p.id, g.path
    on conflict (parent_id, name) where parent_live is not null do nothing
    returning id, path
  ),
  seen as (
    insert into filestore.node_sightings (node_id, last_seen_at, last_reconciled_at)
    select c.id, m.moment, m.moment
    from created c
    join given g on g.path = c.path
    -- Entries of filestore.sync_nodes have no moment of their listing.
    cross join lateral (select least(g.listed_at, date_trunc('milliseconds', clock_timestamp())) as moment) m
  ),
  noted as (
    update filestore.scan_changes c
    set node_id = m.id,
        action  = case when m.id is null then 'skip' else c.action end
    from given g
    left join created m on m.path = g.path
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number <= last
      and c.number = g.number
    returning m.id
  )
  select count(n.id), count(*)
  into made, noted_rows
  from noted n;

  update filestore.scans s
  set created = s.created + made,
      seen    = s.seen + made,
      skipped = s.skipped + noted_rows - made,
      applied = last
  where s.id = scan.id
  returning * into scan;
  return scan;
end
$$;

comment on function filestore.create_scanned_files(filestore.scans, bigint) is
  'Internal: Carries out the planned creates of files up to a number, and records their sightings. Leaves out what others have created in the meantime.';

revoke all on function filestore.create_scanned_files(filestore.scans, bigint) from public;
--! EndIncluded functions/create_scanned_files.sql
--! Included functions/change_scanned.sql
create or replace function filestore.change_scanned(scan filestore.scans, last bigint)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  changed_ids bigint[];
  found_ids   bigint[];
begin
  with locked as materialized (
    select n as node, e.entry
    from filestore.scan_changes c
    join filestore.nodes n on n.id = c.node_id
    -- "Offset 0" keeps this a lookup by path. With stale statistics, the planner would read all entries for each row.
    cross join lateral (
      select o.*
      from filestore.scan_entries o
      where o.scan_id = c.scan_id
        and o.path = c.path
      offset 0
    ) o
    cross join lateral (select row (o.*)::filestore.scan_entries as entry, o.listed_at) e
    where c.scan_id = scan.id
      and c.number > scan.applied
      and c.number <= last
      and n.live
      and n.path = c.path
      and not (n.updated_at >= e.listed_at and filestore.is_written_since(n.id, e.listed_at, scan.journal_entry_ids))
    order by n.id
    for no key update of n
  ),
  changed as (
    update filestore.nodes n
    set state            = f.state,
        size_bytes       = f.size_bytes,
        last_modified_at = f.last_modified_at,
        link_target      = f.link_target,
        content_hash     = f.content_hash,
        checksum         = f.checksum,
        storage_class    = f.storage_class,
        backend_identity = f.backend_identity
    from locked l
    cross join lateral filestore.follow_entry(l.node, l.entry) f
    where n.id = (l.node).id
    returning n.id, (l.node).state = 'missing' as was_missing
  )
  select
    coalesce(array_agg(c.id) filter (where not c.was_missing), '{}'),
    coalesce(array_agg(c.id) filter (where c.was_missing), '{}')
  into changed_ids, found_ids
  from changed c;
  perform filestore.skip_changes(scan, last, changed_ids || found_ids);

  update filestore.scans s
  set changed = s.changed + cardinality(changed_ids),
      found   = s.found + cardinality(found_ids),
      applied = last
  where s.id = scan.id
  returning * into scan;
  return scan;
end
$$;

comment on function filestore.change_scanned(filestore.scans, bigint) is
  'Internal: Carries out the planned changes of content up to a number. Missing nodes that were found become active. Leaves out what others have written in the meantime.';

revoke all on function filestore.change_scanned(filestore.scans, bigint) from public;
--! EndIncluded functions/change_scanned.sql
--! Included functions/see_nodes.sql
create or replace function filestore.see_nodes(node_ids bigint[], moment timestamptz)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would read all sightings.
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  known integer;
  added integer := 0;
begin
  -- In order of id, so that concurrent calls do not deadlock.
  update filestore.node_sightings s
  -- "Greatest": a report that arrives late changes nothing.
  set last_seen_at       = greatest(s.last_seen_at, moment),
      last_reconciled_at = greatest(s.last_reconciled_at, moment)
  from (
    select i.id
    from unnest(node_ids) as i (id)
    order by i.id
  ) k
  where s.node_id = k.id;
  get diagnostics known = row_count;
  if known < cardinality(node_ids) then
    -- The caller holds the shared tree lock, so none of them is purged.
    insert into filestore.node_sightings (node_id, last_seen_at, last_reconciled_at)
    select n.id, moment, moment
    from unnest(node_ids) as i (id)
    join filestore.nodes n on n.id = i.id
    where not exists (select from filestore.node_sightings s where s.node_id = i.id)
    order by n.id
    on conflict do nothing;
    get diagnostics added = row_count;
  end if;
  return known + added;
end
$$;

comment on function filestore.see_nodes(bigint[], timestamptz) is
  'Internal: Records that nodes of one mount were seen and compared with their backend, and returns how many of them exist. The caller holds the shared tree lock.';

revoke all on function filestore.see_nodes(bigint[], timestamptz) from public;
--! EndIncluded functions/see_nodes.sql
--! Included functions/settle_scan.sql
create or replace function filestore.settle_scan(scan filestore.scans, max_nodes integer)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  part record;
  done integer := 0;
begin
  if scan.settled is null then
    -- The nodes that the scan changed. Those that it created have sightings already, the others are planned.
    insert into filestore.scan_sightings (scan_id, number, moment, node_ids)
    select scan.id, scan.planned + 10000000000000 + row_number() over (), p.listed_at, p.node_ids
    from (
      select s.listed_at, array_agg(s.node_id order by s.node_id) as node_ids
      from (
        select c.node_id, e.listed_at, (row_number() over (partition by e.listed_at order by c.node_id) - 1) / 10000 as part
        from filestore.scan_changes c
        -- "Offset 0" keeps this a lookup by path.
        cross join lateral (
          select o.listed_at
          from filestore.scan_entries o
          where o.scan_id = c.scan_id
            and o.path = c.path
          offset 0
        ) e
        where c.scan_id = scan.id
          and c.action in ('move', 'change')
      ) s
      group by s.listed_at, s.part
    ) p;
    scan.settled := 0;
  end if;

  for part in
    select g.number, g.moment, g.node_ids
    from filestore.scan_sightings g
    where g.scan_id = scan.id
      and g.number > scan.settled
    order by g.number
  loop
    exit when done >= max_nodes;
    scan.seen    := scan.seen + filestore.see_nodes(part.node_ids, part.moment);
    scan.settled := part.number;
    done         := done + cardinality(part.node_ids);
  end loop;
  update filestore.scans s
  set seen    = scan.seen,
      settled = scan.settled
  where s.id = scan.id;
  return scan;
end
$$;

comment on function filestore.settle_scan(filestore.scans, integer) is
  'Internal: Records the sightings of about max_nodes nodes that a scan found, and returns the scan. The caller holds the shared tree lock.';

revoke all on function filestore.settle_scan(filestore.scans, integer) from public;
--! EndIncluded functions/settle_scan.sql
--! Included functions/begin_scan_work.sql
create or replace function filestore.begin_scan_work(scan filestore.scans)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  entry filestore.journal_entries;
begin
  select *
  into entry
  from filestore.journal_entries j
  where j.id = scan.journal_entry_ids[cardinality(scan.journal_entry_ids)]
    and j.status = 'running';
  -- The first call, or one after filestore.expire_commands ended the entry.
  if entry.id is null then
    entry := (filestore.begin_command(
      'scan',
      jsonb_build_object('scan_id', scan.id, 'path', scan.path, 'is_recursive', scan.is_recursive),
      mount_id        => scan.backend_mount_id,
      principal       => scan.principal,
      primary_node_id => scan.top_id
    )).entry;
    update filestore.scans s
    set journal_entry_ids = s.journal_entry_ids || entry.id
    where s.id = scan.id
    returning * into scan;
  end if;
  perform filestore.begin_work(entry.id);
  return scan;
end
$$;

comment on function filestore.begin_scan_work(filestore.scans) is
  'Internal: Begins work on the command of a scan, and begins the command first if it has none that runs. Returns the scan.';

revoke all on function filestore.begin_scan_work(filestore.scans) from public;
--! EndIncluded functions/begin_scan_work.sql
--! Included functions/finish_scan.sql
create or replace function filestore.finish_scan(scan filestore.scans)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.finish_command(
    scan.journal_entry_ids[cardinality(scan.journal_entry_ids)],
    'succeeded',
    result            => jsonb_build_object(
      'entries', scan.entries,
      'created', scan.created,
      'moved',   scan.moved,
      'changed', scan.changed,
      'found',   scan.found,
      'missing', scan.missing,
      'deleted', scan.deleted,
      'skipped', scan.skipped,
      'refused', scan.refused,
      'seen',    scan.seen
    ),
    -- As many as an entry may have. The history of each changed node names the entry, also beyond that number.
    affected_node_ids => array(
      select distinct a.node_id
      from (
        select c.node_id
        from filestore.scan_changes c
        where c.scan_id = scan.id
          and c.node_id is not null
          and c.action in ('create', 'move', 'change', 'missing', 'delete')
        order by c.number
        limit 100000
      ) a
    )
  );
  return filestore.end_scan(scan, 'finished');
end
$$;

comment on function filestore.finish_scan(filestore.scans) is
  'Internal: Ends a scan of which everything is applied, and its command, with the counts as its result. Returns the scan.';

revoke all on function filestore.finish_scan(filestore.scans) from public;
--! EndIncluded functions/finish_scan.sql
--! Included functions/apply_batch.sql
create or replace function filestore.apply_batch(scan filestore.scans, max_nodes integer)
returns filestore.scans
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  next constant bigint := (
    select c.number
    from filestore.scan_changes c
    where c.scan_id = scan.id
      and c.number > scan.applied
    order by c.number
    limit 1
  );
  step constant bigint := coalesce(next / 1000000000000 % 100, 9);
  last bigint;
begin
  perform filestore.lock_tree(scan.backend_mount_id, step between 2 and 4);
  scan := filestore.begin_scan_work(scan);
  if step between 2 and 4 then
    return filestore.place_nodes(scan, max_nodes);
  elsif step < 9 then
    select max(b.number)
    into last
    from (
      select c.number
      from filestore.scan_changes c
      where c.scan_id = scan.id
        and c.number > scan.applied
        and c.number < (next / 1000000000000 + 1) * 1000000000000
      order by c.number
      limit max_nodes
    ) b;
    return case step
      when 1 then filestore.remove_scanned(scan, last, 'deleted')
      when 5 then filestore.create_scanned_files(scan, last)
      when 6 then filestore.change_scanned(scan, last)
      when 7 then filestore.remove_scanned(scan, last, 'missing')
    end;
  end if;
  -- Sightings are narrow rows.
  scan := filestore.settle_scan(scan, max_nodes * 5);
  if exists (select from filestore.scan_sightings g where g.scan_id = scan.id and g.number > scan.settled) then
    return scan;
  end if;
  return filestore.finish_scan(scan);
end
$$;

comment on function filestore.apply_batch(filestore.scans, integer) is
  'Internal: Carries out the next part of the plan of a scan: deletes of files, moves of directories and files, creates, changes, what is missing, sightings, and the end. Returns the scan.';

revoke all on function filestore.apply_batch(filestore.scans, integer) from public;
--! EndIncluded functions/apply_batch.sql
--! Included functions/apply_scan.sql
create or replace function filestore.apply_scan(
  scan_id           bigint,
  max_missing_share numeric default 0.2,
  max_nodes         integer default 10000
)
returns filestore.scans
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  scan filestore.scans;
begin
  perform filestore.require_first_write('filestore.apply_scan');
  perform filestore.check_limit('max_nodes', max_nodes, 100000);
  if max_missing_share is null or max_missing_share not between 0 and 1 then
    raise exception 'max_missing_share is %', coalesce(max_missing_share::text, 'null')
      using errcode    = 'FS422',
            constraint = 'scans_share_check',
            hint       = 'Give a share of the live nodes, from 0 to 1.';
  end if;
  scan := filestore.lock_scan(apply_scan.scan_id);
  if scan.state = 'finished' then
    return scan;
  end if;

  update filestore.scans s
  set state      = 'applying',
      planned    = case s.state when 'applying' then s.planned end,
      expires_at = clock_timestamp() + s.expire_after_ms * interval '1 millisecond'
  where s.id = scan.id
  returning * into scan;
  if scan.planned is null then
    scan := filestore.plan_scan(scan);
    perform filestore.refuse_missing_share(scan, max_missing_share);
    return scan;
  end if;

  begin
    scan := filestore.apply_batch(scan, max_nodes);
  exception
    when unique_violation or foreign_key_violation or sqlstate 'FS001' or sqlstate 'FS404' then
      -- Others have written in the meantime: the next call plans again.
      if scan.plans >= 100 or scan.settled is not null then
        raise;
      end if;
      update filestore.scans s
      set planned = null
      where s.id = scan.id
      returning * into scan;
  end;
  perform set_config('filestore.journal_entry_id', '', true);
  return scan;
end
$$;

comment on function filestore.apply_scan(bigint, numeric, integer) is
  'Makes the catalogue follow the entries of a scan, about max_nodes in a call, and returns the scan. Repeat it until its state is finished, each time in a separate transaction. It can be killed at any moment: the next call continues. The first call plans all changes; it refuses with FS409 when more than max_missing_share of the live nodes that the scan covers, and more than 100, were not found. FS404 when there is no such scan; FS409 also when it has ended, when another call works on it, when the server has lost its entries, when its directory was moved or deleted, and when its mount moves or is being erased.';

revoke all on function filestore.apply_scan(bigint, numeric, integer) from public;
--! EndIncluded functions/apply_scan.sql
--! Included functions/sync_directory.sql
create or replace function filestore.sync_directory(scan filestore.scans, path text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  parent record;
  there  filestore.nodes;
  made   bigint;
begin
  -- The second attempt finds what another caller has created.
  for attempt in 1..2 loop
    select *
    into there
    from filestore.nodes n
    where n.backend_mount_id = scan.backend_mount_id
      and n.path = sync_directory.path
      and n.live;
    exit when there.id is not null;
    select n.id, n.path
    into parent
    from filestore.nodes n
    where n.backend_mount_id = scan.backend_mount_id
      and n.path = left(sync_directory.path, -strpos(reverse(sync_directory.path), '/'))
      and n.live
      and n.directory_path is not null
    for key share;
    made := filestore.create_scanned_directory(
      scan,
      parent.id,
      parent.path,
      right(sync_directory.path, strpos(reverse('/' || sync_directory.path), '/') - 1),
      sync_directory.path
    );
    if made is not null then
      insert into filestore.scan_changes (scan_id, number, node_id, kind, action, path)
      values (scan.id, -made, made, 'directory', 'create', sync_directory.path);
      return;
    end if;
  end loop;
  if there.directory_path is null then
    raise exception '"%" is a file', sync_directory.path
      using errcode    = 'FS409',
            constraint = 'nodes_file_in_the_way',
            hint       = 'Move or delete the file: an entry needs a directory there. Nothing was written.';
  end if;
end
$$;

comment on function filestore.sync_directory(filestore.scans, text) is
  'Internal: Creates a directory of the entries of filestore.sync_nodes, if it does not exist. FS409 when a file is there.';

revoke all on function filestore.sync_directory(filestore.scans, text) from public;
--! EndIncluded functions/sync_directory.sql
--! Included functions/sync_files.sql
create or replace function filestore.sync_files(scan filestore.scans)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would read all sightings.
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  wrong text;
begin
  insert into filestore.scan_changes (scan_id, number, kind, action, path)
  select scan.id, row_number() over (order by e.path), 'file', 'create', e.path
  from filestore.scan_entries e
  where e.scan_id = scan.id
    and e.kind = 'file'
    and e.fault is null
    and not exists (
      select
      from filestore.nodes n
      where n.backend_mount_id = scan.backend_mount_id
        and n.path = e.path
        and n.live
    );
  perform filestore.create_scanned_files(scan, 1000000);

  -- A separate statement, which sees what others have created in the meantime.
  select n.path
  into wrong
  from filestore.scan_entries e
  join filestore.nodes n
    on n.backend_mount_id = scan.backend_mount_id
   and n.path = e.path
   and n.live
  where e.scan_id = scan.id
    and e.kind = 'file'
    and n.directory_path is not null
  limit 1;
  if found then
    raise exception '"%" is a directory', wrong
      using errcode    = 'FS409',
            constraint = 'nodes_directory_in_the_way',
            hint       = 'Move or delete the directory: an entry is a file there. Nothing was written.';
  end if;

  scan.applied := 1000000;
  insert into filestore.scan_changes (scan_id, number, node_id, kind, action, path)
  select scan.id, scan.applied + row_number() over (order by n.id), n.id, n.kind, 'change', n.path
  from filestore.scan_entries e
  join filestore.nodes n
    on n.backend_mount_id = scan.backend_mount_id
   and n.path = e.path
   and n.live
  where e.scan_id = scan.id
    and e.fault is null
    and exists (select from filestore.follow_entry(n, e) f where f *<> n);
  perform filestore.change_scanned(scan, 2000000);
  -- Those that were created have sightings already.
  perform filestore.see_nodes(
    array(
      select n.id
      from filestore.scan_entries e
      join filestore.nodes n
        on n.backend_mount_id = scan.backend_mount_id
       and n.path = e.path
       and n.live
      where e.scan_id = scan.id
        and e.fault is null
    ),
    date_trunc('milliseconds', clock_timestamp())
  );
end
$$;

comment on function filestore.sync_files(filestore.scans) is
  'Internal: Creates and overwrites the files of the entries of filestore.sync_nodes, overwrites their directories, and records sightings.';

revoke all on function filestore.sync_files(filestore.scans) from public;
--! EndIncluded functions/sync_files.sql
--! Included functions/sync_nodes.sql
create or replace function filestore.sync_nodes(mount_key text, entries jsonb, directory text default '')
returns table (path text, node_id bigint, version integer, outcome text)
language plpgsql
security definer
rows 1000
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  place      constant text := filestore.canonical_path(sync_nodes.directory);
  scan       filestore.scans;
  found_path text;
begin
  perform filestore.require_read_committed('filestore.sync_nodes');
  perform filestore.check_entries(sync_nodes.entries);
  if place is null then
    raise exception 'the directory of the entries is null'
      using errcode    = 'FS422',
            constraint = 'nodes_path_check',
            hint       = 'Give the path of the directory; the root is ''''.';
  end if;
  -- As a scan that no other call sees: what others have written is overwritten.
  scan.id                := nextval(pg_get_serial_sequence('filestore.scans', 'id'));
  scan.backend_mount_id  := filestore.find_mount(sync_nodes.mount_key);
  scan.path              := '';
  scan.is_recursive      := true;
  scan.began_at          := 'infinity';
  scan.journal_entry_ids := '{}';
  scan.applied           := 0;
  perform filestore.lock_tree(scan.backend_mount_id, false);
  perform filestore.ensure_directory(sync_nodes.mount_key, place);
  perform filestore.add_entries(scan, sync_nodes.entries, place, scan.began_at);

  for found_path in
    select e.path
    from filestore.scan_entries e
    where e.scan_id = scan.id
      and e.kind = 'directory'
      and e.fault is null
    order by e.path
  loop
    perform filestore.sync_directory(scan, found_path);
  end loop;
  perform filestore.sync_files(scan);

  return query
  with given as (
    select g.position,
           filestore.child_path(place, case when g.value ->> 'kind' = 'directory' then rtrim(g.value ->> 'path', '/') else g.value ->> 'path' end) as path
    from jsonb_array_elements(sync_nodes.entries) with ordinality as g (value, position)
  )
  select
    g.path,
    n.id,
    n.version,
    case
      when n.id is null then 'refused'
      else coalesce(
        (
          select case c.action when 'create' then 'created' else 'changed' end
          from filestore.scan_changes c
          where c.scan_id = scan.id
            and c.node_id = n.id
            and c.action <> 'skip'
          limit 1
        ),
        'unchanged'
      )
    end
  from given g
  left join lateral (
    select o.id, o.version
    from filestore.nodes o
    where o.backend_mount_id = scan.backend_mount_id
      and o.path = g.path
      and o.live
    offset 0
  ) n on true
  order by g.position;

  delete from filestore.scan_entries e
  where e.scan_id = scan.id;
  delete from filestore.scan_changes c
  where c.scan_id = scan.id;
end
$$;

comment on function filestore.sync_nodes(text, jsonb, text) is
  'Creates the files and directories of a JSON array of at most 10000 objects, as filestore.record_entries takes them, with missing directories above them, or writes their content over what is there, and records sightings. All or none. Returns for each entry, in the order given, the path, id and version of the node, and whether it was created, changed, unchanged, or refused because no node can have its name. Values that an entry leaves out stay, unless the content is another one. It moves nothing, and marks nothing as missing. FS404 when the mount does not exist, FS409 when a file is where a directory is needed or the other way round, FS422 when an entry is not well formed.';

revoke all on function filestore.sync_nodes(text, jsonb, text) from public;
--! EndIncluded functions/sync_nodes.sql

--! Included functions/access_rights.sql
create or replace function filestore.access_rights(level text)
returns table (kind text, object text, column_name text, privilege text)
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
  readers   constant text[] := '{
    access_rights,
    canonical_checksum,
    canonical_path,
    check_access,
    check_limit,
    check_name,
    climb_totals,
    content_columns,
    database_number,
    directory_totals,
    find_by_checksum,
    find_mount,
    guard_statements,
    list_commands,
    list_directory,
    list_totals,
    list_unseen,
    location_uri,
    move_progress,
    move_slot,
    move_steps,
    move_subscription,
    node_at,
    node_by_path,
    node_commands,
    node_location,
    pending_totals,
    percent_encode,
    real_depths,
    server_timeline,
    subscription_errors,
    tree_at
  }';
  services  constant text[] := '{
    apply_scan,
    begin_command,
    begin_scan,
    begin_work,
    cancel_scan,
    check_batch,
    check_retention,
    child_path,
    copy_nodes,
    copy_tree,
    create_node,
    create_nodes,
    delete_batch,
    delete_node,
    describe_element,
    ensure_child,
    ensure_directory,
    expire_commands,
    expire_scans,
    finish_command,
    fold_rollups,
    freeze_tree,
    holds_mount,
    is_small_json,
    is_sound,
    is_sound_entry,
    lock_command,
    lock_parents,
    lock_tree,
    lock_trees,
    merge_metadata,
    mount_place,
    move_node,
    moving_mounts,
    record_entries,
    record_sightings,
    record_write_sighting,
    refuse_element,
    refuse_entry,
    refuse_long_copy,
    refuse_stale,
    refuse_taken_name,
    refuse_taken_names,
    refuse_unsound,
    require_first_write,
    require_read_committed,
    restore_node,
    restore_tree,
    revert_node,
    scan_differences,
    start_command,
    sync_nodes,
    upsert_file,
    writable_mount
  }';
  operators constant text[] := '{
    audit_rollups,
    check_integrity,
    check_sequences,
    delete_mount,
    find_secret,
    holds_secret,
    names_secret,
    prune_journal,
    purge_deleted,
    recount_rollups
  }';
begin
  if level is null or level not in ('reader', 'service', 'operator') then
    raise exception 'there is no level "%"', coalesce(level, 'null')
      using errcode    = 'FS422',
            constraint = 'access_level_check',
            hint       = 'The levels are reader, service and operator.';
  end if;

  return query
  select 'schema', 'filestore', null::text, 'USAGE'
  union all
  select 'table', format('filestore.%I', c.relname), null, 'SELECT'
  from pg_class c
  where c.relnamespace = 'filestore'::regnamespace
    and c.relkind in ('r', 'p', 'v', 'm')
  union all
  select 'function', p.oid::regprocedure::text, null, 'EXECUTE'
  from pg_proc p
  where p.pronamespace = 'filestore'::regnamespace
    and p.proname = any (
      readers
      || case when level in ('service', 'operator') then services end
      || case when level = 'operator' then operators end
    );

  -- Every column that the database does not set itself. No level may update, delete or truncate a whole table, because
  -- that right also permits "lock table ... in access exclusive mode".
  return query
  select 'column', format('filestore.%I', own.table_name), a.attname::text, own.privilege
  from (values
    ('backend_mounts', 'INSERT', '{id,erasing_since,held_by,version,created_at,updated_at}'::text[]),
    ('backend_mounts', 'UPDATE', '{id,backend_kind,erasing_since,held_by,version,created_at,updated_at}'),
    ('nodes', 'INSERT', '{id,root_of_mount_id,parent_live,path,depth,directory_path,live,version,created_at,updated_at,deleted_at}'),
    ('nodes', 'UPDATE', '{id,backend_mount_id,root_of_mount_id,parent_path,parent_live,path,depth,directory_path,kind,live,version,created_at,updated_at}'),
    ('journal_entries', 'INSERT', '{id,result,error,started_at,completed_at,duration_ms,created_at}'),
    ('journal_entries', 'UPDATE', '{id,backend_mount_id,command,executor_kind,principal,request_id,correlation_id,idempotency_key,parameters,'
      'started_at,completed_at,duration_ms,created_at}')
  ) as own (table_name, privilege, columns)
  join pg_attribute a on a.attrelid = format('filestore.%I', own.table_name)::regclass
  where level in ('service', 'operator')
    and a.attnum > 0
    and not a.attisdropped
    and a.attname <> all (own.columns);

  if level = 'operator' then
    return query
    values
      ('column', format('filestore.%I', 'rollups'), 'consistency_state', 'UPDATE');
  end if;
end
$$;

comment on function filestore.access_rights(text) is
  'The rights that a level needs, read from the catalog, so that new tables and columns are included. reader: reads everything. service: also writes mounts, nodes, sightings and the journal, through the guards. operator: a service that may also purge, prune, recount and delete mounts.';

revoke all on function filestore.access_rights(text) from public;
--! EndIncluded functions/access_rights.sql
