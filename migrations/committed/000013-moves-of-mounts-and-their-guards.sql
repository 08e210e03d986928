--! Previous: sha1:6a62260d6fef7dd05386cafb9549695fa722712f
--! Hash: sha1:86a70920adbbcaed630e82a561468a956f79d955
--! Message: Moves of mounts and their guards

create table if not exists filestore.moves (
  id               bigint         generated always as identity (maxvalue 1099511627775),
  written_by       integer        not null,
  mount_id         bigint         not null,
  mount_key        text           collate "C" not null,
  source_number    integer        not null,
  target_number    integer        not null,
  step             text           not null,
  step_since       timestamptz(3) not null default date_trunc('milliseconds', clock_timestamp()),
  timeline         text           not null,
  mark             integer        not null default 0,
  marked_at        timestamptz(3),
  node_mark        bigint,
  journal_mark     bigint,
  writers          text[],
  open_entries     bigint[],
  early_digest     jsonb,
  attempt          integer        not null default 0,
  closed_until     timestamptz(3),
  late_digest      jsonb,
  late_took        interval,
  sightings_key    bigint         not null default 0,
  sightings        bigint         not null default 0,
  sightings_digest numeric        not null default 0,
  started_at       timestamptz(3) not null default date_trunc('milliseconds', clock_timestamp()),
  finished_at      timestamptz(3),

  constraint moves_pkey
    primary key (id, written_by)
);

create unique index if not exists moves_open_key
  on filestore.moves (mount_key, written_by)
  where finished_at is null;

comment on table  filestore.moves                  is 'Moves of mounts to other servers. Each server writes one row; that of the source is replicated to the target. Finished moves stay.';
comment on column filestore.moves.id               is 'Number of the move, the same on both servers.';
comment on column filestore.moves.written_by       is 'Number of the database that writes this row.';
comment on column filestore.moves.mount_id         is 'backend_mounts.id, the same on both servers.';
comment on column filestore.moves.mount_key        is 'backend_mounts.mount_key.';
comment on column filestore.moves.source_number    is 'Number of the database that the mount comes from.';
comment on column filestore.moves.target_number    is 'Number of the database that the mount goes to.';
comment on column filestore.moves.step             is 'Step that this server has reached; filestore.move_steps() lists all.';
comment on column filestore.moves.step_since       is 'When this server reached the step.';
comment on column filestore.moves.timeline         is 'Timeline of this server when the move began. A promoted standby has another one.';
comment on column filestore.moves.mark             is 'Number of the mark of the source that the early digest belongs to; 0 before the first.';
comment on column filestore.moves.marked_at        is 'Source: moment of the mark. Each later change of a row has this moment or a later one.';
comment on column filestore.moves.node_mark        is 'Source: last id of a node before the mark.';
comment on column filestore.moves.journal_mark     is 'Source: last id of a command before the mark.';
comment on column filestore.moves.writers          is 'Source: transactions that wrote before the mark and have not ended.';
comment on column filestore.moves.open_entries     is 'Source: commands that had not ended at the mark.';
comment on column filestore.moves.early_digest     is 'Counts and digests of this server''s rows before the mark.';
comment on column filestore.moves.attempt          is 'Number of the cut-over that the late digest belongs to; 0 before the first.';
comment on column filestore.moves.closed_until     is 'Source: end of the cut-over. The next writer after it opens the mount again.';
comment on column filestore.moves.late_digest      is 'Counts and digests of this server''s rows since the mark, at the cut-over.';
comment on column filestore.moves.late_took        is 'Target: how long a trial of the count at the cut-over took.';
comment on column filestore.moves.sightings_key    is 'Target: highest node of the sightings that have been copied.';
comment on column filestore.moves.sightings        is 'Target: number of sightings that have been copied.';
comment on column filestore.moves.sightings_digest is 'Target: digest of the sightings that have been copied.';
comment on column filestore.moves.started_at       is 'When this server began the move.';
comment on column filestore.moves.finished_at      is 'When the move ended here, also if it was taken back; null otherwise.';
comment on index  filestore.moves_open_key         is 'At most one unfinished move per mount; finds the move of a mount.';

--! Included functions/set_database_number.sql
create or replace function filestore.set_database_number(number integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  range_size constant bigint := 1099511627776;
  identity   record;
  has_rows   boolean;
begin
  if number is null or number not between 0 and 8191 then
    raise exception 'a database cannot have number %', coalesce(number::text, 'null')
      using errcode    = 'FS422',
            constraint = 'database_number_check',
            hint       = 'Give a number from 0, the default, to 8191, so that ids stay below 2^53.';
  end if;

  for identity in
    select c.relname as table_name, a.attname as column_name
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid
    join pg_sequence s on s.seqrelid = pg_get_serial_sequence(c.oid::regclass::text, a.attname)::regclass
    where c.relnamespace = 'filestore'::regnamespace
      and c.relkind = 'r'
      and a.attidentity <> ''
      and not a.attisdropped
      -- Ids without a limit never leave the database.
      and s.seqmax < 9223372036854775807
    order by c.relname
  loop
    execute format('select exists (select from filestore.%I)', identity.table_name)
    into has_rows;
    if has_rows then
      raise exception 'table filestore.% has rows', identity.table_name
        using errcode    = 'FS409',
              constraint = 'database_number_check',
              hint       = 'Set the number of a database while it is empty, before the first mount is registered.';
    end if;
    execute format(
      'alter table filestore.%I alter column %I set minvalue %s set maxvalue %s set start with %s restart',
      identity.table_name, identity.column_name,
      number * range_size + 1, (number + 1) * range_size - 1, number * range_size + 1
    );
  end loop;
end
$$;

comment on function filestore.set_database_number(integer) is
  'Makes the ids of this database start at number * 2^40 + 1, so that no two databases use the same id and a mount can move between them. For the owner of the schema, on an empty database. FS409 when it has rows.';

revoke all on function filestore.set_database_number(integer) from public;
--! EndIncluded functions/set_database_number.sql
--! Included functions/database_number.sql
create or replace function filestore.database_number()
returns integer
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select s.seqmin >> 40
    from pg_sequence s
    where s.seqrelid = pg_get_serial_sequence('filestore.backend_mounts', 'id')::regclass
  );
end
$$;

comment on function filestore.database_number() is
  'Internal: The number that filestore.set_database_number gave to this database; 0 without one.';

revoke all on function filestore.database_number() from public;
--! EndIncluded functions/database_number.sql
--! Included functions/server_timeline.sql
create or replace function filestore.server_timeline()
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_is_in_recovery() then
    return null;
  end if;
  return left(pg_walfile_name(pg_current_wal_lsn()), 8);
end
$$;

comment on function filestore.server_timeline() is
  'Internal: The timeline of this server; null on a standby. It changes when a standby is promoted, which may lack the last steps of a move.';

revoke all on function filestore.server_timeline() from public;
--! EndIncluded functions/server_timeline.sql
--! Included functions/move_steps.sql
create or replace function filestore.move_steps()
returns table (server text, step text, meaning text, forward text, back text)
language plpgsql
immutable
rows 14
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  values
    ('source', 'copying',    'published; this server takes writes',
     'accept_move and create subscription on the target, prove_mount here',
     'cancel_move here, drop subscription and cancel_move on the target'),
    ('source', 'marking',    'waits for transactions that wrote before the mark; this server takes writes',
     'prove_mount here, until it returns a receipt',
     'cancel_move here, drop subscription and cancel_move on the target'),
    ('source', 'proved',     'its rows up to the mark are counted; this server takes writes',
     'prove_mount on the target, close_mount here with its receipt',
     'cancel_move here, drop subscription and cancel_move on the target'),
    ('source', 'closed',     'cut-over: no server takes writes; this one does again when the time is over',
     'prove_mount on the target, release_mount here with its receipt',
     'nothing: the next writer opens the mount when the time is over; or cancel_move here'),
    ('source', 'released',   'closed here forever; the target takes writes once it knows',
     'receive_mount, receive_sightings, drop subscription and finish_move on the target, finish_move here with its receipt',
     'drop subscription and cancel_move on the target, if it has not received the mount, then cancel_move here with its receipt; else move the mount back'),
    ('source', 'canceling',  'being taken back: the publication is gone',
     'cancel_move here, until it ends',
     'nothing'),
    ('source', 'finished',   'the mount is on the target',
     'erase_mount here',
     'move the mount back; if the target lost it and nothing is erased here, cancel_move on the target, then here with its receipt'),
    ('source', 'canceled',   'taken back; this server holds the mount',
     'nothing, or start_move again',
     'nothing'),
    ('target', 'accepted',   'the copy arrives; no writes here',
     'create subscription here, then prove_mount on the source and here',
     'cancel_move on the source, drop subscription and cancel_move here'),
    ('target', 'proved',     'everything up to the receipt is here; no writes here',
     'close_mount or release_mount on the source with the receipt of prove_mount, then receive_mount here',
     'cancel_move on the source, drop subscription and cancel_move here'),
    ('target', 'received',   'this server takes writes',
     'receive_sightings, drop subscription and finish_move here, finish_move on the source with its receipt',
     'finish the move, and move the mount back'),
    ('target', 'erasing',    'being taken back: the copy is erased',
     'cancel_move here, until it ends',
     'nothing'),
    ('target', 'finished',   'this server holds the mount',
     'finish_move on the source with the receipt of finish_move',
     'move the mount back'),
    ('target', 'canceled',   'taken back; nothing of the copy is left',
     'nothing, or accept_move again for a new move',
     'nothing');
end
$$;

comment on function filestore.move_steps() is
  'Internal: Every step of a move, its meaning, and the ways forward and back.';

revoke all on function filestore.move_steps() from public;
--! EndIncluded functions/move_steps.sql
--! Included functions/set_step.sql
create or replace function filestore.set_step(move filestore.moves, step text)
returns filestore.moves
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update filestore.moves m
  set step        = set_step.step,
      step_since  = date_trunc('milliseconds', clock_timestamp()),
      finished_at = case when set_step.step in ('finished', 'canceled') then date_trunc('milliseconds', clock_timestamp()) end
  where m.id = move.id
    and m.written_by = move.written_by
  returning * into move;
  return move;
end
$$;

comment on function filestore.set_step(filestore.moves, text) is
  'Internal: Records the step that this server has reached in a move.';

revoke all on function filestore.set_step(filestore.moves, text) from public;
--! EndIncluded functions/set_step.sql
--! Included functions/erasing_mounts.sql
create or replace function filestore.erasing_mounts()
returns bigint[]
language sql
stable
set search_path = pg_catalog, pg_temp
begin atomic
  select array(
    select m.id
    from filestore.backend_mounts m
    where m.erasing_since is not null
    union all
    select c.mount_id
    from filestore.moves c
    where c.step = 'erasing'
  );
end;

comment on function filestore.erasing_mounts() is
  'Internal: The mounts that are being erased, and those whose copy is erased because their move is taken back. Their nodes are removed in any order, and their totals do not count.';

revoke all on function filestore.erasing_mounts() from public;
--! EndIncluded functions/erasing_mounts.sql
--! Included functions/is_erasing_copy.sql
create or replace function filestore.is_erasing_copy(mount_id bigint)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select
    from filestore.moves m
    where m.mount_id = is_erasing_copy.mount_id
      and m.step = 'erasing'
  );
end
$$;

comment on function filestore.is_erasing_copy(bigint) is
  'Internal: Whether a move to this database is taken back, so that the rows of its copy are removed in any order. The row of the mount may not have arrived.';

revoke all on function filestore.is_erasing_copy(bigint) from public;
--! EndIncluded functions/is_erasing_copy.sql
--! Included functions/moving_mounts.sql
create or replace function filestore.moving_mounts(including_held boolean)
returns bigint[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  own constant integer := filestore.database_number();
begin
  return array(
    select b.id
    from filestore.backend_mounts b
    where b.held_by is not null
      and (
        including_held
        or b.held_by <> own
        -- A promoted standby may not know that the target has the mount.
        or exists (
          select
          from filestore.moves s
          where s.mount_id = b.id
            and s.source_number = own
            and s.written_by = own
            and s.finished_at is null
            and s.timeline <> filestore.server_timeline()
        )
      )
    union
    -- The row of a mount that arrives may not be here yet.
    select m.mount_id
    from filestore.moves m
    where m.target_number = own
      and m.written_by = own
      and m.step in ('accepted', 'proved', 'erasing')
  );
end
$$;

comment on function filestore.moving_mounts(boolean) is
  'Internal: Ids of the mounts that move from or to this database; without those whose writes it takes, if including_held is false.';

revoke all on function filestore.moving_mounts(boolean) from public;
--! EndIncluded functions/moving_mounts.sql
--! Included functions/holds_mount.sql
create or replace function filestore.holds_mount(mount_id bigint)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  own integer := filestore.database_number();
begin
  return exists (
    select
    from filestore.moves m
    where m.mount_id = holds_mount.mount_id
      and m.written_by = own
      and m.finished_at is null
      and case
        -- A promoted standby may not know that the target has the mount.
        when m.source_number = own then
          m.timeline = filestore.server_timeline()
          and (m.step in ('copying', 'marking', 'proved', 'canceling') or (m.step = 'closed' and m.closed_until < clock_timestamp()))
        else
          m.step = 'proved'
          and exists (
            select
            from filestore.moves s
            where s.id = m.id
              and s.written_by = m.source_number
              and s.step = 'released'
              and s.attempt = m.attempt
              and s.late_digest = m.late_digest
          )
      end
  );
end
$$;

comment on function filestore.holds_mount(bigint) is
  'Internal: Whether this database takes the writes of a mount that moves, or will from the next writer on: on the source when the cut-over ran out of time, on the target when everything has arrived and the source released it. Not on a standby that was promoted since the move began.';

revoke all on function filestore.holds_mount(bigint) from public;
--! EndIncluded functions/holds_mount.sql
--! Included functions/take_mount.sql
create or replace function filestore.take_mount(mount_id bigint)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own  integer := filestore.database_number();
  move filestore.moves;
begin
  if not filestore.holds_mount(mount_id) then
    return false;
  end if;
  -- Only one writer takes the mount, and no other waits for it. A move that is being taken back stays so.
  select *
  into move
  from filestore.moves m
  where m.mount_id = take_mount.mount_id
    and m.written_by = own
    and m.finished_at is null
    and m.step <> 'canceling'
  for update skip locked;
  if move.id is null then
    -- Another transaction has the row. On the source, a write is safe without it: release_mount waits for the writer, and
    -- refuses when the time is over. On the target, cancel_move would not see the write, and would erase it.
    return exists (
      select
      from filestore.moves m
      where m.mount_id = take_mount.mount_id
        and m.written_by = own
        and m.source_number = own
        and m.finished_at is null
    );
  elsif not filestore.holds_mount(mount_id) then
    return false;
  end if;
  if move.source_number <> own then
    perform filestore.set_step(move, 'received');
  elsif move.step = 'closed' then
    perform filestore.set_step(move, 'proved');
  end if;
  update filestore.backend_mounts m
  set held_by = case when move.source_number = own then own end
  where m.id = take_mount.mount_id
    and m.held_by = -1;
  return true;
end
$$;

comment on function filestore.take_mount(bigint) is
  'Internal: Lets this database take writes to a closed mount, if filestore.holds_mount allows it. False when it may not, and on the target while another transaction does it. The caller holds the shared lock of writers, or the row of the move.';

revoke all on function filestore.take_mount(bigint) from public;
--! EndIncluded functions/take_mount.sql
--! Included functions/admits_write.sql
create or replace function filestore.admits_write(
  mount_id    bigint,
  mount       filestore.backend_mounts,
  closing     boolean,
  is_removal  boolean,
  is_of_mount boolean
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own  constant integer := filestore.database_number();
  move filestore.moves;
begin
  if is_removal and (mount.erasing_since is not null or filestore.is_erasing_copy(mount_id)) then
    return true;
  elsif closing or is_removal or mount.id is null or mount.held_by not in (-1, own) then
    -- The source removes nothing, so the proof at the cut-over needs to read new rows only.
    return false;
  elsif mount.held_by = -1 then
    -- A row cannot be updated by its own trigger.
    if not (case when is_of_mount then filestore.holds_mount(mount_id) else filestore.take_mount(mount_id) end) then
      return false;
    end if;
  end if;

  if current_setting('transaction_isolation') = 'read committed' then
    select *
    into move
    from filestore.moves m
    where m.mount_id = admits_write.mount_id
      and m.written_by = own
      and m.finished_at is null;
  else
    -- An older snapshot does not show the last step. Locking the row then fails with 40001.
    select *
    into move
    from filestore.moves m
    where m.mount_id = admits_write.mount_id
      and m.written_by = own
      and m.finished_at is null
    for share skip locked;
  end if;
  if move.source_number <> own then
    -- The target received the mount by this write, which a change of the mount's row cannot do.
    return not is_of_mount;
  end if;
  -- On a promoted standby, the target may have the mount already. A statement that began before the mark would write a
  -- version that counts as older.
  return move.timeline = filestore.server_timeline()
     and (move.marked_at is null or statement_timestamp() >= move.marked_at)
     and coalesce(current_setting('filestore.backfill_id', true), '') = '';
end
$$;

comment on function filestore.admits_write(bigint, filestore.backend_mounts, boolean, boolean, boolean) is
  'Internal: Whether this database takes a write to a mount that moves. For filestore.guard_move.';

revoke all on function filestore.admits_write(bigint, filestore.backend_mounts, boolean, boolean, boolean) from public;
--! EndIncluded functions/admits_write.sql
--! Included functions/guard_move.sql
create or replace function filestore.guard_move()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint;
  mount    filestore.backend_mounts;
  closing  boolean;
begin
  if tg_table_name = 'node_sightings' then
    select n.backend_mount_id
    into mount_id
    from filestore.nodes n
    where n.id = new.node_id;
  elsif tg_table_name = 'backend_mounts' then
    -- A step of the move, or of the erasing after it. No service may write these columns.
    if tg_op = 'UPDATE' and (new.held_by, new.erasing_since) is distinct from (old.held_by, old.erasing_since) then
      return new;
    end if;
    mount_id := old.id;
  elsif tg_op = 'DELETE' then
    mount_id := old.backend_mount_id;
  else
    mount_id := new.backend_mount_id;
    if mount_id is null then
      -- The command belongs to no mount.
      return new;
    end if;
  end if;

  -- The lock lasts until the transaction ends, and close_mount waits for it. Writers do not wait for close_mount: one that
  -- holds rows would wait behind it for another writer that needs these rows.
  closing := not pg_try_advisory_xact_lock_shared(hashtextextended('filestore.move', mount_id));
  if current_setting('transaction_isolation') = 'read committed' then
    select *
    into mount
    from filestore.backend_mounts m
    where m.id = mount_id;
  else
    -- An older snapshot does not show that the mount was closed. Locking the row then fails with 40001.
    select *
    into mount
    from filestore.backend_mounts m
    where m.id = mount_id
    for share;
  end if;

  if not closing and mount.id is not null and mount.held_by is null then
    return coalesce(new, old);
  end if;
  if filestore.admits_write(mount_id, mount, closing, tg_op = 'DELETE', tg_table_name = 'backend_mounts') then
    return coalesce(new, old);
  end if;
  if closing and mount.held_by is null then
    -- No move holds the lock. Any login can take it.
    raise exception 'another session holds the lock of mount "%" for moves, though it does not move', mount.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Repeat the command. If it is refused again, docs/operations.md shows how to find the session: "A stranger holds a lock".';
  end if;
  if mount.id is null and tg_table_name = 'journal_entries' and tg_op = 'UPDATE' and mount_id <> all (filestore.moving_mounts(false)) then
    -- The mount was deleted, and its journal stays: a command that it left can still be ended.
    return new;
  end if;
  raise exception 'mount % is moving, and this server does not take this write', coalesce('"' || mount.mount_key || '"', mount_id::text)
    using errcode    = 'FS409',
          constraint = 'backend_mounts_moving',
          hint       = 'Repeat the command on the server that holds the mount. During the cut-over, no server takes writes: repeat it after a moment. Removals and backfills wait until the move is finished.';
end
$$;

comment on function filestore.guard_move() is
  'Refuses to write to a mount that this database does not hold while it moves from one server to another.';

revoke all on function filestore.guard_move() from public;
--! EndIncluded functions/guard_move.sql
--! Included functions/guard_statements.sql
create or replace function filestore.guard_statements(wanted boolean)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  moving text := (
    select coalesce(min(m.mount_key), min(b.mount_key))
    from filestore.moves m
    full join filestore.backend_mounts b on false
    where m.finished_at is null and m.id is not null
       or b.held_by is not null
  );
begin
  if wanted is not true and moving is not null then
    raise exception 'mount "%" is moving between servers', moving
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Finish the move and erase the mount on its old server, or take the move back with filestore.cancel_move.';
  end if;
  return array(
    select format('alter table %s %s trigger %I', t.tgrelid::regclass, case when wanted then 'enable' else 'disable' end, t.tgname)
    from pg_trigger t
    where t.tgfoid = 'filestore.guard_move()'::regprocedure
      and (t.tgenabled = 'D') = (wanted is true)
    union all
    select format('alter table %s replica identity %s', c.oid::regclass, case when wanted then 'full' else 'default' end)
    from pg_class c
    where c.oid = any ('{filestore.nodes,filestore.snapshots,filestore.journal_entries}'::regclass[])
      and c.relreplident <> case when wanted then 'f' else 'd' end
  );
end
$$;

comment on function filestore.guard_statements(boolean) is
  'Internal: The statements that filestore.prepare_moves still has to run. FS409 while a mount moves, if the guards are not wanted any more.';

revoke all on function filestore.guard_statements(boolean) from public;
--! EndIncluded functions/guard_statements.sql
--! Included functions/try_statement.sql
create or replace function filestore.try_statement(wanted boolean, expected integer, attempt integer)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  missing   text[] := filestore.guard_statements(wanted);
  statement text;
begin
  perform filestore.require_read_committed('filestore.prepare_moves');
  if missing = '{}' then
    return 0;
  end if;
  perform set_config('lock_timeout', '1s', true);
  -- Until this transaction ends, no move begins, and no other call prepares this server.
  lock table filestore.moves in share row exclusive mode;
  missing := filestore.guard_statements(wanted);
  if wanted is not true and cardinality(missing) > expected then
    raise exception 'another session prepares this server for moves at the same time'
      using errcode    = 'FS409',
            constraint = 'moves_preparing',
            hint       = 'Call filestore.prepare_moves(false) again after the moves.';
  elsif missing <> '{}' then
    -- The names come from the catalog.
    statement := missing[1];
    execute statement;
  end if;
  return greatest(cardinality(missing) - 1, 0);
exception
  when lock_not_available then
    if attempt >= 20 then
      raise;
    end if;
    return null;
end
$$;

comment on function filestore.try_statement(boolean, integer, integer) is
  'Internal: Runs the next statement of filestore.prepare_moves, and returns how many are missing after it. Null when a table stayed locked; 55P03 at the last attempt. FS409 when more are missing than expected, because another session undid some.';

revoke all on function filestore.try_statement(boolean, integer, integer) from public;
--! EndIncluded functions/try_statement.sql
--! Included functions/prepare_moves.sql
create or replace procedure filestore.prepare_moves(wanted boolean)
language plpgsql
as $$
declare
  missing   pg_catalog.int4;
  remaining pg_catalog.int4;
  attempt   pg_catalog.int4 := 1;
begin
  set local search_path = pg_catalog, pg_temp;
  -- One table in each transaction, and a short wait, because all its readers and writers queue behind it.
  loop
    remaining := filestore.try_statement(wanted, missing, attempt);
    commit;
    set local search_path = pg_catalog, pg_temp;
    exit when remaining = 0;
    if remaining is null then
      attempt := attempt + 1;
      perform pg_catalog.pg_sleep(1);
    else
      attempt := 1;
      missing := remaining;
    end if;
  end loop;
end
$$;

comment on procedure filestore.prepare_moves(boolean) is
  'Prepares this server for mounts that move from it or to it: enables the triggers that refuse writes to a mount that another server holds, and puts whole rows into the log. With false, undoes that after the moves. Each table is locked for a moment, and its lock is tried twenty times, for a second each. 55P03 when a transaction held it all the time: call it again. For the owner of the schema. FS409 with false while a mount moves, or while another call prepares this server.';

revoke all on procedure filestore.prepare_moves(boolean) from public;
--! EndIncluded functions/prepare_moves.sql
--! Included functions/require_move_guards.sql
create or replace function filestore.require_move_guards()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Until this transaction ends, filestore.prepare_moves(false) waits, and then sees the move.
  lock table filestore.moves in row exclusive mode;
  if filestore.guard_statements(true) <> '{}' then
    raise exception 'this server is not prepared for moves'
      using errcode    = 'FS409',
            constraint = 'move_guards_off',
            hint       = 'Call filestore.prepare_moves(true) first.';
  end if;
end
$$;

comment on function filestore.require_move_guards() is
  'Internal: Raises FS409 unless filestore.prepare_moves(true) has ended, and keeps this server prepared until the transaction ends.';

revoke all on function filestore.require_move_guards() from public;
--! EndIncluded functions/require_move_guards.sql

--! Included triggers/backend_mounts_guard_move.sql
drop trigger if exists backend_mounts_guard_move on filestore.backend_mounts;

create trigger backend_mounts_guard_move
  before update or delete on filestore.backend_mounts
  for each row
  execute function filestore.guard_move();

comment on trigger backend_mounts_guard_move on filestore.backend_mounts is
  'Refuses changes of a mount that another server holds. Enabled while mounts move between servers.';
--! EndIncluded triggers/backend_mounts_guard_move.sql
--! Included triggers/nodes_guard_move.sql
drop trigger if exists nodes_guard_move on filestore.nodes;

create trigger nodes_guard_move
  before insert or update or delete on filestore.nodes
  for each row
  execute function filestore.guard_move();

comment on trigger nodes_guard_move on filestore.nodes is
  'Nodes are written where their mount is held. Enabled while a mount moves.';
--! EndIncluded triggers/nodes_guard_move.sql
--! Included triggers/journal_entries_guard_move.sql
drop trigger if exists journal_entries_guard_move on filestore.journal_entries;

create trigger journal_entries_guard_move
  before insert or update on filestore.journal_entries
  for each row
  execute function filestore.guard_move();

comment on trigger journal_entries_guard_move on filestore.journal_entries is
  'Commands run where their mount is held. Enabled while a mount moves.';
--! EndIncluded triggers/journal_entries_guard_move.sql
--! Included triggers/node_sightings_guard_move.sql
drop trigger if exists node_sightings_guard_move on filestore.node_sightings;

create trigger node_sightings_guard_move
  before insert or update on filestore.node_sightings
  for each row
  execute function filestore.guard_move();

comment on trigger node_sightings_guard_move on filestore.node_sightings is
  'Nodes are seen where their mount is held. Enabled while a mount moves.';
--! EndIncluded triggers/node_sightings_guard_move.sql

-- The triggers of moves cost each writer a lookup, so they are enabled only while mounts move.
do $$
begin
  if not exists (select from filestore.backend_mounts m where m.held_by is not null) then
    alter table filestore.backend_mounts disable trigger backend_mounts_guard_move;
    alter table filestore.nodes disable trigger nodes_guard_move;
    alter table filestore.journal_entries disable trigger journal_entries_guard_move;
    alter table filestore.node_sightings disable trigger node_sightings_guard_move;
  end if;
end
$$;
