import { figuresInTurns, median, settle } from '../measure.ts';
import type { Design } from './design.ts';
import { GROUP, label } from './file-writes.ts';
import { type Operation, ofRounds } from './measurement-store.ts';
import { run, type Scene, walBytesOf } from './sampling.ts';

const BATCH = 1_000;

/** Many files in one statement. */
export async function measureSetWrites(scene: Scene): Promise<void> {
  await measureBatches(scene);
  await measureBulkInserts(scene);
}

/** Milliseconds of a thousand files in one call. */
async function measureBatches(scene: Scene): Promise<void> {
  const { client, tree, say } = scene;
  say('batches');
  const batch = () => {
    const run = label();
    const files = Array.from({ length: BATCH }, (_, index) => ({
      parent_id: tree.batchesFrom + (index % Math.min(10, tree.batches)),
      name: `batch-${run}-${index}.dat`,
      size_bytes: 1000 + index,
      checksum: `sha256:${run.padEnd(54, '0')}${String(index).padStart(10, '0')}`,
      metadata: { owner: `user-${index % 200}`, remark: `${run} `.repeat(15) },
    }));
    return JSON.stringify(files);
  };
  await measureSets(
    scene,
    { key: 'batch', group: GROUP, title: `a row of a batch of ${BATCH}`, unit: 'ms' },
    BATCH,
    3,
    ({ createBatch }) => createBatch && (() => run(client, createBatch(batch()))),
  );
}

/** Milliseconds of a row of a load into a tree that is there. */
async function measureBulkInserts(scene: Scene): Promise<void> {
  const { client, say } = scene;
  const { rows } = await client.query('select count(*)::integer as files from bench.more');
  say('bulk load');
  await measureSets(
    scene,
    {
      key: 'bulk',
      group: GROUP,
      title: 'a row of a bulk load',
      unit: 'ms',
      note: 'one statement, into a tree that is there',
    },
    rows[0].files,
    1,
    ({ bulkInsert }) => bulkInsert && (() => run(client, bulkInsert(`-${label()}`))),
  );
}

async function measureSets(
  { client, designs, store, rounds }: Scene,
  operation: Operation,
  rows: number,
  times: number,
  workOf: (design: Design) => (() => Promise<unknown>) | undefined,
): Promise<void> {
  const able = designs.flatMap((design) => {
    const work = workOf(design);
    return work === undefined ? [] : [{ design, work }];
  });
  const figures = await figuresInTurns(
    rounds,
    Object.fromEntries(
      able.map(({ design, work }) => [
        design.key,
        async () => {
          await design.settle?.(client);
          await settle(client);
          const startedAt = performance.now();
          const walBytes = await walBytesOf(client, async () => {
            for (let time = 0; time < times; time += 1) await work();
          });
          return { ms: (performance.now() - startedAt) / rows / times, walBytes: walBytes / rows / times };
        },
      ]),
    ),
  );
  for (const { design } of able) {
    const found = figures[design.key] ?? [];
    const ms = found.map((figure) => figure.ms);
    store.add(
      operation,
      ofRounds(design.key, ms, { walBytes: median(found.map((figure) => figure.walBytes)) }),
    );
  }
}
