import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createDirectory, createMount, createNode, deleteNode, type Mount } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let reader: Client;
let mount: Mount;
let key: string;
let directory: string;

beforeAll(async () => {
  reader = await connectAs('reader');
});

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  directory = await createDirectory(database(), mount, mount.rootId, 'd');
});

/** Creates a file and deletes it. */
async function createTombstone(name: string, parentId = directory): Promise<string> {
  const id = await createNode(database(), mount, parentId, name);
  await deleteNode(database(), id);
  return id;
}

describe('node_by_path with_deleted', () => {
  const find = async (path: string, withDeleted: boolean | null = true) =>
    (
      await reader.query('select id from filestore.node_by_path($1, $2, with_deleted => $3)', [
        key,
        path,
        withDeleted,
      ])
    ).rows.map(({ id }) => id);

  test('returns the live node rather than a tombstone of its path', async () => {
    const gone = await createTombstone('f');
    expect(await find('d/f')).toEqual([gone]);
    const live = await createNode(database(), mount, directory, 'f');
    expect(await find('d/f')).toEqual([live]);
    expect(await find('/d//f/')).toEqual([live]);
  });

  test('returns the tombstone that was deleted last, which need not be the newest node', async () => {
    const first = await createTombstone('f');
    const second = await createTombstone('f');
    expect(await find('d/f')).toEqual([second]);
    await reader.query('select pg_sleep(0.002)');
    await database().query('select filestore.restore_node($1)', [first]);
    await deleteNode(database(), first);
    expect(await find('d/f')).toEqual([first]);
  });

  test('finds a node that was deleted with its directory at its old path', async () => {
    const file = await createNode(database(), mount, directory, 'f');
    await database().query('select filestore.delete_node($1, null, true)', [directory]);
    const successor = await createDirectory(database(), mount, mount.rootId, 'd');
    expect(await find('d')).toEqual([successor]);
    expect(await find('d/f')).toEqual([file]);
  });

  test.each([false, null])('returns no tombstone with %s', async (withDeleted) => {
    await createTombstone('f');
    expect(await find('d/f', withDeleted)).toEqual([]);
  });

  test('returns no row for a path that never existed, and refuses an unknown mount', async () => {
    await createTombstone('f');
    const other = await createMount(database());
    const otherKey = await keyOf(database(), other.id);
    expect(await find('d/g')).toEqual([]);
    expect(
      (await reader.query("select from filestore.node_by_path($1, 'd/f', true)", [otherKey])).rows,
    ).toEqual([]);
    await expect(
      reader.query("select from filestore.node_by_path('nowhere', 'd/f', true)"),
    ).rejects.toMatchObject(refusal('FS404', '"nowhere"'));
  });
});

interface Row {
  readonly id: string;
  readonly name: string;
}

async function page(
  id: string | null,
  after: Partial<Row> = {},
  size: number | null = 1000,
  withDeleted = true,
): Promise<readonly Row[]> {
  const { rows } = await reader.query<Row>(
    'select id, name from filestore.list_directory($1, $2, $3, $4, $5)',
    [id, after.name, size, withDeleted, after.id],
  );
  return rows;
}

/** Reads all pages of a directory, and runs a callback after each. */
async function allPages(size: number, between: (last: Row) => Promise<unknown>): Promise<readonly Row[]> {
  const seen: Row[] = [];
  for (
    let rows = await page(directory, {}, size);
    rows.length > 0;
    rows = await page(directory, seen.at(-1), size)
  ) {
    seen.push(...rows);
    await between(rows.at(-1) as Row);
  }
  return seen;
}

describe('list_directory with_deleted', () => {
  test('returns live and deleted children in order of name and id, also when they share a name', async () => {
    const ids = [await createTombstone('b'), await createTombstone('b')];
    ids.push(await createNode(database(), mount, directory, 'b'));
    const [a, c] = [await createNode(database(), mount, directory, 'a'), await createTombstone('c')];
    expect((await page(directory)).map(({ id }) => id)).toEqual([a, ...ids, c]);
    expect((await page(directory, {}, 1000, false)).map(({ id }) => id)).toEqual([a, ids[2]]);
    // From between equal names, and from after all of them.
    expect((await page(directory, { name: 'b', id: ids[0] ?? '' })).map(({ id }) => id)).toEqual([
      ids[1],
      ids[2],
      c,
    ]);
    expect((await page(directory, { name: 'b' })).map(({ id }) => id)).toEqual([c]);
  });

  test.each([1, 2, 3, 7])(
    'pages of %i lose and repeat no node while children are created, deleted and restored',
    async (size) => {
      const files: string[] = [];
      for (const name of ['b', 'c', 'd', 'e', 'f']) {
        files.push(await createTombstone(name), await createNode(database(), mount, directory, name));
      }
      let turn = 0;
      const seen = await allPages(size, async () => {
        turn += 1;
        // Creates nodes before the cursor, which must not show up, and changes nodes of the list.
        await createTombstone('a');
        const id = files[(turn * 3) % files.length] ?? '';
        const live = await database().query('select from filestore.nodes where id = $1 and live', [id]);
        if (live.length === 1) await deleteNode(database(), id);
        else {
          await database().query(
            "update filestore.nodes set state = 'active' where id = $1 and not exists (select from filestore.nodes s where s.parent_id = nodes.parent_id and s.name = nodes.name and s.live)",
            [id],
          );
        }
      });
      expect(seen.map(({ id }) => id)).toEqual(files);
    },
  );

  test('lists the nodes in a deleted directory, which is refused without with_deleted', async () => {
    const file = await createNode(database(), mount, directory, 'f');
    await database().query('select filestore.delete_node($1, null, true)', [directory]);
    expect((await page(directory)).map(({ id }) => id)).toEqual([file]);
    await expect(page(directory, {}, 1000, false)).rejects.toMatchObject(refusal('FS404', directory));
  });

  test('begins after the name of a cursor from another directory', async () => {
    const other = await createDirectory(database(), mount, mount.rootId, 'other');
    const cursor = { name: 'k', id: await createNode(database(), mount, other, 'k') };
    for (const name of ['j', 'k', 'l']) await createNode(database(), mount, directory, name);
    expect((await page(directory, { name: cursor.name })).map(({ name }) => name)).toEqual(['l']);
    expect((await page(directory, cursor)).map(({ name }) => name)).toEqual(['k', 'l']);
    expect((await page(directory, { name: 'k' }, 1000, false)).map(({ name }) => name)).toEqual(['l']);
  });
});

describe.each([true, false])('list_directory, with_deleted %s', (withDeleted) => {
  test.each([0, -1, null, 100_001, 2_147_483_648])('refuses pages of %s', async (size) => {
    await expect(page(directory, {}, size, withDeleted)).rejects.toMatchObject({
      ...refusal('FS422', `page_size cannot be ${size}`),
      constraint: 'limit_check',
    });
  });

  test('refuses a file, an unknown id, and null', async () => {
    const file = await createNode(database(), mount, directory, 'f');
    await expect(page(file, {}, 10, withDeleted)).rejects.toMatchObject(
      refusal('FS404', `${file} ("d/f") is a file`),
    );
    await expect(page('999999', {}, 10, withDeleted)).rejects.toMatchObject(refusal('FS404', '999999'));
    await expect(page(null, {}, 10, withDeleted)).rejects.toMatchObject(refusal('FS404', 'directory null'));
  });

  test('returns only nodes of the given directory, and no row for an empty one', async () => {
    const other = await createDirectory(database(), mount, mount.rootId, 'other');
    await createNode(database(), mount, other, 'f');
    await createTombstone('g', other);
    expect(await page(directory, {}, 10, withDeleted)).toEqual([]);
  });
});
