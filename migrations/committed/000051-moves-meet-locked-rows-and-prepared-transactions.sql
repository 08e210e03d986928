--! Previous: sha1:409866178ee9df424294166a23cfa3df643d6690
--! Hash: sha1:7c2d9efe6a057066b1a455f3bb90ae286b1e86d5
--! Message: Moves meet locked rows and prepared transactions

-- Write the next migration here, then: npm run db:commit -- -m "What it does"
--! Included functions/refuse_locked.sql
create or replace function filestore.refuse_locked(mount_key text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  move     filestore.moves;
  mount_id bigint;
  lock_key bigint;
  lockers  text;
begin
  select *
  into move
  from filestore.moves m
  where m.mount_key = refuse_locked.mount_key
    and m.written_by = filestore.database_number()
  order by (m.finished_at is null) desc, m.started_at desc
  limit 1;
  -- Before the first move of a mount, only its row can be locked.
  mount_id := coalesce(move.mount_id, (select b.id from filestore.backend_mounts b where b.mount_key = refuse_locked.mount_key));
  lock_key := hashtextextended('filestore.move', mount_id);
  -- Writers that have locked a row of a move, and transactions that have locked one of the rows outside a savepoint.
  select string_agg(distinct coalesce(l.pid::text, 'a prepared transaction'), ', ')
  into lockers
  from pg_locks l
  where l.granted
    and l.pid is distinct from pg_backend_pid()
    and (
      l.relation = 'filestore.moves'::regclass
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and l.mode in ('RowShareLock', 'RowExclusiveLock')
      and exists (
        select
        from pg_locks w
        where w.virtualtransaction = l.virtualtransaction
          and w.locktype = 'advisory'
          and w.classid = ((lock_key >> 32) & 4294967295)::oid
          and w.objid = (lock_key & 4294967295)::oid
          and w.objsubid = 1
      )
      or l.transactionid in (
        select m.xmax
        from filestore.moves m
        where m.id = move.id
          and m.written_by = move.written_by
        union all
        select b.xmax
        from filestore.backend_mounts b
        where b.id = mount_id
      )
    );
  raise exception 'another transaction holds the row of mount "%" or of its move%', mount_key, coalesce(': process ' || lockers, '')
    using errcode    = 'FS409',
          constraint = 'moves_writers_busy',
          hint       = format(
            'Wait for it or end it, and call this again: nothing has changed. %s',
            case
              when move.id is not null and not filestore.holds_mount(mount_id) then 'filestore.view_filestore_mount_moves says which server takes the writes of the mount.'
              when move.id is null or move.source_number = move.written_by then 'In the meantime, this server takes the writes of the mount.'
              else 'This server takes the writes of the mount when that transaction has ended.'
            end
          );
end
$$;

comment on function filestore.refuse_locked(text) is
  'Internal: Raises FS409 for a step of a move that waited too long for a row, with the process that holds it and the server that takes writes.';

revoke all on function filestore.refuse_locked(text) from public;
--! EndIncluded functions/refuse_locked.sql
--! Included functions/start_move.sql
create or replace function filestore.start_move(mount_key text, target integer, existing bigint default null)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own      integer := filestore.database_number();
  mount_id bigint;
  mount    filestore.backend_mounts;
  move     filestore.moves;
  job      filestore.backfills;
begin
  perform filestore.require_read_committed('filestore.start_move');
  perform filestore.require_move_guards();
  if target is null or target = own or target not between 0 and 8191 then
    raise exception 'a mount cannot move from database % to database %', own, coalesce(target::text, 'null')
      using errcode    = 'FS409',
            constraint = 'database_number_check',
            hint       = 'Give the number of the target, which filestore.database_number() returns there. Each database needs its own number.';
  end if;
  if exists (
    select
    from unnest('{nodes,journal_entries}'::text[]) t (name)
    join pg_sequence s on s.seqrelid = pg_get_serial_sequence('filestore.' || t.name, 'id')::regclass
    where s.seqmin >> 40 <> own
  ) then
    -- The proof recognizes the new rows of this database by the range of their ids.
    raise exception 'this database gives ids of another number''s range, so its mounts cannot move'
      using errcode    = 'FS409',
            constraint = 'database_number_check',
            hint       = 'Its ids ran out: copy the mounts to a database with a number that is not in use.';
  end if;
  mount_id := filestore.find_mount(start_move.mount_key);
  perform set_config('lock_timeout', '10s', true);
  begin
    select *
    into mount
    from filestore.backend_mounts m
    where m.id = mount_id
    for update;
  exception
    when lock_not_available then
      perform filestore.refuse_locked(start_move.mount_key);
  end;
  if mount.id is null then
    -- It was deleted during the wait for its row.
    return filestore.start_move(start_move.mount_key, target, existing);
  end if;
  select *
  into move
  from filestore.moves m
  where m.mount_id = mount.id
    and m.written_by = own
    and (m.finished_at is null or filestore.keeps_moved_mount(m))
  order by (m.finished_at is null) desc, m.started_at desc
  limit 1;

  if existing is not null and move.id is distinct from existing then
    raise exception 'move % of mount "%" is not under way here', existing, mount.mount_key
      using errcode    = 'FS409',
            constraint = 'moves_step_check',
            hint       = 'Call filestore.start_move without this number to begin another move: this one has ended.';
  elsif move.id is null then
    if mount.held_by is not null or mount.erasing_since is not null then
      raise exception 'mount "%" has moved, or is being erased', mount.mount_key
        using errcode    = 'FS409',
              constraint = 'backend_mounts_moving',
              hint       = 'Call filestore.erase_mount here, and move the mount from the server that holds it.';
    end if;
    select *
    into job
    from filestore.backfills b
    where b.finished_at is null
    order by b.id
    limit 1;
    if found then
      raise exception 'backfill % of filestore.%.% is unfinished, and would change rows without a version', job.id, job.table_name, job.column_name
        using errcode    = 'FS409',
              constraint = 'moves_backfill_check',
              hint       = 'Call filestore.backfill again until it ends, or delete its row from filestore.backfills.';
    end if;
    insert into filestore.moves (written_by, mount_id, mount_key, source_number, target_number, step, timeline)
    values (own, mount.id, mount.mount_key, own, target, 'copying', filestore.server_timeline())
    returning * into move;
    update filestore.backend_mounts m
    set held_by = own
    where m.id = mount.id
    returning * into mount;
    execute format(
      'create publication filestore_move_%1$s
         for table filestore.backend_mounts where (id = %2$s),
             table filestore.nodes where (backend_mount_id = %2$s),
             table filestore.snapshots where (backend_mount_id = %2$s),
             table filestore.journal_entries where (backend_mount_id = %2$s),
             table filestore.moves where (id = %1$s and written_by = %3$s)',
      move.id, mount.id, own
    );
  elsif move.source_number <> own or move.target_number <> target or move.step = 'canceling' then
    perform filestore.refuse_step(move, 'filestore.start_move');
  end if;
  return jsonb_build_object(
    'move',   move.id,
    'source', own,
    'target', target,
    'slot',   filestore.move_slot(move.id),
    'schema', filestore.mount_schema(),
    'mount',  to_jsonb(mount)
  );
end
$$;

comment on function filestore.start_move(text, integer, bigint) is
  'Begins to move a mount to the database with that number: publishes its row, nodes, history and journal. Returns the ticket for filestore.accept_move there. The same call before filestore.erase_mount returns the ticket again. With the number of an existing move, it only returns the ticket of that one. Nothing changes for services. For the owner of the schema, after filestore.prepare_moves(true). FS409 when the mount moves elsewhere, or a backfill is unfinished.';

revoke all on function filestore.start_move(text, integer, bigint) from public;
--! EndIncluded functions/start_move.sql
--! Included functions/prove_source.sql
create or replace function filestore.prove_source(move filestore.moves, again boolean)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  lock_key bigint := hashtextextended('filestore.move', move.mount_id);
  holders  text[];
begin
  if move.step = 'closed' and filestore.take_mount(move.mount_id) then
    move.step := 'proved';
  elsif move.step = 'closed' then
    -- Nothing is written until the time is over, when release_mount does not use it. Each cut-over begins without a digest.
    update filestore.moves m
    set late_digest = coalesce(m.late_digest, filestore.digest_mount(move, true))
    where m.id = move.id
      and m.written_by = move.written_by
    returning * into move;
    return jsonb_build_object('move', move.id, 'mark', move.mark, 'early', move.early_digest, 'attempt', move.attempt, 'late', move.late_digest);
  end if;
  if move.step = 'copying' or (move.step = 'proved' and again) then
    -- The ids are read before the moment: a statement that begins later gets higher ids.
    update filestore.moves m
    set node_mark    = coalesce(pg_sequence_last_value(pg_get_serial_sequence('filestore.nodes', 'id')::regclass), 0),
        journal_mark = coalesce(pg_sequence_last_value(pg_get_serial_sequence('filestore.journal_entries', 'id')::regclass), 0)
    where m.id = move.id
      and m.written_by = move.written_by;
    update filestore.moves m
    set mark         = m.mark + 1,
        marked_at    = date_trunc('milliseconds', clock_timestamp()) + interval '1 millisecond',
        writers      = null,
        open_entries = null,
        early_digest = null
    where m.id = move.id
      and m.written_by = move.written_by;
    move := filestore.set_step(move, 'marking');
    return jsonb_build_object('move', move.id, 'mark', move.mark, 'waits_for', 'the mark');
  elsif move.step = 'marking' then
    -- Transactions that took the lock after the mark was committed know it. Those that had it before are waited for. After
    -- a restart, a prepared transaction has another number, which begins with -1.
    holders := array(
      select l.virtualtransaction
      from pg_locks l
      where l.locktype = 'advisory'
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.classid = ((lock_key >> 32) & 4294967295)::oid
        and l.objid = (lock_key & 4294967295)::oid
        and l.objsubid = 1
        and (move.writers is null or l.virtualtransaction = any (move.writers) or starts_with(l.virtualtransaction, '-1/'))
      order by l.virtualtransaction
    );
    update filestore.moves m
    set writers = holders
    where m.id = move.id
      and m.written_by = move.written_by
    returning * into move;
    if holders <> '{}' then
      return jsonb_build_object('move', move.id, 'mark', move.mark, 'waits_for', format('%s transactions that have written to the mount', cardinality(holders)));
    end if;
    update filestore.moves m
    set open_entries = array(
      select j.id
      from filestore.journal_entries j
      where j.backend_mount_id = m.mount_id
        and j.status in ('queued', 'running')
    )
    where m.id = move.id
      and m.written_by = move.written_by
    returning * into move;
    update filestore.moves m
    set early_digest = filestore.digest_mount(move, false)
    where m.id = move.id
      and m.written_by = move.written_by
    returning * into move;
    -- Pages that this index has not summarized are read three times in the cut-over.
    perform brin_summarize_new_values('filestore.snapshots_changed_idx');
    move := filestore.set_step(move, 'proved');
  elsif move.step <> 'proved' then
    perform filestore.refuse_step(move, 'filestore.prove_mount');
  end if;
  return jsonb_build_object('move', move.id, 'mark', move.mark, 'early', move.early_digest);
end
$$;

comment on function filestore.prove_source(filestore.moves, boolean) is
  'Internal: The part of filestore.prove_mount on the source: sets a mark, waits for the transactions that do not know it, and counts what is older than it; during the cut-over, counts what is newer.';

revoke all on function filestore.prove_source(filestore.moves, boolean) from public;
--! EndIncluded functions/prove_source.sql
