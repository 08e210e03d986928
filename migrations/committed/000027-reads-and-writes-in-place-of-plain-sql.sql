--! Previous: sha1:c38b9d5865dcaa0ab68e82fcc6c10dbcb1ac730d
--! Hash: sha1:dca5ba948ae63e4cc1d68dee9baab22857dc149d
--! Message: Reads and writes in place of plain SQL

--! Included functions/find_mount.sql
create or replace function filestore.find_mount(mount_key text)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id bigint;
begin
  select m.id
  into mount_id
  from filestore.backend_mounts m
  where m.mount_key = find_mount.mount_key;

  if mount_id is null then
    select m.id
    into mount_id
    from filestore.backend_mounts m
    where m.id = substring(find_mount.mount_key from '^#([0-9]{1,18})$')::bigint;
    if mount_id is null then
      raise exception 'mount "%" does not exist', left(mount_key, 128)
        using errcode    = 'FS404',
              constraint = 'backend_mounts_missing',
              hint       = 'To list the mounts, run: select mount_key from filestore.backend_mounts';
    end if;
  end if;
  return mount_id;
end
$$;

comment on function filestore.find_mount(text) is
  'Internal: The id of the mount with a key, or with an id that is written as #1, which is no key; FS404 when there is none.';

revoke all on function filestore.find_mount(text) from public;
--! EndIncluded functions/find_mount.sql
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
--! Included functions/mount_by_id.sql
create or replace function filestore.mount_by_id(mount_id bigint)
returns setof filestore.backend_mounts
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select m.*
  from filestore.backend_mounts m
  where m.id = mount_by_id.mount_id;
end
$$;

comment on function filestore.mount_by_id(bigint) is
  'The mount with an id, or no row.';

revoke all on function filestore.mount_by_id(bigint) from public;
--! EndIncluded functions/mount_by_id.sql
--! Included functions/mount_by_key.sql
create or replace function filestore.mount_by_key(mount_key text)
returns setof filestore.backend_mounts
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select m.*
  from filestore.backend_mounts m
  where m.mount_key = mount_by_key.mount_key;
end
$$;

comment on function filestore.mount_by_key(text) is
  'The mount with a key, or no row.';

revoke all on function filestore.mount_by_key(text) from public;
--! EndIncluded functions/mount_by_key.sql
--! Included functions/list_mounts.sql
create or replace function filestore.list_mounts(after_key text default '', page_size bigint default 1000)
returns setof filestore.backend_mounts
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
as $$
begin
  perform filestore.check_limit('page_size', page_size, 100000);
  return query
  select m.*
  from filestore.backend_mounts m
  where m.mount_key > coalesce(after_key, '')
  order by m.mount_key
  limit page_size;
end
$$;

comment on function filestore.list_mounts(text, bigint) is
  'A page of the mounts, in order of key. For the next page, give the last key of this one as after_key.';

revoke all on function filestore.list_mounts(text, bigint) from public;
--! EndIncluded functions/list_mounts.sql
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
--! Included functions/create_mount.sql
create or replace function filestore.create_mount(mount jsonb)
returns filestore.backend_mounts
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  columns text;
  problem text;
  created filestore.backend_mounts;
begin
  select string_agg(quote_ident(f.name), ', ')
  into columns
  from unnest(filestore.mount_fields(mount, 'INSERT')) as f (name);

  -- A column that is left out gets its default.
  execute format(
    'insert into filestore.backend_mounts (%1$s) select %1$s from jsonb_populate_record(null::filestore.backend_mounts, $1) returning *',
    coalesce(columns, 'mount_key')
  )
  using mount
  into created;
  return created;
exception
  when not_null_violation or data_exception then
    -- The server gives no reason for these.
    get stacked diagnostics problem = message_text;
    raise exception 'the settings of the mount: %', left(problem, 300)
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = 'Correct that field. Nothing was written.';
end
$$;

comment on function filestore.create_mount(jsonb) is
  'Registers a mount, with the root of its tree. The object has columns of backend_mounts: mount_key, backend_kind, the place (root_path, or bucket and perhaps endpoint and prefix), and optionally any other that a service may write. 23505 when the key is taken, 23P01 when another mount has the place or a part of it, FS422 or 23514 when a field or value is not valid.';

revoke all on function filestore.create_mount(jsonb) from public;
--! EndIncluded functions/create_mount.sql
--! Included functions/update_mount.sql
create or replace function filestore.update_mount(mount_key text, changes jsonb, expected_version integer default null)
returns filestore.backend_mounts
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  mount_id constant bigint := filestore.find_mount(update_mount.mount_key);
  columns  text;
  problem  text;
  mount    filestore.backend_mounts;
begin
  select string_agg(quote_ident(f.name), ', ')
  into columns
  from unnest(filestore.mount_fields(changes, 'UPDATE')) as f (name);

  -- A column that is left out keeps its value.
  if columns is null then
    select *
    into mount
    from filestore.backend_mounts m
    where m.id = mount_id
      and m.version = coalesce(expected_version, m.version);
  else
    execute format(
      'update filestore.backend_mounts m
       set (%1$s) = (select %1$s from jsonb_populate_record(m, $2))
       where m.id = $1
         and m.version = coalesce($3, m.version)
       returning m.*',
      columns
    )
    using mount_id, changes, expected_version
    into mount;
  end if;

  if mount.id is null then
    raise exception 'mount "%" is not at version %', update_mount.mount_key, expected_version
      using errcode    = 'FS409',
            constraint = 'backend_mounts_stale',
            hint       = 'Read the mount again, and decide again.';
  end if;
  return mount;
exception
  when not_null_violation or data_exception then
    -- The server gives no reason for these.
    get stacked diagnostics problem = message_text;
    raise exception 'the settings of the mount: %', left(problem, 300)
      using errcode    = 'FS422',
            constraint = 'backend_mounts_settings_check',
            hint       = 'Correct that field. Nothing was written.';
end
$$;

comment on function filestore.update_mount(text, jsonb, integer) is
  'Changes settings or the state of a mount, and returns it. The object has columns of backend_mounts; one that is left out keeps its value, and null clears it. FS404 when the mount does not exist, FS409 when it is not at expected_version (null: any), FS422 or 23514 when a field or value is not valid.';

revoke all on function filestore.update_mount(text, jsonb, integer) from public;
--! EndIncluded functions/update_mount.sql
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
do $$
begin
  if to_regtype('filestore.copy_conflict') is null then
    create domain filestore.copy_conflict as text collate "C"
      constraint copy_conflict_check check (value in ('refuse', 'skip', 'overwrite'));
  end if;
end
$$;

comment on domain filestore.copy_conflict is 'What a copy does where a node of the same name exists.';

drop function if exists filestore.copy_tree(bigint, bigint, text, integer);
--! Included functions/merge_nodes.sql
create or replace function filestore.merge_nodes(
  source_id        bigint,
  new_parent_id    bigint,
  new_name         text,
  expected_version integer,
  on_conflict      filestore.copy_conflict
)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
-- A plan that was made while the tables were empty and analyzed would read the whole table for each row.
set enable_seqscan = off
-- With stale statistics, the planner would join each node with its parent by a nested loop.
set enable_nestloop = off
as $$
declare
  ids      constant regclass := pg_get_serial_sequence('filestore.nodes', 'id');
  mount_id constant bigint   := (select n.backend_mount_id from filestore.nodes n where n.id = new_parent_id);
  source   filestore.nodes;
  target   filestore.nodes;
  columns  text[];
  outcome  record;
begin
  if mount_id is null then
    return null;
  end if;
  -- Before any row of the mount is locked: directories must not move until their new children exist.
  perform filestore.lock_tree(mount_id, false);
  select *
  into source
  from filestore.nodes n
  where n.id = source_id
    and n.live
    and n.version = coalesce(expected_version, n.version);
  if source.id is null then
    perform filestore.refuse_stale(source_id, expected_version);
  end if;
  select *
  into target
  from filestore.nodes n
  where n.parent_id = new_parent_id
    and n.name = coalesce(new_name, source.name)
    and n.parent_live;
  if target.id is null then
    return null;
  end if;
  if source.backend_mount_id = target.backend_mount_id
     and (target.path = source.path or source.path = '' or starts_with(target.path, source.path || '/')) then
    raise exception '"%" cannot be copied into itself ("%")', source.path, target.path
      using errcode    = 'FS422',
            constraint = 'nodes_cycle_check',
            hint       = 'Choose a parent outside of the directory that is copied.';
  end if;

  -- A copy is another object of the backend.
  columns := array(
    select format('%I', c.name)
    from unnest(array_remove(filestore.content_columns(), 'backend_identity')) as c (name)
    order by c.name
  );
  -- One statement reads one snapshot: the nodes of the source, and what is at their places.
  execute format(
    $merge$
      with placed as materialized (
        select s.*, t.id as target_id, t.kind as target_kind
        from (
          select n.*, case when n.path = $2 then $4 else $4 || '/' || substr(n.path, case $2 when '' then 1 else length($2) + 2 end) end as new_path
          from filestore.nodes n
          where n.backend_mount_id = $1
            and n.live
            and n.path >= $2
            and n.path < case $2 when '' then repeat(chr(1114111), 651) else $2 || '0' end
            and ($2 in ('', n.path) or n.path >= $2 || '/')
        ) s
        -- "Offset 0" keeps lookups by path, also when statistics are stale.
        left join lateral (
          select f.id, f.kind
          from filestore.nodes f
          where f.backend_mount_id = $3
            and f.path = s.new_path
            and f.live
          offset 0
        ) t on true
      ),
      conflict as materialized (
        select p.new_path, p.target_kind
        from placed p
        where p.kind <> p.target_kind
        order by p.new_path
        limit 1
      ),
      numbered as materialized (
        select p.*, coalesce(p.target_id, nextval($5)) as new_id
        from placed p
        where not exists (select from conflict)
      ),
      -- In order of id, so that concurrent calls do not deadlock.
      locked as materialized (
        select n.id
        from filestore.nodes n
        where n.id = any (array(
          select p.target_id
          from numbered p
          where p.kind = 'file'
            and p.target_id is not null
            and $6
        ))
        order by n.id
        for no key update
      ),
      -- A file may have been moved or deleted since the statement began.
      overwritten as (
        update filestore.nodes n
        set state = 'active', %1$s
        from numbered p
        where n.id = any (array(select l.id from locked l))
          and n.id = p.target_id
          and n.live
          and n.path = p.new_path
        returning n.id
      ),
      created as (
        insert into filestore.nodes (id, backend_mount_id, parent_id, parent_path, name, kind, state, %2$s)
        overriding system value
        select p.new_id, $3, d.new_id, d.new_path, p.name, p.kind, p.state, %3$s
        from numbered p
        join numbered d on d.id = p.parent_id
        where p.target_id is null
      )
      select
        (select c.new_path from conflict c) as path,
        (select c.target_kind from conflict c) as kind,
        (select count(*) from locked) <> (select count(*) from overwritten) or not exists (
          select
          from filestore.nodes n
          where n.id = $9
            and n.live
            and n.path = $4
        ) as is_changed,
        not exists (
          select
          from filestore.nodes n
          where n.id = $7
            and n.live
            and n.path = $2
            and n.version = coalesce($8, n.version)
        ) as is_stale
    $merge$,
    (select string_agg(format('%1$s = p.%1$s', c.name), ', ') from unnest(columns) as c (name)),
    array_to_string(columns, ', '),
    (select string_agg('p.' || c.name, ', ') from unnest(columns) as c (name))
  )
  using
    source.backend_mount_id,
    source.path,
    target.backend_mount_id,
    target.path,
    ids,
    on_conflict = 'overwrite',
    source_id,
    expected_version,
    target.id
  into outcome;

  -- The source and the target were read before, without a lock, and this is another snapshot.
  if outcome.is_stale then
    perform filestore.refuse_stale(source_id, expected_version);
  elsif outcome.kind = 'directory' then
    raise exception '"%" is a directory, and would be replaced by a file', outcome.path
      using errcode    = 'FS409',
            constraint = 'nodes_directory_in_the_way',
            hint       = 'Move or delete the directory, or copy with another name.';
  elsif outcome.kind = 'file' then
    raise exception '"%" is a file, and would be replaced by a directory', outcome.path
      using errcode    = 'FS409',
            constraint = 'nodes_file_in_the_way',
            hint       = 'Move or delete the file, or copy with another name.';
  elsif outcome.is_changed then
    raise sqlstate 'FS001';
  end if;
  return target.id;
exception
  when unique_violation or foreign_key_violation or sqlstate 'FS001' then
    raise exception 'the directory "%" was changed at the same time', target.path
      using errcode    = 'FS409',
            constraint = 'nodes_busy',
            hint       = 'Try again. Nothing was copied.';
end
$$;

comment on function filestore.merge_nodes(bigint, bigint, text, integer, filestore.copy_conflict) is
  'Internal: Copies a node onto one that exists, for filestore.copy_tree: files are overwritten or skipped, directories merged. Returns the id of that node; null when the name is free. It runs as the owner, since services have no right on the sequence of ids.';

revoke all on function filestore.merge_nodes(bigint, bigint, text, integer, filestore.copy_conflict) from public;
--! EndIncluded functions/merge_nodes.sql
--! Included functions/copy_tree.sql
create or replace function filestore.copy_tree(
  node_id          bigint,
  new_parent_id    bigint,
  new_name         text                    default null,
  expected_version integer                 default null,
  on_conflict      filestore.copy_conflict default 'refuse'
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
    if on_conflict in ('skip', 'overwrite') then
      copy_id := filestore.merge_nodes(node_id, new_parent_id, new_name, expected_version, on_conflict);
    end if;
    if copy_id is null then
      copy_id := filestore.copy_nodes(node_id, new_parent_id, new_name, expected_version);
    end if;
  exception
    when unique_violation or check_violation or sqlstate 'FS409' then
      get stacked diagnostics broken = constraint_name;
      if broken in ('nodes_live_child_key', 'nodes_name_taken') and on_conflict in ('skip', 'overwrite') then
        raise exception 'the name "%" was taken at the same time', coalesce(new_name, source.name)
          using errcode    = 'FS409',
                constraint = 'nodes_busy',
                hint       = 'Try again. Nothing was copied.';
      elsif broken = 'nodes_live_child_key' then
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

comment on function filestore.copy_tree(bigint, bigint, text, integer, filestore.copy_conflict) is
  'Copies a node with everything live below it into another directory, of the same or another mount, and returns the copy; new_name null keeps the name. The copies have new ids and version 1, and the content and state of the originals; history, sightings and backend_identity are not copied. When the name is taken, on_conflict decides: refuse; skip, which keeps files that exist; or overwrite, which replaces their content. Directories that exist are then merged, and keep their own content. FS404 when the node or the parent does not exist or is deleted, FS409 when the name is taken, a file would replace a directory or a directory a file, or the node is not at expected_version (null: any), FS422 when a directory would be copied into itself, a path would be too long, or the name is not valid.';

revoke all on function filestore.copy_tree(bigint, bigint, text, integer, filestore.copy_conflict) from public;
--! EndIncluded functions/copy_tree.sql
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
