--! Previous: sha1:d0014673cebc4c43621b3f7ef6a4308df40380dd
--! Hash: sha1:fbc742ea9498b8862f9bbd4976871d4c0ea4eb49
--! Message: Integrity and backfills

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
comment on column filestore.backfills.transaction_id is 'Transaction of the batch that works now. Its changes do not change versions.';
comment on column filestore.backfills.started_at     is 'When it was first called.';
comment on column filestore.backfills.updated_at     is 'When the last batch ended.';
comment on column filestore.backfills.finished_at    is 'When the last row was read; null while it is unfinished.';

--! Included functions/check_sequences.sql
create or replace function filestore.check_sequences()
returns table (table_name text, next_id bigint, highest_id bigint, problem text)
language plpgsql
stable
security definer
rows 10
set search_path = pg_catalog, pg_temp
as $$
declare
  own record;
begin
  for own in
    select c.relname, a.attname, s.seqmin, s.seqmax, s.seqincrement, s.seqrelid::regclass as sequence
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attidentity <> ''
    join pg_depend d on d.refobjid = c.oid and d.refobjsubid = a.attnum and d.deptype = 'i' and d.classid = 'pg_class'::regclass
    join pg_sequence s on s.seqrelid = d.objid
    where c.relnamespace = 'filestore'::regnamespace
    order by c.relname
  loop
    table_name := own.relname;
    next_id    := coalesce(pg_sequence_last_value(own.sequence) + own.seqincrement, own.seqmin);
    -- A mount that was moved here from another database has ids of that database's range.
    execute format('select max(%I) from filestore.%I where %I between $1 and $2', own.attname, own.relname, own.attname)
    using own.seqmin, own.seqmax
    into highest_id;
    if highest_id >= next_id then
      problem := format('the next id is %s, but row %s exists', next_id, highest_id);
      return next;
    end if;
    if next_id > own.seqmax - (own.seqmax - own.seqmin) / 10 then
      problem    := format('%s ids are left', own.seqmax + 1 - next_id);
      highest_id := null;
      return next;
    end if;
  end loop;
end
$$;

comment on function filestore.check_sequences() is
  'The tables whose next id is not above the ids of their rows. This happens when a logical subscriber takes over, since sequences are not replicated. Also those that have less than a tenth of their ids left, with null as highest_id. No row means that every sequence is ahead. docs/upkeep.md shows how to set a sequence with setval.';

revoke all on function filestore.check_sequences() from public;
--! EndIncluded functions/check_sequences.sql
--! Included functions/check_integrity.sql
create or replace function filestore.check_integrity()
returns table (problem text, backend_mount_id bigint, node_id bigint, detail text)
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Nodes of these mounts are being removed, or arrive from another server, in any order.
  left_out bigint[] := array(
    select m.id
    from filestore.backend_mounts m
    where m.erasing_since is not null
  ) || filestore.moving_mounts(false);
begin
  -- All statements of a stable function read one snapshot, so concurrent writes do not disturb the check.
  return query
  select
    case
      when p.id is null                                                     then 'orphan'
      when p.backend_mount_id <> n.backend_mount_id                         then 'parent on another mount'
      when p.kind <> 'directory'                                            then 'parent is a file'
      when n.live and not p.live                                            then 'live below deleted'
      else 'path mismatch'
    end,
    n.backend_mount_id,
    n.id,
    format('"%s", parent %s%s', n.path, n.parent_id, ' ("' || p.path || '")')
  from filestore.nodes n
  left join filestore.nodes p on p.id = n.parent_id
  where n.parent_id is not null
    and n.backend_mount_id <> all (left_out)
    and (
      p.id is null
      or p.backend_mount_id <> n.backend_mount_id
      or p.kind <> 'directory'
      or (n.live and (not p.live or n.path <> filestore.child_path(p.path, n.name)))
    );

  -- A directory whose parent exists, but which a walk down from the roots does not reach, is in a cycle.
  return query
  with recursive reached (id) as (
    select n.id
    from filestore.nodes n
    where n.parent_id is null
       or not exists (select from filestore.nodes p where p.id = n.parent_id)
    union all
    select c.id
    from reached r
    -- "Offset 0" keeps these lookups. The chain of parents of a tombstone can be thousands long.
    cross join lateral (
      select n.id
      from filestore.nodes n
      where n.parent_id = r.id
        and n.parent_live
        and n.directory_path is not null
      union all
      (
        select n.id
        from filestore.nodes n
        where n.parent_id = r.id
          and not n.live
          and n.directory_path is not null
        order by n.name
      )
      offset 0
    ) c
  )
  select 'cycle', n.backend_mount_id, n.id, format('"%s" is below itself', n.path)
  from filestore.nodes n
  where n.directory_path is not null
    and not exists (select from reached r where r.id = n.id);

  return query
  select 'duplicate live path', n.backend_mount_id, min(n.id), format('"%s", %s times', n.path, count(*))
  from filestore.nodes n
  where n.live
  group by n.backend_mount_id, n.path
  having count(*) > 1;

  return query
  select 'nodes of no mount', n.backend_mount_id, min(n.id), format('%s nodes', count(*))
  from filestore.nodes n
  where n.backend_mount_id <> all (left_out)
    and not exists (select from filestore.backend_mounts m where m.id = n.backend_mount_id)
  group by n.backend_mount_id;

  return query
  select 'mount without a root', m.id, null::bigint, format('mount "%s"', m.mount_key)
  from filestore.backend_mounts m
  where m.id <> all (left_out)
    and not exists (select from filestore.nodes n where n.root_of_mount_id = m.id);

  return query
  select v.problem, v.backend_mount_id, v.id, format('"%s", version %s', v.path, v.version)
  from (
    select
      w.*,
      case
        when w.previous_version is null and w.version <> 1       then 'missing version'
        when w.previous_version <> w.version - 1                 then 'missing version'
        when w.previous_valid_to > w.valid_from                  then 'overlapping versions'
        when w.previous_valid_to < w.valid_from                  then 'gap between versions'
      end as problem
    from (
      select
        u.*,
        lag(u.version) over one_node  as previous_version,
        lag(u.valid_to) over one_node as previous_valid_to
      from filestore.view_filestore_node_versions u
      where u.backend_mount_id <> all (left_out)
      window one_node as (partition by u.id order by u.version, u.valid_to nulls last)
    ) w
  ) v
  where v.problem is not null;

  return query
  select
    case when n.id is null then 'history of no node' else 'history on another mount' end,
    s.backend_mount_id,
    s.id,
    format('"%s", version %s', s.path, s.version)
  from filestore.snapshots s
  left join filestore.nodes n on n.id = s.id
  where s.backend_mount_id <> all (left_out)
    and (n.backend_mount_id is distinct from s.backend_mount_id or n.root_of_mount_id is distinct from s.root_of_mount_id);

  return query
  select
    'wrong totals',
    m.id,
    a.node_id,
    format(
      '"%s": %s instead of %s bytes, %s files, %s directories, %s children',
      a.path,
      case
        when a.size_bytes is null then 'no row in rollups'
        else format('%s bytes, %s files, %s directories, %s children', a.size_bytes, a.file_count, a.dir_count, a.child_count)
      end,
      a.expected_size_bytes,
      a.expected_file_count,
      a.expected_dir_count,
      a.expected_child_count
    )
  from filestore.backend_mounts m
  cross join lateral filestore.audit_rollups(m.mount_key) a
  where m.id <> all (left_out);

  return query
  select 'delta of no directory', d.backend_mount_id, d.directory_id, format('delta %s', d.id)
  from filestore.rollup_deltas d
  where d.backend_mount_id <> all (left_out)
    and not exists (
      select
      from filestore.nodes n
      where n.id = d.directory_id
        and n.backend_mount_id = d.backend_mount_id
        and n.directory_path is not null
    );

  return query
  select 'totals of no directory', n.backend_mount_id, r.node_id, coalesce('"' || n.path || '" is a file', 'the node does not exist')
  from filestore.rollups r
  left join filestore.nodes n on n.id = r.node_id
  where n.directory_path is null;

  return query
  select 'sighting of no node', null::bigint, s.node_id, coalesce('last seen at ' || s.last_seen_at, 'never seen')
  from filestore.node_sightings s
  where not exists (select from filestore.nodes n where n.id = s.node_id);

  return query
  select f.problem, m.id, null::bigint, format('mount "%s", %s', m.mount_key, s.column_name)
  from filestore.backend_mounts m
  cross join lateral (values
    ('config', m.config),
    ('access_policy', m.access_policy),
    ('labels', m.labels),
    ('credentials_ref', to_jsonb(m.credentials_ref)),
    ('endpoint', to_jsonb(m.endpoint)),
    ('display_name', to_jsonb(m.display_name)),
    ('description', to_jsonb(m.description)),
    ('contact', to_jsonb(m.contact))
  ) as s (column_name, settings)
  cross join lateral (
    select case
      when jsonb_path_exists(s.settings, 'strict $.**{33}') or not filestore.is_small_json(s.settings, 65536) then 'settings too big'
      when filestore.find_secret(s.settings) is not null then 'secret in a mount'
    end as problem
  ) f
  where f.problem is not null;

  return query
  select
    case when i.highest_id is null then 'ids run out' else 'sequence behind its table' end,
    null::bigint,
    null::bigint,
    format('filestore.%s: %s', i.table_name, i.problem)
  from filestore.check_sequences() i;

  return query
  select 'guard switched off', null::bigint, null::bigint, format('%s %s on %s', g.what, g.name, g.owner::regclass)
  from (
    select 'trigger' as what, t.tgname as name, t.tgrelid as owner
    from pg_trigger t
    where t.tgenabled not in ('O', 'A')
      -- The triggers of moves are enabled only while a mount moves.
      and (
        t.tgfoid <> 'filestore.guard_move()'::regprocedure
        or filestore.moving_mounts(true) <> '{}'
      )
    union all
    select 'constraint', k.conname, k.conrelid
    from pg_constraint k
    where not k.convalidated
  ) g
  join pg_class c on c.oid = g.owner
  where c.relnamespace = 'filestore'::regnamespace;
end
$$;

comment on function filestore.check_integrity() is
  'Reads the whole catalogue and returns one row per problem; no row means that it is sound. Run it after a restore, a crash, or a session with triggers switched off. It reads one snapshot and blocks nothing. It leaves out mounts that are being erased or that another server holds.';

revoke all on function filestore.check_integrity() from public;
--! EndIncluded functions/check_integrity.sql
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
    select format('%s is %s behind', coalesce('replica ' || nullif(r.application_name, ''), 'a replica'), pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn)))
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
    raise exception 'pause cannot be %', coalesce(pause::text, 'null')
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
create or replace function filestore.fill_batch(job_id bigint, key_name text, batch integer, end_key bigint)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job       filestore.backfills;
  mount_ids bigint[];
  -- The first row of the next batch, if too many mounts end this one.
  next_key  bigint;
  found_key bigint;
  changed   bigint;
begin
  -- An earlier call may have ended the job before rows that this call has to fill.
  update filestore.backfills b
  set transaction_id = pg_current_xact_id(),
      finished_at    = null
  where b.id = job_id
    and (b.finished_at is null or b.last_key < end_key)
  returning * into job;
  if job.id is null then
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
          and n.id <= end_key
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
         and t.%1$I <= $3
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
  using job.last_key, batch, coalesce(next_key - 1, end_key)
  into found_key, changed;
  -- All nodes before the next batch may have been purged in the meantime.
  found_key := coalesce(found_key, next_key - 1);

  update filestore.backfills b
  set last_key       = coalesce(found_key, b.last_key),
      filled         = b.filled + changed,
      -- A copy of this row on another server must not allow a later transaction with this number.
      transaction_id = null,
      updated_at     = date_trunc('milliseconds', clock_timestamp()),
      finished_at    = case when found_key is null then date_trunc('milliseconds', clock_timestamp()) end
  where b.id = job_id;
  return found_key is not null;
end
$$;

comment on function filestore.fill_batch(bigint, text, integer, bigint) is
  'Internal: Fills the next batch of a backfill, up to a key, in the current transaction, and returns whether there may be more. For filestore.backfill.';

revoke all on function filestore.fill_batch(bigint, text, integer, bigint) from public;
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
  -- Rows that services insert after the call are left out, so that the backfill ends.
  end_key  bigint;
  lagging  pg_catalog.text;
begin
  set local search_path = pg_catalog, pg_temp;
  key_name := filestore.check_backfill(table_name, column_name, expression, batch, pause);
  execute format('select coalesce(max(%I), 0) from filestore.%I', key_name, table_name) into end_key;
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
            hint       = 'Call filestore.backfill with the same expression as before, or delete its row from filestore.backfills to start again.';
  else
    raise notice 'backfill % of filestore.%.% continues after key %', job.id, table_name, column_name, job.last_key;
  end if;
  commit;
  set local search_path = pg_catalog, pg_temp;

  while filestore.fill_batch(job.id, key_name, batch, end_key) loop
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
      raise notice 'backfill % waits: %', job.id, lagging;
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
  'Fills the nulls of a column with an expression over the row, in batches in order of the primary key, with a commit after each. It changes no version and writes no history. It pauses after each batch, and while a replica is more than max_lag_bytes behind. It can be stopped or killed at any moment: the same call continues where it stopped. It leaves out rows that are inserted after the call. filestore.backfills shows the progress. For the owner of the schema.';

revoke all on procedure filestore.backfill(text, text, text, integer, interval, bigint) from public;
--! EndIncluded functions/backfill.sql
