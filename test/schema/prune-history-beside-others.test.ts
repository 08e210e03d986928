import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createMovingMount, dropPublications, publishMount } from '../support/rows/moving-mount.ts';
import { createMount, createNode, type Mount, one } from '../support/rows/nodes.ts';
import { horizonOf, overwrite, PRUNE, pastVersions, prune } from '../support/rows/pruned-history.ts';
import { beginScan } from '../support/rows/scans.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseEmptiedAfterEachTest();

let mount: Mount;
let key: string;
let file: string;

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  file = await createNode(database(), mount, mount.rootId, 'f');
});

const problems = () => database().query('select problem, detail from filestore.check_integrity()');

describe('prune_history leaves alone', () => {
  test('a mount that moves', async () => {
    const moving = await createMovingMount(database());
    const late = await createNode(database(), mount, mount.rootId, 'late');
    for (const id of [file, moving.file, late]) await overwrite(database(), id, 2);
    await database().query('call filestore.prepare_moves(true)');
    await publishMount(database(), moving.key);
    try {
      // The versions that stay do not fill a batch.
      while ((await prune(database(), '0', 0, 1)) > 0);
      for (const id of [file, late]) expect(await pastVersions(database(), id)).toEqual([]);
      expect((await pastVersions(database(), moving.file)).length).toBeGreaterThanOrEqual(2);
      expect(await horizonOf(database(), moving.mount)).toBeNull();
    } finally {
      await dropPublications(database());
    }
  });

  test('a mount that begins to move while it waits', async () => {
    const moving = await createMovingMount(database());
    await overwrite(database(), moving.file, 2);
    const before = await pastVersions(database(), moving.file);
    await database().query('call filestore.prepare_moves(true)');
    const owner = await database().connect();
    await owner.query('begin');
    await owner.query('select filestore.start_move($1, 7)', [moving.key]);
    const pruning = await sendAndBlock(await database().connect(), PRUNE, ['0', 0, 1000]);
    expect(pruning.waits).toBe(true);
    await owner.query('commit');
    try {
      expect(await pruning.outcome).toMatchObject({ ok: true });
      expect(await pastVersions(database(), moving.file)).toEqual(before);
    } finally {
      await dropPublications(database());
    }
  });

  test('a mount that is being erased', async () => {
    await overwrite(database(), file, 2);
    await database().query("update filestore.backend_mounts set state = 'inactive', erasing_since = now()");
    expect(await prune(database())).toBe(0);
    expect(await pastVersions(database(), file)).toEqual([1, 2]);
  });

  test('what was written since a running scan began', async () => {
    const late = await createNode(database(), mount, mount.rootId, 'late');
    for (const id of [file, late]) await overwrite(database(), id, 2);
    const scan = await beginScan(database(), key);
    await overwrite(database(), file, 2);
    while ((await prune(database(), '0', 0, 1)) > 0);
    expect(await pastVersions(database(), file)).toEqual([3, 4]);
    expect(await pastVersions(database(), late)).toEqual([]);
    await database().query('select filestore.cancel_scan($1)', [scan.id]);
    expect(await prune(database())).toBe(2);
  });

  test('what was written since a scan began that had not committed when the call began', async () => {
    await overwrite(database(), file, 2);
    const scanner = await database().connect();
    await scanner.query('begin');
    await beginScan(scanner, key);
    await overwrite(database(), file, 2);
    const pruning = await sendAndBlock(await database().connect(), PRUNE, ['0', 0, 1000]);
    expect(pruning.waits).toBe(true);
    await scanner.query('commit');
    expect(await pruning.outcome).toMatchObject({ result: { rows: [{ pruned: 2 }] } });
    expect(await pastVersions(database(), file)).toEqual([3, 4]);
  });
});

describe('beside other transactions', () => {
  test('a reader that began before the prune still reads the trees that it removed', async () => {
    await overwrite(database(), file, 2);
    const { start } = await one(database(), 'select created_at as start from filestore.nodes where id = $1', [
      file,
    ]);
    const reader = await database().connect();
    await reader.query('begin isolation level repeatable read');
    await reader.query('select from filestore.nodes');
    await prune(database());
    const { rows } = await reader.query("select path, version from filestore.tree_at($1, 'f', $2)", [
      key,
      start,
    ]);
    expect(rows).toEqual([{ path: 'f', version: 1 }]);
    await reader.query('commit');
  });

  test('writers of the same node do not wait for a prune, nor a prune for them', async () => {
    await overwrite(database(), file, 3);
    const [operator, writer] = [await database().connect(), await database().connect()];
    await writer.query('begin');
    await writer.query('update filestore.nodes set size_bytes = 100 where id = $1', [file]);
    await operator.query('begin');
    const pruning = await sendAndBlock(operator, PRUNE, ['0', 0, 1000]);
    expect(pruning.waits).toBe(false);
    expect(await pruning.outcome).toMatchObject({ result: { rows: [{ pruned: 3 }] } });
    const other = await database().connect();
    await writer.query('commit');
    const writing = await sendAndBlock(other, 'update filestore.nodes set size_bytes = 101 where id = $1', [
      file,
    ]);
    expect(writing.waits).toBe(false);
    await writing.outcome;
    await operator.query('commit');
    expect(await pastVersions(database(), file)).toEqual([4, 5]);
    expect(await problems()).toEqual([]);
  });

  test('a second call waits for the first one, and takes what that left', async () => {
    // The first call of all creates the cursor.
    await prune(database());
    await overwrite(database(), file, 3);
    const [first, second] = [await database().connect(), await database().connect()];
    await first.query('begin');
    await first.query(PRUNE, ['0', 0, 2]);
    const waiting = await sendAndBlock(second, PRUNE, ['0', 0, 2]);
    expect(waiting.waits).toBe(true);
    await first.query('commit');
    expect(await waiting.outcome).toMatchObject({ result: { rows: [{ pruned: 1 }] } });
  });

  test('versions that another transaction holds stay, with all later ones of the node', async () => {
    const other = await createNode(database(), mount, mount.rootId, 'g');
    for (const id of [file, other]) await overwrite(database(), id, 3);
    const holder = await database().connect();
    await holder.query('begin');
    await holder.query('select from filestore.snapshots where id = $1 and version = 2 for update', [file]);
    expect(await prune(database())).toBe(4);
    await holder.query('rollback');
    expect([await pastVersions(database(), file), await pastVersions(database(), other)]).toEqual([
      [2, 3],
      [],
    ]);
    expect(await problems()).toEqual([]);
  });
});
