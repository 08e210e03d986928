import type { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import { directory, file, scan } from '../support/rows/scans.ts';
import { until } from '../support/until.ts';

let service: Client;
let key: string;
const { everything, tree, onlyIn, ids, states } = diskForEachTest((disk) => {
  ({ service, key } = disk);
});

/** As another service does it, before the scan begins. */
async function markMissing(path: string): Promise<string> {
  const { rows } = await service.query(
    `update filestore.nodes set state = 'missing' where live and path = $2
     and backend_mount_id = (select m.id from filestore.backend_mounts m where m.mount_key = $1)
     returning id, updated_at`,
    [key, path],
  );
  const [node] = rows;
  await until(async () => {
    const passed = await one(
      service,
      'select clock_timestamp() >= $1::timestamptz + interval $$2 ms$$ as passed',
      [node.updated_at],
    );
    return passed.passed;
  });
  return node.id;
}

describe('a scan of one directory', () => {
  test.each([1, 10_000])(
    'deletes a directory in it that has become a file, with everything below it, by %d at a time',
    async (maxNodes) => {
      await everything(directory('d/e', '3'), file('d/e/f/z', '4'), file('d/e/y', '5'), file('d/x', '6'));
      const entries = [file('e', '7'), file('x', '6')];
      expect(await scan(service, key, entries, { path: 'd', isRecursive: false }, maxNodes)).toMatchObject({
        created: '1',
        deleted: '4',
        missing: '0',
        skipped: '0',
      });
      expect(await states()).toEqual([
        'd active',
        'd/e deleted',
        'd/e active',
        'd/e/f deleted',
        'd/e/f/z deleted',
        'd/e/y deleted',
        'd/x active',
      ]);
    },
  );

  test('replaces a directory that moved to the place of another one, with everything below that one', async () => {
    await everything(
      directory('a', '1'),
      file('a/x', '2'),
      file('b', '3'),
      directory('c', '4'),
      file('c/y', '5'),
    );
    const before = await ids();
    expect(await onlyIn('', directory('b', '1'), file('a', '6'), file('c', '3'))).toMatchObject({
      moved: '2',
      created: '1',
      deleted: '2',
    });
    expect(await ids()).toMatchObject({ b: before.a, 'b/x': before['a/x'], c: before.b });
    expect(await states()).toEqual([
      'a active',
      'b active',
      'b/x active',
      'c deleted',
      'c active',
      'c/y deleted',
    ]);
  });

  test('finds a missing file of a directory that was renamed', async () => {
    await everything(directory('e', '3'), file('e/z', '4'));
    await everything(directory('e', '3'));
    const before = await ids();
    expect(await onlyIn('', directory('f', '3'), file('z', '4'))).toMatchObject({ moved: '2', created: '0' });
    expect(await ids()).toEqual({ f: before.e, z: before['e/z'] });
  });

  test('marks what is active below a directory that is missing already', async () => {
    await everything(directory('e', '3'), file('e/z', '4'));
    await markMissing('e');
    expect(await onlyIn('')).toMatchObject({ missing: '1' });
    expect(await states()).toEqual(['e missing', 'e/z missing']);
  });
});

describe('a scan of a subtree', () => {
  test.each(['', 'd'])('finds the directory "%s" that it lists, if that was missing', async (path) => {
    await everything(file('d/x', '1'));
    const known = await markMissing(path);
    const entries = path === '' ? [file('d/x', '1')] : [file('x', '1')];
    expect(await tree(path, ...entries)).toMatchObject({ found: '1', created: '0' });
    const { rows } = await service.query('select state from filestore.nodes where id = $1', [known]);
    expect(rows).toEqual([{ state: 'active' }]);
    expect(await tree(path, ...entries)).toMatchObject({ found: '0' });
  });

  test('marks what it does not find below a directory that it moves in', async () => {
    await everything(
      directory('a/d', '1'),
      file('a/d/x', '2'),
      directory('a/d/s', '3'),
      file('a/d/s/y', '4'),
      directory('b', '5'),
    );
    await markMissing('a/d');
    expect(await tree('b', directory('d', '1'), file('d/x', '2'))).toMatchObject({
      moved: '1',
      missing: '2',
    });
    expect(await states()).toEqual([
      'a active',
      'b active',
      'b/d active',
      'b/d/s missing',
      'b/d/s/y missing',
      'b/d/x active',
    ]);
  });

  test('moves a file out of a directory that it moves in, and deletes what is replaced there', async () => {
    await everything(
      directory('a/d', '1'),
      directory('a/d/s', '3'),
      file('a/d/s/y', '4'),
      file('a/d/s/z', '6'),
      directory('b', '5'),
    );
    await markMissing('a/d');
    const before = await ids();
    expect(await tree('b', directory('d', '1'), file('d/s', '7'), file('y', '4'))).toMatchObject({
      moved: '2',
      created: '1',
      deleted: '2',
    });
    expect(await ids()).toMatchObject({ 'b/d': before['a/d'], 'b/y': before['a/d/s/y'] });
  });
});

test('the guard does not count nodes that are missing already, also when something has their path', async () => {
  const below = Array.from({ length: 150 }, (_, index) => file(`d/f${index}`, `f${index}`));
  await everything(...below);
  await everything();
  expect(await scan(service, key, [file('d', 'new')])).toMatchObject({ created: '1', deleted: '151' });
});
