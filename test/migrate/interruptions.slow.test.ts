import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { copyStagedPackage, type StagedPackage } from '../support/packages/staged-package.ts';
import { hostForFile } from '../support/processes/host.ts';
import type { HostOutcome } from '../support/processes/host-messages.ts';
import { endMigrators, openScene, type Phase, type Scene } from '../support/processes/migrator-scene.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

const TEMPLATE = 'interrupted';

let server: OwnServer;
let copy: StagedPackage;
let scene: Scene;
const host = hostForFile();

beforeAll(async () => {
  copy = copyStagedPackage();
  server = await startOwnServer();
  const admin = new pg.Client(server.url);
  await admin.connect();
  await admin.query(`create database ${TEMPLATE} encoding 'UTF8' template template0`);
  await admin.end();
  await runMigrations({ connection: connectionTo(databaseUrl(server.url, TEMPLATE)) });
});
afterAll(async () => {
  await server?.stop();
  copy?.remove();
});
beforeEach(async () => {
  scene = await openScene({ copy, adminUrl: server.url, template: TEMPLATE });
});
afterEach(() => scene.close());

const run = () => host().run({ folder: copy.folder, env: scene.env });

/** Expects that the host lives, and that the next run finds nothing half applied and finishes. */
async function expectWhole(outcome: HostOutcome): Promise<void> {
  expect(host().faults).toEqual([]);
  const { recorded, begun, ended } = await scene.state();
  expect(ended).toEqual(begun);
  expect(recorded).toHaveLength(scene.stateAfter(0).recorded.length + begun.length);
  if (outcome.ok) expect(begun).toEqual(copy.staged);
  expect(await run().outcome).toMatchObject({ ok: true });
  expect(await scene.state()).toEqual(scene.stateAfter(3));
}

/** What a run that no other one disturbs does not do: test/crashes has each of its messages. */
const PHASES: readonly Phase[] = ['waiting for another migrator', 'in a commit'];

const INTERRUPTIONS: Readonly<Record<string, () => Promise<void> | void>> = {
  'whose connections are cut': () => scene.proxy.cut(),
  'whose server is shut down and started again': () => server.restart('fast'),
  'whose server is stopped immediately and recovers': () => server.restart('immediate'),
  'whose server is killed and recovers': () => server.restart('kill'),
};

describe.each(Object.entries(INTERRUPTIONS))('a run %s', (_, interrupt) => {
  test.each(PHASES)('while it is %s tries again and finishes', async (phase) => {
    const { reached, leave } = await scene.arrange(phase);
    const running = run();
    await reached;
    await interrupt();
    await leave();
    const outcome = await running.outcome;
    expect(outcome).toMatchObject({ ok: true, report: { attempts: 2 } });
    await expectWhole(outcome);
    // Committed migrations are not run again. In some phases, the second one was running.
    const [first, second, third] = copy.staged;
    const started = running.events.flatMap((event) =>
      event.type === 'migration-start' ? [event.filename] : [],
    );
    expect(started.filter((filename) => filename !== second)).toEqual([first, third]);
  });
});

describe('a run whose sessions are ended by an administrator', () => {
  test.each(PHASES)('while it is %s fails with the reason, or finishes', async (phase) => {
    const { reached, leave } = await scene.arrange(phase);
    const running = run();
    await reached;
    await endMigrators(await scene.connect());
    await leave();
    const outcome = await running.outcome;
    if (!outcome.ok) {
      expect(outcome.error).toMatchObject({
        isFilestoreError: true,
        sqlState: '57P01',
        cause: { code: '57P01' },
      });
    }
    await expectWhole(outcome);
  });
});
