import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg, { type Client } from 'pg';
import { beforeAll, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { splitStatements } from '../../src/sql-text.ts';
import { changeableSettings, OTHER_VALUES } from '../support/databases/database-settings.ts';
import { createDatabase, databaseForFile } from '../support/databases/test-database.ts';
import { TRAPS } from '../support/databases/traps.ts';
import { one } from '../support/rows/nodes.ts';

const database = databaseForFile();

/** Statements that call every function and procedure, and fire every trigger: a gate of the check proves that. */
const CALLS = ['sample-rows.sql', 'sample-calls.sql'].flatMap((file) =>
  splitStatements(readFileSync(join(PACKAGE_ROOT, 'migrations', file), 'utf8')).map(({ text }) => text),
);

interface Answer {
  readonly statement: string;
  /** The number of rows, or the SQLSTATE and reason of a refusal. */
  readonly result: number | string | null;
}

async function callEverything(client: Client): Promise<readonly Answer[]> {
  const answers: Answer[] = [];
  for (const statement of CALLS) {
    try {
      answers.push({ statement, result: (await client.query(statement)).rowCount });
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) throw error;
      answers.push({ statement, result: `${error.code} ${error.constraint ?? error.message}` });
    }
  }
  return answers;
}

interface Run {
  readonly answers: readonly Answer[];
  /** The nodes at the end, without their ids, whose order may differ. */
  readonly nodes: readonly unknown[];
  /** The context of each notice of a trap that a function of the schema caused. */
  readonly trapped: readonly string[];
}

/** Calls everything in a new database, on a connection that was prepared by some statements. */
async function run(...statements: readonly string[]): Promise<Run> {
  const database = await createDatabase();
  try {
    const client = await database.connect();
    const trapped: string[] = [];
    client.on('notice', ({ detail = '' }) => {
      if (/function filestore\./.test(detail)) trapped.push(detail);
    });
    for (const statement of statements) await client.query(statement);
    const answers = await callEverything(client);
    const nodes = await database.query(
      `select path, kind, state, version, size_bytes, checksum, metadata from filestore.nodes
       order by backend_mount_id, path collate "C", version, size_bytes`,
    );
    return { answers, nodes, trapped };
  } finally {
    await database.drop();
  }
}

let usual: Run;
beforeAll(async () => {
  usual = await run();
  expect(usual.answers.length).toBeGreaterThan(60);
});

const HOSTILE_PATH = [
  'create schema before',
  'set search_path = before',
  TRAPS,
  'set search_path = before, pg_catalog',
];

test('a function without a fixed search_path runs a trap', async () => {
  const { trapped } = await run(
    ...HOSTILE_PATH,
    'alter function filestore.canonical_checksum(pg_catalog.text, pg_catalog.text) reset search_path',
  );
  expect(trapped).not.toEqual([]);
});

test('no function, procedure or trigger uses an operator, function, type or table of the search_path of its caller', async () => {
  const { answers, nodes, trapped } = await run(...HOSTILE_PATH);
  expect(trapped).toEqual([]);
  expect(answers).toEqual(usual.answers);
  expect(nodes).toEqual(usual.nodes);
});

test('no function, procedure or trigger depends on another setting that any role can change', async () => {
  const { names } = await one(
    database(),
    "select array_agg(name::text) as names from pg_settings where context = 'user'",
  );
  const changeable = await changeableSettings(await database().connect());
  // These end a statement or session, are refused, or have a separate test.
  const settings = Object.entries(OTHER_VALUES).filter(
    ([name]) =>
      names.includes(name) &&
      changeable.has(name) &&
      !/timeout|isolation|deferrable|search_path|access_method|exit_on_error|restrict/.test(name),
  );
  expect(settings.map(([name]) => name)).toContain('backslash_quote');
  const { answers, nodes } = await run(...settings.map(([name, value]) => `set ${name} = '${value}'`));
  expect(answers).toEqual(usual.answers);
  expect(nodes).toEqual(usual.nodes);
});
