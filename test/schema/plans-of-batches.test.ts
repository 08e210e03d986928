import type { Client } from 'pg';
import { expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import {
  applyOnce,
  beginScan,
  differences,
  directory,
  type Entry,
  file,
  manyFiles,
  recordEntries,
  recordScan,
  scan,
} from '../support/rows/scans.ts';

let key: string;
const { database, connectAs } = diskForEachTest((disk) => {
  ({ key } = disk);
});

interface Node {
  readonly 'Node Type': string;
  readonly 'Hash Batches'?: number;
  readonly Plans?: readonly Node[];
}

const batchesIn = (node: Node): readonly number[] => [
  ...(node['Hash Batches'] === undefined ? [] : [node['Hash Batches']]),
  ...(node.Plans ?? []).flatMap(batchesIn),
];

/** Files that swap their names in pairs, and are overwritten, gone or new: one in ten. */
const changed = (files: readonly Entry[]): readonly Entry[] =>
  files.flatMap((entry, index) => {
    const partner = files[index ^ 1];
    if (index % 40 < 2 && partner !== undefined) return [{ ...partner, path: entry.path }];
    if (index % 40 === 2) return [{ ...entry, size_bytes: 2 }];
    if (index % 40 === 3) return [file(`new${index}`, `new${index}`)];
    return [entry];
  });

test('no join in the plan of a scan is split into files of a few rows each', async () => {
  const files = manyFiles(5_000);
  const client = await database().connectAsSuperuser();
  await scan(client, key, files);
  await database().query('analyze');
  const { id } = await beginScan(client, key);
  await recordEntries(client, id, changed(files));

  const batches: number[] = [];
  client.on('notice', ({ message = '' }) => {
    const plan = /plan:\n(\{[\s\S]*\})/.exec(message)?.[1];
    if (plan !== undefined) batches.push(...batchesIn(JSON.parse(plan).Plan));
  });
  await client.query(`
    load 'auto_explain';
    set auto_explain.log_min_duration = 0;
    set auto_explain.log_nested_statements = on;
    set auto_explain.log_analyze = on;
    set auto_explain.log_timing = off;
    set auto_explain.log_format = json;
    set client_min_messages = log`);
  const lines = await differences(client, id);

  expect(lines.length).toBeGreaterThan(400);
  expect(batches.length).toBeGreaterThan(20);
  expect(Math.max(...batches)).toBeLessThanOrEqual(16);
});

/** How often a session has scanned whole tables of nodes and of their history in its transaction. */
async function tableScans(session: Client): Promise<number> {
  const { scans } = await one(
    session,
    `select sum(pg_stat_get_xact_numscans(c.oid))::integer as scans
     from pg_class c
     where c.oid in ('filestore.nodes'::regclass, 'filestore.snapshots'::regclass)`,
  );
  return scans;
}

/** A session that has planned nothing yet, while the planner expects that tables stay as small as they are. */
async function sessionOnSmallTables(): Promise<Client> {
  await database().query('vacuum analyze filestore.nodes, filestore.snapshots');
  return connectAs('service');
}

const ENTRIES = [directory('a'), ...manyFiles(50)];

test('a scan that creates does not read whole tables for each row, also when they were analyzed while empty', async () => {
  const session = await sessionOnSmallTables();
  const id = await recordScan(session, key, ENTRIES);
  await applyOnce(session, id);
  await applyOnce(session, id);

  await session.query('begin');
  expect(await applyOnce(session, id)).toMatchObject({ created: '51' });
  expect(await tableScans(session)).toBeLessThan(5);
  await session.query('commit');
});

test('neither does sync_nodes', async () => {
  const session = await sessionOnSmallTables();
  await session.query('begin');
  await session.query('select filestore.sync_nodes($1, $2)', [key, JSON.stringify(ENTRIES)]);
  expect(await tableScans(session)).toBeLessThan(5);
  await session.query('commit');
});

test('neither does create_nodes', async () => {
  const session = await sessionOnSmallTables();
  const { id: parent } = await one(session, 'select id from filestore.node_by_path($1, $2)', [key, '']);
  const rows = manyFiles(50).map(({ path: name }) => ({ parent_id: parent, name }));
  await session.query('begin');
  await session.query('select filestore.create_nodes($1)', [JSON.stringify(rows)]);
  expect(await tableScans(session)).toBeLessThan(5);
  await session.query('commit');
});
