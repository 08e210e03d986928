import { figuresInTurns, median, settle, thousands } from '../measure.ts';
import type { Design, Query } from './design.ts';
import { GROUP, label } from './file-writes.ts';
import { type Operation, ofRounds } from './measurement-store.ts';
import { run, type Scene, walBytesOf } from './sampling.ts';

const BATCH = 1_000;
/** A batch is short: several make a figure. */
const BATCHES = 5;

interface SetWrite extends Operation {
  readonly rows: number;
  readonly times: number;
  readonly queryOf: (design: Design) => Query | undefined;
}

/** Many files in one statement, a figure being that of a row. */
export async function measureSetWrites(scene: Scene): Promise<void> {
  const { rows } = await scene.client.query('select count(*)::integer as files from bench.more');
  await measureInTurns(scene, [
    {
      key: 'batch',
      group: GROUP,
      title: `a row of a batch of ${thousands(BATCH)}`,
      unit: 'ms',
      rows: BATCH,
      times: BATCHES,
      queryOf: ({ createBatch }) => createBatch?.(batchOf(scene)),
    },
    {
      key: 'bulk',
      group: GROUP,
      title: 'a row of a bulk load',
      note: 'one statement, into a tree that is there',
      unit: 'ms',
      rows: rows[0].files,
      times: 1,
      queryOf: ({ bulkInsert }) => bulkInsert?.(`-${label()}`),
    },
  ]);
}

/** Files with new names in ten directories, as JSON. */
function batchOf({ tree }: Scene): string {
  const run = label();
  return JSON.stringify(
    Array.from({ length: BATCH }, (_, index) => ({
      parent_id: tree.batchesFrom + (index % Math.min(10, tree.batches)),
      name: `batch-${run}-${index}.dat`,
      size_bytes: 1000 + index,
      checksum: `sha256:${run.padEnd(54, '0')}${String(index).padStart(10, '0')}`,
      metadata: { owner: `user-${index % 200}`, remark: `${run} `.repeat(15) },
    })),
  );
}

async function measureInTurns(
  { client, designs, store, rounds, say }: Scene,
  writes: readonly SetWrite[],
): Promise<void> {
  say(writes.map(({ title }) => title).join('; '));
  const able = writes.flatMap((write) =>
    designs.filter((design) => write.queryOf(design) !== undefined).map((design) => ({ write, design })),
  );
  const figures = await figuresInTurns(
    rounds,
    Object.fromEntries(
      able.map(({ write: { rows, times, queryOf }, design }, place) => [
        place,
        async () => {
          await design.settle?.(client);
          await settle(client);
          let ms = 0;
          const walBytes = await walBytesOf(client, async () => {
            for (let time = 0; time < times; time += 1) {
              const one = queryOf(design);
              if (one === undefined) continue;
              const startedAt = performance.now();
              await run(client, one);
              ms += performance.now() - startedAt;
            }
          });
          return { ms: ms / rows / times, walBytes: walBytes / rows / times };
        },
      ]),
    ),
  );
  for (const [place, { write, design }] of able.entries()) {
    const { rows: _rows, times: _times, queryOf: _queryOf, ...operation } = write;
    const found = figures[place] ?? [];
    store.add(
      operation,
      ofRounds(
        design.key,
        found.map(({ ms }) => ms),
        { walBytes: median(found.map(({ walBytes }) => walBytes)) },
      ),
    );
  }
}
