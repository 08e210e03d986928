--! Previous: sha1:f340ec1edbd43613fcd574927a175438367cb064
--! Hash: sha1:dccfdc82322efb8e179cab6a7c5075c88b6edbc2
--! Message: Import of an existing catalogue

--! Included functions/reserve_ids.sql
create or replace function filestore.reserve_ids(table_name text, highest bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  sequence constant regclass := pg_get_serial_sequence(format('filestore.%I', table_name), 'id');
  range    pg_sequence;
begin
  select *
  into range
  from pg_sequence s
  where s.seqrelid = sequence;
  if highest >= range.seqmax then
    raise exception 'ids of filestore.% end at %', table_name, range.seqmax
      using errcode    = 'FS422',
            constraint = 'import_id_check',
            hint       = 'Give an id of this range.';
  end if;
  -- Others may take ids in the meantime, so it goes further than necessary.
  if highest >= coalesce(pg_sequence_last_value(sequence), range.seqmin) then
    perform setval(sequence, least(highest + 100000, range.seqmax));
  end if;
  return coalesce(pg_sequence_last_value(sequence), range.seqmin - 1) + 1;
end
$$;

comment on function filestore.reserve_ids(text, bigint) is
  'Lets the ids of a table continue above a number, for rows that will be imported with their ids, and returns the next id. Call it for nodes before the mount is registered: its root takes an id. For the owner of the schema.';

revoke all on function filestore.reserve_ids(text, bigint) from public;
--! EndIncluded functions/reserve_ids.sql

--! Included functions/begin_import.sql
create or replace function filestore.begin_import(
  mount_key text,
  nodes     regclass,
  versions  regclass,
  entries   regclass,
  take_rest boolean,
  batch     integer
)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  mount_id  bigint;
  given     text[];
  faults    bigint;
  staged    bigint;
  example   record;
  import_id bigint;
begin
  perform filestore.require_read_committed('filestore.import_nodes');
  perform filestore.check_limit('batch', batch);
  mount_id := filestore.find_mount(begin_import.mount_key);
  -- Of two calls for one mount, the later one goes on. It plans when the batch of the other one has ended.
  update filestore.imports i
  set finished_at = date_trunc('milliseconds', clock_timestamp())
  where i.backend_mount_id = mount_id
    and i.takes_nodes = (begin_import.nodes is not null)
    and i.finished_at is null;
  insert into filestore.imports (backend_mount_id, takes_nodes)
  values (mount_id, begin_import.nodes is not null)
  returning id into import_id;
  given := filestore.plan_import(begin_import.mount_key, begin_import.nodes, begin_import.versions, begin_import.entries);

  select count(*)
  into faults
  from filestore.import_faults();
  if faults > 0 and take_rest is not true then
    select *
    into example
    from filestore.import_faults()
    limit 1;
    staged := (select count(*) from pg_temp.filestore_import_nodes)
      + (select count(*) from pg_temp.filestore_import_versions)
      + (select count(*) from pg_temp.filestore_import_entries);
    raise exception '% of % rows cannot be imported, such as % in %: %', faults, staged, coalesce(example.id::text, 'a row'), example.staged, example.problem
      using errcode    = 'FS409',
            constraint = 'import_refused',
            hint       = 'Run select * from filestore.check_import with the same arguments to list them. Correct them, or pass take_rest => true to import the others. Nothing was imported.';
  end if;

  update filestore.imports i
  set given_columns = given,
      refused       = faults
  where i.id = import_id;

  -- The nodes as they are before they change, for their history.
  create temporary table filestore_import_old as
  select n.*
  from pg_temp.filestore_import_nodes t
  join filestore.nodes n on n.id = t.id
  where t.action in ('move', 'change')
    and t.fault is null;
  create index on pg_temp.filestore_import_nodes (id);

  perform filestore.reserve_ids('nodes', (select max(t.id) from pg_temp.filestore_import_nodes t where t.fault is null));
  perform filestore.reserve_ids('journal_entries', (select max(t.id) from pg_temp.filestore_import_entries t where t.fault is null));

  -- The trees of the mount are known from the last moment on at which the known history of a node begins, unless it begins
  -- with version 1.
  update filestore.backend_mounts m
  set history_horizon = greatest(m.history_horizon, h.horizon)
  from (
    select max(coalesce(v.first_from, t.updated_at)) as horizon
    from pg_temp.filestore_import_nodes t
    left join (
      select o.id, min(o.version) as first_version, min(o.valid_from) as first_from
      from pg_temp.filestore_import_versions o
      where o.fault is null
      group by o.id
    ) v on v.id = t.id
    where t.fault is null
      and t.action <> 'keep'
      and case
        when t.known_version is null then coalesce(v.first_version, t.version) > 1
        else t.version > t.known_version + 1 and coalesce(v.first_version, t.version) > t.known_version
      end
  ) h
  where m.id = mount_id
    and h.horizon is not null;
  return import_id;
end
$$;

comment on function filestore.begin_import(text, regclass, regclass, regclass, boolean, integer) is
  'Internal: Plans an import, and returns its number. FS409 when rows cannot be imported, unless the others shall be.';

revoke all on function filestore.begin_import(text, regclass, regclass, regclass, boolean, integer) from public;
--! EndIncluded functions/begin_import.sql

--! Included functions/begin_import_batch.sql
create or replace function filestore.begin_import_batch(import_id bigint, locks_tree boolean)
returns filestore.imports
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  import filestore.imports;
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
  perform set_config('filestore.backfill_id', 'import', true);
  return import;
end
$$;

comment on function filestore.begin_import_batch(bigint, boolean) is
  'Internal: Lets the transaction write what only an import may write, into the mount of that import.';

revoke all on function filestore.begin_import_batch(bigint, boolean) from public;
--! EndIncluded functions/begin_import_batch.sql

--! Included functions/end_import_batch.sql
create or replace function filestore.end_import_batch(import_id bigint, nodes bigint, versions bigint, entries bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('filestore.backfill_id', '', true);
  update filestore.imports i
  set nodes          = i.nodes + end_import_batch.nodes,
      versions       = i.versions + end_import_batch.versions,
      entries        = i.entries + end_import_batch.entries,
      -- A copy of this row on another server must not allow a later transaction with this number.
      transaction_id = null,
      updated_at     = date_trunc('milliseconds', clock_timestamp())
  where i.id = import_id;
end
$$;

comment on function filestore.end_import_batch(bigint, bigint, bigint, bigint) is
  'Internal: Counts what a batch imported, and ends its right to write it.';

revoke all on function filestore.end_import_batch(bigint, bigint, bigint, bigint) from public;
--! EndIncluded functions/end_import_batch.sql

--! Included functions/change_staged.sql
create or replace function filestore.change_staged(given text[], extra text[], numbers bigint[])
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  changed bigint;
begin
  if numbers = '{}' then
    return 0;
  end if;
  execute format(
    'update filestore.nodes n
     set %s
     from pg_temp.filestore_import_nodes t
     where t.number = any ($1)
       and n.id = t.id
       and n.version = t.known_version',
    (
      select string_agg(format('%1$I = t.%1$I', c.name), ', ')
      from (
        select unnest(given)
        except
        select unnest('{id,kind,path,parent_id,name,created_at,deleted_at}'::text[])
        union
        select unnest('{state,version,updated_at}'::text[] || extra)
      ) c (name)
    )
  )
  using numbers;
  get diagnostics changed = row_count;
  if changed <> cardinality(numbers) then
    raise exception '% nodes were changed in the mount while they were imported', cardinality(numbers) - changed
      using errcode    = 'FS409',
            constraint = 'import_disturbed',
            hint       = 'Import again: the next call compares them with the rows that are staged then.';
  end if;
  return changed;
end
$$;

comment on function filestore.change_staged(text[], text[], bigint[]) is
  'Internal: Gives nodes that the mount has already the values of their staged rows: the staged columns of content, the version, and some further columns. FS409 when others have changed one of them since the import was planned.';

revoke all on function filestore.change_staged(text[], text[], bigint[]) from public;
--! EndIncluded functions/change_staged.sql

--! Included functions/create_staged.sql
create or replace function filestore.create_staged(numbers bigint[], looks_up_parents boolean)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  columns text;
  created bigint;
begin
  select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
  into columns
  from pg_attribute a
  where a.attrelid = 'filestore.nodes'::regclass
    and a.attnum > 0
    and not a.attisdropped
    and a.attname not in ('parent_path', 'root_of_mount_id');
  execute format(
    'insert into filestore.nodes (parent_path, %1$s)
     overriding system value
     select
       -- The parent may have another path than it had when the import was planned.
       case when $2 and t.live then null else t.parent_path end, %1$s
     from pg_temp.filestore_import_nodes t
     where t.number = any ($1)
     order by t.number',
    columns
  )
  using numbers, looks_up_parents;
  get diagnostics created = row_count;

  -- The trigger has counted tombstones too.
  insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
  select
    t.backend_mount_id,
    t.parent_id,
    -sum(t.size_bytes),
    -count(*) filter (where t.directory_path is null),
    -count(*) filter (where t.directory_path is not null),
    -count(*)
  from pg_temp.filestore_import_nodes t
  where t.number = any (numbers)
    and not t.live
  group by t.backend_mount_id, t.parent_id;
  return created;
end
$$;

comment on function filestore.create_staged(bigint[], boolean) is
  'Internal: Inserts staged nodes that the mount does not have.';

revoke all on function filestore.create_staged(bigint[], boolean) from public;
--! EndIncluded functions/create_staged.sql

--! Included functions/take_versions.sql
create or replace function filestore.take_versions(numbers bigint[])
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  taken bigint;
begin
  -- The trigger wrote the version that ends here with the path that the node has now: a directory above it may have moved
  -- before. If the node changed several times since then, and not all of these versions are staged, its known history begins
  -- later.
  delete from filestore.snapshots s
  using pg_temp.filestore_import_nodes t
  where t.number = any (numbers)
    and t.version > t.known_version
    and s.id = t.id
    and (
      s.version = t.known_version
      or (
        t.version > t.known_version + 1
        and not exists (
          select
          from pg_temp.filestore_import_versions v
          where v.node_number = t.number
            and v.version = t.known_version
            and v.fault is null
        )
      )
    );

  execute format(
    'insert into filestore.snapshots (%1$s)
     select %1$s
     from pg_temp.filestore_import_versions v
     where v.node_number = any ($1)
       and v.action = ''create''
       and v.fault is null',
    (
      select string_agg(format('%I', a.attname), ', ' order by a.attnum)
      from pg_attribute a
      where a.attrelid = 'filestore.snapshots'::regclass
        and a.attnum > 0
        and not a.attisdropped
    )
  )
  using numbers;
  get diagnostics taken = row_count;

  execute format(
    'insert into filestore.snapshots (valid_from, valid_to, %s)
     select o.updated_at, t.updated_at, %s
     from pg_temp.filestore_import_nodes t
     join pg_temp.filestore_import_old o on o.id = t.id
     where t.number = any ($1)
       and t.version = t.known_version + 1
       and not exists (
         select
         from pg_temp.filestore_import_versions v
         where v.node_number = t.number
           and v.version = t.known_version
           and v.fault is null
       )',
    (
      select string_agg(format('%I', a.attname), ', ' order by a.attnum)
      from pg_attribute a
      where a.attrelid = 'filestore.nodes'::regclass
        and a.attnum > 0
        and not a.attisdropped
    ),
    (
      select string_agg(format('o.%I', a.attname), ', ' order by a.attnum)
      from pg_attribute a
      where a.attrelid = 'filestore.nodes'::regclass
        and a.attnum > 0
        and not a.attisdropped
    )
  )
  using numbers;
  return taken;
end
$$;

comment on function filestore.take_versions(bigint[]) is
  'Internal: Inserts the staged versions of staged nodes that the mount does not have, and the version that a changed node had if it is not staged.';

revoke all on function filestore.take_versions(bigint[]) from public;
--! EndIncluded functions/take_versions.sql

--! Included functions/arrange_staged.sql
create or replace function filestore.arrange_staged(import_id bigint)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- A session plans the checks of foreign keys once: on a small table, each would read all nodes for ever.
set enable_seqscan = off
set jit = off
as $$
declare
  import  filestore.imports;
  root_id bigint;
  numbers bigint[];
  this_level integer;
begin
  numbers := array(
    select t.number
    from pg_temp.filestore_import_nodes t
    where t.action = 'move'
      and t.fault is null
  );
  if numbers = '{}' then
    return false;
  end if;
  import  := filestore.begin_import_batch(import_id, true);
  root_id := (select n.id from filestore.nodes n where n.root_of_mount_id = import.backend_mount_id);

  -- Live nodes leave their places, which others may need, the deepest first: a statement moves directories of one level only.
  for this_level in
    select distinct o.depth
    from pg_temp.filestore_import_old o
    where o.live
    order by o.depth desc
  loop
    update filestore.nodes n
    set parent_id  = case when t.live then root_id else n.parent_id end,
        name       = case when t.live then '.filestore-import-' || n.id else n.name end,
        state      = case when t.live then n.state else 'deleted' end,
        deleted_at = t.deleted_at
    from pg_temp.filestore_import_old o
    join pg_temp.filestore_import_nodes t on t.id = o.id
    where o.id = n.id
      and o.live
      and o.depth = this_level
      and t.number = any (numbers);
  end loop;

  -- From the top down, with the directories that are new.
  numbers := numbers || array(
    select t.number
    from pg_temp.filestore_import_nodes t
    where t.fault is null
      and t.action = 'create'
      and t.kind = 'directory'
  );
  for this_level in
    select distinct t.level
    from pg_temp.filestore_import_nodes t
    where t.number = any (numbers)
    order by t.level
  loop
    perform filestore.create_staged(
      array(
        select t.number
        from pg_temp.filestore_import_nodes t
        where t.number = any (numbers)
          and t.action = 'create'
          and t.level = this_level
      ),
      true
    );
    perform filestore.change_staged(import.given_columns, case when s.lives then '{parent_id,name}' else '{parent_id,name,parent_path,deleted_at}' end::text[], array(
      select t.number
      from pg_temp.filestore_import_nodes t
      where t.number = any (numbers)
        and t.live = s.lives
        and t.action = 'move'
        and t.level = this_level
    ))
    from unnest(array[true, false]) s (lives);
  end loop;

  perform filestore.end_import_batch(import_id, cardinality(numbers), filestore.take_versions(numbers), 0);
  update pg_temp.filestore_import_nodes t
  set action = 'keep'
  where t.number = any (numbers);
  return true;
end
$$;

comment on function filestore.arrange_staged(bigint) is
  'Internal: Moves, deletes and restores nodes as they are staged, in one transaction, and creates the directories that are new. False when there is nothing to move.';

revoke all on function filestore.arrange_staged(bigint) from public;
--! EndIncluded functions/arrange_staged.sql

--! Included functions/take_nodes.sql
create or replace function filestore.take_nodes(import_id bigint, first bigint, last bigint, looks_up_parents boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
-- A session plans the checks of foreign keys once: on a small table, each would read all nodes for ever.
set enable_seqscan = off
set jit = off
as $$
declare
  import  filestore.imports := filestore.begin_import_batch(import_id, true);
  created bigint[];
  changed bigint[];
  nodes   bigint;
begin
  select
    coalesce(array_agg(t.number) filter (where t.action = 'create'), '{}'),
    coalesce(array_agg(t.number) filter (where t.action = 'change'), '{}')
  into created, changed
  from pg_temp.filestore_import_nodes t
  where t.number between first and last
    and t.fault is null;
  nodes := filestore.create_staged(created, looks_up_parents) + filestore.change_staged(import.given_columns, '{}', changed);
  perform filestore.end_import_batch(import_id, nodes, filestore.take_versions(created || changed), 0);
end
$$;

comment on function filestore.take_nodes(bigint, bigint, bigint, boolean) is
  'Internal: Imports a batch of staged nodes with their versions.';

revoke all on function filestore.take_nodes(bigint, bigint, bigint, boolean) from public;
--! EndIncluded functions/take_nodes.sql

--! Included functions/take_entries.sql
create or replace function filestore.take_entries(import_id bigint, first bigint, last bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  columns text;
  taken   bigint;
begin
  perform filestore.begin_import_batch(import_id, false);
  select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
  into columns
  from pg_attribute a
  where a.attrelid = 'filestore.journal_entries'::regclass
    and a.attnum > 0
    and not a.attisdropped;
  execute format(
    'insert into filestore.journal_entries (%1$s)
     overriding system value
     select %1$s
     from pg_temp.filestore_import_entries t
     where t.number between $1 and $2
       and t.action = ''create''
       and t.fault is null
     order by t.number',
    columns
  )
  using first, last;
  get diagnostics taken = row_count;
  perform filestore.end_import_batch(import_id, 0, 0, taken);
end
$$;

comment on function filestore.take_entries(bigint, bigint, bigint) is
  'Internal: Imports a batch of staged journal entries.';

revoke all on function filestore.take_entries(bigint, bigint, bigint) from public;
--! EndIncluded functions/take_entries.sql

--! Included functions/import_nodes.sql
create or replace procedure filestore.import_nodes(
  mount_key text,
  nodes     regclass,
  versions  regclass default null,
  entries   regclass default null,
  take_rest boolean  default false,
  batch     integer  default 10000
)
language plpgsql
as $$
declare
  import_id    pg_catalog.int8;
  arranged     pg_catalog.bool;
  next_number  pg_catalog.int8;
  last_node    pg_catalog.int8;
  last_entry   pg_catalog.int8;
  import       filestore.imports;
begin
  set local search_path = pg_catalog, pg_temp;
  import_id  := filestore.begin_import(mount_key, nodes, versions, entries, take_rest, batch);
  last_node  := coalesce((select max(t.number) from pg_temp.filestore_import_nodes t), 0);
  last_entry := coalesce((select max(t.number) from pg_temp.filestore_import_entries t), 0);
  commit;
  set local search_path = pg_catalog, pg_temp;
  arranged := filestore.arrange_staged(import_id);
  commit;
  set local search_path = pg_catalog, pg_temp;

  next_number := 1;
  while next_number <= last_node loop
    perform filestore.take_nodes(import_id, next_number, next_number + batch - 1, arranged);
    commit;
    set local search_path = pg_catalog, pg_temp;
    perform filestore.fold_rollups(greatest(batch, 10000));
    commit;
    set local search_path = pg_catalog, pg_temp;
    next_number := next_number + batch;
  end loop;
  next_number := 1;
  while next_number <= last_entry loop
    perform filestore.take_entries(import_id, next_number, next_number + batch - 1);
    commit;
    set local search_path = pg_catalog, pg_temp;
    next_number := next_number + batch;
  end loop;

  update filestore.imports i
  set finished_at = date_trunc('milliseconds', clock_timestamp())
  where i.id = import_id
  returning * into import;
  perform filestore.drop_staged();
  commit;
  set local search_path = pg_catalog, pg_temp;
  raise notice 'import % into mount "%": % nodes, % versions and % journal entries; % rows refused',
    import_id, mount_key, import.nodes, import.versions, import.entries, import.refused;
end
$$;

comment on procedure filestore.import_nodes(text, regclass, regclass, regclass, boolean, integer) is
  'Imports nodes with their versions, and journal entries, from staging tables into a mount, with their ids and moments, in batches with a commit after each. It reads each table once, at the beginning. It can be killed at any moment: the same call continues, and takes what has changed since then. filestore.imports shows the progress. For the owner of the schema. FS409 when rows cannot be taken, unless take_rest is given: filestore.check_import lists them.';

revoke all on procedure filestore.import_nodes(text, regclass, regclass, regclass, boolean, integer) from public;
--! EndIncluded functions/import_nodes.sql
