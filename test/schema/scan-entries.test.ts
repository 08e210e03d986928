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
  manyFiles,
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

describe('a batch of entries is refused, and nothing is recorded, when', () => {
  test.each([
    ['it is not an array', '{}', 'scan_entries_batch_check'],
    ['an element is not an object', '[1]', 'scan_entries_batch_check'],
    ['an element has an unknown field', '[{"path": "a", "size": 1}]', 'scan_entries_batch_check'],
    ['an element has an unknown text', '[{"path": "a", "md5": "x"}]', 'scan_entries_batch_check'],
    ['an element has no path', '[{"path": "a"}, {"size_bytes": 1}]', 'scan_entries_batch_check'],
    ['a path is a number', '[{"path": 1}]', 'scan_entries_batch_check'],
    ['a path is a number beside a size', '[{"path": 1, "size_bytes": "5"}]', 'scan_entries_batch_check'],
    ['a text is an object', '[{"path": "a", "content_hash": {"md5": "x"}}]', 'scan_entries_batch_check'],
    ['an element is an array', '[[{"path": "a"}]]', 'scan_entries_batch_check'],
    ['a path is empty', '[{"path": "a"}, {"path": ""}]', 'scan_entries_batch_check'],
    ['a size is not a number', '[{"path": "a", "size_bytes": "big"}]', 'scan_entries_batch_check'],
    ['a size is below zero', '[{"path": "a", "size_bytes": -1}]', 'scan_entries_size_check'],
    ['a kind is neither file nor directory', '[{"path": "a", "kind": "socket"}]', 'scan_entries_kind_check'],
    [
      'a moment is not finite',
      '[{"path": "a", "last_modified_at": "infinity"}]',
      'scan_entries_moment_check',
    ],
    ['a moment cannot be read', '[{"path": "a", "last_modified_at": "noon"}]', 'scan_entries_moment_check'],
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
    ['a checksum is not a digest', '[{"path": "a", "checksum": "md5:1"}]', 'scan_entries_batch_check'],
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

  test('a field is null: it is left out; and a size may be a string', async () => {
    const { id } = await beginScan(service, key);
    const entries = [
      { path: 'a', size_bytes: null, last_modified_at: null, link_target: null },
      { path: 'b', size_bytes: '7' },
    ];
    expect(await recordEntries(service, id, entries)).toBe(2);
    expect(
      await database().query(
        'select path, size_bytes from filestore.scan_entries where scan_id = $1 and not is_implied order by path',
        [id],
      ),
    ).toEqual([
      { path: 'a', size_bytes: '0' },
      { path: 'b', size_bytes: '7' },
    ]);
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
    await expect(recordEntries(service, id, manyFiles(10_001))).rejects.toMatchObject(
      refusedBy('FS422', 'limit_check'),
    );
    expect(await recordEntries(service, id, manyFiles(10_000))).toBe(10_000);
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

test('a file that was modified in the future is recorded', async () => {
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
