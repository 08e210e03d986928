import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  expect,
  inject,
  type MockInstance,
  test,
  vi,
} from 'vitest';
import { closePool, getPool, migrationStatus, verifySchema, withConnection } from '../../src/index.ts';
import { copyStagedPackage, type StagedPackage } from '../support/packages/staged-package.ts';
import { hostForFile } from '../support/processes/host.ts';
import { openScene, type Scene } from '../support/processes/migrator-scene.ts';

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

/** Does work with the pool of a service, through the proxy. Passes the warnings of the process, which are not printed. */
async function withPool(work: (warnings: MockInstance) => Promise<void>): Promise<void> {
  vi.stubEnv('FILESTORE_DATABASE_URL', scene.proxy.url);
  try {
    await work(vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined));
  } finally {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
    await closePool();
  }
}

test(
  'a network that passes nothing on ends the commands that read, and a query of a service',
  { timeout: PATIENCE_MS },
  () =>
    withPool(async (warnings) => {
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
    }),
);

test(
  'a migration and a query that take long are not ended, and cause no warning',
  { timeout: PATIENCE_MS },
  () =>
    withPool(async (warnings) => {
      const { reached, leave } = await scene.arrange('in a migration');
      const running = run();
      await reached;
      await expect(getPool().query('select pg_sleep(35)')).resolves.toMatchObject({ rowCount: 1 });
      await leave();
      expect(await running.outcome).toMatchObject({ ok: true, report: { attempts: 1 } });
      expect(running.events.filter(({ type }) => type === 'warning')).toEqual([]);
      expect(warnings).not.toHaveBeenCalled();
    }),
);

test(
  'a query whose answer is read slowly is not ended, and causes no warning',
  { timeout: PATIENCE_MS },
  () =>
    withPool(async (warnings) => {
      await withConnection(async (client) => {
        const { stream } = client.connection;
        const answer = client.query("select repeat('x', 1000) from generate_series(1, 60000)");
        stream.once('data', () => stream.pause());
        await getPool().query('select pg_sleep(40)');
        stream.resume();
        expect(await answer).toMatchObject({ rowCount: 60_000 });
      });
      expect(warnings).not.toHaveBeenCalled();
    }),
);
