import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { asAdmin, databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { totalsOf, wrongTotals } from '../support/rows/directory-totals.ts';
import {
  createChain,
  createDirectory,
  createMount,
  createNode,
  foldAll,
  type Mount,
  one,
} from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

const FOLD = 'select filestore.fold_rollups() as folded';
const MOVE = 'select filestore.move_node($1, $2)';

let mount: Mount;
/** Creates the directories a and a/b, with one file in a/b. Nothing is folded. */
let a: string;
let b: string;
let target: string;
/** The connection that begins first and keeps its transaction open. */
let first: Client;
let second: Client;

beforeEach(async () => {
  mount = await createMount(database());
  [a, b] = (await createChain(database(), mount, 'a', 'b')) as [string, string];
  target = await createDirectory(database(), mount, mount.rootId, 'target');
  await createNode(database(), mount, b, 'f');
  [first, second] = [await database().connect(), await database().connect()];
  await first.query('begin');
});

/** Ends the open transaction, folds all deltas, and compares all totals with a count. */
async function expectExactInTheEnd(): Promise<void> {
  expect(await wrongTotals(database())).toEqual([]);
  await foldAll(database());
  expect(await wrongTotals(database())).toEqual([]);
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
}

describe('during a fold', () => {
  beforeEach(async () => {
    await first.query(FOLD);
  });

  test('another fold skips its deltas and does not wait', async () => {
    const fold = await sendAndBlock(second, FOLD);
    expect(fold.waits).toBe(false);
    expect(await fold.outcome).toMatchObject({ ok: true, result: { rows: [{ folded: 0 }] } });
    await first.query('commit');
    await expectExactInTheEnd();
  });

  test('creates, writes and readings do not wait, and readings are exact', async () => {
    const create = await sendAndBlock(second, 'select filestore.create_node($1, $2, size_bytes => 5)', [
      b,
      'g',
    ]);
    expect(create.waits).toBe(false);
    const write = await sendAndBlock(second, 'update filestore.nodes set size_bytes = 7 where name = $1', [
      'f',
    ]);
    expect(write.waits).toBe(false);
    expect(await totalsOf(database(), a)).toEqual([12, 2, 1]);
    await first.query('commit');
    expect(await totalsOf(database(), a)).toEqual([12, 2, 1]);
    await expectExactInTheEnd();
  });

  test('a kill of its session loses nothing', async () => {
    const { pid } = await one(first, 'select pg_backend_pid() as pid');
    await asAdmin((admin) => admin.query('select pg_terminate_backend($1, 10000)', [pid]));
    expect(await totalsOf(database(), mount.rootId)).toEqual([0, 1, 3]);
    expect((await one(database(), FOLD)).folded).toBe(4);
    await expectExactInTheEnd();
  });
});

describe('while another session holds totals', () => {
  const HOLD = 'select from filestore.rollups where node_id = any ($1) for update';

  test('a fold waits for them in order of id, and holds no later ones until then', async () => {
    await first.query(HOLD, [[mount.rootId]]);
    const fold = await sendAndBlock(second, FOLD);
    expect(fold.waits).toBe(true);
    await first.query(`${HOLD} nowait`, [[a, b]]);
    await first.query('commit');
    expect(await fold.outcome).toMatchObject({ ok: true });
    await expectExactInTheEnd();
  });

  test('a fold does not wait for those that it does not change', async () => {
    const other = await createMount(database());
    await first.query(HOLD, [[other.rootId, target]]);
    expect((await sendAndBlock(second, FOLD)).waits).toBe(false);
    await first.query('commit');
    await expectExactInTheEnd();
  });
});

describe('while a directory is being moved', () => {
  beforeEach(async () => {
    await first.query(MOVE, [b, target]);
  });

  test('a move on another mount, and a fold of another mount, do not wait', async () => {
    await first.query('commit');
    await foldAll(database());
    await first.query('begin');
    await first.query(MOVE, [b, a]);
    const other = await createMount(database());
    const [from, to] = [
      await createDirectory(database(), other, other.rootId, 'from'),
      await createDirectory(database(), other, other.rootId, 'to'),
    ];
    expect((await sendAndBlock(second, MOVE, [from, to])).waits).toBe(false);
    expect((await sendAndBlock(second, FOLD)).waits).toBe(false);
    await first.query('commit');
    await expectExactInTheEnd();
  });
});
