--! Previous: sha1:9f58569d747742e5c7eae34dca5aeb907133a263
--! Hash: sha1:409866178ee9df424294166a23cfa3df643d6690
--! Message: Prove the parent of a node that is replaced at once

-- Write the next migration here, then: npm run db:commit -- -m "What it does"
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
      and age(n.xmin) > 0
  ) then
    return;
  end if;

  -- One that is deleted in the same statement counts too.
  perform
  from filestore.nodes p
  where p.id = node.parent_id
    and p.backend_mount_id = node.backend_mount_id
    and p.directory_path = node.parent_path
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
--! Included functions/prepare_node_update.sql
create or replace function filestore.prepare_node_update()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  moves boolean := new.parent_id is distinct from old.parent_id or new.name is distinct from old.name;
begin
  if new.backend_mount_id is distinct from old.backend_mount_id or (new.parent_id is null) <> (old.parent_id is null) then
    raise exception '% cannot change its mount, nor become or cease to be a root', filestore.describe_node(old)
      using errcode    = 'FS422',
            constraint = 'nodes_fixed_check',
            hint       = 'Delete the node and create another one; the new node has a new id.';
  end if;

  if new.state is distinct from old.state then
    if new.state = 'deleted' then
      if old.parent_id is null then
        perform filestore.refuse_state_change(old, new.state);
      elsif new.deleted_at is null then
        new.deleted_at := date_trunc('milliseconds', statement_timestamp());
      elsif not isfinite(new.deleted_at) or new.deleted_at > clock_timestamp() + interval '1 millisecond' then
        raise exception '% cannot be deleted at %', filestore.describe_node(old), new.deleted_at
          using errcode    = 'FS422',
                constraint = 'nodes_deleted_at_check',
                hint       = 'Leave deleted_at out of the update, or give a moment in the past.';
      end if;
    else
      if (new.state = 'inconsistent' and old.state <> 'active') or (new.state = 'missing' and old.state not in ('active', 'inconsistent')) then
        perform filestore.refuse_state_change(old, new.state);
      end if;
      new.deleted_at := null;
    end if;
  end if;
  new.live := new.deleted_at is null;

  -- nodes_parent_fkey proves a new row at the end of its statement, and only if it is still the present version. A function
  -- in "returning" can replace it before, by a tombstone or below another parent.
  if old.created_at >= date_trunc('milliseconds', transaction_timestamp()) then
    if old.live and (not new.live or new.parent_id <> old.parent_id) then
      perform filestore.require_parent(old);
    end if;
  end if;

  if new.live then
    if moves then
      if octet_length(new.name) > 255 then
        perform filestore.refuse_long_name(new.backend_mount_id, new.name);
      end if;
      if new.kind = 'directory' then
        -- For plain SQL. filestore.move_node takes this lock earlier, before any row.
        perform filestore.lock_tree(new.backend_mount_id, true);
      end if;
    end if;

    -- An update that restores a node and sets parent_live has also set parent_path, as restore_tree does. It needs no
    -- lookup: nodes_parent_fkey refuses a wrong path.
    if (moves and new.parent_id <> old.parent_id) or (not old.live and new.parent_live is not true) then
      new.parent_path := filestore.find_parent(new.backend_mount_id, new.parent_id, new.name);
    elsif not new.parent_live then
      -- The cascade of a directory that is being deleted has reached a live child.
      raise exception 'directory "%" is not empty: it holds "%"', old.parent_path, old.name
        using errcode    = 'FS409',
              constraint = 'nodes_not_empty',
              hint       = 'Delete the nodes in it first, or in the same statement.';
    end if;
    new.parent_live := case when new.parent_id is not null then true end;
    moves := moves or new.parent_path is distinct from old.parent_path;
  else
    if moves or new.parent_path is distinct from old.parent_path or (not old.live and new.deleted_at <> old.deleted_at) then
      -- nodes_parent_fkey does not cover tombstones: two that are moved into each other would be a cycle.
      if not filestore.is_import(new.backend_mount_id) then
        raise exception 'deleted % keeps its place and its deleted_at', filestore.describe_node(old)
          using errcode    = 'FS422',
                constraint = 'nodes_tombstone_check',
                hint       = 'Restore it first, or set its state to active in the same statement.';
      end if;
      moves := true;
    end if;
    new.parent_live := null;
  end if;

  if moves then
    new.path           := coalesce(filestore.child_path(new.parent_path, new.name), new.name);
    new.depth          := cardinality(string_to_array(new.path, '/'));
    new.directory_path := case when new.kind = 'directory' then new.path end;
    -- Without this check, the cascade of a directory that is moved below itself would not end. One statement that moves
    -- several directories into each other can pass the check. Then nodes_parent_fkey stops it, or the limit on the
    -- length of a path.
    if new.kind = 'directory' and old.live and (new.parent_path = old.path or starts_with(new.parent_path, old.path || '/')) then
      raise exception 'directory "%" cannot be moved into itself ("%")', old.path, new.parent_path
        using errcode    = 'FS422',
              constraint = 'nodes_cycle_check',
              hint       = 'Choose a parent outside of the directory that moves.';
    end if;
  end if;
  return new;
end
$$;

comment on function filestore.prepare_node_update() is
  'Sets the columns that follow from a node''s parent, name and state, and refuses changes that are never legal.';

revoke all on function filestore.prepare_node_update() from public;
--! EndIncluded functions/prepare_node_update.sql
