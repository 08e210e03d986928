import { afterEach, beforeEach, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { type Proxy as Cable, startProxy } from '../../harness/proxy.ts';
import {
  BUILD_INDEX,
  createItems,
  findIndex,
  startReport,
  timesRecorded,
  untilBlocked,
} from '../support/databases/concurrent-index.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { type CopyRun, eventsOf, startRun } from '../support/processes/run-copy.ts';
import { until } from '../support/until.ts';

/** With these, a run gives up on a build as soon as it sees that another session blocks it. */
const settings = { lockWaitMs: 0, lockTimeoutMs: 60_000 };
/** A text of the statement with which a run looks for such sessions. */
const LOOK = 'pg_blocking_pids';

const database = databaseForEachTest();
let copy: PackageCopy;
let proxy: Cable;

beforeEach(async () => {
  copy = copyPackage();
  proxy = await startProxy(database().url);
  await createItems(database());
});
afterEach(async () => {
  await proxy.stop();
  copy.remove();
});

async function expectApplied(filenames: readonly string[]): Promise<void> {
  expect(await findIndex(database(), 'app.items_note_idx')).toMatchObject({ valid: true });
  for (const filename of filenames) expect(await timesRecorded(database(), filename)).toBe(1);
}

/** Waits until a migration is applied, or until the run has ended. */
const untilApplied = (run: CopyRun, filename: string) =>
  Promise.race([
    until(async () => eventsOf(run, 'migration-end').some((event) => event.filename === filename)),
    run.ended,
  ]);

test('what a look saw is not held against a build that began during it', async () => {
  const column = copy.addMigration('column', 'alter table app.items add column amount bigint;');
  const index = copy.addMigration('index', BUILD_INDEX);
  const writer = await startReport(database());
  const firstLook = proxy.holdAt(LOOK);
  const run = startRun(copy, proxy.url, { settings });
  const releaseFirst = await firstLook;
  const reader = await startReport(database(), { table: 'pg_catalog.pg_class', reads: true });
  await writer.query('commit');
  await untilBlocked(database(), 'create index concurrently');
  // A later look is about the build, and would see the reader.
  const secondLook = proxy.holdAt(LOOK);
  releaseFirst();
  await until(async () => {
    const looked = await database().query(
      `select from pg_stat_activity
       where datname = current_database() and pid <> pg_backend_pid() and state = 'idle' and query ~ $1`,
      [LOOK],
    );
    return looked.length > 0;
  });
  await reader.query('commit');
  await untilApplied(run, index);
  void secondLook.then((release) => release());
  await run.ended;
  await expectApplied([column, index]);
});

test('a build does not count as blocked by the look itself', async () => {
  const index = copy.addMigration('index', BUILD_INDEX);
  const writer = await startReport(database());
  const run = startRun(copy, proxy.url, { settings });
  await untilBlocked(database(), 'create index concurrently');
  // The look reads pg_locks, so it waits, with an old snapshot.
  const holder = await database().connectAsSuperuser();
  await holder.query('begin; lock table pg_catalog.pg_locks in access exclusive mode');
  const untilWaiting = (lock: string) =>
    until(async () => {
      const waiting = await database().query(`select from pg_lock_status() l where not granted and ${lock}`);
      return waiting.length > 0;
    });
  await untilWaiting("l.relation = 'pg_catalog.pg_locks'::regclass");
  await writer.query('commit');
  await untilWaiting("l.mode = 'ShareLock' and l.locktype = 'virtualxid'");
  await holder.query('commit');
  await run.ended;
  expect(eventsOf(run, 'progress').map(({ blockedBy }) => blockedBy)).toEqual([[]]);
  await expectApplied([index]);
});

test('a build that ends while the run gives up on it counts, and the run goes on', async () => {
  const index = copy.addMigration('index', BUILD_INDEX);
  const column = copy.addMigration('column', 'alter table app.items add column amount bigint;');
  const writer = await startReport(database());
  const cancel = proxy.holdAt('pg_cancel_backend');
  const run = startRun(copy, proxy.url, { settings });
  const release = await cancel;
  await writer.query('commit');
  await untilApplied(run, index);
  release();
  await run.ended;
  expect(eventsOf(run, 'retry')).toMatchObject([{ reason: expect.stringContaining(index), delayMs: 0 }]);
  await expectApplied([index, column]);
});

test('a run whose cancel does not reach the server fails, and does not start over', async () => {
  const index = copy.addMigration('index', BUILD_INDEX);
  await startReport(database());
  const cancel = proxy.holdAt('pg_cancel_backend');
  const run = startRun(copy, proxy.url, { settings });
  await cancel;
  await expect(run.ended).rejects.toMatchObject({
    code: 'MIGRATION_FAILED',
    message: expect.stringMatching(`${index} waited .*application "nightly report"`),
  });
  expect(eventsOf(run, 'retry')).toEqual([]);
  expect(await timesRecorded(database(), index)).toBe(0);
});

test('a build of someone else that ends while a run looks for its session keeps its index', async () => {
  const index = copy.addMigration('index', BUILD_INDEX);
  const writer = await startReport(database());
  const builder = await database().connect();
  const built = builder.query('create index concurrently items_note_idx on app.items (note)');
  await untilBlocked(database(), 'create index concurrently');
  const look = proxy.holdAt('ShareUpdateExclusiveLock');
  const run = startRun(copy, proxy.url, { settings });
  const release = await look;
  await writer.query('commit');
  await built;
  const before = await findIndex(database(), 'app.items_note_idx');
  release();
  await run.ended;
  expect(await findIndex(database(), 'app.items_note_idx')).toEqual(before);
  await expectApplied([index]);
});
