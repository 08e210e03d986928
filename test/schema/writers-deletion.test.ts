import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createMount, type Mount, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf, livePaths, type Writers, writersOn } from '../support/rows/writer-functions.ts';
import { until } from '../support/until.ts';

const database = databaseForFile();

let mount: Mount;
let key: string;
let writers: Writers;

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  writers = writersOn(database());
});

const UNKNOWN = '999999999';

const live = () => livePaths(database(), mount.id);
const ensure = (path: string, mountKey = key) => writers.ensure(mountKey, path);

describe('delete_node', () => {
  test('makes a file or an empty directory a tombstone', async () => {
    for (const node of [await writers.create(mount.rootId, 'f'), await ensure('d')]) {
      expect(await writers.remove(node.id, { version: 1 })).toMatchObject({
        id: node.id,
        state: 'deleted',
        version: 2,
        deleted_at: expect.any(Date),
      });
    }
    expect(await live()).toEqual([]);
  });

  test('refuses a directory that is not empty', async () => {
    const directory = await ensure('a/b');
    await expect(writers.remove(directory.parent_id)).rejects.toMatchObject(
      refusal('FS409', '"a" is not empty'),
    );
  });

  test('with recursive deletes all nodes below and no others, with the same deleted_at', async () => {
    await writers.create((await ensure('a/b/c')).id, 'f');
    for (const name of ['a!', 'a-b', 'a0']) await writers.create(mount.rootId, name);
    const other = await createMount(database());
    await ensure('a/b', await keyOf(database(), other.id));
    const a = await ensure('a');
    expect(await writers.remove(a.id, { recursive: true })).toMatchObject({
      id: a.id,
      version: 2,
      live: false,
    });
    expect(await live()).toEqual(['a!', 'a-b', 'a0']);
    expect(await livePaths(database(), other.id)).toEqual(['a', 'a/b']);
    const moments = await database().query(
      'select deleted_at::text as moment from filestore.nodes where backend_mount_id = $1 and not live',
      [mount.id],
    );
    expect(moments).toHaveLength(4);
    expect(new Set(moments.map(({ moment }) => moment)).size).toBe(1);
  });

  test.each([false, true])('refuses the root (recursive: %s)', async (recursive) => {
    await ensure('a');
    await expect(writers.remove(mount.rootId, { recursive })).rejects.toMatchObject(
      refusal('FS422', mount.rootId),
    );
    expect(await live()).toEqual(['a']);
  });

  test.each([false, true])(
    'refuses an unknown node, a deleted one, and another version than expected (recursive: %s)',
    async (recursive) => {
      await expect(writers.remove(UNKNOWN, { recursive })).rejects.toMatchObject(refusal('FS404', UNKNOWN));
      for (const node of [await ensure('d'), await writers.create(mount.rootId, 'f')]) {
        const name = `"${node.name}"`;
        await expect(writers.remove(node.id, { recursive, version: 7 })).rejects.toMatchObject(
          refusal('FS409', name),
        );
        await writers.remove(node.id, { recursive });
        await expect(writers.remove(node.id, { recursive })).rejects.toMatchObject(refusal('FS404', name));
      }
    },
  );
});

/** Deletes a tree in batches with one moment, and returns the remaining nodes after each. */
async function removeInBatches(id: string, size: number, afterEach: () => Promise<void>): Promise<void> {
  const { moment } = await one(database(), 'select clock_timestamp()::text as moment');
  for (;;) {
    const { deleted } = await one(database(), 'select filestore.delete_batch($1, $2, $3) as deleted', [
      id,
      size,
      moment,
    ]);
    expect(deleted).toBeLessThanOrEqual(size);
    if (deleted === 0) return;
    await afterEach();
  }
}

describe('delete_batch', () => {
  const orphans = () =>
    database().query(
      `select n.path from filestore.nodes n join filestore.nodes p on p.id = n.parent_id
       where n.backend_mount_id = $1 and n.live and not p.live`,
      [mount.id],
    );

  test('leaves a valid tree after every batch, and at the end only the nodes outside it', async () => {
    for (const path of ['a/b/c', 'a/b!/c', 'a/b0', 'a-b', 'a!', 'a0']) await ensure(path);
    const before = (await live()).length;
    let batches = 0;
    await removeInBatches((await ensure('a')).id, 2, async () => {
      batches += 1;
      expect(await orphans()).toEqual([]);
      expect(await live()).toHaveLength(before - Math.min(batches * 2, 6));
    });
    expect(batches).toBe(3);
    expect(await live()).toEqual(['a!', 'a-b', 'a0']);
  });

  test('with one moment deletes a tree that restore_node restores as a whole', async () => {
    for (const path of ['a/b/c', 'a/d', 'a/e']) await ensure(path);
    const before = await live();
    const a = await ensure('a');
    await removeInBatches(a.id, 2, async () => undefined);
    expect(await live()).toEqual([]);
    await writers.restore(a.id, { withTree: true });
    expect(await live()).toEqual(before);
  });

  test.each(['created', 'moved'])(
    'deletes a tree that can be restored, with the node that had a name last, although it was %s there between two batches',
    async (how) => {
      // The id of a node that is moved is lower than that of the node in whose place it is.
      const older = await writers.create(mount.rootId, 'older');
      const a = await ensure('a');
      await writers.create(a.id, 'f');
      let again: string | undefined;
      await removeInBatches(a.id, 1, async () => {
        again ??= (
          how === 'moved'
            ? await writers.move(older.id, { parent: a.id, name: 'f' })
            : await writers.create(a.id, 'f')
        ).id;
      });
      await writers.restore(a.id, { withTree: true });
      expect((await live()).filter((path) => path !== 'older')).toEqual(['a', 'a/f']);
      expect(await one(database(), 'select live from filestore.nodes where id = $1', [again])).toEqual({
        live: true,
      });
    },
  );

  test('deletes nothing for an unknown or deleted node', async () => {
    const node = await ensure('d');
    await writers.remove(node.id);
    for (const id of [UNKNOWN, node.id]) {
      expect(await one(database(), 'select filestore.delete_batch($1) as deleted', [id])).toEqual({
        deleted: 0,
      });
    }
  });

  test('refuses the root, and deletes nothing', async () => {
    await ensure('a');
    await expect(database().query('select filestore.delete_batch($1)', [mount.rootId])).rejects.toMatchObject(
      { ...refusal('FS422', mount.rootId), constraint: 'nodes_root_check' },
    );
    expect(await live()).toEqual(['a']);
  });

  test.each([0, -1])('refuses max_nodes %d, since a result of 0 would look like the end', async (size) => {
    const node = await ensure('a');
    await expect(
      database().query('select filestore.delete_batch($1, $2)', [node.id, size]),
    ).rejects.toMatchObject(refusal('FS422', String(size)));
  });
});

describe('restore_node', () => {
  test('restores a node as active, at the present path of its parent', async () => {
    const file = await writers.create((await ensure('a')).id, 'f');
    await database().query("update filestore.nodes set state = 'missing' where id = $1", [file.id]);
    await writers.remove(file.id);
    await writers.move(file.parent_id, { name: 'z' });
    expect(await writers.restore(file.id, { version: 3 })).toMatchObject({
      state: 'active',
      path: 'z/f',
      version: 4,
      deleted_at: null,
    });
  });

  test.each(['false', 'null'])('restores only the node when with_tree is %s', async (withTree) => {
    const { parent_id } = await ensure('a/b');
    await writers.remove(parent_id, { recursive: true });
    await database().query(`select filestore.restore_node($1, with_tree => ${withTree})`, [parent_id]);
    expect(await live()).toEqual(['a']);
  });

  test('with with_tree restores the nodes that were deleted together with it, not those deleted earlier', async () => {
    const a = await ensure('a');
    const earlier = await writers.create(a.id, 'earlier');
    await writers.create((await ensure('a/b')).id, 'g');
    const { deleted_at: moment } = await writers.remove(earlier.id);
    // Nodes that are deleted in one millisecond are deleted together.
    await until(
      async () =>
        (
          await database().query("select where clock_timestamp() >= $1::timestamptz + interval '1 ms'", [
            moment,
          ])
        ).length > 0,
    );
    await writers.remove(a.id, { recursive: true });
    expect(await writers.restore(a.id, { withTree: true })).toMatchObject({ path: 'a', state: 'active' });
    expect(await live()).toEqual(['a', 'a/b', 'a/b/g']);
  });

  test('refuses while the parent is deleted', async () => {
    const node = await ensure('a/b');
    await writers.remove(node.parent_id, { recursive: true });
    for (const withTree of [false, true]) {
      await expect(writers.restore(node.id, { withTree })).rejects.toMatchObject(refusal('FS404', '"a"'));
    }
  });

  test('refuses while the name is taken', async () => {
    const node = await ensure('a');
    await writers.remove(node.id);
    await ensure('a');
    for (const withTree of [false, true]) {
      await expect(writers.restore(node.id, { withTree })).rejects.toMatchObject(refusal('FS409', '"a"'));
    }
  });

  test('refuses an unknown node, a live one, and another version than expected', async () => {
    const node = await ensure('a');
    await expect(writers.restore(node.id)).rejects.toMatchObject(refusal('FS409', '"a"'));
    await writers.remove(node.id);
    await expect(writers.restore(node.id, { version: 1 })).rejects.toMatchObject(refusal('FS409', '"a"'));
    await expect(writers.restore(UNKNOWN)).rejects.toMatchObject(refusal('FS404', UNKNOWN));
  });
});
