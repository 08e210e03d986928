--! Previous: sha1:7c9c427bd0fd7b829abfa001ab3a5be377d1d1f7
--! Hash: sha1:065e0cb310db66f33e2a3813efe34c980051a849
--! Message: Imports below missing directories and of old tombstones

-- Write the next migration here, then: npm run db:commit -- -m "What it does"
--! Included functions/check_staged_nodes.sql
create or replace function filestore.check_staged_nodes(mount_id bigint, given text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  -- A moment of this transaction is not in the future.
  moment   constant timestamptz := statement_timestamp();
  is_local constant boolean     := (select m.backend_kind = 'local' from filestore.backend_mounts m where m.id = mount_id);
  by_paths constant boolean     := 'parent_id' <> all (given);
  lowest   bigint;
  highest  bigint;
  refused  boolean;
begin
  select s.seqmin, greatest(s.seqmax - 200000, pg_sequence_last_value(s.seqrelid))
  into lowest, highest
  from pg_sequence s
  where s.seqrelid = pg_get_serial_sequence('filestore.nodes', 'id')::regclass;

  update pg_temp.filestore_import_nodes t
  set fault = f.fault
  from (
    select
      t.number,
      case
        when t.is_repeated and t.id is null then 'nodes_tombstone_check'
        when t.is_repeated then 'nodes_pkey'
        when t.id is null or t.id not between lowest and highest then 'import_id_check'
        when t.kind is null then 'node_kind_check'
        when t.state is null then 'node_state_check'
        when n.id is not null and t.known_version is null then 'nodes_pkey'
        when n.kind <> t.kind then 'nodes_fixed_check'
        when by_paths and (t.given_path ~ '(^|/)[.]{0,2}(/|$)') is not false then 'nodes_path_check'
        when not by_paths and not t.live and t.given_path ~ '(^|/)[.]{0,2}(/|$)|[[:cntrl:]]' then 'nodes_path_check'
        -- It is below one of these rows, or below itself.
        when t.level is null and p.id is not null then null
        when coalesce(p.id, o.id) is null then 'nodes_parent_missing'
        when p.id is null and o.backend_mount_id <> mount_id then 'nodes_parent_elsewhere'
        when coalesce(p.kind, o.kind) = 'file' then 'nodes_not_directory'
        when t.live and not coalesce(p.live, o.live) then 'nodes_parent_deleted'
        when t.live and t.given_path <> t.path then 'nodes_derived_path_check'
        when is_local and octet_length(t.name) > 255 then 'nodes_local_name_check'
        -- Changes of the new service have to follow.
        when t.action <> 'keep' and t.version > 2000000000 then 'nodes_version_check'
        when not isfinite(t.updated_at) or t.updated_at < '0001-01-01T00:00:00Z' or t.updated_at > moment then 'nodes_updated_at_check'
        when not isfinite(t.deleted_at) or t.deleted_at > moment then 'nodes_deleted_at_check'
        when not isfinite(t.created_at) or t.created_at < '0001-01-01T00:00:00Z' or t.created_at > moment then 'import_moment_check'
        when t.action <> 'keep' and (n.version >= t.version or n.updated_at >= t.updated_at) then 'nodes_stale'
        when t.action <> 'keep' and t.metadata <> '{}' and filestore.has_secret(t.metadata) then 'import_secret_check'
      end as fault
    from pg_temp.filestore_import_nodes t
    left join filestore.nodes n on n.id = t.id
    left join pg_temp.filestore_import_nodes p on p.id = t.parent_id and not p.is_repeated
    left join filestore.nodes o on o.id = t.parent_id
    where t.fault is null
  ) f
  where t.number = f.number
    and f.fault is not null;
  with recursive below (id) as (
    select t.id
    from pg_temp.filestore_import_nodes t
    where t.level is null
      and (
        t.fault is not null
        or exists (
          select
          from pg_temp.filestore_import_nodes p
          where p.id = t.parent_id
            and p.level is not null
        )
      )
    union
    select t.id
    from below b
    join pg_temp.filestore_import_nodes t on t.parent_id = b.id
    where t.level is null
  )
  update pg_temp.filestore_import_nodes t
  set fault = case when exists (select from below b where b.id = t.id) then 'import_parent_refused' else 'nodes_cycle_check' end
  where t.level is null
    and t.fault is null;

  -- Two live rows of one place: none of them is known to be the right one.
  update pg_temp.filestore_import_nodes t
  set fault = 'nodes_name_taken'
  from (
    select o.parent_id, o.name
    from pg_temp.filestore_import_nodes o
    where o.live
      and o.fault is null
    group by o.parent_id, o.name
    having count(*) > 1
  ) d
  where t.parent_id = d.parent_id
    and t.name = d.name
    and t.live
    and t.fault is null;
  perform filestore.check_staged_rows('filestore_import_nodes', 'nodes', '{}');

  -- A node that is refused stays where it is, so that others may be refused too.
  loop
    update pg_temp.filestore_import_nodes t
    set fault = 'import_parent_refused'
    from pg_temp.filestore_import_nodes p
    where p.id = t.parent_id
      and (p.fault is not null or p.action = 'stay')
      and t.fault is null
      and t.action not in ('keep', 'stay');
    refused := found;
    -- A directory that is equal, but does not get the path with which the rows in it are planned.
    update pg_temp.filestore_import_nodes t
    set action = 'stay'
    from pg_temp.filestore_import_nodes p, filestore.nodes n
    where p.id = t.parent_id
      and (p.fault is not null or p.action = 'stay')
      and n.id = t.id
      and n.path <> t.path
      and t.directory_path is not null
      and t.live
      and t.fault is null
      and t.action = 'keep';
    refused := refused or found;

    -- A live node of the mount that stays has the place, or is in a directory that would be deleted.
    update pg_temp.filestore_import_nodes t
    set fault = 'nodes_name_taken'
    from filestore.nodes n
    where n.parent_id = t.parent_id
      and n.name = t.name
      and n.parent_live
      and n.id <> t.id
      and t.live
      and t.fault is null
      and not exists (
        select
        from pg_temp.filestore_import_nodes o
        where o.id = n.id
          and o.fault is null
      );
    refused := refused or found;
    update pg_temp.filestore_import_nodes t
    set fault = 'nodes_not_empty'
    where t.action = 'move'
      and not t.live
      and t.fault is null
      and exists (
        select
        from filestore.nodes n
        where n.parent_id = t.id
          and n.parent_live
          and not exists (
            select
            from pg_temp.filestore_import_nodes o
            where o.id = n.id
              and o.fault is null
          )
      );
    exit when not (refused or found);
  end loop;
end
$$;

comment on function filestore.check_staged_nodes(bigint, text[]) is
  'Internal: Sets the fault of each staged node that cannot be imported: the reason of a refusal.';

revoke all on function filestore.check_staged_nodes(bigint, text[]) from public;
--! EndIncluded functions/check_staged_nodes.sql

--! Included functions/place_by_paths.sql
create or replace function filestore.place_by_paths(mount_id bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
-- With stale statistics, the planner would join each node with its directory by a nested loop.
set enable_nestloop = off
as $$
declare
  root_id bigint := (select n.id from filestore.nodes n where n.root_of_mount_id = mount_id);
  begins  timestamptz[] := array(select i.started_at from filestore.imports i where i.backend_mount_id = mount_id and i.takes_nodes and i.nodes > 0);
begin
  -- The root of the staged tree is that of the mount.
  delete from pg_temp.filestore_import_raw r
  where r.path = '';

  -- Tombstones that nothing tells apart, at this call or at a later one.
  update pg_temp.filestore_import_raw r
  set is_repeated = true
  from (
    select o.path, o.kind, o.deleted_at
    from pg_temp.filestore_import_raw o
    where o.id is null
      and not o.live
    group by o.path, o.kind, o.deleted_at
    having count(*) > 1
  ) d
  where r.id is null
    and not r.live
    and r.path = d.path
    and r.kind = d.kind
    and r.deleted_at = d.deleted_at;

  update pg_temp.filestore_import_raw r
  set id = n.id
  from filestore.nodes n
  where r.id is null
    and n.backend_mount_id = mount_id
    and n.path = r.path
    and n.live
    and r.live;
  update pg_temp.filestore_import_raw r
  set id = n.id
  from filestore.nodes n
  where r.id is null
    and n.backend_mount_id = mount_id
    and n.path = r.path
    and n.kind = r.kind
    and n.deleted_at = r.deleted_at
    and not n.live
    and not r.live
    and not r.is_repeated;
  -- A tombstone without a moment is the one that was deleted last.
  update pg_temp.filestore_import_raw r
  set id = f.id
  from (
    select distinct on (o.number) o.number, n.id
    from pg_temp.filestore_import_raw o
    join filestore.nodes n on n.path = o.path and n.kind = o.kind
    where o.id is null
      and not o.live
      and not o.has_moment
      and not o.is_repeated
      and n.backend_mount_id = mount_id
      and not n.live
      and not exists (
        select
        from pg_temp.filestore_import_raw t
        where t.id = n.id
      )
    order by o.number, n.deleted_at desc, n.id desc
  ) f
  where r.number = f.number;
  -- A node without a live row has been deleted by the first tombstone after its creation. What a service created after the
  -- last import is another node. A node without moments was created at the moment of its import.
  update pg_temp.filestore_import_raw r
  set id = f.id
  from (
    select distinct on (n.id) n.id, o.number
    from pg_temp.filestore_import_raw o
    join filestore.nodes n on n.path = o.path and n.kind = o.kind
    where o.id is null
      and not o.live
      and not o.is_repeated
      and n.backend_mount_id = mount_id
      and n.live
      and n.created_at <= (select max(b.moment) from unnest(begins) b (moment))
      and (n.created_at = any (begins) or (o.has_moment and o.deleted_at >= n.created_at))
      and not exists (
        select
        from pg_temp.filestore_import_raw l
        where l.path = n.path
          and l.live
      )
      and not exists (
        select
        from pg_temp.filestore_import_raw t
        where t.id = n.id
      )
    order by n.id, o.deleted_at, o.number
  ) f
  where r.number = f.number;
  -- A tombstone that is live again, and not another node at its path: it was created at the same moment.
  update pg_temp.filestore_import_raw r
  set id = f.id
  from (
    select distinct on (o.number) o.number, n.id
    from pg_temp.filestore_import_raw o
    join filestore.nodes n on n.path = o.path and n.kind = o.kind and n.created_at = o.born_at
    where o.id is null
      and o.live
      and n.backend_mount_id = mount_id
      and not n.live
      and not exists (
        select
        from pg_temp.filestore_import_raw t
        where t.id = n.id
      )
    order by o.number, n.deleted_at desc, n.id desc
  ) f
  where r.number = f.number;
  update pg_temp.filestore_import_raw r
  set id = nextval(pg_get_serial_sequence('filestore.nodes', 'id'))
  where r.id is null
    and not r.is_repeated;

  update pg_temp.filestore_import_raw r
  set is_repeated = true
  where r.id in (
    select o.id
    from pg_temp.filestore_import_raw o
    group by o.id
    having count(*) > 1
  );
  -- A tombstone stays in the directory in which the mount has it. Another one is in the live directory at its path, or else in
  -- the one that was deleted last.
  create temporary table filestore_import_placed as
  with directories as materialized (
    select distinct on (d.path) d.path, d.id
    from pg_temp.filestore_import_raw d
    where d.kind = 'directory'
    order by d.path, d.live desc, d.deleted_at desc, d.number desc
  ),
  others as materialized (
    select distinct on (d.path) d.path, d.id
    from filestore.nodes d
    where d.backend_mount_id = mount_id
      and d.parent_id is not null
      and d.directory_path is not null
    order by d.path, d.live desc, d.deleted_at desc, d.id desc
  )
  select
    q.number,
    q.id,
    cardinality(string_to_array(q.path, '/')) as level,
    q.path,
    case q.parent_path when '' then root_id else coalesce(k.parent_id, d.id, o.id) end as parent_id,
    q.parent_path
  from (
    select r.number, r.id, r.live, r.path, left(r.path, -strpos(reverse(r.path), '/')) as parent_path
    from pg_temp.filestore_import_raw r
  ) q
  left join directories d on d.path = q.parent_path
  left join others o on o.path = q.parent_path
  left join filestore.nodes k on k.id = q.id and k.backend_mount_id = mount_id and k.path = q.path and not k.live and not q.live;
end
$$;

comment on function filestore.place_by_paths(bigint) is
  'Internal: Finds the directories of staged nodes that have full paths. A node without an id gets that of the node at its path, or the next one.';

revoke all on function filestore.place_by_paths(bigint) from public;
--! EndIncluded functions/place_by_paths.sql
