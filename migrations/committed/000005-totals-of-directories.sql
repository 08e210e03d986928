--! Previous: sha1:1c78cc3e7090cbd116d942b137793c8262840fb0
--! Hash: sha1:e5db2f13c8fc53e3f0e97f681680d9a6be3e08ee
--! Message: Totals of directories

-- The state that readers return. In rollups itself, no row is pending.
do $$
begin
  if to_regtype('filestore.totals_state') is null then
    create domain filestore.totals_state as text collate "C"
      constraint totals_state_check check (value in ('up_to_date', 'pending', 'stale'));
  end if;
end
$$;

comment on domain filestore.totals_state is 'State of a directory''s totals: folded completely, with pending deltas added, or known to need a recount.';

-- A total may be negative until all deltas are folded: no check. The counters change at every fold: no index.
create table if not exists filestore.rollups (
  node_id            bigint         not null,
  -- Numeric, so that a sum of sizes cannot overflow and stop a fold.
  size_bytes         numeric        not null default 0,
  file_count         bigint         not null default 0,
  dir_count          bigint         not null default 0,
  child_count        bigint         not null default 0,
  consistency_state  text           not null default 'up_to_date',
  last_calculated_at timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),
  updated_at         timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),

  constraint rollups_pkey
    primary key (node_id),
  constraint rollups_consistency_state_check
    check (consistency_state in ('up_to_date', 'stale'))
)
-- Leaves room on each page for the next versions of its rows, so that every fold is a HOT update.
with (fillfactor = 70);

comment on table  filestore.rollups                    is 'Folded totals of the live nodes in the whole subtree below a directory (itself not counted), and the number of its children. Pending deltas are not included.';
comment on column filestore.rollups.node_id            is 'The directory.';
comment on column filestore.rollups.size_bytes         is 'Sum of size_bytes of the files below.';
comment on column filestore.rollups.file_count         is 'Number of files below.';
comment on column filestore.rollups.dir_count          is 'Number of directories below.';
comment on column filestore.rollups.child_count        is 'Number of files and directories directly in it.';
comment on column filestore.rollups.consistency_state  is 'up_to_date, or stale when the totals are known to need a recount.';
comment on column filestore.rollups.last_calculated_at is 'When the totals were last recounted from the nodes.';
comment on column filestore.rollups.updated_at         is 'When the totals last changed.';

-- Appended, never updated: a counter on each directory would be a hot row that every writer locks. No foreign key: an
-- append must not lock its directory.
create table if not exists filestore.rollup_deltas (
  -- These ids never leave the database, so they have no range for each database, and do not run out.
  id               bigint  generated always as identity,
  backend_mount_id bigint  not null,
  directory_id     bigint  not null,
  size_delta       numeric not null,
  file_delta       bigint  not null,
  dir_delta        bigint  not null,
  child_delta      bigint  not null,

  constraint rollup_deltas_pkey
    primary key (id)
)
-- The table is a queue: millions of rows come and go, and readers scan dead rows until vacuum removes them. So vacuum
-- starts after a fixed number of rows, and does not pause.
with (
  autovacuum_vacuum_scale_factor  = 0,
  autovacuum_vacuum_threshold     = 5000,
  autovacuum_vacuum_cost_delay    = 0,
  autovacuum_analyze_scale_factor = 0,
  autovacuum_analyze_threshold    = 50000
);

comment on table  filestore.rollup_deltas                  is 'Pending changes of totals. A fold adds each of them to the rollups row of its directory and of every directory above it.';
comment on column filestore.rollup_deltas.id               is 'Number of the delta.';
comment on column filestore.rollup_deltas.backend_mount_id is 'Mount of the directory.';
comment on column filestore.rollup_deltas.directory_id     is 'The directory below which something changed.';
comment on column filestore.rollup_deltas.size_delta       is 'Bytes that were added; negative when removed.';
comment on column filestore.rollup_deltas.file_delta       is 'Files that were added; negative when removed.';
comment on column filestore.rollup_deltas.dir_delta        is 'Directories that were added; negative when removed.';
comment on column filestore.rollup_deltas.child_delta      is 'Children that the directory itself gained; negative when it lost some. Not added to the directories above.';

--! Included functions/require_first_write.sql
create or replace function filestore.require_first_write(action text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.require_read_committed(action);
  -- Deltas are appended by triggers at the end of a statement. Inside a statement that writes nodes (in "returning"),
  -- the caller would miss them.
  if pg_current_xact_id_if_assigned() is not null then
    raise exception '% must be the first to write in its transaction', action
      using errcode    = 'FS409',
            constraint = 'first_write_check',
            hint       = 'Call it in a separate transaction, before any write.';
  end if;
end
$$;

comment on function filestore.require_first_write(text) is
  'Internal: Raises FS409 in a transaction that has written something, or is not READ COMMITTED.';

revoke all on function filestore.require_first_write(text) from public;
--! EndIncluded functions/require_first_write.sql
--! Included functions/record_created_node.sql
create or replace function filestore.record_created_node()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.directory_path is null then
    insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
    values (new.backend_mount_id, new.parent_id, new.size_bytes, 1, 0, 1);
    return null;
  end if;
  insert into filestore.rollups (node_id)
  values (new.id);
  if new.parent_id is not null then
    insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
    values (new.backend_mount_id, new.parent_id, 0, 0, 1, 1);
  end if;
  return null;
end
$$;

comment on function filestore.record_created_node() is
  'Appends a delta that adds a new node to the totals of the directories above it. Creates the row of totals of a new directory.';

revoke all on function filestore.record_created_node() from public;
--! EndIncluded functions/record_created_node.sql
--! Included functions/record_node_update.sql
create or replace function filestore.record_node_update()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  sign         bigint;
  is_file      integer;
  is_directory integer;
  was_live     integer;
  is_live      integer;
  below        filestore.rollups;
begin
  if new.version <> old.version then
    -- snapshots has three extra columns first, and then those of nodes in the same order.
    insert into filestore.snapshots
    select
      old.updated_at,
      new.updated_at,
      case when current_setting('filestore.journal_entry_id', true) <> '' then filestore.current_journal_entry() end,
      old.*;
  end if;

  if new.parent_id = old.parent_id then
    if new.live and old.live then
      if new.size_bytes <> old.size_bytes then
        insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
        values (new.backend_mount_id, new.parent_id, new.size_bytes - old.size_bytes, 0, 0, 0);
      end if;
    elsif new.live or old.live then
      sign := case when new.live then 1 else -1 end;
      insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
      values (
        new.backend_mount_id,
        new.parent_id,
        case when new.live then new.size_bytes else -old.size_bytes end,
        case when new.directory_path is null then sign else 0 end,
        case when new.directory_path is null then 0 else sign end,
        sign
      );
    end if;
    return null;
  elsif new.parent_id is null then
    -- A root is never moved or deleted.
    return null;
  end if;

  if not old.live then
    -- The delta starts at the old parent, which is deleted too and may be purged.
    perform
    from filestore.nodes n
    where n.id = old.parent_id
    for key share;
    if not found then
      raise exception 'node % ("%") cannot be restored to another directory: its old parent % does not exist any more', old.id, old.path, old.parent_id
        using errcode    = 'FS404',
              constraint = 'nodes_parent_missing',
              hint       = 'Create a new node instead: the old parent was purged.';
    end if;
  end if;

  is_file      := (new.directory_path is null)::integer;
  is_directory := (new.directory_path is not null)::integer;
  was_live     := old.live::integer;
  is_live      := new.live::integer;
  -- A moved directory takes its folded totals along. Its pending deltas are added above the new place later. child_count
  -- stays with the directory. With "for share", a REPEATABLE READ transaction fails rather than read old totals.
  if is_directory = 1 then
    select *
    into strict below
    from filestore.rollups r
    where r.node_id = new.id
    for share;
  end if;

  insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
  select d.*
  from (values
    (
      old.backend_mount_id,
      old.parent_id,
      -(old.size_bytes * was_live + coalesce(below.size_bytes, 0)),
      -(is_file * was_live + coalesce(below.file_count, 0)),
      -(is_directory * was_live + coalesce(below.dir_count, 0)),
      -was_live
    ),
    (
      new.backend_mount_id,
      new.parent_id,
      new.size_bytes * is_live + coalesce(below.size_bytes, 0),
      is_file * is_live + coalesce(below.file_count, 0),
      is_directory * is_live + coalesce(below.dir_count, 0),
      is_live
    )
  ) d (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
  where (d.size_delta, d.file_delta, d.dir_delta, d.child_delta) <> (0, 0, 0, 0);
  return null;
end
$$;

comment on function filestore.record_node_update() is
  'Writes the superseded version of a node to snapshots. Appends deltas when its size or parent changes, or when it is deleted or restored, for the totals of the directories above it.';

revoke all on function filestore.record_node_update() from public;
--! EndIncluded functions/record_node_update.sql
--! Included functions/guard_totals.sql
create or replace function filestore.guard_totals()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  erasing       bigint[] := filestore.erasing_mounts();
  directory_ids bigint[] := array(
    select r.id
    from removed r
    where r.directory_path is not null
      and r.backend_mount_id <> all (erasing)
  );
  directory_id  bigint;
begin
  if directory_ids = '{}' then
    return null;
  end if;
  -- An older snapshot would miss deltas that were appended later.
  perform filestore.require_read_committed('removing directories');
  select d.directory_id
  into directory_id
  from filestore.rollup_deltas d
  where d.directory_id = any (directory_ids)
  limit 1;

  if found then
    raise exception 'directory % cannot be removed: totals below it are not folded yet', directory_id
      using errcode    = 'FS409',
            constraint = 'rollup_deltas_pending',
            hint       = 'Call filestore.fold_rollups() until it returns 0. filestore.purge_deleted skips such directories.';
  end if;
  return null;
end
$$;

comment on function filestore.guard_totals() is
  'Refuses to remove a directory that has pending deltas: they could not be added to the directories above it any more. Those of a mount that is being erased do not count.';

revoke all on function filestore.guard_totals() from public;
--! EndIncluded functions/guard_totals.sql
--! Included functions/real_depths.sql
create or replace function filestore.real_depths(directory_ids bigint[])
returns integer[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set jit = off
-- A generic plan expects short arrays, and compares every pair.
set plan_cache_mode = force_custom_plan
as $$
declare
  -- For each directory from the given ones up to their roots: one directory above it, and how many levels above. A root
  -- has none.
  ids       bigint[];
  ancestors bigint[];
  distances integer[];
begin
  with recursive above (id, parent_id) as (
    select n.id, n.parent_id
    from filestore.nodes n
    where n.id = any (directory_ids)
    union
    select n.id, n.parent_id
    from above a
    cross join lateral (
      select p.id, p.parent_id
      from filestore.nodes p
      where p.id = a.parent_id
      offset 0
    ) n
  )
  select array_agg(a.id), array_agg(a.parent_id), array_agg(case when a.parent_id is null then 0 else 1 end)
  into ids, ancestors, distances
  from above a;

  -- Each round doubles the distances, so deep chains take few rounds. In a ring, they would grow forever.
  for round in 1 .. 30 loop
    exit when array_remove(ancestors, null) = '{}';
    select
      array_agg(d.id),
      array_agg(a.ancestor),
      array_agg(d.distance + coalesce(a.distance, 0))
    into ids, ancestors, distances
    from unnest(ids, ancestors, distances) as d (id, ancestor, distance)
    left join unnest(ids, ancestors, distances) as a (id, ancestor, distance) on a.id = d.ancestor;
  end loop;

  return array(
    select case when d.ancestor is null then d.distance end
    from unnest(directory_ids) with ordinality as g (id, place)
    left join unnest(ids, ancestors, distances) as d (id, ancestor, distance) on d.id = g.id
    order by g.place
  );
end
$$;

comment on function filestore.real_depths(bigint[]) is
  'Internal: How many directories are above each of the given ones, in their order; null where the parents do not lead to a root. A directory that was deleted before one above it moved has another depth in its row.';

revoke all on function filestore.real_depths(bigint[]) from public;
--! EndIncluded functions/real_depths.sql
--! Included functions/climb_totals.sql
create or replace function filestore.climb_totals(
  inout directory_ids bigint[],
  inout sizes         numeric[],
  inout files         numeric[],
  inout dirs          numeric[],
  inout children      numeric[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  -- The parent and the level of each directory that has not climbed yet. Null for the others.
  parents bigint[];
  levels  integer[];
  lowest  integer;
  -- How many levels a round adds up.
  height  integer := 32;
  is_real boolean := false;
begin
  if directory_ids is null then
    return;
  end if;

  select array_agg(n.parent_id), array_agg(n.depth), max(n.depth)
  into parents, levels, lowest
  from unnest(directory_ids) as d (id)
  -- "Offset 0" keeps this a lookup by id, also when statistics are stale.
  left join lateral (
    select f.parent_id, f.depth
    from filestore.nodes f
    where f.id = d.id
    offset 0
  ) n on true;

  -- A round adds up the deepest levels, and leaves one entry for each directory of the level above them. So the work
  -- grows with the number of directories, not with their depth. Most trees take one round.
  loop
    lowest := lowest - height;
    with recursive entries (id, parent_id, level, size_delta, file_delta, dir_delta, child_delta) as (
      select *
      from unnest(directory_ids, parents, levels, sizes, files, dirs, children)
    ),
    climbing (id, parent_id, level, size_delta, file_delta, dir_delta, is_given) as (
      select e.id, e.parent_id, e.level, e.size_delta, e.file_delta, e.dir_delta, true
      from entries e
      where e.level > lowest
      union all
      select m.parent_id, p.parent_id, m.level - 1, m.size_delta, m.file_delta, m.dir_delta, false
      from (
        -- All that reach a directory at once climb on as one row. A recursive query allows no aggregate here, but a window.
        select
          c.parent_id,
          c.level,
          sum(c.size_delta) over same as size_delta,
          sum(c.file_delta) over same as file_delta,
          sum(c.dir_delta) over same  as dir_delta,
          row_number() over same      as place
        from climbing c
        where c.parent_id is not null
          and c.level > lowest
        window same as (partition by c.parent_id)
      ) m
      left join lateral (
        select n.parent_id
        from filestore.nodes n
        where n.id = m.parent_id
        offset 0
      ) p on true
      where m.place = 1
    ),
    totals as (
      select
        a.id,
        min(a.parent_id)   as parent_id,
        min(a.level)       as level,
        sum(a.size_delta)  as size_delta,
        sum(a.file_delta)  as file_delta,
        sum(a.dir_delta)   as dir_delta,
        sum(a.child_delta) as child_delta
      from (
        select e.id, e.parent_id, case when e.level <= lowest then e.level end as level, e.size_delta, e.file_delta, e.dir_delta, e.child_delta
        from entries e
        union all
        -- child_count concerns the directory itself, not those above it.
        select c.id, c.parent_id, case when c.level <= lowest then c.level end, c.size_delta, c.file_delta, c.dir_delta, 0
        from climbing c
        where not c.is_given
      ) a
      group by a.id, a.level is null
    )
    select
      array_agg(t.id),
      array_agg(t.parent_id),
      array_agg(t.level),
      array_agg(t.size_delta),
      array_agg(t.file_delta),
      array_agg(t.dir_delta),
      array_agg(t.child_delta)
    into directory_ids, parents, levels, sizes, files, dirs, children
    from totals t;
    continue when lowest >= 0;
    exit when is_real or coalesce(array_remove(levels, null), '{}') = '{}';
    -- A directory that was deleted before one above it moved is deeper than its own depth says. One that is below itself
    -- climbs no further.
    is_real := true;
    levels := filestore.real_depths(array(
      select case when e.level is not null then e.id end
      from unnest(directory_ids, levels) with ordinality as e (id, level, place)
      order by e.place
    ));
    lowest := (select max(l.level) from unnest(levels) as l (level));
    -- A round reads all entries, and each of them climbs up to so many levels.
    height := greatest(height, sqrt(2 * lowest));
  end loop;
end
$$;

comment on function filestore.climb_totals(bigint[], numeric[], numeric[], numeric[], numeric[]) is
  'Internal: Adds changes of totals, one entry for each directory, to every directory above them, and returns one entry for each directory that they concern. Null when there are none.';

revoke all on function filestore.climb_totals(bigint[], numeric[], numeric[], numeric[], numeric[]) from public;
--! EndIncluded functions/climb_totals.sql
--! Included functions/pending_totals.sql
create or replace function filestore.pending_totals(mount_ids bigint[])
returns table (node_id bigint, size_delta numeric, file_delta numeric, dir_delta numeric, child_delta numeric)
language plpgsql
stable
rows 1000
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  with recursive climbing (step, id, size_delta, file_delta, dir_delta, child_delta) as (
    select 0, d.directory_id, sum(d.size_delta), sum(d.file_delta), sum(d.dir_delta), sum(d.child_delta)
    from filestore.rollup_deltas d
    where mount_ids is null
       or d.backend_mount_id = any (mount_ids)
    group by d.directory_id
    union all
    -- All that reach a directory at once climb on as one row. A recursive query allows no aggregate here, but a window.
    -- child_count concerns the directory itself, not those above it.
    select m.step + 1, m.parent_id, m.size_delta, m.file_delta, m.dir_delta, 0
    from (
      select
        c.step,
        p.parent_id,
        sum(c.size_delta) over same as size_delta,
        sum(c.file_delta) over same as file_delta,
        sum(c.dir_delta) over same  as dir_delta,
        row_number() over same      as place
      from climbing c
      -- "Offset 0" keeps this a lookup by id, also when statistics are stale.
      cross join lateral (
        select n.parent_id
        from filestore.nodes n
        where n.id = c.id
        offset 0
      ) p
      where p.parent_id is not null
        and c.step < 32
      window same as (partition by p.parent_id)
    ) m
    where m.place = 1
  ),
  last (step) as (
    select max(c.step)
    from climbing c
  )
  select c.id, sum(c.size_delta), sum(c.file_delta), sum(c.dir_delta), sum(c.child_delta)
  from climbing c
  where (select l.step from last l) < 32
  group by c.id
  union all
  -- In a deep tree, each of them would climb past the same directories.
  select t.*
  from (
    select
      array_agg(c.id)          as ids,
      array_agg(c.size_delta)  as sizes,
      array_agg(c.file_delta)  as files,
      array_agg(c.dir_delta)   as dirs,
      array_agg(c.child_delta) as children
    from climbing c
    where c.step = 0
      and (select l.step from last l) = 32
    having count(*) > 0
  ) e
  cross join lateral filestore.climb_totals(e.ids, e.sizes, e.files, e.dirs, e.children) c
  cross join lateral unnest(c.directory_ids, c.sizes, c.files, c.dirs, c.children) t;
end
$$;

comment on function filestore.pending_totals(bigint[]) is
  'Internal: What the pending deltas of the mounts, or of all when it is null, add to the totals of each directory that they concern.';

revoke all on function filestore.pending_totals(bigint[]) from public;
--! EndIncluded functions/pending_totals.sql
--! Included functions/fold_rollups.sql
create or replace function filestore.fold_rollups(max_deltas integer default 10000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  -- Their directories are removed in any order, and the deltas with them.
  erasing   bigint[] := filestore.erasing_mounts();
  mount_ids bigint[];
  taken     integer;
  node_ids  bigint[];
  sizes     numeric[];
  files     numeric[];
  dirs      numeric[];
  children  numeric[];
  changed   bigint;
begin
  perform filestore.require_first_write('filestore.fold_rollups');
  perform filestore.check_limit('max_deltas', max_deltas);

  -- All transactions of the server share its table of locks, hence the limit. The mounts of the oldest deltas come first,
  -- and the next call takes the next ones.
  mount_ids := array(
    select d.backend_mount_id
    from (
      select r.id, r.backend_mount_id
      from filestore.rollup_deltas r
      where r.backend_mount_id <> all (erasing)
      order by r.id
      limit max_deltas
    ) d
    group by d.backend_mount_id
    order by min(d.id)
    limit 100
  );
  perform filestore.lock_trees(mount_ids);

  -- A separate statement after the locks, so that it sees the locked tree. It never takes "all ids up to this one",
  -- because a delta with a smaller id may commit later.
  with taken_deltas as (
    delete from filestore.rollup_deltas d
    where d.ctid = any (array(
      select r.ctid
      from filestore.rollup_deltas r
      where r.backend_mount_id = any (mount_ids)
      order by r.id
      limit max_deltas
      for update skip locked
    ))
    returning d.directory_id, d.size_delta, d.file_delta, d.dir_delta, d.child_delta
  )
  select
    coalesce(sum(c.deltas), 0),
    array_agg(c.directory_id),
    array_agg(c.size_delta),
    array_agg(c.file_delta),
    array_agg(c.dir_delta),
    array_agg(c.child_delta)
  into taken, node_ids, sizes, files, dirs, children
  from (
    select
      t.directory_id,
      sum(t.size_delta)  as size_delta,
      sum(t.file_delta)  as file_delta,
      sum(t.dir_delta)   as dir_delta,
      sum(t.child_delta) as child_delta,
      count(*)           as deltas
    from taken_deltas t
    group by t.directory_id
  ) c;

  select c.*
  into node_ids, sizes, files, dirs, children
  from filestore.climb_totals(node_ids, sizes, files, dirs, children) c;

  -- In order of id, so that concurrent folds do not deadlock.
  perform
  from filestore.rollups r
  where r.node_id = any (node_ids)
  order by r.node_id
  for no key update;

  update filestore.rollups r
  set size_bytes  = r.size_bytes + t.size_delta,
      file_count  = r.file_count + t.file_delta,
      dir_count   = r.dir_count + t.dir_delta,
      child_count = r.child_count + t.child_delta,
      updated_at  = date_trunc('milliseconds', statement_timestamp())
  from unnest(node_ids, sizes, files, dirs, children) as t (node_id, size_delta, file_delta, dir_delta, child_delta)
  where r.node_id = t.node_id;

  get diagnostics changed = row_count;
  if changed <> coalesce(cardinality(node_ids), 0) then
    raise exception '% directories have totals to change, but only % of them have a row in rollups', cardinality(node_ids), changed
      using errcode    = 'FS409',
            constraint = 'rollups_missing',
            hint       = 'Call filestore.fold_rollups again. If it fails again, list the directories with filestore.check_integrity() and call filestore.recount_rollups.';
  end if;
  return taken;
end
$$;

comment on function filestore.fold_rollups(integer) is
  'Adds at most max_deltas pending deltas, of at most 100 mounts, to the totals of every directory above them, and returns how many; 0 when none are left, or another fold has locked them. The totals that filestore.directory_totals returns do not change: reading them becomes cheaper.';

revoke all on function filestore.fold_rollups(integer) from public;
--! EndIncluded functions/fold_rollups.sql
--! Included functions/directory_totals.sql
create or replace function filestore.directory_totals(node_id bigint)
returns table (size_bytes numeric, file_count bigint, dir_count bigint, child_count bigint, consistency_state filestore.totals_state)
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  directory filestore.nodes;
  pending   record;
begin
  -- In a stable function, all statements read one snapshot, so the folded and the pending part belong together.
  select *
  into directory
  from filestore.nodes n
  where n.id = directory_totals.node_id;

  if directory.parent_id is null then
    -- For a root: all pending deltas of the mount are below it.
    return query
    select
      r.size_bytes + coalesce(p.size_delta, 0),
      (r.file_count + coalesce(p.file_delta, 0))::bigint,
      (r.dir_count + coalesce(p.dir_delta, 0))::bigint,
      (r.child_count + coalesce(p.child_delta, 0))::bigint,
      (case when r.consistency_state = 'stale' then 'stale' when p.deltas > 0 then 'pending' else 'up_to_date' end)::filestore.totals_state
    from filestore.rollups r
    cross join (
      select
        sum(d.size_delta) as size_delta,
        sum(d.file_delta) as file_delta,
        sum(d.dir_delta)  as dir_delta,
        sum(d.child_delta) filter (where d.directory_id = directory.id) as child_delta,
        count(*)          as deltas
      from filestore.rollup_deltas d
      where d.backend_mount_id = directory.backend_mount_id
    ) p
    where r.node_id = directory_totals.node_id;
    return;
  end if;

  -- A delta is below the directory when its path is, which is one lookup for each directory with deltas.
  select
    sum(d.size_delta) filter (where n.is_below)               as size_delta,
    sum(d.file_delta) filter (where n.is_below)               as file_delta,
    sum(d.dir_delta) filter (where n.is_below)                as dir_delta,
    sum(d.child_delta) filter (where d.node_id = directory.id) as child_delta,
    coalesce(bool_or(n.is_below), false)                      as is_pending,
    bool_and(n.live) and directory.live                       as is_known
  into pending
  from (
    select
      r.directory_id     as node_id,
      sum(r.size_delta)  as size_delta,
      sum(r.file_delta)  as file_delta,
      sum(r.dir_delta)   as dir_delta,
      sum(r.child_delta) as child_delta
    from filestore.rollup_deltas r
    where r.backend_mount_id = directory.backend_mount_id
    group by r.directory_id
  ) d
  -- "Offset 0" keeps this a lookup by id, also when statistics are stale.
  cross join lateral (
    select f.live, f.path = directory.path or (f.path >= directory.path || '/' and f.path < directory.path || '0') as is_below
    from filestore.nodes f
    where f.id = d.node_id
    offset 0
  ) n;

  -- The path of a deleted directory stays as it was, also when its parent moves.
  if not pending.is_known then
    select t.*, true as is_pending
    into pending
    from filestore.pending_totals(array[directory.backend_mount_id]) t
    where t.node_id = directory.id;
  end if;

  return query
  select
    r.size_bytes + coalesce(pending.size_delta, 0),
    (r.file_count + coalesce(pending.file_delta, 0))::bigint,
    (r.dir_count + coalesce(pending.dir_delta, 0))::bigint,
    (r.child_count + coalesce(pending.child_delta, 0))::bigint,
    (case when r.consistency_state = 'stale' then 'stale' when pending.is_pending then 'pending' else 'up_to_date' end)::filestore.totals_state
  from filestore.rollups r
  where r.node_id = directory.id;
end
$$;

comment on function filestore.directory_totals(bigint) is
  'The totals of a directory''s whole subtree, and child_count, the number of live nodes directly in it. They are exact at this moment: the folded totals plus the pending deltas. consistency_state is pending when there are pending deltas, and stale while the totals are known to need filestore.recount_rollups. No row when there is no such directory. For several directories, filestore.list_totals is faster.';

revoke all on function filestore.directory_totals(bigint) from public;
--! EndIncluded functions/directory_totals.sql
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

--! Included triggers/nodes_record_created.sql
drop trigger if exists nodes_record_created on filestore.nodes;

-- A row trigger: faster with 8 and 32 writers of single rows. A statement trigger would be faster for bulk loads.
create trigger nodes_record_created
  after insert on filestore.nodes
  for each row
  execute function filestore.record_created_node();

comment on trigger nodes_record_created on filestore.nodes is
  'Adds a new node to the totals of the directories above it.';
--! EndIncluded triggers/nodes_record_created.sql
--! Included triggers/nodes_record_update.sql
drop trigger if exists nodes_record_update on filestore.nodes;

-- One trigger for both history and totals, without "when": every update pays for each further trigger and for the text
-- of each condition. A row trigger, because transition tables would first copy every row.
create trigger nodes_record_update
  after update on filestore.nodes
  for each row
  execute function filestore.record_node_update();

comment on trigger nodes_record_update on filestore.nodes is
  'Writes the superseded version to snapshots, and updates the totals of the directories above a node.';
--! EndIncluded triggers/nodes_record_update.sql
--! Included triggers/nodes_guard_totals.sql
drop trigger if exists nodes_guard_totals on filestore.nodes;

create trigger nodes_guard_totals
  after delete on filestore.nodes
  referencing old table as removed
  for each statement
  execute function filestore.guard_totals();

comment on trigger nodes_guard_totals on filestore.nodes is
  'Refuses to remove a directory that has pending deltas.';
--! EndIncluded triggers/nodes_guard_totals.sql
--! Included triggers/rollups_refuse_truncate.sql
drop trigger if exists rollups_refuse_truncate on filestore.rollups;

create trigger rollups_refuse_truncate
  before truncate on filestore.rollups
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger rollups_refuse_truncate on filestore.rollups is
  'Refuses truncate, which would bypass the triggers that guard rows.';
--! EndIncluded triggers/rollups_refuse_truncate.sql
--! Included triggers/rollup_deltas_refuse_truncate.sql
drop trigger if exists rollup_deltas_refuse_truncate on filestore.rollup_deltas;

create trigger rollup_deltas_refuse_truncate
  before truncate on filestore.rollup_deltas
  for each statement
  execute function filestore.refuse_truncate();

comment on trigger rollup_deltas_refuse_truncate on filestore.rollup_deltas is
  'Refuses truncate, which would lose pending deltas.';
--! EndIncluded triggers/rollup_deltas_refuse_truncate.sql

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
comment on column filestore.view_filestore_directories.consistency_state  is 'up_to_date; pending when these exact totals include deltas that are not folded yet; stale while the totals are known to need filestore.recount_rollups.';
comment on column filestore.view_filestore_directories.updated_at         is 'When the folded totals last changed.';
--! EndIncluded views/view_filestore_directories.sql
