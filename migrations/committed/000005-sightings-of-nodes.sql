--! Previous: sha1:11be3628c17ed6165121bc24fad3a25ad1bddac9
--! Hash: sha1:388be0e77b5cdf7a593c639db178f98c327d8efa
--! Message: Sightings of nodes

-- Heartbeats, apart from nodes: a pass over a tree writes narrow rows here, in place, instead of a new version of
-- every node with all its indexes. No index but the key, so that every update can be HOT.
create table if not exists filestore.node_sightings (
  node_id            bigint         not null,
  last_seen_at       timestamptz(3),
  last_reconciled_at timestamptz(3),

  constraint node_sightings_pkey
    primary key (node_id),
  constraint node_sightings_node_fkey
    foreign key (node_id)
    references filestore.nodes (id)
    on delete cascade
)
-- Half of each page is room for the next pass over all of its rows.
with (
  fillfactor                      = 50,
  autovacuum_vacuum_scale_factor  = 0.05,
  autovacuum_vacuum_cost_delay    = 0
);

comment on table  filestore.node_sightings                    is 'When a node was last seen and last compared with its backend; no row until the first time. A sighting is no change: it does not count as a version.';
comment on column filestore.node_sightings.node_id            is 'The node.';
comment on column filestore.node_sightings.last_seen_at       is 'When a watcher last saw the node on its backend.';
comment on column filestore.node_sightings.last_reconciled_at is 'When a reconciler last compared the node with its backend.';
comment on constraint node_sightings_node_fkey on filestore.node_sightings is 'The node exists, live or as a tombstone; its sighting goes with it.';

--! Included functions/record_sightings.sql
create or replace function filestore.record_sightings(
  node_ids      bigint[],
  seen_at       timestamptz default date_trunc('milliseconds', statement_timestamp()),
  reconciled_at timestamptz default null
)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  recorded integer;
begin
  if exists (
    select
    from unnest(array[seen_at, reconciled_at]) as given (moment)
    where not given.moment between '0001-01-01T00:00:00Z' and clock_timestamp() + interval '1 minute'
  ) then
    raise exception 'a sighting cannot be at %', concat_ws(' or ', seen_at, reconciled_at)
      using errcode    = 'FS422',
            constraint = 'node_sightings_moment_check',
            hint       = 'Give moments in the past, or leave them out.';
  end if;

  -- In order of id: passes that meet do not deadlock.
  insert into filestore.node_sightings as s (node_id, last_seen_at, last_reconciled_at)
  select n.id, seen_at, reconciled_at
  from filestore.nodes n
  where n.id = any (node_ids)
  order by n.id
  on conflict (node_id) do update
  -- The later of the two: a report that arrives late changes nothing.
  set last_seen_at       = greatest(s.last_seen_at, excluded.last_seen_at),
      last_reconciled_at = greatest(s.last_reconciled_at, excluded.last_reconciled_at);
  get diagnostics recorded = row_count;
  return recorded;
end
$$;

comment on function filestore.record_sightings(bigint[], timestamptz, timestamptz) is
  'Records that nodes were seen, and with reconciled_at that they were compared with their backend, and returns how many of them exist. An earlier moment than the recorded one changes nothing. Pass a few thousand ids at once. FS422 for a moment in the future.';

revoke all on function filestore.record_sightings(bigint[], timestamptz, timestamptz) from public;
--! EndIncluded functions/record_sightings.sql

--! Included triggers/node_sightings_refuse_truncate.sql
drop trigger if exists node_sightings_refuse_truncate on filestore.node_sightings;

create trigger node_sightings_refuse_truncate
  before truncate on filestore.node_sightings
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger node_sightings_refuse_truncate on filestore.node_sightings is
  'Truncate would bypass the guards on rows.';
--! EndIncluded triggers/node_sightings_refuse_truncate.sql
