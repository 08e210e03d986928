import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { insertMount, one } from '../support/rows/nodes.ts';
import { diskForEachTest, refusedBy } from '../support/rows/scanned-disks.ts';
import {
  applyOnce,
  applyScan,
  beginScan,
  differences,
  file,
  manyFiles,
  readIds,
  readStates,
  recordEntries,
  scan,
} from '../support/rows/scans.ts';

let service: Client;
let key: string;
let mountId: string;
const { database } = diskForEachTest((disk) => {
  ({ service, key, mountId } = disk);
});

test('a mount that commands must not change is scanned: others fill it', async () => {
  await service.query("update filestore.backend_mounts set access_mode = 'ro' where id = $1", [mountId]);
  expect(await scan(service, key, [file('a')])).toMatchObject({ state: 'finished', created: '1' });
});

describe('a scan is refused when', () => {
  test('it does not exist', async () => {
    const refused = refusedBy('FS404', 'scans_missing');
    await expect(recordEntries(service, '999', [])).rejects.toMatchObject(refused);
    await expect(applyOnce(service, '999')).rejects.toMatchObject(refused);
    await expect(differences(service, '999')).rejects.toMatchObject(refused);
    await expect(service.query('select filestore.cancel_scan(999)')).rejects.toMatchObject(refused);
  });

  test('it has ended', async () => {
    const finished = await scan(service, key, [file('a')]);
    const ended = refusedBy('FS409', 'scans_ended');
    await expect(recordEntries(service, finished.id, [])).rejects.toMatchObject(ended);
    await expect(differences(service, finished.id)).rejects.toMatchObject(ended);
    await expect(service.query('select filestore.cancel_scan($1)', [finished.id])).rejects.toMatchObject(
      ended,
    );
    const { id } = await beginScan(service, key);
    await service.query('select filestore.cancel_scan($1)', [id]);
    await service.query('select filestore.cancel_scan($1)', [id]);
    await expect(recordEntries(service, id, [])).rejects.toMatchObject(ended);
    await expect(applyOnce(service, id)).rejects.toMatchObject(ended);
  });

  test('it is being applied, and gets more entries', async () => {
    const { id } = await beginScan(service, key);
    await applyOnce(service, id);
    await expect(recordEntries(service, id, [file('a')])).rejects.toMatchObject(
      refusedBy('FS409', 'scans_applying'),
    );
  });

  test('the server has lost its entries in a crash', async () => {
    await scan(service, key, [file('a')]);
    const { id } = await beginScan(service, key);
    await database().query('delete from filestore.scan_entries where scan_id = $1', [id]);
    const lost = refusedBy('FS409', 'scans_lost');
    await expect(recordEntries(service, id, [file('a')])).rejects.toMatchObject(lost);
    await expect(applyOnce(service, id)).rejects.toMatchObject(lost);
    await service.query('select filestore.cancel_scan($1)', [id]);
    await scan(service, key, [file('a')]);
  });

  test('the scanned directory was moved', async () => {
    await scan(service, key, [file('d/a')]);
    const { id } = await beginScan(service, key, { path: 'd' });
    await service.query("select filestore.move_node($1, new_name => 'e')", [(await readIds(service, key)).d]);
    await expect(applyOnce(service, id)).rejects.toMatchObject(refusedBy('FS409', 'scans_directory_moved'));
  });

  test('its mount was deleted', async () => {
    const { id } = await beginScan(service, key);
    await database().query('delete from filestore.backend_mounts where id = $1', [mountId]);
    await expect(recordEntries(service, id, [])).rejects.toMatchObject(refusedBy('FS404', 'scans_missing'));
    await expect(applyOnce(service, id)).rejects.toMatchObject(refusedBy('FS404', 'scans_missing'));
    await service.query('select filestore.expire_scans()');
    expect(
      (await one(database(), 'select count(*) from filestore.scan_entries where scan_id = $1', [id])).count,
    ).toBe('0');
  });

  test('its mount is being erased, or moves', async () => {
    const { id } = await beginScan(service, key);
    for (const [column, value, constraint] of [
      ['erasing_since', 'now()', 'backend_mounts_erasing'],
      ['held_by', '0', 'backend_mounts_moving'],
    ]) {
      await database().query(`update filestore.backend_mounts set ${column} = ${value} where id = $1`, [
        mountId,
      ]);
      const refused = refusedBy('FS409', constraint ?? '');
      await expect(beginScan(service, key)).rejects.toMatchObject(refused);
      await expect(recordEntries(service, id, [])).rejects.toMatchObject(refused);
      await expect(applyOnce(service, id)).rejects.toMatchObject(refused);
      await database().query(`update filestore.backend_mounts set ${column} = null where id = $1`, [mountId]);
    }
  });

  test('its arguments are out of range', async () => {
    const { id } = await beginScan(service, key);
    for (const share of ['null', '-0.1', '1.1', "'NaN'"]) {
      await expect(service.query(`select filestore.apply_scan($1, ${share})`, [id])).rejects.toMatchObject(
        refusedBy('FS422', 'missing_share_check'),
      );
    }
    for (const size of [0, 100_001]) {
      await expect(applyOnce(service, id, 1, size)).rejects.toMatchObject(refusedBy('FS422', 'limit_check'));
    }
    for (const age of ['null', "'-1 hour'", "'1001 years'"]) {
      await expect(
        service.query(`select filestore.begin_scan($1, expire_after => ${age})`, [key]),
      ).rejects.toMatchObject(refusedBy('FS422', 'retention_check'));
    }
    await expect(beginScan(service, 'nowhere')).rejects.toMatchObject(
      refusedBy('FS404', 'backend_mounts_missing'),
    );
  });

  test('its transaction has written before', async () => {
    const { id } = await beginScan(service, key);
    await service.query('begin');
    await service.query("select filestore.upsert_file($1, 'a')", [key]);
    await expect(applyOnce(service, id)).rejects.toMatchObject(refusedBy('FS409', 'first_write_check'));
    await service.query('rollback');
  });
});

describe('one scan runs in a subtree', () => {
  test.each([
    ['', ''],
    ['', 'a/b'],
    ['a', 'a/b'],
    ['a/b', 'a'],
    ['a/b', ''],
  ])('%j and then %j', async (first, second) => {
    const { id } = await beginScan(service, key, { path: first });
    const running = {
      ...refusedBy('FS409', 'scans_running'),
      message: expect.stringContaining(`scan ${id} of`),
    };
    await expect(beginScan(service, key, { path: second })).rejects.toMatchObject(running);
    await service.query('select filestore.cancel_scan($1)', [id]);
    await beginScan(service, key, { path: second });
  });

  test('scans beside each other run at once', async () => {
    const first = await beginScan(service, key, { path: 'a' });
    const second = await beginScan(service, key, { path: 'a-b' });
    await recordEntries(service, first.id, [file('x', '1')]);
    await recordEntries(service, second.id, [file('x', '2'), file('a\u0001b')]);
    expect(await differences(service, first.id)).toEqual(['create a/x']);
    expect(await differences(service, second.id)).toEqual(['create a-b/x', 'refuse a-b/a\u0001b']);
    expect(await differences(service, first.id)).toEqual(['create a/x']);
    await applyScan(service, first.id);
    await applyScan(service, second.id);
    expect(await readStates(service, key)).toEqual(['a active', 'a-b active', 'a-b/x active', 'a/x active']);
  });

  test('an abandoned scan makes room when it has expired, and its command has failed', async () => {
    const { id } = await beginScan(service, key, { expireAfter: '0' });
    await recordEntries(service, id, [file('a')]);
    await applyOnce(service, id);
    await applyOnce(service, id);
    await beginScan(service, key);
    expect(await one(service, 'select state from filestore.scans where id = $1', [id])).toEqual({
      state: 'expired',
    });
    expect(
      await one(service, 'select status, error from filestore.journal_entries where backend_mount_id = $1', [
        mountId,
      ]),
    ).toMatchObject({ status: 'failed', error: { code: 'expired' } });
    await expect(applyOnce(service, id)).rejects.toMatchObject(refusedBy('FS409', 'scans_ended'));
  });

  test('expire_scans ends abandoned scans with their entries, and forgets old ones', async () => {
    const { id } = await beginScan(service, key, { expireAfter: '0' });
    await recordEntries(service, id, [file('a')]);
    const running = await beginScan(service, (await other()).key);
    await service.query('select filestore.expire_scans()');
    expect((await one(service, 'select state from filestore.scans where id = $1', [id])).state).toBe(
      'expired',
    );
    expect(
      (await one(service, 'select count(*) from filestore.scan_entries where scan_id = $1', [id])).count,
    ).toBe('0');
    expect((await one(service, 'select state from filestore.scans where id = $1', [running.id])).state).toBe(
      'recording',
    );
    await service.query("select filestore.expire_scans('0')");
    expect(await database().query('select from filestore.scans where id = $1', [id])).toEqual([]);
  });

  describe('expire_scans does not wait for a session that has locked', () => {
    let id: string;
    let holder: Client;
    const stateOf = async () =>
      (await database().query('select state from filestore.scans where id = $1', [id]))[0]?.state;
    const expireBeside = async (lock: string, parameter: string) => {
      holder = await database().connect();
      await holder.query('begin');
      await holder.query(lock, [parameter]);
      const expiring = await sendAndBlock(service, "select filestore.expire_scans('0')");
      expect(expiring.waits).toBe(false);
      expect(await expiring.outcome).toMatchObject({ ok: true });
    };
    const LOCK_SCAN = 'select from filestore.scans where id = $1 for update';

    beforeEach(async () => {
      ({ id } = await beginScan(service, key, { expireAfter: '0' }));
    });

    test.each([
      ['the mount', 'select from filestore.backend_mounts where id = $1 for update', () => mountId],
      ['the scan', LOCK_SCAN, () => id],
    ])('%s: the next call ends the scan', async (_, lock, parameter) => {
      await expireBeside(lock, parameter());
      expect(await stateOf()).toBe('recording');
      await holder.query('rollback');
      await service.query('select filestore.expire_scans()');
      expect(await stateOf()).toBe('expired');
    });

    test('an old scan: the next call forgets it', async () => {
      await service.query('select filestore.expire_scans()');
      await expireBeside(LOCK_SCAN, id);
      expect(await stateOf()).toBe('expired');
      await holder.query('rollback');
      await service.query("select filestore.expire_scans('0')");
      expect(await stateOf()).toBeUndefined();
    });
  });
});

async function other() {
  const otherKey = `other-than-${key}`;
  await insertMount(service, { mount_key: otherKey, backend_kind: 'local', root_path: `/srv/${otherKey}` });
  return { key: otherKey };
}

describe('a scan that did not find a large share of the nodes', () => {
  test('is refused until the caller confirms it, and nothing is marked before', async () => {
    await scan(service, key, manyFiles(600));
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, manyFiles(400));
    const refused = refusedBy('FS409', 'scans_too_many_missing');
    await expect(service.query('select filestore.apply_scan($1)', [id])).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('did not find 200 of the 600 nodes'),
    });
    await expect(applyOnce(service, id, 0.3)).rejects.toMatchObject(refused);
    expect(await differences(service, id)).toHaveLength(200);
    expect(await recordEntries(service, id, [])).toBe(0);
    expect(await applyScan(service, id, 0.4)).toMatchObject({ missing: '200' });
  });

  test('is applied when the share is small, or when the nodes are few', async () => {
    await scan(service, key, manyFiles(600));
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, manyFiles(500));
    expect(await applyScan(service, id, 0)).toMatchObject({ missing: '100' });
    const next = await beginScan(service, key);
    await recordEntries(service, next.id, manyFiles(399));
    expect(await applyScan(service, next.id, 0.3)).toMatchObject({ missing: '101' });
  });

  test('counts nodes that are missing already on neither side', async () => {
    await scan(service, key, manyFiles(600));
    await scan(service, key, manyFiles(300));
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, manyFiles(150));
    await expect(applyOnce(service, id, 0.2)).rejects.toThrow('did not find 150 of the 300 nodes');
  });
});

describe('the tables of scans', () => {
  test.each(['scans', 'scan_entries', 'scan_changes', 'scan_directories', 'scan_sightings'])(
    'services cannot write %s',
    async (table) => {
      expect(await service.query(`select * from filestore.${table} limit 1`)).toBeDefined();
      for (const write of [
        `delete from filestore.${table}`,
        `insert into filestore.${table} overriding system value select * from filestore.${table}`,
        `truncate filestore.${table}`,
      ]) {
        await expect(service.query(write)).rejects.toMatchObject({ code: '42501' });
      }
    },
  );

  test('are empty after a scan, except for the scan', async () => {
    await scan(service, key, manyFiles(10));
    for (const table of ['scan_entries', 'scan_changes', 'scan_directories', 'scan_sightings']) {
      const rows = await database().query(
        `select from filestore.${table} t join filestore.scans s on s.id = t.scan_id where s.backend_mount_id = $1`,
        [mountId],
      );
      expect(rows).toEqual([]);
    }
  });
});
