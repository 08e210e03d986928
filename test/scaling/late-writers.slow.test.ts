import type { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { MOVING } from '../support/rows/moving-mount.ts';
import { until } from '../support/until.ts';
import { newWalk, takersOf } from './small-mounts.ts';
import { type NumberedDatabase, startTwoDatabases, type TwoDatabases } from './two-databases.ts';
import type { MoveWalk } from './walk-move.ts';

let databases: TwoDatabases;
let walk: MoveWalk;
/** Another session of the source. */
let other: Client;
beforeAll(async () => {
  databases = await startTwoDatabases();
}, 120_000);
afterAll(() => databases?.stop());
beforeEach(async () => {
  walk = await (await newWalk(databases)).to('prove target');
  other = await walk.source.connect();
  await other.query('begin');
}, 20_000);

const WRITE = 'select filestore.upsert_file($1, $2, 5)';
const BUSY = { code: 'FS409', constraint: 'moves_writers_busy' };
const OVER = { code: 'FS409', constraint: 'moves_step_check' };

const untilOver = () =>
  until(
    async () =>
      (
        await walk.source.query(
          'select from filestore.moves where mount_key = $1 and closed_until < clock_timestamp()',
          [walk.key],
        )
      ).length > 0,
  );

async function pathsOn({ query }: NumberedDatabase, ...paths: readonly string[]): Promise<readonly string[]> {
  const found = await query<{ path: string }>(
    'select p as path from unnest($2::text[]) p where exists (select from filestore.node_by_path($1, p) n where n.id is not null) order by p',
    [walk.key, paths],
  );
  return found.map(({ path }) => path);
}

/** A cut-over whose time is over, although both servers have counted in time. */
async function missTheTime(): Promise<void> {
  await walk.close('1 s');
  await walk.source.query('select filestore.prove_mount($1)', [walk.key]);
  await walk.run('prove late');
  await untilOver();
}

describe('a writer after the time of a cut-over', () => {
  test('keeps its write when the writer that opened the mount is undone, and no receipt releases the mount', async () => {
    await missTheTime();
    await other.query(WRITE, [walk.key, 'd/undone']);
    await walk.source.query(WRITE, [walk.key, 'd/kept']);
    await other.query('rollback');
    await expect(walk.run('release')).rejects.toMatchObject(OVER);
    await walk.through('close', 'receive');
    expect(await takersOf(walk)).toBe('target');
    expect(await pathsOn(walk.target, 'd/kept', 'd/undone')).toEqual(['d/kept']);
  }, 20_000);

  test('keeps its write when it ends while a release and a new cut-over wait for it', async () => {
    await missTheTime();
    const opener = await walk.source.connect();
    await opener.query('begin');
    await opener.query(WRITE, [walk.key, 'd/undone']);
    await other.query(WRITE, [walk.key, 'd/kept']);
    await opener.query('rollback');
    await expect(walk.run('release')).rejects.toMatchObject(BUSY);
    await expect(walk.close('100 ms')).rejects.toMatchObject(BUSY);
    await other.query('commit');
    await walk.through('close', 'receive');
    expect(await pathsOn(walk.target, 'd/kept', 'd/undone')).toEqual(['d/kept']);
  }, 20_000);

  test('is refused while a release that came in time has not ended', async () => {
    await walk.close('3 s');
    await walk.run('prove late');
    await other.query('select filestore.release_mount($1, $2)', [walk.key, walk.receipts.late]);
    await untilOver();
    await expect(walk.source.query(WRITE, [walk.key, 'd/refused'])).rejects.toMatchObject(MOVING);
    await other.query('commit');
    await expect(walk.source.query(WRITE, [walk.key, 'd/refused'])).rejects.toMatchObject(MOVING);
    await walk.through('release', 'receive');
    expect(await takersOf(walk)).toBe('target');
  }, 20_000);

  test.each(['commit', 'rollback'])(
    'keeps its write beside cancel_move, also if that ends with %s',
    async (end) => {
      await missTheTime();
      await other.query('select filestore.cancel_step($1, null, 10)', [walk.key]);
      await walk.source.query(WRITE, [walk.key, 'd/kept']);
      await other.query(end);
      await walk.cancel();
      expect(await takersOf(walk)).toBe('source');
      expect(await pathsOn(walk.source, 'd/kept')).toEqual(['d/kept']);
    },
    20_000,
  );
});

test('a session that holds the row of a mount holds up start_move, which names it', async () => {
  const { key, source } = await newWalk(databases);
  await other.query('select from filestore.backend_mounts where mount_key = $1 for update', [key]);
  const pid = (await other.query('select pg_backend_pid() as pid')).rows[0]?.pid;
  await expect(
    source.query('select filestore.start_move($1, $2)', [key, databases.two.number]),
  ).rejects.toMatchObject({
    ...BUSY,
    message: `another transaction holds the row of mount "${key}" or of its move: process ${pid}`,
    hint: expect.stringContaining('In the meantime, this server takes the writes of the mount.'),
  });
  await other.query('rollback');
  expect(await source.query('select filestore.start_move($1, $2)', [key, databases.two.number])).toHaveLength(
    1,
  );
}, 30_000);

test('a writer on the target that receives the mount holds up receive_mount, which names it and says who takes writes', async () => {
  await walk.through('close', 'release');
  await until(async () => (await takersOf(walk)) === 'target');
  const first = await walk.target.connect();
  await first.query('begin');
  await first.query(WRITE, [walk.key, 'd/first']);
  const pid = (await first.query('select pg_backend_pid() as pid')).rows[0]?.pid;
  await expect(walk.target.query(WRITE, [walk.key, 'd/second'])).rejects.toMatchObject(MOVING);
  await expect(walk.run('receive')).rejects.toMatchObject({
    ...BUSY,
    message: `another transaction holds the row of mount "${walk.key}" or of its move: process ${pid}`,
    hint: expect.stringContaining(
      'This server takes the writes of the mount when that transaction has ended.',
    ),
  });
  await first.query('commit');
  await walk.run('receive');
  expect(await pathsOn(walk.target, 'd/first')).toEqual(['d/first']);
}, 30_000);
