import { type ChildProcess, execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { collect, runCli, startCli } from '../support/command-line/command-line.ts';
import {
  columnsOf,
  makeWorkflowDatabases,
  query,
  type WorkflowEnv,
} from '../support/command-line/workflow.ts';
import {
  addColumn,
  type Checkout,
  makeCheckout,
  renumbered,
  withoutPlace,
} from '../support/packages/branches.ts';

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

/** The hashes that the development database records. */
async function history(): Promise<readonly string[]> {
  const rows = await query<{ hash: string }>(
    env.DATABASE_URL,
    'select hash from graphile_migrate.migrations order by filename',
  );
  return rows.map(({ hash }) => hash);
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
  expect(await history()).toEqual(files.map(({ hash }) => hash));
  expect(await columnsOf(env.DATABASE_URL, 'nodes')).toEqual(
    expect.arrayContaining(['their_hint', 'my_a', 'my_b', 'my_c']),
  );
}

/** Where an own migration is after the rebase, by its position. */
const movedPath = (index: number) => checkout.pathOf(renumbered(mine[index] ?? '', checkout, index + 2));

// The rebase renames the files from the last to the first, and then rewrites them from the first to the last.
test.each([0, 1, 2])(
  'a rebase that is killed after it rewrote %i of three files loses nothing',
  async (count) => {
    await makeMerge(addColumn('their_hint'));
    const texts = checkout.texts();
    // A write to a pipe without a reader blocks.
    const pipe = `${movedPath(count)}.new`;
    execFileSync('mkfifo', [pipe]);
    child = startCli(['rebase'], { folder: checkout.folder, env: { ...env } });
    await vi.waitFor(() => {
      expect(existsSync(checkout.pathOf(mine[0] ?? ''))).toBe(false);
      const rewritten = mine.filter((name, index) => readFileSync(movedPath(index), 'utf8') !== texts[name]);
      expect(rewritten).toHaveLength(count);
    }, PATIENCE);
    await kill(child);
    rmSync(pipe);
    await expectNextToFinish(texts);
  },
);

// It cannot be stopped between two renames, so the test prepares these states itself.
test.each([0, 1, 2])(
  'a rebase that is killed after it renamed %i of three files loses nothing',
  async (count) => {
    await makeMerge(addColumn('their_hint'));
    const texts = checkout.texts();
    const own = mine.map((filename) => `'${/^--! Hash: (.*)$/m.exec(texts[filename] ?? '')?.[1]}'`);
    await query(
      env.DATABASE_URL,
      `delete from graphile_migrate.migrations where hash in (${own.join(', ')})`,
    );
    for (const index of [2, 1].slice(0, count)) {
      renameSync(checkout.pathOf(mine[index] ?? ''), movedPath(index));
    }
    await expectNextToFinish(texts);
  },
);

async function expectNextToFinish(texts: Readonly<Record<string, string>>): Promise<void> {
  expectNothingLost(texts);
  await expect(readCommittedMigrations(join(checkout.folder, 'migrations'))).rejects.toThrow();
  expect(await history()).toHaveLength(checkout.base.length);
  const result = await run('rebase');
  expect(result, result.output).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('Renumbered') });
  await expectFinished(texts);
}

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
