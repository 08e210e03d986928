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
import { until } from '../support/until.ts';

let service: Client;
let other: Client;
let key: string;
const { database, connectAs } = diskForEachTest((disk) => {
  ({ service, key } = disk);
});

beforeAll(async () => {
  other = await connectAs('service');
});

const RECORD = 'select filestore.record_entries($1, $2)';

describe('callers that record entries of one scan do not deadlock', () => {
  test('when each records a directory that an entry of the other one is in', async () => {
    const { id } = await beginScan(service, key);
    await service.query('begin');
    await other.query('begin');
    await recordEntries(service, id, [directory('x', '1')]);
    await recordEntries(other, id, [directory('y', '2')]);
    const first = await sendAndBlock(service, RECORD, [id, '[{"path": "y/a"}]']);
    const second = await sendAndBlock(other, RECORD, [id, '[{"path": "x/a"}]']);
    await first.outcome;
    await service.query('commit');
    expect([await first.outcome, await second.outcome]).toMatchObject([{ ok: true }, { ok: true }]);
    await other.query('commit');
    expect(await applyScan(service, id)).toMatchObject({ created: '4', entries: '4' });
  });

  test('when each of them renews the scan', async () => {
    const { id } = await beginScan(service, key, { expireAfter: '4 seconds' });
    await service.query('begin');
    await other.query('begin');
    await recordEntries(service, id, [file('a')]);
    await recordEntries(other, id, [file('b')]);
    await until(async () => {
      const { left } = await one(
        database(),
        "select expires_at - clock_timestamp() < interval '2.9 seconds' as left from filestore.scans where id = $1",
        [id],
      );
      return left;
    });
    const first = await sendAndBlock(service, RECORD, [id, '[{"path": "c"}]']);
    const second = await sendAndBlock(other, RECORD, [id, '[{"path": "d"}]']);
    await first.outcome;
    await service.query('commit');
    expect([await first.outcome, await second.outcome]).toMatchObject([{ ok: true }, { ok: true }]);
    await other.query('commit');
    expect(await applyScan(service, id)).toMatchObject({ created: '4' });
  });
});

test('a worker that waits while another one takes a step leaves the next step to the next call', async () => {
  await scan(service, key, [file('old', 'f1', 1)]);
  const id = await recordScan(service, key, [file('old', 'f1', 2), file('new', 'f2', 3)]);
  await applyOnce(service, id);
  await other.query('begin');
  await other.query(
    'select filestore.lock_tree(id, true) from filestore.backend_mounts where mount_key = $1',
    [key],
  );
  const waiting = await sendAndBlock(service, 'select filestore.apply_scan($1)', [id]);
  expect(waiting.waits).toBe(true);
  expect(await applyOnce(other, id)).toMatchObject({ created: '1', changed: '0' });
  await other.query('commit');
  expect(await waiting.outcome).toMatchObject({ ok: true });
  expect(await applyScan(service, id)).toMatchObject({ created: '1', changed: '1', skipped: '0' });
});

test('a batch of a scan and the deletion of its mount do not deadlock', async () => {
  const { id } = await beginScan(service, key);
  await recordEntries(service, id, [directory('a', '1')]);
  await applyOnce(service, id);
  const operator = await connectAs('operator');
  const holder = await database().connect();
  await holder.query('begin');
  await holder.query(
    'select filestore.lock_tree(id, true) from filestore.backend_mounts where mount_key = $1',
    [key],
  );
  const deletion = await sendAndBlock(operator, 'select filestore.delete_mount($1)', [key]);
  const batch = await sendAndBlock(service, 'select filestore.apply_scan($1)', [id]);
  expect([deletion.waits, batch.waits]).toEqual([true, true]);
  await holder.query('commit');
  expect(await deletion.outcome).toMatchObject({ ok: true });
  expect(await batch.outcome).toMatchObject({ ok: false, error: { constraint: 'scans_missing' } });
});

// Deleting a mount takes its row, and then those of its scans.
test.each([
  ['record_entries', "select filestore.record_entries($1, '[]')"],
  ['apply_scan', 'select filestore.apply_scan($1)'],
  ['cancel_scan', 'select filestore.cancel_scan($1)'],
])('%s locks the mount before the scan', async (_name, call) => {
  const { id } = await beginScan(service, key);
  await recordEntries(service, id, [file('a')]);
  const owner = await database().connect();
  await owner.query('begin');
  await owner.query('select from filestore.backend_mounts where mount_key = $1 for update', [key]);
  const caller = await sendAndBlock(service, call, [id]);
  expect(caller.waits).toBe(true);
  await owner.query('select from filestore.scans where id = $1 for update nowait', [id]);
  await owner.query('commit');
  expect(await caller.outcome).toMatchObject({ ok: true });
});

test('a batch that waits for the tree lock sees that its directory was moved in the meantime', async () => {
  await scan(service, key, [file('d/a', '1')]);
  const known = await readIds(service, key);
  const { id } = await beginScan(service, key, { path: 'd' });
  await recordEntries(service, id, [file('a', '1'), file('b', '2')]);
  await applyOnce(service, id);
  await other.query('begin');
  await other.query("select filestore.move_node($1, new_name => 'e')", [known.d]);
  await other.query("select filestore.ensure_directory($1, 'd')", [key]);
  const batch = await sendAndBlock(service, 'select filestore.apply_scan($1)', [id]);
  expect(batch.waits).toBe(true);
  await other.query('commit');
  expect(await batch.outcome).toMatchObject({ ok: false, error: { constraint: 'scans_directory_moved' } });
  expect(await readStates(service, key)).toEqual(['d active', 'e active', 'e/a active']);
});

describe('after the plan of a scan, others', () => {
  test('swap directories: nothing is created in the wrong one', async () => {
    await scan(service, key, [file('d/a', '1'), file('e/b', '2')]);
    const known = await readIds(service, key);
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, [
      file('d/a', '1'),
      file('d/new', '3'),
      directory('d/sub', '4'),
      file('e/b', '2'),
    ]);
    await applyOnce(service, id);
    await other.query("select filestore.move_node($1, new_name => 'f')", [known.d]);
    await other.query("select filestore.move_node($1, new_name => 'd')", [known.e]);
    expect(await applyScan(service, id)).toMatchObject({ created: '0' });
    expect(await readStates(service, key)).toEqual(['d active', 'd/b active', 'f active', 'f/a active']);
  });

  test('commit a move that began before the scan: the node is neither deleted nor missing', async () => {
    await scan(service, key, [file('a', '1'), file('b', '2')]);
    const known = await readIds(service, key);
    await other.query('begin');
    await other.query("select filestore.move_node($1, new_name => 'c')", [known.a]);
    await other.query("select filestore.move_node($1, new_name => 'e')", [known.b]);
    const { id } = await beginScan(service, key);
    // On the disk, something else is at "a" already.
    await recordEntries(service, id, [file('c'), file('e'), directory('a', '3')]);
    await applyOnce(service, id);
    await other.query('commit');
    await applyScan(service, id);
    expect(await readIds(service, key)).toMatchObject({ c: known.a, e: known.b });
    expect(await readStates(service, key)).toEqual(['a active', 'c active', 'e active']);
  });

  test('commit a write that began before the scan: the node stays as they wrote it', async () => {
    await scan(service, key, [file('a', '1', 1), file('b', '2', 1)]);
    const known = await readIds(service, key);
    await other.query('begin');
    await other.query("select filestore.upsert_file($1, 'a', 7)", [key]);
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, [file('a', '1', 9)]);
    await applyOnce(service, id);
    await other.query('commit');
    expect(await applyScan(service, id)).toMatchObject({ changed: '0', missing: '1' });
    expect(await readIds(service, key)).toMatchObject({ a: known.a, b: known.b });
  });

  test.each([
    ['a change', [file('a', '1', 9)]],
    ['a missing node', []],
    ['a deletion', [directory('a', '3')]],
    ['a move', [file('b', '1')]],
  ])('commit a write while %s waits for it: the node stays as they wrote it', async (_what, entries) => {
    await scan(service, key, [file('a', '1', 1), file('z', '2', 1)]);
    const known = await readIds(service, key);
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, [...entries, file('z', '2', 1)]);
    await applyOnce(service, id);
    await other.query('begin');
    await other.query("select filestore.upsert_file($1, 'a', 7, backend_identity => '4')", [key]);
    const batch = await sendAndBlock(service, 'select filestore.apply_scan($1, 1)', [id]);
    expect(batch.waits).toBe(true);
    await other.query('commit');
    expect(await batch.outcome).toMatchObject({ ok: true });
    await applyScan(service, id);
    const { rows } = await service.query(
      'select path, size_bytes, state from filestore.nodes where id = $1',
      [known.a],
    );
    expect(rows).toEqual([{ path: 'a', size_bytes: '7', state: 'active' }]);
  });
});
