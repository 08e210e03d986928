import type { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { insertMount, one } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import { applyScan, beginScan, file, manyFiles, readIds, recordEntries } from '../support/rows/scans.ts';

let service: Client;
let key: string;
const { database } = diskForEachTest((disk) => {
  ({ service, key } = disk);
});

/** Enough entries for tables to be emptied as a whole. */
async function planLargeScan(): Promise<string> {
  const { id } = await beginScan(service, key);
  for (let part = 0; part < 5; part += 1) await recordEntries(service, id, manyFiles(10_000), `d${part}`);
  await service.query('select from filestore.scan_differences($1, page_size => 1)', [id]);
  return id;
}

const cancel = (id: string) => service.query('select from filestore.cancel_scan($1)', [id]);

/** How many bytes the tables of entries and changes have, and how many of their rows belong to a scan. */
const left = (id: string) =>
  one(
    database(),
    `select
       pg_relation_size('filestore.scan_entries')::integer as entry_bytes,
       pg_relation_size('filestore.scan_changes')::integer as change_bytes,
       (select count(*) from filestore.scan_entries where scan_id = $1)::integer
         + (select count(*) from filestore.scan_changes where scan_id = $1)::integer as rows`,
    [id],
  );

describe('a large scan that ends', () => {
  test('leaves no dead rows behind when it is alone', async () => {
    // Its lock would be in the way.
    await database().query('alter table filestore.scan_entries set (autovacuum_enabled = false)');
    await database().query('alter table filestore.scan_changes set (autovacuum_enabled = false)');
    const id = await planLargeScan();
    await cancel(id);
    expect(await left(id)).toEqual({ entry_bytes: 0, change_bytes: 0, rows: 0 });
  });

  test('leaves the entries of another scan, which is then applied', async () => {
    const id = await planLargeScan();
    const { mount_key: otherKey } = await insertMount(service, {
      mount_key: `${key}-other`,
      backend_kind: 'local',
      root_path: `/srv/${key}-other`,
    });
    const { id: otherId } = await beginScan(service, otherKey);
    await recordEntries(service, otherId, [file('a'), file('b')]);
    await cancel(id);
    expect((await left(id)).rows).toBe(0);
    await applyScan(service, otherId);
    expect(Object.keys(await readIds(service, otherKey))).toEqual(['a', 'b']);
  });

  test('does not wait for a transaction that has read the entries', async () => {
    const id = await planLargeScan();
    const reader = await database().connect();
    await reader.query('begin');
    await reader.query('select from filestore.scan_entries limit 1');
    await cancel(id);
    await reader.query('commit');
    expect((await left(id)).rows).toBe(0);
  });
});
