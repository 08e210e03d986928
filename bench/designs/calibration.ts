import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Client } from 'pg';
import { median } from '../measure.ts';
import type { Design } from './design.ts';
import { query } from './design.ts';
import type { Calibration } from './measurement-store.ts';
import { run } from './sampling.ts';
import type { StagedTree } from './staged-tree.ts';

const CALLS = 2_000;
const SYNCS = 200;

/** What the machine takes for the smallest things, so that figures of different machines and hours can be compared. */
export async function calibrate(
  client: Client,
  when: string,
  design: Design,
  tree: StagedTree,
): Promise<Calibration> {
  const time = async (queryOf: (call: number) => ReturnType<typeof query>) => {
    const times: number[] = [];
    for (let call = 0; call < CALLS; call += 1) {
      const startedAt = performance.now();
      await run(client, queryOf(call));
      times.push(performance.now() - startedAt);
    }
    return median(times);
  };
  return {
    when,
    emptyStatementMs: await time(() => query('select')),
    keyLookupMs: await time((call) => design.byId(tree.files[call % tree.files.length]?.id ?? '1')),
    fsyncMs: fsyncTime(),
  };
}

/** Median milliseconds of writing 8 KiB and waiting for the disk, in the folder for temporary files. */
function fsyncTime(): number {
  const folder = mkdtempSync(join(tmpdir(), 'fs-fsync-'));
  const file = openSync(join(folder, 'file'), 'w');
  try {
    const page = Buffer.alloc(8192, 1);
    return median(
      Array.from({ length: SYNCS }, () => {
        const startedAt = performance.now();
        writeSync(file, page);
        fdatasyncSync(file);
        return performance.now() - startedAt;
      }),
    );
  } finally {
    closeSync(file);
    rmSync(folder, { recursive: true });
  }
}
