import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { withClient } from '../src/testing/with-client.ts';
import { withDatabase } from './bench-server.ts';
import type { Comparison } from './context.ts';
import { foldAll } from './folding.ts';
import { createFilledTree } from './generated-tree.ts';
import { atMost, compare, settle, single, thousands } from './measure.ts';

const VERSIONS_PER_NODE = 100;
const BATCH = 1_000;
const PAUSE_MS = 20;
const WRITERS = 8;
/** Each writer begins a write so often: together a fraction of what the server can do, so that they do not queue anyway. */
const WRITE_EVERY_MS = 40;

/** What content writes notice of prune_history(): the 99th percentile of their times, while versions are pruned and not. */
export const prune: Comparison = ({ server, nodes, rounds, seconds: length, report }) =>
  withDatabase(server, async ({ url, client }) => {
    const files = Math.ceil(nodes / VERSIONS_PER_NODE);
    await createFilledTree(client, 100, files);
    const { rows } = await client.query("select id from filestore.nodes where kind = 'file'");
    const ids: readonly string[] = rows.map(({ id }) => id);
    const pruned: number[] = [];
    const alone: number[] = [];
    const durations: number[] = [];
    for (let round = 0; round < rounds; round += 1) {
      await addVersions(client);
      const idle = () => slowWrites(url, ids, () => delay(length * 1000));
      const before = await idle();
      const startedAt = performance.now();
      pruned.push(await slowWrites(url, ids, () => pruneAll(client, nodes)));
      durations.push((performance.now() - startedAt) / 1000);
      alone.push((before + (await idle())) / 2);
    }
    report(
      compare(
        'slowest percent of content writes while prune_history() runs, twin: before and after',
        'ms',
        pruned,
        alone,
        atMost(1.05),
      ),
      single(`prune_history() of ${thousands(nodes)} versions beside ${WRITERS} writers`, 's', durations),
    );
  });

async function addVersions(client: Client): Promise<void> {
  for (let version = 0; version < VERSIONS_PER_NODE; version += 1) {
    await client.query("update filestore.nodes set size_bytes = size_bytes + 1 where kind = 'file'");
  }
  await foldAll(client);
  await client.query('vacuum analyze filestore.nodes, filestore.snapshots');
  await settle(client);
}

async function pruneAll(client: Client, versions: number): Promise<void> {
  for (let pruned = 0; pruned < versions; ) {
    const { rows } = await client.query('select filestore.prune_history($1, 0, $2) as pruned', ['0', BATCH]);
    if (rows[0].pruned === 0) return;
    pruned += rows[0].pruned;
    await delay(PAUSE_MS);
  }
}

/** The 99th percentile of the milliseconds from when a write was due to its end, while the work is done. */
async function slowWrites(
  url: string,
  ids: readonly string[],
  work: () => Promise<unknown>,
): Promise<number> {
  const stop = new AbortController();
  const writing = Array.from({ length: WRITERS }, () =>
    withClient(url, (client) => writeAgainAndAgain(client, ids, stop.signal)),
  );
  try {
    await work();
  } finally {
    stop.abort();
  }
  const times = (await Promise.all(writing)).flat().sort((a, b) => a - b);
  return times[Math.floor(times.length * 0.99)] ?? Number.NaN;
}

async function writeAgainAndAgain(
  client: Client,
  ids: readonly string[],
  signal: AbortSignal,
): Promise<readonly number[]> {
  const times: number[] = [];
  for (let due = performance.now() + Math.random() * WRITE_EVERY_MS; !signal.aborted; due += WRITE_EVERY_MS) {
    await delay(Math.max(0, due - performance.now()), undefined, { signal }).catch(() => undefined);
    await client.query({
      name: 'write',
      text: 'update filestore.nodes set size_bytes = size_bytes + 1 where id = $1',
      values: [ids[Math.floor(Math.random() * ids.length)]],
    });
    times.push(performance.now() - due);
  }
  return times;
}
