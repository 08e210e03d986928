--! Previous: sha1:d9c298db0b14cefd1f15f3e7c650482a8c14cd93
--! Hash: sha1:c38b9d5865dcaa0ab68e82fcc6c10dbcb1ac730d
--! Message: Lists of nodes

do $$
begin
  if to_regtype('filestore.node_order') is null then
    create domain filestore.node_order as text collate "C"
      constraint node_order_check check (value in ('path', 'name', 'size', 'change'));
  end if;
end
$$;

comment on domain filestore.node_order is 'What the nodes of a list are ordered by.';

--! Included functions/check_count.sql
create or replace function filestore.check_count(things text, given integer)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if given > 10000 then
    raise exception 'the call has % %, which are too many', given, things
      using errcode    = 'FS422',
            constraint = 'node_ids_check',
            hint       = 'Give at most 10000, such as those of one page.';
  end if;
end
$$;

comment on function filestore.check_count(text, integer) is
  'Internal: Raises FS422 when a call has more than 10000 ids or paths.';

revoke all on function filestore.check_count(text, integer) from public;
--! EndIncluded functions/check_count.sql
drop function if exists filestore.list_totals(bigint[]);
--! Included functions/list_totals.sql
create or replace function filestore.list_totals(node_ids bigint[], with_recounts boolean default false)
returns table (
  node_id            bigint,
  size_bytes         numeric,
  file_count         bigint,
  dir_count          bigint,
  child_count        bigint,
  consistency_state  filestore.totals_state,
  last_calculated_at timestamptz
)
language plpgsql
stable
rows 200
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  mount_ids bigint[];
begin
  perform filestore.check_count('ids', cardinality(node_ids));

  -- In a stable function, this statement and the next read one snapshot. "Offset 0" keeps lookups by id, also when
  -- statistics are stale.
  mount_ids := array(
    select distinct m.backend_mount_id
    from unnest(node_ids) as g (id)
    cross join lateral (
      select n.backend_mount_id
      from filestore.nodes n
      where n.id = g.id
        and n.directory_path is not null
      offset 0
    ) m
  );

  return query
  select
    g.id,
    r.size_bytes + coalesce(p.size_delta, 0),
    (r.file_count + coalesce(p.file_delta, 0))::bigint,
    (r.dir_count + coalesce(p.dir_delta, 0))::bigint,
    (r.child_count + coalesce(p.child_delta, 0))::bigint,
    (case when r.consistency_state = 'stale' then 'stale' when p.node_id is not null then 'pending' else 'up_to_date' end)::filestore.totals_state,
    case when with_recounts then r.last_calculated_at end
  from (
    select u.id, min(u.place) as place
    from unnest(node_ids) with ordinality as u (id, place)
    group by u.id
  ) g
  cross join lateral (
    select f.*
    from filestore.rollups f
    where f.node_id = g.id
    offset 0
  ) r
  left join filestore.pending_totals(mount_ids) p on p.node_id = g.id
  order by g.place;
end
$$;

comment on function filestore.list_totals(bigint[], boolean) is
  'The totals of several directories of any mounts, as filestore.directory_totals returns them for one, in one pass over the pending deltas. One row for each directory, deleted or not, in the order of the ids; no row for a file, an unknown id or null. With with_recounts, last_calculated_at is the moment of the last recount; otherwise it is null. FS422 when there are more than 10000 ids.';

revoke all on function filestore.list_totals(bigint[], boolean) from public;
--! EndIncluded functions/list_totals.sql
--! Included functions/check_list.sql
create or replace function filestore.check_list(states text[], kinds text[], metadata_contains jsonb, max_depth integer)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Not as types of the arguments: the checks of a domain cannot be changed while a function takes an array of it.
  perform states::filestore.node_state[], kinds::filestore.node_kind[];
  if jsonb_typeof(metadata_contains) <> 'object' then
    raise exception 'metadata_contains is of type %, not an object', jsonb_typeof(metadata_contains)
      using errcode    = 'FS422',
            constraint = 'nodes_metadata_check',
            hint       = 'Give an object with the keys and values that the metadata must contain, such as {"tag": "x"}.';
  elsif max_depth < 1 then
    raise exception 'max_depth cannot be %', max_depth
      using errcode    = 'FS422',
            constraint = 'limit_check',
            hint       = 'Give the number of levels below the directory: 1 for the directory alone, or null for all.';
  end if;
end
$$;

comment on function filestore.check_list(text[], text[], jsonb, integer) is
  'Internal: Raises FS422 for conditions that filestore.list_nodes and filestore.count_nodes do not take.';

revoke all on function filestore.check_list(text[], text[], jsonb, integer) from public;
--! EndIncluded functions/check_list.sql
--! Included functions/listed_directory.sql
create or replace function filestore.listed_directory(mount_id bigint, path text, with_deleted boolean)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  directory filestore.nodes;
begin
  select *
  into directory
  from filestore.nodes n
  where n.backend_mount_id = listed_directory.mount_id
    and n.path = listed_directory.path
    and n.live;

  if directory.directory_path is not null or with_deleted then
    return case when directory.directory_path is not null then directory.id end;
  elsif directory.id is not null then
    raise exception 'node % ("%") is a file', directory.id, directory.path
      using errcode    = 'FS404',
            constraint = 'nodes_not_directory',
            hint       = 'Give the path of a directory.';
  end if;
  raise exception 'directory "%" does not exist on mount %', listed_directory.path, mount_id
    using errcode    = 'FS404',
          constraint = 'nodes_missing',
          hint       = 'Choose an existing directory. To list what was deleted below the path, give the state deleted too.';
end
$$;

comment on function filestore.listed_directory(bigint, text, boolean) is
  'Internal: The id of the live directory at a path. FS404 when there is none; with with_deleted null, since the path may have tombstones below it.';

revoke all on function filestore.listed_directory(bigint, text, boolean) from public;
--! EndIncluded functions/listed_directory.sql
--! Included functions/refuse_range.sql
create or replace function filestore.refuse_range(mount_key text, directory text, max_nodes bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'this would read more than % nodes of mount "%" below "%"', max_nodes, mount_key, directory
    using errcode    = 'FS422',
          constraint = 'nodes_range_check',
          hint       = 'Give a directory with fewer nodes below it, order by path, the states inconsistent or missing, metadata_contains, or a larger max_nodes.';
end
$$;

comment on function filestore.refuse_range(text, text, bigint) is
  'Internal: Raises FS422: a list or count would read more nodes than max_nodes.';

revoke all on function filestore.refuse_range(text, text, bigint) from public;
--! EndIncluded functions/refuse_range.sql
--! Included functions/search_nodes.sql
create or replace function filestore.search_nodes(
  mount_id          bigint,
  directory_id      bigint,
  directory         text,
  states            text[],
  kinds             text[],
  name_contains     text,
  metadata_contains jsonb,
  max_depth         integer,
  changed_since     timestamptz,
  min_size          bigint,
  max_size          bigint,
  order_by          text,
  descending        boolean,
  after_key         text,
  after_id          bigint,
  page_size         bigint,
  max_nodes         bigint,
  out node_ids      bigint[],
  out examined      bigint,
  out matched       bigint
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set jit = off
-- Each part below reads an index in its order, and ends at its limit. With statistics of a small or new mount, the planner
-- may prefer to read and sort the whole table.
set enable_seqscan = off
set enable_sort = off
as $$
declare
  -- The paths of the list are between these two. For a root, the upper one is longer than any path.
  lower      constant text    := case when directory = '' then '' else directory || '/' end;
  upper      constant text    := case when directory = '' then repeat(chr(1114111), 651) else directory || '0' end;
  depth      constant bigint  := cardinality(string_to_array(directory, '/')) + max_depth::bigint;
  is_dead    constant boolean := 'deleted' = any (states);
  is_live    constant boolean := array_remove(states, 'deleted') <> '{}';
  -- Where the live nodes are: in the directory by name, or below it by path.
  near       constant text    := case when max_depth = 1 and directory_id is not null then 'children' else 'below' end;
  -- An index that may have fewer nodes. The one on metadata has only values, and no empty object or array.
  rare       constant text    := case
    when jsonb_path_exists(metadata_contains, 'strict $.** ? (@.type() != "object" && @.type() != "array")') then 'metadata'
    when states <@ '{inconsistent,missing}' then 'unsettled'
    when kinds <@ '{directory}' and not is_dead then 'directories'
  end;
  unsettled  constant text    := format(
    'n.backend_mount_id = $1 and n.state >= %L and n.state <= %L and n.state in (''inconsistent'', ''missing'')',
    (select min(g.state) from unnest(states) as g (state)),
    (select max(g.state) from unnest(states) as g (state))
  );
  -- All conditions: the index only decides which nodes are read.
  wanted     constant text    := concat_ws(
    ' and ',
    'n.backend_mount_id = $1 and n.path > $2 and n.path < $3 and n.state = any ($5)',
    case when kinds is not null then 'n.kind = any ($6)' end,
    case when name_contains <> '' then 'strpos(lower(n.name collate "default"), lower($7)) > 0' end,
    case when metadata_contains is not null then 'n.metadata @> $8' end,
    case when max_depth is not null then 'n.depth <= $9' end,
    case when changed_since is not null then 'n.updated_at >= $10' end,
    case when min_size is not null then 'n.size_bytes >= $11' end,
    case when max_size is not null then 'n.size_bytes <= $12' end
  );
  key        constant text    := case order_by when 'size' then 'size_bytes' when 'change' then 'updated_at' else order_by end;
  after      constant text    := case order_by
    when 'size'   then 'least($13::numeric, 9223372036854775807)::bigint'
    when 'change' then 'timestamptz ''epoch'' + $13::bigint * interval ''1 millisecond'''
    else '$13'
  end;
  direction  constant text    := case when descending then 'desc' else 'asc' end;
  comparison constant text    := case when descending then '<' else '>' end;
  known      bigint;
  source     text;
  -- In order of path, a list ends when its page is full. Every other order reads all nodes first.
  is_walk    boolean;
  part       record;
  start      text;
  range      text;
  parts      text[];
  more       text[];
  statement  text;
begin
  -- The folded totals do: they only decide which index is read first.
  select case near when 'children' then r.child_count else r.file_count + r.dir_count end
  into known
  from filestore.rollups r
  where r.node_id = directory_id;

  foreach source in array case when rare is null or (known <= max_nodes and not is_dead) then array[near] else array[rare, near] end loop
    is_walk := order_by = 'path' and source in ('children', 'below', 'directories');
    parts   := '{}';
    more    := '{}';
    for part in
      select r.*
      from (values
        ('children', is_live, 'n.parent_id = $4 and n.parent_live', null, 'n.name', 'order by n.name %1$s'),
        ('below', is_live, 'n.backend_mount_id = $1 and n.live', 'n.path', 'n.path', 'order by n.path %1$s'),
        (near, is_dead, 'n.backend_mount_id = $1 and not n.live', 'n.path', 'n.path', 'order by n.path %1$s, n.id %1$s'),
        ('directories', true, null, 'n.directory_path', 'n.directory_path', 'order by n.directory_path %1$s, n.id %1$s'),
        ('unsettled', true, unsettled, null, null, 'order by n.state, n.id'),
        ('metadata', true, 'n.metadata @> $8', null, null, '')
      ) as r (origin, is_read, condition, bounded, sorted, ordering)
      where r.origin = source
        and r.is_read
    loop
      start := case when is_walk and after_id is not null then format(
        '(%s, n.id) %s (%s, $14)',
        part.sorted,
        comparison,
        case part.sorted when 'n.name' then format('substr($13, %s)', length(lower) + 1) else '$13' end
      ) end;
      -- One condition for each bound: of two, the server may begin at the one that is further away.
      range := format(
        'from filestore.nodes n where %s %s',
        concat_ws(
          ' and ',
          part.condition,
          case when start is null or descending then part.bounded || ' > $2' end,
          case when start is null or not descending then part.bounded || ' < $3' end,
          start
        ),
        format(part.ordering, direction)
      );
      parts := parts || case
        when is_walk then format('(select n.id, n.path from (select n.* %s limit $15 + 1) n where %s limit $16)', range, wanted)
        else format('(select n.* %s limit $15 + 1)', range)
      end;
      -- A part that is not full must have been read to its end. Otherwise a node may be missing between those of the other.
      more  := more || format(
        '((select count(*) from part_%s) < $16 and exists (select %s offset $15 limit 1))',
        cardinality(parts),
        range
      );
    end loop;

    if parts = '{}' then
      node_ids := '{}';
      examined := 0;
      matched  := 0;
      return;
    elsif is_walk then
      statement := format(
        $walk$
          with %1$s
          select
            array(select n.id from (%2$s) n order by n.path %3$s, n.id %3$s limit $16),
            case when %4$s then $15 + 1 else 0 end,
            null::bigint
        $walk$,
        (select string_agg(format('part_%s as materialized %s', p.place, p.text), ', ') from unnest(parts) with ordinality as p (text, place)),
        (select string_agg(format('table part_%s', p.place), ' union all ') from unnest(parts) with ordinality as p (text, place)),
        direction,
        array_to_string(more, ' or ')
      );
    else
      statement := format(
        $read$
          with seen as materialized (
            select n.id, n.%2$I as key, (%3$s) as is_wanted
            from (%1$s) n
          )
          select
            array(select s.id from seen s where s.is_wanted %4$s order by s.key %5$s, s.id %5$s limit $16),
            count(*),
            count(*) filter (where s.is_wanted)
          from seen s
        $read$,
        array_to_string(parts, ' union all '),
        key,
        wanted,
        case when after_id is not null then format('and (s.key, s.id) %s (%s, $14)', comparison, after) end,
        direction
      );
    end if;
    execute statement
    using mount_id, lower, upper, directory_id, states, kinds, name_contains, metadata_contains, depth, changed_since, min_size, max_size,
      after_key, after_id, max_nodes, page_size
    into node_ids, examined, matched;
    exit when examined <= max_nodes;
  end loop;
end
$$;

comment on function filestore.search_nodes(bigint, bigint, text, text[], text[], text, jsonb, integer, timestamptz, bigint, bigint, text, boolean, text, bigint, bigint, bigint) is
  'Internal: The ids of a page of filestore.list_nodes. When the list needs more than max_nodes nodes, examined is above max_nodes, and ids may be missing. matched is the number of nodes among these that meet all conditions; null where a list ends when its page is full.';

revoke all on function filestore.search_nodes(bigint, bigint, text, text[], text[], text, jsonb, integer, timestamptz, bigint, bigint, text, boolean, text, bigint, bigint, bigint) from public;
--! EndIncluded functions/search_nodes.sql
--! Included functions/list_nodes.sql
create or replace function filestore.list_nodes(
  mount_key         text,
  path              text                 default '',
  states            text[]               default '{active,inconsistent,missing}',
  kinds             text[]               default null,
  name_contains     text                 default null,
  metadata_contains jsonb                default null,
  max_depth         integer              default null,
  changed_since     timestamptz          default null,
  min_size          bigint               default null,
  max_size          bigint               default null,
  order_by          filestore.node_order default 'path',
  descending        boolean              default false,
  after_cursor      text                 default null,
  page_size         bigint               default 100,
  with_sightings    boolean              default false,
  with_totals       boolean              default false,
  max_nodes         bigint               default 100000
)
returns table (
  cursor             text,
  node               filestore.nodes,
  last_seen_at       timestamptz,
  last_reconciled_at timestamptz,
  total_bytes        numeric,
  file_count         bigint,
  dir_count          bigint,
  child_count        bigint,
  consistency_state  filestore.totals_state,
  last_calculated_at timestamptz
)
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
-- A plan that was made while the tables were empty and analyzed would read the whole table for each row.
set enable_seqscan = off
as $$
declare
  mount_id  constant bigint := filestore.find_mount(list_nodes.mount_key);
  directory constant text   := coalesce(filestore.canonical_path(list_nodes.path), '');
  wanted    constant text[] := array_remove(coalesce(states, '{active,inconsistent,missing}'), null);
  -- In one directory, both orders are the same, and an index has it.
  ordering  constant text   := case when max_depth = 1 and order_by = 'name' then 'path' else coalesce(order_by, 'path') end;
  after     text[];
  page      record;
begin
  perform filestore.check_limit('page_size', page_size, 10000);
  perform filestore.check_limit('max_nodes', max_nodes, 10000000);
  perform filestore.check_list(states, kinds, metadata_contains, max_depth);
  if after_cursor is not null then
    after := regexp_match(after_cursor, '^(path|name|size|change):([0-9]{1,18}):(.*)$');
    if after[1] is distinct from ordering
       or (ordering = 'size' and after[3] !~ '^[0-9]{1,19}$')
       -- Milliseconds: more digits are beyond the range of a moment.
       or (ordering = 'change' and after[3] !~ '^-?[0-9]{1,15}$')
       or (ordering = 'path' and not starts_with(after[3], case when directory = '' then '' else directory || '/' end)) then
      raise exception 'after_cursor "%" is not of this list', left(after_cursor, 200)
        using errcode    = 'FS422',
              constraint = 'cursor_check',
              hint       = 'Give the cursor of the last row of the page before, and the same path and order.';
    end if;
  end if;

  select *
  into page
  from filestore.search_nodes(
    mount_id,
    filestore.listed_directory(mount_id, directory, 'deleted' = any (wanted)),
    directory,
    wanted,
    kinds,
    name_contains,
    metadata_contains,
    max_depth,
    changed_since,
    min_size,
    max_size,
    ordering,
    coalesce(descending, false),
    after[3],
    after[2]::bigint,
    page_size,
    max_nodes
  );
  if page.examined > max_nodes then
    perform filestore.refuse_range(list_nodes.mount_key, directory, max_nodes);
  end if;

  return query
  select
    concat_ws(':', ordering, (n.node).id, case ordering
      when 'path' then (n.node).path
      when 'name' then (n.node).name
      when 'size' then (n.node).size_bytes::text
      else (extract(epoch from (n.node).updated_at) * 1000)::bigint::text
    end),
    n.node,
    s.last_seen_at,
    s.last_reconciled_at,
    t.size_bytes,
    t.file_count,
    t.dir_count,
    t.child_count,
    t.consistency_state,
    t.last_calculated_at
  from unnest(page.node_ids) with ordinality as g (id, place)
  -- "Offset 0" keeps lookups by id, also when statistics are stale, and leaves out what is not requested.
  cross join lateral (
    select f as node
    from filestore.nodes f
    where f.id = g.id
    offset 0
  ) n
  left join lateral (
    select f.last_seen_at, f.last_reconciled_at
    from filestore.node_sightings f
    where f.node_id = g.id
      and with_sightings
    offset 0
  ) s on true
  left join (
    select f.*
    from filestore.list_totals(page.node_ids, with_recounts => true) f
    where with_totals
    offset 0
  ) t on t.node_id = g.id
  order by g.place;
end
$$;

comment on function filestore.list_nodes(text, text, text[], text[], text, jsonb, integer, timestamptz, bigint, bigint, filestore.node_order, boolean, text, bigint, boolean, boolean, bigint) is
  'A page of the nodes below a directory, the root by default, that meet all conditions: live nodes by default, and tombstones with the state deleted. For the next page, give the cursor of the last row as after_cursor. max_depth 1 lists the directory alone. name_contains ignores case. Sizes are those of nodes, 0 for directories. With with_sightings and with_totals, rows also have the sightings, and the totals of directories, as filestore.list_totals returns them, with the moment of their last recount; otherwise these columns are null. FS404 when the mount or the directory does not exist, FS422 when the list would read more than max_nodes nodes, or the cursor is of another list.';

revoke all on function filestore.list_nodes(text, text, text[], text[], text, jsonb, integer, timestamptz, bigint, bigint, filestore.node_order, boolean, text, bigint, boolean, boolean, bigint) from public;
--! EndIncluded functions/list_nodes.sql
--! Included functions/count_nodes.sql
create or replace function filestore.count_nodes(
  mount_key         text,
  path              text        default '',
  states            text[]      default '{active,inconsistent,missing}',
  kinds             text[]      default null,
  name_contains     text        default null,
  metadata_contains jsonb       default null,
  max_depth         integer     default null,
  changed_since     timestamptz default null,
  min_size          bigint      default null,
  max_size          bigint      default null,
  max_nodes         bigint      default 100000,
  out nodes         bigint,
  out is_estimate   boolean
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  mount_id     constant bigint  := filestore.find_mount(count_nodes.mount_key);
  directory    constant text    := coalesce(filestore.canonical_path(count_nodes.path), '');
  wanted       constant text[]  := array_remove(coalesce(states, '{active,inconsistent,missing}'), null);
  is_dead      constant boolean := 'deleted' = any (wanted);
  directory_id constant bigint  := filestore.listed_directory(mount_id, directory, is_dead);
  -- Without a condition on single nodes, the totals are the answer.
  is_total     constant boolean := wanted @> '{active,inconsistent,missing}'
    and not is_dead
    and coalesce(name_contains, '') = ''
    and num_nonnulls(metadata_contains, changed_since, min_size, max_size) = 0
    and (max_depth is null or (max_depth = 1 and kinds is null));
  examined     bigint;
  matched      bigint;
  totals       record;
begin
  perform filestore.check_limit('max_nodes', max_nodes, 10000000);
  perform filestore.check_list(states, kinds, metadata_contains, max_depth);

  is_estimate := false;
  if not is_total then
    select s.examined, s.matched
    into examined, matched
    from filestore.search_nodes(
      mount_id,
      directory_id,
      directory,
      wanted,
      kinds,
      name_contains,
      metadata_contains,
      max_depth,
      changed_since,
      min_size,
      max_size,
      -- Every order but that of path reads all nodes.
      'size',
      false,
      null,
      null,
      0,
      max_nodes
    ) s;
    nodes := matched;
    if examined <= max_nodes then
      return;
    elsif is_dead then
      perform filestore.refuse_range(count_nodes.mount_key, directory, max_nodes);
    end if;
    is_estimate := true;
  end if;

  select *
  into totals
  from filestore.directory_totals(directory_id);
  nodes := case
    when is_estimate then
      round(matched::numeric / examined * case max_depth when 1 then totals.child_count else totals.file_count + totals.dir_count end)
    when max_depth = 1 then totals.child_count
    else
      case when kinds is null or 'file' = any (kinds) then totals.file_count else 0 end
        + case when kinds is null or 'directory' = any (kinds) then totals.dir_count else 0 end
  end;
end
$$;

comment on function filestore.count_nodes(text, text, text[], text[], text, jsonb, integer, timestamptz, bigint, bigint, bigint) is
  'The number of nodes of filestore.list_nodes with the same conditions. It is exact when at most max_nodes nodes have to be read, and for all live nodes or those of a kind, which the totals count. Otherwise is_estimate is true, and the share of the first max_nodes nodes that meet the conditions is taken for that of all. FS404 when the mount or the directory does not exist, FS422 when the state deleted is given, and more than max_nodes nodes would be read.';

revoke all on function filestore.count_nodes(text, text, text[], text[], text, jsonb, integer, timestamptz, bigint, bigint, bigint) from public;
--! EndIncluded functions/count_nodes.sql
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
    climb_totals,
    content_columns,
    count_nodes,
    database_number,
    directory_totals,
    find_by_checksum,
    find_mount,
    guard_statements,
    list_commands,
    list_directory,
    list_nodes,
    list_totals,
    list_unseen,
    listed_directory,
    location_uri,
    move_progress,
    move_slot,
    move_steps,
    move_subscription,
    node_at,
    node_by_path,
    node_commands,
    node_location,
    pending_totals,
    percent_encode,
    real_depths,
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
    check_retention,
    child_path,
    copy_nodes,
    copy_tree,
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
    holds_mount,
    is_small_json,
    is_sound,
    is_sound_entry,
    lock_command,
    lock_parents,
    lock_tree,
    lock_trees,
    merge_metadata,
    mount_place,
    move_node,
    moving_mounts,
    record_entries,
    record_sightings,
    record_write_sighting,
    refuse_element,
    refuse_entry,
    refuse_long_copy,
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
    start_command,
    sync_nodes,
    upsert_file,
    writable_mount
  }';
  operators constant text[] := '{
    audit_rollups,
    check_integrity,
    check_sequences,
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
