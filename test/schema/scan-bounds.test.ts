import type { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
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
const { database } = diskForEachTest((disk) => {
  ({ service, key } = disk);
});

/** A path of so many bytes: segments of 200 bytes below a top. */
function longPath(top: string, bytes: number): string {
  let path = top;
  while (bytes - path.length > 201) path += `/${'x'.repeat(200)}`;
  return `${path}/${'y'.repeat(bytes - path.length - 1)}`;
}

describe('a text of an entry is a string or null, so that no value grows when it is read', () => {
  test.each([
    ['kind', '1'],
    ['backend_identity', '9007199254740993'],
    ['content_hash', '1e130000'],
    ['checksum', '[1e130000, 1e130000]'],
    ['storage_class', '{"a": 1e130000}'],
    ['link_target', 'true'],
    ['last_modified_at', '20260101'],
    ['size_bytes', '[1]'],
    ['size_bytes', 'false'],
  ])('%s cannot be %s', async (field, value) => {
    const { id } = await beginScan(service, key);
    const entries = `[{"path": "a"}, {"path": "b", "${field}": ${value}}]`;
    const refused = {
      ...refusedBy('FS422', 'scan_entries_batch_check'),
      message: expect.stringContaining(`entry 2 has the field "${field}" of type`),
    };
    await expect(
      service.query('select filestore.record_entries($1, $2)', [id, entries]),
    ).rejects.toMatchObject(refused);
    await expect(service.query('select filestore.sync_nodes($1, $2)', [key, entries])).rejects.toMatchObject(
      refused,
    );
  });

  test('nulls are values that are left out, and a size may be a string', async () => {
    const nulls =
      'kind size_bytes last_modified_at backend_identity content_hash checksum storage_class link_target'
        .split(' ')
        .map((field) => [field, null]);
    const { id } = await beginScan(service, key);
    await recordEntries(service, id, [
      { path: 'a', ...Object.fromEntries(nulls) },
      { path: 'b', size_bytes: '9007199254740993' },
    ]);
    await applyScan(service, id);
    expect(
      (await one(service, `select size_bytes from filestore.node_by_path($1, 'b')`, [key])).size_bytes,
    ).toBe('9007199254740993');
  });
});

test('a batch with a path that is too long can be recorded again', async () => {
  const { id } = await beginScan(service, key);
  const entries = [file('a'), file(longPath('d', 2601)), file(longPath('d', 3000))];
  expect(await recordEntries(service, id, entries)).toBe(3);
  expect(await recordEntries(service, id, entries)).toBe(3);
  expect(await applyScan(service, id)).toMatchObject({ entries: '3', refused: '2', created: '1' });
});

describe('directories with a path of the greatest length below them', () => {
  test.each([
    ['swap their names', ['a', 'b'], ['b', 'a']],
    ['move in a circle', ['a', 'b', 'c'], ['b', 'c', 'a']],
  ])('%s', async (_what, from, to) => {
    const entries = (names: readonly string[]) =>
      names.flatMap((name, index) => [directory(name, `d${index}`), file(longPath(name, 2600), `f${index}`)]);
    await scan(service, key, entries(from));
    const before = await readIds(service, key);
    await scan(service, key, entries(to));
    const after = await readIds(service, key);
    expect(to.map((name) => after[name])).toEqual(from.map((name) => before[name]));
    expect(Object.values(after).sort()).toEqual(Object.values(before).sort());
  });
});

test('listing differences again is no plan, of which a scan may have a hundred', async () => {
  await scan(service, key, [file('a', '1'), file('b', '2')]);
  const { id } = await beginScan(service, key);
  await recordEntries(service, id, [file('b', '1'), file('a', '2')]);
  const plans = () => one(service, 'select plans from filestore.scans where id = $1', [id]);
  await differences(service, id);
  const before = await plans();
  await differences(service, id);
  expect(await plans()).toEqual(before);
  await applyOnce(service, id);
  // The swap has to be planned again.
  await service.query("select filestore.upsert_file($1, 'b', 5)", [key]);
  expect(await applyScan(service, id)).toMatchObject({ state: 'finished' });
});

test('the differences of a scan whose plan was thrown away are not listed before apply_scan plans again', async () => {
  await scan(service, key, [file('a', '1')]);
  const { id } = await beginScan(service, key);
  await recordEntries(service, id, [file('b', '1')]);
  await applyOnce(service, id);
  await database().query('update filestore.scans set planned = null where id = $1', [id]);
  await expect(differences(service, id)).rejects.toMatchObject(refusedBy('FS409', 'scans_applying'));
  await applyScan(service, id);
});

describe('a scan of one directory that did not find many of its nodes', () => {
  const many = (count: number) =>
    Array.from({ length: count }, (_, index) => file(`d/f${index}`, `i${index}`));

  test('counts each node once', async () => {
    await scan(service, key, many(400));
    const { id } = await beginScan(service, key, { path: 'd', isRecursive: false });
    await expect(applyOnce(service, id, 0.5)).rejects.toThrow('did not find 400 of the 400 nodes');
    await service.query('select filestore.cancel_scan($1)', [id]);
  });

  test('counts what is below its directories too', async () => {
    await scan(service, key, [
      ...many(200),
      ...many(200).map(({ path }) => file(path.replace('d/', 'd/e/'))),
    ]);
    const { id } = await beginScan(service, key, { path: 'd', isRecursive: false });
    await recordEntries(
      service,
      id,
      many(200).map(({ path }) => file(path.slice(2))),
    );
    await expect(applyOnce(service, id, 0.5)).rejects.toThrow('did not find 201 of the 401 nodes');
    await service.query('select filestore.cancel_scan($1)', [id]);
  });
});

test('the principal of a scan is refused at its beginning if its command could not have it', async () => {
  await expect(
    service.query('select filestore.begin_scan($1, principal => $2)', [key, 'x'.repeat(5000)]),
  ).rejects.toMatchObject({ constraint: 'journal_entries_size_check' });
});

test('a moment of listing counts from its millisecond on', async () => {
  const { id } = await beginScan(service, key);
  await service.query("select filestore.upsert_file($1, 'a', 5)", [key]);
  const { moment } = await one(
    service,
    `select (updated_at + interval '900 microseconds')::text as moment, pg_sleep(0.002) from filestore.node_by_path($1, 'a')`,
    [key],
  );
  await recordEntries(service, id, [file('a', '1', 9)], '', moment);
  expect(await applyScan(service, id)).toMatchObject({ changed: '0', skipped: '1' });
  expect(await readStates(service, key)).toEqual(['a active']);
});
