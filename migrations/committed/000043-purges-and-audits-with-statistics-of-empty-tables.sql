--! Previous: sha1:79f8a6180c04eb02dd107bd550335260993992c2
--! Hash: sha1:ee69c9bafc8c7b80ad578f43d066c6b02afea869
--! Message: Purges and audits with statistics of empty tables

--! Included functions/purge_deleted.sql
create or replace function filestore.purge_deleted(older_than interval, batch integer default 1000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Only one index has the tombstones of a parent in order of name, and it is taken even if the statistics know of none.
set enable_sort = off
as $$
declare
  deadline timestamptz;
  mount_id bigint;
  pending  bigint[];
  chosen   bigint[];
  removed  integer;
  refusal  text;
  purged   integer := 0;
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
            order by c.name
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

    -- Each round removes tombstones without children, with those above that have no other child. So the number of rounds
    -- grows with the branches of a tree, and not with its depth. "Offset 0" and the order by name keep the search for
    -- children a lookup. Otherwise the planner reads all tombstones for each one, when its statistics
    -- know of none yet, or all nodes, when directories are large.
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
            order by c.name
            offset 0
          )
        order by n.deleted_at, n.depth desc
        limit batch - purged
      );
      exit when chosen = '{}';
      chosen := array(
        with recursive above (id, parent_id) as (
          select n.id, n.parent_id
          from filestore.nodes n
          where n.id = any (chosen)
          union all
          select n.id, n.parent_id
          from above a
          cross join lateral (
            select p.id, p.parent_id
            from filestore.nodes p
            -- "Coalesce" as below: this is a lookup of one node.
            where p.id = a.parent_id
              and coalesce(p.deleted_at, 'infinity') < deadline
              and p.updated_at < deadline
              and p.id not in (select unnest(pending))
              and not exists (
                select
                from filestore.nodes c
                where c.parent_id = p.id
                  and not c.live
                  and c.id <> a.id
                order by c.name
                offset 0
              )
            offset 0
          ) n
        )
        select a.id
        from above a
        limit batch - purged
      );
      begin
        delete from filestore.nodes n
        -- Checked again, since a node may have been restored and deleted again in the meantime. "Coalesce" makes the
        -- planner use the primary key and not the indexes on tombstones.
        where n.id = any (chosen)
          and coalesce(n.deleted_at, 'infinity') < deadline
          and n.updated_at < deadline;
        get diagnostics removed = row_count;
      exception
        when sqlstate 'FS409' then
          get stacked diagnostics refusal = constraint_name;
          -- The mount has begun to move: the call goes on with the next one.
          exit when refusal = 'backend_mounts_moving' and exists (
            select
            from filestore.backend_mounts m
            where m.id = mount_id
              and m.held_by is not null
          );
          if refusal not in ('nodes_not_empty', 'rollup_deltas_pending') then
            raise;
          end if;
          -- A tombstone was changed in the meantime, so it is younger now, or nodes below it were deleted. The next round
          -- leaves those above it, and those that have pending deltas now.
          removed := 0;
          pending := array(
            select distinct d.directory_id
            from filestore.rollup_deltas d
            where d.backend_mount_id = mount_id
          );
      end;
      purged := purged + removed;
    end loop;
    exit when purged >= batch;
  end loop;
  return purged;
end
$$;

comment on function filestore.purge_deleted(interval, integer) is
  'Removes at most batch tombstones whose last change is longer than older_than ago, with their history, the oldest and deepest first, and returns how many. One call takes at most 100 mounts. Repeat it until it returns 0. Skips directories that have pending deltas.';

revoke all on function filestore.purge_deleted(interval, integer) from public;
--! EndIncluded functions/purge_deleted.sql
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
  with parts (id, path, has_totals, size_bytes, files, dirs, children, expected_size, expected_files, expected_dirs, expected_children) as (
    select
      n.id,
      n.path,
      r.node_id is not null,
      r.size_bytes,
      r.file_count,
      r.dir_count,
      r.child_count,
      0,
      0,
      0,
      0
    from filestore.nodes n
    left join filestore.rollups r on r.node_id = n.id
    where n.backend_mount_id = mount_id
      and n.directory_path is not null
    -- A sum and not joins: with statistics of an empty tree, the planner would compare each directory with each delta.
    union all
    select p.node_id, null, null, p.size_delta, p.file_delta, p.dir_delta, p.child_delta, 0, 0, 0, 0
    from filestore.pending_totals(array[mount_id]) p
    union all
    select t.node_id, null, null, 0, 0, 0, 0, t.size_sum, t.file_sum, t.dir_sum, t.child_sum
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
  summed as (
    select
      p.id,
      max(p.path)                      as path,
      bool_or(p.has_totals)            as has_totals,
      sum(p.size_bytes)                as size_bytes,
      sum(p.files)::bigint             as files,
      sum(p.dirs)::bigint              as dirs,
      sum(p.children)::bigint          as children,
      sum(p.expected_size)             as expected_size,
      sum(p.expected_files)::bigint    as expected_files,
      sum(p.expected_dirs)::bigint     as expected_dirs,
      sum(p.expected_children)::bigint as expected_children
    from parts p
    group by p.id
  )
  select
    s.id,
    s.path,
    case when s.has_totals then s.size_bytes end,
    case when s.has_totals then s.files end,
    case when s.has_totals then s.dirs end,
    case when s.has_totals then s.children end,
    s.expected_size,
    s.expected_files,
    s.expected_dirs,
    s.expected_children
  from summed s
  where s.path is not null
    and (
      not s.has_totals
      or (s.size_bytes, s.files, s.dirs, s.children) <> (s.expected_size, s.expected_files, s.expected_dirs, s.expected_children)
    )
  order by s.path;
end
$$;

comment on function filestore.audit_rollups(text) is
  'The directories of a mount whose totals differ from the sums of its live nodes. There are none unless triggers were switched off. filestore.recount_rollups corrects them. FS404 when the mount does not exist.';

revoke all on function filestore.audit_rollups(text) from public;
--! EndIncluded functions/audit_rollups.sql
