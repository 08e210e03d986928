import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Proxy as Cable, startProxy } from '../../harness/proxy.ts';
import {
  assertMigrated,
  migrationStatus,
  pendingMigrations,
  runMigrations,
  verifySchema,
} from '../../src/index.ts';
import { runCli } from '../support/command-line.ts';
import { committedMigrations } from '../support/committed-files.ts';
import { one } from '../support/nodes.ts';
import { databaseForEachTest } from '../support/test-database.ts';

// What a pooler shows of itself is a process id of its own making; this one shows that and nothing else.
const database = databaseForEachTest('empty');
let pooler: Cable;
beforeEach(async () => {
  pooler = await startProxy(database().url, { rewriteProcessId: true });
});
afterEach(() => pooler.stop());

const REFUSAL = {
  code: 'POOLER_IN_BETWEEN',
  message: expect.stringMatching(
    /goes through a pooler.*Nothing was changed.*FILESTORE_MIGRATION_DATABASE_URL.*FILESTORE_MIGRATION_POOLER=session/,
  ),
};

async function expectUntouched(): Promise<void> {
  expect(
    await one(
      database(),
      "select count(*)::integer as count from pg_namespace where nspname in ('filestore', 'graphile_migrate')",
    ),
  ).toEqual({ count: 0 });
}

test('a pooler is refused before anything is done', async () => {
  await expect(runMigrations({ env: { DATABASE_URL: pooler.url } })).rejects.toMatchObject(REFUSAL);
  await expectUntouched();
  expect(pooler.conversations).toEqual([['Q', 'X']]);
});

test('a pooler is refused where nothing is pending too: the next deploy would stop at it', async () => {
  await runMigrations({ env: { DATABASE_URL: database().url } });
  await expect(runMigrations({ env: { DATABASE_URL: pooler.url } })).rejects.toMatchObject(REFUSAL);
});

test('a pooler is refused by the command line as a wrong setting, in words and as a document', async () => {
  const { exitCode, stdout, stderr } = await runCli(['migrate', '--json'], {
    env: { DATABASE_URL: pooler.url },
  });
  expect(exitCode).toBe(2);
  expect(stderr).toMatch(/^POOLER_IN_BETWEEN: .*FILESTORE_MIGRATION_DATABASE_URL/m);
  expect(JSON.parse(stdout)).toMatchObject({ ok: false, error: REFUSAL });
  await expectUntouched();
});

test('the direct URL is the one that is taken', async () => {
  const { exitCode, stdout } = await runCli(['migrate'], {
    env: { FILESTORE_DATABASE_URL: pooler.url, FILESTORE_MIGRATION_DATABASE_URL: database().url },
  });
  expect(exitCode).toBe(0);
  expect(stdout).toContain(`applied ${committedMigrations().length} migrations`);
  expect(pooler.conversations).toEqual([]);
});

test('a pooler that is said to be in session mode, and is, passes', async () => {
  const env = { DATABASE_URL: pooler.url, FILESTORE_MIGRATION_POOLER: 'session' };
  expect(await runMigrations({ env })).toMatchObject({
    applied: { length: committedMigrations().length },
    schema: { state: 'same' },
  });
});

test('commands that only read work through a pooler', async () => {
  const env = { DATABASE_URL: pooler.url };
  expect(await migrationStatus({ env })).toMatchObject({ state: 'empty' });
  expect(await pendingMigrations({ env })).toHaveLength(committedMigrations().length);
  await expect(assertMigrated({ env })).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
  await runMigrations({ env: { DATABASE_URL: database().url } });
  await assertMigrated({ env });
  expect(await verifySchema({ env })).toMatchObject({ state: 'same' });
});

test('a value that is neither refuse nor session is not shown: it may be the URL of the pooler', async () => {
  const env = {
    DATABASE_URL: database().url,
    FILESTORE_MIGRATION_POOLER: 'postgres://app:sesame@pooler/app',
  };
  await expect(runMigrations({ env })).rejects.toMatchObject({
    code: 'SETTINGS_INVALID',
    setting: 'FILESTORE_MIGRATION_POOLER',
    message: expect.not.stringContaining('sesame'),
  });
});
