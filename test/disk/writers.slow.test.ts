import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Client } from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { mulberry32 } from '../support/mulberry32.ts';
import { insertMount, one } from '../support/rows/nodes.ts';
import { applyOnce, beginScan, type Entry, readStates, recordEntries, scan } from '../support/rows/scans.ts';
import { until } from '../support/until.ts';
import { listDisk } from './disk.ts';
import { DiskChanges } from './disk-changes.ts';
import { isNameable } from './scan-disk.ts';

const database = databaseForEachTest();
let folder: string;
let root: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'filestore-disk-'));
  root = join(folder, 'root');
  mkdirSync(root);
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A service that writes anywhere in the catalogue, whatever the disk has. Its writes may be refused. */
async function write(client: Client, random: () => number, isOver: () => boolean): Promise<number> {
  let written = 0;
  while (!isOver()) {
    const name = ['a', 'b', 'c', 'd', 'img1'][Math.floor(random() * 5)];
    const any = `(select id from filestore.nodes where live and parent_id is not null order by md5(id::text || ${random()}) limit 1)`;
    const statement = [
      `select filestore.upsert_file('disk', '${name}/${name}', ${Math.floor(random() * 9)})`,
      `select filestore.move_node(${any}, new_name => '${name}')`,
      `select filestore.move_node(${any}, (select id from filestore.nodes where live and directory_path is not null order by md5(id::text || ${random()}) limit 1))`,
      `select filestore.delete_node(${any})`,
      `select filestore.merge_metadata(${any}, '{"a": ${Math.floor(random() * 9)}}')`,
      `select filestore.sync_nodes('disk', '[{"path": "${name}/s"}, {"path": "${name}/t", "size_bytes": 3}]')`,
      'select filestore.fold_rollups()',
    ][Math.floor(random() * 7)];
    try {
      await client.query(statement ?? '');
      await client.query('select pg_sleep(0.02)');
      written += 1;
    } catch (error) {
      // Moves by any id wait for each other in any order.
      expect((error as { code: string }).code).toMatch(/^(FS4\d\d|40P01)$/);
    }
  }
  return written;
}

/** Scans the disk once. Its connection is ended in the middle of some calls, and the next one continues. */
async function scanWithKills(entries: readonly Entry[], admin: Client, random: () => number): Promise<void> {
  let client = await database().connect();
  const { id } = await beginScan(client, 'disk');
  await recordEntries(client, id, entries);
  for (let state = ''; state !== 'finished'; ) {
    const { pid } = await one(client, 'select pg_backend_pid() as pid');
    const call = applyOnce(client, id, 1, 1 + Math.floor(random() * 9)).catch((error) => error);
    const isKilled = random() < 0.2;
    if (isKilled) await admin.query('select pg_terminate_backend($1)', [pid]);
    const answer = await call;
    if (!(answer instanceof Error)) ({ state } = answer);
    // A transaction that was interrupted at another place, or by a writer that waited for it too.
    else if (!isKilled) expect(answer).toMatchObject({ code: '40P01' });
    if (isKilled) {
      const gone = () => admin.query('select from pg_stat_activity where pid = $1', [pid]);
      await until(async () => (await gone()).rows.length === 0);
      client = await database().connect();
    }
  }
}

test.each([1, 2, 3])(
  'scans whose workers are killed, beside writers, end in the state of the disk: seed %i',
  async (seed) => {
    const random = mulberry32(seed);
    const disk = new DiskChanges(root, random);
    const admin = await database().connectAsSuperuser();
    await insertMount(admin, { mount_key: 'disk', backend_kind: 'local', root_path: root });
    let over = false;
    const clients = [await database().connect(), await database().connect()];
    const writers = Promise.all(
      clients.map((client, index) => write(client, mulberry32(seed * 10 + index), () => over)),
    );
    try {
      for (let round = 0; round < 5; round += 1) {
        for (let change = 0; change < 30; change += 1) disk.change();
        await scanWithKills(listDisk(root), admin, random);
      }
    } finally {
      over = true;
    }
    for (const written of await writers) expect(written).toBeGreaterThan(10);

    const entries = listDisk(root);
    await scan(admin, 'disk', entries);
    const active = (await readStates(admin, 'disk')).filter((line) => line.endsWith(' active'));
    expect(active.sort()).toEqual(
      entries
        .filter(isNameable)
        .map(({ path }) => `${path} active`)
        .sort(),
    );
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
    expect(await scan(admin, 'disk', entries)).toMatchObject({
      created: '0',
      moved: '0',
      changed: '0',
      found: '0',
      missing: '0',
      deleted: '0',
    });
  },
);
