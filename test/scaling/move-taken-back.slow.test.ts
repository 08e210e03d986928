import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { ACTIONS, endPreparation } from '../../src/move/actions.ts';
import { followOwnMove } from '../../src/move/own-move.ts';
import { openSide } from '../../src/move/side.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { collect, startCli } from '../support/command-line/command-line.ts';
import { until } from '../support/until.ts';
import { commandMoves } from './command-moves.ts';
import { startTwoServers, type TwoServers } from './two-servers.ts';

let servers: TwoServers;
beforeAll(async () => {
  servers = await startTwoServers();
}, 120_000);
afterAll(() => servers?.stop());

const { env, move, on, fill, nodesOn, holdersOf } = commandMoves(() => servers);

const ENDED_BY_BACK = {
  exitCode: 1,
  stderr: expect.stringMatching(/MOVE_FAILED: Mount ".*": its move \d+ was taken back by another run/),
};

/** Starts a move, and calls back once at the first line with this text. */
function startMove(key: string, line: string, atLine: (kill: (signal: NodeJS.Signals) => void) => void) {
  const child = startCli(['move', key, '--to', 'TARGET_URL'], { env: env() });
  let isSeen = false;
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    if (isSeen || !text.includes(line)) return;
    isSeen = true;
    atLine((signal) => child.kill(signal));
  });
  return collect(child);
}

async function expectTakenBack(key: string, nodes: number | undefined): Promise<void> {
  expect(await on('source', 'select step from filestore.moves where mount_key = $1', [key])).toEqual([
    { step: 'canceled' },
  ]);
  expect(await holdersOf(key)).toEqual(['source']);
  expect([await nodesOn('source', key), await nodesOn('target', key)]).toEqual([nodes, 0]);
  expect(await on('source', 'select slot_name from pg_replication_slots')).toEqual([]);
  expect(await on('target', 'select subname from pg_subscription')).toEqual([]);
}

const asSuperuser = (text: string) =>
  withClient(servers.target.superuserUrl, async (client) => (await client.query(text)).rows);

describe('a move that is taken back while another run carries it out', () => {
  test.each([
    'The target accepts the mount',
    'The target begins to copy',
    'The source counts',
    'The target copies',
    'The target counts',
  ])(
    'ends that run at "%s", which begins no other move',
    async (step) => {
      const key = step.toLowerCase().replaceAll(' ', '-');
      await fill(key);
      const nodes = await nodesOn('source', key);
      let back: ReturnType<typeof move> | undefined;
      const mover = startMove(key, step, (kill) => {
        kill('SIGSTOP');
        back = move(key, '--back').finally(() => kill('SIGCONT'));
      });
      expect(await mover).toMatchObject(ENDED_BY_BACK);
      expect(await back).toMatchObject({ exitCode: 0 });
      // A ticket that the run had read before lets the target accept what no run copies.
      expect(await move(key, '--back')).toMatchObject({ exitCode: 0 });
      await expectTakenBack(key, nodes);
      expect(await move(key)).toMatchObject({ exitCode: 0 });
      expect(await holdersOf(key)).toEqual(['target']);
    },
    60_000,
  );

  test('ends that run at once while it waits for the copy', async () => {
    await fill('waits');
    const nodes = await nodesOn('source', 'waits');
    let back: ReturnType<typeof move> | undefined;
    await startMove('waits', 'The target accepts', (kill) => kill('SIGKILL'));
    await withClient(servers.target.url, async (client) => {
      await client.query('begin; lock table filestore.snapshots in share mode');
      const mover = startMove('waits', 'The target copies', () => {
        back = move('waits', '--back');
      });
      expect(await mover).toMatchObject(ENDED_BY_BACK);
      await client.query('commit');
    });
    expect(await back).toMatchObject({ exitCode: 0 });
    await expectTakenBack('waits', nodes);
  }, 60_000);

  test('is not begun again by a step that was under way', async () => {
    const key = 'under-way';
    await fill(key);
    await startMove(key, 'The target accepts', (kill) => kill('SIGKILL'));
    const [last] = await on<{ id: string }>('source', 'select id from filestore.moves where mount_key = $1', [
      key,
    ]);
    expect(await move(key, '--back')).toMatchObject({ exitCode: 0 });
    const [source, target] = await Promise.all([
      openSide(connectionTo(servers.source.url)),
      openSide(connectionTo(servers.target.url)),
    ]);
    const own = followOwnMove({ mountKey: key }, undefined);
    own.begin(last?.id ?? '');
    const scene = { mountKey: key, source, target, conninfo: '', withinMs: 10_000, own };
    await ACTIONS.prepare(scene);
    await expect(ACTIONS.accept(scene)).rejects.toMatchObject({ constraint: 'moves_step_check' });
    await endPreparation([source, target]);
    await Promise.all([source.close(), target.close()]);
    expect(await on('source', 'select step from filestore.moves where mount_key = $1', [key])).toEqual([
      { step: 'canceled' },
    ]);
  }, 60_000);

  test('is not begun again while a stopped run has left its copy on the target', async () => {
    await fill('half', 2000);
    await startMove('half', 'Cutting over', (kill) => kill('SIGKILL'));
    await withClient(servers.target.url, async (client) => {
      await client.query('begin; lock table filestore.nodes in share mode');
      const back = move('half', '--back');
      const cancels =
        "pid from pg_stat_activity where query like 'call filestore.cancel_move%' and wait_event_type = 'Lock'";
      await until(async () => (await asSuperuser(`select ${cancels}`)).length > 0);
      await asSuperuser(`select pg_terminate_backend(pid), ${cancels}`);
      expect(await back).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('CONNECTION_LOST') });
      await client.query('commit');
    });
    expect(await move('half')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining(
        'the target still has the copy of the move that was taken back. Run this with --back',
      ),
    });
    expect(await move('half', '--back')).toMatchObject({ exitCode: 0 });
    expect(await move('half')).toMatchObject({ exitCode: 0 });
    expect(await holdersOf('half')).toEqual(['target']);
  }, 60_000);
});
