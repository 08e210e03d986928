--! Previous: sha1:c537a7e72132471b8f6e96dba1fc7460da678abd
--! Hash: sha1:aa50beb24fa8b43ae4baa7efac65a396044addc2
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
  job      filestore.backfills;
  found_key bigint;
  changed  bigint;
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
    perform filestore.lock_tree(m.backend_mount_id, false)
    from (
      select distinct p.backend_mount_id
      from (
        select n.backend_mount_id
        from filestore.nodes n
        where n.id > job.last_key
        order by n.id
        limit batch
      ) p
      order by p.backend_mount_id
    ) m;
  end if;

  -- The expression is SQL of the schema's owner, so it is not quoted.
  -- @plpgsql_check_options: security_warnings = false
  execute format(
    'with part as (
       select t.%1$I as backfill_key
       from filestore.%2$I t
       where t.%1$I > $1
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
  using job.last_key, batch
  into found_key, changed;

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
--! Included functions/erase_mount.sql
create or replace procedure filestore.erase_mount(mount_key text, batch integer default 10000)
language plpgsql
as $$
declare
  mount  filestore.backend_mounts;
  chosen bigint[];
  erased bigint := 0;
begin
  set local search_path = pg_catalog, pg_temp;
  perform filestore.check_limit('batch', batch);
  select *
  into mount
  from filestore.backend_mounts m
  where m.id = filestore.find_mount(erase_mount.mount_key)
  for update;
  if mount.state = 'active' and (mount.held_by = filestore.database_number()) is not false then
    raise exception 'mount "%" is active: it cannot be erased', mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_active',
            hint       = 'When no service uses it any more, set its state to inactive.';
  elsif exists (
    select
    from pg_publication_rel r
    where r.prrelid = 'filestore.nodes'::regclass
      and pg_get_expr(r.prqual, r.prrelid) ~ (E'\\y' || mount.id || E'\\y')
  ) then
    raise exception 'mount "%" is published: erasing it would erase it on its new server too', mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_published',
            hint       = 'Drop the subscription there, and then the publication here.';
  end if;
  update filestore.backend_mounts m
  set erasing_since = coalesce(m.erasing_since, date_trunc('milliseconds', statement_timestamp()))
  where m.id = mount.id;
  commit;
  set local search_path = pg_catalog, pg_temp;

  loop
    perform filestore.lock_tree(mount.id, true);
    delete from filestore.rollup_deltas d
    where d.backend_mount_id = mount.id;
    -- Tombstones in any order. Then live nodes in descending order of path, because nodes_parent_fkey requires children
    -- to be removed before their directory.
    chosen := array(
      select n.id
      from filestore.nodes n
      where n.backend_mount_id = mount.id
        and n.deleted_at is not null
      order by n.deleted_at
      limit batch
    );
    if chosen = '{}' then
      chosen := array(
        select n.id
        from filestore.nodes n
        where n.backend_mount_id = mount.id
          and n.live
          and n.path > ''
        order by n.path desc
        limit batch
      );
    end if;
    exit when chosen = '{}';
    delete from filestore.nodes n
    where n.id = any (chosen);
    erased := erased + cardinality(chosen);
    commit;
    set local search_path = pg_catalog, pg_temp;
    raise notice 'mount "%": % nodes erased', mount_key, erased;
  end loop;

  -- The new server of a mount that has moved has its journal too.
  while mount.held_by <> filestore.database_number() loop
    delete from filestore.journal_entries j
    where j.id = any (array(
      select o.id
      from filestore.journal_entries o
      where o.backend_mount_id = mount.id
        and o.completed_at is not null
      limit batch
    ));
    exit when not found;
    commit;
    set local search_path = pg_catalog, pg_temp;
  end loop;
  delete from filestore.journal_entries j
  where j.backend_mount_id = mount.id
    and j.status in ('queued', 'running')
    and mount.held_by <> filestore.database_number();

  delete from filestore.backend_mounts m
  where m.id = mount.id;
  commit;
  set local search_path = pg_catalog, pg_temp;
  raise notice 'mount "%" is erased', mount_key;
end
$$;

comment on procedure filestore.erase_mount(text, integer) is
  'Removes a mount that is not active, with all its nodes and their history, in batches with a commit after each: for a bucket or disk that is gone, or a mount that has moved to another server. It can be killed at any moment: the same call continues. The journal stays, except that of a mount that has moved. For the owner of the schema. FS409 when the mount is active and held here, or published.';

revoke all on procedure filestore.erase_mount(text, integer) from public;
--! EndIncluded functions/erase_mount.sql
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

  if not closing
     and mount.id is not null
     and (mount.held_by is null or mount.held_by = filestore.database_number()) then
    return coalesce(new, old);
  elsif tg_op = 'DELETE' and mount.erasing_since is not null then
    return old;
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
--! Included functions/prepare_moves.sql
create or replace procedure filestore.prepare_moves(wanted boolean)
language plpgsql
as $$
declare
  attempts  constant integer := 20;
  moving    pg_catalog.text;
  statement pg_catalog.text;
begin
  set local search_path = pg_catalog, pg_temp;
  moving := (
    select min(m.mount_key)
    from filestore.backend_mounts m
    where m.held_by is not null
  );
  if wanted is not true and moving is not null then
    raise exception 'mount "%" is moving to another server', moving
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Finish the move, or take it back with filestore.withdraw_mount.';
  end if;

  for statement in
    select format('alter table %s %s trigger %I', t.tgrelid::regclass, case when wanted then 'enable' else 'disable' end, t.tgname)
    from pg_trigger t
    where t.tgfoid = 'filestore.guard_move()'::regprocedure
    union all
    select format('alter table filestore.%I replica identity %s', own.name, case when wanted then 'full' else 'default' end)
    from unnest('{nodes,snapshots,journal_entries}'::text[]) own (name)
  loop
    for attempt in 1 .. attempts loop
      begin
        -- One table in each transaction, and a short wait, because all its readers and writers queue behind it.
        perform set_config('lock_timeout', '1s', true);
        -- The names come from the catalog.
        -- @plpgsql_check_options: security_warnings = false
        execute statement;
        exit;
      exception
        when lock_not_available then
          if attempt = attempts then
            raise;
          end if;
      end;
      commit;
      set local search_path = pg_catalog, pg_temp;
      perform pg_sleep(attempt * 0.1);
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
--! Included functions/publish_mount.sql
create or replace function filestore.publish_mount(mount_key text, publication text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint := filestore.find_mount(publish_mount.mount_key);
begin
  perform filestore.require_move_guards();
  update filestore.backend_mounts m
  set held_by = filestore.database_number()
  where m.id = mount_id
    and m.held_by is null;
  if not found then
    raise exception 'mount "%" is moving to another server', publish_mount.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_moving',
            hint       = 'Finish the move, or take it back with filestore.withdraw_mount.';
  end if;
  execute format(
    'create publication %1$I
       for table filestore.backend_mounts where (id = %2$s),
           table filestore.nodes where (backend_mount_id = %2$s),
           table filestore.snapshots where (backend_mount_id = %2$s),
           table filestore.journal_entries where (backend_mount_id = %2$s)',
    publication, mount_id
  );
end
$$;

comment on function filestore.publish_mount(text, text) is
  'Begins to move a mount to another server: publishes its row, nodes, history and journal, for a subscription there. Nothing changes for services. For the owner of the schema, after filestore.prepare_moves(true). FS409 when the mount is moving already.';

revoke all on function filestore.publish_mount(text, text) from public;
--! EndIncluded functions/publish_mount.sql
--! Included functions/close_mount.sql
create or replace function filestore.close_mount(mount_key text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint := filestore.find_mount(close_mount.mount_key);
begin
  perform filestore.require_read_committed('filestore.close_mount');
  perform filestore.require_move_guards();
  -- Every transaction that wrote to the mount ends before this one commits. So the target has all rows once it has this
  -- change.
  perform pg_advisory_xact_lock(hashtextextended('filestore.move', mount_id));
  update filestore.backend_mounts m
  set held_by = -1
  where m.id = mount_id
    and m.held_by = filestore.database_number();
  if not found then
    raise exception 'mount "%" is not published, or closed already', close_mount.mount_key
      using errcode    = 'FS409',
            constraint = 'backend_mounts_unpublished',
            hint       = 'Call filestore.publish_mount first, and this on the server that holds the mount.';
  end if;
end
$$;

comment on function filestore.close_mount(text) is
  'Ends writing to a published mount: waits for the transactions that have written to it, and refuses all others from now on (FS409, backend_mounts_moving). Reading goes on. For the owner of the schema.';

revoke all on function filestore.close_mount(text) from public;
--! EndIncluded functions/close_mount.sql
--! Included functions/receive_mount.sql
create or replace procedure filestore.receive_mount(mount_key text, subscription text)
language plpgsql
as $$
declare
  mount    filestore.backend_mounts;
  copying  bigint;
  prepared boolean := false;
begin
  set local search_path = pg_catalog, pg_temp;
  perform filestore.require_move_guards();
  loop
    select count(r.srrelid) filter (where r.srsubstate <> 'r')
    into copying
    from pg_subscription s
    left join pg_subscription_rel r on r.srsubid = s.oid
    where s.subname = subscription
      and s.subdbid = (select d.oid from pg_database d where d.datname = current_database())
    group by s.oid;
    if not found then
      raise exception 'there is no subscription "%"', subscription
        using errcode    = 'FS404',
              constraint = 'move_subscription_missing',
              hint       = 'Create it for the publication of the mount, and drop it after this call only.';
    end if;

    select *
    into mount
    from filestore.backend_mounts m
    where m.mount_key = receive_mount.mount_key;
    if mount.id is not null and mount.held_by is null then
      raise notice 'mount "%" is here already', mount_key;
      return;
    elsif mount.held_by = filestore.database_number() then
      raise exception 'this server and the one that mount "%" comes from have the same number, %', mount_key, mount.held_by
        using errcode    = 'FS409',
              constraint = 'database_number_check',
              hint       = 'Take the move back, and call filestore.set_database_number on the empty target.';
    end if;

    -- Most totals are added before the mount is closed, so that few are missing at the cut-over.
    if copying = 0 and (mount.held_by = -1 or not prepared) then
      insert into filestore.rollups (node_id, consistency_state)
      select n.id, 'stale'
      from filestore.nodes n
      where n.backend_mount_id = mount.id
        and n.directory_path is not null
        and not exists (
          select
          from filestore.rollups r
          where r.node_id = n.id
        )
      on conflict do nothing;
      prepared := true;
    end if;
    exit when copying = 0 and mount.held_by = -1;
    commit;
    set local search_path = pg_catalog, pg_temp;
    perform pg_sleep(0.02);
  end loop;

  -- The mount was closed after all other changes, so all of them are here.
  update filestore.backend_mounts m
  set held_by = null
  where m.id = mount.id;
  commit;
  set local search_path = pg_catalog, pg_temp;
end
$$;

comment on procedure filestore.receive_mount(text, text) is
  'Ends the move of a mount on its new server: waits until all of it has arrived and filestore.close_mount was called on the old one, and then lets services write here. Its totals read stale until filestore.recount_rollups. It can be killed at any moment: the same call continues. For the owner of the schema.';

revoke all on procedure filestore.receive_mount(text, text) from public;
--! EndIncluded functions/receive_mount.sql
--! Included functions/withdraw_mount.sql
create or replace function filestore.withdraw_mount(mount_key text, publication text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint := filestore.find_mount(withdraw_mount.mount_key);
begin
  -- On the target there is no such publication, so this fails there.
  execute format('drop publication %I', publication);
  update filestore.backend_mounts m
  set held_by = null
  where m.id = mount_id;
end
$$;

comment on function filestore.withdraw_mount(text, text) is
  'Takes a move back on the old server: drops the publication, and lets services write to the mount again. Do not call it after filestore.receive_mount has ended on the new server, because both would then take writes. For the owner of the schema.';

revoke all on function filestore.withdraw_mount(text, text) from public;
--! EndIncluded functions/withdraw_mount.sql

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
