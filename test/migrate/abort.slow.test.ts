import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { type MigrationEvent, runMigrations } from '../../src/index.ts';
import { copyStagedPackage, type StagedPackage } from '../support/packages/staged-package.ts';
import { hostForFile } from '../support/processes/host.ts';
import { openScene, type Phase, type Scene } from '../support/processes/migrator-scene.ts';
import { until } from '../support/until.ts';

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

const run = () => host().run({ folder: copy.folder, env: scene.env });

async function expectStopped({ outcome }: ReturnType<typeof run>, committed: 0 | 1 | 2 | 3): Promise<void> {
  expect(await outcome).toMatchObject({
    ok: false,
    error: {
      isFilestoreError: true,
      code: 'RUN_ABORTED',
      applied: copy.staged.slice(0, committed),
      cause: { message: expect.any(String) },
    },
  });
  expect(host().faults).toEqual([]);
}

async function expectRerunFinishes(): Promise<void> {
  expect(await host().run({ folder: copy.folder, env: scene.directEnv }).outcome).toMatchObject({ ok: true });
  expect(await scene.state()).toEqual(scene.stateAfter(3));
  expect(host().faults).toEqual([]);
}

const BUSY: readonly Phase[] = ['waiting for another migrator', 'in a migration', 'in a commit'];

describe('a run that is stopped, on a server that answers', () => {
  test.each(BUSY)('while it is %s has left nothing behind when it rejects', async (phase) => {
    const { reached, leave, committed } = await scene.arrange(phase);
    const running = run();
    await reached;
    running.abort();
    await expectStopped(running, committed);
    if (phase === 'waiting for another migrator') await leave();
    expect(await scene.traces()).toEqual([]);
    expect(await scene.state()).toEqual(scene.stateAfter(committed));
    await leave();
    await expectRerunFinishes();
  });

  test('while a migration runs names the one that was not completed', async () => {
    const { reached } = await scene.arrange('in a migration');
    const running = run();
    await reached;
    running.abort();
    expect(await running.outcome).toMatchObject({
      error: {
        message: `Stopped on request. Applied and kept: ${copy.staged[0]}. ${copy.staged[1]} was running and was not completed. Run this again to apply the rest.`,
        cause: { code: 'MIGRATION_FAILED', cause: { code: '57014' } },
      },
    });
  });

  test('before it begins does nothing', async () => {
    const events: MigrationEvent[] = [];
    const running = runMigrations({
      env: scene.directEnv,
      signal: AbortSignal.abort(),
      onEvent: (event) => events.push(event),
    });
    await expect(running).rejects.toMatchObject({ code: 'RUN_ABORTED', applied: [] });
    const error = { code: 'RUN_ABORTED', sqlState: null };
    expect(events).toMatchObject([
      { type: 'span', name: 'connect', error },
      { type: 'span', name: 'run', error },
    ]);
  });
});

const SILENT: readonly Phase[] = [
  'connecting',
  'its first look',
  'between two migrations',
  'comparing the schema',
];

describe('a run that is stopped, on a silent server', () => {
  test.each(SILENT)('while it is %s does not wait for it', async (phase) => {
    const { reached, leave, committed } = await scene.arrange(phase);
    const running = run();
    await reached;
    running.abort();
    await expectStopped(running, committed);
    await leave();
    await until(async () => (await scene.traces()).length === 0);
    expect(await scene.state()).toEqual(scene.stateAfter(committed));
    await expectRerunFinishes();
  });

  test('while a migration runs and the network is down still ends', async () => {
    const { reached, leave, committed } = await scene.arrange('in a migration');
    const running = run();
    await reached;
    scene.proxy.pause();
    running.abort();
    await expectStopped(running, committed);
    scene.proxy.resume();
    await leave();
    await expectRerunFinishes();
  });
});

// The server's answer is held back until the run is stopped: the run gets the answer first, and then sees the stop.
const ANSWERED = ['filestore.preflight', 'pg_get_constraintdef'] as const;

describe('a run that is stopped just before it applies anything', () => {
  beforeEach(async () => {
    const client = await scene.connect();
    await client.query('drop schema graphile_migrate cascade');
  });

  test.each(ANSWERED)(
    'and then gets the answer to %s leaves nothing running in the process',
    async (text) => {
      const listener = await runAndStop(text);
      setFlagsFromString('--expose-gc');
      const collectGarbage: () => void = runInNewContext('gc');
      await until(() => {
        collectGarbage();
        return listener.deref() === undefined;
      });
      expect(await scene.traces()).toEqual([]);
    },
  );
});

/** @returns a reference to its listener, which stays in memory as long as a part of the run does. */
async function runAndStop(text: string): Promise<WeakRef<(event: MigrationEvent) => void>> {
  const stop = new AbortController();
  const events: MigrationEvent[] = [];
  const onEvent = (event: MigrationEvent) => {
    events.push(event);
  };
  const firstLook = scene.proxy.holdAt('filestore.preflight');
  const running = runMigrations({ env: scene.env, signal: stop.signal, onEvent });
  const outcome = expect(running).rejects.toMatchObject({ code: 'RUN_ABORTED', applied: [] });
  const release = await firstLook;
  const held = scene.proxy.holdAt(text);
  release();
  const answer = await held;
  stop.abort();
  answer();
  await outcome;
  expect(events.filter(({ type }) => type !== 'span')).toMatchObject([{ type: 'plan', adopting: true }]);
  return new WeakRef(onEvent);
}
