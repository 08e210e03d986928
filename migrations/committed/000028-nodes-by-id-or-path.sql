--! Previous: sha1:dbdc44302d2fccc12e8334a0a4c426bd5438ad37
--! Hash: sha1:78f6de8cd0bf65c92eff95007c1a15769692f02b
--! Message: Nodes by id or path

--! Included functions/node_by_id.sql
create or replace function filestore.node_by_id(node_id bigint)
returns setof filestore.nodes
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select n.*
  from filestore.nodes n
  where n.id = node_by_id.node_id;
end
$$;

comment on function filestore.node_by_id(bigint) is
  'The node with an id, live or deleted, or no row.';

revoke all on function filestore.node_by_id(bigint) from public;
--! EndIncluded functions/node_by_id.sql

--! Included functions/nodes_by_id.sql
create or replace function filestore.nodes_by_id(node_ids bigint[])
returns setof filestore.nodes
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
-- A plan that was made while the tables were empty and analyzed would read the whole table for each row.
set enable_seqscan = off
as $$
begin
  perform filestore.check_count('ids', cardinality(node_ids));
  return query
  select n.*
  from (
    select u.id, min(u.place) as place
    from unnest(node_ids) with ordinality as u (id, place)
    group by u.id
  ) g
  -- "Offset 0" keeps lookups by id, also when statistics are stale.
  cross join lateral (
    select f.*
    from filestore.nodes f
    where f.id = g.id
    offset 0
  ) n
  order by g.place;
end
$$;

comment on function filestore.nodes_by_id(bigint[]) is
  'The nodes with the given ids, live or deleted, in the order of the ids. No row for an unknown id or null. FS422 when there are more than 10000 ids.';

revoke all on function filestore.nodes_by_id(bigint[]) from public;
--! EndIncluded functions/nodes_by_id.sql

--! Included functions/nodes_by_path.sql
create or replace function filestore.nodes_by_path(mount_key text, paths text[], with_deleted boolean default false)
returns setof filestore.nodes
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
-- A plan that was made while the tables were empty and analyzed would read the whole table for each row.
set enable_seqscan = off
as $$
declare
  mount_id constant bigint := filestore.find_mount(nodes_by_path.mount_key);
begin
  perform filestore.check_count('paths', cardinality(paths));
  return query
  select n.*
  from (
    select filestore.canonical_path(u.path) as path, min(u.place) as place
    from unnest(paths) with ordinality as u (path, place)
    group by 1
  ) g
  -- Of each half the first row, in the order of its index. "Limit" also keeps lookups by path when statistics are stale.
  cross join lateral (
    (
      select f.*
      from filestore.nodes f
      where f.backend_mount_id = mount_id
        and f.path = g.path
        and f.live
      limit 1
    )
    union all
    (
      select f.*
      from filestore.nodes f
      where f.backend_mount_id = mount_id
        and f.path = g.path
        and not f.live
        and with_deleted
      order by
        f.deleted_at desc,
        f.id desc
      limit 1
    )
    limit 1
  ) n
  order by g.place;
end
$$;

comment on function filestore.nodes_by_path(text, text[], boolean) is
  'The live nodes at the given paths of a mount, in the order of the paths, which need not be canonical. With with_deleted, also the tombstone that was deleted last where no live node is. No row for a path without a node, or null. FS404 when the mount does not exist, FS422 when a path is not valid, or there are more than 10000.';

revoke all on function filestore.nodes_by_path(text, text[], boolean) from public;
--! EndIncluded functions/nodes_by_path.sql

--! Included functions/node_versions.sql
create or replace function filestore.node_versions(
  node_id        bigint,
  before_version bigint default null,
  page_size      bigint default 100
)
returns setof filestore.snapshots
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.check_limit('page_size', page_size, 100000);
  return query
  select v.*
  from filestore.view_filestore_node_versions v
  where v.id = node_versions.node_id
    and v.version < coalesce(before_version, 2147483648)
  order by v.version desc
  limit page_size;
end
$$;

comment on function filestore.node_versions(bigint, bigint, bigint) is
  'A page of the versions of a node, the current one first, which has no valid_to. Versions that filestore.prune_history removed are left out. For the next page, give the last version of this one as before_version.';

revoke all on function filestore.node_versions(bigint, bigint, bigint) from public;
--! EndIncluded functions/node_versions.sql

--! Included functions/command_by_id.sql
create or replace function filestore.command_by_id(entry_id bigint)
returns setof filestore.journal_entries
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select j.*
  from filestore.journal_entries j
  where j.id = command_by_id.entry_id;
end
$$;

comment on function filestore.command_by_id(bigint) is
  'The journal entry with an id, or no row.';

revoke all on function filestore.command_by_id(bigint) from public;
--! EndIncluded functions/command_by_id.sql

--! Included functions/set_states.sql
create or replace function filestore.set_states(node_ids bigint[], state filestore.node_state)
returns setof filestore.nodes
language plpgsql
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
-- A plan that was made while the tables were empty and analyzed would read the whole table for each row.
set enable_seqscan = off
as $$
begin
  perform filestore.check_count('ids', cardinality(node_ids));
  if state is null or state = 'deleted' then
    raise exception 'the state of several nodes cannot be set to %', coalesce(state, 'null')
      using errcode    = 'FS422',
            constraint = 'nodes_state_change_check',
            hint       = 'Give active, inconsistent or missing. To delete nodes, call filestore.delete_node.';
  end if;

  perform filestore.lock_trees(array(
    select distinct m.backend_mount_id
    from unnest(node_ids) as g (id)
    -- "Offset 0" keeps lookups by id, also when statistics are stale.
    cross join lateral (
      select n.backend_mount_id
      from filestore.nodes n
      where n.id = g.id
        and n.live
      offset 0
    ) m
  ));

  return query
  with locked as (
    -- In order of id, so that concurrent calls do not deadlock.
    select n.id
    from filestore.nodes n
    where n.id = any (node_ids)
      and n.live
      and n.state <> set_states.state
    order by n.id
    for no key update
  ),
  changed as (
    update filestore.nodes n
    set state = set_states.state
    from locked l
    where n.id = l.id
    returning n.*
  )
  select c.*
  from changed c
  order by c.id;
end
$$;

comment on function filestore.set_states(bigint[], filestore.node_state) is
  'Sets the state of live nodes to active, inconsistent or missing, and returns those that changed, in order of id. Nodes that have the state, tombstones and unknown ids are left out. All or none: FS422 when a state cannot change like this, for more than 10000 ids, or nodes of more than 100 mounts.';

revoke all on function filestore.set_states(bigint[], filestore.node_state) from public;
--! EndIncluded functions/set_states.sql

--! Included functions/lock_tree.sql
create or replace function filestore.lock_tree(mount_id bigint, exclusive boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if mount_id is null or exclusive is null then
    raise exception '% of filestore.lock_tree is null', case when mount_id is null then 'mount_id' else 'exclusive' end
      using errcode    = 'FS422',
            constraint = 'tree_lock_check',
            hint       = 'Give the id of a mount, and whether the lock is exclusive.';
  elsif exclusive then
    perform pg_advisory_xact_lock(hashtextextended('filestore.tree', mount_id));
  else
    perform pg_advisory_xact_lock_shared(hashtextextended('filestore.tree', mount_id));
  end if;
end
$$;

comment on function filestore.lock_tree(bigint, boolean) is
  'Locks the shape of a mount''s tree until the transaction ends. Take it before any row of the mount, and never shared first and then exclusive. Exclusive: to move or rename directories, delete or restore trees, purge. Shared: to fold totals, move a file, restore one node, record first sightings or those of tombstones, replace a file by a directory, create in several existing directories, or write several existing rows, which must be done in order of id. No other operation needs it.';

revoke all on function filestore.lock_tree(bigint, boolean) from public;
--! EndIncluded functions/lock_tree.sql

--! Included functions/upsert_directory.sql
create or replace function filestore.upsert_directory(
  mount_key        text,
  path             text,
  metadata         jsonb       default null,
  last_modified_at timestamptz default null,
  replace_file     boolean     default false
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  node    filestore.nodes;
  changed filestore.nodes;
begin
  if replace_file then
    -- It locks the file before the directory above it, and a move of the directory locks them the other way round.
    perform filestore.lock_tree(filestore.find_mount(upsert_directory.mount_key), false);
    select *
    into node
    from filestore.node_by_path(upsert_directory.mount_key, upsert_directory.path);
    if node.kind = 'file' then
      perform filestore.delete_node(node.id, node.version);
    end if;
  end if;

  node := filestore.ensure_directory(upsert_directory.mount_key, upsert_directory.path);
  update filestore.nodes n
  set metadata         = coalesce(upsert_directory.metadata, n.metadata),
      last_modified_at = coalesce(upsert_directory.last_modified_at, n.last_modified_at),
      state            = 'active'
  where n.id = node.id
    and n.live
    and n.path = node.path
  returning * into changed;
  if changed.id is null then
    raise exception 'directory "%" on mount "%" was moved or deleted at the same time', node.path, upsert_directory.mount_key
      using errcode    = 'FS409',
            constraint = 'nodes_busy',
            hint       = 'Call filestore.upsert_directory again.';
  end if;
  return changed;
end
$$;

comment on function filestore.upsert_directory(text, text, jsonb, timestamptz, boolean) is
  'Creates the directory at a path of a mount, with the missing directories above it, or changes its metadata and last_modified_at, and returns it. What is not given stays. A missing or inconsistent directory becomes active. With replace_file, a file at the path is deleted, and the directory is a new node. FS404 when the mount does not exist, FS409 when a file is in the way, or the directory or file changes at the same time, FS422 when the path is not valid.';

revoke all on function filestore.upsert_directory(text, text, jsonb, timestamptz, boolean) from public;
--! EndIncluded functions/upsert_directory.sql

--! Included functions/describe_element.sql
create or replace function filestore.describe_element(place bigint, node jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return format('element %s%s', place, coalesce(
    ' ("' || regexp_replace(left(node ->> 'name', 40), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g') || '")',
    ' (node ' || (node ->> 'id') || ')'
  ));
end
$$;

comment on function filestore.describe_element(bigint, jsonb) is
  'Internal: How error messages name an element of a batch: by its position, from 1, and its name or id.';

revoke all on function filestore.describe_element(bigint, jsonb) from public;
--! EndIncluded functions/describe_element.sql

--! Included functions/refuse_element.sql
create or replace function filestore.refuse_element(creation text, nodes jsonb, parents jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  first   integer := 0;
  last    integer := jsonb_array_length(nodes) - 1;
  middle  integer;
  code    text;
  broken  text;
  message text;
  remedy  text;
begin
  -- A binary search: each half of the batch is created and rolled back, until one element is left. FS000 would not do
  -- here: as a condition, it means the whole class FS.
  while first < last loop
    middle := (first + last) / 2;
    begin
      execute creation using jsonb_path_query_array(nodes, '$[$first to $last]', jsonb_build_object('first', first, 'last', middle)), parents;
      raise sqlstate 'FS001';
    exception
      when sqlstate 'FS001' then
        first := middle + 1;
      when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
        last := middle;
    end;
  end loop;

  begin
    -- An element with an id changes a node, and needs no name.
    if (nodes -> first ? 'id') is not true then
      perform filestore.check_name(nodes -> first ->> 'name');
    end if;
    execute creation using jsonb_build_array(nodes -> first), parents;
  exception
    when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
      get stacked diagnostics code = returned_sqlstate, broken = constraint_name, message = message_text, remedy = pg_exception_hint;
      if broken = 'nodes_live_child_key' then
        perform filestore.refuse_taken_names(nodes);
      end if;
      -- The server gives no reason when a value does not fit its type, or is null.
      if code like '22%' or code = '23502' then
        code   := 'FS422';
        broken := 'nodes_batch_check';
      end if;
      -- Shortened, since the server quotes the whole value when it does not fit its type.
      raise exception '%: %', filestore.describe_element(first + 1, nodes -> first), left(message, 300)
        -- Code and reason are those of the error that the element caused.
        using errcode    = code,
              constraint = broken,
              schema     = 'filestore',
              hint       = coalesce(nullif(remedy, ''), 'Correct the element. Nothing was written.');
  end;
  -- The element alone is valid, so its name is that of an earlier element.
  if (nodes -> first ? 'id') is not true then
    perform filestore.refuse_taken_names(nodes);
  end if;
end
$$;

comment on function filestore.refuse_element(text, jsonb, jsonb) is
  'Internal: Finds the first element of a batch of filestore.create_nodes or filestore.update_nodes that cannot be written, and raises its error. Returns when all of them can be written.';

revoke all on function filestore.refuse_element(text, jsonb, jsonb) from public;
--! EndIncluded functions/refuse_element.sql

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

  select e.position, e.problem
  into fault
  from (
    select
      g.position,
      case
        when jsonb_typeof(g.value) <> 'object' then format('is of type %s, not an object', jsonb_typeof(g.value))
        when coalesce(g.value ->> 'id' ~ '^(0|[1-9][0-9]{0,17})$', false) is false then 'has no id, or one that is not an id'
        when coalesce(g.value ->> 'expected_version' ~ '^[0-9]{1,9}$', true) is false then 'has an expected_version that is not a version'
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

--! Included functions/update_nodes.sql
create or replace function filestore.update_nodes(changes jsonb)
returns setof filestore.nodes
language plpgsql
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
-- A plan that was made while the tables were empty and analyzed would read the whole table for each row.
set enable_seqscan = off
as $$
declare
  assignments text;
  statement   text;
  stale       record;
begin
  perform filestore.check_changes(changes);
  perform filestore.lock_trees(array(
    select distinct m.backend_mount_id
    from jsonb_array_elements(changes) as g (value)
    -- "Offset 0" keeps lookups by id, also when statistics are stale.
    cross join lateral (
      select n.backend_mount_id
      from filestore.nodes n
      where n.id = (g.value ->> 'id')::bigint
      offset 0
    ) m
  ));
  -- In order of id, so that concurrent calls do not deadlock.
  perform
  from filestore.nodes n
  where n.id in (select (g.value ->> 'id')::bigint from jsonb_array_elements(changes) as g (value))
  order by n.id
  for no key update;

  select (g.value ->> 'id')::bigint as id, (g.value ->> 'expected_version')::integer as version
  into stale
  from jsonb_array_elements(changes) with ordinality as g (value, position)
  left join lateral (
    select f.version
    from filestore.nodes f
    where f.id = (g.value ->> 'id')::bigint
      and f.live
    offset 0
  ) n on true
  where n.version is null
     or n.version <> (g.value ->> 'expected_version')::integer
  order by g.position
  limit 1;
  if found then
    perform filestore.refuse_stale(stale.id, stale.version);
  end if;

  select string_agg(
    format('%1$I = case when g.value ? %2$L then %3$s else n.%1$I end', c.name, c.name, case c.name
      when 'checksum' then 'filestore.canonical_checksum(r.checksum)'
      else format('r.%I', c.name)
    end),
    ', '
  )
  into assignments
  from unnest('{state}'::text[] || filestore.content_columns()) as c (name);
  statement := format(
    'with changed as (
       update filestore.nodes n
       set %s
       from jsonb_array_elements($1) as g (value)
       cross join lateral jsonb_populate_record(null::filestore.nodes, g.value - ''expected_version'') r
       where n.id = r.id
       returning n.*
     )
     select c.*
     from jsonb_array_elements($1) with ordinality as g (value, position)
     join changed c on c.id = (g.value ->> ''id'')::bigint
     order by g.position',
    assignments
  );
  begin
    return query execute statement using changes;
  exception
    when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
      perform filestore.refuse_element(statement, changes, null);
      raise;
  end;
end
$$;

comment on function filestore.update_nodes(jsonb) is
  'Changes up to 10000 live nodes of at most 100 mounts, all or none, and returns them in the order given. An object of the JSON array has id, and optionally expected_version, state and any content column of nodes; a column that it leaves out stays. FS404 when a node does not exist or is deleted, FS409 when one is not at its expected_version, FS422 or 23514 when an element is not well formed; the message names the position, from 1.';

revoke all on function filestore.update_nodes(jsonb) from public;
--! EndIncluded functions/update_nodes.sql
