import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import {
  applyOnce,
  applyScan,
  beginScan,
  directory,
  type Entry,
  file,
  readIds,
  readStates,
  recordEntries,
  recordScan,
  scan,
} from '../support/rows/scans.ts';

let service: Client;
let other: Client;
let key: string;
let mountId: string;
const { connectAs } = diskForEachTest((disk) => {
  ({ service, key, mountId } = disk);
});

beforeAll(async () => {
  other = await connectAs('service');
});

const record = (entries: readonly Entry[]) => recordScan(service, key, entries);

describe('a node that a service wrote to after the listing stays as it is', () => {
  const call = (text: string, ...values: unknown[]) => other.query(text, values);

  test('a file that it overwrote, created, deleted or moved', async () => {
    await scan(service, key, [file('a', '1'), file('b', '2'), file('c', '3'), file('d', '4')]);
    const known = await readIds(service, key);
    const id = await record([file('a', '1', 9), file('b', '2', 9), file('c', '3', 9), file('d', '4', 9)]);
    await call("select filestore.upsert_file($1, 'a', 5)", key);
    await call("select filestore.upsert_file($1, 'new', 5)", key);
    await call('select filestore.delete_node($1)', known.c);
    await call("select filestore.move_node($1, new_name => 'moved')", known.d);
    expect(await applyScan(service, id)).toMatchObject({
      changed: '1',
      missing: '0',
      created: '0',
      moved: '0',
    });
    expect(await readStates(service, key)).toEqual([
      'a active',
      'b active',
      'c deleted',
      'moved active',
      'new active',
    ]);
    const { rows } = await service.query(
      'select path, size_bytes from filestore.nodes where backend_mount_id = $1 and live order by path',
      [mountId],
    );
    expect(rows.map(({ path, size_bytes: size }) => `${path} ${size}`)).toEqual([
      ' 0',
      'a 5',
      'b 9',
      'moved 1',
      'new 5',
    ]);
  });

  test('a directory that it moved, with everything below it', async () => {
    await scan(service, key, [directory('a', '1'), file('a/x', '2'), file('a/y')]);
    const known = await readIds(service, key);
    const id = await record([directory('a', '1'), file('a/x', '2'), file('a/y')]);
    await call("select filestore.move_node($1, new_name => 'b')", known.a);
    expect(await applyScan(service, id)).toMatchObject({ created: '0', moved: '0', missing: '0' });
    expect(await readIds(service, key)).toEqual({ b: known.a, 'b/x': known['a/x'], 'b/y': known['a/y'] });
    await scan(service, key, [directory('b', '1'), file('b/x', '2'), file('b/y')]);
    expect(await readIds(service, key)).toEqual({ b: known.a, 'b/x': known['a/x'], 'b/y': known['a/y'] });
  });

  test('between two batches too', async () => {
    await scan(service, key, [directory('a', '1'), file('a/x', '2'), file('b', '3'), file('c', '4')]);
    const known = await readIds(service, key);
    const id = await record([
      directory('z', '1'),
      file('z/x', '2', 9),
      file('new', '5'),
      file('d', '3'),
      file('e', '6'),
    ]);
    await applyOnce(service, id);
    await call("select filestore.upsert_file($1, 'a/x', 5)", key);
    await call("select filestore.upsert_file($1, 'new', 5)", key);
    await call('select filestore.merge_metadata($1, \'{"a": 1}\')', known.b);
    await call('select filestore.merge_metadata($1, \'{"a": 1}\')', known.c);
    expect(await applyScan(service, id, 1, 1)).toMatchObject({
      moved: '1',
      changed: '0',
      missing: '0',
      created: '1',
      skipped: '4',
    });
    expect(await readStates(service, key)).toEqual([
      'b active',
      'c active',
      'e active',
      'new active',
      'z active',
      'z/x active',
    ]);
  });

  test('a file in a directory that was replaced on the disk', async () => {
    await scan(service, key, [directory('a', '1'), file('a/x', '2')]);
    const id = await record([file('a', '3')]);
    await call("select filestore.upsert_file($1, 'a/late', 5)", key);
    await applyScan(service, id);
    expect(await readStates(service, key)).toContain('a/late active');
    expect(await readStates(service, key)).toContain('a active');
  });

  test('a directory with such a file, also when another file moved to its path', async () => {
    await scan(service, key, [directory('a', '1'), file('a/x', '2'), file('b', '3')]);
    const known = await readIds(service, key);
    const id = await record([file('a', '3')]);
    await call("select filestore.upsert_file($1, 'a/late', 5)", key);
    await applyScan(service, id);
    expect(await readIds(service, key)).toMatchObject({ a: known.a, b: known.b });
    expect(await readStates(service, key)).toContain('a/late active');
  });

  test('a node that takes the place of a swap in between: the swap is planned again', async () => {
    await scan(service, key, [file('a', '1'), file('b', '2'), file('c', '3')]);
    const known = await readIds(service, key);
    const id = await record([file('b', '1'), file('c', '2'), file('a', '3')]);
    await applyOnce(service, id);
    await call("select filestore.upsert_file($1, 'b', 5)", key);
    await applyScan(service, id);
    const now = await readIds(service, key);
    expect(now.b).toBe(known.b);
    expect((await readStates(service, key)).filter((line) => line.includes('~'))).toEqual([]);
  });

  test('but not what it wrote before, if the entries were listed after it', async () => {
    await scan(service, key, [file('a', '1'), file('b', '2')]);
    const { id } = await beginScan(service, key);
    await call("select filestore.upsert_file($1, 'a', 5)", key);
    await call("select filestore.upsert_file($1, 'b', 5)", key);
    const { moment } = await one(
      service,
      "select clock_timestamp() + interval '2 milliseconds' as moment, pg_sleep(0.005)",
    );
    await recordEntries(service, id, [file('a', '1', 9)], '', moment.toISOString());
    await recordEntries(service, id, [file('b', '2', 9)]);
    expect(await applyScan(service, id)).toMatchObject({ changed: '1', skipped: '1' });
  });
});
