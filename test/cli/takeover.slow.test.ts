import type { Client } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { type CliResult, collect, startCli } from '../support/command-line/command-line.ts';
import {
  closeGate,
  copyStagedPackage,
  type Gate,
  openGate,
  type StagedPackage,
  untilAtGate,
} from '../support/packages/staged-package.ts';
import { openScene, type Scene } from '../support/processes/migrator-scene.ts';
import { until } from '../support/until.ts';

let copy: StagedPackage;
let scene: Scene;
let keeper: Client;
let observer: Client;

beforeAll(() => {
  copy = copyStagedPackage();
});
afterAll(() => copy?.remove());
beforeEach(async () => {
  scene = await openScene({ copy, adminUrl: inject('adminUrl'), template: inject('template') });
  keeper = await scene.connect();
  observer = await scene.connect();
});
afterEach(() => scene.close());

/** A migrator as a separate process. */
function startMigrator() {
  const child = startCli(['migrate'], { folder: copy.folder, env: scene.directEnv });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk;
  });
  return {
    child,
    result: collect(child),
    untilSaid: (text: string) => until(() => said.includes(text)),
  };
}

/** Expects that it applied the second and third migration, and not the one that the killed migrator had committed. */
function expectTookOver({ exitCode, stdout, output }: CliResult): void {
  expect(exitCode, output).toBe(0);
  const applied = [...stdout.matchAll(/^OK {2}(\S+)/gm)].map(([, filename]) => filename);
  expect(applied).toEqual(copy.staged.slice(1));
}

// While the gate is closed, only the server can end the transaction of the killed migrator.
describe.each<Gate>(['midway', 'commit'])('when a migrator is killed in a migration (%s)', (gate) => {
  test('a waiting one takes over and finishes', async () => {
    await closeGate(keeper, gate);
    const killed = startMigrator();
    const orphan = await untilAtGate(observer, gate);
    const waiting = startMigrator();
    await waiting.untilSaid('for another migrator: server process');
    killed.child.kill('SIGKILL');
    await killed.result;
    await untilAtGate(observer, gate, orphan);
    expect(await scene.state()).toEqual(scene.stateAfter(1));
    await openGate(keeper, gate);
    expectTookOver(await waiting.result);
    expect(await scene.state()).toEqual(scene.stateAfter(3));
  });

  test('one that is started afterwards takes over and finishes', async () => {
    await closeGate(keeper, gate);
    const killed = startMigrator();
    const orphan = await untilAtGate(observer, gate);
    killed.child.kill('SIGKILL');
    await killed.result;
    const next = startMigrator();
    await untilAtGate(observer, gate, orphan);
    await openGate(keeper, gate);
    expectTookOver(await next.result);
    expect(await scene.state()).toEqual(scene.stateAfter(3));
    expect(await scene.traces()).toEqual([]);
  });
});

test('a migrator that is killed while it waits does not disturb the running one', async () => {
  await closeGate(keeper, 'midway');
  const first = startMigrator();
  await untilAtGate(observer, 'midway');
  const killed = startMigrator();
  await killed.untilSaid('for another migrator: server process');
  killed.child.kill('SIGKILL');
  await killed.result;
  await openGate(keeper, 'midway');
  expect(await first.result).toMatchObject({ exitCode: 0 });
  expect(await scene.state()).toEqual(scene.stateAfter(3));
});
