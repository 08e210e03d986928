--! Previous: sha1:c08be20e8f070fdb52477d8e08096e6adf3ed17d
--! Hash: sha1:33cfad741cb2a528f21684c04d14c30854657908
--! Message: Cut-over and end of moves

--! Included functions/lock_out_writers.sql
create or replace function filestore.lock_out_writers(move filestore.moves, within interval)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  lock_key bigint := hashtextextended('filestore.move', move.mount_id);
  busy     text;
begin
  perform set_config('lock_timeout', greatest(1, extract(epoch from within) * 1000)::bigint::text, true);
  perform pg_advisory_xact_lock(lock_key);
exception
  when lock_not_available then
    select string_agg(coalesce(l.pid::text, 'a prepared transaction'), ', ' order by l.pid)
    into busy
    from pg_locks l
    where l.locktype = 'advisory'
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and l.classid = ((lock_key >> 32) & 4294967295)::oid
      and l.objid = (lock_key & 4294967295)::oid
      and l.objsubid = 1
      and l.granted;
    raise exception 'transactions that have written to mount "%" did not end within %: processes %', move.mount_key, within, coalesce(busy, 'that have ended now')
      using errcode    = 'FS409',
            constraint = 'moves_writers_busy',
            hint       = 'Wait for them or end them, and call it again. Nothing has changed.';
end
$$;

comment on function filestore.lock_out_writers(filestore.moves, interval) is
  'Internal: Waits until every transaction that has written to the mount has ended, and refuses others until this one ends. FS409 when it takes longer.';

revoke all on function filestore.lock_out_writers(filestore.moves, interval) from public;
--! EndIncluded functions/lock_out_writers.sql
--! Included functions/require_reader.sql
create or replace function filestore.require_reader(move filestore.moves)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  largest constant bigint := 16777216;
  behind  bigint;
begin
  select pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn)
  into behind
  from pg_replication_slots s
  where s.slot_name = filestore.move_slot(move.id)
    and s.database = current_database()
    and s.active;
  if behind is null or behind > largest then
    raise exception 'the target of mount "%" %', move.mount_key,
      coalesce('is ' || behind || ' bytes of log behind', 'does not read the log')
      using errcode    = 'FS409',
            constraint = 'moves_behind_check',
            hint       = format('Wait until slot %s is active and less than %s bytes behind. If it does not advance, see the log of the target.', filestore.move_slot(move.id), largest);
  end if;
end
$$;

comment on function filestore.require_reader(filestore.moves) is
  'Internal: Raises FS409 unless the target reads the log of this server, and is not far behind.';

revoke all on function filestore.require_reader(filestore.moves) from public;
--! EndIncluded functions/require_reader.sql
--! Included functions/close_mount.sql
create or replace function filestore.close_mount(mount_key text, receipt jsonb, within interval default '10 s')
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  deadline timestamptz := clock_timestamp() + within;
  move     filestore.moves := filestore.find_move(close_mount.mount_key);
begin
  if within is null or within < interval '100 ms' or within > interval '1 hour' then
    raise exception 'the cut-over cannot take %', coalesce(within::text, 'null')
      using errcode    = 'FS422',
            constraint = 'moves_within_check',
            hint       = 'Give a time from 100 ms to 1 hour, such as interval ''10 s''.';
  elsif move.source_number <> move.written_by or move.step not in ('proved', 'closed') then
    perform filestore.refuse_step(move, 'filestore.close_mount');
  end if;
  perform filestore.require_receipt(
    move, receipt, jsonb_build_object('mark', move.mark, 'early', move.early_digest), 'filestore.prove_mount on the target'
  );
  if move.step = 'closed' and not filestore.holds_mount(move.mount_id) then
    return jsonb_build_object('move', move.id, 'attempt', move.attempt, 'until', move.closed_until);
  end if;
  perform filestore.require_same_timeline(move);
  perform filestore.require_reader(move);
  -- Every transaction that wrote to the mount ends before this one commits. So the target has all rows once it has this
  -- change.
  perform filestore.lock_out_writers(move, deadline - clock_timestamp());
  perform filestore.lock_moving_mount(move);
  update filestore.backend_mounts m
  set held_by = -1
  where m.id = move.mount_id;
  update filestore.moves m
  set attempt      = m.attempt + 1,
      closed_until = deadline,
      late_digest  = null
  where m.id = move.id
    and m.written_by = move.written_by;
  move := filestore.set_step(move, 'closed');
  return jsonb_build_object('move', move.id, 'attempt', move.attempt, 'until', move.closed_until);
end
$$;

comment on function filestore.close_mount(text, jsonb, interval) is
  'Begins the cut-over on the source: waits for the transactions that have written to the mount, and refuses all others (FS409, backend_mounts_moving). Reading goes on. Unless filestore.release_mount is called within the given time, the next writer opens the mount again. Takes the receipt of filestore.prove_mount from the target. For the owner of the schema.';

revoke all on function filestore.close_mount(text, jsonb, interval) from public;
--! EndIncluded functions/close_mount.sql
--! Included functions/wait_for_standbys.sql
create or replace function filestore.wait_for_standbys(move filestore.moves)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  reached constant pg_lsn := pg_current_wal_lsn();
  behind  text;
begin
  -- Without pg_monitor, positions of other roles' standbys are null and pass.
  for attempt in 1 .. 100 loop
    select string_agg(r.application_name, ', ')
    into behind
    from pg_stat_replication r
    where r.state in ('streaming', 'catchup')
      and r.flush_lsn < reached
      and not exists (
        select
        from pg_replication_slots s
        where s.active_pid = r.pid
          and s.slot_type = 'logical'
      );
    if behind is null then
      return;
    end if;
    perform pg_sleep(0.01);
  end loop;
  raise exception 'standbys are behind and do not know yet that mount "%" is closed: %', move.mount_key, behind
    using errcode    = 'FS409',
          constraint = 'moves_behind_check',
          hint       = 'Call filestore.release_mount again. If one of the standbys were promoted now, two servers would take writes.';
end
$$;

comment on function filestore.wait_for_standbys(filestore.moves) is
  'Internal: Waits for a second until every streaming standby knows that the mount is closed, so that none of them takes writes after a failover.';

revoke all on function filestore.wait_for_standbys(filestore.moves) from public;
--! EndIncluded functions/wait_for_standbys.sql
--! Included functions/release_mount.sql
create or replace function filestore.release_mount(mount_key text, receipt jsonb)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  move  filestore.moves := filestore.find_move(release_mount.mount_key);
  found jsonb;
begin
  if move.source_number <> move.written_by or move.step not in ('closed', 'released') then
    perform filestore.refuse_step(move, 'filestore.release_mount');
  end if;
  perform filestore.require_receipt(
    move, receipt, jsonb_build_object('mark', move.mark, 'attempt', move.attempt), 'filestore.prove_mount on the target after filestore.close_mount'
  );
  if move.step = 'closed' then
    perform filestore.require_same_timeline(move);
    -- A writer that comes after the time has ended now, or is locked out. It may not have left a trace in the row of the
    -- move, so its write would be missing from the digests.
    perform filestore.lock_out_writers(move, interval '1 second');
    if move.closed_until < clock_timestamp() then
      raise exception 'the time of the cut-over of mount "%" is over, and this server takes its writes again', move.mount_key
        using errcode    = 'FS409',
              constraint = 'moves_step_check',
              hint       = 'Call filestore.close_mount again, if need be with more time in "within".';
    end if;
    perform filestore.lock_moving_mount(move);
    found := coalesce(move.late_digest, filestore.digest_mount(move, true));
    perform filestore.require_equal(move, found, receipt -> 'late');
    perform filestore.wait_for_standbys(move);
    update filestore.moves m
    set late_digest = found
    where m.id = move.id
      and m.written_by = move.written_by;
    move := filestore.set_step(move, 'released');
  end if;
  return jsonb_build_object('move', move.id, 'attempt', move.attempt, 'released', move.late_digest);
end
$$;

comment on function filestore.release_mount(text, jsonb) is
  'Decides the cut-over on the source: when the target has the same rows, the mount is closed here forever, and the target takes writes as soon as it knows. Takes the receipt of filestore.prove_mount from the target, after filestore.close_mount. Returns the one for filestore.receive_mount. For the owner of the schema. FS409 when the target differs, or the time is over.';

revoke all on function filestore.release_mount(text, jsonb) from public;
--! EndIncluded functions/release_mount.sql
--! Included functions/receive_mount.sql
create or replace function filestore.receive_mount(mount_key text, receipt jsonb default null)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  move filestore.moves := filestore.find_move(receive_mount.mount_key);
begin
  if move.source_number = move.written_by or move.step not in ('proved', 'received', 'finished') then
    perform filestore.refuse_step(move, 'filestore.receive_mount');
  end if;
  if move.step = 'proved' then
    if receipt is not null then
      perform filestore.require_receipt(
        move, receipt, jsonb_build_object('attempt', move.attempt, 'released', move.late_digest), 'filestore.release_mount on the source'
      );
    elsif not filestore.holds_mount(move.mount_id) then
      perform filestore.refuse_step(move, 'filestore.receive_mount without a receipt');
    end if;
    perform filestore.lock_moving_mount(move);
    move := filestore.set_step(move, 'received');
    update filestore.backend_mounts m
    set held_by = null
    where m.id = move.mount_id;
  end if;
  return jsonb_build_object('move', move.id, 'received', true);
end
$$;

comment on function filestore.receive_mount(text, jsonb) is
  'Lets services write to a mount on its new server, after filestore.release_mount on the old one. With its receipt, they can write at once; without it, as soon as the change has arrived. The first writer after that has the same effect. Totals read stale until filestore.recount_rollups. For the owner of the schema.';

revoke all on function filestore.receive_mount(text, jsonb) from public;
--! EndIncluded functions/receive_mount.sql
--! Included functions/receive_sightings.sql
create or replace function filestore.receive_sightings(mount_key text, node_ids bigint[], seen timestamptz[], reconciled timestamptz[])
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  move filestore.moves := filestore.find_move(receive_sightings.mount_key);
begin
  if move.source_number = move.written_by or move.step not in ('received', 'finished') then
    perform filestore.refuse_step(move, 'filestore.receive_sightings');
  end if;
  -- Its locks in the order of record_sightings, so that the two do not deadlock: the tree, the nodes without a sighting,
  -- the sightings that are here.
  perform filestore.lock_tree(move.mount_id, false);
  insert into filestore.node_sightings (node_id, last_seen_at, last_reconciled_at)
  select n.id, u.seen, u.reconciled
  from unnest(node_ids, receive_sightings.seen, receive_sightings.reconciled) as u (node_id, seen, reconciled)
  join filestore.nodes n on n.id = u.node_id
  where n.backend_mount_id = move.mount_id
    and not exists (select from filestore.node_sightings s where s.node_id = n.id)
  order by n.id
  for key share of n
  on conflict do nothing;

  update filestore.node_sightings s
  set last_seen_at       = greatest(s.last_seen_at, known.seen),
      last_reconciled_at = greatest(s.last_reconciled_at, known.reconciled)
  from (
    select k.node_id, u.seen, u.reconciled
    from unnest(node_ids, receive_sightings.seen, receive_sightings.reconciled) as u (node_id, seen, reconciled)
    join filestore.node_sightings k on k.node_id = u.node_id
    join filestore.nodes n on n.id = u.node_id
    where n.backend_mount_id = move.mount_id
      and (k.last_seen_at, k.last_reconciled_at) is distinct from (u.seen, u.reconciled)
    order by k.node_id
    for no key update of k
  ) known
  where s.node_id = known.node_id;

  -- Sightings arrive in the order of their nodes, so the highest id tells which have been counted.
  update filestore.moves m
  set sightings        = m.sightings + u.sightings,
      sightings_digest = m.sightings_digest + u.digest,
      sightings_key    = greatest(m.sightings_key, u.key)
  from (
    select
      count(*) as sightings,
      coalesce(sum(hashint8extended(hash_record_extended(s, 0), 0)), 0) as digest,
      coalesce(max(s.node_id), 0) as key
    from unnest(node_ids, receive_sightings.seen, receive_sightings.reconciled) as s (node_id, seen, reconciled)
    where s.node_id > move.sightings_key
  ) u
  where m.id = move.id
    and m.written_by = move.written_by
  returning m.* into move;
  return move.sightings_key;
end
$$;

comment on function filestore.receive_sightings(text, bigint[], timestamptz[], timestamptz[]) is
  'Adds sightings of a mount that has moved, read from its old server in the order of node_id, and returns the id after which to continue. A sighting that is here already stays unless it is older. With empty arrays, it returns where to continue. For the owner of the schema.';

revoke all on function filestore.receive_sightings(text, bigint[], timestamptz[], timestamptz[]) from public;
--! EndIncluded functions/receive_sightings.sql
--! Included functions/finish_move.sql
create or replace function filestore.finish_move(mount_key text, receipt jsonb default null)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  move      filestore.moves := filestore.find_move(finish_move.mount_key);
  sightings jsonb;
begin
  if move.source_number <> move.written_by then
    if move.step not in ('received', 'finished') then
      perform filestore.refuse_step(move, 'filestore.finish_move');
    end if;
    perform filestore.require_no_subscription(move);
    delete from filestore.moves m
    where m.id = move.id
      and m.written_by = move.source_number;
    if move.step = 'received' then
      move := filestore.set_step(move, 'finished');
    end if;
    return jsonb_build_object('move', move.id, 'finished', true, 'sightings', jsonb_build_array(move.sightings, move.sightings_digest::text));
  elsif move.step not in ('released', 'finished') then
    perform filestore.refuse_step(move, 'filestore.finish_move');
  end if;

  perform filestore.require_receipt(move, receipt, '{"finished": true}', 'filestore.finish_move on the target');
  if move.step = 'released' then
    select jsonb_build_array(count(*), coalesce(sum(hashint8extended(hash_record_extended(row(s.node_id, s.last_seen_at, s.last_reconciled_at), 0), 0)), 0)::text)
    into sightings
    from filestore.nodes n
    join filestore.node_sightings s on s.node_id = n.id
    where n.backend_mount_id = move.mount_id;
    if sightings is distinct from receipt -> 'sightings' then
      raise exception 'the sightings of mount "%" are not all on the target: % here, % there', move.mount_key, sightings, receipt -> 'sightings'
        using errcode    = 'FS409',
              constraint = 'moves_proof_check',
              hint       = 'Call filestore.receive_sightings on the target with the rest, in the order of node_id, then filestore.finish_move there, and this with its receipt.';
    end if;
    execute format('drop publication if exists filestore_move_%s', move.id);
    move := filestore.set_step(move, 'finished');
  end if;
  return jsonb_build_object('move', move.id, 'finished', true);
end
$$;

comment on function filestore.finish_move(text, jsonb) is
  'Ends a move: first on the target, when its subscription is dropped, then on the source with the receipt of the target. After that, the source can call filestore.erase_mount. For the owner of the schema. FS409 when sightings are missing on the target.';

revoke all on function filestore.finish_move(text, jsonb) from public;
--! EndIncluded functions/finish_move.sql
--! Included functions/begin_erasing.sql
create or replace function filestore.begin_erasing(mount_key text, batch integer)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id constant bigint := filestore.find_mount(begin_erasing.mount_key);
  mount    filestore.backend_mounts;
  move     filestore.moves;
begin
  perform filestore.check_limit('batch', batch);
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = mount_id
  for update;
  if not found then
    -- It was deleted during the wait for its row.
    return filestore.begin_erasing(begin_erasing.mount_key, batch);
  end if;
  if mount.held_by is not null then
    select *
    into move
    from filestore.moves m
    where m.mount_id = mount.id
      and m.written_by = filestore.database_number()
    order by m.started_at desc
    limit 1;
    if move.source_number is distinct from move.written_by or move.step is distinct from 'finished' then
      raise exception 'mount "%" is moving between servers', mount.mount_key
        using errcode    = 'FS409',
              constraint = 'backend_mounts_moving',
              hint       = 'Finish the move with filestore.finish_move, or take it back with filestore.cancel_move, which also erases the copy.';
    end if;
  elsif mount.erasing_since is null and mount.state = 'active' then
    raise exception 'mount "%" is active: it cannot be erased', mount.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_active',
            hint       = 'When no service uses it any more, set its state to inactive.';
  end if;
  -- An update that changes nothing would be refused, because another server has the mount.
  update filestore.backend_mounts m
  set erasing_since = date_trunc('milliseconds', statement_timestamp())
  where m.id = mount.id
    and m.erasing_since is null;
  return mount.id;
end
$$;

comment on function filestore.begin_erasing(text, integer) is
  'Internal: Marks a mount as being erased, and returns its id. FS409 when it is active, or its move is not finished.';

revoke all on function filestore.begin_erasing(text, integer) from public;
--! EndIncluded functions/begin_erasing.sql
--! Included functions/erase_batch.sql
create or replace function filestore.erase_batch(mount_id bigint, batch integer, newest bigint)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  chosen       bigint[];
  lowest       text;
  frozen       bigint;
  before       bigint;
  -- A server that has or gets the mount has its journal too.
  with_journal boolean := filestore.is_erasing_copy(mount_id) or exists (
    select
    from filestore.backend_mounts m
    where m.id = mount_id
      and m.held_by is not null
  );
  refusal      text;
begin
  perform filestore.lock_tree(mount_id, true);
  -- Tombstones in any order. Then live nodes in descending order of path, because nodes_parent_fkey requires children
  -- to be removed before their directory.
  chosen := array(
    select n.id
    from filestore.nodes n
    where n.backend_mount_id = mount_id
      and n.deleted_at is not null
    order by n.deleted_at
    limit batch
  );
  if cardinality(chosen) < batch then
    lowest := coalesce((
      select n.path
      from filestore.nodes n
      where n.backend_mount_id = mount_id
        and n.live
      order by n.path desc
      offset batch - cardinality(chosen) - 1
      limit 1
    ), '');
    -- Creates in these directories wait until the batch has ended. Without the lock, they would undo every batch. The loop
    -- repeats until it finds no directory that was created in the meantime.
    loop
      before := frozen;
      perform
      from filestore.nodes n
      where n.backend_mount_id = mount_id
        and n.live
        and n.path >= lowest
        and n.directory_path is not null
      order by n.id
      for update;
      get diagnostics frozen = row_count;
      exit when frozen = 0 or frozen = before;
    end loop;
    -- With the files that were created while the batch waited for its locks.
    chosen := chosen || array(
      select n.id
      from filestore.nodes n
      where n.backend_mount_id = mount_id
        and n.live
        and n.path >= lowest
        and n.path > ''
    );
  end if;
  -- Writers that create faster than a batch removes would never let it end, so the next batch is larger.
  if exists (select from unnest(chosen) c (id) where c.id > newest and c.id >> 40 = newest >> 40) then
    batch := least(batch, 500000000) * 2;
  end if;

  begin
    if lowest = '' then
      -- With that of the root, which is removed later: in order of id, as in record_sightings.
      perform
      from filestore.node_sightings s
      where s.node_id = any (chosen || (select n.id from filestore.nodes n where n.root_of_mount_id = mount_id))
      order by s.node_id
      for update;
    end if;
    delete from filestore.nodes n
    where n.id = any (chosen);
    -- After the nodes, because an update that had to end first appended its delta.
    delete from filestore.rollup_deltas d
    where d.backend_mount_id = mount_id;
    if chosen <> '{}' then
      raise notice '% nodes erased', cardinality(chosen);
    end if;
    -- The last batch also removes the mount, because its locks are released at its end.
    if lowest is distinct from '' then
      return batch;
    end if;
    if with_journal then
      delete from filestore.journal_entries j
      where j.id = any (array(
        select o.id
        from filestore.journal_entries o
        where o.backend_mount_id = mount_id
        limit batch
      ));
      if found then
        return batch;
      end if;
      -- The history in a copy whose nodes have not arrived.
      delete from filestore.snapshots s
      where s.backend_mount_id = mount_id
        and not exists (select from filestore.nodes n where n.id = s.id);
    end if;
    delete from filestore.backend_mounts m
    where m.id = mount_id;
    delete from filestore.nodes n
    where n.backend_mount_id = mount_id;
  exception
    when foreign_key_violation then
      -- A node was restored in one of these directories: the next batch has it.
      return batch;
    when sqlstate 'FS409' then
      get stacked diagnostics refusal = constraint_name;
      if refusal <> 'nodes_not_empty' then
        raise;
      end if;
      return batch;
  end;
  return 0;
end
$$;

comment on function filestore.erase_batch(bigint, integer, bigint) is
  'Internal: Removes the next rows of a mount that is being erased, and in the end the mount. Returns the size of the next batch, which is doubled after nodes with ids above newest in its range; 0 at the end.';

revoke all on function filestore.erase_batch(bigint, integer, bigint) from public;
--! EndIncluded functions/erase_batch.sql
--! Included functions/erase_mount.sql
create or replace procedure filestore.erase_mount(mount_key text, batch integer default 10000)
language plpgsql
as $$
declare
  mount_id bigint;
  newest   bigint;
begin
  set local search_path = pg_catalog, pg_temp;
  mount_id := filestore.begin_erasing(mount_key, batch);
  -- Not the highest id: nodes of a mount that moved here have ids of another range.
  newest := (select s.last_value from filestore.nodes_id_seq s);
  while batch > 0 loop
    commit;
    set local search_path = pg_catalog, pg_temp;
    batch := filestore.erase_batch(mount_id, batch, newest);
  end loop;
  commit;
  set local search_path = pg_catalog, pg_temp;
  raise notice 'mount "%" is erased', mount_key;
end
$$;

comment on procedure filestore.erase_mount(text, integer) is
  'Removes a mount that is not active, with all its nodes and their history, in batches with a commit after each: for a bucket or disk that is gone, or a mount that has moved to another server. It can be killed at any moment: the same call continues. The journal stays, except that of a mount that has moved. For the owner of the schema. FS409 when the mount is active, or its move is not finished.';

revoke all on procedure filestore.erase_mount(text, integer) from public;
--! EndIncluded functions/erase_mount.sql
--! Included functions/cancel_step.sql
create or replace function filestore.cancel_step(mount_key text, receipt jsonb, batch integer)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  move  filestore.moves := filestore.find_move(cancel_step.mount_key);
  ended jsonb := jsonb_build_object('move', move.id, 'canceled', true);
begin
  perform filestore.check_limit('batch', batch);
  if move.step = 'canceled' then
    return ended;
  elsif move.step in ('received', 'finished') and not filestore.keeps_moved_mount(move) then
    perform filestore.refuse_step(move, 'filestore.cancel_move');
  elsif move.step = 'canceling' then
    perform filestore.lock_moving_mount(move);
    update filestore.backend_mounts m
    set held_by = null
    where m.id = move.mount_id;
    perform filestore.set_step(move, 'canceled');
    return ended;
  elsif move.step = 'erasing' then
    -- No service writes to the copy.
    if filestore.erase_batch(move.mount_id, batch, null) = 0 then
      delete from filestore.moves m
      where m.id = move.id
        and m.written_by = move.source_number;
      perform filestore.set_step(move, 'canceled');
      return ended;
    end if;
  elsif move.source_number = move.written_by then
    -- Until the target has given up, it may have the mount, and this server may not know.
    if receipt is not null or move.step in ('released', 'finished') then
      perform filestore.require_receipt(move, receipt, '{"canceled": true}', 'filestore.cancel_move on the target');
    else
      perform filestore.require_same_timeline(move);
    end if;
    -- In an earlier transaction than the next change of the mount, which the target must not get.
    execute format('drop publication if exists filestore_move_%s', move.id);
    perform filestore.set_step(move, 'canceling');
  else
    perform filestore.require_no_subscription(move);
    perform filestore.lock_moving_mount(move);
    update filestore.backend_mounts m
    set erasing_since = date_trunc('milliseconds', clock_timestamp())
    where m.id = move.mount_id;
    perform filestore.set_step(move, 'erasing');
  end if;
  return null;
end
$$;

comment on function filestore.cancel_step(text, jsonb, integer) is
  'Internal: The next transaction of filestore.cancel_move; its receipt at the end, else null.';

revoke all on function filestore.cancel_step(text, jsonb, integer) from public;
--! EndIncluded functions/cancel_step.sql
--! Included functions/cancel_move.sql
create or replace procedure filestore.cancel_move(mount_key text, inout receipt jsonb default null, batch integer default 10000)
language plpgsql
as $$
declare
  ended pg_catalog.jsonb;
begin
  set local search_path = pg_catalog, pg_temp;
  loop
    ended := filestore.cancel_step(mount_key, receipt, batch);
    commit;
    set local search_path = pg_catalog, pg_temp;
    exit when ended is not null;
  end loop;
  receipt := ended;
end
$$;

comment on procedure filestore.cancel_move(text, jsonb, integer) is
  'Takes a move back. On the source, services write to the mount again. On the target, after its subscription is dropped, the copy is erased in batches. Returns a receipt. The source needs the receipt of the target if it has released the mount, or was promoted since the move began. With that receipt, it also takes a finished move back, until filestore.erase_mount. It can be killed at any moment: the same call continues. For the owner of the schema. FS409 on a target that has received the mount.';

revoke all on procedure filestore.cancel_move(text, jsonb, integer) from public;
--! EndIncluded functions/cancel_move.sql
--! Included functions/move_progress.sql
create or replace function filestore.move_progress(move filestore.moves)
returns table (tables_copied integer, copied_rows bigint, copied_bytes bigint, bytes_behind bigint, expected_pause interval, problem text)
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  publication  text := format('filestore_move_%s', move.id);
  subscription name := filestore.move_subscription(move.id);
  worker       record;
begin
  if move.finished_at is not null then
    return;
  elsif move.source_number = move.written_by then
    select
      (case when s.active then pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, s.confirmed_flush_lsn) end)::bigint,
      -- A standby may have a copy of the slot.
      case when pg_is_in_recovery() then null
           when s.wal_status = 'lost' then 'the log that the target needs is gone: take the move back'
           when not s.active then 'the target does not read the log: see its server''s log' end
    into bytes_behind, problem
    from pg_replication_slots s
    where s.slot_name = filestore.move_slot(move.id)
      and s.database = current_database();
    if not exists (select from pg_publication p where p.pubname = publication) and move.step <> 'canceling' then
      problem := 'the publication was dropped: take the move back';
    elsif not pg_is_in_recovery() and move.timeline is distinct from filestore.server_timeline() then
      problem := 'this server was promoted after the move began, and takes no writes to the mount: take the move back';
    elsif move.step = 'closed' and move.closed_until < clock_timestamp() then
      problem := 'the time of the cut-over is over: the next writer opens the mount here';
    end if;
  elsif subscription is null then
    problem := case when move.step = 'proved' then 'the subscription was dropped: take the move back' end;
  else
    select
      s.subenabled, t.pid,
      filestore.subscription_errors(s.subname) as errors,
      (select count(*) from pg_subscription_rel r where r.srsubid = s.oid and r.srsubstate = 'r') as ready,
      (select sum(p.tuples_processed) from pg_stat_progress_copy p where p.datname = current_database() and p.type = 'CALLBACK') as copied_rows,
      (select sum(p.bytes_processed) from pg_stat_progress_copy p where p.datname = current_database() and p.type = 'CALLBACK') as copied_bytes
    into worker
    from pg_subscription s
    left join pg_stat_subscription t on t.subid = s.oid and t.relid is null
    where s.subname = subscription
      and s.subdbid = (select d.oid from pg_database d where d.datname = current_database())
    limit 1;
    tables_copied := worker.ready;
    copied_rows   := worker.copied_rows;
    copied_bytes  := worker.copied_bytes;
    problem       := case
      when not worker.subenabled then format('subscription %I is disabled: run alter subscription %1$I enable', subscription)
      when worker.errors > 0 then format('%s errors of the workers of subscription %I: see this server''s log', worker.errors, subscription)
    end;
  end if;
  if filestore.guard_statements(true) <> '{}' then
    problem := 'this server is not prepared for moves: call filestore.prepare_moves(true)';
  end if;
  expected_pause := move.late_took * 2 + interval '200 ms';
  return next;
end
$$;

comment on function filestore.move_progress(filestore.moves) is
  'Internal: How far a move is, and what is wrong with it.';

revoke all on function filestore.move_progress(filestore.moves) from public;
--! EndIncluded functions/move_progress.sql

--! Included views/view_filestore_mount_moves.sql
drop view if exists filestore.view_filestore_mount_moves;

create view filestore.view_filestore_mount_moves as
select
  m.id,
  m.mount_key,
  m.mount_id,
  m.source_number,
  m.target_number,
  s.server,
  m.step,
  m.step_since,
  s.meaning,
  s.forward,
  s.back,
  p.tables_copied,
  p.copied_rows,
  p.copied_bytes,
  p.bytes_behind,
  p.expected_pause,
  p.problem
from filestore.moves m
join filestore.move_steps() s
  on s.step = m.step
 and s.server = case when m.source_number = m.written_by then 'source' else 'target' end
left join lateral filestore.move_progress(m) p on true
where m.written_by = filestore.database_number();

comment on view filestore.view_filestore_mount_moves is
  'The moves of mounts from and to this server: the step, what it means, and the ways forward and back.';

comment on column filestore.view_filestore_mount_moves.server         is 'Whether this server is the source or the target.';
comment on column filestore.view_filestore_mount_moves.meaning        is 'What the step means.';
comment on column filestore.view_filestore_mount_moves.forward        is 'What to do next.';
comment on column filestore.view_filestore_mount_moves.back           is 'How to take the move back.';
comment on column filestore.view_filestore_mount_moves.tables_copied  is 'On the target: how many of 5 tables are copied.';
comment on column filestore.view_filestore_mount_moves.copied_rows    is 'On the target: rows of the tables that are being copied; null when none is.';
comment on column filestore.view_filestore_mount_moves.copied_bytes   is 'On the target: bytes of these rows.';
comment on column filestore.view_filestore_mount_moves.bytes_behind   is 'On the source: bytes of log that the target has not applied; null when the target does not read the log.';
comment on column filestore.view_filestore_mount_moves.expected_pause is 'On the target: about how long no server will take writes, measured by a count of the new rows; null before the target is proved.';
comment on column filestore.view_filestore_mount_moves.problem        is 'What is wrong; null when nothing is.';
--! EndIncluded views/view_filestore_mount_moves.sql
