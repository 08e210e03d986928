import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test } from 'vitest';
import { copyStagedPackage, type StagedPackage } from '../support/packages/staged-package.ts';
import { hostForFile } from '../support/processes/host.ts';
import { openScene, type Scene } from '../support/processes/migrator-scene.ts';

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

test('a run that loses the answer to each commit still compares the schema', async () => {
  const cutting = (async () => {
    for (;;) await scene.proxy.cutAt('commit\0', 'after');
  })();
  const outcome = await Promise.race([run().outcome, cutting]);
  expect(outcome).toMatchObject({ ok: true, report: { schema: { state: 'same' } } });
  expect(await scene.state()).toEqual(scene.stateAfter(3));
});

test('a server that does not come back is an error with the cause and the applied migrations', async () => {
  const { reached, leave, committed } = await scene.arrange('in a migration');
  const running = run({ connectWaitMs: 300 });
  await reached;
  scene.proxy.refuse();
  scene.proxy.cut();
  expect(await running.outcome).toMatchObject({
    ok: false,
    error: {
      isFilestoreError: true,
      code: 'CONNECTION_LOST',
      applied: copy.staged.slice(0, committed),
      cause: { code: 'ECONNRESET' },
    },
  });
  await leave();
  scene.proxy.accept();
  expect(host().faults).toEqual([]);
  expect(await run().outcome).toMatchObject({ ok: true });
  expect(await scene.state()).toEqual(scene.stateAfter(3));
});

test('a run whose connection is lost again and again fails when its time is over', async () => {
  const cutting = (async () => {
    for (;;) await scene.proxy.cutAt('create table staged.second_begun', 'before');
  })();
  const running = run({ lockWaitMs: 1_000 });
  expect(await Promise.race([running.outcome, cutting])).toMatchObject({
    ok: false,
    error: {
      isFilestoreError: true,
      code: 'CONNECTION_LOST',
      message: expect.stringContaining(`${copy.staged[1]} was running`),
      applied: [copy.staged[0]],
      cause: { code: 'ECONNRESET' },
    },
  });
  expect(running.events.filter(({ type }) => type === 'retry').length).toBeGreaterThan(0);
  expect(host().faults).toEqual([]);
  expect(await scene.state()).toEqual(scene.stateAfter(1));
});
