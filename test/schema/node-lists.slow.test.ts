import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { explain } from '../support/databases/plans.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { DIRECTORIES, FILES, loadLargeTree } from '../support/rows/large-tables.ts';
import { foldAll, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
let client: Client;
/** Number of pages that a lookup by primary key reads. */
let ofPrimaryKey: number;

beforeAll(async () => {
  await loadLargeTree(database());
  await database().query("update filestore.backend_mounts set mount_key = 'm'");
  await foldAll(database());
  // The files were inserted without totals.
  await database().query("select filestore.recount_rollups('m')");
  await database().query('vacuum analyze');
  client = await database().connect();
  ofPrimaryKey = (await explain(client, 'select * from filestore.nodes where id = 501')).pages;
});

/** Every choice of each argument. */
const CHOICES: Readonly<Record<string, readonly (string | undefined)[]>> = {
  path: [undefined, "'d5'"],
  states: [undefined, "'{missing}'", "'{deleted}'", "'{active,inconsistent,missing,deleted}'"],
  kinds: [undefined, "'{directory}'", "'{file}'"],
  name_contains: [undefined, "'F99'"],
  metadata_contains: [undefined, `'{"kind": "photo"}'`, `'{"a": {}}'`],
  max_depth: [undefined, '1'],
  changed_since: [undefined, "now() - interval '1 day'"],
  min_size: [undefined, '4000000'],
  order_by: ["'path'", "'name'", "'size'", "'change'"],
  descending: ['false', 'true'],
};

const combinations = (names: readonly string[]): readonly string[] =>
  names.reduce<readonly string[]>(
    (all, name) =>
      all.flatMap((given) =>
        (CHOICES[name] ?? []).map((value) => (value === undefined ? given : `${given}, ${name} => ${value}`)),
      ),
    [''],
  );

const MAX_NODES = 2000;

/** The reads of nodes in the current transaction. */
async function readsOfNodes(): Promise<{ readonly scanned: number; readonly fetched: number }> {
  const { scanned, fetched } = await one(
    client,
    `select seq_tup_read::integer as scanned, coalesce(idx_tup_fetch, 0)::integer as fetched
     from pg_stat_xact_user_tables where relid = 'filestore.nodes'::regclass`,
  );
  return { scanned, fetched };
}

/** Calls a function with every combination of arguments, and returns how many calls were refused. */
async function callAll(called: string, names: readonly string[]) {
  const outcomes = { listed: 0, refused: 0 };
  await client.query('begin');
  let before = await readsOfNodes();
  for (const args of combinations(names)) {
    await client.query('savepoint before');
    const reason = await client
      .query(`select from filestore.${called}('m'${args}, max_nodes => ${MAX_NODES})`)
      .then(
        () => undefined,
        (error) => error.constraint ?? error.message,
      );
    expect(reason ?? 'nodes_range_check', args).toBe('nodes_range_check');
    outcomes[reason === undefined ? 'listed' : 'refused'] += 1;
    await client.query('rollback to savepoint before');
    const after = await readsOfNodes();
    expect(after.scanned, args).toBe(before.scanned);
    // Of an index with few nodes, and then of live nodes and tombstones, each with one more to see that there are more.
    expect(after.fetched - before.fetched, args).toBeLessThan(6 * MAX_NODES);
    before = after;
  }
  await client.query('rollback');
  return outcomes;
}

test('every combination of conditions and orders reads a bounded number of 300 000 nodes by an index, or is refused', async () => {
  const { listed, refused } = await callAll('list_nodes', Object.keys(CHOICES));
  expect(listed).toBeGreaterThan(1000);
  expect(refused).toBeGreaterThan(1000);
}, 900_000);

test('every count reads a bounded number of 300 000 nodes by an index, or is refused', async () => {
  const { listed, refused } = await callAll(
    'count_nodes',
    Object.keys(CHOICES).filter((name) => !['order_by', 'descending'].includes(name)),
  );
  expect(listed).toBeGreaterThan(100);
  // Tombstones only: live nodes get an estimate.
  expect(refused).toBeGreaterThan(10);
}, 300_000);

/** A call, how many rows it returns, and how many nodes it looks at besides. */
const READS: readonly (readonly [string, string, number, number])[] = [
  ['the first page of a mount', "'m', page_size => 50", 50, 0],
  ['a page amid a mount', "'m', page_size => 50, after_cursor => 'path:1:d200/f5'", 50, 0],
  [
    'a page amid a mount, the last paths first',
    "'m', page_size => 50, descending => true, after_cursor => 'path:1:d200/f5'",
    50,
    0,
  ],
  ['the last page of a mount', "'m', after_cursor => 'path:999999999:d99/f998'", 2, 0],
  [
    'a page of a directory',
    "'m', 'd5', max_depth => 1, page_size => 50, after_cursor => 'path:1:d5/f5'",
    50,
    0,
  ],
  [
    'a page of directories',
    "'m', kinds => '{directory}', page_size => 50, after_cursor => 'path:1:d2'",
    50,
    0,
  ],
  ['a page of missing nodes', "'m', states => '{missing}', page_size => 50, max_nodes => 1000", 50, 600],
  ['a rare tag', `'m', metadata_contains => '{"tag": "d5"}'`, 10, 0],
  [
    'a page of tombstones',
    "'m', states => '{deleted}', page_size => 50, after_cursor => 'path:1:d200/f5'",
    50,
    0,
  ],
  [
    'a page amid equal paths',
    `'m', states => '{deleted}', page_size => 50, after_cursor => 'path:${FILES + 1300}:d1/lock'`,
    50,
    2000,
  ],
  ['a page of live nodes and tombstones', "'m', 'd5', states => '{active,deleted}', page_size => 50", 50, 60],
  [
    'the largest of a directory',
    "'m', 'd5', order_by => 'size', descending => true, page_size => 50",
    50,
    900,
  ],
];

describe.each(['force_custom_plan', 'force_generic_plan'])('with %s', (mode) => {
  test.each(READS)('list_nodes reads few pages for %s', async (_, args, rows, besides) => {
    // Each connection caches its own plans.
    const own = await database().connect();
    await own.query(`set plan_cache_mode = ${mode}`);
    const plan = await explain(own, `select * from filestore.list_nodes(${args})`);
    await own.end();
    expect(plan.rows).toBe(rows);
    expect(plan.pages).toBeLessThanOrEqual(20 * ofPrimaryKey + rows * (ofPrimaryKey + 1) + besides * 1.2);
  });
});

test('a count of all nodes reads no node', async () => {
  const { nodes } = await one(client, "select nodes::integer from filestore.count_nodes('m')");
  expect(nodes).toBe(DIRECTORIES + 1 + (FILES * 9) / 10);
  const plan = await explain(client, "select * from filestore.count_nodes('m')");
  expect(plan.pages).toBeLessThanOrEqual(10 * ofPrimaryKey);
});

test('an estimate is near the number of nodes', async () => {
  const { nodes, is_estimate } = await one(
    client,
    "select nodes::integer, is_estimate from filestore.count_nodes('m', name_contains => 'F99', max_nodes => 10000)",
  );
  expect(is_estimate).toBe(true);
  // f99 and f990 to f999, of which f997 is deleted, in each directory.
  expect(Math.abs(nodes / (10 * DIRECTORIES) - 1)).toBeLessThan(0.2);
});
