import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { GRAPHILE_LOCK_KEY } from '../../src/session/lock-holder.ts';
import { type CliResult, runCli } from '../support/command-line/command-line.ts';
import {
  columnsOf,
  makeWorkflowDatabases,
  query,
  type WorkflowEnv,
} from '../support/command-line/workflow.ts';
import { addColumn, type Checkout, makeCheckout, renumbered } from '../support/packages/branches.ts';

// Each test starts many processes, most of them git.
vi.setConfig({ testTimeout: 180_000 });

let checkout: Checkout;
let env: WorkflowEnv;

beforeEach(async () => {
  checkout = makeCheckout();
  env = await makeWorkflowDatabases();
});
afterEach(() => checkout.remove());

const run = (...args: readonly string[]): Promise<CliResult> =>
  runCli(args, { folder: checkout.folder, env: { ...env } });

/** A branch "theirs" with one migration, and a branch "mine" with one that the development database has, before a merge. */
async function makeMerge(theirSql: string, mySql: string) {
  checkout.git('checkout', '--quiet', '-b', 'theirs', 'main');
  const theirs = checkout.add('theirs', theirSql);
  checkout.record('Theirs');
  checkout.git('checkout', '--quiet', '-b', 'mine', 'main');
  const mine = checkout.add('mine', mySql);
  checkout.record('Mine');
  expect(await run('watch', '--once')).toMatchObject({ exitCode: 0 });
  checkout.git('merge', '--quiet', '--no-commit', 'theirs');
  return { theirs, mine, moved: renumbered(mine, checkout, 2) };
}

async function history() {
  return query<{ filename: string; hash: string; previous_hash: string | null }>(
    env.DATABASE_URL,
    'select filename, hash, previous_hash from graphile_migrate.migrations order by filename',
  );
}

/** Expects that the database has exactly the migrations of the files. */
async function expectInOrder(): Promise<void> {
  const files = await readCommittedMigrations(join(checkout.folder, 'migrations'));
  expect(await history()).toEqual(
    files.map(({ recordedName, hash, previousHash }) => ({
      filename: recordedName,
      hash,
      previous_hash: previousHash,
    })),
  );
}

/** Expects that graphile-migrate's own command line succeeds. */
async function graphile(command: string): Promise<void> {
  const options = { cwd: checkout.folder, env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env } };
  await promisify(execFile)('npx', ['--no-install', 'graphile-migrate', command], options);
}

describe('a rebase', () => {
  test("applies the other branch's migrations, and then your own one again", async () => {
    const { theirs, moved } = await makeMerge(addColumn('their_hint'), addColumn('my_hint'));
    await query(env.DATABASE_URL, 'create table precious as select 1 as n');
    const result = await run('rebase');
    expect(result, result.output).toMatchObject({ exitCode: 0, stderr: '' });
    expect(result.stdout).toMatch(
      new RegExp(`^Database "\\w+" on .*: applied ${theirs}, ${moved} \\(.* s\\)$`, 'm'),
    );
    await expectInOrder();
    expect(await columnsOf(env.DATABASE_URL, 'nodes')).toEqual(
      expect.arrayContaining(['their_hint', 'my_hint']),
    );
    expect(await query(env.DATABASE_URL, 'select n from precious')).toEqual([{ n: 1 }]);
    const status = await run('status');
    expect(status).toMatchObject({ exitCode: 0, stdout: expect.stringContaining(', 0 pending') });
    await graphile('migrate');
    await graphile('status');
    await expectInOrder();

    const again = await run('rebase');
    expect(again.stdout).toMatch(/Nothing to renumber: .*\nDatabase .* has all migrations\.\n$/);
  });

  test('leaves an object that both branches replace as it would be in a new database', async () => {
    const replace = (who: string) =>
      `create or replace function filestore.whose() returns text language sql return '${who}';`;
    await makeMerge(replace('theirs'), replace('mine'));
    expect(await run('rebase')).toMatchObject({ exitCode: 0 });
    await expectInOrder();
    expect(await query(env.DATABASE_URL, 'select filestore.whose()')).toEqual([{ whose: 'mine' }]);
  });

  test('names a fixture that both branches change', async () => {
    const include = (column: string) =>
      `${addColumn(column)}--! Included views/some.sql\nselect '${column}';\n--! EndIncluded views/some.sql`;
    const { theirs, moved } = await makeMerge(include('their_hint'), include('my_hint'));
    expect(await run('rebase')).toMatchObject({
      exitCode: 0,
      stderr: expect.stringContaining(
        `Look at fixtures/views/some.sql: ${theirs} and ${moved} both change it`,
      ),
    });
  });

  test('does not apply current.sql', async () => {
    await makeMerge(addColumn('their_hint'), addColumn('my_hint'));
    writeFileSync(join(checkout.folder, 'migrations', 'current.sql'), addColumn('unfinished'));
    expect(await run('rebase')).toMatchObject({ exitCode: 0 });
    await expectInOrder();
    expect(await columnsOf(env.DATABASE_URL, 'nodes')).not.toContain('unfinished');
  });

  test('reports where a migration fails and leaves the files renumbered; a reset then recreates the database', async () => {
    // A migration fails here only if it cannot run where its column already exists.
    const { theirs } = await makeMerge(
      'alter table filestore.nodes add column hint text;',
      addColumn('hint'),
    );
    const result = await run('rebase');
    expect(result, result.output).toMatchObject({ exitCode: 1 });
    expect(result.stderr).toMatch(
      new RegExp(
        `^FAILED {2}migrations/committed/${theirs}:\\d+: column "hint" .*[\\s\\S]*The files are in order\\. .* lacks this migration and those after it: recreate it \\(npm run db:reset\\)\\.\\n$`,
      ),
    );
    expect(await run('reset')).toMatchObject({ exitCode: 0 });
    await expectInOrder();
  });
});

describe('a rebase renumbers the files, and does not change a database', () => {
  test('that has an unknown migration', async () => {
    const { moved } = await makeMerge(addColumn('their_hint'), addColumn('my_hint'));
    await query(
      env.DATABASE_URL,
      "insert into graphile_migrate.migrations (hash, filename) values ('sha1:00', '000999.sql')",
    );
    const before = await history();
    const result = await run('rebase');
    expect(result, result.output).toMatchObject({ exitCode: 0 });
    expect(result.stderr).toMatch(/has .*000999\.sql.*was not changed.*npm run db:reset\n$/);
    expect(await history()).toEqual(before);
    expect(await columnsOf(env.DATABASE_URL, 'nodes')).not.toContain('their_hint');
    expect(checkout.migrations().at(-1)).toBe(moved);

    expect(await run('reset')).toMatchObject({ exitCode: 0 });
    await expectInOrder();
  });
});

test('a rebase changes nothing when the database cannot be reached, or another migrator is running', async () => {
  await makeMerge(addColumn('their_hint'), addColumn('my_hint'));
  const before = { texts: checkout.texts(), history: await history() };
  const gone = new URL(env.DATABASE_URL);
  gone.pathname = '/no_such_database';
  const unreachable = await runCli(['rebase'], {
    folder: checkout.folder,
    env: { ...env, DATABASE_URL: gone.href },
  });
  expect(unreachable).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/^CONNECTION_FAILED: /) });

  const other = new pg.Client({
    connectionString: env.DATABASE_URL,
    application_name: 'watch of a colleague',
  });
  await other.connect();
  try {
    await other.query(`select pg_advisory_lock(${GRAPHILE_LOCK_KEY})`);
    expect(await run('rebase')).toMatchObject({
      exitCode: 5,
      stderr: expect.stringMatching(/LOCK_NOT_ACQUIRED: .*watch of a colleague.*Nothing was changed/),
    });
  } finally {
    await other.end();
  }
  expect({ texts: checkout.texts(), history: await history() }).toEqual(before);
});
