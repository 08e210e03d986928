-- Calls on the sample rows, so that the check notices a function or trigger that fails when it runs. Each statement is
-- committed separately. It may be refused: then each function that the error names has run.

-- Create.
select filestore.upsert_file('sample-disk', '1/2/new.bin', size_bytes => 3, last_seen_at => now());

select filestore.upsert_file('sample-disk', '1/2/new.bin', checksum => 'sha256:' || repeat('0', 64), size_bytes => 4);

select filestore.upsert_directory('sample-disk', '1/2/new.bin', '{"a": 1}', replace_file => true);

select filestore.canonical_checksum(repeat('0', 64));

select filestore.create_nodes(jsonb_build_array(jsonb_build_object('parent_id', d.id, 'name', 'batch')))
from filestore.nodes d
where d.path = '1/3';

select filestore.create_nodes(jsonb_build_array(jsonb_build_object('parent_id', d.id, 'name', '')))
from filestore.nodes d
where d.path = '1/3';

select filestore.create_nodes(jsonb_build_array(jsonb_build_object('parent_id', d.id, 'name', '1.bin')))
from filestore.nodes d
where d.path = '1/3';

select filestore.create_node(d.id, '1.bin') from filestore.nodes d where d.path = '1/3';

select filestore.require_parent(d) from filestore.nodes d where d.path = '1/3';

select filestore.create_node(d.id, repeat('x', 300)) from filestore.nodes d where d.path = '1/3';

insert into filestore.nodes (backend_mount_id, parent_id, name, kind, version)
select d.backend_mount_id, d.id, 'second', 'file', 2
from filestore.nodes d
where d.path = '1/3';

insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes)
select d.backend_mount_id, d.id, 'negative', 'file', -1
from filestore.nodes d
where d.path = '1/3';

-- Read.
select filestore.writable_mount('sample-disk');

select filestore.node_by_path('sample-disk', '1/2/new.bin');

select filestore.node_by_id(n.id) from filestore.nodes n where n.path = '1/2/new.bin';

select filestore.nodes_by_id(array(select n.id from filestore.nodes n where n.depth < 2));

select filestore.nodes_by_path('sample-disk', '{/1//2,1/2/new.bin,none}');

select filestore.node_location(n.id) from filestore.nodes n where n.path = '1/2/new.bin';

select filestore.list_directory(d.id, with_deleted => with_deleted)
from filestore.nodes d
cross join unnest('{f,t}'::boolean[]) with_deleted
where d.path = '1/2';

select filestore.list_nodes('sample-disk', '1', states, max_depth => 1, order_by => order_by, with_totals => true)
from unnest('{path,size}'::text[]) order_by
cross join (values ('{active}'::text[]), ('{active,deleted}')) s (states);

select filestore.list_nodes('sample-disk', metadata_contains => '[]');

select filestore.count_nodes('sample-disk', states => '{deleted}', max_nodes => 1);

select filestore.count_nodes('sample-disk', kinds => '{file}', min_size => 1);

select filestore.find_by_checksum('sha256:' || repeat('0', 64));

select filestore.list_unseen('sample-disk', now());

select filestore.directory_totals(d.id) from filestore.nodes d where d.path = '1';

select filestore.list_totals(array(select d.id from filestore.nodes d where d.depth < 2));

select filestore.climb_far(array(select d.id from filestore.nodes d where d.directory_path is not null), '{1}', '{1}', '{1}', '{1}');

-- Mounts.
select filestore.list_mounts();

select filestore.mount_by_key('sample-disk');

select filestore.mount_by_id(m.id) from filestore.backend_mounts m;

select filestore.create_mount('{"mount_key": "sample-second", "backend_kind": "s3", "bucket": "second"}');

select filestore.create_mount('{"id": 1}');

select filestore.update_mount('sample-second', '{"state": "inactive", "labels": {"team": "a"}}', expected_version => 1);

select filestore.update_mount('sample-second', '{}', expected_version => 1);

select filestore.delete_mount('sample-second');

-- Change, move, copy.
select filestore.merge_metadata(n.id, '{"a": 1}', '{number}') from filestore.nodes n where n.path = '1/2/1.bin';

select filestore.merge_metadata(n.id, '{"a": 1}', expected_version => 99) from filestore.nodes n where n.path = '1/2/1.bin';

update filestore.nodes set version = 99 where path = '1/2/1.bin';

update filestore.nodes set state = 'deleted' where path = '';

select filestore.move_node(n.id, p.id, 'moved.bin')
from filestore.nodes n
join filestore.nodes p using (backend_mount_id)
where n.path = '1/2/2.bin'
  and p.path = '2/1';

select filestore.move_node(d.id, p.id, 'moved')
from filestore.nodes d
join filestore.nodes p using (backend_mount_id)
where d.path = '1/4'
  and p.path = '2';

select filestore.copy_tree(d.id, p.id, 'copied')
from filestore.nodes d
join filestore.nodes p using (backend_mount_id)
where d.path = '1/5'
  and p.path = '3';

select filestore.copy_tree(d.id, p.id, 'copied', on_conflict => on_conflict)
from filestore.nodes d
join filestore.nodes p using (backend_mount_id)
cross join unnest('{skip,overwrite}'::text[]) on_conflict
where d.path = '1/5'
  and p.path = '3';

select filestore.ensure_directory('sample-disk', repeat(repeat('x', 250) || '/', 10));

select filestore.copy_tree(d.id, p.id, repeat('x', 250))
from filestore.nodes d
join filestore.nodes p using (backend_mount_id)
where d.path = '1/5'
  and p.depth = 10;

select filestore.update_nodes(jsonb_build_array(jsonb_build_object('id', n.id, 'size_bytes', 9, 'expected_version', n.version)))
from filestore.nodes n
where n.path = '1/3/3.bin';

select filestore.update_nodes('[{"id": 1, "path": "x"}]');

select filestore.set_states(array(select n.id from filestore.nodes n where n.path in ('1/3/1.bin', '1/3/2.bin')), 'missing');

-- History.
select filestore.node_versions(n.id, page_size => 1) from filestore.nodes n where n.path = '1/3/1.bin';

select filestore.node_at(n.id, now()) from filestore.nodes n where n.path = '1/2/1.bin';

select filestore.tree_at('sample-disk', '1', now());

select filestore.revert_node(n.id, 1) from filestore.nodes n where n.path = '1/2/1.bin';

insert into filestore.snapshots select s.* from filestore.snapshots s limit 1;

delete from filestore.snapshots;

select filestore.prune_history('0', 0);

select filestore.node_at(n.id, n.created_at) from filestore.nodes n where n.path = '1/2/1.bin';

select filestore.tree_at('sample-disk', '1', '2000-01-01');

-- Delete, restore, purge.
select filestore.restore_node(d.id, with_tree => true) from filestore.nodes d where d.path = '3/5' and not d.live;

select filestore.delete_batch(d.id, 1) from filestore.nodes d where d.path = '3/5';

select filestore.delete_node(d.id, recursive => true) from filestore.nodes d where d.path = '3/5';

select filestore.fold_rollups();

select filestore.purge_deleted('0');

delete from filestore.nodes where live;

truncate filestore.nodes cascade;

-- Scans. The first one creates; the second one finds a swap, a circle of a file and a directory, changes, and less than before.
select filestore.upsert_file('sample-disk', 'scanned/a/same', size_bytes => 1, backend_identity => '1');

select filestore.record_entries(b.id, E'[{"path": "a", "kind": "directory", "backend_identity": "7"}, {"path": "a/same", "size_bytes": 1, "backend_identity": "1"},
  {"path": "b/c", "size_bytes": 2, "backend_identity": "2"}, {"path": "d", "size_bytes": 3, "backend_identity": "3"},
  {"path": "e/f", "size_bytes": 4, "backend_identity": "4"}, {"path": "x\\u0001y"}]')
from filestore.begin_scan('sample-disk', 'scanned') b;

select filestore.scan_differences(max(s.id)) from filestore.scans s;

select filestore.apply_scan(max(s.id)) from filestore.scans s;

select filestore.apply_scan(max(s.id)) from filestore.scans s;

select filestore.apply_scan(max(s.id)) from filestore.scans s;

select filestore.apply_scan(max(s.id)) from filestore.scans s;

select filestore.apply_scan(max(s.id)) from filestore.scans s;

select filestore.apply_scan(max(s.id)) from filestore.scans s;

select filestore.create_nodes(jsonb_agg(jsonb_build_object('parent_id', d.id, 'name', g::text)))
from filestore.nodes d
cross join generate_series(1, 200) g
where d.path = 'scanned';

select filestore.record_entries(b.id, '[{"path": "z", "kind": "directory", "backend_identity": "7"}, {"path": "z/same", "size_bytes": 2, "backend_identity": "1"},
  {"path": "d", "size_bytes": 2, "backend_identity": "2"}, {"path": "b/c", "size_bytes": 3, "backend_identity": "3"},
  {"path": "e", "size_bytes": 4, "backend_identity": "4"}]')
from filestore.begin_scan('sample-disk', 'scanned') b;

select filestore.record_entries(max(s.id), '[{"path": "e", "size_bytes": 4, "backend_identity": "4"}]') from filestore.scans s;

select filestore.record_entries(max(s.id), '[{"path": "../e"}]') from filestore.scans s;

select filestore.record_entries(max(s.id), '[{"path": "g"}, {"path": "g/h"}]') from filestore.scans s;

select filestore.record_entries(max(s.id), '[{"path": "e", "size_bytes": -1}]') from filestore.scans s;

select filestore.apply_scan(max(s.id)) from filestore.scans s;

select filestore.upsert_file('sample-disk', 'scanned/b/c', size_bytes => 9);

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.apply_scan(max(s.id), 1) from filestore.scans s;

select filestore.record_entries(max(s.id), '[]') from filestore.scans s;

select filestore.cancel_scan(b.id) from filestore.begin_scan('sample-bucket') b;

select filestore.expire_scans();

select filestore.refuse_vanished('synced/a');

select filestore.sync_nodes('sample-bucket', '[{"path": "synced/a", "size_bytes": 1}, {"path": "synced/b", "kind": "directory"}]');

-- Journal.
update filestore.journal_entries set status = 'running', command = 'other' where status = 'queued';

select filestore.start_command(e.id) from filestore.journal_entries e where e.status = 'queued';

do $$
begin
  perform filestore.begin_work(e.id) from filestore.journal_entries e where e.status = 'running';
  update filestore.nodes set size_bytes = 100 where path = '1/1/1.bin';
end
$$;

select filestore.begin_work(0);

select filestore.list_commands();

select filestore.command_by_id(1);

select filestore.node_commands(n.id) from filestore.nodes n where n.path = '1/1/1.bin';

delete from filestore.journal_entries;

select filestore.expire_commands('0');

select filestore.prune_journal('0');

-- Upkeep.
select filestore.audit_rollups('sample-disk');

update filestore.rollups set consistency_state = 'stale';

select filestore.recount_rollups('sample-disk');

select filestore.check_integrity();

select filestore.check_access();

select filestore.renew_access();

select filestore.revoke_access('pg_monitor');

update filestore.backend_mounts set config = '{"password": "https://user:secret@host"}' where mount_key = 'sample-disk';

insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('sample-empty', 'local', '/srv/empty');

select filestore.delete_mount('sample-empty');

-- A move of a mount, and its end.
call filestore.prepare_moves(true);

select filestore.upsert_file('sample-bucket', 'guarded.bin');

select filestore.set_database_number(1);

-- The source of a move.
select filestore.start_move('sample-bucket', 7);

select filestore.start_move('sample-bucket', 7, m.id) from filestore.moves m;

select filestore.prove_mount('sample-bucket');

select filestore.prove_mount('sample-bucket');

select filestore.upsert_file('sample-bucket', 'moving.bin');

select * from filestore.view_filestore_mount_moves;

select filestore.close_mount('sample-bucket', jsonb_build_object('move', m.id, 'mark', m.mark, 'early', m.early_digest)) from filestore.moves m;

update filestore.moves set step = 'closed', closed_until = now() - interval '1 second';

update filestore.backend_mounts set held_by = -1 where mount_key = 'sample-bucket';

select filestore.writable_mount('sample-bucket');

select filestore.upsert_file('sample-bucket', 'reopened.bin');

select filestore.close_mount('sample-bucket', '{}');

select filestore.refuse_locked('sample-bucket');

update filestore.moves set step = 'closed', closed_until = now() + interval '1 hour';

update filestore.backend_mounts set held_by = -1 where mount_key = 'sample-bucket';

select filestore.release_mount('sample-bucket', jsonb_build_object('move', m.id, 'mark', m.mark, 'attempt', m.attempt, 'late', filestore.digest_mount(m, true)))
from filestore.moves m;

select filestore.finish_move('sample-bucket', jsonb_build_object('move', m.id, 'finished', true, 'sightings', null)) from filestore.moves m;

update filestore.moves set step = 'finished', finished_at = now();

select filestore.start_move('sample-bucket', 7);

-- Imports: by paths and by parents, with rows that cannot be taken; then again, with changes of places.
select filestore.reserve_ids('nodes', 100000);

insert into filestore.backend_mounts (mount_key, backend_kind, bucket) values ('sample-import', 's3', 'sample-import');

create temporary table sample_paths as
select *
from (values
  ('a', 'directory', null, '{}'::jsonb),
  ('a/b', 'file', null, '{"password": "x1"}'),
  ('a/gone', 'file', '2025-01-01Z'::timestamptz, '{}'),
  (E'a/\u0001', 'file', null, '{}')
) as s (path, kind, deleted_at, metadata);

select * from filestore.check_import('sample-import', 'pg_temp.sample_paths');

call filestore.import_nodes('sample-import', 'pg_temp.sample_paths');

call filestore.import_nodes('sample-import', 'pg_temp.sample_paths', take_rest => true);

create temporary table sample_parents as
select s.id, s.parent_id, s.name, s.kind, 2 as version, s.updated_at
from (values
  (70001, null::bigint, 'top', 'directory', '2025-01-01Z'::timestamptz),
  (70002, 70001, 'file', 'file', '2025-01-02Z')
) as s (id, parent_id, name, kind, updated_at);

create temporary table sample_versions as
select 70002 as id, 1 as version, '2025-01-01Z'::timestamptz as updated_at;

create temporary table sample_entries as
select 70001 as id, 'upload' as command, 'succeeded' as status, '{"key": "x"}'::jsonb as parameters, '2025-01-01Z'::timestamptz as started_at;

call filestore.import_nodes('sample-import', 'pg_temp.sample_parents', 'pg_temp.sample_versions', 'pg_temp.sample_entries');

update sample_parents set name = 'renamed', version = 4, updated_at = '2025-02-01Z';

call filestore.import_nodes('sample-import', 'pg_temp.sample_parents', 'pg_temp.sample_versions', take_rest => true);

-- The target of a move.
select filestore.accept_move(jsonb_build_object(
  'move', 7 * 1099511627776 + 1,
  'source', 7,
  'target', filestore.database_number(),
  'schema', filestore.mount_schema(),
  'mount', to_jsonb(m) || '{"id": 7, "mount_key": "sample-arriving", "root_path": "/srv/arriving"}'
))
from filestore.backend_mounts m
where m.mount_key = 'sample-disk';

select filestore.prove_mount('sample-arriving');

select filestore.subscription_errors('sample');

select filestore.prove_target(m) from filestore.moves m;

select filestore.receive_mount('sample-arriving');

select filestore.receive_sightings('sample-arriving', '{}', '{}', '{}');

select filestore.add_stale_totals(m.id, 0) from filestore.backend_mounts m;

call filestore.cancel_move('sample-arriving');

call filestore.prepare_moves(false);

update filestore.backend_mounts set state = 'inactive' where mount_key = 'sample-bucket';

call filestore.erase_mount('sample-bucket');
