import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { explain, type Plan, scansOf } from '../support/databases/plans.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { FILES, idOf, loadLargeTree } from '../support/rows/large-tables.ts';
import { type KnownIds, LOOKUPS, NODE } from '../support/rows/lookup-statements.ts';
import { foldAll, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
let client: Client;
let mount: Mount;
let known: KnownIds;
/** Number of pages that a lookup by primary key reads. */
let ofPrimaryKey: number;

beforeAll(async () => {
  mount = await loadLargeTree(database());
  await database().query("update filestore.backend_mounts set mount_key = 'm'");
  await database().query(
    "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('bare', 'local', '/bare')",
  );
  const { id: bare } = await one(
    database(),
    "select id from filestore.backend_mounts where mount_key = 'bare'",
  );
  // The few changes since the last poll, with the deletion of "gone".
  await database().query(
    `update filestore.nodes set storage_class = 'COLD'
     where id in (select id from filestore.nodes where live and kind = 'file' order by id limit 20)`,
  );
  await foldAll(database());
  client = await database().connect();
  const idFor = (path: string) => idOf(database(), path);
  known = {
    mount: mount.id,
    bare,
    d5: await idFor('d5'),
    d1: await idFor('d1'),
    empty: await idFor('empty'),
    gone: await idFor('gone'),
  };
  ofPrimaryKey = (await explain(client, `select * from filestore.nodes where id = ${NODE}`)).pages;
});

const LARGE = ['nodes', 'snapshots', 'node_sightings'];

/** A few pages more than the rows take if each is on its own page. */
function expectFewPages({ pages, rows, scanned }: Plan): void {
  expect(scanned.filter((table) => LARGE.includes(table))).toEqual([]);
  expect(pages).toBeLessThanOrEqual(10 * ofPrimaryKey + rows);
}

test.each(LOOKUPS)('%s: found by an index among 300 000 nodes', async (_, statement, index, rows) => {
  const plan = await explain(client, statement(known));
  expect(plan).toMatchObject({ rows, indexes: expect.arrayContaining([index]) });
  expectFewPages(plan);
  // A page in index order costs the same anywhere in a directory.
  if (statement(known).includes('order by name')) expect(plan.sorts).toBe(false);
});

test('the key finds the children of a directory by an index, also on a mount that the statistics do not know', async () => {
  const [plan] = await database().query(
    `explain (format json) select from only filestore.nodes
     where ${known.bare} = backend_mount_id and 1 = parent_id and 'd5' collate "C" = parent_path and true = parent_live
     for key share`,
  );
  expect(JSON.stringify(plan)).toContain('"Index Name":"nodes_live_child_key"');
});

test('the statement of the cascade finds the children of a moved directory by an index', async () => {
  const [plan] = await database().query(
    `explain (format json) update only filestore.nodes set parent_path = 'z'
     where ${mount.id} = backend_mount_id and ${known.d5} = parent_id and 'd5' collate "C" = parent_path and true = parent_live`,
  );
  expect(JSON.stringify(plan)).toContain('"Index Name":"nodes_live_child_key"');
});

/** A call, and how many rows it returns. */
const READS: readonly (readonly [string, () => string, number])[] = [
  ['a path', () => "node_by_path('m', 'd5/f9')", 1],
  ['a path, or what was there', () => "node_by_path('m', 'd5/f7', true)", 1],
  ['a path that is used again all day', () => "node_by_path('m', 'd1/lock', true)", 1],
  ['a path where nothing was', () => "node_by_path('m', 'd5/none', true)", 0],
  ['an id', () => `node_by_id(${NODE})`, 1],
  ['ids', () => `nodes_by_id(array[${NODE}, 1, 99999999])`, 2],
  ['paths', () => "nodes_by_path('m', '{d5/f9,d5/none}')", 1],
  ['the versions of a node', () => `node_versions(${NODE}, page_size => 1)`, 1],
  ['a location', () => `node_location(${NODE})`, 1],
  ['a page', () => `list_directory(${known.d5}, 'f5', 50)`, 50],
  ['the page of an empty directory', () => `list_directory(${known.empty})`, 0],
  ['a page with what is deleted', () => `list_directory(${known.d5}, 'f5', 50, true)`, 50],
  ['a page amid equal names', () => `list_directory(${known.d1}, 'lock', 50, true, ${FILES} + 1000)`, 50],
  ['what was in a deleted directory', () => `list_directory(${known.gone}, '', 50, true)`, 50],
  ['an empty directory with what is deleted', () => `list_directory(${known.empty}, '', 50, true)`, 0],
  ['a checksum', () => "find_by_checksum('md5:' || md5('d5f9'))", 1],
  ['a version', () => `node_at(${NODE}, now())`, 1],
  [
    'a part of a mount in which all nodes were seen',
    () => "list_unseen('m', now() - interval '1 hour', 'd2', 20)",
    1,
  ],
  ['a part of a mount of which nothing is seen', () => "list_unseen('m', now(), 'd2', 20)", 1],
  ['the end of a mount', () => "list_unseen('m', now(), 'x', 1000)", 1],
  ['a mount without nodes', () => "list_unseen('bare', now())", 1],
];

describe.each(['force_custom_plan', 'force_generic_plan'])('with %s', (mode) => {
  test.each(READS)('a function reads few pages for %s', async (_, call, rows) => {
    // Each connection caches its own plans.
    const own = await database().connect();
    await own.query(`set plan_cache_mode = ${mode}`);
    const plan = await explain(own, `select * from filestore.${call()}`);
    await own.end();
    expect(plan.rows).toBe(rows);
    // list_unseen also looks at each node and its sighting, and returns one row.
    expectFewPages(
      call().startsWith('list_unseen') ? { ...plan, pages: plan.pages - 20 * (ofPrimaryKey + 1) } : plan,
    );
  });
});

test('the view of directories finds those in a directory by the index of directories', async () => {
  const plan = await explain(
    client,
    `select id, file_count from filestore.view_filestore_directories where parent_id = ${mount.rootId}`,
  );
  expect(plan).toMatchObject({ rows: 301, indexes: expect.arrayContaining(['nodes_directory_key']) });
  expect(plan.scanned).not.toContain('nodes');
});

test('the view of active nodes leaves out deleted nodes', async () => {
  const { total } = await one(
    database(),
    "select count(*)::integer as total from filestore.view_filestore_active_nodes where mount_key = 'm'",
  );
  // The root, 300 directories and "empty".
  expect(total).toBe(1 + 301 + (FILES * 9) / 10);
});

test.each([
  ["node_by_path('m', 'd5/f9')", ['nodes_live_path_idx']],
  ["node_by_path('m', 'd5/f7', true)", ['nodes_dead_path_idx']],
  ["list_directory(60, 'f5', 50)", ['nodes_live_child_key']],
  ["list_directory(60, 'f5', 50, true)", ['nodes_live_child_key', 'nodes_tombstone_parent_idx']],
  ["list_unseen('m', now(), 'd2', 100)", ['nodes_live_path_idx', 'node_sightings_pkey']],
  ["find_by_checksum('md5:' || md5('d5f9'))", ['nodes_checksum_idx']],
  [`node_at(${NODE}, now())`, ['snapshots_pkey', 'nodes_pkey']],
  ["tree_at('m', 'd5', now())", ['snapshots_path_idx', 'nodes_live_path_idx']],
  ["create_node(60, 'new')", ['nodes_live_child_key']],
  ["upsert_file('m', 'd5/f9', 7)", ['nodes_live_path_idx']],
  ["upsert_file('m', 'd5/x/new')", ['nodes_live_path_idx', 'nodes_live_child_key']],
  ['merge_metadata(501, \'{"tag": "x"}\')', ['nodes_pkey']],
  [`create_nodes('[{"parent_id": 60, "name": "new"}, {"parent_id": 61, "name": "new"}]')`, ['nodes_pkey']],
  ["copy_tree(60, 61, 'copy')", ['nodes_pkey', 'nodes_live_path_idx']],
  ["ensure_directory('m', 'd5/x/y')", ['nodes_live_path_idx', 'nodes_live_child_key']],
  ["move_node(60, null, 'renamed')", ['nodes_live_child_key']],
  ['delete_node(60, null, true)', ['nodes_live_path_idx']],
  ['delete_batch(60, 10)', ['nodes_live_path_idx']],
  [`revert_node(${NODE}, 1)`, ['snapshots_pkey']],
  [`set_states(array[${NODE}, ${NODE} + 1], 'inconsistent')`, ['nodes_pkey']],
  [`record_sightings(array[${NODE}, ${NODE} + 1])`, ['nodes_pkey', 'node_sightings_pkey']],
  ["purge_deleted('0', 10)", ['nodes_purge_idx', 'nodes_tombstone_parent_idx']],
])('%s scans no large table, and uses %j', async (call, indexes) => {
  const scans = await scansOf(database(), LARGE, call);
  expect(scans).toEqual(expect.arrayContaining(indexes));
  expect(scans.filter((name) => LARGE.includes(name))).toEqual([]);
});

describe('a deleted directory', () => {
  const directory = '(select max(id) - 1 from filestore.nodes)';
  const deleteTree = ["ensure_directory('m', 'd5/x/y')", `delete_node(${directory}, null, true)`];

  // nodes_parent_fkey looks for children with parent_live = false: this needs an index too.
  test('is restored with the nodes below it, without a scan of a large table', async () => {
    const scans = await scansOf(database(), LARGE, ...deleteTree, `restore_node(${directory}, null, true)`);
    expect(scans.filter((name) => LARGE.includes(name))).toEqual([]);
  });

  test('is purged with the nodes below it, without a scan of a large table', async () => {
    for (const call of [...deleteTree, 'fold_rollups(1000000)'])
      await database().query(`select filestore.${call}`);
    const scans = await scansOf(database(), LARGE, "purge_deleted('0')");
    expect(scans.filter((name) => LARGE.includes(name))).toEqual([]);
  });
});
