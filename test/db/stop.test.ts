import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { type MigrationEvent, runMigrations } from '../../src/index.ts';
import { hostForFile } from '../support/host.ts';
import { openScene, type Phase, type Scene } from '../support/scene.ts';
import { copyStagedPackage, type StagedPackage } from '../support/staged-package.ts';
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

describe('a run that is told to stop, on a server that answers', () => {
  test.each(BUSY)('while it is %s has left nothing behind when it says so', async (phase) => {
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

  test('while a migration runs says which one was not completed', async () => {
    const { reached } = await scene.arrange('in a migration');
    const running = run();
    await reached;
    running.abort();
    expect(await running.outcome).toMatchObject({
      error: {
        message: `Stopped on request. Applied and kept: ${copy.staged[0]}. ${copy.staged[1]} was under way and was not completed. Run this again to apply the rest.`,
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
    expect(events).toEqual([]);
  });
});

const SILENT: readonly Phase[] = [
  'connecting',
  'its first look',
  'between two migrations',
  'comparing the schema',
];

describe('a run that is told to stop, and whose server says nothing', () => {
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

  test('while a migration runs and the network is gone ends all the same', async () => {
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
