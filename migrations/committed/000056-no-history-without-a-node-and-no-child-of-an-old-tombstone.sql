--! Previous: sha1:0a0791126d232725bfc8dbbac4a767cdfd03ea17
--! Hash: sha1:2e7dfa78de6215f8da2125b95ece1b2f40c7a974
--! Message: No history without a node, and no child of an old tombstone

--! Included functions/is_own_version.sql
create or replace function filestore.is_own_version(writer xid)
returns boolean
language sql
volatile
set search_path = pg_catalog, pg_temp
return (
  select case
    -- A higher number is that of a savepoint of this transaction, or of another transaction that has committed.
    when t.newer < 2147483648 then pg_xact_status((t.own + t.newer)::text::xid8) = 'in progress'
    else false
  end
  from (
    -- Not by age(): it compares with a number that an earlier call in the transaction has fixed, before this one had its own.
    select x.own, (writer::text::bigint - x.own) & 4294967295 as newer
    from (select pg_current_xact_id()::text::bigint as own) x
  ) t
);

comment on function filestore.is_own_version(xid) is
  'Internal: Whether a row that is visible was written by this transaction. Takes the xmin of a row that is not older than the transaction.';

revoke all on function filestore.is_own_version(xid) from public;
--! EndIncluded functions/is_own_version.sql
--! Included functions/require_parent.sql
create or replace function filestore.require_parent(node filestore.nodes)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A node of another transaction was proved, and its parent may have moved in the present statement. created_at cannot tell:
  -- two transactions can begin in one millisecond.
  if exists (
    select
    from filestore.nodes n
    where n.id = node.id
      and not filestore.is_own_version(n.xmin)
  ) then
    return;
  end if;

  -- One that is deleted in the same statement counts too, but no older tombstone: a fold climbs all of them.
  perform
  from filestore.nodes p
  where p.id = node.parent_id
    and p.backend_mount_id = node.backend_mount_id
    and p.directory_path = node.parent_path
    and (
      p.live
      or (
        greatest(p.deleted_at, p.created_at) >= date_trunc('milliseconds', transaction_timestamp())
        and filestore.is_own_version(p.xmin)
      )
    )
  for key share;
  if not found then
    raise exception 'node "%" has no parent: directory % with the path "%" does not exist', left(node.name, 40), node.parent_id, left(node.parent_path, 200)
      using errcode    = 'FS404',
            constraint = 'nodes_parent_missing',
            hint       = 'Read the parent again, or leave parent_path out of the insert. A directory and a new node in it are moved by two statements.';
  end if;
end
$$;

comment on function filestore.require_parent(filestore.nodes) is
  'Internal: Raises FS404 unless the directory with the id and the path of the parent of a new node exists, and keeps it from being purged.';

revoke all on function filestore.require_parent(filestore.nodes) from public;
--! EndIncluded functions/require_parent.sql
--! Included functions/remove_mount_root.sql
create or replace function filestore.remove_mount_root()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  root filestore.nodes;
begin
  perform filestore.require_read_committed('deleting a mount');
  perform filestore.lock_tree(old.id, true);
  -- Waits for concurrent creates directly below the root, so that the next statement sees them.
  select *
  into root
  from filestore.nodes n
  where n.root_of_mount_id = old.id
  for update;
  -- A statement that writes the root, and calls this in "returning", would add its history when the root is gone. Then a
  -- version is missing before one of this transaction.
  perform
  from (
    select root.version, root.updated_at
    union all
    select s.version, s.updated_at
    from filestore.snapshots s
    where s.id = root.id
  ) v
  where v.version > 1
    and v.updated_at >= date_trunc('milliseconds', transaction_timestamp())
    and not exists (
      select
      from filestore.snapshots f
      where f.id = root.id
        and f.version = v.version - 1
    );
  if found then
    raise exception 'mount "%" cannot be deleted by the statement that writes its root', old.mount_key
      using errcode    = 'FS409',
            constraint = 'first_write_check',
            hint       = 'Delete it in a separate statement.';
  end if;

  -- In order of path, so that each half is a lookup in an index, however large the other mounts are.
  perform
  from (
    (
      select n.path
      from filestore.nodes n
      where n.backend_mount_id = old.id
        and n.live
        and n.path > ''
      order by n.path
      limit 1
    )
    union all
    (
      select n.path
      from filestore.nodes n
      where n.backend_mount_id = old.id
        and not n.live
      order by n.path
      limit 1
    )
  ) held;
  if found then
    raise exception 'mount "%" still holds nodes', old.mount_key
      using errcode    = 'FS409',
            constraint = 'nodes_not_empty',
            hint       = 'Delete and purge all its nodes first, or call filestore.erase_mount.';
  end if;
  -- The pending deltas of an empty mount add up to zero, so they can be removed without folding.
  delete from filestore.rollup_deltas d
  where d.backend_mount_id = old.id;
  delete from filestore.nodes n
  where n.root_of_mount_id = old.id;
  return old;
end
$$;

comment on function filestore.remove_mount_root() is
  'Removes the root of a mount that is being deleted. Refuses when the mount has other nodes, tombstones included.';

revoke all on function filestore.remove_mount_root() from public;
--! EndIncluded functions/remove_mount_root.sql
