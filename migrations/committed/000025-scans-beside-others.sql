--! Previous: sha1:96d36144dacc0aa5d70413454df0bf0bf5825264
--! Hash: sha1:d9c298db0b14cefd1f15f3e7c650482a8c14cd93
--! Message: Scans beside others

--! Included functions/see_nodes_at.sql
create or replace function filestore.see_nodes_at(node_ids bigint[], moments timestamptz[])
returns bigint
-- PL/pgSQL would copy the whole array for each call of width_bucket.
language sql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would read all sightings.
set enable_hashjoin = off
set enable_mergejoin = off
-- The index has the rows in order of id.
set enable_seqscan = off
set enable_bitmapscan = off
-- A custom plan would estimate each id.
set plan_cache_mode = force_generic_plan
as $$
  -- In the order of record_sightings, so that the two do not deadlock: first the nodes without a sighting, then all, each
  -- in order of id. The caller holds the shared tree lock, so none of them is purged.
  insert into filestore.node_sightings (node_id, last_seen_at, last_reconciled_at)
  select n.id, i.moment, i.moment
  from unnest(node_ids, moments) as i (id, moment)
  join filestore.nodes n on n.id = i.id
  -- Usually none is missing, which the count tells faster.
  where (select count(*) from filestore.node_sightings s where s.node_id = any (node_ids)) < cardinality(node_ids)
    and not exists (select from filestore.node_sightings s where s.node_id = i.id)
  order by n.id
  on conflict do nothing;

  with seen as (
    update filestore.node_sightings s
    -- "Greatest": a report that arrives late changes nothing. The bucket of an id is its place in the array. A join takes longer.
    set last_seen_at       = greatest(s.last_seen_at, moments[width_bucket(s.node_id, node_ids)]),
        last_reconciled_at = greatest(s.last_reconciled_at, moments[width_bucket(s.node_id, node_ids)])
    where s.node_id = any (node_ids)
    returning node_id
  )
  select count(*)
  from seen;
$$;

comment on function filestore.see_nodes_at(bigint[], timestamptz[]) is
  'Internal: Records that nodes of one mount, in ascending order of id, were seen and compared with their backend, each at its moment, and returns how many of them exist. The caller holds the shared tree lock.';

revoke all on function filestore.see_nodes_at(bigint[], timestamptz[]) from public;
--! EndIncluded functions/see_nodes_at.sql

--! Included functions/see_nodes.sql
create or replace function filestore.see_nodes(node_ids bigint[], moment timestamptz)
returns integer
language sql
set search_path = pg_catalog, pg_temp
as $$
  select filestore.see_nodes_at(coalesce(array_agg(i.id order by i.id), '{}'), array_fill(moment, array[cardinality(node_ids)]))::integer
  from unnest(node_ids) as i (id)
$$;

comment on function filestore.see_nodes(bigint[], timestamptz) is
  'Internal: Records that nodes of one mount were seen and compared with their backend at one moment, and returns how many of them exist. The caller holds the shared tree lock.';

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
  last bigint;
  done integer := 0;
begin
  if scan.settled is null then
    -- The nodes that the scan changed. Created ones have sightings already, and those of unchanged ones are planned.
    insert into filestore.scan_sightings (scan_id, number, moment, node_ids)
    select scan.id, scan.planned + 10000000000000 + row_number() over (order by p.part, p.listed_at), p.listed_at, p.node_ids
    from (
      select c.node_id / 16384 as part, e.listed_at, array_agg(c.node_id) as node_ids
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
        and c.action in ('move', 'change', 'find')
      group by c.node_id / 16384, e.listed_at
    ) p;
    scan.settled := 0;
  end if;

  for part in
    select g.number, cardinality(g.node_ids) as nodes
    from filestore.scan_sightings g
    where g.scan_id = scan.id
      and g.number > scan.settled
    order by g.number
  loop
    exit when done >= max_nodes;
    last := part.number;
    done := done + part.nodes;
  end loop;
  -- All at once, because the ids of one part are not all above those of the part before it.
  scan.seen := scan.seen + (
    select filestore.see_nodes_at(coalesce(array_agg(i.id order by i.id), '{}'), coalesce(array_agg(g.moment order by i.id), '{}'))
    from filestore.scan_sightings g
    cross join lateral unnest(g.node_ids) as i (id)
    where g.scan_id = scan.id
      and g.number > scan.settled
      and g.number <= last
  );
  scan.settled := coalesce(last, scan.settled);
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

  -- Another caller may have ended the command, as filestore.expire_commands does, or may hold it: then it is left to that.
  begin
    update filestore.journal_entries j
    set status = case new_state when 'canceled' then 'canceled' else 'failed' end,
        error  = jsonb_build_object('code', new_state, 'message', format('scan %s is %s', scan.id, new_state))
    where j.id = (
      select o.id
      from filestore.journal_entries o
      where o.id = scan.journal_entry_ids[cardinality(scan.journal_entry_ids)]
        and o.status = 'running'
        and new_state <> 'finished'
      for update skip locked
    );
  exception
    when sqlstate 'FS409' then
      -- The mount moves or is erased: the command ends on the server that has it.
      null;
  end;

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
