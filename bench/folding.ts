import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { withClient } from '../src/testing/with-client.ts';

const BATCH = 10_000;
const EVERY_MS = 1_000;

/** Folds until no deltas are pending, while nothing else writes. */
export async function foldAll(client: Client): Promise<void> {
  while ((await fold(client)) > 0);
}

/** Does work while a worker folds every second. */
export async function whileFolding<T>(url: string, work: () => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const folding = withClient(url, async (client) => {
    while (!stop.signal.aborted) {
      // While others write, there is always something to fold: "until 0" would never pause.
      while ((await fold(client)) === BATCH);
      await delay(EVERY_MS, undefined, { signal: stop.signal }).catch(() => undefined);
    }
  });
  try {
    return await work();
  } finally {
    stop.abort();
    await folding;
  }
}

async function fold(client: Client): Promise<number> {
  const { rows } = await client.query('select filestore.fold_rollups($1::integer) as folded', [BATCH]);
  return rows[0].folded;
}
