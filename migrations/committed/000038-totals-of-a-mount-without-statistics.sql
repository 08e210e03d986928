--! Previous: sha1:13e86671dc361ce20bbd12c90e68689c96cb3119
--! Hash: sha1:ec5c7684bc5da1db904751c848fcf30e6b742230
--! Message: Totals of a mount without statistics

--! Included functions/audit_rollups.sql
create or replace function filestore.audit_rollups(mount_key text)
returns table (
  node_id              bigint,
  path                 text,
  size_bytes           numeric,
  file_count           bigint,
  dir_count            bigint,
  child_count          bigint,
  expected_size_bytes  numeric,
  expected_file_count  bigint,
  expected_dir_count   bigint,
  expected_child_count bigint
)
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
-- Without statistics, it would read all mounts to find the nodes of a small one.
set enable_seqscan = off
set jit = off
as $$
declare
  mount_id bigint := filestore.find_mount(audit_rollups.mount_key);
begin
  return query
  -- One snapshot gives both the sums of the live nodes and the folded and pending totals. For a deleted directory,
  -- both should be zero.
  with counted as materialized (
    select t.*
    from (
      select
        array_agg(d.parent_id) as ids,
        array_agg(d.sizes)     as sizes,
        array_agg(d.files)     as files,
        array_agg(d.dirs)      as dirs,
        array_agg(d.children)  as children
      from (
        select
          n.parent_id,
          sum(n.size_bytes)                                    as sizes,
          count(*) filter (where n.directory_path is null)     as files,
          count(*) filter (where n.directory_path is not null) as dirs,
          count(*)                                             as children
        from filestore.nodes n
        where n.backend_mount_id = mount_id
          and n.live
          and n.parent_id is not null
        group by n.parent_id
      ) d
    ) e
    cross join lateral filestore.climb_totals(e.ids, e.sizes, e.files, e.dirs, e.children) x
    cross join lateral unnest(x.directory_ids, x.sizes, x.files, x.dirs, x.children) as t (node_id, size_sum, file_sum, dir_sum, child_sum)
  ),
  compared as (
    select
      n.id,
      n.path,
      r.size_bytes + coalesce(p.size_delta, 0)              as size_bytes,
      (r.file_count + coalesce(p.file_delta, 0))::bigint    as file_count,
      (r.dir_count + coalesce(p.dir_delta, 0))::bigint      as dir_count,
      (r.child_count + coalesce(p.child_delta, 0))::bigint  as child_count,
      coalesce(c.size_sum, 0)                               as expected_size_bytes,
      coalesce(c.file_sum, 0)::bigint                       as expected_file_count,
      coalesce(c.dir_sum, 0)::bigint                        as expected_dir_count,
      coalesce(c.child_sum, 0)::bigint                      as expected_child_count
    from filestore.nodes n
    left join filestore.rollups r on r.node_id = n.id
    left join counted c on c.node_id = n.id
    left join filestore.pending_totals(array[mount_id]) p on p.node_id = n.id
    where n.backend_mount_id = mount_id
      and n.directory_path is not null
  )
  select c.*
  from compared c
  where (c.size_bytes, c.file_count, c.dir_count, c.child_count)
        is distinct from
        (c.expected_size_bytes, c.expected_file_count, c.expected_dir_count, c.expected_child_count)
  order by c.path;
end
$$;

comment on function filestore.audit_rollups(text) is
  'The directories of a mount whose totals differ from the sums of its live nodes. There are none unless triggers were switched off. filestore.recount_rollups corrects them. FS404 when the mount does not exist.';

revoke all on function filestore.audit_rollups(text) from public;
--! EndIncluded functions/audit_rollups.sql

--! Included functions/recount_rollups.sql
create or replace function filestore.recount_rollups(mount_key text)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Without statistics, it would read all mounts to find the nodes of a small one.
set enable_seqscan = off
-- The server would take a plan that has to scan a table for an expensive one, and compile it.
set jit = off
as $$
declare
  mount_id bigint := filestore.find_mount(recount_rollups.mount_key);
  wrong    bigint;
begin
  perform filestore.require_first_write('filestore.recount_rollups');
  perform filestore.lock_tree(mount_id, true);
  -- Rows that arrive later would not count, and the totals would read up_to_date.
  if mount_id = any (filestore.moving_mounts(false)) and not filestore.holds_mount(mount_id) then
    raise exception 'mount "%" is moving, and this server does not take its writes', recount_rollups.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Call filestore.recount_rollups on the server that holds the mount: on the new server, after filestore.receive_mount.';
  end if;

  insert into filestore.rollups (node_id)
  select n.id
  from filestore.nodes n
  where n.backend_mount_id = mount_id
    and n.directory_path is not null
    and not exists (select from filestore.rollups r where r.node_id = n.id)
  order by n.id
  -- The lock keeps the owner from removing these directories at the same time, which would leave totals of no directory.
  for key share of n
  on conflict do nothing;

  -- The difference is added to the folded totals. Pending deltas stay pending, so that creates need not wait.
  update filestore.rollups r
  set size_bytes  = r.size_bytes + a.expected_size_bytes - a.size_bytes,
      file_count  = r.file_count + a.expected_file_count - a.file_count,
      dir_count   = r.dir_count + a.expected_dir_count - a.dir_count,
      child_count = r.child_count + a.expected_child_count - a.child_count,
      updated_at  = date_trunc('milliseconds', statement_timestamp())
  from filestore.audit_rollups(recount_rollups.mount_key) a
  where r.node_id = a.node_id;
  get diagnostics wrong = row_count;

  update filestore.rollups r
  set last_calculated_at = date_trunc('milliseconds', statement_timestamp()),
      consistency_state  = 'up_to_date'
  from filestore.nodes n
  where n.id = r.node_id
    and n.backend_mount_id = mount_id
    and n.directory_path is not null;
  return wrong;
end
$$;

comment on function filestore.recount_rollups(text) is
  'Recounts the totals of a mount''s directories from its live nodes, and returns how many were wrong. It holds the exclusive tree lock: moves and folds of the mount wait, creates do not. FS404 when the mount does not exist, FS409 while it moves and this server does not hold it.';

revoke all on function filestore.recount_rollups(text) from public;
--! EndIncluded functions/recount_rollups.sql
