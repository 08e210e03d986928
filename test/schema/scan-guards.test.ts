import type { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { insertMount, one } from '../support/rows/nodes.ts';
import { diskForEachTest, refusedBy } from '../support/rows/scanned-disks.ts';
import {
  applyOnce,
  applyScan,
  beginScan,
  differences,
  directory,
  file,
  readIds,
  readStates,
  recordEntries,
  scan,
} from '../support/rows/scans.ts';

let service: Client;
let key: string;
let mountId: string;
const { database, connectAs } = diskForEachTest((disk) => {
  ({ service, key, mountId } = disk);
});

const many = (count: number) => Array.from({ length: count }, (_, index) => file(`f${index}`, `i${index}`));

describe('a batch of entries is refused, and nothing is recorded, when', () => {
  test.each([
    ['it is no array', '{}', 'scan_entries_batch_check'],
    ['an element is no object', '[1]', 'scan_entries_batch_check'],
    ['an element has an unknown field', '[{"path": "a", "size": 1}]', 'scan_entries_batch_check'],
    ['an element has no path', '[{"path": "a"}, {"size_bytes": 1}]', 'scan_entries_batch_check'],
    ['a path is a number', '[{"path": 1}]', 'scan_entries_batch_check'],
    ['a size is no number', '[{"path": "a", "size_bytes": "big"}]', 'scan_entries_batch_check'],
    ['a size is below zero', '[{"path": "a", "size_bytes": -1}]', 'scan_entries_size_check'],
    ['a kind is neither', '[{"path": "a", "kind": "socket"}]', 'scan_entries_kind_check'],
    [
      'a moment is not finite',
      '[{"path": "a", "last_modified_at": "infinity"}]',
      'scan_entries_moment_check',
    ],
    ['a moment is none', '[{"path": "a", "last_modified_at": "noon"}]', 'scan_entries_moment_check'],
    [
      'an identity is too long',
      `[{"path": "a", "backend_identity": "${'i'.repeat(1025)}"}]`,
      'scan_entries_identity_check',
    ],
    ['an identity is empty', '[{"path": "a", "backend_identity": ""}]', 'scan_entries_identity_check'],
    [
      'a content hash is too long',
      `[{"path": "a", "content_hash": "${'i'.repeat(1025)}"}]`,
      'scan_entries_batch_check',
    ],
    ['a checksum is none', '[{"path": "a", "checksum": "md5:1"}]', 'scan_entries_batch_check'],
    [
      'a directory is a link',
      '[{"path": "a", "kind": "directory", "link_target": "b"}]',
      'scan_entries_batch_check',
    ],
    ['a path leads up', '[{"path": "a/../../b"}]', 'scan_entries_path_check'],
    ['a path is absolute', '[{"path": "/etc/passwd"}]', 'scan_entries_path_check'],
    [
      'a path is given twice',
      '[{"path": "a"}, {"path": "b"}, {"path": "a"}]',
      'scan_entries_duplicate_check',
    ],
    [
      'a directory is given twice',
      '[{"path": "a", "kind": "directory"}, {"path": "a/", "kind": "directory"}]',
      'scan_entries_duplicate_check',
    ],
    ['a file has entries below it', '[{"path": "a"}, {"path": "a/b"}]', 'scan_entries_kind_check'],
  ])('%s', async (_what, entries, constraint) => {
    const { id } = await beginScan(service, key);
    await expect(
      service.query('select filestore.record_entries($1, $2)', [id, entries]),
    ).rejects.toMatchObject(refusedBy('FS422', constraint));
    expect(
      (await one(database(), 'select count(*) from filestore.scan_entries where scan_id = $1', [id])).count,
    ).toBe('1');
  });

  test('it names the position of the entry', async () => {
    const { id } = await beginScan(service, key);
    await expect(recordEntries(service, id, [file('a'), { path: 'b', size_bytes: -5 }])).rejects.toThrow(
      'entry 2 ("b") has size -5',
    );
    await expect(recordEntries(service, id, [file('a'), file('b'), file('a')])).rejects.toThrow(
      'entries 1 and 3 have the same path "a"',
    );
  });

  test('it has more than 10,000 entries; an empty one is recorded', async () => {
    const { id } = await beginScan(service, key);
    expect(await recordEntries(service, id, [])).toBe(0);
    await expect(recordEntries(service, id, many(10_001))).rejects.toMatchObject(
      refusedBy('FS422', 'limit_check'),
    );
    expect(await recordEntries(service, id, many(10_000))).toBe(10_000);
  });

  test('a path is a file in one batch and a directory in another', async () => {
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, [file('a'), file('d/x')]);
    const refused = refusedBy('FS422', 'scan_entries_kind_check');
    await expect(recordEntries(service, id, [file('a/b')])).rejects.toMatchObject(refused);
    await expect(recordEntries(service, id, [file('b')], 'a')).rejects.toMatchObject(refused);
    await expect(recordEntries(service, id, [directory('a')])).rejects.toMatchObject(refused);
    // Directories that are not recorded follow from the paths when the changes are planned.
    await recordEntries(service, id, [file('d')]);
    await expect(differences(service, id)).rejects.toMatchObject(refused);
    await expect(applyOnce(service, id)).rejects.toMatchObject(refused);
  });

  test.each([
    ['the future', "clock_timestamp() + interval '1 minute'"],
    ['before the scan', "clock_timestamp() - interval '1 hour'"],
    ['never', "'infinity'::timestamptz"],
  ])('it was listed in %s', async (_when, moment) => {
    const { id } = await beginScan(service, key);
    await expect(
      service.query(`select filestore.record_entries($1, '[]', listed_at => ${moment})`, [id]),
    ).rejects.toMatchObject(refusedBy('FS422', 'scan_entries_moment_check'));
  });

  test('its directory is not below the scanned one', async () => {
    const { id } = await beginScan(service, key);
    for (const place of ['..', '/', 'a/', 'a//b', null]) {
      await expect(
        service.query("select filestore.record_entries($1, '[]', $2)", [id, place]),
      ).rejects.toMatchObject(refusedBy('FS422', 'scan_entries_path_check'));
    }
  });
});

test('a file that was modified in the future is no reason to refuse', async () => {
  await scan(service, key, [file('a', '1', 1, { last_modified_at: '2999-01-01T00:00:00Z' })]);
  expect(await readStates(service, key)).toEqual(['a active']);
});

test('an entry that is recorded again replaces the first one', async () => {
  const { id } = await beginScan(service, key);
  await recordEntries(service, id, [file('a', '1', 1), file('d/x', '2')]);
  await recordEntries(service, id, [file('a', '1', 2), directory('d', '3')]);
  await recordEntries(service, id, [file('a', '1', 2), directory('d', '3')]);
  await applyScan(service, id);
  const { rows } = await service.query(
    'select path, size_bytes, backend_identity from filestore.nodes where backend_mount_id = $1 and depth = 1 order by path',
    [mountId],
  );
  expect(rows).toEqual([
    { path: 'a', size_bytes: '2', backend_identity: '1' },
    { path: 'd', size_bytes: '0', backend_identity: '3' },
  ]);
});

describe('names that nodes cannot have', () => {
  test('are counted and listed, and do not stop a scan', async () => {
    const long = 'x'.repeat(256);
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, [
      file('a'),
      file('tab\u0009'),
      file('c1\u0085/b'),
      file('two//slashes'),
      file(long),
      file(`${'d/'.repeat(1400)}x`),
    ]);
    const listed = await differences(service, id);
    expect(listed).toHaveLength(6);
    expect(listed[0]).toBe('create a');
    expect(listed).toContain(`refuse ${long}`);
    expect(await applyScan(service, id)).toMatchObject({ created: '1', refused: '5' });
    expect(await readStates(service, key)).toEqual(['a active']);
  });

  test('are counted in a bucket also when they are "." or ".."', async () => {
    const bucket = `bucket-of-${key}`;
    await insertMount(service, { mount_key: bucket, backend_kind: 's3', bucket });
    const found = await scan(service, bucket, [
      file('a/../b'),
      file('/a'),
      file('./c'),
      { path: 'd/', kind: 'directory' },
      file('e/'),
      file('x'.repeat(300)),
    ]);
    expect(found).toMatchObject({ refused: '4', created: '2' });
    const { id } = await beginScan(service, bucket);
    await recordEntries(service, id, [file('x')], 'd'.repeat(300));
    expect(await differences(service, id)).toContain(`create ${'d'.repeat(300)}/x`);
  });
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
    await expect(beginScan(service, key, { expireAfter: '-1 hour' })).rejects.toMatchObject(
      refusedBy('FS422', 'retention_check'),
    );
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
    await recordEntries(service, second.id, [file('x', '2')]);
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
});

async function other() {
  const otherKey = `other-than-${key}`;
  await insertMount(service, { mount_key: otherKey, backend_kind: 'local', root_path: `/srv/${otherKey}` });
  return { key: otherKey };
}

describe('a scan that did not find a large share of the nodes', () => {
  test('is refused until the caller confirms it, and nothing is marked before', async () => {
    await scan(service, key, many(600));
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, many(400));
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
    await scan(service, key, many(600));
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, many(500));
    expect(await applyScan(service, id, 0)).toMatchObject({ missing: '100' });
    const next = await beginScan(service, key);
    await recordEntries(service, next.id, many(399));
    expect(await applyScan(service, next.id, 0.3)).toMatchObject({ missing: '101' });
  });

  test('counts nodes that are missing already on neither side', async () => {
    await scan(service, key, many(600));
    await scan(service, key, many(300));
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, many(150));
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

  test('readers cannot scan', async () => {
    const reader = await connectAs('reader');
    await expect(beginScan(reader, key)).rejects.toMatchObject({ code: '42501' });
    await expect(reader.query('select filestore.expire_scans()')).rejects.toMatchObject({ code: '42501' });
  });

  test('are empty after a scan, except for the scan', async () => {
    await scan(service, key, many(10));
    for (const table of ['scan_entries', 'scan_changes', 'scan_directories', 'scan_sightings']) {
      const rows = await database().query(
        `select from filestore.${table} t join filestore.scans s on s.id = t.scan_id where s.backend_mount_id = $1`,
        [mountId],
      );
      expect(rows).toEqual([]);
    }
  });
});
