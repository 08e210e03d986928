--! Previous: sha1:adfeaad8e02cc2419397cff87a7a1512697e9d0f
--! Hash: sha1:6a78214802650a68975a5ea605d0ed140bb7febd
--! Message: Procedures for the owner

create table if not exists filestore.backfills (
  id             bigint         generated always as identity (maxvalue 1099511627775),
  table_name     text           not null,
  column_name    text           not null,
  expression     text           not null,
  last_key       bigint         not null default 0,
  filled         bigint         not null default 0,
  transaction_id xid8,
  started_at     timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),
  updated_at     timestamptz(3) not null default date_trunc('milliseconds', statement_timestamp()),
  finished_at    timestamptz(3),

  constraint backfills_pkey
    primary key (id)
);

comment on table  filestore.backfills                is 'Progress of filestore.backfill, one row per run over a table.';
comment on column filestore.backfills.id             is 'Number of the backfill.';
comment on column filestore.backfills.table_name     is 'Table, without the schema.';
comment on column filestore.backfills.column_name    is 'Column that is filled where it is null.';
comment on column filestore.backfills.expression     is 'SQL expression over the columns of the row.';
comment on column filestore.backfills.last_key       is 'Primary key of the last row that was read.';
comment on column filestore.backfills.filled         is 'Number of rows filled so far.';
comment on column filestore.backfills.transaction_id is 'Transaction of the last batch. Its changes do not change versions.';
comment on column filestore.backfills.started_at     is 'When it was first called.';
comment on column filestore.backfills.updated_at     is 'When the last batch ended.';
comment on column filestore.backfills.finished_at    is 'When the last row was read; null while it is unfinished.';

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
comment on column filestore.moves.step             is 'What this server has reached; filestore.move_steps() lists all.';
comment on column filestore.moves.step_since       is 'When it reached that.';
comment on column filestore.moves.timeline         is 'Timeline of this server when the move began. A promoted standby has another one.';
comment on column filestore.moves.mark             is 'Number of the mark of the source that the early digest belongs to; 0 before the first.';
comment on column filestore.moves.marked_at        is 'Source: moment of the mark. Each later change of a row has this moment or a later one.';
comment on column filestore.moves.node_mark        is 'Source: last id of a node before the mark.';
comment on column filestore.moves.journal_mark     is 'Source: last id of a command before the mark.';
comment on column filestore.moves.writers          is 'Source: transactions that wrote before the mark and have not ended.';
comment on column filestore.moves.open_entries     is 'Source: commands that had not ended at the mark.';
comment on column filestore.moves.early_digest     is 'Counts and digests of this server''s rows before the mark.';
comment on column filestore.moves.attempt          is 'Number of the cut-over that the late digest belongs to; 0 before the first.';
comment on column filestore.moves.closed_until     is 'Source: when the next writer opens the closed mount again.';
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
    where c.relnamespace = 'filestore'::regnamespace
      and c.relkind = 'r'
      and a.attidentity <> ''
      and not a.attisdropped
    order by c.relname
  loop
    execute format('select exists (select from filestore.%I)', identity.table_name)
    into has_rows;
    if has_rows then
      raise exception 'table filestore.% has rows', identity.table_name
        using errcode    = 'FS409',
              constraint = 'database_number_check',
              hint       = 'Set the number of a database while it is empty, right after the first migration.';
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
--! Included functions/lagging_replica.sql
create or replace function filestore.lagging_replica(max_lag_bytes bigint)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Counted in bytes, because replay_lag keeps its last value when a replica is stuck.
  return (
    select format('%s is %s behind', coalesce(nullif(r.application_name, ''), 'a replica'), pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn)))
    from pg_stat_replication r
    where pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn) > max_lag_bytes
    order by r.replay_lsn
    limit 1
  );
end
$$;

comment on function filestore.lagging_replica(bigint) is
  'Internal: Describes the replica that is furthest behind, if it is more than max_lag_bytes behind; otherwise null. A role without pg_monitor sees no replica.';

revoke all on function filestore.lagging_replica(bigint) from public;
--! EndIncluded functions/lagging_replica.sql
--! Included functions/check_backfill.sql
create or replace function filestore.check_backfill(table_name text, column_name text, expression text, batch integer, pause interval)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  relation regclass := to_regclass('filestore.' || quote_ident(table_name));
  key_name text;
begin
  perform filestore.check_limit('batch', batch);
  if pause is null or pause < interval '0' or pause > interval '1 hour' then
    raise exception 'pause is %', coalesce(pause::text, 'null')
      using errcode    = 'FS422',
            constraint = 'backfill_pause_check',
            hint       = 'Give a time from 0 to 1 hour, such as interval ''100 ms''.';
  elsif relation is null or column_name is null or expression is null or not exists (
    select
    from pg_attribute a
    where a.attrelid = relation
      and a.attname = column_name
      and a.attnum > 0
      and not a.attisdropped
  ) then
    raise exception 'column filestore.%.% does not exist, or the expression is null', coalesce(table_name, 'null'), coalesce(column_name, 'null')
      using errcode    = 'FS404',
            constraint = 'backfill_column_missing',
            hint       = 'Add the column first, nullable. Give the names of table and column without the schema.';
  end if;

  select a.attname
  into key_name
  from pg_index i
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
  where i.indrelid = relation
    and i.indisprimary
    and i.indnkeyatts = 1
    and a.atttypid = 'bigint'::regtype;
  if key_name is null then
    raise exception 'the primary key of filestore.% is not one bigint column', table_name
      using errcode    = 'FS422',
            constraint = 'backfill_key_check',
            hint       = 'filestore.backfill needs such a key. Fill this table with a separate procedure.';
  end if;
  return key_name;
end
$$;

comment on function filestore.check_backfill(text, text, text, integer, interval) is
  'Internal: Checks the arguments of filestore.backfill, and returns the name of the primary key column that orders its batches. FS404 or FS422 when an argument is not valid.';

revoke all on function filestore.check_backfill(text, text, text, integer, interval) from public;
--! EndIncluded functions/check_backfill.sql
--! Included functions/fill_batch.sql
create or replace function filestore.fill_batch(job_id bigint, key_name text, batch integer)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job       filestore.backfills;
  mount_ids bigint[];
  -- The first row of the next batch, when its mounts end this one.
  next_key  bigint;
  found_key bigint;
  changed   bigint;
begin
  update filestore.backfills b
  set transaction_id = pg_current_xact_id()
  where b.id = job_id
  returning * into job;
  if job.finished_at is not null then
    return false;
  end if;
  perform set_config('filestore.backfill_id', job_id::text, true);

  if job.table_name = 'nodes' then
    -- Like every transaction that writes several existing nodes, this takes tree locks first, then rows in order of id.
    -- A batch ends before the nodes of a 101st mount.
    select array_agg(m.backend_mount_id) filter (where m.place <= 100), min(m.first_id) filter (where m.place = 101)
    into mount_ids, next_key
    from (
      select p.backend_mount_id, min(p.id) as first_id, row_number() over (order by min(p.id)) as place
      from (
        select n.id, n.backend_mount_id
        from filestore.nodes n
        where n.id > job.last_key
        order by n.id
        limit batch
      ) p
      group by p.backend_mount_id
    ) m;
    perform filestore.lock_trees(mount_ids);
  end if;

  -- The expression is SQL of the schema's owner, so it is not quoted.
  execute format(
    'with part as (
       select t.%1$I as backfill_key
       from filestore.%2$I t
       where t.%1$I > $1
         and t.%1$I < coalesce($3, 9223372036854775807)
       order by t.%1$I
       limit $2
       for no key update
     ),
     filled as (
       update filestore.%2$I
       set %3$I = (%4$s)
       from part
       where %1$I = part.backfill_key
         and %3$I is null
         and (%4$s) is not null
       returning 1
     )
     select (select max(p.backfill_key) from part p), (select count(*) from filled)',
    key_name, job.table_name, job.column_name, job.expression
  )
  using job.last_key, batch, next_key
  into found_key, changed;
  -- All nodes before the next batch may have been purged in the meantime.
  found_key := coalesce(found_key, next_key - 1);

  update filestore.backfills b
  set last_key    = coalesce(found_key, b.last_key),
      filled      = b.filled + changed,
      updated_at  = date_trunc('milliseconds', clock_timestamp()),
      finished_at = case when found_key is null then date_trunc('milliseconds', clock_timestamp()) end
  where b.id = job_id;
  return found_key is not null;
end
$$;

comment on function filestore.fill_batch(bigint, text, integer) is
  'Internal: Fills the next batch of a backfill in the current transaction, and returns whether there may be more. For filestore.backfill.';

revoke all on function filestore.fill_batch(bigint, text, integer) from public;
--! EndIncluded functions/fill_batch.sql
--! Included functions/backfill.sql
create or replace procedure filestore.backfill(
  table_name    text,
  column_name   text,
  expression    text,
  batch         integer  default 1000,
  pause         interval default '100 ms',
  max_lag_bytes bigint   default 67108864
)
language plpgsql
as $$
declare
  key_name pg_catalog.text;
  job      filestore.backfills;
  lagging  pg_catalog.text;
begin
  set local search_path = pg_catalog, pg_temp;
  key_name := filestore.check_backfill(table_name, column_name, expression, batch, pause);
  select *
  into job
  from filestore.backfills b
  where b.table_name = backfill.table_name
    and b.column_name = backfill.column_name
    and b.finished_at is null
  order by b.id
  limit 1;
  if job.id is null then
    insert into filestore.backfills (table_name, column_name, expression)
    values (backfill.table_name, backfill.column_name, backfill.expression)
    returning * into job;
  elsif job.expression <> expression then
    raise exception 'backfill % of filestore.%.% is unfinished and has another expression', job.id, table_name, column_name
      using errcode    = 'FS409',
            constraint = 'backfill_expression_check',
            hint       = 'Call it with the same expression as before, or delete its row from filestore.backfills to start again.';
  else
    raise notice 'backfill % of filestore.%.% continues after key %', job.id, table_name, column_name, job.last_key;
  end if;
  commit;
  set local search_path = pg_catalog, pg_temp;

  while filestore.fill_batch(job.id, key_name, batch) loop
    commit;
    set local search_path = pg_catalog, pg_temp;
    select *
    into job
    from filestore.backfills b
    where b.id = job.id;
    raise notice 'backfill % of filestore.%.%: % rows filled, up to key %', job.id, table_name, column_name, job.filled, job.last_key;
    perform pg_sleep(extract(epoch from pause));
    loop
      lagging := filestore.lagging_replica(max_lag_bytes);
      exit when lagging is null;
      raise notice 'backfill % waits: replica %', job.id, lagging;
      -- Each check has its own transaction, so that waiting does not hold back vacuum.
      commit;
      set local search_path = pg_catalog, pg_temp;
      perform pg_sleep(1);
    end loop;
    commit;
    set local search_path = pg_catalog, pg_temp;
  end loop;
  commit;
  set local search_path = pg_catalog, pg_temp;
end
$$;

comment on procedure filestore.backfill(text, text, text, integer, interval, bigint) is
  'Fills the nulls of a column with an expression over the row, in batches in order of the primary key, with a commit after each. It changes no version and writes no history. It pauses after each batch, and while a replica is more than max_lag_bytes behind. It can be stopped or killed at any moment: the same call continues where it stopped. filestore.backfills shows the progress. For the owner of the schema.';

revoke all on procedure filestore.backfill(text, text, text, integer, interval, bigint) from public;
--! EndIncluded functions/backfill.sql
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
    ('source', 'closed',     'cut-over: no server takes writes, and this one again when the time is over',
     'prove_mount on the target, release_mount here with its receipt',
     'nothing: the next writer opens the mount when the time is over; or cancel_move here'),
    ('source', 'released',   'for ever closed here; the target takes writes once it knows',
     'receive_mount, receive_sightings, drop subscription and finish_move on the target, finish_move here with its receipt',
     'drop subscription and cancel_move on the target, if it has not received the mount, then cancel_move here with its receipt; else move the mount back'),
    ('source', 'cancelling', 'being taken back: the publication is gone',
     'cancel_move here, until it ends',
     'nothing'),
    ('source', 'finished',   'the mount is on the target',
     'erase_mount here',
     'move the mount back'),
    ('source', 'cancelled',  'taken back; this server holds the mount',
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
    ('target', 'cancelled',  'taken back; nothing of the copy is left',
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
      finished_at = case when set_step.step in ('finished', 'cancelled') then date_trunc('milliseconds', clock_timestamp()) end
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
      and (including_held or b.held_by <> own)
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

--! Included functions/may_take_mount.sql
create or replace function filestore.may_take_mount(mount_id bigint)
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
    where m.mount_id = may_take_mount.mount_id
      and m.written_by = own
      and m.finished_at is null
      and case
        -- The cut-over ran out of time. A promoted standby may not know that the target has the mount.
        when m.source_number = own then
          m.step = 'closed'
          and m.closed_until < clock_timestamp()
          and m.timeline = filestore.server_timeline()
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

comment on function filestore.may_take_mount(bigint) is
  'Internal: Whether the next writer of a closed mount takes it for this database: on the source when the cut-over ran out of time, on the target when everything has arrived and the source released it.';

revoke all on function filestore.may_take_mount(bigint) from public;
--! EndIncluded functions/may_take_mount.sql

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
  if not filestore.may_take_mount(mount_id) then
    return false;
  end if;
  -- Only one writer takes the mount, and no other waits for it. release_mount waits for its transaction.
  select *
  into move
  from filestore.moves m
  where m.mount_id = take_mount.mount_id
    and m.written_by = own
    and m.finished_at is null
  for update skip locked;
  if move.id is null or not filestore.may_take_mount(mount_id) then
    return false;
  end if;
  perform filestore.set_step(move, case when move.source_number = own then 'proved' else 'received' end);
  update filestore.backend_mounts m
  set held_by = case when move.source_number = own then own end
  where m.id = take_mount.mount_id
    and m.held_by = -1;
  return found;
end
$$;

comment on function filestore.take_mount(bigint) is
  'Internal: Lets this database take writes to a closed mount, if filestore.may_take_mount. False when it may not, or while another transaction does it.';

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
  move filestore.moves;
begin
  if is_removal and (mount.erasing_since is not null or filestore.is_erasing_copy(mount_id)) then
    return true;
  elsif closing or mount.id is null then
    return false;
  elsif mount.held_by = -1 then
    -- A row cannot be updated by its own trigger.
    return not is_of_mount and not is_removal and filestore.take_mount(mount_id);
  elsif mount.held_by <> filestore.database_number() then
    return false;
  end if;

  -- This server is the source, and still takes writes. It removes nothing, so the proof at the cut-over needs to read new
  -- rows only. A statement that began before the mark would write a version that counts as older.
  if current_setting('transaction_isolation') = 'read committed' then
    select *
    into move
    from filestore.moves m
    where m.mount_id = admits_write.mount_id
      and m.written_by = mount.held_by
      and m.finished_at is null;
  else
    -- An older snapshot does not show the mark. Locking the row then fails with 40001.
    select *
    into move
    from filestore.moves m
    where m.mount_id = admits_write.mount_id
      and m.written_by = mount.held_by
      and m.finished_at is null
    for share skip locked;
  end if;
  return move.id is not null
     and not is_removal
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
            hint       = 'Repeat it. If it is refused again, docs/operations.md shows how to find the session: "A stranger holds a lock".';
  end if;
  raise exception 'mount % is moving to another server', coalesce(format('"%s"', mount.mount_key), mount_id::text)
    using errcode    = 'FS409',
          constraint = 'backend_mounts_moving',
          hint       = 'Repeat it on the server that holds the mount. During the cut-over no server takes writes: repeat it after a moment.';
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
    raise exception 'mount "%" is moving to another server', moving
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Finish the move and erase the mount on its old server, or take the move back with filestore.cancel_move.';
  end if;
  return array(
    select format('alter table %s %s trigger %I', t.tgrelid::regclass, case when wanted then 'enable' else 'disable' end, t.tgname)
    from pg_trigger t
    where t.tgfoid = 'filestore.guard_move()'::regprocedure
    union all
    select format('alter table filestore.%I replica identity %s', own.name, case when wanted then 'full' else 'default' end)
    from unnest('{nodes,snapshots,journal_entries}'::text[]) own (name)
  );
end
$$;

comment on function filestore.guard_statements(boolean) is
  'Internal: The statements of filestore.prepare_moves. FS409 while a mount moves, if the guards are not wanted any more.';

revoke all on function filestore.guard_statements(boolean) from public;
--! EndIncluded functions/guard_statements.sql

--! Included functions/try_statement.sql
create or replace function filestore.try_statement(statement text, attempt integer)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('lock_timeout', '1s', true);
  -- The names come from the catalog.
  execute statement;
  return true;
exception
  when lock_not_available then
    if attempt >= 20 then
      raise;
    end if;
    return false;
end
$$;

comment on function filestore.try_statement(text, integer) is
  'Internal: Runs a statement of filestore.prepare_moves, and returns false when its table stayed locked; 55P03 at the last attempt.';

revoke all on function filestore.try_statement(text, integer) from public;
--! EndIncluded functions/try_statement.sql

--! Included functions/prepare_moves.sql
create or replace procedure filestore.prepare_moves(wanted boolean)
language plpgsql
as $$
declare
  statement pg_catalog.text;
begin
  set local search_path = pg_catalog, pg_temp;
  -- One table in each transaction, and a short wait, because all its readers and writers queue behind it.
  foreach statement in array filestore.guard_statements(wanted) loop
    for attempt in 1 .. 20 loop
      exit when filestore.try_statement(statement, attempt);
      commit;
      set local search_path = pg_catalog, pg_temp;
      perform pg_catalog.pg_sleep(1);
    end loop;
    commit;
    set local search_path = pg_catalog, pg_temp;
  end loop;
end
$$;

comment on procedure filestore.prepare_moves(boolean) is
  'Prepares this server for mounts that move from it or to it: enables the triggers that refuse writes to a mount that another server holds, and puts whole rows into the log. With false, undoes that after the moves. Each table is locked for a moment, and its lock is tried twenty times, for a second each. 55P03 when a transaction held it all the time: call it again. For the owner of the schema. FS409 while a mount moves.';

revoke all on procedure filestore.prepare_moves(boolean) from public;
--! EndIncluded functions/prepare_moves.sql

--! Included functions/require_move_guards.sql
create or replace function filestore.require_move_guards()
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select
    from pg_trigger t
    where t.tgfoid = 'filestore.guard_move()'::regprocedure
      and t.tgenabled = 'D'
  ) then
    raise exception 'this server is not prepared for moves'
      using errcode    = 'FS409',
            constraint = 'move_guards_off',
            hint       = 'Call filestore.prepare_moves(true) first.';
  end if;
end
$$;

comment on function filestore.require_move_guards() is
  'Internal: Raises FS409 unless filestore.prepare_moves(true) was called.';

revoke all on function filestore.require_move_guards() from public;
--! EndIncluded functions/require_move_guards.sql

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
  perform filestore.require_move_guards();
  perform set_config('lock_timeout', '10s', true);
  -- At most one is unfinished. A finished one answers a step that is repeated.
  select *
  into move
  from filestore.moves m
  where m.mount_key = find_move.mount_key
    and m.written_by = filestore.database_number()
  order by (m.finished_at is null) desc, m.started_at desc
  limit 1
  for update;
  if not found then
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

--! Included functions/require_place.sql
create or replace function filestore.require_place(mount filestore.backend_mounts)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  reason text;
begin
  if exists (select from filestore.nodes n where n.backend_mount_id = mount.id)
     or exists (select from filestore.snapshots s where s.backend_mount_id = mount.id)
     or exists (select from filestore.journal_entries j where j.backend_mount_id = mount.id) then
    reason := 'rows with its id are here already';
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
      when others then
        reason := sqlerrm;
    end;
  end if;
  raise exception 'mount "%" has no place here: %', mount.mount_key, reason
    using errcode    = 'FS409',
          constraint = 'moves_place_check',
          hint       = 'Rename or erase the mount that is in the way, on one of the two servers. The rows of an earlier move are removed by filestore.cancel_move or filestore.erase_mount.';
end
$$;

comment on function filestore.require_place(filestore.backend_mounts) is
  'Internal: Raises FS409 unless the row of a mount fits beside the mounts of this server.';

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

--! Included functions/start_move.sql
create or replace function filestore.start_move(mount_key text, target integer)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own   integer := filestore.database_number();
  mount filestore.backend_mounts;
  move  filestore.moves;
begin
  perform filestore.require_read_committed('filestore.start_move');
  perform filestore.require_move_guards();
  if target is null or target = own or target not between 0 and 8191 then
    raise exception 'a mount cannot move from database % to database %', own, coalesce(target::text, 'null')
      using errcode    = 'FS409',
            constraint = 'database_number_check',
            hint       = 'Give the number of the target, which filestore.database_number() returns there. Each database needs another one.';
  end if;
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = filestore.find_mount(start_move.mount_key)
  for update;
  select *
  into move
  from filestore.moves m
  where m.mount_id = mount.id
    and m.written_by = own
    and m.finished_at is null;

  if move.id is null then
    if mount.held_by is not null or mount.erasing_since is not null then
      raise exception 'mount "%" has moved, or is being erased', mount.mount_key
        using errcode    = 'FS409',
              constraint = 'backend_mounts_moving',
              hint       = 'Call filestore.erase_mount here, and move the mount from the server that holds it.';
    elsif exists (select from filestore.backfills b where b.finished_at is null) then
      raise exception 'a backfill is unfinished, and would change rows without a version'
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
  elsif move.source_number <> own or move.target_number <> target or move.step = 'cancelling' then
    perform filestore.refuse_step(move, 'filestore.start_move');
  end if;
  return jsonb_build_object(
    'move',   move.id,
    'source', own,
    'target', target,
    'schema', filestore.mount_schema(),
    'mount',  to_jsonb(mount)
  );
end
$$;

comment on function filestore.start_move(text, integer) is
  'Begins to move a mount to the database with that number: publishes its row, nodes, history and journal. Returns the ticket for filestore.accept_move there; again, if it is called again. Nothing changes for services. For the owner of the schema, after filestore.prepare_moves(true). FS409 when the mount moves elsewhere, or a backfill is unfinished.';

revoke all on function filestore.start_move(text, integer) from public;
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
              hint       = 'Finish it, or take it back with filestore.cancel_move.';
    elsif move.step in ('erasing', 'cancelled') then
      perform filestore.refuse_step(move, 'filestore.accept_move');
    end if;
  else
    perform filestore.require_place(mount);
  end if;
  return format('create subscription filestore_move_%1$s connection ''host=... dbname=... user=... password=...'' publication filestore_move_%1$s with (synchronous_commit = on)', move.id);
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
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres'
set extra_float_digits = 1
set bytea_output = 'hex'
set jit = off
as $$
declare
  -- Rows of the source that are newer than the mark have these ids.
  upper_id   bigint := (marked.source_number + 1)::bigint << 40;
  changed    bigint[];
  columns    text := (
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
    from pg_attribute a
    where a.attrelid = 'filestore.nodes'::regclass
      and a.attnum > 0
      and not a.attisdropped
  );
  -- A version counts as late by its own values, so that its side never changes. "History" is when a version ended, and why.
  versions   constant text := $sql$
    select jsonb_build_array(count(*), sum(hashtextextended(v.content collate "C", 0))::text)
    from (
      select row(%1$s)::text as content
      from filestore.nodes n
      where n.backend_mount_id = $1
        and %2$s
      union all
      select row(%1$s)::text
      from filestore.snapshots n
      where n.backend_mount_id = $1
        and %3$s
    ) v
  $sql$;
  history    constant text := $sql$
    select jsonb_build_array(count(*), sum(hashtextextended(row(s.id, s.version, s.valid_from, s.valid_to, s.superseded_by_journal_id)::text collate "C", 0))::text)
    from filestore.snapshots s
    where s.backend_mount_id = $1
      and s.valid_to %s $2
  $sql$;
  commands   constant text := $sql$
    select jsonb_build_array(count(*), sum(hashtextextended(j::text collate "C", 0))::text)
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
    select to_jsonb(hashtextextended((to_jsonb(m) - 'held_by')::text collate "C", 0)::text)
    into part
    from filestore.backend_mounts m
    where m.id = marked.mount_id;
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
  waiting := case
    when tables < 5 or copied < tables then format('the copy: %s of 5 tables are here', copied)
    when source.id is null             then 'the first row of the source'
    when source.mark = 0               then 'filestore.prove_mount on the source'
    when source.early_digest is null   then 'the count on the source'
  end;
  if waiting is not null then
    select t.apply_error_count + t.sync_error_count
    into errors
    from pg_stat_subscription_stats t
    where t.subname = subscription;
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
    move := filestore.set_step(move, 'proved');
  elsif move.step <> 'proved' then
    perform filestore.refuse_step(move, 'filestore.prove_mount');
  end if;
  return jsonb_build_object('move', move.id, 'mark', move.mark, 'early', move.early_digest);
end
$$;

comment on function filestore.prove_source(filestore.moves, boolean) is
  'Internal: The part of filestore.prove_mount on the source: sets a mark, waits for the transactions that do not know it, and counts what is older than it.';

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
  'Internal: Gives a row of totals to each directory of a mount with an id above the given one that has none, as stale.';

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
    select string_agg(l.pid::text, ', ' order by l.pid)
    into busy
    from pg_locks l
    where l.locktype = 'advisory'
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
  where s.slot_name = format('filestore_move_%s', move.id)
    and s.active;
  if behind is null or behind > largest then
    raise exception 'the target of mount "%" %', move.mount_key,
      coalesce(format('is %s bytes of log behind', behind), 'does not read the log')
      using errcode    = 'FS409',
            constraint = 'moves_behind_check',
            hint       = format('Wait until slot filestore_move_%s is active and less than %s bytes behind. If it does not advance, see the log of the target.', move.id, largest);
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
  if move.step = 'closed' and not filestore.may_take_mount(move.mount_id) then
    return jsonb_build_object('move', move.id, 'attempt', move.attempt, 'until', move.closed_until);
  end if;
  perform filestore.require_same_timeline(move);
  perform filestore.require_reader(move);
  -- Every transaction that wrote to the mount ends before this one commits. So the target has all rows once it has this
  -- change.
  perform filestore.lock_out_writers(move, deadline - clock_timestamp());
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
          hint       = 'Call it again. If one of them were promoted now, two servers would take writes.';
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
  move    filestore.moves := filestore.find_move(release_mount.mount_key);
  found   jsonb;
  held_by integer;
begin
  if move.source_number <> move.written_by or move.step not in ('closed', 'released') then
    perform filestore.refuse_step(move, 'filestore.release_mount');
  end if;
  perform filestore.require_receipt(
    move, receipt, jsonb_build_object('mark', move.mark, 'attempt', move.attempt), 'filestore.prove_mount on the target, after filestore.close_mount,'
  );
  if move.step = 'closed' then
    perform filestore.require_same_timeline(move);
    -- The row is locked, so no writer can open the mount again. A transaction that did has ended, or waits for this one.
    perform filestore.lock_out_writers(move, interval '1 second');
    select m.held_by
    into held_by
    from filestore.backend_mounts m
    where m.id = move.mount_id
    for update;
    if held_by <> -1 then
      perform filestore.refuse_step(move, 'filestore.release_mount');
    end if;
    found := filestore.digest_mount(move, true);
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
  'Decides the cut-over on the source: when the target has the same rows, the mount is closed here for ever, and the target takes writes as soon as it knows. Takes the receipt of filestore.prove_mount from the target, after filestore.close_mount. Returns the one for filestore.receive_mount. For the owner of the schema. FS409 when the target differs, or the time was over and a writer opened the mount.';

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
    elsif not filestore.may_take_mount(move.mount_id) then
      perform filestore.refuse_step(move, 'filestore.receive_mount without a receipt');
    end if;
    move := filestore.set_step(move, 'received');
    update filestore.backend_mounts m
    set held_by = null
    where m.id = move.mount_id;
  end if;
  return jsonb_build_object('move', move.id, 'received', true);
end
$$;

comment on function filestore.receive_mount(text, jsonb) is
  'Lets services write to a mount on its new server, after filestore.release_mount on the old one. With its receipt at once; without it, when the change has arrived. The first writer after that does the same. Totals read stale until filestore.recount_rollups. For the owner of the schema.';

revoke all on function filestore.receive_mount(text, jsonb) from public;
--! EndIncluded functions/receive_mount.sql

--! Included functions/digest_sighting.sql
create or replace function filestore.digest_sighting(node_id bigint, seen timestamptz, reconciled timestamptz)
returns bigint
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return hashtextextended(format('%s %s %s', node_id, extract(epoch from seen), extract(epoch from reconciled)) collate "C", 0);
end
$$;

comment on function filestore.digest_sighting(bigint, timestamptz, timestamptz) is
  'Internal: A number that differs for other sightings.';

revoke all on function filestore.digest_sighting(bigint, timestamptz, timestamptz) from public;
--! EndIncluded functions/digest_sighting.sql

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
  insert into filestore.node_sightings as here (node_id, last_seen_at, last_reconciled_at)
  select u.node_id, u.seen, u.reconciled
  from unnest(node_ids, receive_sightings.seen, receive_sightings.reconciled) as u (node_id, seen, reconciled)
  where exists (
    select
    from filestore.nodes n
    where n.id = u.node_id
      and n.backend_mount_id = move.mount_id
  )
  order by u.node_id
  on conflict (node_id) do update
  set last_seen_at       = greatest(here.last_seen_at, excluded.last_seen_at),
      last_reconciled_at = greatest(here.last_reconciled_at, excluded.last_reconciled_at)
  where (here.last_seen_at, here.last_reconciled_at) is distinct from (excluded.last_seen_at, excluded.last_reconciled_at);

  -- Sightings arrive in the order of their nodes, so the highest id tells which have been counted.
  update filestore.moves m
  set sightings        = m.sightings + u.sightings,
      sightings_digest = m.sightings_digest + u.digest,
      sightings_key    = greatest(m.sightings_key, u.key)
  from (
    select
      count(*)                                                               as sightings,
      coalesce(sum(filestore.digest_sighting(s.node_id, s.seen, s.reconciled)), 0) as digest,
      coalesce(max(s.node_id), 0)                                            as key
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
  'Adds sightings of a mount that has moved, read from its old server in the order of node_id, and returns the id after which to continue. A sighting that is here already stays unless it is older. Without arrays, it returns where to continue. For the owner of the schema.';

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
    select jsonb_build_array(count(*), coalesce(sum(filestore.digest_sighting(s.node_id, s.last_seen_at, s.last_reconciled_at)), 0)::text)
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
  mount filestore.backend_mounts;
  move  filestore.moves;
begin
  perform filestore.check_limit('batch', batch);
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = filestore.find_mount(begin_erasing.mount_key)
  for update;
  if mount.held_by is not null then
    select *
    into move
    from filestore.moves m
    where m.mount_id = mount.id
      and m.written_by = filestore.database_number()
    order by m.started_at desc
    limit 1;
    if move.source_number is distinct from move.written_by or move.step is distinct from 'finished' then
      raise exception 'mount "%" is moving to another server', mount.mount_key
        using errcode    = 'FS409',
              constraint = 'backend_mounts_moving',
              hint       = 'Finish the move with filestore.finish_move, or take it back with filestore.cancel_move, which also erases the copy.';
    end if;
  elsif mount.state = 'active' then
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
create or replace function filestore.erase_batch(mount_id bigint, batch integer)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  chosen       bigint[];
  erased       bigint;
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
  delete from filestore.rollup_deltas d
  where d.backend_mount_id = mount_id;
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
  if chosen = '{}' then
    chosen := array(
      select n.id
      from filestore.nodes n
      where n.backend_mount_id = mount_id
        and n.live
        and n.path > ''
      order by n.path desc
      limit batch
    );
  end if;
  begin
    if chosen <> '{}' then
      delete from filestore.nodes n
      where n.id = any (chosen);
      raise notice '% nodes erased', cardinality(chosen);
      return true;
    end if;
    if with_journal then
      delete from filestore.journal_entries j
      where j.id = any (array(
        select o.id
        from filestore.journal_entries o
        where o.backend_mount_id = mount_id
        limit batch
      ));
      get diagnostics erased = row_count;
      if erased > 0 then
        return true;
      end if;
      -- Of a copy whose nodes have not arrived.
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
      -- A node was created in one of these directories: the next batch has it.
      return true;
    when sqlstate 'FS409' then
      get stacked diagnostics refusal = constraint_name;
      if refusal <> 'nodes_not_empty' then
        raise;
      end if;
      return true;
  end;
  return false;
end
$$;

comment on function filestore.erase_batch(bigint, integer) is
  'Internal: Removes the next rows of a mount that is being erased, and in the end the mount. Returns whether there may be more.';

revoke all on function filestore.erase_batch(bigint, integer) from public;
--! EndIncluded functions/erase_batch.sql

--! Included functions/erase_mount.sql
create or replace procedure filestore.erase_mount(mount_key text, batch integer default 10000)
language plpgsql
as $$
declare
  mount_id bigint;
begin
  set local search_path = pg_catalog, pg_temp;
  mount_id := filestore.begin_erasing(mount_key, batch);
  commit;
  set local search_path = pg_catalog, pg_temp;
  while filestore.erase_batch(mount_id, batch) loop
    commit;
    set local search_path = pg_catalog, pg_temp;
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
  ended jsonb := jsonb_build_object('move', move.id, 'cancelled', true);
begin
  perform filestore.check_limit('batch', batch);
  if move.step = 'cancelled' then
    return ended;
  elsif move.step in ('received', 'finished') then
    perform filestore.refuse_step(move, 'filestore.cancel_move');
  elsif move.step = 'cancelling' then
    update filestore.backend_mounts m
    set held_by = null
    where m.id = move.mount_id;
    perform filestore.set_step(move, 'cancelled');
    return ended;
  elsif move.step = 'erasing' then
    if not filestore.erase_batch(move.mount_id, batch) then
      delete from filestore.moves m
      where m.id = move.id
        and m.written_by = move.source_number;
      perform filestore.set_step(move, 'cancelled');
      return ended;
    end if;
  elsif move.source_number = move.written_by then
    -- Until the target has given up, it may have the mount, and this server may not know.
    if receipt is not null or move.step = 'released' then
      perform filestore.require_receipt(move, receipt, '{"cancelled": true}', 'filestore.cancel_move on the target');
    else
      perform filestore.require_same_timeline(move);
    end if;
    -- In an earlier transaction than the next change of the mount, which the target must not get.
    execute format('drop publication if exists filestore_move_%s', move.id);
    perform filestore.set_step(move, 'cancelling');
  else
    perform filestore.require_no_subscription(move);
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
  'Takes a move back. On the source, services write to the mount again. On the target, after its subscription is dropped, the copy is erased in batches. Returns a receipt. The source needs that of the target if it has released the mount, or was promoted since the move began. It can be killed at any moment: the same call continues. For the owner of the schema. FS409 when the target has received the mount.';

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
      case when s.wal_status = 'lost' then 'the log that the target needs is gone: take the move back'
           when not s.active then 'the target does not read the log: see its server''s log' end
    into bytes_behind, problem
    from pg_replication_slots s
    where s.slot_name = publication;
    if not exists (select from pg_publication p where p.pubname = publication) and move.step <> 'cancelling' then
      problem := 'the publication was dropped: take the move back';
    elsif move.step = 'closed' and move.closed_until < clock_timestamp() then
      problem := 'the time of the cut-over is over: the next writer opens the mount here';
    end if;
  elsif subscription is null then
    problem := case when move.step = 'proved' then 'the subscription was dropped: take the move back' end;
  else
    select
      s.subenabled, t.pid,
      coalesce(c.apply_error_count + c.sync_error_count, 0) as errors,
      (select count(*) from pg_subscription_rel r where r.srsubid = s.oid and r.srsubstate = 'r') as ready,
      (select sum(p.tuples_processed) from pg_stat_progress_copy p where p.datname = current_database() and p.type = 'CALLBACK') as copied_rows,
      (select sum(p.bytes_processed) from pg_stat_progress_copy p where p.datname = current_database() and p.type = 'CALLBACK') as copied_bytes
    into worker
    from pg_subscription s
    left join pg_stat_subscription t on t.subid = s.oid and t.relid is null
    left join pg_stat_subscription_stats c on c.subid = s.oid
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
comment on column filestore.view_filestore_mount_moves.bytes_behind   is 'On the source: bytes of log that the target has not applied; null when it does not read.';
comment on column filestore.view_filestore_mount_moves.expected_pause is 'About how long no server will take writes, measured by a count of the new rows; null until prove_mount was called.';
comment on column filestore.view_filestore_mount_moves.problem        is 'What is wrong; null when nothing is.';
--! EndIncluded views/view_filestore_mount_moves.sql

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
