import { expect, test } from 'vitest';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import {
  beginScan,
  differences,
  type Entry,
  file,
  manyFiles,
  recordEntries,
  scan,
} from '../support/rows/scans.ts';

let key: string;
const { database } = diskForEachTest((disk) => {
  ({ key } = disk);
});

interface Node {
  readonly 'Hash Batches'?: number;
  readonly Plans?: readonly Node[];
}

const batchesIn = (node: Node): readonly number[] => [
  ...(node['Hash Batches'] === undefined ? [] : [node['Hash Batches']]),
  ...(node.Plans ?? []).flatMap(batchesIn),
];

/** Files that swap their names in pairs, and are overwritten, gone or new: one in ten. */
const changed = (files: readonly Entry[]): readonly Entry[] =>
  files.flatMap((entry, index) => {
    const partner = files[index ^ 1];
    if (index % 40 < 2 && partner !== undefined) return [{ ...partner, path: entry.path }];
    if (index % 40 === 2) return [{ ...entry, size_bytes: 2 }];
    if (index % 40 === 3) return [file(`new${index}`, `new${index}`)];
    return [entry];
  });

test('no join in the plan of a scan is split into files of a few rows each', async () => {
  const files = manyFiles(5_000);
  const client = await database().connectAsSuperuser();
  await scan(client, key, files);
  await database().query('analyze');
  const { id } = await beginScan(client, key);
  await recordEntries(client, id, changed(files));

  const batches: number[] = [];
  client.on('notice', ({ message = '' }) => {
    const plan = /plan:\n(\{[\s\S]*\})/.exec(message)?.[1];
    if (plan !== undefined) batches.push(...batchesIn(JSON.parse(plan).Plan));
  });
  await client.query(`
    load 'auto_explain';
    set auto_explain.log_min_duration = 0;
    set auto_explain.log_nested_statements = on;
    set auto_explain.log_analyze = on;
    set auto_explain.log_timing = off;
    set auto_explain.log_format = json;
    set client_min_messages = log`);
  const lines = await differences(client, id);

  expect(lines.length).toBeGreaterThan(400);
  expect(batches.length).toBeGreaterThan(20);
  expect(Math.max(...batches)).toBeLessThanOrEqual(16);
});
