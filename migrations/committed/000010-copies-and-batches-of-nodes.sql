--! Previous: sha1:13a3faed47b956090c2dd91e1162ffda260ebb86
--! Hash: sha1:d0014673cebc4c43621b3f7ef6a4308df40380dd
--! Message: Copies and batches of nodes

--! Included functions/refuse_long_copy.sql
create or replace function filestore.refuse_long_copy(source filestore.nodes, new_parent_id bigint, new_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  new_path text := (
    select filestore.child_path(p.path, new_name)
    from filestore.nodes p
    where p.id = new_parent_id
  );
  node record;
begin
  select n.id, n.path, c.bytes
  into node
  from filestore.nodes n
  -- Below the root of a mount, paths begin without a slash.
  cross join lateral (
    select octet_length(new_path) + octet_length(n.path) - octet_length(source.path) + (source.path = '' and n.path <> '')::integer as bytes
  ) c
  where n.backend_mount_id = source.backend_mount_id
    and n.live
    and (n.id = source.id or source.path = '' or (n.path >= source.path || '/' and n.path < source.path || '0'))
    and c.bytes > 2600
  order by n.path
  limit 1;

  if found then
    raise exception 'the copy of node % ("%") would have a path of % bytes', node.id, left(node.path, 200), node.bytes
      using errcode    = 'FS422',
            constraint = 'nodes_path_length_check',
            hint       = 'Copy into a directory with a shorter path, or give a shorter name: a path has at most 2600 bytes.';
  end if;
end
$$;

comment on function filestore.refuse_long_copy(filestore.nodes, bigint, text) is
  'Internal: Raises FS422 for the first node of a tree whose path would be too long in the copy.';

revoke all on function filestore.refuse_long_copy(filestore.nodes, bigint, text) from public;
--! EndIncluded functions/refuse_long_copy.sql
--! Included functions/copy_nodes.sql
create or replace function filestore.copy_nodes(
  node_id          bigint,
  new_parent_id    bigint,
  new_name         text,
  expected_version integer
)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join each node with its parent by a nested loop.
set enable_nestloop = off
as $$
declare
  ids       constant regclass := pg_get_serial_sequence('filestore.nodes', 'id');
  copy_id   constant bigint   := nextval(ids);
  columns   text;
  mount_id  bigint;
  directory text;
  source    record;
  copied    bigint;
begin
  select n.backend_mount_id
  into mount_id
  from filestore.nodes n
  where n.id = new_parent_id;

  -- Locks the new parent, so that its path and the paths of the directories above it cannot change. The source may be
  -- one of those directories, so its path is read after the lock.
  directory := filestore.find_parent(
    mount_id,
    new_parent_id,
    coalesce(new_name, (select n.name from filestore.nodes n where n.id = copy_nodes.node_id))
  );
  select n.backend_mount_id, n.parent_id, n.name, n.path
  into source
  from filestore.nodes n
  where n.id = copy_nodes.node_id;
  if source.backend_mount_id = mount_id
     and (source.path in ('', directory) or starts_with(directory, source.path || '/')) then
    raise exception 'directory "%" cannot be copied into itself ("%")', source.path, directory
      using errcode    = 'FS422',
            constraint = 'nodes_cycle_check',
            hint       = 'Choose a parent outside of the directory that is copied.';
  end if;

  if exists (
    select
    from filestore.nodes n
    where n.parent_id = new_parent_id
      and n.name = coalesce(new_name, source.name)
      and n.parent_live
  ) then
    perform filestore.refuse_taken_name(new_parent_id, coalesce(new_name, source.name));
  end if;

  select string_agg(format('n.%I', c.name), ', ' order by c.name)
  into columns
  from unnest(filestore.content_columns()) as c (name);

  -- One statement reads one snapshot, so the copy is the tree of one moment, also when the source changes at the same
  -- time. The paths of parents are given, so that the trigger need not look them up.
  execute format(
    'with top as materialized (
       select
         n.backend_mount_id,
         n.path,
         coalesce($5, n.name) as new_name,
         coalesce(nullif($4, '''') || ''/'', '''') || coalesce($5, n.name) as new_path
       from filestore.nodes n
       where n.id = $1
         and n.live
         and n.version = coalesce($6, n.version)
     ),
     source as materialized (
       select
         case n.id when $1 then $2 else nextval($7) end as new_id,
         n.id, n.parent_id, n.parent_path, n.name, n.kind, n.state, %1$s
       from filestore.nodes n
       where n.backend_mount_id = (select t.backend_mount_id from top t)
         and n.live
         %2$s
     )
     insert into filestore.nodes (id, backend_mount_id, parent_id, parent_path, name, kind, state, %3$s)
     overriding system value
     select
       n.new_id,
       $8,
       case n.id when $1 then $3 else p.new_id end,
       case n.id
         when $1 then $4
         else (select t.new_path from top t)
           || coalesce(''/'' || nullif(ltrim(substr(n.parent_path, (select length(t.path) from top t) + 1), ''/''), ''''), '''')
       end,
       case n.id when $1 then (select t.new_name from top t) else n.name end,
       n.kind,
       n.state,
       %1$s
     from source n
     left join source p on p.id = n.parent_id and p.kind = ''directory''',
    columns,
    -- Without a condition on the path for the root: every node of the mount is below it.
    case
      when source.path <> '' then
        'and n.path >= (select t.path from top t)
         and n.path < (select t.path || ''0'' from top t)
         and (n.id = $1 or n.path >= (select t.path || ''/'' from top t))'
    end,
    replace(columns, 'n.', '')
  )
  using node_id, copy_id, new_parent_id, directory, new_name, expected_version, ids, mount_id;
  get diagnostics copied = row_count;
  return case when copied > 0 then copy_id end;
end
$$;

comment on function filestore.copy_nodes(bigint, bigint, text, integer) is
  'Internal: Inserts the rows of filestore.copy_tree. It runs as the owner, since services have no right on the sequence of ids. Returns the id of the copy; null when there is no live node at the expected version.';

revoke all on function filestore.copy_nodes(bigint, bigint, text, integer) from public;
--! EndIncluded functions/copy_nodes.sql
--! Included functions/copy_tree.sql
create or replace function filestore.copy_tree(
  node_id          bigint,
  new_parent_id    bigint,
  new_name         text    default null,
  expected_version integer default null
)
returns filestore.nodes
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  broken  text;
  copy_id bigint;
  source  filestore.nodes;
  node    filestore.nodes;
begin
  if new_name is not null then
    perform filestore.check_name(new_name);
  end if;
  select *
  into source
  from filestore.nodes n
  where n.id = copy_tree.node_id
    and n.live
    and n.version = coalesce(expected_version, n.version);
  if source.id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  elsif source.parent_id is null and new_name is null then
    raise exception 'node % is the root of a mount: its copy needs a name', node_id
      using errcode    = 'FS422',
            constraint = 'nodes_root_check',
            hint       = 'Give new_name, and a directory of another mount.';
  end if;

  begin
    copy_id := filestore.copy_nodes(node_id, new_parent_id, new_name, expected_version);
  exception
    when unique_violation or check_violation then
      get stacked diagnostics broken = constraint_name;
      if broken = 'nodes_live_child_key' then
        perform filestore.refuse_taken_name(new_parent_id, coalesce(new_name, source.name));
      elsif broken = 'nodes_path_length_check' then
        perform filestore.refuse_long_copy(source, new_parent_id, coalesce(new_name, source.name));
      end if;
      raise;
  end;
  if copy_id is null then
    perform filestore.refuse_stale(node_id, expected_version);
  end if;

  select *
  into node
  from filestore.nodes n
  where n.id = copy_id;
  return node;
end
$$;

comment on function filestore.copy_tree(bigint, bigint, text, integer) is
  'Copies a node with everything live below it into another directory, of the same or another mount, and returns the copy; new_name null keeps the name. The copies have new ids and version 1, and the content and state of the originals; history and sightings are not copied. FS404 when the node or the parent does not exist or is deleted, FS409 when the name is taken or the node is not at expected_version (null: any), FS422 when a directory would be copied into itself, a path would be too long, or the name is not valid.';

revoke all on function filestore.copy_tree(bigint, bigint, text, integer) from public;
--! EndIncluded functions/copy_tree.sql
--! Included functions/describe_element.sql
create or replace function filestore.describe_element(place bigint, node jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return format('element %s%s', place, ' ("' || regexp_replace(left(node ->> 'name', 40), E'[\\u0001-\\u001f\\u007f-\\u009f]', '?', 'g') || '")');
end
$$;

comment on function filestore.describe_element(bigint, jsonb) is
  'Internal: How error messages name an element of a batch of filestore.create_nodes: by its position, from 1, and its name.';

revoke all on function filestore.describe_element(bigint, jsonb) from public;
--! EndIncluded functions/describe_element.sql
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
--! Included functions/lock_parents.sql
create or replace function filestore.lock_parents(nodes jsonb)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  ids      bigint[] := array(
    select distinct (e.value ->> 'parent_id')::bigint
    from jsonb_array_elements(nodes) as e (value)
  );
  parents  jsonb;
  usable   bigint[];
  unusable bigint;
  faults   text;
begin
  if cardinality(ids) > 1 then
    perform filestore.lock_trees(array(
      select distinct n.backend_mount_id
      from filestore.nodes n
      where n.id = any (ids)
    ));
  end if;

  -- A separate statement after the locks, so that it sees the new path of a parent that moved.
  select
    coalesce(jsonb_agg(jsonb_build_object('id', p.id, 'backend_mount_id', p.backend_mount_id, 'path', p.directory_path)), '[]'),
    coalesce(array_agg(p.id), '{}')
  into parents, usable
  from (
    select n.id, n.backend_mount_id, n.directory_path, n.live
    from filestore.nodes n
    where n.id = any (ids)
    order by n.id
    for key share
  ) p
  where p.live
    and p.directory_path is not null;

  if cardinality(usable) = cardinality(ids) then
    return parents;
  end if;

  select
    count(*),
    string_agg(
      case
        when f.parent_id is null
          then format('%s has no parent_id', filestore.describe_element(f.position, f.element))
        else format(
          'parent %s of %s %s',
          f.parent_id,
          filestore.describe_element(f.position, f.element),
          coalesce(
            (select case when n.directory_path is null then 'is a file' else 'is deleted' end from filestore.nodes n where n.id = f.parent_id),
            'does not exist'
          )
        )
      end,
      ', ' order by f.position
    ) filter (where f.number <= 10)
  into unusable, faults
  from (
    select g.parent_id, g.position, g.element, row_number() over (order by g.position) as number
    from (
      select distinct on (o.parent_id) o.parent_id, o.position, o.element
      from (
        select (e.value ->> 'parent_id')::bigint as parent_id, e.position, e.value as element
        from jsonb_array_elements(nodes) with ordinality as e (value, position)
      ) o
      where o.parent_id is null or o.parent_id <> all (usable)
      order by o.parent_id, o.position
    ) g
  ) f;
  raise exception '%', faults || case when unusable > 10 then format(', and %s more', unusable - 10) else '' end
    using errcode    = 'FS404',
          constraint = 'nodes_parents_missing',
          hint       = 'Give the id of a live directory as the parent of each node. Nothing was created.';
end
$$;

comment on function filestore.lock_parents(jsonb) is
  'Internal: Locks the parents of a batch of filestore.create_nodes against moves, in order of id, and returns their mounts and paths. It takes shared tree locks first when there are several parents. FS404 names those that are not live directories.';

revoke all on function filestore.lock_parents(jsonb) from public;
--! EndIncluded functions/lock_parents.sql
--! Included functions/refuse_taken_names.sql
create or replace function filestore.refuse_taken_names(nodes jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  twin  record;
  taken record;
begin
  select g.parent_id, g.positions, g.element
  into twin
  from (
    select
      (e.value ->> 'parent_id')::bigint as parent_id,
      array_agg(e.position order by e.position) as positions,
      min(e.value::text)::jsonb as element
    from jsonb_array_elements(nodes) with ordinality as e (value, position)
    group by (e.value ->> 'parent_id')::bigint, e.value ->> 'name'
    having count(*) > 1
  ) g
  order by g.positions
  limit 1;
  if found then
    raise exception '% has the same name and parent (%) as element %',
      filestore.describe_element(twin.positions[2], twin.element), twin.parent_id, twin.positions[1]
      using errcode    = 'FS409',
            constraint = 'nodes_name_taken',
            hint       = 'Leave one of them out, or give it another name. Nothing was created.';
  end if;

  select g.parent_id, g.position, g.element, p.path
  into taken
  from (
    select (e.value ->> 'parent_id')::bigint as parent_id, e.position, e.value as element
    from jsonb_array_elements(nodes) with ordinality as e (value, position)
  ) g
  cross join lateral (
    -- "Offset 0" keeps this a lookup for each element.
    select (select d.path from filestore.nodes d where d.id = n.parent_id) as path
    from filestore.nodes n
    where n.parent_id = g.parent_id
      and n.name = g.element ->> 'name'
      and n.parent_live
    offset 0
  ) p
  order by g.position
  limit 1;
  if found then
    raise exception '%: the name is taken in directory % ("%")',
      filestore.describe_element(taken.position, taken.element), taken.parent_id, taken.path
      using errcode    = 'FS409',
            constraint = 'nodes_name_taken',
            hint       = 'Choose another name, or move or delete the node that has it. Nothing was created.';
  end if;
end
$$;

comment on function filestore.refuse_taken_names(jsonb) is
  'Internal: Raises FS409 for the first element of a batch of filestore.create_nodes whose name is given twice, or taken by a live node. Returns when there is none.';

revoke all on function filestore.refuse_taken_names(jsonb) from public;
--! EndIncluded functions/refuse_taken_names.sql
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
    perform filestore.check_name(nodes -> first ->> 'name');
    execute creation using jsonb_build_array(nodes -> first), parents;
  exception
    when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
      get stacked diagnostics code = returned_sqlstate, broken = constraint_name, message = message_text, remedy = pg_exception_hint;
      if broken = 'nodes_live_child_key' then
        perform filestore.refuse_taken_names(nodes);
      end if;
      -- The server gives no reason when a value does not fit its type.
      if code like '22%' then
        code   := 'FS422';
        broken := 'nodes_batch_check';
      end if;
      -- Shortened, since the server quotes the whole value when it does not fit its type.
      raise exception '%: %', filestore.describe_element(first + 1, nodes -> first), left(message, 300)
        -- Code and reason are those of the error that the element caused.
        using errcode    = code,
              constraint = broken,
              schema     = 'filestore',
              hint       = coalesce(nullif(remedy, ''), 'Correct the element. Nothing was created.');
  end;
  -- The element alone is valid, so its name is that of an earlier element.
  perform filestore.refuse_taken_names(nodes);
end
$$;

comment on function filestore.refuse_element(text, jsonb, jsonb) is
  'Internal: Finds the first element of a batch of filestore.create_nodes that cannot be created, and raises its error. Returns when all of them can be created.';

revoke all on function filestore.refuse_element(text, jsonb, jsonb) from public;
--! EndIncluded functions/refuse_element.sql
--! Included functions/create_nodes.sql
create or replace function filestore.create_nodes(nodes jsonb)
returns setof filestore.nodes
language plpgsql
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  columns  text;
  fields   text;
  creation text;
  parents  jsonb;
  broken   text;
begin
  perform filestore.check_batch(nodes);
  parents := filestore.lock_parents(nodes);

  -- A column that an element leaves out gets its default.
  select
    string_agg(quote_ident(a.attname), ', ' order by a.attnum),
    string_agg(
      case
        when a.attname = 'kind' then 'coalesce(r.kind, ''file'')'
        -- As in create_node: most digests are in canonical form already.
        when a.attname = 'checksum' then 'case
          when r.checksum is null then null
          when octet_length(r.checksum) = 71 and starts_with(r.checksum, ''sha256:'') and r.checksum = lower(r.checksum) then r.checksum
          else filestore.canonical_checksum(r.checksum)
        end'
        when d.adbin is null then format('r.%I', a.attname)
        when a.attnotnull then format('coalesce(r.%I, %s)', a.attname, pg_get_expr(d.adbin, d.adrelid))
        else format('case when $1 -> (r.position::integer - 1) ? %L then r.%I else %s end', a.attname, a.attname, pg_get_expr(d.adbin, d.adrelid))
      end || ' as ' || quote_ident(a.attname),
      ', ' order by a.attnum
    )
  into columns, fields
  from pg_attribute a
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = 'filestore.nodes'::regclass
    and a.attname = any ('{kind,state}'::text[] || filestore.content_columns());

  -- In order of parent and name, so that two batches with the same names do not deadlock.
  creation := format(
    'with given as materialized (
       select r.position, r.parent_id, r.name, %2$s
       from jsonb_populate_recordset(null::filestore.nodes, $1) with ordinality as r (%3$s, position)
     ),
     created as (
       insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, %1$s)
       select p.backend_mount_id, g.parent_id, p.path, %4$s
       from given g
       join jsonb_to_recordset($2) as p (id bigint, backend_mount_id bigint, path text) on p.id = g.parent_id
       order by g.parent_id, g.name
       returning *
     )
     select c.*
     from created c
     join given g on g.parent_id = c.parent_id and g.name = c.name
     order by g.position',
    columns,
    fields,
    (
      select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
      from pg_attribute a
      where a.attrelid = 'filestore.nodes'::regclass
        and a.attnum > 0
        and not a.attisdropped
    ),
    -- "E": a session may have switched standard_conforming_strings off.
    'g.name, ' || regexp_replace(columns, '(^|, )', E'\\1g.', 'g')
  );
  begin
    return query execute creation using nodes, parents;
  exception
    when unique_violation then
      get stacked diagnostics broken = constraint_name;
      perform filestore.refuse_taken_names(nodes);
      if broken = 'nodes_live_child_key' then
        -- The node that had the name is gone again, or this transaction does not see it.
        raise exception 'a name of the batch was taken at the same time'
          using errcode    = 'FS409',
                constraint = 'nodes_name_taken',
                hint       = 'Try again. Nothing was created.';
      end if;
      raise;
    when data_exception or integrity_constraint_violation or sqlstate 'FS422' then
      perform filestore.refuse_element(creation, nodes, parents);
      raise;
  end;
end
$$;

comment on function filestore.create_nodes(jsonb) is
  'Creates the nodes that a JSON array of at most 10000 objects describes, on at most 100 mounts, all or none, and returns them in the order given. An object has parent_id and name, and optionally kind (file by default), state and any content column of nodes; a column that it leaves out gets its default. FS404 when a parent is not a live directory, FS409 when a name is taken or given twice, FS422 or 23514 when an element is not well formed; the message names the position, from 1.';

revoke all on function filestore.create_nodes(jsonb) from public;
--! EndIncluded functions/create_nodes.sql
