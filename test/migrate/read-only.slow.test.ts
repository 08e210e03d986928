import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import {
  assertMigrated,
  migrationStatus,
  pendingMigrations,
  runMigrations,
  verifySchema,
} from '../../src/index.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';
import { startStandby } from '../support/servers/standby.ts';

// Databases that can only be read: by a role that may only read, in a read-only session, on a standby.
let primary: OwnServer;
let standby: OwnServer;
beforeAll(async () => {
  primary = await startOwnServer();
  await inDatabase('postgres', async (client) => {
    for (const name of ['current', 'fresh', 'behind']) await client.query(`create database ${name}`);
    await client.query("create role reader login password 'reader'");
    await client.query("create role stranger login password 'stranger'");
    await client.query("create role careful superuser login password 'careful'");
    await client.query('alter role careful set default_transaction_read_only = on');
    await client.query("create role strict superuser login password 'strict'");
    await client.query("alter role strict set default_transaction_isolation = 'serializable'");
  });
  for (const name of ['current', 'behind']) {
    await runMigrations({ env: { DATABASE_URL: databaseUrl(primary.url, name) } });
    await inDatabase(name, async (client) => {
      await client.query('grant usage on schema graphile_migrate to reader');
      await client.query('grant select on graphile_migrate.migrations to reader');
    });
  }
  await inDatabase('behind', (client) =>
    client.query(
      'delete from graphile_migrate.migrations where filename = (select max(filename) from graphile_migrate.migrations)',
    ),
  );
  standby = await startStandby(primary);
});
afterAll(async () => {
  await standby?.stop();
  await primary?.stop();
});

async function inDatabase(name: string, work: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = new pg.Client(databaseUrl(primary.url, name));
  await client.connect();
  await work(client).finally(() => client.end());
}

/** The parts of a database that must not change: its schemas, and its history with the times. */
async function stateOf(server: OwnServer, name: string): Promise<unknown> {
  const client = new pg.Client(databaseUrl(server.url, name));
  await client.connect();
  try {
    const schemas = await client.query('select oid, nspname from pg_namespace order by oid');
    const { rows } = await client.query(
      "select to_regclass('graphile_migrate.migrations') is not null as there",
    );
    const history = rows[0].there
      ? await client.query('select * from graphile_migrate.migrations order by 1')
      : null;
    return { schemas: schemas.rows, history: history?.rows };
  } finally {
    await client.end();
  }
}

function urlAs(server: OwnServer, role: string, database: string): string {
  const url = new URL(databaseUrl(server.url, database));
  if (role !== 'postgres') {
    url.username = role;
    url.password = role;
  }
  return url.href;
}

const errorsIn = (server: OwnServer) =>
  readFileSync(join(server.folder, 'postgres.log'), 'utf8')
    .split('\n')
    .filter((line) => /\b(WARNING|ERROR|FATAL|PANIC):/.test(line));

/** Runs `work` and expects no new warning or error in the server's log. */
async function expectQuietLog<T>(server: OwnServer, work: () => Promise<T>): Promise<T> {
  const before = errorsIn(server);
  const result = await work();
  expect(errorsIn(server)).toEqual(before);
  return result;
}

const WAYS = [
  ['a role that may only read the history', () => primary, 'reader', false],
  ['a session that is read-only', () => primary, 'careful', false],
  ['a hot standby', () => standby, 'postgres', true],
  ['a hot standby, for a role that may only read the history', () => standby, 'reader', true],
  ['a hot standby, which refuses the isolation level of the role', () => standby, 'strict', true],
] as const;

describe.each(WAYS)('by way of %s', (_, serverOf, role, isStandby) => {
  const envFor = (database: string) => ({ DATABASE_URL: urlAs(serverOf(), role, database) });

  test('every function reports a current database as current', async () => {
    const env = envFor('current');
    const before = await stateOf(serverOf(), 'current');
    await expectQuietLog(serverOf(), async () => {
      expect(await migrationStatus({ env })).toMatchObject({ state: 'current', standby: isStandby });
      expect(await runMigrations({ env })).toMatchObject({
        applied: [],
        alreadyApplied: committedMigrations().length,
      });
      expect(await pendingMigrations({ env })).toEqual([]);
      expect(await verifySchema({ env })).toMatchObject(
        role === 'reader'
          ? { state: 'unchecked', reason: expect.stringContaining('Could not check rights: role "reader"') }
          : { state: 'same' },
      );
      await assertMigrated({ env });
    });
    expect(await stateOf(serverOf(), 'current')).toEqual(before);
  });

  test('the command line reports the same', async () => {
    const env = envFor('current');
    await expectQuietLog(serverOf(), async () => {
      for (const command of ['status', 'migrate']) {
        expect(await runCli([command], { env })).toMatchObject({ exitCode: 0, stderr: '' });
      }
      expect(await runCli(['verify'], { env })).toMatchObject(
        role === 'reader'
          ? { exitCode: 1, stderr: expect.stringContaining('Could not check rights') }
          : { exitCode: 0, stderr: '' },
      );
    });
  });

  test('the pending migrations of a database are listed', async () => {
    await expectQuietLog(serverOf(), async () => {
      expect(await migrationStatus({ env: envFor('fresh') })).toMatchObject({ state: 'empty' });
      const pending = committedMigrations().slice(-1);
      expect(await migrationStatus({ env: envFor('behind') })).toMatchObject({ state: 'pending', pending });
      await expect(assertMigrated({ env: envFor('behind') })).rejects.toMatchObject({
        code: 'NOT_MIGRATED',
        pending,
      });
    });
  });
});

describe.each([
  [
    'a session that is read-only',
    () => primary,
    'careful',
    /read-only, .*default_transaction_read_only to off/,
  ],
  [
    'a hot standby',
    () => standby,
    'postgres',
    /hot standby.*Migrate its primary \(FILESTORE_MIGRATION_DATABASE_URL\)/,
  ],
] as const)('migrating by way of %s', (_, serverOf, role, message) => {
  test.each(['fresh', 'behind'])(
    'a database with pending migrations (%s) is refused, and nothing is attempted',
    async (name) => {
      const before = await stateOf(serverOf(), name);
      await expectQuietLog(serverOf(), async () => {
        const env = { DATABASE_URL: urlAs(serverOf(), role, name) };
        await expect(runMigrations({ env })).rejects.toMatchObject({
          code: 'DATABASE_READ_ONLY',
          message: expect.stringMatching(message),
        });
        expect(await runCli(['migrate'], { env })).toMatchObject({
          exitCode: 1,
          stderr: expect.stringMatching(/^DATABASE_READ_ONLY: /),
        });
      });
      expect(await stateOf(serverOf(), name)).toEqual(before);
    },
  );
});

test('a history that the role may not read is a separate error, with the missing grants', async () => {
  const env = { DATABASE_URL: urlAs(primary, 'stranger', 'current') };
  const refusal = {
    code: 'HISTORY_UNREADABLE',
    message: expect.stringMatching(
      /grant usage on schema graphile_migrate to .*grant select on graphile_migrate\.migrations to/,
    ),
  };
  await expectQuietLog(primary, async () => {
    for (const ask of [migrationStatus, runMigrations, pendingMigrations, verifySchema, assertMigrated]) {
      await expect(ask({ env })).rejects.toMatchObject(refusal);
    }
    expect(await runCli(['status'], { env })).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/^HISTORY_UNREADABLE: /),
    });
  });
});
