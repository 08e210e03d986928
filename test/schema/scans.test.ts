import type { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import {
  beginScan,
  differences,
  directory,
  type Entry,
  file,
  recordEntries,
  scan,
} from '../support/rows/scans.ts';

let service: Client;
let key: string;
const { follow, ids, states, node } = diskForEachTest((disk) => {
  ({ service, key } = disk);
});

describe('a scan of an empty mount', () => {
  test('creates files, directories, and directories that only paths imply', async () => {
    const found = await follow(directory('a', '1'), file('a/x', '2', 7), file('b/c/d', '3', 8));
    expect(found).toMatchObject({ state: 'finished', created: '5', entries: '3', seen: '5' });
    expect(await states()).toEqual(['a active', 'a/x active', 'b active', 'b/c active', 'b/c/d active']);
    expect(await node('a')).toMatchObject({ kind: 'directory', backend_identity: '1' });
    expect(await node('b')).toMatchObject({ kind: 'directory', backend_identity: null });
    expect(await node('b/c/d')).toMatchObject({ size_bytes: '8', backend_identity: '3', version: 1 });
  });

  test('keeps everything that an entry says', async () => {
    await follow({
      path: 'a',
      size_bytes: 5,
      last_modified_at: '2024-05-01T12:00:00.123456Z',
      backend_identity: 'i',
      content_hash: 'etag',
      checksum: `SHA256:${'A'.repeat(64)}`,
      storage_class: 'STANDARD',
      link_target: '../b',
    });
    expect(await node('a')).toMatchObject({
      size_bytes: '5',
      last_modified_at: new Date('2024-05-01T12:00:00.123Z'),
      backend_identity: 'i',
      content_hash: 'etag',
      checksum: `sha256:${'a'.repeat(64)}`,
      storage_class: 'STANDARD',
      link_target: '../b',
    });
  });
});

describe('a renamed file or directory keeps its id', () => {
  test('when a file is renamed', async () => {
    await follow(file('a', '1'), file('b', '2'));
    const before = await ids();
    expect(await follow(file('c', '1'), file('b', '2'))).toMatchObject({ moved: '1', created: '0' });
    expect(await ids()).toEqual({ c: before.a, b: before.b });
  });

  test('when only the case of its name changes', async () => {
    await follow(file('photo.JPG', '1'), directory('Album', '2'), file('Album/x', '3'));
    const before = await ids();
    await follow(file('photo.jpg', '1'), directory('album', '2'), file('album/x', '3'));
    expect(await ids()).toEqual({
      'photo.jpg': before['photo.JPG'],
      album: before.Album,
      'album/x': before['Album/x'],
    });
  });

  test('when a directory is renamed, with everything below it in one move', async () => {
    await follow(directory('a', '1'), directory('a/b', '2'), file('a/b/x', '3'), file('a/y'));
    const before = await ids();
    const found = await follow(directory('z', '1'), directory('z/b', '2'), file('z/b/x', '3'), file('z/y'));
    expect(found).toMatchObject({ moved: '1', created: '0', missing: '0' });
    expect(await ids()).toEqual({
      z: before.a,
      'z/b': before['a/b'],
      'z/b/x': before['a/b/x'],
      'z/y': before['a/y'],
    });
    expect((await node('z/b/x')).version).toBe(2);
  });

  test('when a directory is renamed and its files are renamed too', async () => {
    await follow(directory('a', '1'), file('a/x', '2'), file('a/y', '3'));
    const before = await ids();
    expect(await follow(directory('b', '1'), file('b/x2', '2'), file('b/y2', '3'))).toMatchObject({
      moved: '3',
    });
    expect(await ids()).toEqual({ b: before.a, 'b/x2': before['a/x'], 'b/y2': before['a/y'] });
  });

  test('when two files swap their names', async () => {
    await follow(file('a', '1', 10), file('b', '2', 20));
    const before = await ids();
    expect(await follow(file('a', '2', 20), file('b', '1', 10))).toMatchObject({ moved: '2', changed: '0' });
    expect(await ids()).toEqual({ a: before.b, b: before.a });
  });

  test('when two directories swap their names, also files without an identity below them', async () => {
    await follow(directory('a', '1'), file('a/x'), directory('b', '2'), file('b/x'), file('b/y', '5'));
    const before = await ids();
    await follow(directory('a', '2'), file('a/x'), file('a/y', '5'), directory('b', '1'), file('b/x'));
    expect(await ids()).toEqual({
      a: before.b,
      'a/x': before['b/x'],
      'a/y': before['b/y'],
      b: before.a,
      'b/x': before['a/x'],
    });
  });

  test('when a file and a directory swap their names', async () => {
    await follow(file('a', '1'), directory('b', '2'), file('b/x', '3'));
    const before = await ids();
    await follow(directory('a', '2'), file('a/x', '3'), file('b', '1'));
    expect(await ids()).toEqual({ a: before.b, 'a/x': before['b/x'], b: before.a });
  });

  test('when names move on in a chain, without a version more than the move needs', async () => {
    const names = ['a', 'b', 'c', 'd', 'e'];
    await follow(...names.map((name) => file(name, name)));
    const before = await ids();
    await follow(file('b', 'a'), file('c', 'b'), file('d', 'c'), file('e', 'd'), file('f', 'e'));
    expect(await ids()).toEqual({ b: before.a, c: before.b, d: before.c, e: before.d, f: before.e });
    for (const name of ['b', 'c', 'd', 'e', 'f']) expect((await node(name)).version).toBe(2);
  });

  test('when three names move on in a circle', async () => {
    await follow(file('a', '1'), file('b', '2'), file('c', '3'));
    const before = await ids();
    await follow(file('b', '1'), file('c', '2'), file('a', '3'));
    expect(await ids()).toEqual({ b: before.a, c: before.b, a: before.c });
  });

  test('when a directory moves into a directory that was in it', async () => {
    await follow(directory('a', '1'), directory('a/b', '2'), file('a/x', '3'), file('a/b/y', '4'));
    const before = await ids();
    await follow(directory('b', '2'), directory('b/a', '1'), file('b/a/x', '3'), file('b/y', '4'));
    expect(await ids()).toEqual({
      b: before['a/b'],
      'b/a': before.a,
      'b/a/x': before['a/x'],
      'b/y': before['a/b/y'],
    });
  });

  test('when a directory and the directory in it change places', async () => {
    await follow(directory('a', '1'), directory('a/a', '2'), file('a/x', '3'), file('a/a/x', '4'));
    const before = await ids();
    await follow(directory('a', '2'), directory('a/a', '1'), file('a/a/x', '3'), file('a/x', '4'));
    expect(await ids()).toEqual({
      a: before['a/a'],
      'a/a': before.a,
      'a/a/x': before['a/x'],
      'a/x': before['a/a/x'],
    });
  });

  test('when it moves into a new directory, and its content changes at the same time, in one version', async () => {
    await follow(file('a', '1', 10));
    const before = await ids();
    expect(await follow(directory('new', '9'), file('new/b', '1', 11))).toMatchObject({
      moved: '1',
      changed: '0',
    });
    expect(await ids()).toMatchObject({ 'new/b': before.a });
    expect(await node('new/b')).toMatchObject({ size_bytes: '11', version: 2 });
  });

  test('when one name of a hard link is renamed', async () => {
    await follow(file('a', '1'), file('b', '1'));
    const before = await ids();
    await follow(file('a', '1'), file('c', '1'));
    expect(await ids()).toEqual({ a: before.a, c: before.b });
  });
});

describe('a node that is not found', () => {
  test('is missing, and found again at its path', async () => {
    await follow(directory('a', '1'), file('a/x', '2', 10));
    const before = await ids();
    expect(await follow()).toMatchObject({ missing: '2' });
    expect(await states()).toEqual(['a missing', 'a/x missing']);
    expect(await follow(directory('a', '1'), file('a/x', '2', 11))).toMatchObject({ found: '2' });
    expect(await ids()).toEqual(before);
    expect(await node('a/x')).toMatchObject({ state: 'active', size_bytes: '11' });
  });

  test('is found again at another path by its identity', async () => {
    await follow(directory('a', '1'), file('a/x', '2'), file('a/y'));
    const before = await ids();
    await follow();
    expect(await follow(directory('b', '1'), file('b/x', '2'), file('b/y'))).toMatchObject({ moved: '1' });
    expect(await ids()).toEqual({ b: before.a, 'b/x': before['a/x'], 'b/y': before['a/y'] });
    expect(await states()).toEqual(['b active', 'b/x active', 'b/y active']);
  });

  test('is deleted when something of another kind has its path', async () => {
    await follow(file('a', '1'), directory('b', '2'), file('b/x', '3'), file('b/y', '4'));
    const before = await ids();
    expect(
      await follow(directory('a', '5'), file('a/inside', '6'), file('b', '7'), file('z', '4')),
    ).toMatchObject({ deleted: '3', moved: '1' });
    expect((await ids()).z).toBe(before['b/y']);
    expect(await states()).toEqual([
      'a deleted',
      'a active',
      'a/inside active',
      'b deleted',
      'b active',
      'b/x deleted',
      'z active',
    ]);
  });

  test('is deleted when a file of the directory takes its path', async () => {
    await follow(directory('a', '1'), file('a/x', '2'), file('a/y', '3'));
    const before = await ids();
    await follow(file('a', '2'));
    expect(await ids()).toEqual({ a: before['a/x'] });
    expect(await states()).toEqual(['a deleted', 'a active', 'a/y deleted']);
  });

  test('keeps its state when an inconsistent node has not changed', async () => {
    await follow(file('a', '1', 10), file('b', '2', 10));
    await service.query("update filestore.nodes set state = 'inconsistent' where id = any ($1)", [
      Object.values(await ids()),
    ]);
    await scan(service, key, [file('a', '1', 10), file('b', '2', 11)]);
    expect(await states()).toEqual(['a inconsistent', 'b active']);
  });

  const HASH = { content_hash: 'h' };
  const EARLIER = { last_modified_at: '2024-01-01T00:00:00.000Z' };
  const LATER = { last_modified_at: '2024-02-01T00:00:00.000Z' };
  test.each<[what: string, stored: Partial<Entry>, entry: Partial<Entry>, isKept: boolean]>([
    ['was uploaded without a moment, a hash and an identity', {}, { ...HASH, ...LATER }, true],
    ['was written again with an equal hash', { ...HASH, ...EARLIER }, { ...HASH, ...LATER }, true],
    ['has another hash', { ...HASH, ...EARLIER }, { content_hash: 'other', ...EARLIER }, false],
    ['has no hash and another moment', EARLIER, LATER, false],
  ])('of a file that %s: the checksum stays: %s, %s, %s', async (_, stored, entry, isKept) => {
    const checksum = `sha256:${'0'.repeat(64)}`;
    await follow({ path: 'a', size_bytes: 10, checksum, storage_class: 'COLD', ...stored });
    await service.query("update filestore.nodes set state = 'inconsistent' where id = $1", [(await ids()).a]);
    await follow({ path: 'a', size_bytes: 10, ...entry });
    expect(await node('a')).toMatchObject(
      isKept
        ? { state: 'inconsistent', checksum, storage_class: 'COLD' }
        : { state: 'active', checksum: null, storage_class: null },
    );
  });
});

test('scan_differences lists what apply_scan then does, and changes nothing', async () => {
  const listed = [directory('a', '1'), file('a/x', '2'), file('b', '3'), file('c', '4'), file('d', '5')];
  await follow(...listed, directory('lost', '7'), file('lost/x', '8'));
  await follow(...listed);
  const before = await ids();
  const { id } = await beginScan(service, key);
  await recordEntries(service, id, [
    directory('z', '1'),
    file('z/x', '2', 9),
    file('n', '6'),
    file('d', '4'),
    directory('lost', '7'),
    file('lost/x', '8'),
    file('bad\u0001name'),
  ]);
  expect(await differences(service, id)).toEqual([
    'move a -> z',
    'create n',
    'change d',
    'find lost/x',
    'change a/x -> z/x',
    'find lost',
    'missing b',
    'missing c',
    'refuse bad\u0001name',
  ]);
  expect(await ids()).toEqual(before);
});
