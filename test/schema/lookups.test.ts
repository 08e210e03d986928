import { beforeAll, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/database.ts';
import { createMount, foldAll, type Mount, one } from '../support/tree.ts';

const database = databaseForFile();
let mount: Mount;

/** 100 directories of 1 000 files each, a few of them unsettled, tagged or deleted. */
beforeAll(async () => {
  mount = await createMount(database(), 's3');
  await database().query("update filestore.backend_mounts set mount_key = 'm'");
  await database().query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select $1, $2, 'd' || g, 'directory' from generate_series(1, 100) g`,
    [mount.id, mount.rootId],
  );
  await database().query(
    `insert into filestore.nodes
       (backend_mount_id, parent_id, parent_path, parent_live, name, kind, size_bytes, checksum, state, metadata)
     select $1, d.id, d.path, true, 'f' || g, 'file', g, 'md5:' || md5(d.name || g),
            case when g % 500 = 1 then 'missing' when g % 500 = 2 then 'inconsistent' else 'active' end,
            case when g % 100 = 3 then jsonb_build_object('tag', d.name) else '{}' end
     from filestore.nodes d, generate_series(1, 1000) g
     where d.parent_id = $2`,
    [mount.id, mount.rootId],
  );
  // A version of every file, and an entry of the journal.
  await database().query("update filestore.nodes set storage_class = 'COLD' where kind = 'file'");
  await database().query("update filestore.nodes set state = 'deleted' where name = 'f7'");
  // Entries of the past, which no one can insert.
  const client = await database().connect();
  await client.query('set session_replication_role = replica');
  await client.query(
    `insert into filestore.journal_entries
       (backend_mount_id, command, status, started_at, completed_at, idempotency_key, correlation_id, affected_node_ids, created_at)
     select $1, 'move', 'succeeded', moment, moment, 'key-' || g, 'correlation-' || g, array[g], moment
     from (select g, now() - (100000 - g) * interval '1 minute' as moment from generate_series(1, 100000) g) past`,
    [mount.id],
  );
  await database().query("select filestore.begin_command('move', queue => true)");
  await database().query('select filestore.record_sightings(array(select id from filestore.nodes))');
  await foldAll(database());
  await database().query(`vacuum analyze ${LARGE.map((table) => `filestore.${table}`).join(', ')}`);
  await database().query('analyze filestore.backend_mounts');
});

const LARGE = ['nodes', 'snapshots', 'journal_entries', 'node_sightings'];

/** Every index a statement's plan uses; a sequential scan of a large table fails the test. */
async function indexesOf(statement: string): Promise<readonly string[]> {
  const rows = await database().query(`explain (format json) ${statement}`);
  const text = JSON.stringify(rows);
  expect(text).not.toMatch(new RegExp(`"Node Type":"Seq Scan"[^{}]*"Relation Name":"(${LARGE.join('|')})"`));
  return [...text.matchAll(/"Index Name":"([^"]+)"/g)].map((match) => match[1] ?? '');
}

const ACTIVE = 'select id, path, location from filestore.view_filestore_active_nodes';

test.each([
  [
    'a path',
    () => `${ACTIVE} where mount_key = (select mount_key from filestore.backend_mounts) and path = 'd5/f9'`,
    'nodes_live_path_idx',
  ],
  [
    'a path of a mount by id',
    () => `${ACTIVE} where backend_mount_id = ${mount.id} and path = 'd5/f9'`,
    'nodes_live_path_idx',
  ],
  [
    'everything below a path',
    () => `${ACTIVE} where backend_mount_id = ${mount.id} and path >= 'd5/' and path < 'd50'`,
    'nodes_live_path_idx',
  ],
  [
    'the first page of a directory',
    () =>
      `select id, name from filestore.nodes where backend_mount_id = ${mount.id} and parent_id = 60 and parent_live order by name limit 50`,
    'nodes_live_child_key',
  ],
  [
    'the next page of a directory',
    () =>
      `select id, name from filestore.nodes where backend_mount_id = ${mount.id} and parent_id = 60 and parent_live and name > 'f5' order by name limit 50`,
    'nodes_live_child_key',
  ],
  [
    'a checksum',
    () =>
      `${ACTIVE} where hashtextextended(checksum, 0) = hashtextextended('md5:abc', 0) and checksum = 'md5:abc'`,
    'nodes_checksum_idx',
  ],
  [
    'the missing nodes of a mount',
    () =>
      `select id from filestore.nodes where backend_mount_id = ${mount.id} and state = 'missing' order by id limit 100`,
    'nodes_unsettled_idx',
  ],
  [
    'metadata',
    () => `${ACTIVE} where metadata @> '{"tag": "d5"}' and metadata <> '{}'`,
    'nodes_metadata_idx',
  ],
  [
    'the tombstones below a directory',
    () => 'select id from filestore.nodes where parent_id = 60 and not live',
    'nodes_tombstone_parent_idx',
  ],
  ['a node', () => `${ACTIVE} where id = 500`, 'nodes_pkey'],
  [
    'the root of a mount',
    () => `select id from filestore.nodes where root_of_mount_id = ${mount.id}`,
    'nodes_root_key',
  ],
  [
    "the children that a directory's move carries (the cascade's own statement)",
    () =>
      `update only filestore.nodes set parent_path = 'z' where ${mount.id} = backend_mount_id and 60 = parent_id and 'd5' collate "C" = parent_path and true = parent_live`,
    'nodes_live_child_key',
  ],
])('%s is found by an index at 100 000 rows', async (_, statement, index) => {
  expect(await indexesOf(statement())).toContain(index);
});

test.each([
  [
    'what happened to a node',
    'select id from filestore.journal_entries where affected_node_ids @> array[500::bigint]',
    'journal_entries_affected_idx',
  ],
  [
    'the commands of one correlation',
    "select id from filestore.journal_entries where correlation_id = 'correlation-500'",
    'journal_entries_correlation_idx',
  ],
  [
    'the unfinished commands',
    "select id from filestore.journal_entries where status in ('queued', 'running') order by created_at",
    'journal_entries_open_idx',
  ],
  [
    'what happened within an hour',
    "select id from filestore.journal_entries where created_at between now() - interval '3 hours' and now() - interval '2 hours'",
    'journal_entries_created_idx',
  ],
  [
    'an earlier version',
    'select * from filestore.view_filestore_node_versions where id = 500 and version = 1',
    'snapshots_pkey',
  ],
])('%s is found by an index at 100 000 entries', async (_, statement, index) => {
  expect(await indexesOf(statement)).toContain(index);
});

/** The indexes that calls in one transaction read, and the large tables that they read from end to end. */
async function scansOf(...calls: readonly string[]): Promise<readonly string[]> {
  const client = await database().connect();
  await client.query('begin');
  for (const call of calls) await client.query(`select * from filestore.${call}`);
  const { rows } = await client.query(
    `select c.relname as name
     from pg_class c
     where c.relnamespace = 'filestore'::regnamespace
       and (c.relkind = 'i' or c.relname = any($1))
       and pg_stat_get_xact_numscans(c.oid) > 0`,
    [LARGE],
  );
  await client.query('rollback');
  return rows.map(({ name }) => name);
}

test.each([
  ["node_by_path('m', 'd5/f9')", ['nodes_live_path_idx']],
  ['node_location(500)', ['nodes_pkey']],
  ["list_directory(60, 'f5', 50)", ['nodes_live_child_key']],
  ["find_by_checksum('md5:' || md5('d5f9'))", ['nodes_checksum_idx']],
  ['node_at(500, now())', ['snapshots_pkey', 'nodes_pkey']],
  ["tree_at('m', 'd5', now())", ['snapshots_path_idx', 'nodes_live_path_idx']],
  ["create_node(60, 'new')", ['nodes_live_child_key']],
  [`create_nodes('[{"parent_id": 60, "name": "new"}, {"parent_id": 61, "name": "new"}]')`, ['nodes_pkey']],
  ["copy_tree(60, 61, 'copy')", ['nodes_pkey', 'nodes_live_path_idx']],
  ["ensure_directory('m', 'd5/x/y')", ['nodes_live_path_idx', 'nodes_live_child_key']],
  ["move_node(60, null, 'renamed')", ['nodes_live_child_key']],
  ['delete_node(60, null, true)', ['nodes_live_path_idx']],
  ['delete_batch(60, 10)', ['nodes_live_path_idx']],
  ['revert_node(500, 1)', ['snapshots_pkey']],
  ['record_sightings(array[500, 501])', ['nodes_pkey', 'node_sightings_pkey']],
  ["purge_deleted('0', 10)", ['nodes_purge_idx', 'nodes_tombstone_parent_idx']],
  ["begin_command('move', '{}', null, null, 'new')", ['journal_entries_attempts_idx']],
  ["expire_commands('1 hour')", ['journal_entries_open_idx']],
])('%s reads no large table from end to end, but %j', async (call, indexes) => {
  const scans = await scansOf(call);
  expect(scans).toEqual(expect.arrayContaining(indexes));
  expect(scans.filter((name) => LARGE.includes(name))).toEqual([]);
});

describe('a deleted directory', () => {
  const directory = '(select max(id) - 1 from filestore.nodes)';
  const deleteTree = ["ensure_directory('m', 'd5/x/y')", `delete_node(${directory}, null, true)`];

  // The key looks for children of a dead directory, by parent_live = false: an index must serve that too.
  test('is restored, with what is below, without reading a large table from end to end', async () => {
    const scans = await scansOf(...deleteTree, `restore_node(${directory}, null, true)`);
    expect(scans.filter((name) => LARGE.includes(name))).toEqual([]);
  });

  test('is purged, with what is below, without reading a large table from end to end', async () => {
    for (const call of [...deleteTree, 'fold_rollups(1000000)'])
      await database().query(`select filestore.${call}`);
    const scans = await scansOf("purge_deleted('0')");
    expect(scans.filter((name) => LARGE.includes(name))).toEqual([]);
  });
});

test('a listing by keyset is in order without a sort', async () => {
  const [plan] = await database().query(
    `explain (format json) select id, name from filestore.nodes
     where backend_mount_id = ${mount.id} and parent_id = 60 and parent_live order by name limit 50`,
  );
  expect(JSON.stringify(plan)).not.toContain('"Sort"');
});

test('the active nodes leave out what is deleted', async () => {
  const { total } = await one(
    database(),
    'select count(*) as total from filestore.view_filestore_active_nodes',
  );
  expect(total).toBe(String(1 + 100 + 100 * 999));
});

test('every foreign key has an index on its referencing side', async () => {
  const rows = await database().query(
    `select c.conname
     from pg_constraint c
     where c.contype = 'f' and c.connamespace = 'filestore'::regnamespace
       and not exists (
         select from pg_index i
         where i.indrelid = c.conrelid and i.indisvalid and i.indkey[0] = any (c.conkey)
       )`,
  );
  expect(rows).toEqual([]);
});
