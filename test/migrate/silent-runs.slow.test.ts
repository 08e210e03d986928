import { afterAll, beforeAll, describe, expect, inject, type TestContext, test } from 'vitest';
import { copyStagedPackage, type StagedPackage } from '../support/packages/staged-package.ts';
import { hostForFile } from '../support/processes/host.ts';
import { openScene, type Phase } from '../support/processes/migrator-scene.ts';
import { canUse } from '../support/processes/programs.ts';
import { pgbouncerBinary, startPgbouncer } from '../support/servers/pgbouncer.ts';

// The looks at a silent connection take seconds, and a lost one is reported after about half a minute.
const PATIENCE_MS = 120_000;

let copy: StagedPackage;
const host = hostForFile();

beforeAll(() => {
  copy = copyStagedPackage();
});
afterAll(() => copy?.remove());

async function openSceneForTest({ onTestFinished }: TestContext) {
  const scene = await openScene({ copy, adminUrl: inject('adminUrl'), template: inject('template') });
  onTestFinished(() => scene.close());
  const run = (settings = {}) => host().run({ folder: copy.folder, env: scene.env, settings });
  return { scene, run };
}

// At the same time, since each of them waits for half a minute.
describe.concurrent('on a network that stays open and passes nothing on', () => {
  test.for<Phase>([
    'its first look',
    'waiting for another migrator',
    'in a migration',
    'between two migrations',
    'comparing the schema',
  ])(
    'a run ends %s, with a warning some seconds before',
    { timeout: PATIENCE_MS },
    async (phase, context) => {
      const { scene, run } = await openSceneForTest(context);
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
  );

  test(
    'a run continues on another connection if only its own passes nothing on',
    async (context) => {
      const { scene, run } = await openSceneForTest(context);
      const held = scene.proxy.holdAt('create table staged.second_begun');
      const running = run();
      await held;
      expect(await running.outcome).toMatchObject({ ok: true, report: { attempts: 2 } });
      expect(await scene.state()).toEqual(scene.stateAfter(3));
      expect(host().faults).toEqual([]);
    },
    PATIENCE_MS,
  );

  test.skipIf(!canUse('pgbouncer', pgbouncerBinary() !== undefined))(
    'a migration that takes long behind a pooler without another session is not ended',
    async (context) => {
      const { scene } = await openSceneForTest(context);
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
});
