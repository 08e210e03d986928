--! Previous: sha1:86a70920adbbcaed630e82a561468a956f79d955
--! Hash: sha1:c08be20e8f070fdb52477d8e08096e6adf3ed17d
--! Message: Copies and proofs of moves

--! Included functions/refuse_locked.sql
create or replace function filestore.refuse_locked(mount_key text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  move     filestore.moves;
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
  lock_key := hashtextextended('filestore.move', move.mount_id);
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
        where b.id = move.mount_id
      )
    );
  raise exception 'another transaction holds the row of mount "%" or of its move%', mount_key, coalesce(': process ' || lockers, '')
    using errcode    = 'FS409',
          constraint = 'moves_writers_busy',
          hint       = format(
            'Wait for it or end it, and call this again: nothing has changed. %s',
            case
              when not filestore.holds_mount(move.mount_id) then 'filestore.view_filestore_mount_moves says which server takes the writes of the mount.'
              when move.source_number = move.written_by then 'In the meantime, this server takes the writes of the mount.'
              else 'This server takes the writes of the mount when that transaction has ended.'
            end
          );
end
$$;

comment on function filestore.refuse_locked(text) is
  'Internal: Raises FS409 for a step of a move that waited too long for a row, with the process that holds it and the server that takes writes.';

revoke all on function filestore.refuse_locked(text) from public;
--! EndIncluded functions/refuse_locked.sql
--! Included functions/lock_moving_mount.sql
create or replace function filestore.lock_moving_mount(move filestore.moves)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform
  from filestore.backend_mounts m
  where m.id = move.mount_id
  for no key update;
exception
  when lock_not_available then
    perform filestore.refuse_locked(move.mount_key);
end
$$;

comment on function filestore.lock_moving_mount(filestore.moves) is
  'Internal: Locks the row of a mount that moves, before a step changes it. FS409 when another transaction holds it for too long.';

revoke all on function filestore.lock_moving_mount(filestore.moves) from public;
--! EndIncluded functions/lock_moving_mount.sql
--! Included functions/find_move.sql
create or replace function filestore.find_move(mount_key text)
returns filestore.moves
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  move filestore.moves;
begin
  perform filestore.require_read_committed('a step of a move');
  perform set_config('lock_timeout', '10s', true);
  perform filestore.require_move_guards();
  begin
    -- At most one is unfinished. A finished one answers a step that is repeated.
    select *
    into move
    from filestore.moves m
    where m.mount_key = find_move.mount_key
      and m.written_by = filestore.database_number()
    order by (m.finished_at is null) desc, m.started_at desc
    limit 1
    for update;
  exception
    when lock_not_available then
      perform filestore.refuse_locked(mount_key);
  end;
  if move.id is null then
    raise exception 'no move of mount "%" is known here', mount_key
      using errcode    = 'FS404',
            constraint = 'moves_missing',
            hint       = 'Call filestore.start_move on the server that holds the mount, and then filestore.accept_move on its new server.';
  end if;
  return move;
end
$$;

comment on function filestore.find_move(text) is
  'Internal: The row that this server writes for the move of a mount, locked: the unfinished one, else the last. FS404 when there is none.';

revoke all on function filestore.find_move(text) from public;
--! EndIncluded functions/find_move.sql
--! Included functions/refuse_step.sql
create or replace function filestore.refuse_step(move filestore.moves, wanted text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  place text := case when move.written_by = move.source_number then 'source' else 'target' end;
  state record;
begin
  select *
  into strict state
  from filestore.move_steps() s
  where s.server = place
    and s.step = move.step;
  raise exception '% does not fit: move % of mount "%" is % on this server, its %: %', wanted, move.id, move.mount_key, move.step, place, state.meaning
    using errcode    = 'FS409',
          constraint = 'moves_step_check',
          hint       = format('Next: %s. To take it back: %s.', state.forward, state.back);
end
$$;

comment on function filestore.refuse_step(filestore.moves, text) is
  'Internal: Raises FS409 for a step that is too early, too late, or of the other server, with the step that is next.';

revoke all on function filestore.refuse_step(filestore.moves, text) from public;
--! EndIncluded functions/refuse_step.sql
--! Included functions/mount_schema.sql
create or replace function filestore.mount_schema()
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select md5(string_agg(format('%s.%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod)), ',' order by c.relname, a.attnum))
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'filestore'::regnamespace
      and c.relname in ('backend_mounts', 'nodes', 'snapshots', 'journal_entries', 'moves')
      and a.attnum > 0
      and not a.attisdropped
  );
end
$$;

comment on function filestore.mount_schema() is
  'Internal: A digest of the columns that a move copies, which are the same on both servers.';

revoke all on function filestore.mount_schema() from public;
--! EndIncluded functions/mount_schema.sql
--! Included functions/move_slot.sql
create or replace function filestore.move_slot(move_id bigint)
returns name
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Slots belong to the server, and two of its databases can have moves with the same id.
  return format('filestore_move_%s_%s', move_id, (select d.oid from pg_database d where d.datname = current_database()));
end
$$;

comment on function filestore.move_slot(bigint) is
  'Internal: The name of the replication slot for a move from this database.';

revoke all on function filestore.move_slot(bigint) from public;
--! EndIncluded functions/move_slot.sql

--! Included functions/move_subscription.sql
create or replace function filestore.move_subscription(move_id bigint)
returns name
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select min(s.subname::text)
    from pg_subscription s
    where s.subdbid = (select d.oid from pg_database d where d.datname = current_database())
      and s.subpublications @> array[format('filestore_move_%s', move_id)]
  );
end
$$;

comment on function filestore.move_subscription(bigint) is
  'Internal: The name of this database''s subscription to the publication of a move; null without one.';

revoke all on function filestore.move_subscription(bigint) from public;
--! EndIncluded functions/move_subscription.sql

--! Included functions/subscription_errors.sql
create or replace function filestore.subscription_errors(subscription name)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- By the ends of their names: "sync_error_count" became two counters in PostgreSQL 19.
  return (
    select coalesce(sum(e.value::bigint), 0)
    from pg_subscription s
    join pg_stat_subscription_stats t on t.subid = s.oid
    cross join lateral jsonb_each_text(to_jsonb(t)) e
    where s.subname = subscription
      and s.subdbid = (select d.oid from pg_database d where d.datname = current_database())
      and right(e.key, 12) = '_error_count'
  );
end
$$;

comment on function filestore.subscription_errors(name) is
  'Internal: How often the workers of this database''s subscription failed; 0 without one.';

revoke all on function filestore.subscription_errors(name) from public;
--! EndIncluded functions/subscription_errors.sql
--! Included functions/require_place.sql
create or replace function filestore.require_place(mount filestore.backend_mounts)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  reason text;
begin
  perform set_config('lock_timeout', '10s', true);
  if exists (select from filestore.nodes n where n.backend_mount_id = mount.id)
     or exists (select from filestore.snapshots s where s.backend_mount_id = mount.id) then
    reason := 'rows with its id are here already';
  elsif exists (select from filestore.journal_entries j where j.backend_mount_id = mount.id) then
    reason := format('filestore.journal_entries has commands of its id, %s: end and delete them', mount.id);
  else
    begin
      -- Every rule that the row must satisfy is tried, and the attempt is undone.
      mount.held_by := null;
      insert into filestore.backend_mounts
      overriding system value
      select mount.*;
      raise sqlstate 'FS001';
    exception
      when sqlstate 'FS001' then
        return;
      when unique_violation or exclusion_violation then
        select case
          when m.mount_key = mount.mount_key then 'a mount here has the same key'
          else format('mount "%s" here has the same directory or bucket, or a part of it', m.mount_key)
        end
        into reason
        from filestore.backend_mounts m
        where m.mount_key = mount.mount_key
           or filestore.mount_place(m.backend_kind, m.root_path, m.endpoint, m.bucket, m.prefix)
              && filestore.mount_place(mount.backend_kind, mount.root_path, mount.endpoint, mount.bucket, mount.prefix)
        order by m.mount_key = mount.mount_key desc
        limit 1;
        reason := coalesce(reason, sqlerrm);
      when lock_not_available then
        raise;
      when others then
        reason := sqlerrm;
    end;
  end if;
  raise exception 'mount "%" has no place here: %', mount.mount_key, reason
    using errcode    = 'FS409',
          constraint = 'moves_place_check',
          hint       = 'Rename or erase the mount that is in the way, on one of the two servers. The rows of an earlier move are removed by filestore.cancel_move or filestore.erase_mount.';
exception
  when lock_not_available then
    raise exception 'another session here holds a lock that stops the row of mount "%"', mount.mount_key
      using errcode    = 'FS409',
            constraint = 'moves_writers_busy',
            hint       = 'Wait for it or end it, and call this again: nothing has changed. docs/operations.md shows how to find the session: "Waiting for a table''s lock".';
end
$$;

comment on function filestore.require_place(filestore.backend_mounts) is
  'Internal: Raises FS409 unless the row of a mount fits beside the mounts of this server, or when a lock stops it for 10 s.';

revoke all on function filestore.require_place(filestore.backend_mounts) from public;
--! EndIncluded functions/require_place.sql
--! Included functions/require_receipt.sql
create or replace function filestore.require_receipt(move filestore.moves, receipt jsonb, wanted jsonb, origin text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select
    from jsonb_each(wanted || jsonb_build_object('move', move.id)) w
    where receipt -> w.key is distinct from w.value
       -- This server does not know the value yet, so no receipt has it.
       or w.value = 'null'
  ) then
    raise exception 'this is not the receipt of % for move % of mount "%"', origin, move.id, move.mount_key
      using errcode    = 'FS409',
            constraint = 'moves_receipt_check',
            hint       = format('Call %s, and give what it returns.', origin);
  end if;
end
$$;

comment on function filestore.require_receipt(filestore.moves, jsonb, jsonb, text) is
  'Internal: Raises FS409 unless a receipt belongs to the move, and to its mark or attempt.';

revoke all on function filestore.require_receipt(filestore.moves, jsonb, jsonb, text) from public;
--! EndIncluded functions/require_receipt.sql
--! Included functions/require_equal.sql
create or replace function filestore.require_equal(move filestore.moves, source_digest jsonb, target_digest jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  unequal text := (
    select string_agg(format('%s: %s on the source, %s on the target', d.key, source_digest -> d.key, target_digest -> d.key), '; ' order by d.key)
    from jsonb_each(source_digest) d
    where d.value is distinct from target_digest -> d.key
  );
begin
  if unequal is not null or target_digest is null then
    raise exception 'mount "%" is not the same on both servers: %', move.mount_key, coalesce(unequal, 'nothing is counted')
      using errcode    = 'FS409',
            constraint = 'moves_proof_check',
            hint       = 'Count and digest differ where rows are missing or were changed, such as after a failover to a standby that was behind. Take the move back with filestore.cancel_move, and begin again.';
  end if;
end
$$;

comment on function filestore.require_equal(filestore.moves, jsonb, jsonb) is
  'Internal: Raises FS409 unless source and target have the same rows.';

revoke all on function filestore.require_equal(filestore.moves, jsonb, jsonb) from public;
--! EndIncluded functions/require_equal.sql
--! Included functions/require_same_timeline.sql
create or replace function filestore.require_same_timeline(move filestore.moves)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if move.timeline is distinct from filestore.server_timeline() then
    raise exception 'this server was promoted after move % of mount "%" began, and may not know its last steps', move.id, move.mount_key
      using errcode    = 'FS409',
            constraint = 'moves_timeline_check',
            hint       = 'Drop the subscription on the target and call filestore.cancel_move there. If that succeeds, call it here with its receipt. If the target says that it received the mount, go on there.';
  end if;
end
$$;

comment on function filestore.require_same_timeline(filestore.moves) is
  'Internal: Raises FS409 on a standby that was promoted since the move began: the target may have received the mount from the old primary.';

revoke all on function filestore.require_same_timeline(filestore.moves) from public;
--! EndIncluded functions/require_same_timeline.sql
--! Included functions/require_no_subscription.sql
create or replace function filestore.require_no_subscription(move filestore.moves)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  subscription name := filestore.move_subscription(move.id);
begin
  if subscription is not null then
    raise exception 'subscription % still copies mount "%"', quote_ident(subscription), move.mount_key
      using errcode    = 'FS409',
            constraint = 'moves_subscription_check',
            hint       = format('Run: drop subscription %I', subscription);
  end if;
end
$$;

comment on function filestore.require_no_subscription(filestore.moves) is
  'Internal: Raises FS409 while the subscription of a move exists.';

revoke all on function filestore.require_no_subscription(filestore.moves) from public;
--! EndIncluded functions/require_no_subscription.sql
--! Included functions/keeps_moved_mount.sql
create or replace function filestore.keeps_moved_mount(move filestore.moves)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if move.step <> 'finished' or move.source_number <> move.written_by then
    return false;
  end if;
  -- The lock keeps filestore.erase_mount from beginning until the transaction ends.
  perform
  from filestore.backend_mounts m
  where m.id = move.mount_id
    and m.held_by = -1
    and m.erasing_since is null
  for update;
  return found;
end
$$;

comment on function filestore.keeps_moved_mount(filestore.moves) is
  'Internal: Whether this server, the source of a finished move, still has every row of the mount.';

revoke all on function filestore.keeps_moved_mount(filestore.moves) from public;
--! EndIncluded functions/keeps_moved_mount.sql
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
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = mount_id
  for update;
  if not found then
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
--! Included functions/accept_move.sql
create or replace function filestore.accept_move(ticket jsonb)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own   integer := filestore.database_number();
  mount filestore.backend_mounts;
  move  filestore.moves;
begin
  if jsonb_typeof(ticket -> 'mount') = 'object' then
    mount := jsonb_populate_record(mount, ticket -> 'mount');
  end if;
  perform filestore.require_read_committed('filestore.accept_move');
  perform filestore.require_move_guards();
  if (ticket ->> 'move')::bigint is null or mount.id is null or (ticket ->> 'target')::integer is distinct from own then
    raise exception 'this is database %, and not the target of the ticket', own
      using errcode    = 'FS409',
            constraint = 'moves_receipt_check',
            hint       = 'Give the ticket that filestore.start_move returned on the source, to the database with the number that was given there.';
  elsif ticket ->> 'schema' is distinct from filestore.mount_schema() then
    raise exception 'the source has other columns than this server'
      using errcode    = 'FS409',
            constraint = 'moves_receipt_check',
            hint       = 'Apply the migrations of the same version of the package to both servers.';
  end if;

  insert into filestore.moves (id, written_by, mount_id, mount_key, source_number, target_number, step, timeline)
  overriding system value
  values ((ticket ->> 'move')::bigint, own, mount.id, mount.mount_key, (ticket ->> 'source')::integer, own, 'accepted', filestore.server_timeline())
  on conflict do nothing
  returning * into move;
  if move.id is null then
    select *
    into move
    from filestore.moves m
    where m.id = (ticket ->> 'move')::bigint
      and m.written_by = own;
    if not found then
      raise exception 'another move of mount "%" is unfinished here', mount.mount_key
        using errcode    = 'FS409',
              constraint = 'moves_open_key',
              hint       = 'Finish that move, or take it back with filestore.cancel_move.';
    elsif move.step in ('erasing', 'canceled') then
      perform filestore.refuse_step(move, 'filestore.accept_move');
    end if;
  else
    perform filestore.require_place(mount);
  end if;
  return format(
    'create subscription filestore_move_%1$s connection ''host=... dbname=... user=... password=...'' publication filestore_move_%1$s with (slot_name = %2$L)',
    move.id, ticket ->> 'slot'
  );
end
$$;

comment on function filestore.accept_move(jsonb) is
  'Accepts the ticket of filestore.start_move on the new server of a mount: refuses it when this server has another number, other columns, or something at the place or with the key of the mount. Returns the statement that begins the copy. For the owner of the schema.';

revoke all on function filestore.accept_move(jsonb) from public;
--! EndIncluded functions/accept_move.sql
--! Included functions/digest_mount.sql
create or replace function filestore.digest_mount(marked filestore.moves, late boolean)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  -- Rows of the source that are newer than the mark have these ids.
  upper_id   bigint := (marked.source_number + 1)::bigint << 40;
  mount      filestore.backend_mounts;
  changed    bigint[];
  columns    text := (
    select string_agg('n.' || quote_ident(a.attname), ', ' order by a.attnum)
    from pg_attribute a
    where a.attrelid = 'filestore.nodes'::regclass
      and a.attnum > 0
      and not a.attisdropped
  );
  -- The hash of a row is linear in the hashes of its values. Without the outer one, two rows could exchange a value unseen.
  digest     constant text := 'jsonb_build_array(count(*), sum(hashint8extended(hash_record_extended(%s, 0), 0))::text)';
  -- A version counts as late by its own values, so that its side never changes. "History" is when a version ended, and why.
  versions   constant text := 'select ' || format(digest, 'v') || $sql$
    from (
      select %1$s
      from filestore.nodes n
      where n.backend_mount_id = $1
        and %2$s
      union all
      select %1$s
      from filestore.snapshots n
      where n.backend_mount_id = $1
        and %3$s
    ) v
  $sql$;
  history    constant text := 'select ' || format(digest, 'row(s.id, s.version, s.valid_from, s.valid_to, s.superseded_by_journal_id)') || $sql$
    from filestore.snapshots s
    where s.backend_mount_id = $1
      and s.valid_to %s $2
  $sql$;
  commands   constant text := 'select ' || format(digest, 'j') || $sql$
    from filestore.journal_entries j
    where j.backend_mount_id = $1
      and %s
  $sql$;
  in_range   constant text := '(n.id > $3 and n.id <= $4)';
  is_changed constant text := '(n.updated_at >= $2 and n.version > 1 and n.id = any ($5))';
  is_created constant text := format('(n.updated_at >= $2 and n.version = 1 and %s)', in_range);
  found      jsonb[] := '{}';
  part       jsonb;
begin
  -- The names come from the catalog.
  if late then
    changed := array(
      select distinct s.id
      from filestore.snapshots s
      where s.backend_mount_id = marked.mount_id
        and s.valid_to >= marked.marked_at
    );
    execute format(
      versions, columns,
      format('(%s or %s)', is_changed, is_created),
      format('n.valid_to >= $2 and n.valid_from >= $2 and (n.version > 1 or %s)', in_range)
    )
    using marked.mount_id, marked.marked_at, marked.node_mark, upper_id, changed
    into part;
  else
    execute format(
      versions, columns,
      format('not (n.updated_at >= $2 and (n.version > 1 or %s))', in_range),
      format('not (n.valid_from >= $2 and (n.version > 1 or %s))', in_range)
    )
    using marked.mount_id, marked.marked_at, marked.node_mark, upper_id
    into part;
  end if;
  found := found || part;
  execute format(history, case when late then '>=' else '<' end)
  using marked.mount_id, marked.marked_at
  into part;
  found := found || part;
  execute format(
    commands,
    case when late then '(j.id = any ($4) or (j.id > $2 and j.id <= $3))' else 'j.id <> all ($4) and not (j.id > $2 and j.id <= $3)' end
  )
  using marked.mount_id, marked.journal_mark, upper_id, marked.open_entries
  into part;
  found := found || part;
  part := null;
  if late then
    select *
    into mount
    from filestore.backend_mounts m
    where m.id = marked.mount_id;
    mount.held_by := null;
    part := to_jsonb(hash_record_extended(mount, 0)::text);
  end if;
  return jsonb_build_object('versions', found[1], 'history', found[2], 'commands', found[3], 'mount', part);
end
$$;

comment on function filestore.digest_mount(filestore.moves, boolean) is
  'Internal: Counts and digests of the rows of a mount, up to the mark of its source, or newer (late). The first part is computed while the mount is written, and reads all rows. The second part reads new rows only.';

revoke all on function filestore.digest_mount(filestore.moves, boolean) from public;
--! EndIncluded functions/digest_mount.sql
--! Included functions/copy_waits_for.sql
create or replace function filestore.copy_waits_for(move filestore.moves, source filestore.moves)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  subscription name := filestore.move_subscription(move.id);
  copied       bigint;
  tables       bigint;
  errors       bigint;
  waiting      text;
begin
  if subscription is null then
    raise exception 'there is no subscription to publication filestore_move_%', move.id
      using errcode    = 'FS409',
            constraint = 'moves_subscription_check',
            hint       = 'Create it with the statement that filestore.accept_move returns, or take the move back: after a subscription is dropped, changes are missing.';
  end if;
  select count(*) filter (where r.srsubstate = 'r'), count(*)
  into copied, tables
  from pg_subscription s
  join pg_subscription_rel r on r.srsubid = s.oid
  where s.subname = subscription
    and s.subdbid = (select d.oid from pg_database d where d.datname = current_database());
  if tables < 5 then
    -- A subscription lists the tables of its publication when it is created.
    raise exception 'subscription % found % of the 5 tables of publication filestore_move_%', quote_ident(subscription), tables, move.id
      using errcode    = 'FS409',
            constraint = 'moves_subscription_check',
            hint       = format('Its connection is not to the source of the move, or the publication was dropped there. Run: drop subscription %I. Then create it with the right connection, or take the move back.', subscription);
  end if;
  waiting := case
    when copied < tables then format('the copy: %s of 5 tables are here', copied)
    when source.id is null             then 'the first row of the source'
    when source.mark = 0               then 'filestore.prove_mount on the source'
    when source.early_digest is null   then 'the count on the source'
  end;
  -- The next step of the operator waits for no worker.
  if waiting <> 'filestore.prove_mount on the source' then
    errors := filestore.subscription_errors(subscription);
    if errors > 0 then
      waiting := format('%s (%s errors of its workers so far: see this server''s log)', waiting, errors);
    end if;
  end if;
  return waiting;
end
$$;

comment on function filestore.copy_waits_for(filestore.moves, filestore.moves) is
  'Internal: What the copy of a mount still waits for before it can be proved; null when nothing. FS409 when it has no subscription.';

revoke all on function filestore.copy_waits_for(filestore.moves, filestore.moves) from public;
--! EndIncluded functions/copy_waits_for.sql
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
    -- Transactions that took the lock after the mark was committed know it. Those that had it before are waited for.
    holders := array(
      select l.virtualtransaction
      from pg_locks l
      where l.locktype = 'advisory'
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.classid = ((lock_key >> 32) & 4294967295)::oid
        and l.objid = (lock_key & 4294967295)::oid
        and l.objsubid = 1
        and (move.writers is null or l.virtualtransaction = any (move.writers))
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
--! Included functions/add_stale_totals.sql
create or replace function filestore.add_stale_totals(mount_id bigint, after bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into filestore.rollups (node_id, consistency_state)
  select n.id, 'stale'
  from filestore.nodes n
  where n.backend_mount_id = mount_id
    and n.directory_path is not null
    and n.id > after
    and not exists (
      select
      from filestore.rollups r
      where r.node_id = n.id
    )
  on conflict do nothing;
end
$$;

comment on function filestore.add_stale_totals(bigint, bigint) is
  'Internal: Inserts a stale row of totals for each directory of a mount that has none and whose id is above the given one.';

revoke all on function filestore.add_stale_totals(bigint, bigint) from public;
--! EndIncluded functions/add_stale_totals.sql
--! Included functions/prove_target.sql
create or replace function filestore.prove_target(move filestore.moves)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  source   filestore.moves;
  receipt  jsonb := jsonb_build_object('move', move.id);
  waiting  text;
  began_at timestamptz;
begin
  if move.step not in ('accepted', 'proved') then
    perform filestore.refuse_step(move, 'filestore.prove_mount');
  end if;
  select *
  into source
  from filestore.moves m
  where m.id = move.id
    and m.written_by = move.source_number;
  waiting := filestore.copy_waits_for(move, source);
  if waiting is not null then
    return receipt || jsonb_build_object('waits_for', waiting);
  end if;

  if move.mark <> source.mark or move.early_digest is null then
    update filestore.moves m
    set mark         = source.mark,
        early_digest = filestore.digest_mount(source, false)
    where m.id = move.id
      and m.written_by = move.written_by
    returning * into move;
    perform filestore.require_equal(move, source.early_digest, move.early_digest);
    perform filestore.add_stale_totals(move.mount_id, 0);
    -- Nothing that was copied is summarized.
    perform brin_summarize_new_values('filestore.snapshots_changed_idx');
    began_at := clock_timestamp();
    perform filestore.digest_mount(source, true);
    update filestore.moves m
    set late_took = clock_timestamp() - began_at
    where m.id = move.id
      and m.written_by = move.written_by;
    move := filestore.set_step(move, 'proved');
  end if;
  receipt := receipt || jsonb_build_object('mark', move.mark, 'early', move.early_digest);

  if source.step in ('closed', 'released') then
    -- Only directories that are newer than the mark can lack totals.
    perform filestore.add_stale_totals(move.mount_id, source.node_mark);
    update filestore.moves m
    set attempt     = source.attempt,
        late_digest = filestore.digest_mount(source, true)
    where m.id = move.id
      and m.written_by = move.written_by
    returning * into move;
    if source.step = 'released' then
      perform filestore.require_equal(move, source.late_digest, move.late_digest);
    end if;
    receipt := receipt || jsonb_build_object('attempt', move.attempt, 'late', move.late_digest);
  end if;
  return receipt;
end
$$;

comment on function filestore.prove_target(filestore.moves) is
  'Internal: The part of filestore.prove_mount on the target: compares what is older than the mark with the source, and counts what is newer once the source is closed.';

revoke all on function filestore.prove_target(filestore.moves) from public;
--! EndIncluded functions/prove_target.sql
--! Included functions/prove_mount.sql
create or replace function filestore.prove_mount(mount_key text, again boolean default false)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  move filestore.moves := filestore.find_move(prove_mount.mount_key);
begin
  if move.source_number = move.written_by then
    return filestore.prove_source(move, again);
  end if;
  return filestore.prove_target(move);
end
$$;

comment on function filestore.prove_mount(text, boolean) is
  'Counts the rows of a mount that moves, and computes their digests. First on the source, then on the target, which compares, and returns the receipt for filestore.close_mount; during the cut-over, on the target again, for filestore.release_mount. While something is missing, waits_for says what: call it again. With again, the source sets a newer mark, so that less is counted in the cut-over. For the owner of the schema. FS409 when the target differs.';

revoke all on function filestore.prove_mount(text, boolean) from public;
--! EndIncluded functions/prove_mount.sql
