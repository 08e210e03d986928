import { describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/database.ts';
import {
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  type Mount,
  moveNode,
  one,
  pathOf,
} from '../support/tree.ts';

const database = databaseForFile();

/** Makes a chain of directories below the root and returns their ids, top first. */
async function createChain(mount: Mount, ...names: readonly string[]): Promise<string[]> {
  const ids: string[] = [];
  for (const name of names)
    ids.push(await createDirectory(database(), mount, ids.at(-1) ?? mount.rootId, name));
  return ids;
}

const at = (ids: readonly string[], index: number): string => ids[index] ?? expect.fail('no such directory');

describe('creating a node', () => {
  test('fills what follows from its parent', async () => {
    const mount = await createMount(database());
    const [, , c] = await createChain(mount, 'a', 'b', 'c');
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

  test('in bulk, with the parent columns filled, runs no trigger and is proved all the same', async () => {
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
  test('carries its subtree, and counts a version for every node in it', async () => {
    const mount = await createMount(database());
    const [a, b] = await createChain(mount, 'a', 'b');
    const file = await createNode(database(), mount, b ?? '', 'f');
    const target = await createDirectory(database(), mount, mount.rootId, 'target');
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
    const [a, b] = await createChain(mount, 'a', 'b');
    await database().query("update filestore.nodes set name = 'z' where id = $1", [a]);
    expect(await pathOf(database(), b ?? '')).toBe('z/b');
  });

  test('into a name that is taken is refused and changes nothing', async () => {
    const mount = await createMount(database());
    const [a, b] = await createChain(mount, 'a', 'b');
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
    const chain = await createChain(mount, 'a', 'b', 'c', 'd');
    await expect(moveNode(database(), at(chain, 0), at(chain, depth))).rejects.toMatchObject({
      code: 'FS422',
      message: expect.stringContaining('into itself'),
    });
    expect(await pathOf(database(), at(chain, 3))).toBe('a/b/c/d');
  });

  test('next to a directory whose name begins alike is allowed', async () => {
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

  test('in a ring of three, in one statement, is refused by the key or by the length of the path', async () => {
    const mount = await createMount(database());
    const ring: string[] = [];
    // Long names, so that the cascade reaches the limit soon.
    for (const letter of ['x', 'y', 'z']) {
      ring.push(await createDirectory(database(), mount, mount.rootId, letter.repeat(250)));
    }
    await expect(
      database().query(
        'update filestore.nodes set parent_id = case id when $1 then $2 when $2 then $3 else $1 end where id in ($1::bigint, $2::bigint, $3::bigint)',
        ring,
      ),
    ).rejects.toMatchObject({
      constraint: expect.stringMatching(/^(nodes_parent_fkey|nodes_path_length_check)$/),
    });
    expect(await pathOf(database(), at(ring, 0))).toBe('x'.repeat(250));
  });

  test.each(["parent_path = 'elsewhere'", 'parent_path = null', 'parent_live = false'])(
    'by setting %s by hand is refused',
    async (change) => {
      const mount = await createMount(database());
      const [, b] = await createChain(mount, 'a', 'b');
      await expect(
        database().query(`update filestore.nodes set ${change} where id = $1`, [b]),
      ).rejects.toMatchObject({ code: expect.stringMatching(/^(23503|23514|FS409)$/) });
      expect(await pathOf(database(), b ?? '')).toBe('a/b');
    },
  );

  test('directory_path, live and parent_live set by hand are put right', async () => {
    const mount = await createMount(database());
    const [a, b] = await createChain(mount, 'a', 'b');
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

  test('of 20 000 nodes is one statement that does not read the whole table for each', async () => {
    const mount = await createMount(database());
    const a = await createDirectory(database(), mount, mount.rootId, 'a');
    await database().query(
      `with directories as (
         insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
         select $1, $2, 'd' || g, 'directory' from generate_series(1, 200) g returning id
       )
       select count(*) from directories`,
      [mount.id, a],
    );
    await database().query(
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
       select $1, d.id, 'f' || g, 'file' from filestore.nodes d, generate_series(1, 100) g where d.parent_id = $2`,
      [mount.id, a],
    );
    await database().query('analyze filestore.nodes');
    await database().query("update filestore.nodes set name = 'z' where id = $1", [a]);
    const { moved, wrong } = await one(
      database(),
      `select count(*) filter (where path >= 'z/' and path < 'z0') as moved,
              count(*) filter (where path >= 'a/' and path < 'a0') as wrong
       from filestore.nodes where backend_mount_id = $1`,
      [mount.id],
    );
    expect({ moved, wrong }).toEqual({ moved: '20200', wrong: '0' });
  });
});

describe('deleting', () => {
  test('a directory with a live child is refused by name', async () => {
    const mount = await createMount(database());
    const [a] = await createChain(mount, 'a', 'b');
    await expect(deleteNode(database(), a ?? '')).rejects.toMatchObject({
      code: 'FS409',
      message: expect.stringContaining('"a" is not empty'),
    });
  });

  test('a tree is one statement', async () => {
    const mount = await createMount(database());
    const [a, b] = await createChain(mount, 'a', 'b');
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

  test('frees the path; the next node there has a new id', async () => {
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
  test('brings a tombstone back where its parent is now', async () => {
    const mount = await createMount(database());
    const [a] = await createChain(mount, 'a');
    const file = await createNode(database(), mount, a ?? '', 'f');
    await deleteNode(database(), file);
    await database().query("update filestore.nodes set name = 'z' where id = $1", [a]);
    expect(await pathOf(database(), file)).toBe('a/f');
    await database().query("update filestore.nodes set state = 'active' where id = $1", [file]);
    expect(
      await one(database(), 'select path, live, parent_live, deleted_at from filestore.nodes where id = $1', [
        file,
      ]),
    ).toEqual({
      path: 'z/f',
      live: true,
      parent_live: true,
      deleted_at: null,
    });
  });

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
    const [a] = await createChain(mount, 'a');
    const file = await createNode(database(), mount, a ?? '', 'f');
    await deleteNode(database(), file);
    await deleteNode(database(), a ?? '');
    await expect(
      database().query("update filestore.nodes set state = 'active' where id = $1", [file]),
    ).rejects.toMatchObject({ code: 'FS404', message: expect.stringContaining('is deleted') });
  });
});

describe('a tombstone', () => {
  test('can be given another parent, but no other parent_path', async () => {
    const mount = await createMount(database());
    const [a, b] = [
      await createDirectory(database(), mount, mount.rootId, 'a'),
      await createDirectory(database(), mount, mount.rootId, 'b'),
    ];
    const file = await createNode(database(), mount, a, 'f');
    await deleteNode(database(), file);
    await moveNode(database(), file, b);
    expect(await pathOf(database(), file)).toBe('b/f');
    await expect(
      database().query("update filestore.nodes set parent_path = 'x' where id = $1", [file]),
    ).rejects.toMatchObject({ code: 'FS422' });
  });

  test('alone can be removed, children first', async () => {
    const mount = await createMount(database());
    const [a] = await createChain(mount, 'a');
    const file = await createNode(database(), mount, a ?? '', 'f');
    const remove = (...ids: readonly (string | undefined)[]) =>
      database().query('delete from filestore.nodes where id = any($1)', [ids]);
    await expect(remove(file)).rejects.toMatchObject({
      code: 'FS409',
      message: expect.stringContaining('is alive'),
    });
    await deleteNode(database(), file);
    await deleteNode(database(), a ?? '');
    await expect(remove(a)).rejects.toMatchObject({
      code: 'FS409',
      message: expect.stringContaining('"a/f"'),
    });
    await expect(remove(a, file)).resolves.toEqual([]);
  });

  test('is not removed in a transaction that cannot see what others did', async () => {
    const mount = await createMount(database());
    const file = await createNode(database(), mount, mount.rootId, 'f');
    await deleteNode(database(), file);
    const client = await database().connect();
    await client.query('begin isolation level repeatable read');
    await expect(client.query('delete from filestore.nodes where id = $1', [file])).rejects.toMatchObject({
      code: 'FS409',
    });
  });
});
