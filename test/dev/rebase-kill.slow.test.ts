import { type ChildProcess, execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { readCommittedMigrations } from '../../src/db/committed-migrations.ts';
import { addColumn, type Checkout, makeCheckout, renumbered, withoutPlace } from '../support/branches.ts';
import { collect, runCli, startCli } from '../support/command-line.ts';
import { columnsOf, makeWorkflowDatabases, query, type WorkflowEnv } from '../support/workflow.ts';

vi.setConfig({ testTimeout: 180_000 });

const PATIENCE = { timeout: 60_000, interval: 5 };
/** An arbitrary number. */
const BARRIER = 815;

let checkout: Checkout;
let env: WorkflowEnv;
let mine: readonly string[];
let child: ChildProcess | undefined;

beforeEach(async () => {
  checkout = makeCheckout();
  env = await makeWorkflowDatabases();
});
afterEach(() => {
  child?.kill('SIGKILL');
  checkout.remove();
});

const run = (...args: readonly string[]) => runCli(args, { folder: checkout.folder, env: { ...env } });

/** A merge of a branch with one migration into one with three, which the development database already has. */
async function makeMerge(theirSql: string): Promise<void> {
  checkout.git('checkout', '--quiet', '-b', 'theirs', 'main');
  checkout.add('theirs', theirSql);
  checkout.record('Theirs');
  checkout.git('checkout', '--quiet', '-b', 'mine', 'main');
  // Two with the same slug: the new name of the first is the old name of the second.
  mine = ['my_a', 'my_b', 'my_c'].map((column, index) =>
    checkout.add(index === 2 ? 'last' : 'same', addColumn(column)),
  );
  checkout.record('Mine');
  expect(await run('watch', '--once')).toMatchObject({ exitCode: 0 });
  checkout.git('merge', '--quiet', '--no-commit', 'theirs');
}

async function kill(running: ChildProcess): Promise<void> {
  const ended = collect(running);
  running.kill('SIGKILL');
  await ended;
}

/** Expects that every own migration is in the folder, under its old or new name. */
function expectNothingLost(texts: Readonly<Record<string, string>>): void {
  const there = Object.values(checkout.texts()).map(withoutPlace);
  for (const filename of mine) expect(there).toContain(withoutPlace(texts[filename] ?? ''));
}

/** Expects exactly the result of a complete rebase. */
async function expectFinished(texts: Readonly<Record<string, string>>): Promise<void> {
  const moved = mine.map((filename, index) => renumbered(filename, checkout, index + 2));
  const folder = join(checkout.folder, 'migrations');
  const files = await readCommittedMigrations(folder);
  expect(readdirSync(join(folder, 'committed'))).toHaveLength(files.length);
  expect(files.slice(-mine.length).map(({ filename }) => filename)).toEqual(moved);
  expect(moved.map((filename) => withoutPlace(checkout.read(filename)))).toEqual(
    mine.map((filename) => withoutPlace(texts[filename] ?? '')),
  );
  const rows = await query<{ hash: string }>(
    env.DATABASE_URL,
    'select hash from graphile_migrate.migrations order by filename',
  );
  expect(rows.map(({ hash }) => hash)).toEqual(files.map(({ hash }) => hash));
  expect(await columnsOf(env.DATABASE_URL, 'nodes')).toEqual(
    expect.arrayContaining(['their_hint', 'my_a', 'my_b', 'my_c']),
  );
}

const journal = () => join(checkout.folder, '.git', 'filestore-db-rebase.json');

/** The new path of an own migration, by its position. */
const movedPath = (index: number) => checkout.pathOf(renumbered(mine[index] ?? '', checkout, index + 2));

/** Starts a rebase, and kills it just before it writes a file. */
async function killAt(path: string, isThere: () => boolean | Promise<boolean>): Promise<void> {
  // A write to a pipe without a reader blocks.
  const pipe = `${path}.new`;
  execFileSync('mkfifo', [pipe]);
  child = startCli(['rebase'], { folder: checkout.folder, env: { ...env } });
  await vi.waitFor(async () => expect(await isThere()).toBe(true), PATIENCE);
  await kill(child);
  rmSync(pipe);
}

// The rebase writes files from the last to the first.
test.each([
  ['before the first file', () => movedPath(2), () => existsSync(journal()), 'Renumbered'],
  ['between two files', () => movedPath(1), () => existsSync(movedPath(2)), 'Finished'],
  ['before the last file', () => movedPath(0), () => existsSync(movedPath(1)), 'Finished'],
  ['when the database has forgotten the old hashes', journal, hasForgotten, 'Renumbered'],
])(
  'a rebase that is killed %s loses nothing, and the next one finishes it',
  async (_, path, isThere, says) => {
    await makeMerge(addColumn('their_hint'));
    const texts = checkout.texts();
    await killAt(path(), isThere);
    expectNothingLost(texts);
    await expect(readCommittedMigrations(join(checkout.folder, 'migrations'))).rejects.toThrow();

    const result = await run('rebase');
    expect(result, result.output).toMatchObject({ exitCode: 0 });
    expect(result.stdout).toContain(says);
    await expectFinished(texts);
  },
);

async function hasForgotten(): Promise<boolean> {
  const rows = await query(env.DATABASE_URL, 'select from graphile_migrate.migrations');
  return rows.length === checkout.base.length;
}

test('a rebase that is killed before it deletes the old files is finished by the next one', async () => {
  await makeMerge(addColumn('their_hint'));
  const texts = checkout.texts();
  await killAt(movedPath(0), () => existsSync(movedPath(1)));
  // The rebase cannot be stopped between that write and the deletions, so the test prepares this state itself.
  const [first]: readonly { readonly after: string }[] = JSON.parse(readFileSync(journal(), 'utf8'));
  writeFileSync(movedPath(0), first?.after ?? '');
  expect(await run('rebase')).toMatchObject({ exitCode: 0 });
  await expectFinished(texts);
});

test('a rebase starts again after git undid the changes of a killed one', async () => {
  await makeMerge(addColumn('their_hint'));
  const texts = checkout.texts();
  await killAt(movedPath(1), () => existsSync(movedPath(2)));
  rmSync(movedPath(2));
  expect(checkout.texts()).toEqual(texts);
  const result = await run('rebase');
  expect(result, result.output).toMatchObject({ exitCode: 0 });
  expect(result.stdout).not.toContain('Finished');
  await expectFinished(texts);
});

test('a rebase that is killed while it applies a migration is finished by the next one', async () => {
  await makeMerge(
    `do $$ begin perform pg_advisory_xact_lock(${BARRIER}); end $$;\n${addColumn('their_hint')}`,
  );
  const texts = checkout.texts();
  const barrier = new pg.Client(env.DATABASE_URL);
  await barrier.connect();
  try {
    await barrier.query(`select pg_advisory_lock(${BARRIER})`);
    child = startCli(['rebase'], { folder: checkout.folder, env: { ...env } });
    await vi.waitFor(async () => {
      const waiting = `select from pg_locks where locktype = 'advisory' and objid = ${BARRIER} and not granted`;
      expect(await query(env.DATABASE_URL, waiting)).toHaveLength(1);
    }, PATIENCE);
    await kill(child);
    expectNothingLost(texts);
  } finally {
    await barrier.end();
  }
  const result = await run('rebase');
  expect(result, result.output).toMatchObject({ exitCode: 0 });
  await expectFinished(texts);
});
