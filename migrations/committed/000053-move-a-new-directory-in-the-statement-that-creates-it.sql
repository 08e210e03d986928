--! Previous: sha1:e26d1d0e14b7cb127b17e38c4737d8b145d20bc0
--! Hash: sha1:88ac143cd51cb0f2e07331eab52b697b6b34c683
--! Message: Move a new directory in the statement that creates it

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
  -- stays with the directory. With "for share", a REPEATABLE READ transaction fails rather than read old totals. One that a
  -- function in "returning" moves has no row of totals yet, and nothing in it.
  if is_directory = 1 then
    select *
    into below
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
