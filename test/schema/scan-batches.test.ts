import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { one } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import {
  applyOnce,
  applyScan,
  beginScan,
  differences,
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
const { database, connectAs } = diskForEachTest((disk) => {
  ({ service, key, mountId } = disk);
});

beforeAll(async () => {
  other = await connectAs('service');
});

const BEFORE = [
  directory('a', '1'),
  directory('a/b', '2'),
  file('a/b/x', '3'),
  file('p', '4'),
  file('q', '5'),
  directory('s', '6'),
  directory('t', '7'),
  file('t/y', '8'),
  file('gone', '9'),
  file('m', '11'),
  directory('k', '12'),
  file('k/f'),
  ...Array.from({ length: 12 }, (_, index) => file(`n${index}`, `n${index}`)),
];
const AFTER = [
  directory('z', '1'),
  directory('z/c', '2'),
  file('z/c/x', '3', 2),
  file('p', '5'),
  file('q', '4'),
  directory('s', '7'),
  file('s/y', '8'),
  directory('t', '6'),
  file('t/new', '10'),
  directory('new', '13'),
  file('new/m', '11'),
  directory('new/k', '12'),
  file('new/k/f'),
  ...Array.from({ length: 12 }, (_, index) => file(`n${(index + 1) % 12}`, `n${index}`)),
];

const record = (entries: readonly Entry[]) => recordScan(service, key, entries);

/** All rows of the mount, without ids, moments and temporary versions. */
const picture = async () =>
  (
    await database().query(
      'select path, state, kind, size_bytes, backend_identity from filestore.nodes where backend_mount_id = $1 order by path, id',
      [mountId],
    )
  ).map((row) => JSON.stringify(row));

test.each([1, 2, 3, 7, 100])(
  'batches of %d give the same result, and never leave a temporary name',
  async (size) => {
    await scan(service, key, BEFORE);
    const before = await readIds(service, key);
    const id = await record(AFTER);
    for (let state = ''; state !== 'finished'; ) {
      ({ state } = await applyOnce(service, id, 1, size));
      expect(Object.keys(await readIds(service, key)).filter((path) => path.includes('~'))).toEqual([]);
    }
    const after = await readIds(service, key);
    expect(Object.keys(after).sort()).toEqual([...AFTER.map(({ path }) => path), 'gone'].sort());
    expect([
      after.z,
      after['z/c'],
      after['z/c/x'],
      after.p,
      after.q,
      after.s,
      after.t,
      after['s/y'],
      after.n0,
    ]).toEqual([
      before.a,
      before['a/b'],
      before['a/b/x'],
      before.q,
      before.p,
      before.t,
      before.s,
      before['t/y'],
      before.n11,
    ]);
  },
);

test('a scan that is killed after any number of batches continues with the next call', async () => {
  await scan(service, key, BEFORE);
  const id = await record(AFTER);
  let state = '';
  for (let calls = 0; state !== 'finished'; calls += 1) {
    const worker = await connectAs('service');
    await worker.query('begin');
    await applyOnce(worker, id, 1, 2);
    // A lost worker: the server rolls its batch back.
    await worker.end();
    ({ state } = await applyOnce(service, id, 1, 2));
    expect(calls).toBeLessThan(100);
  }
  const lines = await picture();
  await scan(service, key, AFTER);
  expect(await picture()).toEqual(lines);
});

test('each call renews the scan', async () => {
  const id = await record(AFTER);
  const recorded = await one(service, 'select expires_at from filestore.scans where id = $1', [id]);
  const { expires_at } = await applyOnce(service, id);
  expect(expires_at.getTime()).toBeGreaterThanOrEqual(recorded.expires_at.getTime());
});

test('a plan that is lost is made again, until the sightings are recorded, and no node is seen twice', async () => {
  await scan(service, key, BEFORE);
  const id = await record(AFTER);
  for (let state = ''; state !== 'finished'; ) {
    const { settled } = await applyOnce(service, id, 1, 3);
    if (settled === null) {
      await database().query('update filestore.scans set planned = null where id = $1', [id]);
      await applyOnce(service, id);
    }
    ({ state } = await applyOnce(service, id, 1, 3));
  }
  expect(await one(service, 'select moved, missing, seen from filestore.scans where id = $1', [id])).toEqual({
    moved: '20',
    missing: '1',
    seen: `${AFTER.length}`,
  });
  const lines = await picture();
  expect(await scan(service, key, AFTER)).toMatchObject({
    created: '0',
    moved: '0',
    changed: '0',
    missing: '0',
  });
  expect(await picture()).toEqual(lines);
});

test('a second call for the same scan is refused while the first one works', async () => {
  const id = await record(AFTER);
  await other.query('begin');
  await applyOnce(other, id);
  const busy = { code: 'FS409', constraint: 'scans_busy', hint: expect.any(String) };
  await expect(applyOnce(service, id)).rejects.toMatchObject(busy);
  await expect(differences(service, id)).rejects.toMatchObject(busy);
  await other.query('commit');
  await applyScan(service, id);
});

test('several connections record entries of one scan at once', async () => {
  const { id } = await beginScan(service, key, { expireAfter: '1 second' });
  const clients = [service, other, await connectAs('service')];
  await Promise.all(
    clients.map(async (client, index) => {
      for (let batch = 0; batch < 10; batch += 1) {
        await recordEntries(client, id, [file(`d/${index}/${batch}`), file(`shared/${batch}-${index}`)]);
      }
    }),
  );
  expect(await applyScan(service, id)).toMatchObject({ entries: '60', created: '65' });
});

test('applying a finished scan again writes nothing', async () => {
  const { id } = await scan(service, key, BEFORE);
  const versions = () =>
    one(
      database(),
      'select sum(version) as v, (select count(*) from filestore.snapshots) as s from filestore.nodes',
    );
  const before = await versions();
  await service.query('begin');
  expect(await applyOnce(service, id)).toMatchObject({ state: 'finished', created: '24' });
  expect((await one(service, 'select pg_current_xact_id_if_assigned() is not null as writes')).writes).toBe(
    true,
  );
  await service.query('commit');
  expect(await versions()).toEqual(before);
});

describe('other sessions during a batch', () => {
  test('a create in a directory that a scan moves waits and uses the new path', async () => {
    await scan(service, key, [directory('a', '1')]);
    const known = await readIds(service, key);
    const id = await record([directory('b', '1')]);
    await applyOnce(service, id);
    await service.query('begin');
    await applyOnce(service, id);
    const create = await sendAndBlock(other, "select path from filestore.create_node($1, 'x')", [known.a]);
    expect(create.waits).toBe(true);
    await service.query('commit');
    expect(await create.outcome).toMatchObject({ ok: true, result: { rows: [{ path: 'b/x' }] } });
    await applyScan(service, id);
  });

  test('a move of a directory waits until a batch of creates has ended', async () => {
    await scan(service, key, [directory('a', '1')]);
    const known = await readIds(service, key);
    const id = await record([directory('a', '1'), file('a/x', '2')]);
    await applyOnce(service, id);
    await service.query('begin');
    await applyOnce(service, id);
    const move = await sendAndBlock(other, "select path from filestore.move_node($1, new_name => 'b')", [
      known.a,
    ]);
    expect(move.waits).toBe(true);
    await service.query('commit');
    expect(await move.outcome).toMatchObject({ ok: true });
    await applyScan(service, id);
    expect(await readStates(service, key)).toEqual(['b active', 'b/x active']);
  });

  describe('sightings of a scan and of a watcher do not deadlock', () => {
    const files = Array.from({ length: 20 }, (_, index) => file(`f${index + 10}`, `${index}`));
    let ids: readonly string[];

    /** Lets a scan meet a watcher that reports the nodes from which it continues. */
    async function meet(scanId: string, seen: readonly (string | undefined)[]) {
      await applyOnce(service, scanId);
      const holder = await database().connect();
      await holder.query('begin');
      await holder.query('select from filestore.node_sightings where node_id = $1 for update', [ids[5]]);
      const batch = await sendAndBlock(service, 'select filestore.apply_scan($1)', [scanId]);
      const watch = await sendAndBlock(other, 'select filestore.record_sightings($1)', [seen]);
      await holder.query('commit');
      expect(batch.waits).toBe(true);
      expect(await batch.outcome).toMatchObject({ ok: true });
      expect(await watch.outcome).toMatchObject({ ok: true });
    }

    beforeEach(async () => {
      await scan(service, key, files);
      ids = Object.values(await readIds(service, key)).sort((one, two) => Number(one) - Number(two));
    });

    test('with the same nodes in another order', async () => {
      await meet(await record(files), [...ids].reverse());
    });

    test('when the scan has listed nodes with high ids before those with low ones', async () => {
      const { id, started_at: first } = await beginScan(service, key);
      const later = new Date(first.getTime() + 1).toISOString();
      await recordEntries(service, id, files.slice(10));
      await recordEntries(service, id, files.slice(0, 10), '', later);
      await meet(id, [ids[6], ids[15]]);
    });

    test('when one of the nodes has no sighting yet', async () => {
      const { id: unseen } = await one(
        service,
        "select id from filestore.create_node((select id from filestore.node_by_path($1, '')), 'unseen', size_bytes => 1)",
        [key],
      );
      await meet(await record([...files, file('unseen')]), [ids[0], String(unseen)]);
    });
  });
});
