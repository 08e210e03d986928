import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Proxy as Cable, startProxy } from '../../harness/proxy.ts';
import {
  assertMigrated,
  migrationStatus,
  pendingMigrations,
  runMigrations,
  verifySchema,
} from '../../src/index.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { forgetLast } from '../support/databases/fleet-databases.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';

// Like a pooler, this proxy sends a process id that it made up.
const database = databaseForFile();
const last = committedMigrations().slice(-1);
let pooler: Cable;
beforeEach(async () => {
  await forgetLast(database());
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
  expect(await pendingMigrations({ env: { DATABASE_URL: database().url } })).toMatchObject(
    last.map((filename) => ({ filename })),
  );
}

test('a pooler is refused before anything is applied', async () => {
  await expect(runMigrations({ env: { DATABASE_URL: pooler.url } })).rejects.toMatchObject(REFUSAL);
  await expectUntouched();
  expect(pooler.conversations).toEqual([['Q', 'X']]);
});

test('a pooler is refused also when nothing is pending, since the next deploy would fail', async () => {
  await runMigrations({ env: { DATABASE_URL: database().url } });
  await expect(runMigrations({ env: { DATABASE_URL: pooler.url } })).rejects.toMatchObject(REFUSAL);
});

test('the command line reports a pooler as a wrong setting, as text and JSON', async () => {
  const { exitCode, stdout, stderr } = await runCli(['migrate', '--json'], {
    env: { DATABASE_URL: pooler.url },
  });
  expect(exitCode).toBe(2);
  expect(stderr).toMatch(/^POOLER_IN_BETWEEN: .*FILESTORE_MIGRATION_DATABASE_URL/m);
  expect(JSON.parse(stdout)).toMatchObject({ ok: false, error: REFUSAL });
  await expectUntouched();
});

test('migrations use the direct URL', async () => {
  const { exitCode, stdout } = await runCli(['migrate'], {
    env: { FILESTORE_DATABASE_URL: pooler.url, FILESTORE_MIGRATION_DATABASE_URL: database().url },
  });
  expect(exitCode).toBe(0);
  expect(stdout).toContain('applied 1 migration, ');
  expect(pooler.conversations).toEqual([]);
});

test('a pooler in session mode is accepted when the setting says session', async () => {
  const env = { DATABASE_URL: pooler.url, FILESTORE_MIGRATION_POOLER: 'session' };
  expect(await runMigrations({ env })).toMatchObject({
    applied: last.map((filename) => ({ filename })),
    schema: { state: 'same' },
  });
});

test('read-only commands work through a pooler', async () => {
  const env = { DATABASE_URL: pooler.url };
  expect(await migrationStatus({ env })).toMatchObject({ state: 'pending' });
  expect(await pendingMigrations({ env })).toHaveLength(1);
  await expect(assertMigrated({ env })).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
  await runMigrations({ env: { DATABASE_URL: database().url } });
  await assertMigrated({ env });
  expect(await verifySchema({ env })).toMatchObject({ state: 'same' });
});

test('an invalid value of the setting is not printed, since it may be the URL of the pooler', async () => {
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
