import type { ChildProcess } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { collect, runCli, startCli } from '../support/command-line/command-line.ts';
import {
  BUILD_INDEX,
  createItems,
  findIndex,
  pidOf,
  startReport,
  timesRecorded,
  untilBlocked,
} from '../support/databases/concurrent-index.ts';
import { asAdmin, asSuperuser, databaseForEachTest } from '../support/databases/test-database.ts';
import { eventsOf, startRun } from '../support/processes/run-copy.ts';
import { one } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();
let copy: PackageCopy;
let filename: string;
const runners: ChildProcess[] = [];

beforeEach(async () => {
  copy = copyPackage();
  filename = copy.addMigration('items', BUILD_INDEX);
  await createItems(database());
});
afterEach(() => {
  for (const runner of runners.splice(0)) runner.kill('SIGKILL');
  copy.remove();
});

/** Short waits for sessions that block the removal of an invalid index. */
const environment = () => ({ DATABASE_URL: database().url, FILESTORE_MIGRATION_LOCK_TIMEOUT_MS: '300' });

/** Starts the copy's command line; `stderr` returns its stderr so far. */
function startRunner() {
  const runner = startCli(['migrate'], { folder: copy.folder, env: environment() });
  runners.push(runner);
  let stderr = '';
  runner.stderr?.on('data', (chunk) => {
    stderr += chunk;
  });
  return { runner, ended: collect(runner), stderr: () => stderr };
}

async function expectBuiltOnce(): Promise<void> {
  expect(await findIndex(database(), 'app.items_note_idx')).toMatchObject({ valid: true });
  expect(await timesRecorded(database(), filename)).toBe(1);
  const builds = await database().query(
    "select from pg_index where indrelid = 'app.items'::regclass and not indisvalid",
  );
  expect(builds).toEqual([]);
}

test('an index is built while other runs wait', async () => {
  // If they waited in a transaction, the build would wait for their snapshot, and they for the build.
  await asAdmin((admin) =>
    admin.query(`alter database ${database().name} set default_transaction_isolation = 'repeatable read'`),
  );
  const report = await startReport(database());
  const first = startRunner();
  await untilBlocked(database(), 'create index concurrently');
  const others = [startRunner(), startRunner(), startRunner()];
  await until(() => others.every(({ stderr }) => stderr().includes('for another migrator')));
  await report.query('commit');
  const results = await Promise.all([first, ...others].map(({ ended }) => ended));
  expect(results.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0, 0]);
  // It took longer than the lock timeout, which must not cancel it.
  expect(results[0]?.stderr).not.toContain('Trying again');
  await expectBuiltOnce();
});

describe('a build that is interrupted midway is repeated by the next run', () => {
  /** The interruption, and the message and exit code of the run. */
  const INTERRUPTIONS: readonly (readonly [
    string,
    (runner: ChildProcess, pid: number) => Promise<unknown>,
    { readonly exitCode: number | null; readonly stderr: RegExp },
  ])[] = [
    ['SIGKILL to the process', async (runner) => runner.kill('SIGKILL'), { exitCode: null, stderr: /^/ }],
    [
      'SIGTERM to the process',
      async (runner) => runner.kill('SIGTERM'),
      { exitCode: 1, stderr: /RUN_ABORTED: Stopped on request \(SIGTERM\).*was running/ },
    ],
    [
      'pg_cancel_backend',
      (_, pid) => database().query('select pg_cancel_backend($1)', [pid]),
      {
        exitCode: 1,
        stderr: /MIGRATION_FAILED: .*SQLSTATE 57014.*left an invalid index, which the next run drops/,
      },
    ],
    [
      'pg_terminate_backend',
      (_, pid) => database().query('select pg_terminate_backend($1)', [pid]),
      {
        exitCode: 1,
        stderr: /MIGRATION_FAILED: .*SQLSTATE 57P01.*left an invalid index, which the next run drops/,
      },
    ],
  ];

  test.each(INTERRUPTIONS)('%s', async (_, interrupt, expected) => {
    const report = await startReport(database());
    const { runner, ended } = startRunner();
    const pid = await untilBlocked(database(), 'create index concurrently');
    await interrupt(runner, pid);
    // The blocking transaction is still open.
    const { exitCode, stderr } = await ended;
    expect({ exitCode, stderr }).toEqual({
      exitCode: expected.exitCode,
      stderr: expect.stringMatching(expected.stderr),
    });
    // The server process has ended too: it would continue the build when the transaction ends.
    await until(async () => {
      const left = await database().query('select from pg_stat_activity where pid = $1', [pid]);
      return left.length === 0;
    });
    expect(await findIndex(database(), 'app.items_note_idx')).toMatchObject({ valid: false });
    expect(await timesRecorded(database(), filename)).toBe(0);

    await report.query('commit');
    const again = await runCli(['migrate'], { folder: copy.folder, env: environment() });
    expect(again).toMatchObject({ exitCode: 0 });
    expect(again.stderr).toContain('Dropped the invalid index app.items_note_idx');
    await expectBuiltOnce();
  });
});

describe('a build that another session blocks', () => {
  test.each([
    ['writes the table', false, 'waiting for writers before build'],
    ['has an older snapshot', true, 'waiting for old snapshots'],
  ])('since it %s, reports the session and the progress', async (_, reads, phase) => {
    const report = await startReport(database(), { reads });
    const run = startRun(copy, database().url);
    const { blockedBy, indexBuild } = await until(() => eventsOf(run, 'progress')[0]);
    const { role } = await one(database(), 'select current_user as role');
    expect(blockedBy).toMatchObject([
      { kind: 'session', pid: await pidOf(report), role, applicationName: 'nightly report' },
    ]);
    expect(indexBuild).toEqual({ phase, done: 0, total: 1 });
    await report.query('commit');
    await run.ended;
    await expectBuiltOnce();
  });

  test('for longer than the run waits, fails and names the session', async () => {
    const report = await startReport(database());
    const run = startRun(copy, database().url, { settings: { lockWaitMs: 500, lockTimeoutMs: 60_000 } });
    const { role } = await one(database(), 'select current_user as role');
    // The blocking session is still open.
    await expect(run.ended).rejects.toMatchObject({
      code: 'MIGRATION_FAILED',
      place: { filename },
      message: expect.stringMatching(
        new RegExp(
          `${filename} waited 0\\.5 s for server process ${await pidOf(report)}, role "${role}", application "nightly report", and was cancelled\\. End that transaction`,
        ),
      ),
    });
    expect(await timesRecorded(database(), filename)).toBe(0);
    await report.query('commit');
    await startRun(copy, database().url).ended;
    await expectBuiltOnce();
  });

  test('by a deadlock is tried again', async () => {
    // The build must find the deadlock. It checks once, so the other session has to wait before that.
    await asSuperuser((superuser) =>
      superuser.query(`alter database ${database().name} set deadlock_timeout = '4s'`),
    );
    const other = await database().connectAsSuperuser();
    await other.query("set deadlock_timeout = '10min'");
    await other.query('begin');
    await other.query('insert into app.items default values');
    const run = startRun(copy, database().url);
    await untilBlocked(database(), 'create index concurrently');
    // It waits for the build's lock, and the build waits for its transaction.
    const lock = other.query('lock table app.items in share update exclusive mode');
    await until(() => eventsOf(run, 'retry').length > 0);
    await lock;
    await other.query('commit');
    await run.ended;
    expect(eventsOf(run, 'retry')[0]?.reason).toMatch(`${filename} ran into a deadlock`);
    await expectBuiltOnce();
  });
});
