import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test, vi } from 'vitest';
import { closePool, getPool, migrationStatus, verifySchema, withConnection } from '../../src/index.ts';
import { copyStagedPackage, type StagedPackage } from '../support/packages/staged-package.ts';
import { hostForFile } from '../support/processes/host.ts';
import { openScene, type Phase, type Scene } from '../support/processes/migrator-scene.ts';
import { canUse } from '../support/processes/programs.ts';
import { pgbouncerBinary, startPgbouncer } from '../support/servers/pgbouncer.ts';

// The looks at a silent connection take seconds, and a lost one is reported after about half a minute.
const PATIENCE_MS = 120_000;

let copy: StagedPackage;
let scene: Scene;
const host = hostForFile();

beforeAll(() => {
  copy = copyStagedPackage();
});
afterAll(() => copy?.remove());
beforeEach(async () => {
  scene = await openScene({ copy, adminUrl: inject('adminUrl'), template: inject('template') });
});
afterEach(() => scene.close());

const run = (settings = {}) => host().run({ folder: copy.folder, env: scene.env, settings });

describe('a network that stays open and passes nothing on', () => {
  test.each<Phase>([
    'its first look',
    'waiting for another migrator',
    'in a migration',
    'between two migrations',
    'comparing the schema',
  ])(
    'ends a run %s, with a warning some seconds before',
    async (phase) => {
      const { reached, leave, committed } = await scene.arrange(phase);
      const running = run({ connectWaitMs: 300 });
      await reached;
      scene.proxy.pause();
      await leave();
      expect(await running.untilEvent('warning')).toMatchObject({
        message: expect.stringMatching(/^The server does not answer on a connection to database /),
      });
      expect(await running.outcome).toMatchObject({
        ok: false,
        error: {
          isFilestoreError: true,
          code: 'CONNECTION_LOST',
          applied: copy.staged.slice(0, committed),
        },
      });
      expect(host().faults).toEqual([]);
      scene.proxy.resume();
    },
    PATIENCE_MS,
  );

  test(
    'ends the commands that read, and a query of a service',
    async () => {
      vi.stubEnv('FILESTORE_DATABASE_URL', scene.proxy.url);
      const warnings = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
      try {
        await getPool().query('select');
        const held = ['filestore.preflight', 'filestore.preflight'].map((text) => scene.proxy.holdAt(text));
        const reads = [migrationStatus, verifySchema].map((read) => read({ env: scene.env }));
        const lost = { code: 'CONNECTION_LOST', message: expect.stringContaining('it does not answer') };
        const refusals = Promise.all(reads.map((read) => expect(read).rejects.toMatchObject(lost)));
        await Promise.all(held);
        scene.proxy.pause();
        await expect(getPool().query('select')).rejects.toMatchObject({ code: 'ETIMEDOUT' });
        await refusals;
        expect(warnings).toHaveBeenCalledTimes(3);
      } finally {
        vi.unstubAllEnvs();
        vi.restoreAllMocks();
        await closePool();
      }
    },
    PATIENCE_MS,
  );
});

test(
  'a run continues on another connection if only its own passes nothing on',
  async () => {
    const held = scene.proxy.holdAt('create table staged.second_begun');
    const running = run();
    await held;
    expect(await running.outcome).toMatchObject({ ok: true, report: { attempts: 2 } });
    expect(await scene.state()).toEqual(scene.stateAfter(3));
    expect(host().faults).toEqual([]);
  },
  PATIENCE_MS,
);

test(
  'a migration and a query that take long are not ended, and cause no warning',
  async () => {
    vi.stubEnv('FILESTORE_DATABASE_URL', scene.proxy.url);
    const warnings = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    try {
      const { reached, leave } = await scene.arrange('in a migration');
      const running = run();
      await reached;
      await expect(getPool().query('select pg_sleep(35)')).resolves.toMatchObject({ rowCount: 1 });
      await leave();
      expect(await running.outcome).toMatchObject({ ok: true, report: { attempts: 1 } });
      expect(running.events.filter(({ type }) => type === 'warning')).toEqual([]);
      expect(warnings).not.toHaveBeenCalled();
    } finally {
      vi.unstubAllEnvs();
      vi.restoreAllMocks();
      await closePool();
    }
  },
  PATIENCE_MS,
);

test(
  'a query whose answer is read slowly is not ended, and causes no warning',
  async () => {
    vi.stubEnv('FILESTORE_DATABASE_URL', scene.proxy.url);
    const warnings = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    try {
      await withConnection(async (client) => {
        const { stream } = client.connection;
        const answer = client.query("select repeat('x', 1000) from generate_series(1, 60000)");
        stream.once('data', () => stream.pause());
        await getPool().query('select pg_sleep(40)');
        stream.resume();
        expect(await answer).toMatchObject({ rowCount: 60_000 });
      });
      expect(warnings).not.toHaveBeenCalled();
    } finally {
      vi.unstubAllEnvs();
      vi.restoreAllMocks();
      await closePool();
    }
  },
  PATIENCE_MS,
);

test.skipIf(!canUse('pgbouncer', pgbouncerBinary() !== undefined))(
  'a migration that takes long behind a pooler without another session is not ended',
  async () => {
    const bouncer = await startPgbouncer({
      server: inject('adminUrl'),
      mode: 'session',
      poolSize: 2,
      settings: ['ignore_startup_parameters = options'],
    });
    try {
      const { reached, leave } = await scene.arrange('in a migration');
      const url = bouncer.url(new URL(scene.directEnv.DATABASE_URL ?? '').pathname.slice(1));
      const running = host().run({
        folder: copy.folder,
        env: { ...scene.env, DATABASE_URL: url, FILESTORE_MIGRATION_POOLER: 'session' },
      });
      await reached;
      const direct = await scene.connect();
      await direct.query('select pg_sleep(40)');
      await leave();
      expect(await running.outcome).toMatchObject({ ok: true, report: { attempts: 1 } });
    } finally {
      await bouncer.stop();
    }
  },
  PATIENCE_MS,
);
