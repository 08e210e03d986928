import type { Client } from 'pg';
import { expect, test } from 'vitest';
import { insertMount, one } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import {
  applyOnce,
  beginScan,
  directory,
  type Entry,
  file,
  recordEntries,
  scan,
} from '../support/rows/scans.ts';

let service: Client;
const { database } = diskForEachTest((disk) => {
  ({ service } = disk);
});

const BEFORE = [
  ...[directory('a', 'd1'), file('a/x', 'f1'), file('a/y', 'f2'), directory('b', 'd2'), file('b/x', 'f3')],
  ...[directory('c', 'd3'), directory('c/deep', 'd4'), file('c/deep/f', 'f4'), file('keep', 'f5')],
  ...[file('gone', 'f6'), file('one', 'f7'), file('two', 'f8'), file('kind', 'f9'), directory('tree', 'd5')],
  ...[file('tree/f', 'f10'), directory('old', 'd6'), file('old/f', 'f11')],
];

/** What is found later on two disks that were equal. Most paths mean something else on the other one. */
const AFTER: readonly (readonly Entry[])[] = [
  [
    ...[
      directory('z', 'd9'),
      directory('z/a', 'd1'),
      file('z/a/x', 'f1', 2),
      file('z/a/y', 'f2'),
      file('a', 'f20'),
    ],
    ...[
      directory('b', 'd2'),
      file('b/w', 'f3'),
      directory('c', 'd3'),
      directory('deep', 'd4'),
      file('deep/f', 'f4'),
    ],
    ...[
      file('keep', 'f5', 3),
      file('one', 'f8'),
      file('two', 'f7'),
      directory('kind', 'd10'),
      file('tree', 'f21'),
    ],
    ...[file('kind/new', 'f22'), directory('old', 'd6'), file('old/f', 'f11')],
  ],
  [
    ...[
      directory('a', 'd1'),
      file('a/new', 'f30'),
      directory('z', 'd2'),
      file('z/x', 'f3', 4),
      file('z/y', 'f2'),
    ],
    ...[
      file('keep', 'f5'),
      file('gone', 'f6', 5),
      file('one', 'f7'),
      file('two', 'f31'),
      file('kind', 'f9', 6),
    ],
    ...[
      directory('b', 'd5'),
      file('b/f', 'f10'),
      directory('b/old', 'd6'),
      file('b/old/f', 'f11'),
      file('deep', 'f4'),
    ],
  ],
];

/** A disk that was scanned once. */
async function createDisk(name: string): Promise<string> {
  await insertMount(service, { mount_key: name, backend_kind: 'local', root_path: `/srv/${name}` });
  await scan(service, name, BEFORE);
  return name;
}

/** What the nodes of a mount have become, in lines such as `a/x 1 active, then z/a/x 2 active`. */
async function changesOf(key: string): Promise<readonly string[]> {
  const rows = await database().query<{ line: string }>(
    `select string_agg(v.path || ' ' || v.kind || ' ' || v.size_bytes || ' ' || v.state || ' ' || coalesce(v.backend_identity, ''), ', then ' order by v.version) as line
     from filestore.view_filestore_node_versions v
     join filestore.backend_mounts m on m.id = v.backend_mount_id
     where m.mount_key = $1 group by v.id order by line`,
    [key],
  );
  // Where nodes change places, one is parked at a path that contains its id.
  return rows.map(({ line }) => line.replace(/~\w+/, '~'));
}

const COUNTS = ['created', 'moved', 'changed', 'found', 'missing', 'deleted', 'skipped'] as const;

test.each([1, 3])(
  'two scans that are applied in turns, %i nodes each, change what each changes alone',
  async (maxNodes) => {
    const disks: { id: string; key: string; done?: Record<string, unknown> }[] = [];
    const alone: unknown[] = [];
    for (const [at, entries] of AFTER.entries()) {
      const reference = await createDisk(`alone-${maxNodes}-${at}`);
      const { id } = await beginScan(service, reference);
      await recordEntries(service, id, entries);
      let result = await applyOnce(service, id, 1, maxNodes);
      while (result.state !== 'finished') result = await applyOnce(service, id, 1, maxNodes);
      alone.push([await changesOf(reference), COUNTS.map((count) => `${count} ${result[count]}`)]);
    }
    for (const at of AFTER.keys()) {
      const key = await createDisk(`turns-${maxNodes}-${at}`);
      disks.push({ key, id: (await beginScan(service, key)).id });
    }
    // In parts, so that the entries of both are mixed.
    for (let start = 0; start < 20; start += 4)
      for (const [at, disk] of disks.entries())
        await recordEntries(service, disk.id, AFTER[at]?.slice(start, start + 4) ?? []);
    while (disks.some(({ done }) => done === undefined))
      for (const disk of disks.filter(({ done }) => done === undefined)) {
        const result = await applyOnce(service, disk.id, 1, maxNodes);
        if (result.state === 'finished') disk.done = result;
      }
    const inTurns = [];
    for (const { key, done } of disks)
      inTurns.push([await changesOf(key), COUNTS.map((count) => `${count} ${done?.[count]}`)]);
    expect(inTurns).toEqual(alone);
    for (const table of ['scan_entries', 'scan_changes', 'scan_directories', 'scan_sightings'])
      expect(await one(database(), `select count(*) from filestore.${table}`)).toEqual({ count: '0' });
  },
);
