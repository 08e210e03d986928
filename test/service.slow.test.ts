import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { beforeAll, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { databaseForFile } from './support/databases/test-database.ts';
import { type Example, examplesOf, outcomeOf } from './support/packages/examples.ts';
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
const known = new Map<string, string>();
let service: Client;
let operator: Client;

beforeAll(async () => {
  await loadLargeTree(database());
  await loadLargeJournal(database());
  // Its entries have small mount ids.
  await database().query('alter table filestore.backend_mounts alter column id restart with 100');
  service = await connectAs('service');
  operator = await connectAs('operator');
  for (const client of [service, operator]) {
    // Values as psql prints them, not as JavaScript's dates or JSON values.
    client.setTypeParser(1184, String);
    client.setTypeParser(3802, String);
  }
});

/** Inserts values that earlier statements returned: numbers unquoted, all others as strings. */
function bind(text: string, quote: (value: string) => string): string {
  return text.replaceAll(/(?<!:):([a-z_]+)\b/g, (_, name: string) => {
    const value = known.get(name);
    if (value === undefined) throw new Error(`${DOCUMENT} uses :${name} before a statement returns it`);
    return quote(value);
  });
}

const literal = (value: string) => (/^\d+$/.test(value) ? value : `'${value}'`);

/** Compares a row with the document, and stores the values that the document names. */
function expectRow(row: string, expected: string, statement: string): void {
  const cells = row.split(' | ');
  for (const [position, cell] of expected.split(' | ').entries()) {
    const name = /^:([a-z_]+)$/.exec(cell)?.[1];
    if (name !== undefined && !known.has(name)) known.set(name, cells[position] ?? '');
  }
  expect(row, statement).toBe(bind(expected, String));
}

async function runExample(client: Client, { statement, expected }: Example): Promise<void> {
  const outcome = await outcomeOf(client, bind(statement, literal));
  if (expected === undefined) expect(outcome.join('\n'), statement).not.toMatch(/^ERROR/);
  else {
    expect(outcome.length, `${statement}\n${outcome.join('\n')}`).toBe(expected.length);
    for (const [position, row] of outcome.entries()) expectRow(row, expected[position] ?? '', statement);
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
