import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import {
  assertMigrated,
  migrationStatus,
  pendingMigrations,
  runMigrations,
  verifySchema,
} from '../../src/index.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { canUse } from '../support/processes/programs.ts';
import { one } from '../support/rows/nodes.ts';
import { type PgBouncer, pgbouncerBinary, startPgbouncer } from '../support/servers/pgbouncer.ts';
import { lookAtSessions } from '../support/servers/pooled-sessions.ts';

describe.skipIf(!canUse('pgbouncer', pgbouncerBinary() !== undefined))(
  'PgBouncer in transaction mode',
  () => {
    const database = databaseForEachTest('empty');
    let bouncer: PgBouncer;
    beforeAll(async () => {
      // With one session, the next client finds what the last one left.
      bouncer = await startPgbouncer({ server: inject('adminUrl'), mode: 'transaction', poolSize: 1 });
    });
    afterAll(() => bouncer?.stop());

    const pooledUrl = () => bouncer.url(database().name);
    const look = async () => (await lookAtSessions(pooledUrl(), 1))[0];

    /** Runs `work` and expects that the database and the pooled session are unchanged. */
    async function expectNoTrace(work: () => Promise<unknown>): Promise<void> {
      const before = await look();
      await work();
      expect(await look()).toEqual(before);
      expect(
        await one(
          database(),
          "select count(*)::integer as count from pg_locks l join pg_database d on d.oid = l.database where l.locktype = 'advisory' and d.datname = current_database()",
        ),
      ).toEqual({ count: 0 });
    }

    async function expectUntouched(): Promise<void> {
      expect(
        await one(
          database(),
          "select count(*)::integer as count from pg_namespace where nspname in ('filestore', 'graphile_migrate')",
        ),
      ).toEqual({ count: 0 });
    }

    test('is refused, with the remedy', async () => {
      await expectNoTrace(async () => {
        await expect(runMigrations({ env: { DATABASE_URL: pooledUrl() } })).rejects.toMatchObject({
          code: 'POOLER_IN_BETWEEN',
          message: expect.stringMatching(/goes through a pooler.*FILESTORE_MIGRATION_DATABASE_URL/),
        });
      });
      await expectUntouched();
    });

    test('is refused even when the setting says session', async () => {
      await expectNoTrace(async () => {
        const env = { DATABASE_URL: pooledUrl(), FILESTORE_MIGRATION_POOLER: 'session' };
        expect(await runCli(['migrate'], { env })).toMatchObject({
          exitCode: 2,
          stderr: expect.stringMatching(/not in session mode.*FILESTORE_MIGRATION_DATABASE_URL/),
        });
      });
      await expectUntouched();
    });

    test('is refused also when it hands out two warm sessions in turn', async () => {
      const inTurn = await startPgbouncer({
        server: inject('adminUrl'),
        mode: 'transaction',
        poolSize: 2,
        settings: ['server_round_robin = 1'],
      });
      const url = inTurn.url(database().name);
      const clients = [new pg.Client(url), new pg.Client(url)];
      try {
        await Promise.all(clients.map((client) => client.connect()));
        // At the same time, so that each gets a session of the server.
        await Promise.all(clients.map((client) => client.query('select pg_sleep(0.1)')));
        const env = { DATABASE_URL: url, FILESTORE_MIGRATION_POOLER: 'session' };
        for (let attempt = 0; attempt < 4; attempt += 1) {
          await expect(runMigrations({ env })).rejects.toMatchObject({
            code: 'POOLER_IN_BETWEEN',
            message: expect.stringContaining('not in session mode'),
          });
        }
        await expectUntouched();
      } finally {
        await Promise.all(clients.map((client) => client.end()));
        await inTurn.stop();
      }
    });

    test('is detected among the traffic of other clients, which share its sessions', async () => {
      const busy = await startPgbouncer({ server: inject('adminUrl'), mode: 'transaction', poolSize: 3 });
      const traffic = { goesOn: true };
      const clients = await Promise.all(
        Array.from({ length: 3 }, async () => {
          const client = new pg.Client(busy.url(database().name));
          await client.connect();
          const work = (async () => {
            while (traffic.goesOn) {
              await client.query('select pg_sleep(random() * 0.002)');
              await delay(Math.random() * 2);
            }
          })();
          return { client, work };
        }),
      );
      try {
        const env = { DATABASE_URL: busy.url(database().name), FILESTORE_MIGRATION_POOLER: 'session' };
        for (let attempt = 0; attempt < 25; attempt += 1) {
          await expect(runMigrations({ env })).rejects.toMatchObject({ code: 'POOLER_IN_BETWEEN' });
        }
        await expectUntouched();
      } finally {
        traffic.goesOn = false;
        await Promise.all(clients.map(({ work }) => work));
        await Promise.all(clients.map(({ client }) => client.end()));
        await busy.stop();
      }
    });

    test('can be used by services when migrations have a direct URL', async () => {
      const env = { FILESTORE_DATABASE_URL: pooledUrl(), FILESTORE_MIGRATION_DATABASE_URL: database().url };
      expect(await runCli(['migrate'], { env })).toMatchObject({
        exitCode: 0,
        stdout: expect.stringContaining(`applied ${committedMigrations().length} migrations`),
      });
      await assertMigrated({ env: { DATABASE_URL: pooledUrl() } });
    });

    test('works for read-only commands, which leave nothing in its session', async () => {
      const env = { DATABASE_URL: pooledUrl() };
      await expectNoTrace(async () => {
        expect(await migrationStatus({ env })).toMatchObject({ state: 'empty' });
        expect(await pendingMigrations({ env })).toHaveLength(committedMigrations().length);
        await expect(assertMigrated({ env })).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
      });
      await runMigrations({ env: { DATABASE_URL: database().url } });
      await expectNoTrace(async () => {
        expect(await migrationStatus({ env })).toMatchObject({ state: 'current' });
        expect(await verifySchema({ env })).toMatchObject({ state: 'same' });
        await assertMigrated({ env });
      });
    });
  },
);
