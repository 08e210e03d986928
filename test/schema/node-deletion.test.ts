import { describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import {
  createChain,
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  foldAll,
  one,
  pathOf,
} from '../support/rows/nodes.ts';

const database = databaseForFile();

describe('deleting', () => {
  test('a directory with a live child is refused, and the child is named', async () => {
    const mount = await createMount(database());
    const [a] = await createChain(database(), mount, 'a', 'b');
    await expect(deleteNode(database(), a ?? '')).rejects.toMatchObject({
      code: 'FS409',
      message: expect.stringContaining('"a" is not empty'),
    });
  });

  test('a tree is one statement', async () => {
    const mount = await createMount(database());
    const [a, b] = await createChain(database(), mount, 'a', 'b');
    const file = await createNode(database(), mount, b ?? '', 'f');
    await database().query("update filestore.nodes set state = 'deleted' where id = any($1)", [[a, b, file]]);
    const rows = await database().query(
      'select live, parent_live, path, deleted_at from filestore.nodes where id = any($1)',
      [[a, b, file]],
    );
    expect(rows.map(({ live, parent_live }) => ({ live, parent_live }))).toEqual(
      Array(3).fill({ live: false, parent_live: null }),
    );
    expect(rows.map(({ path }) => path).sort()).toEqual(['a', 'a/b', 'a/b/f']);
    expect(new Set(rows.map((row) => row.deleted_at.getTime())).size).toBe(1);
  });

  test('frees the path, and the next node there has a new id', async () => {
    const mount = await createMount(database());
    const first = await createNode(database(), mount, mount.rootId, 'a');
    await deleteNode(database(), first);
    const second = await createNode(database(), mount, mount.rootId, 'a');
    expect(Number(second)).toBeGreaterThan(Number(first));
    await deleteNode(database(), second);
    await createNode(database(), mount, mount.rootId, 'a');
    expect(
      await database().query("select from filestore.nodes where path = 'a' and backend_mount_id = $1", [
        mount.id,
      ]),
    ).toHaveLength(3);
  });
});

describe('restoring', () => {
  test.each(["state = 'active'", "state = 'active', parent_live = false"])(
    'with %s restores a tombstone at the present path of its parent',
    async (change) => {
      const mount = await createMount(database());
      const [a] = await createChain(database(), mount, 'a');
      const file = await createNode(database(), mount, a ?? '', 'f');
      await deleteNode(database(), file);
      await database().query("update filestore.nodes set name = 'z' where id = $1", [a]);
      expect(await pathOf(database(), file)).toBe('a/f');
      await database().query(`update filestore.nodes set ${change} where id = $1`, [file]);
      expect(
        await one(
          database(),
          'select path, live, parent_live, deleted_at from filestore.nodes where id = $1',
          [file],
        ),
      ).toEqual({
        path: 'z/f',
        live: true,
        parent_live: true,
        deleted_at: null,
      });
    },
  );

  test('is refused while the name is taken', async () => {
    const mount = await createMount(database());
    const file = await createNode(database(), mount, mount.rootId, 'f');
    await deleteNode(database(), file);
    await createNode(database(), mount, mount.rootId, 'f');
    await expect(
      database().query("update filestore.nodes set state = 'active' where id = $1", [file]),
    ).rejects.toMatchObject({ constraint: 'nodes_live_child_key' });
  });

  test('is refused while the parent is deleted', async () => {
    const mount = await createMount(database());
    const [a] = await createChain(database(), mount, 'a');
    const file = await createNode(database(), mount, a ?? '', 'f');
    await deleteNode(database(), file);
    await deleteNode(database(), a ?? '');
    await expect(
      database().query("update filestore.nodes set state = 'active' where id = $1", [file]),
    ).rejects.toMatchObject({ code: 'FS404', message: expect.stringContaining('is deleted') });
  });
});

describe('a tombstone', () => {
  test.each(['parent_id', 'parent_path', 'name'])('keeps its %s', async (column) => {
    const mount = await createMount(database());
    const b = await createDirectory(database(), mount, mount.rootId, 'b');
    const file = await createNode(database(), mount, mount.rootId, 'f');
    await deleteNode(database(), file);
    for (const value of [b, null])
      await expect(
        database().query(`update filestore.nodes set ${column} = $2 where id = $1`, [file, value]),
      ).rejects.toMatchObject({ code: 'FS422', message: expect.stringContaining('"f"') });
  });

  test('can be restored to another place', async () => {
    const mount = await createMount(database());
    const b = await createDirectory(database(), mount, mount.rootId, 'b');
    const file = await createNode(database(), mount, mount.rootId, 'f');
    await deleteNode(database(), file);
    await database().query(
      "update filestore.nodes set state = 'active', parent_id = $2, name = 'g' where id = $1",
      [file, b],
    );
    expect(await pathOf(database(), file)).toBe('b/g');
  });

  test('of a directory can be restored inside the directory that has its path now', async () => {
    const mount = await createMount(database());
    const before = await createDirectory(database(), mount, mount.rootId, 'a');
    await deleteNode(database(), before);
    const now = await createDirectory(database(), mount, mount.rootId, 'a');
    await database().query("update filestore.nodes set state = 'active', parent_id = $2 where id = $1", [
      before,
      now,
    ]);
    expect(await pathOf(database(), before)).toBe('a/a');
  });

  test('can be removed, children first, and a live node cannot', async () => {
    const mount = await createMount(database());
    const [a] = await createChain(database(), mount, 'a');
    const file = await createNode(database(), mount, a ?? '', 'f');
    const remove = (...ids: readonly (string | undefined)[]) =>
      database().query('delete from filestore.nodes where id = any($1)', [ids]);
    await expect(remove(file)).rejects.toMatchObject({
      code: 'FS409',
      message: expect.stringContaining('is live'),
    });
    await deleteNode(database(), file);
    await deleteNode(database(), a ?? '');
    await foldAll(database());
    await expect(remove(a)).rejects.toMatchObject({
      code: 'FS409',
      message: expect.stringContaining('"a/f"'),
    });
    await expect(remove(a, file)).resolves.toEqual([]);
  });

  test('is all that a trigger of another table can remove, too', async () => {
    const mount = await createMount(database());
    const file = await createNode(database(), mount, mount.rootId, 'f');
    const client = await database().connect();
    await client.query(
      `create temp table removals (id bigint);
       create function pg_temp.remove_node() returns trigger language plpgsql as
         'begin delete from filestore.nodes where id = new.id; return null; end';
       create trigger removals_remove after insert on removals for each row execute function pg_temp.remove_node()`,
    );
    await expect(client.query('insert into removals values ($1)', [file])).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'nodes_alive',
    });
    await deleteNode(database(), file);
    await client.query('insert into removals values ($1)', [file]);
    expect(await database().query('select from filestore.nodes where id = $1', [file])).toEqual([]);
  });
});
