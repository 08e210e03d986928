--! Previous: sha1:65da1a890305d7f209111b620ceef7a16c900cd1
--! Hash: sha1:0a0791126d232725bfc8dbbac4a767cdfd03ea17
--! Message: Prunes and imports beside a move that has begun

--! Included functions/prune_journal.sql
create or replace function filestore.prune_journal(older_than interval, batch integer default 1000)
returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  deadline timestamptz;
  moving   bigint[];
  pruned   integer;
begin
  perform filestore.check_retention(older_than, batch);
  -- An older snapshot does not show the mounts that have begun to move since.
  perform filestore.require_read_committed('filestore.prune_journal');
  deadline := statement_timestamp() - older_than;
  moving   := filestore.moving_mounts(true);
  delete from filestore.journal_entries j
  where j.ctid = any (array(
    select o.ctid
    from filestore.journal_entries o
    -- An entry ends after its creation, so the condition on created_at excludes no other entry. It has an index.
    where o.created_at < deadline
      and o.completed_at < deadline
      -- The proof at a cut-over reads new rows only, so nothing is removed while a mount moves.
      and (o.backend_mount_id = any (moving)) is not true
    limit batch
    for update skip locked
  ));
  get diagnostics pruned = row_count;
  return pruned;
end
$$;

comment on function filestore.prune_journal(interval, integer) is
  'Removes at most batch entries that ended longer than older_than ago, and returns how many. Repeat it until it returns 0. Entries that have not ended stay, whatever their age.';

revoke all on function filestore.prune_journal(interval, integer) from public;
--! EndIncluded functions/prune_journal.sql
--! Included functions/begin_import_batch.sql
create or replace function filestore.begin_import_batch(import_id bigint, locks_tree boolean)
returns filestore.imports
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  import filestore.imports;
  mount  filestore.backend_mounts;
begin
  if locks_tree then
    perform filestore.lock_tree((select i.backend_mount_id from filestore.imports i where i.id = import_id), true);
  end if;
  update filestore.imports i
  set transaction_id = pg_current_xact_id()
  where i.id = import_id
    and i.finished_at is null
  returning * into import;
  if import.id is null then
    raise exception 'import % ended, because another one into the mount began', import_id
      using errcode    = 'FS409',
            constraint = 'import_superseded',
            hint       = 'Wait for the other one. What this one imported stays.';
  end if;
  -- The key of tombstones and of journal entries does not look for their mount, which others may delete between two batches.
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = import.backend_mount_id
  for key share;
  if mount.id is null then
    raise exception 'the mount of import % was deleted meanwhile', import_id
      using errcode    = 'FS404',
            constraint = 'backend_mounts_missing',
            hint       = 'Create the mount again and call import_nodes again. Journal entries that it imported are left: the owner deletes them first, by their backend_mount_id.';
  end if;
  -- nodes_guard_move sees no batch that adds only earlier versions.
  if mount.held_by is not null then
    raise exception 'mount "%" has begun to move to another server', mount.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Call import_nodes again when the move has ended, on the server that has the mount then. What this one imported stays.';
  end if;
  perform set_config('filestore.backfill_id', 'import', true);
  return import;
end
$$;

comment on function filestore.begin_import_batch(bigint, boolean) is
  'Internal: Lets the transaction write what only an import may write, into the mount of that import. FS409 when the mount moves.';

revoke all on function filestore.begin_import_batch(bigint, boolean) from public;
--! EndIncluded functions/begin_import_batch.sql
