import { beforeEach, describe, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest, withoutTriggers } from '../support/databases/test-database.ts';
import {
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  foldAll,
  type Mount,
  one,
} from '../support/rows/nodes.ts';
import {
  horizonOf,
  overwrite,
  PRUNED,
  pastVersions,
  prune,
  untilPast,
} from '../support/rows/pruned-history.ts';
import { refusal } from '../support/rows/refusals.ts';
import { ageNodes } from '../support/rows/tombstones.ts';
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

const nodeAt = (id: string, moment: Date) =>
  database().query('select version from filestore.node_at($1, $2)', [id, moment]);

const treeAt = (moment: Date) =>
  database().query("select path, version from filestore.tree_at($1, '', $2)", [key, moment]);

/** When a version began. */
const startOf = async (id: string, version: number): Promise<Date> =>
  (
    await one(
      database(),
      'select valid_from from filestore.view_filestore_node_versions where id = $1 and version = $2',
      [id, version],
    )
  ).valid_from;

describe('prune_history removes', () => {
  test('the superseded versions of a live node, and keeps the node', async () => {
    await overwrite(database(), file, 4);
    expect(await prune(database())).toBe(4);
    expect(await pastVersions(database(), file)).toEqual([]);
    expect(await one(database(), 'select version from filestore.nodes where id = $1', [file])).toEqual({
      version: 5,
    });
    expect(await problems()).toEqual([]);
  });

  test('only versions that ended longer ago than older_than', async () => {
    await overwrite(database(), file, 3);
    await ageNodes(database(), 40, file);
    await overwrite(database(), file, 2);
    // Version 4 began 40 days ago, and ended now.
    expect(await prune(database(), '30 days')).toBe(3);
    expect(await pastVersions(database(), file)).toEqual([4, 5]);
    expect(await problems()).toEqual([]);
  });

  test('none of the newest keep_versions of a node, whatever their age', async () => {
    await overwrite(database(), file, 5);
    await ageNodes(database(), 40, file);
    expect(await prune(database(), '30 days', 2)).toBe(3);
    expect(await pastVersions(database(), file)).toEqual([4, 5]);
    expect(await prune(database(), '30 days', 2)).toBe(0);
  });

  test('all but one by default', async () => {
    await overwrite(database(), file, 3);
    expect(await one(database(), "select filestore.prune_history('0') as pruned")).toEqual({ pruned: 2 });
    expect(await pastVersions(database(), file)).toEqual([3]);
  });

  test('a batch at a time, the oldest versions of each node first, until nothing is left', async () => {
    const others = [
      await createNode(database(), mount, mount.rootId, 'g'),
      await createNode(database(), mount, mount.rootId, 'h'),
    ];
    for (const id of [file, ...others]) await overwrite(database(), id, 4);
    const pruned: number[] = [];
    for (;;) {
      pruned.push(await prune(database(), '0', 1, 4));
      expect(await problems()).toEqual([]);
      if (pruned.at(-1) === 0) break;
    }
    expect(pruned.reduce((sum, count) => sum + count, 0)).toBe(9);
    expect(Math.max(...pruned)).toBeLessThanOrEqual(4);
    for (const id of [file, ...others]) expect(await pastVersions(database(), id)).toEqual([4]);
  });

  test('versions of nodes before the one at which it ended last', async () => {
    const second = await createNode(database(), mount, mount.rootId, 'g');
    await overwrite(database(), second, 3);
    expect(await prune(database(), '0', 0, 2)).toBe(2);
    await overwrite(database(), file, 1);
    while ((await prune(database(), '0', 0, 2)) > 0);
    expect([await pastVersions(database(), file), await pastVersions(database(), second)]).toEqual([[], []]);
  });

  test('no version of a tombstone, which goes with its node', async () => {
    await overwrite(database(), file, 2);
    await deleteNode(database(), file);
    expect(await prune(database())).toBe(0);
    await foldAll(database());
    expect(await one(database(), "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 1 });
    expect(await pastVersions(database(), file)).toEqual([]);
  });

  test('the rest of a pruned node when the node is purged', async () => {
    await overwrite(database(), file, 3);
    await prune(database(), '0', 1);
    await deleteNode(database(), file);
    await foldAll(database());
    expect(await one(database(), "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 1 });
    expect(await pastVersions(database(), file)).toEqual([]);
    expect(await problems()).toEqual([]);
  });
});

describe('before the horizon', () => {
  test('the horizon of a mount is the end of the last version that was removed', async () => {
    await overwrite(database(), file, 3);
    expect(await horizonOf(database(), mount)).toBeNull();
    await prune(database(), '0', 1);
    expect(await horizonOf(database(), mount)).toEqual(await startOf(file, 3));
  });

  test('a horizon never goes back', async () => {
    const old = await createNode(database(), mount, mount.rootId, 'old');
    await overwrite(database(), file, 2);
    await prune(database());
    const horizon = await horizonOf(database(), mount);
    await overwrite(database(), old, 2);
    await ageNodes(database(), 40, old);
    expect(await prune(database(), '30 days')).toBe(2);
    expect(await horizonOf(database(), mount)).toEqual(horizon);
  });

  test('the version of a mount does not change with its horizon', async () => {
    const read = () =>
      one(database(), 'select version, updated_at from filestore.backend_mounts where id = $1', [mount.id]);
    const before = await read();
    await overwrite(database(), file, 2);
    await prune(database());
    expect(await horizonOf(database(), mount)).not.toBeNull();
    expect(await read()).toEqual(before);
  });

  test('node_at refuses moments of pruned versions, and names the oldest version that is left', async () => {
    await overwrite(database(), file, 3);
    const [first, third, fourth] = [await startOf(file, 1), await startOf(file, 3), await startOf(file, 4)];
    await prune(database(), '0', 1);
    await expect(nodeAt(file, first)).rejects.toMatchObject({
      ...PRUNED,
      ...refusal('FS404', `the history of node ${file} ("f") begins with version 3`),
    });
    await expect(nodeAt(file, new Date(third.getTime() - 1))).rejects.toMatchObject(PRUNED);
    expect(await nodeAt(file, third)).toEqual([{ version: 3 }]);
    expect(await nodeAt(file, fourth)).toEqual([{ version: 4 }]);
  });

  test('node_at answers for a moment before the node existed, and for nodes whose versions are all there', async () => {
    const whole = await createNode(database(), mount, mount.rootId, 'whole');
    const start = await startOf(file, 1);
    await overwrite(database(), file, 3);
    await prune(database());
    expect(await nodeAt(file, new Date(start.getTime() - 1))).toEqual([]);
    expect(await nodeAt(whole, await startOf(whole, 1))).toEqual([{ version: 1 }]);
  });

  test('tree_at refuses, and answers from the horizon on', async () => {
    await overwrite(database(), file, 3);
    await prune(database(), '0', 1);
    const horizon = (await horizonOf(database(), mount)) ?? new Date(0);
    await expect(treeAt(new Date(horizon.getTime() - 1))).rejects.toMatchObject({
      ...PRUNED,
      ...refusal('FS404', `"${key}"`),
    });
    expect(await treeAt(horizon)).toEqual([
      { path: '', version: 1 },
      { path: 'f', version: 3 },
    ]);
  });

  test('the trees of other mounts are still known', async () => {
    await overwrite(database(), file, 2);
    const start = await startOf(file, 1);
    const other = await createMount(database());
    await prune(database());
    expect(await horizonOf(database(), other)).toBeNull();
    const tree = "select path from filestore.tree_at($1, '', $2)";
    expect(await database().query(tree, [await keyOf(database(), other.id), start])).toEqual([]);
  });

  test('revert_node refuses a pruned version, and takes later ones', async () => {
    await overwrite(database(), file, 3);
    await prune(database(), '0', 1);
    const revert = (version: number) =>
      database().query('select filestore.revert_node($1, $2)', [file, version]);
    await expect(revert(2)).rejects.toMatchObject({ ...PRUNED, ...refusal('FS404', 'version 3') });
    for (const none of [0, 4, 99]) {
      await expect(revert(none)).rejects.toMatchObject({ constraint: 'snapshots_missing' });
    }
    await revert(3);
    expect(
      await one(database(), 'select size_bytes::int from filestore.nodes where id = $1', [file]),
    ).toEqual({
      size_bytes: 2,
    });
  });
});

describe('check_integrity', () => {
  test('finds a version that is missing after the horizon, and one that is missing between others', async () => {
    await overwrite(database(), file, 2);
    await prune(database());
    await overwrite(database(), file, 3);
    expect(await problems()).toEqual([]);
    await withoutTriggers(database(), (client) =>
      client.query('delete from filestore.snapshots where id = $1 and version = 3', [file]),
    );
    expect(await problems()).toMatchObject([{ problem: 'missing version' }]);
    await withoutTriggers(database(), (client) =>
      client.query('delete from filestore.snapshots where id = $1 and version = 4', [file]),
    );
    expect(await problems()).toMatchObject([{ problem: 'missing version' }]);
  });
});

describe('history cannot be removed by hand', () => {
  test.each([
    ['after the horizon', [1, 2, 3], 2],
    ['between other versions', [2], 2],
    ['on both sides of another version', [1, 3], 3],
  ])('%s', async (_, versions, lastPruned) => {
    await overwrite(database(), file, 3);
    await database().query('update filestore.backend_mounts set history_horizon = $1', [
      await startOf(file, lastPruned + 1),
    ]);
    await expect(
      database().query('delete from filestore.snapshots where id = $1 and version = any($2)', [
        file,
        versions,
      ]),
    ).rejects.toMatchObject({ code: 'FS409', constraint: 'snapshots_fixed' });
    expect(await pastVersions(database(), file)).toEqual([1, 2, 3]);
  });
});

test('the history of a moved directory is pruned with that of the nodes below it', async () => {
  const directory = await createDirectory(database(), mount, mount.rootId, 'd');
  const below = await createNode(database(), mount, directory, 'x');
  await database().query("select filestore.move_node($1, new_name => 'e')", [directory]);
  await untilPast(database(), below);
  const moved = await startOf(below, 2);
  expect(await prune(database())).toBe(2);
  expect(await horizonOf(database(), mount)).toEqual(moved);
  expect(await treeAt(moved)).toMatchObject([{ path: '' }, { path: 'e' }, { path: 'e/x' }, { path: 'f' }]);
});

test.each([
  [null, 0, 1000, 'retention_check'],
  ['-1 day', 0, 1000, 'retention_check'],
  ['1 day', null, 1000, 'retention_check'],
  ['1 day', -1, 1000, 'retention_check'],
  ['1 day', 0, 0, 'limit_check'],
  ['1 day', 0, null, 'limit_check'],
])('prune_history(%s, %s, %s) is refused', async (olderThan, keep, batch, constraint) => {
  await expect(prune(database(), olderThan, keep, batch)).rejects.toMatchObject({
    code: 'FS422',
    constraint,
  });
});
