--! Previous: sha1:798f87fc00ea7d927f6c390b86c0a65957b4468d
--! Hash: sha1:13a3faed47b956090c2dd91e1162ffda260ebb86
--! Message: Deleting and restoring nodes

--! Included functions/freeze_tree.sql
create or replace function filestore.freeze_tree(mount_id bigint, top_path text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  frozen bigint := 0;
  before bigint;
begin
  -- A create needs a key share lock on its parent, so no child can be created in a locked directory. The loop repeats
  -- until it finds no directory that was created in the meantime.
  loop
    before := frozen;
    select count(*)
    into frozen
    from (
      select
      from filestore.nodes n
      where n.backend_mount_id = freeze_tree.mount_id
        and n.live
        and n.directory_path is not null
        and (n.path = top_path or (n.path >= top_path || '/' and n.path < top_path || '0'))
      order by n.id
      for update
    ) locked;
    exit when frozen = before;
  end loop;
end
$$;

comment on function filestore.freeze_tree(bigint, text) is
  'Internal: Locks every live directory at and below a path, so that nothing can be created there until the transaction ends. The caller holds the exclusive tree lock, so nothing can be moved there either.';

revoke all on function filestore.freeze_tree(bigint, text) from public;
--! EndIncluded functions/freeze_tree.sql
--! Included functions/delete_node.sql
create or replace function filestore.delete_node(
  node_id          bigint,
  expected_version integer default null,
  recursive        boolean default false
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  node  filestore.nodes;
  child text;
begin
  if recursive then
    perform filestore.lock_tree(n.backend_mount_id, true)
    from filestore.nodes n
    where n.id = delete_node.node_id;
  end if;

  -- The usual node: a file, which holds no others. The lock is as strong as below from the start.
  update filestore.nodes n
  set state = 'deleted'
  where n.id = (
    select f.id
    from filestore.nodes f
    where f.id = delete_node.node_id
      and f.live
      and f.version = coalesce(expected_version, f.version)
      and f.parent_id is not null
      and f.directory_path is null
    for update
  )
  returning * into node;
  if found then
    return node;
  end if;

  select *
  into node
  from filestore.nodes n
  where n.id = delete_node.node_id
    and n.live
    and n.version = coalesce(expected_version, n.version)
  for update;
  if node.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  elsif node.parent_id is null then
    raise exception 'node % is the root of a mount: it cannot be deleted', node_id
      using errcode    = 'FS422',
            constraint = 'nodes_root_check',
            hint       = 'Delete the mount: that removes its root.';
  end if;

  if recursive and node.directory_path is not null then
    perform filestore.freeze_tree(node.backend_mount_id, node.path);
    update filestore.nodes n
    set state = 'deleted'
    where n.backend_mount_id = node.backend_mount_id
      and n.live
      and (n.path = node.path or (n.path >= node.path || '/' and n.path < node.path || '0'));
  else
    -- Looks for a child before the update: the update's cascade would wait for the children's locks while it holds the
    -- directory's, which can deadlock.
    select n.name
    into child
    from filestore.nodes n
    where n.backend_mount_id = node.backend_mount_id
      and n.parent_id = node.id
      and n.parent_live
    -- Without an order, the planner expects a child on the first pages of a table with few directories, and reads it all.
    order by n.name
    limit 1;
    if found then
      raise exception 'directory "%" is not empty: it holds "%"', node.path, child
        using errcode    = 'FS409',
              constraint = 'nodes_not_empty',
              hint       = 'Delete what it holds first, or everything with recursive => true.';
    end if;
    update filestore.nodes n
    set state = 'deleted'
    where n.id = node.id
    returning * into node;
    return node;
  end if;

  select *
  into node
  from filestore.nodes n
  where n.id = delete_node.node_id;
  return node;
end
$$;

comment on function filestore.delete_node(bigint, integer, boolean) is
  'Deletes a node and returns its tombstone; with recursive, everything below it too, all with the same deleted_at. FS404 when it does not exist or is deleted, FS409 when it is a directory that is not empty (without recursive) or not at expected_version (null: any), FS422 when it is a root.';

revoke all on function filestore.delete_node(bigint, integer, boolean) from public;
--! EndIncluded functions/delete_node.sql
--! Included functions/delete_batch.sql
create or replace function filestore.delete_batch(
  node_id   bigint,
  max_nodes integer     default 10000,
  moment    timestamptz default date_trunc('milliseconds', statement_timestamp())
)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  top    record;
  batch  bigint[];
  before bigint[];
begin
  perform filestore.check_limit('max_nodes', max_nodes);
  perform filestore.lock_tree(n.backend_mount_id, true)
  from filestore.nodes n
  where n.id = delete_batch.node_id;

  select n.backend_mount_id, n.path
  into top
  from filestore.nodes n
  where n.id = delete_batch.node_id
    and n.live
    and n.parent_id is not null;

  if top.path is null and exists (select from filestore.nodes n where n.id = delete_batch.node_id and n.parent_id is null) then
    raise exception 'node % is the root of a mount: it cannot be deleted', node_id
      using errcode    = 'FS422',
            constraint = 'nodes_root_check',
            hint       = 'Delete its children, each with what is below it.';
  end if;

  -- In descending order of path, so that children come before their directory. No child can be created in a locked
  -- directory, and the next round finds a child that was created before the lock.
  loop
    before := batch;
    batch  := array(
      select n.id
      from filestore.nodes n
      where n.backend_mount_id = top.backend_mount_id
        and n.live
        -- The range that the index is read in, and then what is not below the top, such as "a-b" beside "a".
        and n.path >= top.path
        and n.path < top.path || '0'
        and (n.path = top.path or n.path >= top.path || '/')
      order by n.path desc
      limit max_nodes
      for update
    );
    exit when batch = before;
  end loop;

  update filestore.nodes n
  set state      = 'deleted',
      deleted_at = moment
  where n.id = any (batch);
  return cardinality(batch);
end
$$;

comment on function filestore.delete_batch(bigint, integer, timestamptz) is
  'Deletes at most max_nodes of a tree, children before their directory, and returns how many. Repeat it until it returns 0, each time in a separate transaction and with the same moment. The moment becomes deleted_at, and restore_node restores nodes with the same deleted_at as one tree. After each call, the remaining nodes are a valid tree. FS422 for a root.';

revoke all on function filestore.delete_batch(bigint, integer, timestamptz) from public;
--! EndIncluded functions/delete_batch.sql
--! Included functions/restore_tree.sql
create or replace function filestore.restore_tree(top filestore.nodes, moment timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  level bigint[] := array[top.id];
begin
  -- From the top down, since a node needs a live parent. When batches deleted them, two tombstones can have the same
  -- parent, name and moment: the later one is restored.
  loop
    level := array(
      select distinct on (n.parent_id, n.name) n.id
      from filestore.nodes n
      where n.parent_id = any (level)
        and not n.live
        and n.deleted_at = moment
      order by n.parent_id, n.name, n.updated_at desc, n.id desc
    );
    exit when level = '{}';
    -- Because parent_live is set here, the trigger does not look up the parent of each node.
    update filestore.nodes n
    set state       = 'active',
        parent_live = true,
        parent_path = p.directory_path
    from filestore.nodes p
    where n.id = any (level)
      and p.id = n.parent_id;
  end loop;
end
$$;

comment on function filestore.restore_tree(filestore.nodes, timestamptz) is
  'Internal: Restores the nodes below a directory that were deleted at a given moment, for filestore.restore_node, which has restored the directory and holds the exclusive tree lock.';

revoke all on function filestore.restore_tree(filestore.nodes, timestamptz) from public;
--! EndIncluded functions/restore_tree.sql
--! Included functions/restore_node.sql
create or replace function filestore.restore_node(
  node_id          bigint,
  expected_version integer default null,
  with_tree        boolean default false
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  taken text;
  tomb  filestore.nodes;
  node  filestore.nodes;
begin
  perform filestore.lock_tree(n.backend_mount_id, coalesce(with_tree, false))
  from filestore.nodes n
  where n.id = restore_node.node_id;

  select *
  into tomb
  from filestore.nodes n
  where n.id = restore_node.node_id
    and n.version = coalesce(expected_version, n.version)
  for update;
  if tomb.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  elsif tomb.live then
    raise exception 'node % ("%") is not deleted', tomb.id, tomb.path
      using errcode    = 'FS409',
            constraint = 'nodes_alive',
            hint       = 'To bring an old version of a live node back, call filestore.revert_node.';
  end if;

  begin
    update filestore.nodes n
    set state = 'active'
    where n.id = tomb.id
    returning * into node;
  exception
    when unique_violation then
      get stacked diagnostics taken = constraint_name;
      if taken <> 'nodes_live_child_key' then
        raise;
      end if;
      perform filestore.refuse_taken_name(tomb.parent_id, tomb.name);
  end;

  if with_tree then
    perform filestore.restore_tree(node, tomb.deleted_at);
  end if;
  return node;
end
$$;

comment on function filestore.restore_node(bigint, integer, boolean) is
  'Restores a deleted node in its directory and returns it. With with_tree, also restores everything below it that was deleted together with it. FS404 when it does not exist or its parent is deleted, FS409 when it is not deleted, its name is taken, or it is not at expected_version (null: any).';

revoke all on function filestore.restore_node(bigint, integer, boolean) from public;
--! EndIncluded functions/restore_node.sql
--! Included functions/content_columns.sql
create or replace function filestore.content_columns()
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select a.attname::text
    from pg_attribute a
    where a.attrelid = 'filestore.nodes'::regclass
      and a.attnum > 0
      and not a.attisdropped
      -- These columns hold the identity, place and state of a node. Every other column is content.
      and a.attname <> all ('{id,backend_mount_id,root_of_mount_id,parent_id,parent_path,parent_live,name,path,depth,directory_path,kind}'
        || '{live,state,version,created_at,updated_at,deleted_at}'::text[])
    order by a.attnum
  );
end
$$;

comment on function filestore.content_columns() is
  'Internal: The columns of nodes that hold content: services write them, and filestore.revert_node restores them. Read from the catalog, so that a new column is included.';

revoke all on function filestore.content_columns() from public;
--! EndIncluded functions/content_columns.sql
--! Included functions/revert_node.sql
create or replace function filestore.revert_node(
  node_id          bigint,
  version          integer,
  expected_version integer default null
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  taken text;
  past  filestore.snapshots;
  node  filestore.nodes;
begin
  perform filestore.lock_tree(n.backend_mount_id, n.directory_path is not null)
  from filestore.nodes n
  where n.id = revert_node.node_id;

  select *
  into past
  from filestore.snapshots s
  where s.id = revert_node.node_id
    and s.version = revert_node.version;
  if past.id is null then
    raise exception 'node % has no past version %', node_id, version
      using errcode    = 'FS404',
            constraint = 'snapshots_missing',
            hint       = 'Choose a version that filestore.view_filestore_node_versions lists.';
  elsif not past.live then
    raise exception 'in version % node % ("%") was deleted', version, node_id, past.path
      using errcode    = 'FS422',
            constraint = 'snapshots_deleted_check',
            hint       = 'To delete it, call filestore.delete_node.';
  end if;

  begin
    execute format(
      'update filestore.nodes n
       set (parent_id, name, %s) = row ($1.parent_id, $1.name, %s),
           state = case when n.live then n.state else ''active'' end
       where n.id = $1.id
         and n.version = coalesce($2, n.version)
       returning *',
      (select string_agg(quote_ident(c.name), ', ' order by c.name) from unnest(filestore.content_columns()) as c (name)),
      (select string_agg('$1.' || quote_ident(c.name), ', ' order by c.name) from unnest(filestore.content_columns()) as c (name))
    )
    using past, expected_version
    into node;
  exception
    when unique_violation then
      get stacked diagnostics taken = constraint_name;
      if taken <> 'nodes_live_child_key' then
        raise;
      end if;
      perform filestore.refuse_taken_name(past.parent_id, past.name);
  end;

  if node.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  end if;
  return node;
end
$$;

comment on function filestore.revert_node(bigint, integer, integer) is
  'Brings the place, name and content of an old version of a node back as a new version, and returns the node. Its state does not change, but a deleted node is restored. FS404 when there is no such version or its parent is deleted or does not exist any more, FS409 when the name is taken or the node is not at expected_version (null: any), FS422 when it was deleted in that version.';

revoke all on function filestore.revert_node(bigint, integer, integer) from public;
--! EndIncluded functions/revert_node.sql
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
            where p.id = a.parent_id
              and p.deleted_at < deadline
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
