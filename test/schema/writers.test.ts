import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createMount, type Mount, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf, livePaths, type Writers, writersOn } from '../support/rows/writer-functions.ts';

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

describe('create_node', () => {
  test('writes every given column, and returns the node', async () => {
    const node = await one(
      database(),
      `select * from filestore.create_node(parent_id => $1, name => 'f', kind => 'file', size_bytes => 5,
         checksum => repeat('ab', 16), content_hash => 'etag', storage_class => 'COLD', metadata => '{"tag": "x"}',
         last_modified_at => '2020-01-02T00:00:00Z')`,
      [mount.rootId],
    );
    expect(node).toMatchObject({
      backend_mount_id: mount.id,
      parent_id: mount.rootId,
      path: 'f',
      kind: 'file',
      size_bytes: '5',
      checksum: `md5:${'ab'.repeat(16)}`,
      content_hash: 'etag',
      storage_class: 'COLD',
      metadata: { tag: 'x' },
      last_modified_at: new Date('2020-01-02T00:00:00Z'),
      state: 'active',
      version: 1,
    });
    expect(await one(database(), 'select * from filestore.nodes where id = $1', [node.id])).toEqual(node);
  });

  test('creates an empty file by default', async () => {
    expect(await writers.create(mount.rootId, 'f')).toMatchObject({
      kind: 'file',
      size_bytes: '0',
      metadata: {},
    });
    expect(await writers.create(mount.rootId, 'd', 'directory')).toMatchObject({ kind: 'directory' });
  });

  test('uses the default for an argument of null if the column is not null', async () => {
    const node = await one(
      database(),
      "select * from filestore.create_node($1, 'f', kind => null, size_bytes => null, metadata => null)",
      [mount.rootId],
    );
    expect(node).toMatchObject({ kind: 'file', size_bytes: '0', metadata: {} });
  });

  test('refuses a parent that does not exist, is a file, or is deleted', async () => {
    const file = await writers.create(mount.rootId, 'f');
    const directory = await writers.create(mount.rootId, 'd', 'directory');
    await writers.remove(directory.id);
    await expect(writers.create(UNKNOWN, 'n')).rejects.toMatchObject(refusal('FS404', UNKNOWN));
    await expect(writers.create(null, 'n')).rejects.toMatchObject(refusal('FS404', '"n"'));
    await expect(writers.create(file.id, 'n')).rejects.toMatchObject(refusal('FS404', '"f"'));
    await expect(writers.create(directory.id, 'n')).rejects.toMatchObject(refusal('FS404', '"d"'));
  });

  test('refuses a taken name, but not the name of a deleted node', async () => {
    const directory = await writers.create(mount.rootId, 'd', 'directory');
    const file = await writers.create(directory.id, 'f');
    await expect(writers.create(directory.id, 'f')).rejects.toMatchObject(refusal('FS409', '("d")'));
    await expect(writers.create(directory.id, 'f', 'directory')).rejects.toMatchObject(
      refusal('FS409', '"f"'),
    );
    await writers.remove(file.id);
    expect(await writers.create(directory.id, 'f')).toMatchObject({ path: 'd/f' });
  });

  test.each([
    ['', '""'],
    ['.', '"."'],
    ['..', '".."'],
    ['a/b', '"a/b"'],
    ['a\tb', '"a?b"'],
    ['n'.repeat(256), 'nnn'],
    ['n'.repeat(1025), 'nnn'],
    [null, ''],
  ])('refuses the name %j', async (name, names) => {
    await expect(writers.create(mount.rootId, name)).rejects.toMatchObject(refusal('FS422', names));
  });
});

describe('ensure_directory', () => {
  test('creates all directories of the path, and nothing the second time', async () => {
    const first = await ensure('a/b/c');
    expect(first).toMatchObject({ path: 'a/b/c', kind: 'directory', live: true });
    expect(await ensure('/a//b/./c/')).toEqual(first);
    expect(await live()).toEqual(['a', 'a/b', 'a/b/c']);
  });

  test('returns the root for an empty path', async () => {
    expect(await ensure('/')).toMatchObject({ id: mount.rootId, path: '' });
  });

  test('creates a new directory where one was deleted', async () => {
    const first = await ensure('a/b');
    await writers.remove(first.parent_id, { recursive: true });
    const second = await ensure('a/b');
    expect(second.id).not.toBe(first.id);
    expect(second).toMatchObject({ path: 'a/b', live: true });
  });

  test.each(['a/f', 'a/f/b', 'a/f/b/c'])(
    'refuses "%s" when a/f is a file, and creates nothing',
    async (path) => {
      await writers.create((await ensure('a')).id, 'f');
      await expect(ensure(path)).rejects.toMatchObject(refusal('FS409', '"a/f"'));
      expect(await live()).toEqual(['a', 'a/f']);
    },
  );

  test('refuses an unknown mount and an invalid path', async () => {
    await expect(ensure('a', 'nowhere')).rejects.toMatchObject(refusal('FS404', '"nowhere"'));
    await expect(ensure('a/../b')).rejects.toMatchObject(refusal('FS422', '"a/../b"'));
    await expect(ensure(`a/${'n'.repeat(256)}`)).rejects.toMatchObject(refusal('FS422', 'nnn'));
    expect(await live()).toEqual([]);
  });
});

describe('move_node', () => {
  test.each([
    ['renames', { name: 'z' }, ['b', 'z', 'z/f']],
    ['moves', { parent: 'b' }, ['b', 'b/a', 'b/a/f']],
    ['moves and renames', { parent: 'b', name: 'z' }, ['b', 'b/z', 'b/z/f']],
  ])(
    '%s a directory with what is below it',
    async (_, { parent, name }: { parent?: string; name?: string }, paths) => {
      const a = await ensure('a');
      await writers.create(a.id, 'f');
      const b = await ensure('b');
      const moved = await writers.move(a.id, { ...(parent && { parent: b.id }), ...(name && { name }) });
      expect(moved).toMatchObject({ id: a.id, version: 2, path: paths[1] });
      expect(await live()).toEqual(paths);
    },
  );

  test('changes nothing when nothing is given, or the present values', async () => {
    const file = await writers.create(mount.rootId, 'f');
    expect(await writers.move(file.id, {})).toEqual(file);
    expect(await writers.move(file.id, { parent: mount.rootId, name: 'f' }, 1)).toEqual(file);
  });

  test('refuses a name that is taken there', async () => {
    const directory = await ensure('d');
    const file = await writers.create(mount.rootId, 'f');
    await writers.create(directory.id, 'f');
    await expect(writers.move(file.id, { parent: directory.id })).rejects.toMatchObject(
      refusal('FS409', `name "f" is taken in directory ${directory.id} ("d")`),
    );
    await expect(writers.move(file.id, { name: 'd' })).rejects.toMatchObject(
      refusal('FS409', `name "d" is taken in directory ${mount.rootId} ("")`),
    );
  });

  test('refuses to move a directory into itself, or below itself', async () => {
    const a = await ensure('a');
    const b = await ensure('a/b');
    await expect(writers.move(a.id, { parent: a.id })).rejects.toMatchObject(refusal('FS422', '"a"'));
    await expect(writers.move(a.id, { parent: b.id })).rejects.toMatchObject(refusal('FS422', '"a/b"'));
  });

  test('refuses a parent that does not exist, is a file, is deleted, or is on another mount', async () => {
    const file = await writers.create(mount.rootId, 'f');
    const [other, gone] = [await writers.create(mount.rootId, 'g'), await ensure('gone')];
    await writers.remove(gone.id);
    const elsewhere = await createMount(database());
    for (const parent of [UNKNOWN, other.id, gone.id, elsewhere.rootId]) {
      await expect(writers.move(file.id, { parent })).rejects.toMatchObject(
        refusal('FS404', `parent ${parent}`),
      );
    }
  });

  test('refuses an unknown node, a deleted one, and another version than expected', async () => {
    const file = await writers.create(mount.rootId, 'f');
    await writers.move(file.id, { name: 'g' }, 1);
    await expect(writers.move(file.id, { name: 'h' }, 1)).rejects.toMatchObject(refusal('FS409', '"g"'));
    await writers.remove(file.id);
    await expect(writers.move(file.id, { name: 'h' })).rejects.toMatchObject(refusal('FS404', '"g"'));
    await expect(writers.move(UNKNOWN, { name: 'h' })).rejects.toMatchObject(refusal('FS404', UNKNOWN));
  });

  test('refuses an invalid name', async () => {
    const file = await writers.create(mount.rootId, 'f');
    for (const name of ['', '..', 'a/b', 'n'.repeat(256)]) {
      await expect(writers.move(file.id, { name })).rejects.toMatchObject(
        refusal('FS422', name.slice(0, 40)),
      );
    }
  });

  test.each([{ name: 'x' }, { parent: 'd' }])(
    'refuses to move or rename the root of a mount: %j',
    async (to) => {
      const directory = await ensure('d');
      const target = 'parent' in to ? { parent: directory.id } : to;
      await expect(writers.move(mount.rootId, target)).rejects.toMatchObject(refusal('FS422', mount.rootId));
    },
  );
});
