-- Rows for every table, so that the check notices a migration that fails on rows or writes many. Each statement is
-- committed separately.

insert into filestore.backend_mounts (mount_key, backend_kind, root_path, bucket)
values ('sample-disk', 'local', '/srv/sample', null),
       ('sample-bucket', 's3', null, 'sample');

select filestore.ensure_directory(m.mount_key, format('%s/%s', top, below))
from filestore.backend_mounts m
cross join generate_series(1, 3) top
cross join generate_series(1, 5) below;

insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes, checksum, metadata)
select d.backend_mount_id, d.id, format('%s.bin', number), 'file', number, format('sha256:%s', number),
       jsonb_build_object('number', number)
from filestore.nodes d
cross join generate_series(1, 10) number
where d.depth = 2;

-- History.
update filestore.nodes set size_bytes = size_bytes + 1 where kind = 'file' and size_bytes < 5;

update filestore.nodes set state = 'inconsistent' where kind = 'file' and size_bytes = 6;

-- A tree of tombstones on each mount.
select filestore.delete_node(d.id, recursive => true)
from filestore.nodes d
where d.path = '3/5';

-- Totals that are folded, and some that are not.
select filestore.fold_rollups();

select filestore.create_node(d.id, 'late.bin', size_bytes => 7) from filestore.nodes d where d.path = '1/1';

-- Commands in each state.
select filestore.finish_command(((filestore.begin_command('scan', idempotency_key => number::text)).entry).id, 'succeeded')
from generate_series(1, 5) number;

select filestore.finish_command(((filestore.begin_command('scan')).entry).id, 'failed', error => '{"code": "EIO"}');

select filestore.begin_command('move', queue => true);

-- Sightings of a watcher and a reconciler.
select filestore.record_sightings(array(select n.id from filestore.nodes n where n.live), now(), now());

-- A role that every server has.
select filestore.grant_access('pg_monitor', 'service');

call filestore.backfill('nodes', 'storage_class', $$case when kind = 'file' and live then 'STANDARD' end$$, pause => '0');

-- Otherwise plans change when the server analyses the tables on its own.
analyze;
