import { type ChildProcess, spawn } from 'node:child_process';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { type CliResult, collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { copyStagedPackage, type StagedPackage } from '../support/packages/staged-package.ts';
import { openScene, type Phase, type Scene } from '../support/processes/migrator-scene.ts';
import { until } from '../support/until.ts';

let copy: StagedPackage;
let scene: Scene;

beforeAll(() => {
  // The scripts run the sources.
  copy = copyStagedPackage({ sources: true });
});
afterAll(() => copy?.remove());
beforeEach(async () => {
  scene = await openScene({ copy, adminUrl: inject('adminUrl'), template: inject('template') });
});
afterEach(() => scene.close());

const migrate = (...options: readonly string[]) =>
  startCli(['migrate', ...options], { folder: copy.folder, env: scene.env });

/** The command that deploys run. */
const migrateByNpm = () =>
  spawn('npm', ['run', '--silent', 'db:migrate:filestore'], {
    cwd: copy.folder,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...scene.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });

/** Sends the signal when the run is in the phase, which lasts until the run is stopped. */
async function stop(child: ChildProcess, phase: Phase, signal: NodeJS.Signals) {
  const { reached, leave, committed } = await scene.arrange(phase);
  const ended = collect(child);
  await reached;
  child.kill(signal);
  return { result: await ended, leave, committed };
}

function expectStopped({ exitCode, output }: CliResult, signal: string, applied: readonly string[]): void {
  expect(exitCode, output).toBe(1);
  expect(output).toContain(
    `RUN_ABORTED: Stopped on request (${signal}). Applied and kept: ${applied.length === 0 ? 'nothing' : applied.join(', ')}.`,
  );
  expect(output).not.toContain('Unexpected error');
}

async function expectRerunFinishes(): Promise<void> {
  expect(await runCli(['migrate'], { folder: copy.folder, env: scene.directEnv })).toMatchObject({
    exitCode: 0,
  });
  expect(await scene.state()).toEqual(scene.stateAfter(3));
}

describe.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('%s', (signal) => {
  test('during a migration keeps committed ones, rolls back the current one, and leaves no lock', async () => {
    const { result, leave, committed } = await stop(migrate(), 'in a migration', signal);
    // Checked at once: the process waits for the server before it ends.
    expect(await scene.traces()).toEqual([]);
    expectStopped(result, signal, copy.staged.slice(0, committed));
    expect(result.output).toContain(`${copy.staged[1]} was running and was not completed.`);
    expect(await scene.state()).toEqual(scene.stateAfter(committed));
    await leave();
    await expectRerunFinishes();
  });
});

const PHASES: readonly Phase[] = [
  'connecting',
  'its first look',
  'waiting for another migrator',
  'in a commit',
  'between two migrations',
  'comparing the schema',
];

describe('SIGTERM', () => {
  test.each(PHASES)('while it is %s ends the process too', async (phase) => {
    const { result, leave, committed } = await stop(migrate(), phase, 'SIGTERM');
    expectStopped(result, 'SIGTERM', copy.staged.slice(0, committed));
    await leave();
    await until(async () => (await scene.traces()).length === 0);
    expect(await scene.state()).toEqual(scene.stateAfter(committed));
    await expectRerunFinishes();
  });

  test('sent to npm reaches the process, and npm waits for its end', async () => {
    const { result, leave, committed } = await stop(migrateByNpm(), 'in a migration', 'SIGTERM');
    expect(await scene.traces()).toEqual([]);
    expectStopped(result, 'SIGTERM', copy.staged.slice(0, committed));
    expect(await scene.state()).toEqual(scene.stateAfter(committed));
    await leave();
    await expectRerunFinishes();
  });

  test('with --json prints a document that lists the applied migrations', async () => {
    const { result } = await stop(migrate('--json'), 'in a migration', 'SIGTERM');
    expect(result.exitCode).toBe(1);
    expect(JSON.parse(result.stdout)).toMatchObject({
      ok: false,
      error: { code: 'RUN_ABORTED', applied: [copy.staged[0]] },
    });
  });

  test('sent twice has the same effect as once', async () => {
    const { reached, committed } = await scene.arrange('in a migration');
    const child = migrate();
    const ended = collect(child);
    await reached;
    for (let times = 0; times < 5; times += 1) child.kill('SIGTERM');
    expectStopped(await ended, 'SIGTERM', copy.staged.slice(0, committed));
    expect(await scene.traces()).toEqual([]);
    expect(await scene.state()).toEqual(scene.stateAfter(committed));
  });
});
