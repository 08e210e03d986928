import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { copyPackage } from '../../harness/package-copy.ts';
import { runMigrations } from '../../src/index.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { forgetLast } from '../support/databases/fleet-databases.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { canUse } from '../support/processes/programs.ts';
import { type PgBouncer, pgbouncerBinary, startPgbouncer } from '../support/servers/pgbouncer.ts';
import { lookAtSessions } from '../support/servers/pooled-sessions.ts';

describe.skipIf(!canUse('pgbouncer', pgbouncerBinary() !== undefined))('PgBouncer in session mode', () => {
  const database = databaseForEachTest();
  let bouncer: PgBouncer;
  beforeAll(async () => {
    // Without "discard all" after each client, so that the test can find what a run leaves.
    bouncer = await startPgbouncer({
      server: inject('adminUrl'),
      mode: 'session',
      settings: ['server_reset_query ='],
    });
  });
  afterAll(() => bouncer?.stop());
  beforeEach(async () => {
    await forgetLast(database());
    await database().disconnect();
  });

  const trusted = (pooler = bouncer) => ({
    DATABASE_URL: pooler.url(database().name),
    FILESTORE_MIGRATION_POOLER: 'session',
  });

  /** The server sessions that the pooler keeps for its next clients. */
  async function pooledSessions(): Promise<readonly number[]> {
    const rows = await database().query<{ pid: number }>(
      'select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() order by pid',
    );
    return rows.map(({ pid }) => pid);
  }

  /** Runs `work` and expects that its sessions are afterwards like new ones. */
  async function expectCleanSessions(work: () => Promise<unknown>): Promise<void> {
    const url = bouncer.url(database().name);
    const [fresh] = await lookAtSessions(url, 1);
    await work();
    const used = await pooledSessions();
    expect(used.length).toBeGreaterThan(1);
    const found = await lookAtSessions(url, used.length);
    // The pooler may close a session that it kept, and open another one, at any time.
    expect(found.map(({ pid }) => pid).sort((a, b) => a - b)).toEqual(await pooledSessions());
    expect(used.filter((pid) => found.some((state) => state.pid === pid)).length).toBeGreaterThan(0);
    for (const state of found) expect(state).toEqual({ ...fresh, pid: state.pid });
  }

  test('is refused, with both remedies', async () => {
    await expect(
      runMigrations({ env: { DATABASE_URL: bouncer.url(database().name) } }),
    ).rejects.toMatchObject({
      code: 'POOLER_IN_BETWEEN',
      message: expect.stringMatching(/FILESTORE_MIGRATION_DATABASE_URL.*FILESTORE_MIGRATION_POOLER=session/),
    });
  });

  test('is accepted when the setting says session, and its sessions are like new afterwards', async () => {
    await expectCleanSessions(async () => {
      expect(await runMigrations({ env: trusted() })).toMatchObject({
        applied: { length: 1 },
        schema: { state: 'same' },
      });
    });
    await expectCleanSessions(() => runMigrations({ env: trusted() }));
  });

  test('has sessions like new after a failed migration', async () => {
    const broken = copyPackage();
    const filename = broken.addMigration('broken', 'create table filestore.half_done ();\nselect 1 / 0;');
    try {
      await expectCleanSessions(async () => {
        const result = await runCli(['migrate'], { folder: broken.folder, env: trusted() });
        expect(result).toMatchObject({ exitCode: 1, stderr: expect.stringContaining(`${filename} failed`) });
      });
    } finally {
      broken.remove();
    }
  });

  test('has sessions like new after a stopped run', async () => {
    await expectCleanSessions(async () => {
      const stop = new AbortController();
      const run = runMigrations({
        env: trusted(),
        signal: stop.signal,
        onEvent: ({ type }) => type === 'migration-start' && stop.abort(),
      });
      await expect(run).rejects.toMatchObject({ code: 'RUN_ABORTED' });
    });
    expect(await runMigrations({ env: trusted() })).toMatchObject({ schema: { state: 'same' } });
  });

  test('with only one session is refused, since a run needs two at once', async () => {
    const narrow = await startPgbouncer({ server: inject('adminUrl'), mode: 'session', poolSize: 1 });
    try {
      const env = { ...trusted(narrow), FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS: '1000' };
      await expect(runMigrations({ env })).rejects.toMatchObject({
        code: 'POOLER_IN_BETWEEN',
        message: expect.stringMatching(/a second session.*raise the pool size/),
      });
    } finally {
      await narrow.stop();
    }
  });
});
