--! Previous: sha1:e5db2f13c8fc53e3f0e97f681680d9a6be3e08ee
--! Hash: sha1:cd646c7111b2c6405835dad99805ff01c09a6ae9
--! Message: Sightings of nodes

-- Sightings are separate from nodes, so that a pass over a tree updates narrow rows here, and not every node with all its
-- indexes. The key is the only index, so that every update can be HOT. Only record_sightings and record_write_sighting
-- write here: they keep a node from being purged at the same time.
create table if not exists filestore.node_sightings (
  node_id            bigint         not null,
  last_seen_at       timestamptz(3),
  last_reconciled_at timestamptz(3),

  constraint node_sightings_pkey
    primary key (node_id)
)
-- Half of each page stays free, for the next pass over all of its rows.
with (
  fillfactor                      = 50,
  autovacuum_vacuum_scale_factor  = 0.05,
  autovacuum_vacuum_cost_delay    = 0
);

comment on table  filestore.node_sightings                    is 'When a node was last seen and last compared with its backend; no row until the first time. A sighting does not change the version of the node.';
comment on column filestore.node_sightings.node_id            is 'The node.';
comment on column filestore.node_sightings.last_seen_at       is 'When a watcher last saw the node on its backend.';
comment on column filestore.node_sightings.last_reconciled_at is 'When a reconciler last compared the node with its backend.';

--! Included functions/check_sighting_moment.sql
create or replace function filestore.check_sighting_moment(moment timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if not moment between '0001-01-01T00:00:00Z' and clock_timestamp() + interval '1 minute' then
    raise exception 'a sighting cannot be at %', moment
      using errcode    = 'FS422',
            constraint = 'node_sightings_moment_check',
            hint       = 'Give a moment in the past, or leave it out.';
  end if;
end
$$;

comment on function filestore.check_sighting_moment(timestamptz) is
  'Internal: Raises FS422 when the moment of a sighting is in the future or before year 1.';

revoke all on function filestore.check_sighting_moment(timestamptz) from public;
--! EndIncluded functions/check_sighting_moment.sql
--! Included functions/record_sightings.sql
create or replace function filestore.record_sightings(
  node_ids      bigint[],
  seen_at       timestamptz default date_trunc('milliseconds', statement_timestamp()),
  reconciled_at timestamptz default null
)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  added_ids bigint[];
  updated   integer;
begin
  -- One test for the usual moments. It is null when both are.
  if (least(seen_at, reconciled_at) >= '0001-01-01T00:00:00Z' and greatest(seen_at, reconciled_at) <= clock_timestamp() + interval '1 minute') is not true then
    if seen_at is null and reconciled_at is null then
      raise exception 'a sighting has no moment'
        using errcode    = 'FS422',
              constraint = 'node_sightings_moment_check',
              hint       = 'Give seen_at, reconciled_at, or both. If both are left out, seen_at is now.';
    end if;
    perform filestore.check_sighting_moment(seen_at);
    perform filestore.check_sighting_moment(reconciled_at);
  end if;

  -- The usual call for one node. Nothing is locked yet when the node was not seen before.
  if cardinality(node_ids) = 1 then
    update filestore.node_sightings s
    set last_seen_at       = greatest(s.last_seen_at, seen_at),
        last_reconciled_at = greatest(s.last_reconciled_at, reconciled_at)
    where s.node_id = node_ids[1];
    if found then
      return 1;
    end if;
  end if;

  -- The insert below locks each node that was not seen before, so that it cannot be purged at the same time. Locks on
  -- several directories can deadlock with a move, hence the tree locks. Later sightings do not need them, except those of
  -- tombstones: a purge locks the sightings of directories after those of the nodes below them.
  perform filestore.lock_trees(array(
    select distinct n.backend_mount_id
    from filestore.nodes n
    where n.id = any (node_ids)
      -- One lookup for each node. A join could read all sightings.
      and (not n.live or (select s.node_id from filestore.node_sightings s where s.node_id = n.id) is null)
  ));

  -- In order of id, so that concurrent calls do not deadlock.
  with added as (
    insert into filestore.node_sightings (node_id, last_seen_at, last_reconciled_at)
    select n.id, seen_at, reconciled_at
    from filestore.nodes n
    where n.id = any (node_ids)
      and not exists (select from filestore.node_sightings s where s.node_id = n.id)
    order by n.id
    for key share of n
    on conflict do nothing
    returning node_id
  )
  select coalesce(array_agg(a.node_id), '{}')
  into added_ids
  from added a;

  update filestore.node_sightings s
  -- "Greatest": a report that arrives late changes nothing.
  set last_seen_at       = greatest(s.last_seen_at, seen_at),
      last_reconciled_at = greatest(s.last_reconciled_at, reconciled_at)
  from (
    select k.node_id
    from filestore.node_sightings k
    where k.node_id = any (node_ids)
      and k.node_id <> all (added_ids)
    order by k.node_id
    for no key update
  ) known
  where s.node_id = known.node_id;
  get diagnostics updated = row_count;
  return cardinality(added_ids) + updated;
end
$$;

comment on function filestore.record_sightings(bigint[], timestamptz, timestamptz) is
  'Records when nodes were seen, and with reconciled_at when they were compared with their backend. Returns how many of them exist. An earlier moment than the recorded one changes nothing. Pass a few thousand ids at once, of at most 100 mounts, in a separate transaction. FS422 for a moment in the future, and for first sightings, or those of deleted nodes, on more mounts.';

revoke all on function filestore.record_sightings(bigint[], timestamptz, timestamptz) from public;
--! EndIncluded functions/record_sightings.sql
--! Included functions/record_write_sighting.sql
create or replace function filestore.record_write_sighting(node_id bigint, seen_at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.check_sighting_moment(seen_at);

  -- The tree lock must be taken before any row of the mount, and the caller has already written the node. It is not
  -- needed: the caller holds the lock on the node's row, so this statement does not wait for it.
  insert into filestore.node_sightings as s (node_id, last_seen_at)
  select n.id, seen_at
  from filestore.nodes n
  where n.id = record_write_sighting.node_id
    and seen_at is not null
  for key share
  on conflict on constraint node_sightings_pkey do update
  -- "Greatest": a report that arrives late changes nothing.
  set last_seen_at = greatest(s.last_seen_at, excluded.last_seen_at);
end
$$;

comment on function filestore.record_write_sighting(bigint, timestamptz) is
  'Internal: Records a sighting of a node that the same transaction has just written, for filestore.create_node and filestore.upsert_file. For all other nodes, use filestore.record_sightings.';

revoke all on function filestore.record_write_sighting(bigint, timestamptz) from public;
--! EndIncluded functions/record_write_sighting.sql
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
--! Included functions/remove_node_records.sql
create or replace function filestore.remove_node_records()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Arrays: a plan that joins the transition table keeps the row estimate of the session's first statement.
  node_ids      bigint[] := array(select r.id from removed r);
  directory_ids bigint[] := array(select r.id from removed r where r.directory_path is not null);
begin
  delete from filestore.snapshots s
  where s.id = any (node_ids);
  delete from filestore.rollups r
  where r.node_id = any (directory_ids);
  -- In order of id, as in record_sightings, so that the two do not deadlock.
  perform
  from filestore.node_sightings s
  where s.node_id = any (node_ids)
  order by s.node_id
  for update;
  delete from filestore.node_sightings s
  where s.node_id = any (node_ids);
  return null;
end
$$;

comment on function filestore.remove_node_records() is
  'Removes the history, totals and sightings of removed nodes, for all rows of a statement at once. Foreign keys with a cascade would run three statements per node, and a lookup for every new version.';

revoke all on function filestore.remove_node_records() from public;
--! EndIncluded functions/remove_node_records.sql

--! Included triggers/nodes_remove_records.sql
drop trigger if exists nodes_remove_records on filestore.nodes;

create trigger nodes_remove_records
  after delete on filestore.nodes
  referencing old table as removed
  for each statement
  execute function filestore.remove_node_records();

comment on trigger nodes_remove_records on filestore.nodes is
  'Removes the history, totals and sightings of a removed node.';
--! EndIncluded triggers/nodes_remove_records.sql
--! Included triggers/node_sightings_refuse_truncate.sql
drop trigger if exists node_sightings_refuse_truncate on filestore.node_sightings;

create trigger node_sightings_refuse_truncate
  before truncate on filestore.node_sightings
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger node_sightings_refuse_truncate on filestore.node_sightings is
  'Refuses truncate, which would bypass the triggers that guard rows.';
--! EndIncluded triggers/node_sightings_refuse_truncate.sql
