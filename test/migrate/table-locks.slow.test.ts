import type { Client } from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { collect, startCli } from '../support/command-line/command-line.ts';
import { asSuperuser, databaseForEachTest } from '../support/databases/test-database.ts';
import { migrationNumber } from '../support/packages/committed-files.ts';
import { eventsOf, startRun } from '../support/processes/run-copy.ts';
import { one } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();
let copy: PackageCopy;

beforeEach(async () => {
  copy = copyPackage();
  await database().query('create table public.busy (id bigint generated always as identity, note text)');
  await database().query("insert into public.busy (note) values ('first')");
});
afterEach(() => copy.remove());

/** Opens a transaction that has read the table, like a long report. */
async function startReport(): Promise<Client> {
  const report = await database().connect();
  await report.query("set application_name = 'nightly report'");
  await report.query('begin');
  await report.query('select from public.busy');
  return report;
}

/** Reads and writes the table without a pause until it is stopped, and returns the longest wait. */
async function startTraffic(): Promise<{ readonly stop: () => Promise<number> }> {
  const client = await database().connect();
  let stopped = false;
  let longestMs = 0;
  const work = async () => {
    while (!stopped) {
      for (const statement of ["update public.busy set note = 'written'", 'select note from public.busy']) {
        const startedAt = performance.now();
        await client.query(statement);
        longestMs = Math.max(longestMs, performance.now() - startedAt);
      }
    }
  };
  const ended = work();
  return {
    async stop() {
      stopped = true;
      await ended;
      return longestMs;
    },
  };
}

async function pidOf(client: Client): Promise<number> {
  return (await one(client, 'select pg_backend_pid() as pid')).pid;
}

/** How often a migration is recorded, and whether its column exists. */
async function outcomeOf(filename: string) {
  return one(
    database(),
    `select
       (select count(*)::int from graphile_migrate.migrations where filename = $1) as recorded,
       exists (
         select from pg_attribute where attrelid = 'public.busy'::regclass and attname = 'more' and not attisdropped
       ) as done`,
    [`${migrationNumber(filename)}.sql`],
  );
}

describe('a table that another transaction uses', () => {
  test.each([
    ['in a transaction', ''],
    ['without a transaction', '--! no-transaction\n'],
  ])(
    'is altered %s when that ends, and its traffic never waits longer than the lock timeout',
    async (_, header) => {
      const filename = copy.addMigration('more', `${header}alter table public.busy add column more text;`);
      const report = await startReport();
      const traffic = await startTraffic();
      const lockTimeoutMs = 300;
      const startedAt = performance.now();
      const run = startRun(copy, database().url, { settings: { lockTimeoutMs } });
      // The pauses between five attempts are about 0.2, 0.4, 0.6 and 0.8 s.
      await until(() => eventsOf(run, 'retry').length >= 5);
      const heldMs = performance.now() - startedAt;
      await report.query('commit');
      const { attempts, lockTimeouts } = await run.ended;
      const longestMs = await traffic.stop();

      expect(attempts).toBeGreaterThan(5);
      expect(await outcomeOf(filename)).toEqual({ recorded: 1, done: true });
      expect(heldMs).toBeGreaterThan(2_000);
      // The traffic did queue behind the migration, but only for a part of the time.
      expect(longestMs).toBeGreaterThan(lockTimeoutMs / 3);
      expect(longestMs).toBeLessThan(heldMs / 2);
      const retries = eventsOf(run, 'retry');
      for (const { reason } of retries) {
        expect(reason).toMatch(`${filename} did not get the lock it needs within its lock timeout`);
      }
      expect(retries.some(({ reason }) => reason.includes('application "nightly report"'))).toBe(true);
      const waits = retries.map(({ lockWaitedMs }) => lockWaitedMs);
      expect(waits).toEqual([100, 200, ...waits.slice(2).map(() => lockTimeoutMs)]);
      expect(lockTimeouts).toEqual({
        count: waits.length,
        totalMs: waits.reduce((sum: number, waitedMs) => sum + (waitedMs ?? 0), 0),
        longestMs: lockTimeoutMs,
      });
    },
  );

  test('for longer than the run waits, is reported with the session that uses it, and nothing is left behind', async () => {
    const filename = copy.addMigration(
      'more',
      'create table public.half_done ();\nselect pg_sleep(0.7);\nalter table public.busy add column more text;',
    );
    const report = await startReport();
    // The second wait is as long as the work before it. Together they exceed the second after which progress is reported.
    const run = startRun(copy, database().url, { settings: { lockTimeoutMs: 2_500, lockWaitMs: 1_500 } });
    const { role } = await one(database(), 'select current_user as role');
    const who = `server process ${await pidOf(report)}, role "${role}", application "nightly report"`;
    await expect(run.ended).rejects.toMatchObject({
      code: 'MIGRATION_FAILED',
      sqlState: '55P03',
      place: { filename, statement: 3 },
      applied: [],
      message: expect.stringMatching(
        new RegExp(
          `${filename} failed at statement 3.*waited for ${who}.*Run this again when that transaction has ended`,
        ),
      ),
    });
    expect(eventsOf(run, 'progress')[0]?.blockedBy).toMatchObject([
      { kind: 'session', pid: await pidOf(report), role, applicationName: 'nightly report' },
    ]);
    expect(await outcomeOf(filename)).toEqual({ recorded: 0, done: false });
    expect(await one(database(), "select to_regclass('public.half_done') as half")).toEqual({ half: null });
  });
});

test('each migration begins with a short wait, however long the one before had to wait', async () => {
  await database().query('create table public.second ()');
  for (const table of ['busy', 'second']) {
    copy.addMigration(
      table,
      `do $$ begin raise warning '${table}: %', current_setting('lock_timeout'); end $$;
alter table public.${table} add column more text;`,
    );
  }
  const [first, second] = [await startReport(), await database().connect()];
  await second.query('begin; select from public.second');
  const run = startRun(copy, database().url);
  const timeoutsOf = (table: string) =>
    eventsOf(run, 'warning').flatMap(({ message }) => (message.startsWith(`${table}: `) ? [message] : []));
  await until(() => timeoutsOf('busy').length > 3);
  await first.query('commit');
  await until(() => timeoutsOf('second').length > 2);
  await second.query('commit');

  await run.ended;
  expect(timeoutsOf('busy').slice(0, 3)).toEqual(['busy: 100ms', 'busy: 200ms', 'busy: 300ms']);
  expect(timeoutsOf('second').slice(0, 2)).toEqual(['second: 100ms', 'second: 200ms']);
});

test('the command line reports how often it gave up a wait, and how long others may have waited', async () => {
  const filename = copy.addMigration('more', 'alter table public.busy add column more text;');
  copy.modelIsOf(filename);
  const report = await startReport();
  const child = startCli(['migrate'], { folder: copy.folder, env: { DATABASE_URL: database().url } });
  let heard = '';
  child.stderr?.on('data', (chunk) => {
    heard += chunk;
  });
  const ended = collect(child);
  await until(() => heard.split('Trying again').length > 2);
  await report.query('commit');
  const { exitCode, stdout, stderr } = await ended;
  expect(exitCode).toBe(0);
  expect(stderr).toMatch(/Other sessions may have waited 0\.1 s behind it\. Trying again in .*\(attempt 2\)/);
  expect(stderr).toMatch(/Other sessions may have waited 0\.2 s behind it\. Trying again in .*\(attempt 3\)/);
  const times = stderr.split('Trying again').length - 1;
  expect(stdout).toMatch(
    new RegExp(`^Gave up ${times} waits for a table's lock: other sessions may have waited 0\\.\\d s`, 'm'),
  );
});

test('a deadlock with another transaction is tried again', async () => {
  await database().query('create table public.other ()');
  const filename = copy.addMigration(
    'more',
    `alter table public.busy add column more text;
do $wait$
begin
  -- Until the other transaction waits for this one. In the next attempt, that one has ended.
  while exists (select from pg_locks where relation = 'public.other'::regclass and granted)
    and not exists (select from pg_locks where relation = 'public.busy'::regclass and not granted)
  loop
    perform pg_sleep(0.01);
  end loop;
end
$wait$;
alter table public.other add column more text;`,
  );
  const other = await database().connectAsSuperuser();
  // With these timeouts, the migration is the one that detects the deadlock, before its lock timeout.
  await asSuperuser((superuser) =>
    superuser.query(`alter database ${database().name} set deadlock_timeout = '10ms'`),
  );
  await other.query("set deadlock_timeout = '10min'");
  await other.query('begin; lock table public.other');
  const run = startRun(copy, database().url, { settings: { lockTimeoutMs: 30_000 } });
  await until(async () => {
    const held = await database().query(
      "select from pg_locks where relation = 'public.busy'::regclass and mode = 'AccessExclusiveLock' and granted",
    );
    return held.length > 0;
  });
  await other.query('select from public.busy');
  await other.query('commit');

  const { attempts } = await run.ended;
  expect(attempts).toBe(2);
  expect(eventsOf(run, 'retry').map(({ reason }) => reason)).toEqual([
    expect.stringMatching(`${filename} ran into a deadlock`),
  ]);
  expect(await outcomeOf(filename)).toEqual({ recorded: 1, done: true });
});
