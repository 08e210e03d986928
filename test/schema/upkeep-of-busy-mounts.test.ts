import type { Client } from 'pg';
import { beforeEach, expect, test } from 'vitest';
import { type Outcome, sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createMount, createNode, foldAll, type Mount } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

let free: Mount;
let busy: Mount;
let holder: Client;
let upkeep: Client;

beforeEach(async () => {
  [free, busy] = [await createMount(database()), await createMount(database())];
  [holder, upkeep] = [await database().connect(), await database().connect()];
  for (const mount of [free, busy]) {
    const directory = await createNode(database(), mount, mount.rootId, 'a', 'directory');
    const file = await createNode(database(), mount, mount.rootId, 'f');
    await database().query('update filestore.nodes set size_bytes = 1 where id = $1', [file]);
    await database().query('select filestore.delete_node($1)', [
      await createNode(database(), mount, directory, 'gone'),
    ]);
  }
});

const moveIn = ({ id }: Mount) =>
  `select filestore.move_node(id, new_name => 'b') from filestore.nodes where backend_mount_id = ${id} and path = 'a'`;

/** A session that moves a directory, and does not commit yet. */
const moveDirectory = (mount: Mount) => holder.query(`begin; ${moveIn(mount)}`);

/** Calls a function of upkeep that has to wait for one mount, and expects that a writer of the other one does not. */
async function expectFreeBeside(call: string, other: Mount): Promise<Outcome> {
  const { waits, outcome } = await sendAndBlock(upkeep, call);
  expect(waits).toBe(true);
  const move = await sendAndBlock(await database().connect(), moveIn(other));
  await holder.query('commit');
  expect(move.waits).toBe(false);
  return outcome;
}

/** Calls a function of upkeep, which must not wait. */
async function callAtOnce(call: string): Promise<number> {
  const { waits, outcome } = await sendAndBlock(upkeep, `select ${call} as done`);
  const ended = await outcome;
  expect(waits).toBe(false);
  if (!ended.ok) throw ended.error;
  return ended.result.rows[0].done;
}

const remaining = async (table: string, column: string) =>
  (
    await database().query<{ id: string }>(
      `select distinct backend_mount_id as id from filestore.${table} where ${column}`,
    )
  ).map(({ id }) => id);

test('a fold leaves the deltas of a mount whose tree is locked to the next call', async () => {
  await moveDirectory(busy);
  expect(await callAtOnce('filestore.fold_rollups()')).toBeGreaterThan(0);
  expect(await remaining('rollup_deltas', 'true')).toEqual([busy.id]);
  await holder.query('commit');
  await callAtOnce('filestore.fold_rollups()');
  expect(await remaining('rollup_deltas', 'true')).toEqual([]);
});

test('a fold that waits for the only mount with deltas goes on when its tree is free', async () => {
  await foldAll(database());
  await database().query(
    'update filestore.nodes set size_bytes = 2 where backend_mount_id = $1 and name = $2',
    [busy.id, 'f'],
  );
  await moveDirectory(busy);
  const { waits, outcome } = await sendAndBlock(upkeep, 'select filestore.fold_rollups()');
  expect(waits).toBe(true);
  await holder.query('commit');
  expect(await outcome).toMatchObject({ ok: true });
  expect(await remaining('rollup_deltas', 'true')).toEqual([]);
});

test('a purge leaves the tombstones of a mount whose tree is locked to the next call', async () => {
  await foldAll(database());
  await moveDirectory(busy);
  expect(await callAtOnce("filestore.purge_deleted('0')")).toBe(1);
  expect(await remaining('nodes', 'not live')).toEqual([busy.id]);
  await holder.query('commit');
  expect(await callAtOnce("filestore.purge_deleted('0')")).toBe(1);
});

test('a fold takes the deltas of a free mount, even if those of a locked one are older and fill the call', async () => {
  await foldAll(database());
  for (const { id } of [busy, free]) {
    await database().query(
      'update filestore.nodes set size_bytes = 2 where backend_mount_id = $1 and name = $2',
      [id, 'f'],
    );
  }
  await moveDirectory(busy);
  expect(await callAtOnce('filestore.fold_rollups(1)')).toBe(1);
  expect(await remaining('rollup_deltas', 'true')).toEqual([busy.id]);
});

test('a purge takes the next mount when the first one is locked', async () => {
  await foldAll(database());
  await moveDirectory(free);
  expect(await callAtOnce("filestore.purge_deleted('0')")).toBe(1);
  expect(await remaining('nodes', 'not live')).toEqual([free.id]);
});

test('a purge that waits for the only mount with tombstones goes on when its tree is free', async () => {
  await foldAll(database());
  expect(await callAtOnce("filestore.purge_deleted('0', 1)")).toBe(1);
  await moveDirectory(busy);
  const { waits, outcome } = await sendAndBlock(upkeep, "select filestore.purge_deleted('0')");
  expect(waits).toBe(true);
  await holder.query('commit');
  expect(await outcome).toMatchObject({ ok: true, result: { rows: [{ purge_deleted: 1 }] } });
});

test('a batch of a backfill ends before the nodes of a mount whose tree is locked', async () => {
  await moveDirectory(busy);
  const outcome = await expectFreeBeside(
    "call filestore.backfill('nodes', 'storage_class', $$ 'COLD' $$)",
    free,
  );
  expect(outcome).toMatchObject({ ok: true });
  expect(await remaining('nodes', "kind = 'file' and storage_class is null")).toEqual([]);
});

test('pruning leaves the versions of a mount whose row is locked to a later call', async () => {
  const versions = async () => await remaining('snapshots', "valid_to is not null and name = 'f'");
  expect(await versions()).toHaveLength(2);
  await holder.query(`begin; update filestore.backend_mounts set contact = 'x' where id = ${busy.id}`);
  expect(await callAtOnce("filestore.prune_history('0', 0)")).toBeGreaterThan(0);
  expect(await versions()).toEqual([busy.id]);
  await holder.query('commit');
  while ((await callAtOnce("filestore.prune_history('0', 0)")) > 0);
  expect(await versions()).toEqual([]);
});

test('pruning takes the versions of a free mount, even if those of a locked one fill the call', async () => {
  const versions = () => remaining('snapshots', "valid_to is not null and name = 'f'");
  await holder.query(`begin; update filestore.backend_mounts set contact = 'x' where id = ${free.id}`);
  while ((await versions()).includes(busy.id)) {
    expect(await callAtOnce("filestore.prune_history('0', 0, 1)")).toBe(1);
  }
  expect(await versions()).toEqual([free.id]);
});
