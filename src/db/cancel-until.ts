import { setTimeout as delay } from 'node:timers/promises';
import type { Queryable } from './session.ts';

const CANCEL_EVERY_MS = 50;

/**
 * Cancels the statement of a server process repeatedly until it has ended, because between two statements there is
 * nothing to cancel.
 * @param session Another session on the same server.
 * @param endSessionAt When to end the process's whole session instead, by `performance.now()`. Default: never.
 */
export async function cancelUntil(
  session: Queryable,
  pid: number,
  hasEnded: () => boolean,
  endSessionAt = Number.POSITIVE_INFINITY,
): Promise<void> {
  while (!hasEnded()) {
    const end = performance.now() > endSessionAt ? 'pg_terminate_backend' : 'pg_cancel_backend';
    await session.query(`select pg_catalog.${end}(${pid})`);
    await delay(CANCEL_EVERY_MS);
  }
}
