import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { one } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import {
  applyOnce,
  applyScan,
  beginScan,
  directory,
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
const { connectAs } = diskForEachTest((disk) => {
  ({ service, key } = disk);
});

beforeAll(async () => {
  other = await connectAs('service');
});

const call = (text: string, ...values: unknown[]) => other.query(text, values);
const readLater = async () =>
  (
    await one(service, "select clock_timestamp() + interval '2 milliseconds' as moment, pg_sleep(0.005)")
  ).moment.toISOString();

describe('a path that others leave after the plan of a scan stays free', () => {
  test('when they create and delete a file there', async () => {
    const id = await recordScan(service, key, [file('a', '1')]);
    await applyOnce(service, id);
    const { id: created } = await one(other, "select * from filestore.upsert_file($1, 'a', 5)", [key]);
    await call('select filestore.delete_node($1)', created);
    expect(await applyScan(service, id)).toMatchObject({ created: '0', skipped: '1' });
    expect(await readStates(service, key)).toEqual(['a deleted']);
  });

  test('when they create a file there and move it', async () => {
    const id = await recordScan(service, key, [file('a', '1')]);
    await applyOnce(service, id);
    const { id: created } = await one(other, "select * from filestore.upsert_file($1, 'a', 5)", [key]);
    await call("select filestore.move_node($1, new_name => 'b')", created);
    expect(await applyScan(service, id)).toMatchObject({ created: '0', skipped: '1' });
    expect(await readStates(service, key)).toEqual(['b active']);
  });

  test('when they create and move a directory there', async () => {
    const id = await recordScan(service, key, [directory('d', '1'), file('d/x', '2')]);
    await applyOnce(service, id);
    const { id: created } = await one(other, "select * from filestore.ensure_directory($1, 'd')", [key]);
    await call("select filestore.move_node($1, new_name => 'e')", created);
    expect(await applyScan(service, id)).toMatchObject({ created: '0', skipped: '2' });
    expect(await readStates(service, key)).toEqual(['e active']);
  });

  test('when they delete the file in a place that another one moves to', async () => {
    await scan(service, key, [file('a', '1'), file('b', '2')]);
    const known = await readIds(service, key);
    const id = await recordScan(service, key, [file('a', '2'), file('b', '1')]);
    await applyOnce(service, id);
    await call('select filestore.delete_node($1)', known.a);
    await applyScan(service, id);
    expect(await readIds(service, key)).toEqual({ b: known.b });
  });
});

test('a create that waits for the delete of a file at its path is left out', async () => {
  const id = await recordScan(service, key, [file('a', '1'), file('b', '2')]);
  await applyOnce(service, id);
  const { id: created } = await one(other, "select * from filestore.upsert_file($1, 'a', 5)", [key]);
  await call('begin');
  await call('select filestore.delete_node($1)', created);
  const batch = await sendAndBlock(service, 'select filestore.apply_scan($1)', [id]);
  expect(batch.waits).toBe(true);
  await call('commit');
  expect(await batch.outcome).toMatchObject({ ok: true });
  expect(await applyScan(service, id)).toMatchObject({ created: '1', skipped: '1' });
  expect(await readStates(service, key)).toEqual(['a deleted', 'b active']);
});

test('a swap that waits for the delete of one of its files is planned again', async () => {
  await scan(service, key, [file('a', '1'), file('b', '2')]);
  const known = await readIds(service, key);
  const id = await recordScan(service, key, [file('a', '2'), file('b', '1')]);
  await applyOnce(service, id);
  await call('begin');
  await call('select filestore.delete_node($1)', known.a);
  const batch = await sendAndBlock(service, 'select filestore.apply_scan($1)', [id]);
  expect(batch.waits).toBe(true);
  await call('commit');
  expect(await batch.outcome).toMatchObject({ ok: true });
  expect(await applyScan(service, id)).toMatchObject({ plans: 2 });
});

describe('directories that others swapped after a scan began', () => {
  test('take the entries that were listed after it', async () => {
    await scan(service, key, [directory('d', '1'), directory('e', '2')]);
    const known = await readIds(service, key);
    const { id } = await beginScan(service, key);
    await call("select filestore.move_node($1, new_name => 'f')", known.d);
    await call("select filestore.move_node($1, new_name => 'd')", known.e);
    const moment = await readLater();
    await recordEntries(
      service,
      id,
      [directory('d', '2'), directory('f', '1'), file('d/x', '3'), directory('d/sub', '4')],
      '',
      moment,
    );
    expect(await applyScan(service, id)).toMatchObject({ created: '2', skipped: '0' });
  });

  test('do not keep a scan from its end, when files swap into one of them', async () => {
    await scan(service, key, [directory('d', '1'), directory('e', '2'), file('e/x', '3'), file('a', '4')]);
    const known = await readIds(service, key);
    const { id } = await beginScan(service, key);
    await call("select filestore.move_node($1, new_name => 'f')", known.d);
    await call("select filestore.move_node($1, new_name => 'd')", known.e);
    const moment = await readLater();
    await recordEntries(
      service,
      id,
      [directory('d', '2'), directory('f', '1'), file('d/x', '4'), file('a', '3')],
      '',
      moment,
    );
    expect(await applyScan(service, id)).toMatchObject({ moved: '2' });
    expect(await readIds(service, key)).toMatchObject({ 'd/x': known.a, a: known['e/x'] });
  });

  test('do not keep a scan from its end, when some entries were listed before', async () => {
    await scan(service, key, [directory('d', '1'), directory('e', '2'), file('e/x', '3'), file('a', '4')]);
    const known = await readIds(service, key);
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, [directory('d', '1'), directory('f', '2'), file('d/x', '4')]);
    await call("select filestore.move_node($1, new_name => 'f')", known.d);
    await call("select filestore.move_node($1, new_name => 'd')", known.e);
    await recordEntries(service, id, [file('a', '3')], '', await readLater());
    await applyScan(service, id);
    expect((await readStates(service, key)).filter((line) => !line.endsWith('active'))).toEqual([]);
    expect(await readIds(service, key)).toMatchObject({ f: known.d, d: known.e });
  });

  test('do not keep a scan from its end, when only the files in them were listed before', async () => {
    await scan(service, key, [directory('d', '1'), directory('e', '2'), file('e/x', '3'), file('a', '4')]);
    const known = await readIds(service, key);
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, [file('d/x', '4')]);
    await call("select filestore.move_node($1, new_name => 'f')", known.d);
    await call("select filestore.move_node($1, new_name => 'd')", known.e);
    await recordEntries(
      service,
      id,
      [directory('d', '2'), directory('f', '1'), file('a', '3')],
      '',
      await readLater(),
    );
    expect(await applyScan(service, id)).toMatchObject({ plans: 1, moved: '0' });
    expect(await readIds(service, key)).toMatchObject({ a: known.a, 'd/x': known['e/x'] });
  });

  test('do not keep a scan from its end, when only the directories in them were listed before', async () => {
    await scan(service, key, [
      directory('d', '1'),
      directory('e', '2'),
      directory('e/x', '3'),
      directory('a', '4'),
      directory('a/z', '5'),
    ]);
    const known = await readIds(service, key);
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, [directory('d/x', '4')]);
    await call("select filestore.move_node($1, new_name => 'f')", known.d);
    await call("select filestore.move_node($1, new_name => 'd')", known.e);
    await recordEntries(
      service,
      id,
      [directory('d', '2'), directory('f', '1'), directory('a', '3')],
      '',
      await readLater(),
    );
    expect(await applyScan(service, id)).toMatchObject({ plans: 1, moved: '0', deleted: '0', changed: '0' });
    expect(await readIds(service, key)).toMatchObject({
      a: known.a,
      'a/z': known['a/z'],
      'd/x': known['e/x'],
    });
  });
});
