import { afterAll, beforeAll, expect, test } from 'vitest';
import { withClient } from '../../src/testing/with-client.ts';
import { until } from '../support/until.ts';
import { commandMoves } from './command-moves.ts';
import { type ServerName, startTwoServers, type TwoServers } from './two-servers.ts';

let servers: TwoServers;
beforeAll(async () => {
  servers = await startTwoServers();
}, 120_000);
afterAll(() => servers?.stop());

const { move, on, fill, nodesOn, expectMoved, runAndDisturb } = commandMoves(() => servers);

const asSuperuser = <Row extends object>(server: ServerName, text: string) =>
  withClient(servers[server].superuserUrl, async (client) => (await client.query<Row>(text)).rows);

/** Waits until as many tables of the subscription are in this state. */
const untilTables = (state: string, count: number) =>
  until(async () => {
    const text = 'select from pg_subscription_rel where srsubstate = ';
    return (await on('target', `${text}'${state}'`)).length === count;
  });

/** Stops the worker that lets tables end their copy, while `work` runs. */
async function withoutApplying(work: () => Promise<void>): Promise<void> {
  const [worker] = await asSuperuser<{ pid: number }>(
    'target',
    'select pid from pg_stat_subscription where relid is null and pid is not null',
  );
  if (worker === undefined) throw new Error('the subscription has no worker');
  process.kill(worker.pid, 'SIGSTOP');
  await work().finally(() => process.kill(worker.pid, 'SIGCONT'));
}

test('a move whose target was killed after it had dropped the slot of a table says so, is taken back, and begins again', async () => {
  await fill('media');
  const nodes = await nodesOn('source', 'media');
  // Commits that do not wait for the disk are not written until another one does.
  for (const setting of ["wal_writer_delay = '10s'", 'autovacuum = off']) {
    await asSuperuser('target', `alter system set ${setting}`);
  }
  await asSuperuser('target', 'select pg_reload_conf()');
  await withClient(servers.target.superuserUrl, async (client) => {
    let locked: Promise<unknown> | undefined;
    await runAndDisturb('media', new Set(), (step, kill) => {
      if (step === 'The target begins to copy')
        locked = client.query('begin; lock table filestore.nodes in share mode');
      if (step === 'The target copies') kill('SIGKILL');
    });
    await locked;
    await untilTables('r', 4);
    await withoutApplying(async () => {
      await client.query('commit');
      await untilTables('f', 1);
      await client.query('checkpoint');
    });
  });
  await until(async () => {
    const left = await on('source', "select from pg_replication_slots where slot_name ~ '_sync_'");
    return left.length === 0;
  });
  await servers.target.server.restart('kill');
  await untilTables('f', 1);
  expect(await move('media')).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(
      /MOVE_FAILED: Mount "media": the copy of a table was interrupted .* --back, and then again\./,
    ),
  });
  expect(await move('media', '--back')).toMatchObject({ exitCode: 0 });
  const result = await move('media');
  expect(result, result.output).toMatchObject({ exitCode: 0 });
  await expectMoved('media', nodes);
}, 120_000);
