import type { Client } from 'pg';
import { expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import { applyOnce, directory, manyFiles, readStates, recordScan } from '../support/rows/scans.ts';

let key: string;
const { database, connectAs } = diskForEachTest((disk) => {
  ({ key } = disk);
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
  await work();
  for (const [index, table] of tables.entries()) {
    expect((await tableScans(session, table)) - (before[index] ?? 0), table).toBeLessThan(50);
  }
  await session.query('commit');
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
