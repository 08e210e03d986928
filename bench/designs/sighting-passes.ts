import type { Client } from 'pg';
import { median, settle } from '../measure.ts';
import type { Design } from './design.ts';
import { ofRounds } from './measurement-store.ts';
import { percentile, run, type Scene, walBytesOf } from './sampling.ts';

const BATCH = 1_000;
const GROUP = 'Heartbeats';

/** Two passes of a watcher over a part of a tree that was just loaded. */
export async function measureSightings(scene: Scene): Promise<void> {
  const { client, tree, store, say } = scene;
  const seen = Math.min(
    100_000,
    Math.max(BATCH, Math.floor(tree.nodes / 10)),
    tree.nodes - tree.filesFrom + 1,
  );
  for (const pass of [1, 2]) {
    say(`heartbeats, pass ${pass}`);
    for (const design of scene.designs) {
      const { heartbeat } = design;
      if (heartbeat === undefined) continue;
      await settle(client);
      const before = await countUpdates(client, design);
      const times: number[] = [];
      const walBytes = await walBytesOf(client, async () => {
        for (let first = 0; first < seen; first += BATCH) {
          const ids = Array.from({ length: Math.min(BATCH, seen - first) }, (_, index) =>
            String(tree.filesFrom + first + index),
          );
          const startedAt = performance.now();
          await run(client, heartbeat(ids));
          times.push(performance.now() - startedAt);
        }
      });
      const after = await countUpdates(client, design);
      const which = pass === 1 ? 'the first pass after a load' : 'the next pass';
      store.add(
        { key: `heartbeat${pass}`, group: GROUP, title: `${BATCH} heartbeats, ${which}`, unit: 'ms' },
        ofRounds(design.key, [median(times)], {
          walBytes: walBytes / seen,
          p99: percentile(times, 0.99),
          calls: times.length,
        }),
      );
      store.add(
        { key: `heartbeatWal${pass}`, group: GROUP, title: `WAL of a heartbeat, ${which}`, unit: 'bytes' },
        ofRounds(design.key, [walBytes / seen]),
      );
      const updates = after.updates - before.updates;
      if (updates > 0) {
        store.add(
          {
            key: `hotShare${pass}`,
            group: GROUP,
            title: `HOT updates among heartbeats, ${which}`,
            unit: '%',
          },
          ofRounds(design.key, [(100 * (after.hot - before.hot)) / updates]),
        );
      }
    }
  }
}

async function countUpdates(client: Client, { schema }: Design): Promise<{ updates: number; hot: number }> {
  await client.query('select pg_stat_force_next_flush()');
  await client.query('select pg_stat_clear_snapshot()');
  const { rows } = await client.query(
    `select sum(n_tup_upd)::float8 as updates, sum(n_tup_hot_upd)::float8 as hot
     from pg_stat_all_tables where schemaname = $1`,
    [schema],
  );
  return rows[0];
}
