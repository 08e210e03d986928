import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { MIGRATION_LOCK_KEY } from '../../src/session/lock-holder.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { eventsOf, startRun } from '../support/processes/run-copy.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();
let copy: PackageCopy;
let first: string;
let second: string;

beforeEach(() => {
  copy = copyPackage();
  first = copy.addMigration('first', 'create table public.first ();');
  second = copy.addMigration('second', 'create table public.second ();');
});
afterEach(() => copy.remove());

const remove = (filename: string) => rmSync(join(copy.folder, 'migrations', 'committed', filename));
const missing = (filenames: string, applied: readonly string[]) => ({
  code: 'MIGRATION_FAILED',
  message: expect.stringContaining(`(${filenames}) did not reach database`),
  applied,
});

test.each([
  ['lack the last one', () => remove(second), () => missing(second, [first])],
  [
    'lack all that were pending',
    () => [second, first].forEach(remove),
    () => missing(`${first}, ${second}`, []),
  ],
  [
    'have another content',
    () => copy.rewriteMigration(second, 'create table public.third ();'),
    () => ({ code: 'HISTORY_REWRITTEN' }),
  ],
])(
  'a run does not report success if the files %s when it applies them, after it waited',
  async (_, change, refusal) => {
    const holder = await database().connect();
    await holder.query(`select pg_advisory_lock(${MIGRATION_LOCK_KEY})`);
    const run = startRun(copy, database().url);
    await until(() => eventsOf(run, 'waiting').length > 0);
    change();
    await holder.query(`select pg_advisory_unlock(${MIGRATION_LOCK_KEY})`);
    await expect(run.ended).rejects.toMatchObject(refusal());
  },
);
