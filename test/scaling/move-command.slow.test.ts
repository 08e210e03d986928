import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { withClient } from '../../src/testing/with-client.ts';
import { collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { commandMoves, STEPS } from './command-moves.ts';
import { recipeOf, runBlock } from './recipe.ts';
import { restoreOf } from './small-mounts.ts';
import { startTwoServers, type TwoServers } from './two-servers.ts';

let servers: TwoServers;
beforeAll(async () => {
  servers = await startTwoServers();
}, 120_000);
afterAll(() => servers?.stop());

const { env, move, on, fill, nodesOn, holdersOf, expectMoved, runAndDisturb } = commandMoves(() => servers);

test('one command moves a mount, and does nothing when it is given again', async () => {
  await fill('media');
  const nodes = await nodesOn('source', 'media');
  const ready = await move('media', '--dry-run');
  expect(ready, ready.output).toMatchObject({
    exitCode: 0,
    stdout: expect.stringContaining('Next: Preparing both servers'),
  });
  const result = await move('media');
  expect(result, result.output).toMatchObject({ exitCode: 0 });
  expect(result.stdout).toMatch(
    /Done: mount "media" is on database "filestore" on .*; no server took writes for /,
  );
  await expectMoved('media', nodes);
  expect(await move('media')).toMatchObject({ exitCode: 0 });
  const { password } = new URL(servers.source.url);
  expect(result.output).not.toContain(password);
}, 120_000);

test('a move whose command ends by SIGINT at every step, twice, goes on when it is started again', async () => {
  await fill('ends');
  const nodes = await nodesOn('source', 'ends');
  const seen = new Set<string>();
  for (let runs = 0; ; runs += 1) {
    expect(runs).toBeLessThan(3 * STEPS.length);
    const { exitCode } = await runAndDisturb('ends', seen, (_, kill) => {
      kill('SIGINT');
      kill('SIGINT');
    });
    expect((await holdersOf('ends')).length).toBeLessThan(2);
    if (exitCode === 0) break;
  }
  expect(seen.size).toBeGreaterThan(7);
  await expectMoved('ends', nodes);
}, 180_000);

test('a move is taken back by the command, and not any more when the target has the mount', async () => {
  await fill('back');
  const nodes = await nodesOn('source', 'back');
  const seen = new Set<string>();
  await runAndDisturb('back', seen, (step, kill) => {
    if (step === 'The target counts') kill('SIGKILL');
  });
  const back = await move('back', '--back', '--json');
  expect(back, back.output).toMatchObject({ exitCode: 0 });
  expect(JSON.parse(back.stdout)).toMatchObject({
    ok: true,
    command: 'move',
    state: 'taken back',
    mount: 'back',
  });
  expect(await holdersOf('back')).toEqual(['source']);
  expect(await nodesOn('source', 'back')).toBe(nodes);
  expect(await nodesOn('target', 'back')).toBe(0);
  expect(await move('back', '--keep')).toMatchObject({ exitCode: 0 });
  expect(await holdersOf('back')).toEqual(['target']);
  expect(await move('back', '--back')).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining('MOVE_FAILED'),
  });
  expect(await move('back')).toMatchObject({ exitCode: 0 });
  await expectMoved('back', nodes);
}, 120_000);

test('a move that is taken back is stopped by SIGINT, and the same command goes on', async () => {
  await fill('back-twice', 2000);
  const nodes = await nodesOn('source', 'back-twice');
  await runAndDisturb('back-twice', new Set(), (step, kill) => {
    if (step === 'Cutting over') kill('SIGKILL');
  });
  const child = startCli(['move', 'back-twice', '--to', 'TARGET_URL', '--back'], { env: env() });
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    if (text.includes('Letting services write')) child.kill('SIGINT');
  });
  expect(await collect(child)).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/RUN_ABORTED: Stopped on request \(SIGINT\)\. .*--back/),
  });
  expect(await move('back-twice', '--back')).toMatchObject({ exitCode: 0 });
  expect(await holdersOf('back-twice')).toEqual(['source']);
  expect([await nodesOn('source', 'back-twice'), await nodesOn('target', 'back-twice')]).toEqual([nodes, 0]);
}, 120_000);

test('a mount moves there and back again', async () => {
  await fill('round');
  const nodes = await nodesOn('source', 'round');
  expect(await move('round')).toMatchObject({ exitCode: 0 });
  const reversed = { FILESTORE_DATABASE_URL: servers.target.url, TARGET_URL: servers.source.url };
  const result = await runCli(['move', 'round', '--to', 'TARGET_URL'], { env: reversed });
  expect(result, result.output).toMatchObject({ exitCode: 0 });
  expect(await holdersOf('round')).toEqual(['source']);
  expect([await nodesOn('source', 'round'), await nodesOn('target', 'round')]).toEqual([nodes, 0]);
  expect(await move('round')).toMatchObject({ exitCode: 0 });
  await expectMoved('round', nodes);
}, 120_000);

describe('a move goes on', () => {
  const moveIdOf = async (key: string) => {
    const [row] = await on<{ id: string }>(
      'source',
      'select id from filestore.moves where mount_key = $1 and finished_at is null',
      [key],
    );
    return row?.id;
  };
  const untilCopied = async (key: string) => {
    await fill(key);
    await runAndDisturb(key, new Set(), (step, kill) => {
      if (step === 'The target copies') kill('SIGKILL');
    });
    return moveIdOf(key);
  };
  const onSource = (text: string) =>
    withClient(servers.source.superuserUrl, async (client) => (await client.query(text)).rows);

  test('when the target was killed after it had created the slot', async () => {
    await fill('slot-left');
    const nodes = await nodesOn('source', 'slot-left');
    await runAndDisturb('slot-left', new Set(), (step, kill) => {
      if (step === 'The target accepts the mount') kill('SIGINT');
    });
    await onSource(
      `select pg_create_logical_replication_slot(filestore.move_slot(${await moveIdOf('slot-left')}), 'pgoutput')`,
    );
    const result = await move('slot-left');
    expect(result, result.output).toMatchObject({ exitCode: 0 });
    await expectMoved('slot-left', nodes);
  }, 120_000);

  test('backwards, when the target was killed after it had dropped the slot', async () => {
    const id = await untilCopied('slot-gone');
    await on('target', `alter subscription filestore_move_${id} disable`);
    await expect
      .poll(() => onSource('select from pg_replication_slots where active'), { timeout: 20_000 })
      .toEqual([]);
    await onSource(`select pg_drop_replication_slot(filestore.move_slot(${id}))`);
    const back = await move('slot-gone', '--back');
    expect(back, back.output).toMatchObject({ exitCode: 0 });
    expect(await on('target', 'select from pg_subscription')).toEqual([]);
    expect(await holdersOf('slot-gone')).toEqual(['source']);
  }, 120_000);

  test('in three runs that begin at once, and all of them end well', async () => {
    await fill('three');
    const nodes = await nodesOn('source', 'three');
    const results = await Promise.all([move('three'), move('three'), move('three')]);
    for (const { exitCode, output } of results) {
      expect({ exitCode, output }).toEqual({
        exitCode: 0,
        output: expect.not.stringMatching(/takes writes again|MOVE_FAILED/),
      });
    }
    await expectMoved('three', nodes);
  }, 120_000);
});

test('the source of a target that was restored from a backup is not erased, and takes the mount back as documented', async () => {
  await fill('restored');
  const nodes = await nodesOn('source', 'restored');
  expect(await move('restored', '--keep')).toMatchObject({ exitCode: 0 });
  const [mount] = await on<{ id: string }>(
    'source',
    "select id from filestore.backend_mounts where mount_key = 'restored'",
  );
  await withClient(servers.target.superuserUrl, (client) =>
    client.query(restoreOf('before the move', mount?.id, 1)),
  );
  for (const options of [[], ['--back']]) {
    expect(await move('restored', ...options)).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('"A target that lost the mount" in docs/scaling.md'),
    });
  }
  expect(await nodesOn('source', 'restored')).toBe(nodes);
  const printed = new Map<string, string>();
  for (const block of recipeOf('A target that lost the mount')) {
    const text = block.text.replaceAll("'media'", "'restored'");
    await runBlock(servers, { ...block, text }, printed);
  }
  expect(await holdersOf('restored')).toEqual(['source']);
  expect(await move('restored')).toMatchObject({ exitCode: 0 });
  await expectMoved('restored', nodes);
}, 60_000);
