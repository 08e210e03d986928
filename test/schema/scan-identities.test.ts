import type { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { insertMount } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import { directory, type Entry, file, readIds, scan } from '../support/rows/scans.ts';

let service: Client;
let key: string;
const { follow, ids, states, node } = diskForEachTest((disk) => {
  ({ service, key } = disk);
});

describe('the path wins over the identity', () => {
  test('a file that an editor saves by renaming keeps its id', async () => {
    await follow(file('a', '1', 10, { checksum: `sha256:${'a'.repeat(64)}` }));
    const before = await ids();
    expect(await follow(file('a', '2', 11))).toMatchObject({ changed: '1', created: '0', missing: '0' });
    expect(await ids()).toEqual(before);
    expect(await node('a')).toMatchObject({ size_bytes: '11', backend_identity: '2', checksum: null });
  });

  test('a file that is renamed over another one is an overwrite of that one', async () => {
    await follow(file('a', '1', 10), file('b', '2', 20));
    const before = await ids();
    await follow(file('b', '1', 10));
    expect(await ids()).toMatchObject({ b: before.b });
    expect(await states()).toEqual(['a missing', 'b active']);
  });

  test('an editor that keeps a backup leaves the id with the old object', async () => {
    await follow(file('a', '1', 10));
    const before = await ids();
    await follow(file('a~', '1', 10), file('a', '2', 11));
    expect((await ids())['a~']).toBe(before.a);
    expect((await node('a')).version).toBe(1);
  });

  test('everything keeps its id when a disk was copied, and all identities are new', async () => {
    await follow(directory('a', '1'), file('a/x', '2'), file('b', '3'));
    const before = await ids();
    await follow(directory('a', '11'), file('a/x', '12'), file('b', '13'));
    expect(await ids()).toEqual(before);
  });

  test('identities that are unknown so far are adopted, and the checksum stays', async () => {
    const checksum = `sha256:${'a'.repeat(64)}`;
    await service.query("select filestore.upsert_file($1, 'a', 5, checksum => $2)", [key, checksum]);
    await follow(file('a', '1', 5));
    expect(await node('a')).toMatchObject({ backend_identity: '1', checksum, version: 2 });
  });

  test('a value that an entry leaves out stays', async () => {
    await follow(file('a', '1', 5, { last_modified_at: '2024-05-01T00:00:00Z', content_hash: 'h' }));
    await follow({ path: 'a', size_bytes: 5 });
    expect(await node('a')).toMatchObject({ backend_identity: '1', content_hash: 'h', version: 1 });
  });
});

describe('nothing moves when a pair is not unique', () => {
  test('with two vanished names of one object and a new one', async () => {
    await follow(file('a', '1'), file('b', '1'));
    const before = await ids();
    await follow(file('c', '1'));
    expect(Object.values(before)).not.toContain((await ids()).c);
    expect(await states()).toEqual(['a missing', 'b missing', 'c active']);
  });

  test('with a vanished name and two new ones', async () => {
    await follow(file('a', '1'));
    const before = await ids();
    await follow(file('b', '1'), file('c', '1'));
    expect(Object.values(await ids()).filter((id) => id === before.a)).toHaveLength(1);
    expect(await states()).toEqual(['a missing', 'b active', 'c active']);
  });

  test('with a file and a directory of one identity', async () => {
    await follow(file('a', '1'));
    await follow(directory('b', '1'));
    expect(await states()).toEqual(['a missing', 'b active']);
  });
});

test('files of a bucket are paired by content hash and size on request, once each and not when empty', async () => {
  const bucket = `bucket-of-${key}`;
  await insertMount(service, { mount_key: bucket, backend_kind: 's3', bucket });
  const object = (path: string, hash: string, size = 5): Entry => ({
    path,
    size_bytes: size,
    content_hash: hash,
  });
  const before = [
    object('a', 'h1'),
    object('b', 'h2'),
    object('b2', 'h2'),
    object('c', 'h3', 0),
    object('d', 'h4'),
  ];
  const after = [
    object('x/a', 'h1'),
    object('x/b', 'h2'),
    object('x/c', 'h3', 0),
    object('d', 'h5'),
    object('e', 'h4'),
  ];
  await scan(service, bucket, before);
  const known = await readIds(service, bucket);
  const found = await scan(service, bucket, after, { pairByContent: true });
  expect(found).toMatchObject({ moved: '1', changed: '1', created: '4' });
  const now = await readIds(service, bucket);
  expect([now['x/a'], now.d]).toEqual([known.a, known.d]);
  await scan(service, bucket, [object('y/a', 'h1')]);
  expect((await readIds(service, bucket))['y/a']).not.toBe(known.a);
});
