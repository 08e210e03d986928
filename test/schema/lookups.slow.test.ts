import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { explain, type Plan, scansOf } from '../support/databases/plans.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { FILES } from '../support/rows/large-tables.ts';
import {
  INDEXED_CALLS,
  type KnownIds,
  LOOKUPS,
  loadKnownTree,
  NODE,
  READS,
} from '../support/rows/lookup-statements.ts';
import { type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
let client: Client;
let mount: Mount;
let known: KnownIds;
/** Number of pages that a lookup by primary key reads. */
let ofPrimaryKey: number;

beforeAll(async () => {
  ({ mount, known } = await loadKnownTree(database()));
  client = await database().connect();
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

describe.each(['force_custom_plan', 'force_generic_plan'])('with %s', (mode) => {
  test.each(READS)('a function reads few pages for %s', async (_, call, rows) => {
    // Each connection caches its own plans.
    const own = await database().connect();
    await own.query(`set plan_cache_mode = ${mode}`);
    const plan = await explain(own, `select * from filestore.${call(known)}`);
    await own.end();
    expect(plan.rows).toBe(rows);
    // list_unseen also looks at each node and its sighting, and returns one row.
    expectFewPages(
      call(known).startsWith('list_unseen') ? { ...plan, pages: plan.pages - 20 * (ofPrimaryKey + 1) } : plan,
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

test.each(INDEXED_CALLS)('%s scans no large table, and uses %j', async (call, indexes) => {
  const scans = await scansOf(database(), LARGE, call);
  expect(scans).toEqual(expect.arrayContaining([...indexes]));
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
