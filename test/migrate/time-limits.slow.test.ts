import { expect, test } from 'vitest';
import { copyPackage } from '../../harness/package-copy.ts';
import { migrationStatus, pendingMigrations, runMigrations, verifySchema } from '../../src/index.ts';
import { RUN_SETTINGS } from '../../src/settings/server-settings.ts';
import { settingStatement } from '../../src/settings/setting-statement.mjs';
import { runCli } from '../support/command-line/command-line.ts';
import { setOnDatabase } from '../support/databases/database-settings.ts';
import { asAdmin, databaseForEachTest } from '../support/databases/test-database.ts';
import { until } from '../support/until.ts';

const empty = databaseForEachTest('empty');
const database = databaseForEachTest();
const env = () => ({ DATABASE_URL: database().url });
const LIMIT_MS = 300;
const TIME_LIMITS = Object.fromEntries(
  [
    'statement_timeout',
    'transaction_timeout',
    'idle_session_timeout',
    'idle_in_transaction_session_timeout',
  ].map((name) => [name, `${LIMIT_MS}ms`]),
);

/** Locks a table, lets `work` wait for it for longer than the time limits, and unlocks it. */
async function whileLocked<T>(table: string, mode: string, work: () => Promise<T>): Promise<T> {
  const client = await database().connect();
  // The limits are those of its sessions too.
  await client.query(settingStatement(RUN_SETTINGS, { isLocal: false }));
  await client.query('begin');
  await client.query(`lock table ${table} in ${mode} mode`);
  const result = work();
  result.catch(() => undefined);
  const outlasted = `select count(*)::integer as count from pg_stat_activity
    where datname = $1 and wait_event_type = 'Lock' and clock_timestamp() - query_start > interval '${2 * LIMIT_MS} ms'`;
  const failed = result.then(
    () => false,
    () => true,
  );
  await asAdmin((admin) =>
    until(async () => {
      const { rows } = await admin.query(outlasted, [database().name]);
      return rows[0].count > 0 || Promise.race([failed, false]);
    }),
  );
  await client.query('rollback');
  return result;
}

test('time limits of a database do not end a migration that takes longer, or the session that holds its lock', async () => {
  await setOnDatabase(database(), TIME_LIMITS);
  const copy = copyPackage();
  copy.addMigration('slow', `select pg_sleep(${(3 * LIMIT_MS) / 1000});`);
  copy.addMigration(
    'index',
    '--! no-transaction\ncreate index concurrently slow_idx on filestore.nodes (size_bytes);',
  );
  try {
    // The index build waits for it.
    const migrate = () => runCli(['migrate'], { folder: copy.folder, env: env() });
    const { exitCode, output } = await whileLocked('filestore.nodes', 'row exclusive', migrate);
    expect({ exitCode, output }).toEqual({
      exitCode: 0,
      output: expect.not.stringMatching(/lost|attempt/),
    });
  } finally {
    copy.remove();
  }
});

test('time limits of a database do not end the look at a history or the comparison of the schema, which wait for others', async () => {
  await setOnDatabase(database(), TIME_LIMITS);
  const exclusive = 'access exclusive';
  const look = () => migrationStatus({ env: env() });
  expect(await whileLocked('graphile_migrate.migrations', exclusive, look)).toMatchObject({
    state: 'current',
  });
  const compare = () => verifySchema({ env: env() });
  expect(await whileLocked('filestore.nodes', exclusive, compare)).toMatchObject({ state: 'same' });
});

// A server that has just started a process for a session needs more than a millisecond for its first queries.
test.each([1, 5, 20])('a limit of %d ms for a statement does not end any command', async (limitMs) => {
  await setOnDatabase(empty(), { statement_timeout: `${limitMs}ms` });
  const env = { DATABASE_URL: empty().url };
  expect(await migrationStatus({ env })).toMatchObject({ state: 'empty' });
  expect(await pendingMigrations({ env })).not.toEqual([]);
  expect(await runMigrations({ env })).toMatchObject({ schema: { state: 'same' } });
  const url = new URL(empty().url);
  url.searchParams.set('options', `-c statement_timeout=${limitMs}ms`);
  for (let time = 0; time < 10; time += 1) {
    expect(await verifySchema({ connectionString: url.href })).toMatchObject({ state: 'same' });
  }
});
