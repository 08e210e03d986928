import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { openSide, type Side } from '../../src/move/side.ts';
import { dropUnusedSlot } from '../../src/move/subscription.ts';
import { newWalk } from './small-mounts.ts';
import { type NumberedDatabase, startTwoDatabases, type TwoDatabases } from './two-databases.ts';
import type { MoveWalk } from './walk-move.ts';

let databases: TwoDatabases;
let source: Side;
let walk: MoveWalk;
beforeAll(async () => {
  databases = await startTwoDatabases();
  source = await openSide(connectionTo(databases.one.url));
}, 120_000);
afterAll(async () => {
  await source?.close();
  await databases?.stop();
});
beforeEach(async () => {
  walk = await (await newWalk(databases)).to('start');
});

const createSlot = ({ query }: NumberedDatabase) =>
  query("select pg_create_logical_replication_slot($1, 'pgoutput')", [walk.slot]);
const slots = () => databases.one.query('select slot_name from pg_replication_slots');
const problem = async () => {
  const text = 'select problem from filestore.view_filestore_mount_moves where mount_key = $1';
  return (await walk.source.query(text, [walk.key]))[0]?.problem;
};
const dropUnused = () =>
  dropUnusedSlot(
    { ...walk, mountKey: walk.key, source, target: source, conninfo: '', withinMs: 1 },
    moveId(),
  );
const moveId = () => String(walk.receipts.ticket?.move);

test('moves with the same number in two databases of a server have different slots', async () => {
  const [other] = await databases.two.query('select filestore.move_slot($1) as slot', [moveId()]);
  expect(walk.slot).toContain(moveId());
  expect(other?.slot).not.toBe(walk.slot);
});

test('a move leaves the slot of another database alone, and drops its own', async () => {
  await createSlot(databases.two);
  expect(await problem()).toBeNull();
  await dropUnused();
  expect(await slots()).toEqual([{ slot_name: walk.slot }]);
  await databases.two.query('select pg_drop_replication_slot($1)', [walk.slot]);

  await createSlot(databases.one);
  expect(await problem()).toContain('the target does not read the log');
  await dropUnused();
  expect(await slots()).toEqual([]);
});
