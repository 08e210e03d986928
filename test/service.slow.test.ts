import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { beforeAll, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { databaseForFile } from './support/databases/test-database.ts';
import { AS_TEXT, type Example, ExampleValues, examplesOf, outcomeOf } from './support/packages/examples.ts';
import { levelsForFile } from './support/roles/roles.ts';
import { loadLargeJournal, loadLargeTree } from './support/rows/large-tables.ts';
import { one } from './support/rows/nodes.ts';

const DOCUMENT = 'docs/service.md';
/** The tables that grow with a catalogue: no statement of a service may scan one of them. */
const LARGE_TABLES = ['nodes', 'snapshots', 'journal_entries', 'node_sightings'];

const database = databaseForFile();
const connectAs = levelsForFile(database);
const examples = examplesOf(DOCUMENT);
const flows = [...new Set(examples.map(({ section }) => section))];
const known = new ExampleValues();
let service: Client;
let operator: Client;

beforeAll(async () => {
  await loadLargeTree(database());
  await loadLargeJournal(database());
  // Its entries have small mount ids.
  await database().query('alter table filestore.backend_mounts alter column id restart with 100');
  service = await connectAs('service');
  operator = await connectAs('operator');
});

const literal = (value: string) => (/^\d+$/.test(value) ? value : `'${value}'`);

async function runExample(client: Client, { statement, expected }: Example): Promise<void> {
  const outcome = await outcomeOf(client, { text: known.bind(statement, literal), types: AS_TEXT });
  if (expected === undefined) expect(outcome.join('\n'), statement).not.toMatch(/^ERROR/);
  else {
    expect(outcome.length, `${statement}\n${outcome.join('\n')}`).toBe(expected.length);
    for (const [position, row] of outcome.entries()) {
      expect(row, statement).toBe(known.learn(row, expected[position] ?? ''));
    }
  }
}

interface Scans {
  readonly indexScans: number;
  readonly rowsScanned: number;
}

/** The reads of all sessions so far. A session reports its reads only on request. */
async function readScans(client: Client): Promise<Scans> {
  await client.query('select pg_stat_force_next_flush()');
  await client.query('select');
  const row = await one(
    database(),
    `select sum(t.idx_scan)::integer as index_scans,
            sum(t.seq_tup_read) filter (where t.relname = any ($1))::integer as rows_scanned
     from pg_stat_user_tables t
     where t.schemaname = 'filestore'`,
    [LARGE_TABLES],
  );
  return { indexScans: Number(row.index_scans), rowsScanned: Number(row.rows_scanned) };
}

/** The table of costs: statements and index scans by flow. */
function readCosts(): ReadonlyMap<string, { readonly statements: number; readonly indexScans: number }> {
  const text = readFileSync(join(PACKAGE_ROOT, DOCUMENT), 'utf8');
  const rows = text.slice(text.indexOf('## Cost')).matchAll(/^\| ([A-Z][^|]*?) \| (\d+) \| (\d+) \|/gm);
  return new Map(
    [...rows].map(([, flow = '', statements, indexScans]) => [
      flow,
      { statements: Number(statements), indexScans: Number(indexScans) },
    ]),
  );
}

const costs = readCosts();

test('each flow has a line in the table of costs', () => {
  expect([...costs.keys()]).toEqual(flows);
});

// In the order of the document: each flow builds on those before it.
test.each(flows)('%s: returns the documented rows, with no more scans than documented', async (flow) => {
  const client = flow === 'Prune' ? operator : service;
  const statements = examples.filter(({ section }) => section === flow);
  const before = await readScans(client);
  for (const example of statements) await runExample(client, example);
  const after = await readScans(client);
  const cost = {
    statements: statements.length,
    indexScans: after.indexScans - before.indexScans,
    rowsScanned: after.rowsScanned - before.rowsScanned,
  };
  // A scan that ends after a batch does not read the whole table.
  expect(cost.rowsScanned).toBeLessThan(10_000);
  expect(cost.statements).toBe(costs.get(flow)?.statements);
  expect(cost.indexScans).toBeLessThanOrEqual(costs.get(flow)?.indexScans ?? 0);
});
