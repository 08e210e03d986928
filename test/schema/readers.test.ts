import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createChain, createMount, createNode, deleteNode, type Mount, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseForFile();

let mount: Mount;
let key: string;
/** Creates a/b/f, and names that sort around 'a/': 'a!', 'a-b', 'a0'. */
let a: string;
let b: string;
let file: string;

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  [a = '', b = ''] = await createChain(database(), mount, 'a', 'b');
  file = await createNode(database(), mount, b, 'f');
  for (const name of ['a!', 'a-b', 'a0']) await createNode(database(), mount, mount.rootId, name);
});

/** Returns a moment between two changes. Moments are whole milliseconds, so it waits until two have passed. */
async function momentNow(): Promise<string> {
  await database().query('select pg_sleep(0.002)');
  const { moment } = await one(database(), 'select clock_timestamp()::text as moment');
  await database().query('select pg_sleep(0.002)');
  return moment;
}

describe('canonical_path', () => {
  const canonical = async (path: string | null) =>
    (await one(database(), 'select filestore.canonical_path($1) as path', [path])).path;

  test.each([
    ['', ''],
    ['/', ''],
    ['.', ''],
    ['//./', ''],
    ['a', 'a'],
    ['/a/b', 'a/b'],
    ['a//./b/', 'a/b'],
    ['./a', 'a'],
    ['.../..a/b..', '.../..a/b..'],
    [' a / b ', ' a / b '],
    ['Grüße/日本/😀', 'Grüße/日本/😀'],
    ['a%2Fb\\c', 'a%2Fb\\c'],
    [null, null],
  ])('of %j is %j', async (path, expected) => {
    expect(await canonical(path)).toBe(expected);
  });

  test.each([
    ['a/../b', '"a/../b"'],
    ['..', '".."'],
    ['a\u0001b', '"a?b"'],
    ['a/b\n', '"b?"'],
    ['a\u0085b', '"a?b"'],
    ['n'.repeat(1025), 'nnn'],
    ['é'.repeat(513), 'ééé'],
    [`${'d'.repeat(1000)}/`.repeat(2) + 'd'.repeat(599), 'ddd'],
  ])('refuses %j', async (path, names) => {
    await expect(canonical(path)).rejects.toMatchObject(refusal('FS422', names));
  });

  test('accepts a path of the maximum length', async () => {
    const longest = `${'d'.repeat(1000)}/`.repeat(2) + 'd'.repeat(598);
    expect(await canonical(`/${longest}/`)).toBe(longest);
  });
});

describe('node_by_path', () => {
  const find = async (path: string, mountKey = key) =>
    (await database().query('select id from filestore.node_by_path($1, $2)', [mountKey, path])).map(
      ({ id }) => id,
    );

  test.each(['a/b/f', '/a//b/./f/'])('finds a node by "%s"', async (path) => {
    expect(await find(path)).toEqual([file]);
  });

  test('finds the root, and names outside ASCII byte for byte', async () => {
    const node = await createNode(database(), mount, a, 'Grüße 😀');
    expect(await find('/')).toEqual([mount.rootId]);
    expect(await find('a/Grüße 😀')).toEqual([node]);
    // Looks the same but has other bytes: a backend may have both.
    expect(await find('a/Gru\u0308ße 😀')).toEqual([]);
  });

  test('finds no deleted node, only a live one at the same path', async () => {
    await deleteNode(database(), file);
    expect(await find('a/b/f')).toEqual([]);
    const next = await createNode(database(), mount, b, 'f');
    expect(await find('a/b/f')).toEqual([next]);
  });

  test('returns no row for a path without a node on the mount', async () => {
    await createMount(database());
    expect(await find('a/b/f/g')).toEqual([]);
    expect(await find('b')).toEqual([]);
  });

  test('refuses an unknown mount and an invalid path', async () => {
    await expect(find('a', 'nowhere')).rejects.toMatchObject(refusal('FS404', '"nowhere"'));
    await expect(find('a/../b')).rejects.toMatchObject(refusal('FS422', '"a/../b"'));
  });
});

describe('node_location', () => {
  const location = async (id: string) =>
    (await one(database(), 'select filestore.node_location($1) as location', [id])).location;

  test('is the URI of a node, and for a deleted node its last URI', async () => {
    const live = await location(file);
    expect(live).toMatch(/^file:\/\/\/data\/\d+\/a\/b\/f$/);
    await deleteNode(database(), file);
    expect(await location(file)).toBe(live);
  });

  test('is percent-encoded, on S3 with bucket', async () => {
    const s3 = await createMount(database(), 's3');
    const node = await createNode(database(), s3, s3.rootId, 'ä b');
    expect(await location(node)).toMatch(/^s3:\/\/bucket-\d+\/%C3%A4%20b$/);
  });

  test('is null when there is no such node', async () => {
    expect(await location('999999')).toBeNull();
  });
});

describe('list_directory', () => {
  const page = async (id: string, after?: string, size?: number) =>
    (
      await database().query(
        'select name from filestore.list_directory($1, coalesce($2, $$$$), coalesce($3, 1000))',
        [id, after, size],
      )
    ).map(({ name }) => name as string);

  test('returns only live children, in the order of their bytes', async () => {
    await createNode(database(), mount, mount.rootId, 'B');
    await createNode(database(), mount, mount.rootId, 'ä');
    await deleteNode(database(), await createNode(database(), mount, mount.rootId, 'gone'));
    expect(await page(mount.rootId)).toEqual(['B', 'a', 'a!', 'a-b', 'a0', 'ä']);
    expect(await page(mount.rootId, 'a')).toEqual(['a!', 'a-b', 'a0', 'ä']);
    expect(await page(mount.rootId, 'a', 2)).toEqual(['a!', 'a-b']);
    expect(await page(mount.rootId, 'ä')).toEqual([]);
  });

  test('pages through 2 500 names without losing or repeating one while others are created', async () => {
    await database().query(
      "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) select $1, $2, 'n' || g, 'file' from generate_series(1, 2500) g",
      [mount.id, a],
    );
    const before = (await database().query('select name from filestore.nodes where parent_id = $1', [a])).map(
      ({ name }) => name as string,
    );
    const seen: string[] = [];
    for (
      let names = await page(a, '', 400);
      names.length > 0 && seen.length < 5000;
      names = await page(a, seen.at(-1), 400)
    ) {
      seen.push(...names);
      if (seen.length > before.length) continue;
      await createNode(database(), mount, a, `0 before, ${seen.length}`);
      await createNode(database(), mount, a, `z after, ${seen.length}`);
    }
    expect(new Set(seen).size).toBe(seen.length);
    expect(before.filter((name) => !seen.includes(name))).toEqual([]);
  });

  test('refuses an unknown id, a file, and a deleted directory', async () => {
    await expect(page('999999')).rejects.toMatchObject(refusal('FS404', '999999'));
    await expect(page(file)).rejects.toMatchObject(refusal('FS404', `${file} ("a/b/f")`));
    await database().query('select filestore.delete_node($1, null, true)', [a]);
    await expect(page(b)).rejects.toMatchObject(refusal('FS404', b));
  });
});

test('find_by_checksum finds live nodes only, on every mount', async () => {
  const other = await createMount(database());
  const copies = [
    file,
    await createNode(database(), other, other.rootId, 'copy'),
    await createNode(database(), mount, a, 'deleted'),
  ];
  const checksum = `md5:${Number(mount.id).toString(16).padStart(32, '0')}`;
  await database().query('update filestore.nodes set checksum = $2 where id = any($1)', [copies, checksum]);
  await deleteNode(database(), copies[2] ?? '');
  const found = await database().query('select id from filestore.find_by_checksum($1)', [checksum]);
  expect(found.map(({ id }) => id)).toEqual(copies.slice(0, 2));
  expect(await database().query("select from filestore.find_by_checksum(repeat('0', 32))")).toEqual([]);
});

describe('node_at', () => {
  const versionAt = async (moment: string, offset = '0') =>
    (
      await database().query('select version from filestore.node_at($1, $2::timestamptz + $3::interval)', [
        file,
        moment,
        offset,
      ])
    ).map(({ version }) => version);

  test('returns the version that was current: from valid_from, until before valid_to', async () => {
    await database().query("select filestore.move_node($1, null, 'g')", [file]);
    await deleteNode(database(), file);
    await database().query('select filestore.restore_node($1)', [file]);
    const versions = await database().query(
      'select version, valid_from::text from filestore.view_filestore_node_versions where id = $1 order by version',
      [file],
    );
    expect(versions).toHaveLength(4);
    for (const { version, valid_from } of versions) {
      expect(await versionAt(valid_from)).toEqual([version]);
      expect(await versionAt(valid_from, '-1 microsecond')).toEqual(version === 1 ? [] : [version - 1]);
    }
    expect(await versionAt('infinity')).toEqual([4]);
  });

  test('of a deleted node returns the deleted version', async () => {
    await deleteNode(database(), file);
    expect(
      await one(database(), 'select state, live, path from filestore.node_at($1, clock_timestamp())', [file]),
    ).toEqual({ state: 'deleted', live: false, path: 'a/b/f' });
  });
});

describe('tree_at', () => {
  const treeAt = async (path: string, moment: string) =>
    (await database().query('select path from filestore.tree_at($1, $2, $3)', [key, path, moment])).map(
      (row) => row.path,
    );

  test('returns the tree as it was before and after a move, a delete and a restore', async () => {
    const created = await momentNow();
    await database().query("select filestore.move_node($1, null, 'z')", [a]);
    const moved = await momentNow();
    await database().query('select filestore.delete_node($1, null, true)', [a]);
    const deleted = await momentNow();
    await database().query('select filestore.restore_node($1, null, true)', [a]);
    const restored = await momentNow();

    const around = ['a!', 'a-b'];
    expect(await treeAt('', created)).toEqual(['', 'a', ...around, 'a/b', 'a/b/f', 'a0']);
    expect(await treeAt('', moved)).toEqual(['', ...around, 'a0', 'z', 'z/b', 'z/b/f']);
    expect(await treeAt('', deleted)).toEqual(['', ...around, 'a0']);
    expect(await treeAt('', restored)).toEqual(await treeAt('', moved));
    expect(await treeAt('', '-infinity')).toEqual([]);

    expect(await treeAt('a', created)).toEqual(['a', 'a/b', 'a/b/f']);
    expect(await treeAt('a', moved)).toEqual([]);
    expect(await treeAt('/z//b/', moved)).toEqual(['z/b', 'z/b/f']);
    expect(await treeAt('a-b', deleted)).toEqual(['a-b']);
  });

  test('at the exact moment of a change returns the state after it', async () => {
    await database().query("select filestore.move_node($1, null, 'z')", [a]);
    const { moment } = await one(
      database(),
      'select updated_at::text as moment from filestore.nodes where id = $1',
      [a],
    );
    expect(await treeAt('a', moment)).toEqual([]);
    expect(await treeAt('z', moment)).toEqual(['z', 'z/b', 'z/b/f']);
  });

  test('finds names of the last Unicode characters', async () => {
    await createNode(database(), mount, mount.rootId, '\u{10FFFF}'.repeat(60));
    expect(await treeAt('', 'infinity')).toHaveLength(8);
  });

  test('of an unknown mount is refused', async () => {
    await expect(database().query("select filestore.tree_at('nowhere', '', now())")).rejects.toMatchObject(
      refusal('FS404', '"nowhere"'),
    );
  });
});
