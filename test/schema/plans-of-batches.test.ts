import type { Client } from 'pg';
import { beforeEach, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { insertMount, one } from '../support/rows/nodes.ts';
import { applyOnce, directory, manyFiles, readStates, recordScan } from '../support/rows/scans.ts';

const key = 'disk';
// Each test begins with empty tables.
const database = databaseEmptiedAfterEachTest();
const connectAs = levelsForFile(database);

beforeEach(async () => {
  await insertMount(database(), { mount_key: key, backend_kind: 'local', root_path: '/srv/disk' });
});

/** How often a session has scanned a whole table. It forgets that only between transactions. */
async function tableScans(session: Client, table: string): Promise<number> {
  const { scans } = await one(session, 'select pg_stat_get_xact_numscans($1::regclass)::integer as scans', [
    `filestore.${table}`,
  ]);
  return scans;
}

/** A session that has planned nothing yet, while the planner expects that tables stay as small as they are. */
async function sessionOnSmallTables(): Promise<Client> {
  await database().query('vacuum analyze filestore.nodes, filestore.snapshots');
  return connectAs('service');
}

const FILES = manyFiles(50);
const DIRECTORIES = Array.from({ length: 50 }, (_, index) => directory(`d${index}`));

/** Does work in a transaction. It may scan a small table, but not again for each of 50 rows. */
async function expectFewScans(
  session: Client,
  tables: readonly string[],
  work: () => Promise<unknown>,
): Promise<void> {
  await session.query('begin');
  const before = await Promise.all(tables.map((table) => tableScans(session, table)));
  try {
    await work();
    for (const [index, table] of tables.entries()) {
      expect((await tableScans(session, table)) - (before[index] ?? 0), table).toBeLessThan(50);
    }
  } finally {
    await session.query('commit');
  }
}

test('a scan of tables that were analyzed while empty does not read them for each row', async () => {
  const session = await sessionOnSmallTables();
  const id = await recordScan(session, key, [...DIRECTORIES, ...FILES]);
  // The first call plans, and reads nodes as suits their number at that time.
  await expectFewScans(session, ['snapshots'], () => applyOnce(session, id));
  await expectFewScans(session, ['nodes', 'snapshots'], () => applyOnce(session, id));
  await expectFewScans(session, ['nodes', 'snapshots'], () => applyOnce(session, id));
  expect(await readStates(session, key)).toHaveLength(100);
});

test('neither does sync_nodes', async () => {
  const session = await sessionOnSmallTables();
  await expectFewScans(session, ['nodes', 'snapshots'], () =>
    session.query('select filestore.sync_nodes($1, $2)', [key, JSON.stringify(FILES)]),
  );
});

test('neither does create_nodes', async () => {
  const session = await sessionOnSmallTables();
  const { id: parent } = await one(session, 'select id from filestore.node_by_path($1, $2)', [key, '']);
  const rows = FILES.map(({ path: name }) => ({ parent_id: parent, name }));
  await expectFewScans(session, ['nodes'], () =>
    session.query('select filestore.create_nodes($1)', [JSON.stringify(rows)]),
  );
});

test('neither do update_nodes, set_states and copies that merge', async () => {
  const loader = await sessionOnSmallTables();
  const source = await one(loader, "select id from filestore.ensure_directory($1, 'source')", [key]);
  await loader.query("select filestore.ensure_directory($1, 'target/source')", [key]);
  const { rows } = await loader.query<{ id: string }>('select id from filestore.create_nodes($1)', [
    JSON.stringify(FILES.map(({ path: name }) => ({ parent_id: source.id, name }))),
  ]);
  const calls: readonly (readonly [string, readonly unknown[]])[] = [
    [
      'select from filestore.update_nodes($1)',
      [JSON.stringify(rows.map(({ id }) => ({ id, size_bytes: 7 })))],
    ],
    ["select from filestore.set_states($1, 'missing')", [rows.map(({ id }) => id)]],
    ...['skip', 'overwrite'].map(
      (choice) =>
        [
          `select filestore.copy_tree($1, (select id from filestore.node_by_path($2, 'target')), on_conflict => '${choice}')`,
          [source.id, key],
        ] as const,
    ),
  ];
  for (const [call, values] of calls) {
    const session = await sessionOnSmallTables();
    await expectFewScans(session, ['nodes', 'snapshots'], () => session.query(call, [...values]));
  }
  expect(await one(loader, "select nodes from filestore.count_nodes($1, 'target/source')", [key])).toEqual({
    nodes: '50',
  });
});

test('functions that switch scans of whole tables off compile no plan, since such a scan then counts as very expensive', async () => {
  const { compiling } = await one(
    database(),
    `select coalesce(array_agg(p.proname::text order by p.proname), '{}') as compiling
     from pg_proc p
     where p.pronamespace = 'filestore'::regnamespace
       and 'enable_seqscan=off' = any (p.proconfig)
       and 'jit=off' <> all (p.proconfig)
       -- These read one row by an index.
       and 'enable_bitmapscan=off' <> all (p.proconfig)`,
  );
  expect(compiling).toEqual([]);
});
