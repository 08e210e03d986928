import { describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import {
  createChain,
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  type Mount,
  moveNode,
  one,
  pathOf,
} from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const database = databaseForFile();

const at = (ids: readonly string[], index: number): string => ids[index] ?? expect.fail('no such directory');

describe('creating a node', () => {
  test('sets the columns that follow from its parent', async () => {
    const mount = await createMount(database());
    const [, , c] = await createChain(database(), mount, 'a', 'b', 'c');
    const file = await createNode(database(), mount, c ?? '', 'f.txt');
    expect(await one(database(), 'select * from filestore.nodes where id = $1', [c])).toMatchObject({
      path: 'a/b/c',
      depth: 3,
      parent_path: 'a/b',
      parent_live: true,
      directory_path: 'a/b/c',
      live: true,
    });
    expect(await one(database(), 'select * from filestore.nodes where id = $1', [file])).toMatchObject({
      path: 'a/b/c/f.txt',
      depth: 4,
      directory_path: null,
    });
  });

  test('in bulk with given parent columns looks up no parent, and the foreign key still checks them', async () => {
    const mount = await createMount(database());
    const directory = await createDirectory(database(), mount, mount.rootId, 'd');
    const insert = (parentPath: string) =>
      database().query(
        `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, parent_live, name, kind)
         select $1, $2, $3, true, 'f' || g, 'file' from generate_series(1, 1000) g returning path`,
        [mount.id, directory, parentPath],
      );
    await expect(insert('wrong')).rejects.toMatchObject({ code: '23503', constraint: 'nodes_parent_fkey' });
    expect((await insert('d'))[999]).toEqual({ path: 'd/f1000' });
  });

  test.each([
    ['a missing parent', 'does not exist', async () => '999999'],
    ['a file', 'is a file', (mount: Mount) => createNode(database(), mount, mount.rootId, 'f')],
    [
      'a tombstone',
      'is deleted',
      async (mount: Mount) => {
        const directory = await createDirectory(database(), mount, mount.rootId, 'gone');
        await deleteNode(database(), directory);
        return directory;
      },
    ],
    [
      'a directory of another mount',
      'is on mount',
      async () => {
        const other = await createMount(database());
        return createDirectory(database(), other, other.rootId, 'd');
      },
    ],
  ])('below %s is refused', async (_, reason, makeParent) => {
    const mount = await createMount(database());
    const parent = await makeParent(mount);
    await expect(createNode(database(), mount, parent, 'child')).rejects.toMatchObject({
      code: 'FS404',
      message: expect.stringContaining(reason),
      hint: expect.any(String),
    });
    const file = await createNode(database(), mount, mount.rootId, 'mover');
    await expect(moveNode(database(), file, parent)).rejects.toMatchObject({ code: 'FS404' });
  });

  test('twice under one name is refused', async () => {
    const mount = await createMount(database());
    await createNode(database(), mount, mount.rootId, 'a');
    await expect(createDirectory(database(), mount, mount.rootId, 'a')).rejects.toMatchObject({
      constraint: 'nodes_live_child_key',
    });
    await createNode(database(), mount, mount.rootId, 'A');
  });
});

describe('moving a directory', () => {
  test('moves its subtree, and adds a version for every node in it', async () => {
    const mount = await createMount(database());
    const [a, b] = await createChain(database(), mount, 'a', 'b');
    const file = await createNode(database(), mount, b ?? '', 'f');
    const target = await createDirectory(database(), mount, mount.rootId, 'target');
    // A version lasts at least a millisecond: a node created in the millisecond of the move would change later than the others.
    await until(async () => {
      const { now } = await one(
        database(),
        "select max(updated_at) < date_trunc('milliseconds', clock_timestamp()) as now from filestore.nodes",
      );
      return now;
    });
    await moveNode(database(), a ?? '', target);
    const rows = await database().query(
      'select path, depth, version, updated_at from filestore.nodes where id = any($1) order by depth',
      [[a, b, file]],
    );
    expect(rows).toMatchObject([
      { path: 'target/a', depth: 2, version: 2 },
      { path: 'target/a/b', depth: 3, version: 2 },
      { path: 'target/a/b/f', depth: 4, version: 2 },
    ]);
    expect(new Set(rows.map((row) => row.updated_at.getTime())).size).toBe(1);
  });

  test('is a rename when the parent stays', async () => {
    const mount = await createMount(database());
    const [a, b] = await createChain(database(), mount, 'a', 'b');
    await database().query("update filestore.nodes set name = 'z' where id = $1", [a]);
    expect(await pathOf(database(), b ?? '')).toBe('z/b');
  });

  test('to a name that is taken is refused and changes nothing', async () => {
    const mount = await createMount(database());
    const [a, b] = await createChain(database(), mount, 'a', 'b');
    const target = await createDirectory(database(), mount, mount.rootId, 'b');
    await expect(moveNode(database(), b ?? '', mount.rootId)).rejects.toMatchObject({
      constraint: 'nodes_live_child_key',
    });
    expect([
      await pathOf(database(), a ?? ''),
      await pathOf(database(), b ?? ''),
      await pathOf(database(), target),
    ]).toEqual(['a', 'a/b', 'b']);
  });

  test.each([0, 1, 2, 3])('below itself, %i levels down, is refused', async (depth) => {
    const mount = await createMount(database());
    const chain = await createChain(database(), mount, 'a', 'b', 'c', 'd');
    await expect(moveNode(database(), at(chain, 0), at(chain, depth))).rejects.toMatchObject({
      code: 'FS422',
      message: expect.stringContaining('into itself'),
    });
    expect(await pathOf(database(), at(chain, 3))).toBe('a/b/c/d');
  });

  test('into a directory whose name begins the same is allowed', async () => {
    const mount = await createMount(database());
    const a = await createDirectory(database(), mount, mount.rootId, 'a');
    const ab = await createDirectory(database(), mount, mount.rootId, 'ab');
    await moveNode(database(), a, ab);
    expect(await pathOf(database(), a)).toBe('ab/a');
  });

  test('into another that moves into it in the same statement is refused', async () => {
    const mount = await createMount(database());
    const [x, y] = [
      await createDirectory(database(), mount, mount.rootId, 'x'),
      await createDirectory(database(), mount, mount.rootId, 'y'),
    ];
    await expect(
      database().query(
        'update filestore.nodes set parent_id = $1 + $2 - id where id in ($1::bigint, $2::bigint)',
        [x, y],
      ),
    ).rejects.toMatchObject({ code: 'FS422' });
  });

  test('in a cycle of three, in one statement, is refused', async () => {
    const mount = await createMount(database());
    const ring: string[] = [];
    for (const name of ['x', 'y', 'z'])
      ring.push(await createDirectory(database(), mount, mount.rootId, name));
    await expect(
      database().query(
        'update filestore.nodes set parent_id = case id when $1 then $2 when $2 then $3 else $1 end where id in ($1::bigint, $2::bigint, $3::bigint)',
        ring,
      ),
    ).rejects.toMatchObject({ code: 'FS422', constraint: 'nodes_cycle_check' });
    expect(await pathOf(database(), at(ring, 0))).toBe('x');
  });

  test.each(["parent_path = 'elsewhere'", 'parent_path = null', 'parent_live = false'])(
    'by setting %s by hand is refused',
    async (change) => {
      const mount = await createMount(database());
      const [, b] = await createChain(database(), mount, 'a', 'b');
      await expect(
        database().query(`update filestore.nodes set ${change} where id = $1`, [b]),
      ).rejects.toMatchObject({ code: expect.stringMatching(/^(23503|23514|FS409)$/) });
      expect(await pathOf(database(), b ?? '')).toBe('a/b');
    },
  );

  test('corrects directory_path, live and parent_live that are set by hand', async () => {
    const mount = await createMount(database());
    const [a, b] = await createChain(database(), mount, 'a', 'b');
    await database().query(
      "update filestore.nodes set directory_path = 'wrong', live = false, parent_live = null where id = $1",
      [a],
    );
    expect(
      await one(
        database(),
        'select directory_path, live, parent_live, version from filestore.nodes where id = $1',
        [a],
      ),
    ).toEqual({
      directory_path: 'a',
      live: true,
      parent_live: true,
      version: 1,
    });
    expect(await pathOf(database(), b ?? '')).toBe('a/b');
  });
});
