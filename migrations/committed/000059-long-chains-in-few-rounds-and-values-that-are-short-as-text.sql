--! Previous: sha1:d480604dc6c3adaa0f49ab1164821c62170c139f
--! Hash: sha1:7c9c427bd0fd7b829abfa001ab3a5be377d1d1f7
--! Message: Long chains in few rounds, and values that are short as text

--! Included functions/climb_far.sql
create or replace function filestore.climb_far(
  inout directory_ids bigint[],
  inout sizes         numeric[],
  inout files         numeric[],
  inout dirs          numeric[],
  inout children      numeric[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set jit = off
-- A generic plan expects short arrays, and compares every pair.
set plan_cache_mode = force_custom_plan
as $$
declare
  -- For each directory from the given ones up to their roots: what the directories below it add up to, as far as they have
  -- been counted, and the first directory above it for which it does not count yet. A root has none.
  ids           bigint[];
  ancestors     bigint[];
  size_sums     numeric[];
  file_sums     numeric[];
  dir_sums      numeric[];
begin
  with recursive above (id, parent_id) as (
    select n.id, n.parent_id
    from filestore.nodes n
    where n.id = any (directory_ids)
    union
    select n.id, n.parent_id
    from above a
    cross join lateral (
      select p.id, p.parent_id
      from filestore.nodes p
      where p.id = a.parent_id
      offset 0
    ) n
  )
  select
    array_agg(a.id),
    array_agg(a.parent_id),
    array_agg(coalesce(g.size_delta, 0)),
    array_agg(coalesce(g.file_delta, 0)),
    array_agg(coalesce(g.dir_delta, 0))
  into ids, ancestors, size_sums, file_sums, dir_sums
  from above a
  left join unnest(directory_ids, sizes, files, dirs) as g (id, size_delta, file_delta, dir_delta) on g.id = a.id;

  -- Each round doubles the levels that are counted, so deep chains take few rounds. In a ring, it would go on forever.
  for round in 1 .. 30 loop
    exit when array_remove(ancestors, null) = '{}';
    with counted (id, ancestor, size_sum, file_sum, dir_sum) as (
      select *
      from unnest(ids, ancestors, size_sums, file_sums, dir_sums)
    )
    select
      array_agg(c.id),
      array_agg(a.ancestor),
      array_agg(c.size_sum + coalesce(b.size_sum, 0)),
      array_agg(c.file_sum + coalesce(b.file_sum, 0)),
      array_agg(c.dir_sum + coalesce(b.dir_sum, 0))
    into ids, ancestors, size_sums, file_sums, dir_sums
    from counted c
    left join counted a on a.id = c.ancestor
    left join (
      select l.ancestor, sum(l.size_sum) as size_sum, sum(l.file_sum) as file_sum, sum(l.dir_sum) as dir_sum
      from counted l
      where l.ancestor is not null
      group by l.ancestor
    ) b on b.ancestor = c.id;
  end loop;

  select
    array_agg(c.id),
    array_agg(case when c.ancestor is null then c.size_sum else g.size_delta end),
    array_agg(case when c.ancestor is null then c.file_sum else g.file_delta end),
    array_agg(case when c.ancestor is null then c.dir_sum else g.dir_delta end),
    array_agg(coalesce(g.child_delta, 0))
  into directory_ids, sizes, files, dirs, children
  from unnest(ids, ancestors, size_sums, file_sums, dir_sums) as c (id, ancestor, size_sum, file_sum, dir_sum)
  left join unnest(directory_ids, sizes, files, dirs, children) as g (id, size_delta, file_delta, dir_delta, child_delta) on g.id = c.id
  -- One that is below itself climbs no further.
  where c.ancestor is null
     or g.id is not null;
end
$$;

comment on function filestore.climb_far(bigint[], numeric[], numeric[], numeric[], numeric[]) is
  'Internal: The same as filestore.climb_totals, for directories with many above them.';

revoke all on function filestore.climb_far(bigint[], numeric[], numeric[], numeric[], numeric[]) from public;
--! EndIncluded functions/climb_far.sql

--! Included functions/climb_totals.sql
create or replace function filestore.climb_totals(
  inout directory_ids bigint[],
  inout sizes         numeric[],
  inout files         numeric[],
  inout dirs          numeric[],
  inout children      numeric[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  is_deep boolean;
  reached record;
begin
  is_deep := (
    select max(n.depth)
    from unnest(directory_ids) as d (id)
    -- "Offset 0" keeps this a lookup by id, also when statistics are stale.
    cross join lateral (
      select f.depth
      from filestore.nodes f
      where f.id = d.id
      offset 0
    ) n
  ) > 32;

  if is_deep is not true then
    with recursive climbing (step, id, size_delta, file_delta, dir_delta, child_delta) as (
      select 0, e.*
      from unnest(directory_ids, sizes, files, dirs, children) e
      union all
      -- All that reach a directory at once climb on as one row. A recursive query allows no aggregate here, but a window.
      -- child_count concerns the directory itself, not those above it.
      select m.step + 1, m.parent_id, m.size_delta, m.file_delta, m.dir_delta, 0
      from (
        select
          c.step,
          p.parent_id,
          sum(c.size_delta) over same as size_delta,
          sum(c.file_delta) over same as file_delta,
          sum(c.dir_delta) over same  as dir_delta,
          row_number() over same      as place
        from climbing c
        cross join lateral (
          select n.parent_id
          from filestore.nodes n
          where n.id = c.id
          offset 0
        ) p
        where p.parent_id is not null
          and c.step < 33
        window same as (partition by p.parent_id)
      ) m
      where m.place = 1
    )
    select
      max(t.last_step)         as last_step,
      array_agg(t.id)          as ids,
      array_agg(t.size_delta)  as sizes,
      array_agg(t.file_delta)  as files,
      array_agg(t.dir_delta)   as dirs,
      array_agg(t.child_delta) as children
    into reached
    from (
      select
        max(c.step)        as last_step,
        c.id,
        sum(c.size_delta)  as size_delta,
        sum(c.file_delta)  as file_delta,
        sum(c.dir_delta)   as dir_delta,
        sum(c.child_delta) as child_delta
      from climbing c
      group by c.id
    ) t;
    -- A directory that was deleted before one above it moved may be deeper than its own depth says.
    is_deep := reached.last_step > 32;
  end if;

  if is_deep then
    select *
    into directory_ids, sizes, files, dirs, children
    from filestore.climb_far(directory_ids, sizes, files, dirs, children);
  else
    directory_ids := reached.ids;
    sizes := reached.sizes;
    files := reached.files;
    dirs := reached.dirs;
    children := reached.children;
  end if;
end
$$;

comment on function filestore.climb_totals(bigint[], numeric[], numeric[], numeric[], numeric[]) is
  'Internal: Adds changes of totals, one entry for each directory, to every directory above them, and returns one entry for each directory that they concern. Null when there are none.';

revoke all on function filestore.climb_totals(bigint[], numeric[], numeric[], numeric[], numeric[]) from public;
--! EndIncluded functions/climb_totals.sql

--! Included functions/pending_totals.sql
create or replace function filestore.pending_totals(mount_ids bigint[])
returns table (node_id bigint, size_delta numeric, file_delta numeric, dir_delta numeric, child_delta numeric)
language plpgsql
stable
rows 1000
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  with recursive climbing (step, id, size_delta, file_delta, dir_delta, child_delta) as (
    select 0, d.directory_id, sum(d.size_delta), sum(d.file_delta), sum(d.dir_delta), sum(d.child_delta)
    from filestore.rollup_deltas d
    where mount_ids is null
       or d.backend_mount_id = any (mount_ids)
    group by d.directory_id
    union all
    -- All that reach a directory at once climb on as one row. A recursive query allows no aggregate here, but a window.
    -- child_count concerns the directory itself, not those above it.
    select m.step + 1, m.parent_id, m.size_delta, m.file_delta, m.dir_delta, 0
    from (
      select
        c.step,
        p.parent_id,
        sum(c.size_delta) over same as size_delta,
        sum(c.file_delta) over same as file_delta,
        sum(c.dir_delta) over same  as dir_delta,
        row_number() over same      as place
      from climbing c
      -- "Offset 0" keeps this a lookup by id, also when statistics are stale.
      cross join lateral (
        select n.parent_id
        from filestore.nodes n
        where n.id = c.id
        offset 0
      ) p
      where p.parent_id is not null
        and c.step < 32
      window same as (partition by p.parent_id)
    ) m
    where m.place = 1
  ),
  last (step) as (
    select max(c.step)
    from climbing c
  )
  select c.id, sum(c.size_delta), sum(c.file_delta), sum(c.dir_delta), sum(c.child_delta)
  from climbing c
  where (select l.step from last l) < 32
  group by c.id
  union all
  -- In a deep tree, each of them would climb past the same directories.
  select t.*
  from (
    select
      array_agg(c.id)          as ids,
      array_agg(c.size_delta)  as sizes,
      array_agg(c.file_delta)  as files,
      array_agg(c.dir_delta)   as dirs,
      array_agg(c.child_delta) as children
    from climbing c
    where c.step = 0
      and (select l.step from last l) = 32
    having count(*) > 0
  ) e
  cross join lateral filestore.climb_far(e.ids, e.sizes, e.files, e.dirs, e.children) c
  cross join lateral unnest(c.directory_ids, c.sizes, c.files, c.dirs, c.children) t;
end
$$;

comment on function filestore.pending_totals(bigint[]) is
  'Internal: What the pending deltas of the mounts, or of all when it is null, add to the totals of each directory that they concern.';

revoke all on function filestore.pending_totals(bigint[]) from public;
--! EndIncluded functions/pending_totals.sql

drop function if exists filestore.real_depths(bigint[]);

--! Included functions/has_long_values.sql
create or replace function filestore.has_long_values(fields jsonb)
returns boolean
language sql
immutable
parallel safe
-- Without "set" and with "return", the server inlines it. A condition about a value of another type is not met.
return jsonb_path_exists(
  fields,
  'strict $.* ? (@.type() != "string" && @.type() != "null" && (
    @.type() == "array" || @.type() == "object"
    || !(@ == 0 || @ >= 1e-30 && @ < 1e30 || @ <= -1e-30 && @ > -1e30)
  ))'
);

comment on function filestore.has_long_values(jsonb) is
  'Internal: Whether a field of an object is an array, an object, or a number with more than 30 digits, whose text can be thousands of times as long as the value: that of 1e131071 has 131072 bytes.';

revoke all on function filestore.has_long_values(jsonb) from public;
--! EndIncluded functions/has_long_values.sql

--! Included functions/refuse_long_values.sql
create or replace function filestore.refuse_long_values(elements jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  given record;
  field record;
begin
  select e.position, e.value - 'metadata' as fields
  into given
  from jsonb_array_elements(elements) with ordinality as e (value, position)
  where case jsonb_typeof(e.value) when 'object' then filestore.has_long_values(e.value - 'metadata') end
  order by e.position
  limit 1;
  if not found then
    return;
  end if;

  select f.key, jsonb_typeof(f.value) as type
  into field
  from jsonb_each(given.fields) as f
  where filestore.has_long_values(jsonb_build_object(f.key, f.value))
  order by f.key
  limit 1;
  raise exception 'element % has the field "%" with %', given.position, left(field.key, 40),
    case field.type when 'number' then 'a number of more than 30 digits' else 'a value of type ' || field.type end
    using errcode    = 'FS422',
          constraint = 'nodes_batch_check',
          hint       = 'Give the values of columns as strings or numbers. Only metadata is an object.';
end
$$;

comment on function filestore.refuse_long_values(jsonb) is
  'Internal: Raises an error if a field of an element, other than metadata, has a value that filestore.has_long_values finds.';

revoke all on function filestore.refuse_long_values(jsonb) from public;
--! EndIncluded functions/refuse_long_values.sql

--! Included functions/check_batch.sql
create or replace function filestore.check_batch(nodes jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  fields text[] := '{parent_id,name,kind,state}'::text[] || filestore.content_columns();
  given  record;
  field  text;
begin
  if jsonb_typeof(nodes) is distinct from 'array' then
    raise exception 'the batch is of type %, not an array of objects', coalesce(jsonb_typeof(nodes), 'null')
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = 'Give a JSON array with an object for each node, such as [{"parent_id": 1, "name": "a"}].';
  elsif jsonb_array_length(nodes) > 10000 then
    raise exception 'the batch has % nodes, which are too many', jsonb_array_length(nodes)
      using errcode    = 'FS422',
            constraint = 'limit_check',
            hint       = 'One call takes at most 10000 nodes: call it several times.';
  end if;
  perform filestore.refuse_long_values(nodes);

  select e.position, e.value
  into given
  from jsonb_array_elements(nodes) with ordinality as e (value, position)
  where case jsonb_typeof(e.value)
          when 'object' then
            e.value - fields <> '{}'
            or not coalesce(e.value ->> 'parent_id' ~ '^[0-9]{1,18}$', true)
            -- Any other type would be stored as its JSON text.
            or jsonb_typeof(e.value -> 'name') not in ('string', 'null')
          else true
        end
  order by e.position
  limit 1;
  if not found then
    return;
  end if;

  if jsonb_typeof(given.value) <> 'object' then
    raise exception 'element % is of type %, not an object', given.position, jsonb_typeof(given.value)
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = 'Give an object for each node, with at least parent_id and name.';
  end if;

  select k.name
  into field
  from jsonb_object_keys(given.value - fields) as k (name)
  order by k.name
  limit 1;
  if not found and jsonb_typeof(given.value -> 'name') not in ('string', 'null') then
    raise exception 'the name of element % is of type %, not a string', given.position, jsonb_typeof(given.value -> 'name')
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = 'Give the name as a JSON string.';
  elsif not found then
    raise exception '% has a parent_id that is not an id', filestore.describe_element(given.position, given.value)
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = 'Give the id of a directory, as a number or a string of digits.';
  end if;
  raise exception '% has the field "%", which %', filestore.describe_element(given.position, given.value), left(field, 40),
    case
      when exists (select from pg_attribute a where a.attrelid = 'filestore.nodes'::regclass and a.attnum > 0 and a.attname = field)
        then 'the database sets'
      else 'a node does not have'
    end
    using errcode    = 'FS422',
          constraint = 'nodes_batch_check',
          hint       = format('Give only these fields: %s.', array_to_string(fields, ', '));
end
$$;

comment on function filestore.check_batch(jsonb) is
  'Internal: Raises FS422 when filestore.create_nodes cannot read a batch, and names the position.';

revoke all on function filestore.check_batch(jsonb) from public;
--! EndIncluded functions/check_batch.sql

--! Included functions/check_changes.sql
create or replace function filestore.check_changes(changes jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  fields text[] := '{id,expected_version,state}'::text[] || filestore.content_columns();
  fault  record;
begin
  if jsonb_typeof(changes) is distinct from 'array' then
    raise exception 'the changes are of type %, not an array of objects', coalesce(jsonb_typeof(changes), 'null')
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = 'Give a JSON array with an object for each node, such as [{"id": 1, "size_bytes": 7}].';
  end if;
  perform filestore.check_count('nodes', jsonb_array_length(changes));
  perform filestore.refuse_long_values(changes);

  select e.position, e.problem
  into fault
  from (
    select
      g.position,
      case
        when jsonb_typeof(g.value) <> 'object' then format('is of type %s, not an object', jsonb_typeof(g.value))
        when coalesce(g.value ->> 'id' ~ '^(0|[1-9][0-9]{0,17})$', false) is false then 'has no id, or one that is not an id'
        when coalesce(g.value ->> 'expected_version' ~ '^([0-9]{1,9}|1[0-9]{9}|20[0-9]{8})$', true) is false then 'has an expected_version that is not a version'
        when g.value - fields <> '{}' then format('has the field "%s", which cannot be changed', left((
          select min(k.name)
          from jsonb_object_keys(g.value - fields) as k (name)
        ), 40))
        when g.value ->> 'state' = 'deleted' then 'would be deleted, by its state'
        when lag(g.value ->> 'id') over (order by (case jsonb_typeof(g.value) when 'object' then g.value ->> 'id' end), g.position) = g.value ->> 'id' then 'has the id of an earlier element'
      end as problem
    from jsonb_array_elements(changes) with ordinality as g (value, position)
  ) e
  where e.problem is not null
  order by e.position
  limit 1;
  if found then
    raise exception 'element % %', fault.position, fault.problem
      using errcode    = 'FS422',
            constraint = 'nodes_batch_check',
            hint       = format('Give each node once, by its id, and only these fields: %s. To delete nodes, call filestore.delete_node.', array_to_string(fields, ', '));
  end if;
end
$$;

comment on function filestore.check_changes(jsonb) is
  'Internal: Raises FS422 when filestore.update_nodes cannot read its changes, and names the position.';

revoke all on function filestore.check_changes(jsonb) from public;
--! EndIncluded functions/check_changes.sql

--! Included functions/mount_fields.sql
create or replace function filestore.mount_fields(settings jsonb, privilege text)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- The columns that services may write, so that new ones are included.
  allowed constant text[] := array(
    select r.column_name
    from filestore.access_rights('service') r
    where r.kind = 'column'
      and r.object = format('filestore.%I', 'backend_mounts')
      and r.privilege = mount_fields.privilege
  );
  field   text;
begin
  if jsonb_typeof(settings) is distinct from 'object' then
    raise exception 'the settings of the mount are of type %, not an object', coalesce(jsonb_typeof(settings), 'null')
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = 'Give an object with columns of filestore.backend_mounts, such as {"state": "offline"}.';
  end if;
  select k.name
  into field
  from jsonb_object_keys(settings - allowed) as k (name)
  order by k.name
  limit 1;
  if found then
    raise exception 'the settings have the field "%", which %', left(field, 40),
      case
        when exists (select from pg_attribute a where a.attrelid = 'filestore.backend_mounts'::regclass and a.attnum > 0 and a.attname = field)
          then 'is fixed or set by the database'
        else 'a mount does not have'
      end
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = format('Give only these fields: %s.', array_to_string(allowed, ', '));
  end if;

  select k.key
  into field
  from jsonb_each(settings) as k
  join pg_attribute a on a.attrelid = 'filestore.backend_mounts'::regclass and a.attname = k.key
  where a.atttypid <> 'jsonb'::regtype
    and filestore.has_long_values(jsonb_build_object(k.key, k.value))
  order by k.key
  limit 1;
  if found then
    raise exception 'the settings have the field "%" with %', field,
      case jsonb_typeof(settings -> field) when 'number' then 'a number of more than 30 digits' else 'a value of type ' || jsonb_typeof(settings -> field) end
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = 'Give it as a string or a number.';
  end if;
  return array(
    select k.name
    from jsonb_object_keys(settings) as k (name)
    order by k.name
  );
end
$$;

comment on function filestore.mount_fields(jsonb, text) is
  'Internal: The columns of the settings of a mount that are inserted or updated. FS422 when these are not an object of columns that a service may write.';

revoke all on function filestore.mount_fields(jsonb, text) from public;
--! EndIncluded functions/mount_fields.sql

--! Included functions/access_rights.sql
create or replace function filestore.access_rights(level text)
returns table (kind text, object text, column_name text, privilege text)
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
  readers   constant text[] := '{
    access_rights,
    canonical_checksum,
    canonical_path,
    check_access,
    check_count,
    check_limit,
    check_list,
    check_name,
    climb_far,
    command_by_id,
    content_columns,
    count_nodes,
    database_number,
    directory_totals,
    find_by_checksum,
    find_mount,
    guard_statements,
    list_commands,
    list_directory,
    list_mounts,
    list_nodes,
    list_totals,
    list_unseen,
    listed_directory,
    location_uri,
    mount_by_id,
    mount_by_key,
    move_progress,
    move_slot,
    move_steps,
    move_subscription,
    node_at,
    node_by_id,
    node_by_path,
    node_commands,
    node_location,
    node_versions,
    nodes_by_id,
    nodes_by_path,
    pending_totals,
    percent_encode,
    refuse_pruned,
    refuse_range,
    search_nodes,
    server_timeline,
    subscription_errors,
    tree_at
  }';
  services  constant text[] := '{
    apply_scan,
    begin_command,
    begin_scan,
    begin_work,
    cancel_scan,
    check_batch,
    check_changes,
    check_retention,
    child_path,
    copy_nodes,
    copy_tree,
    create_mount,
    create_node,
    create_nodes,
    delete_batch,
    delete_node,
    describe_element,
    ensure_child,
    ensure_directory,
    expire_commands,
    expire_scans,
    finish_command,
    fold_rollups,
    freeze_tree,
    has_long_values,
    holds_mount,
    is_small_json,
    is_sound,
    is_sound_entry,
    lock_command,
    lock_parents,
    lock_tree,
    lock_trees,
    merge_metadata,
    merge_nodes,
    mount_fields,
    mount_place,
    move_node,
    moving_mounts,
    record_entries,
    record_sightings,
    record_write_sighting,
    refuse_element,
    refuse_entry,
    refuse_long_copy,
    refuse_long_values,
    refuse_stale,
    refuse_taken_name,
    refuse_taken_names,
    refuse_unsound,
    require_first_write,
    require_read_committed,
    restore_node,
    restore_tree,
    revert_node,
    scan_differences,
    set_states,
    start_command,
    sync_nodes,
    update_mount,
    update_nodes,
    upsert_directory,
    upsert_file,
    writable_mount
  }';
  operators constant text[] := '{
    audit_rollups,
    audit_totals,
    check_integrity,
    check_sequences,
    climb_totals,
    delete_mount,
    find_secret,
    holds_secret,
    names_secret,
    prune_history,
    prune_journal,
    purge_deleted,
    recount_rollups
  }';
begin
  if level is null or level not in ('reader', 'service', 'operator') then
    raise exception 'there is no level "%"', coalesce(level, 'null')
      using errcode    = 'FS422',
            constraint = 'access_level_check',
            hint       = 'The levels are reader, service and operator.';
  end if;

  return query
  select 'schema', 'filestore', null::text, 'USAGE'
  union all
  select 'table', format('filestore.%I', c.relname), null, 'SELECT'
  from pg_class c
  where c.relnamespace = 'filestore'::regnamespace
    and c.relkind in ('r', 'p', 'v', 'm')
  union all
  select 'function', p.oid::regprocedure::text, null, 'EXECUTE'
  from pg_proc p
  where p.pronamespace = 'filestore'::regnamespace
    and p.proname = any (
      readers
      || case when level in ('service', 'operator') then services end
      || case when level = 'operator' then operators end
    );

  -- Every column that the database does not set itself. No level may update, delete or truncate a whole table, because
  -- that right also permits "lock table ... in access exclusive mode".
  return query
  select 'column', format('filestore.%I', own.table_name), a.attname::text, own.privilege
  from (values
    ('backend_mounts', 'INSERT', '{id,erasing_since,held_by,history_horizon,version,created_at,updated_at}'::text[]),
    ('backend_mounts', 'UPDATE', '{id,backend_kind,erasing_since,held_by,history_horizon,version,created_at,updated_at}'),
    ('nodes', 'INSERT', '{id,root_of_mount_id,parent_live,path,depth,directory_path,live,version,created_at,updated_at,deleted_at}'),
    ('nodes', 'UPDATE', '{id,backend_mount_id,root_of_mount_id,parent_path,parent_live,path,depth,directory_path,kind,live,version,created_at,updated_at}'),
    ('journal_entries', 'INSERT', '{id,result,error,started_at,completed_at,duration_ms,created_at}'),
    ('journal_entries', 'UPDATE', '{id,backend_mount_id,command,executor_kind,principal,request_id,correlation_id,idempotency_key,parameters,'
      'started_at,completed_at,duration_ms,created_at}')
  ) as own (table_name, privilege, columns)
  join pg_attribute a on a.attrelid = format('filestore.%I', own.table_name)::regclass
  where level in ('service', 'operator')
    and a.attnum > 0
    and not a.attisdropped
    and a.attname <> all (own.columns);

  if level = 'operator' then
    return query
    values
      ('column', format('filestore.%I', 'rollups'), 'consistency_state', 'UPDATE');
  end if;
end
$$;

comment on function filestore.access_rights(text) is
  'The rights that a level needs, read from the catalog, so that new tables and columns are included. reader: reads everything. service: also writes mounts, nodes, sightings and the journal, through the guards. operator: a service that may also purge, prune, recount and delete mounts.';

revoke all on function filestore.access_rights(text) from public;
--! EndIncluded functions/access_rights.sql
