import { afterEach, beforeEach, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { eventsOf, startRun } from '../support/processes/run-copy.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();
let copy: PackageCopy;

beforeEach(() => {
  copy = copyPackage();
});
afterEach(() => copy.remove());

test('a migration is tried again if another session changed the rights of its function at the same time', async () => {
  const call = 'function public.answer() to public';
  await database().query('create function public.answer() returns integer language sql return 42');
  const filename = copy.addMigration('rights', `grant execute on ${call};`);
  const other = await database().connect();
  await other.query(`begin; grant execute on ${call}`);
  const run = startRun(copy, database().url, { settings: { lockTimeoutMs: 0 } });
  await until(async () => {
    const waiting = await database().query(
      `select from pg_stat_activity
       where datname = current_database() and wait_event_type = 'Lock' and query like '%${call}%'`,
    );
    return waiting.length > 0;
  });
  await other.query('commit');
  expect(await run.ended).toMatchObject({ applied: [{ filename }], attempts: 2 });
  expect(eventsOf(run, 'retry')).toMatchObject([{ reason: expect.stringContaining(filename) }]);
});
