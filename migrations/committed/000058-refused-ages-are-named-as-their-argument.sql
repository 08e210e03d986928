--! Previous: sha1:e85f55840bf6c237b1e6bef8a1bcbfcac978d1a7
--! Hash: sha1:e54b2202a9d5603d809865b4d01106ca610dae6d
--! Message: Refused ages are named as their argument

--! Included functions/check_age.sql
create or replace function filestore.check_age(argument text, age interval)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if age is null or age < interval '0' or age > interval '1000 years' then
    raise exception '% cannot be %', argument, coalesce(age::text, 'null')
      using errcode    = 'FS422',
            constraint = 'retention_check',
            hint       = 'Give an age from 0 to 1000 years, such as interval ''30 days''.';
  end if;
end
$$;

comment on function filestore.check_age(text, interval) is
  'Internal: Raises FS422, which names the argument, when an age is null or out of range.';

revoke all on function filestore.check_age(text, interval) from public;
--! EndIncluded functions/check_age.sql
--! Included functions/check_retention.sql
create or replace function filestore.check_retention(older_than interval, batch integer)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.check_age('older_than', older_than);
  perform filestore.check_limit('batch', batch);
end
$$;

comment on function filestore.check_retention(interval, integer) is
  'Internal: Raises FS422 when an age or the size of a batch is null or out of range.';

revoke all on function filestore.check_retention(interval, integer) from public;
--! EndIncluded functions/check_retention.sql
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
  perform filestore.check_age('expire_after', expire_after);
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
