import { setTimeout as delay } from 'node:timers/promises';
import type { Client, QueryResult } from 'pg';
import { asAdmin } from './test-database.ts';

/** The result or the error of a statement. */
export type Outcome =
  | { readonly ok: true; readonly result: QueryResult }
  | { readonly ok: false; readonly error: Error & { readonly code: string; readonly constraint?: string } };

/** Sends a statement, and waits until it ends or waits for a lock. The outcome resolves when it ends. */
export async function sendAndBlock(
  client: Client,
  text: string,
  values: unknown[] = [],
): Promise<{ readonly waits: boolean; readonly outcome: Promise<Outcome> }> {
  const { rows } = await client.query('select pg_backend_pid() as pid');
  let done = false;
  const outcome = client
    .query(text, values)
    .then<Outcome, Outcome>(
      (result) => ({ ok: true, result }),
      (error) => ({ ok: false, error }),
    )
    .finally(() => {
      done = true;
    });
  const waits = await asAdmin(async (admin) => {
    for (;;) {
      if (done) return false;
      const { rows: blocked } = await admin.query('select cardinality(pg_blocking_pids($1)) > 0 as blocked', [
        rows[0].pid,
      ]);
      if (blocked[0].blocked) return true;
      await delay(5);
    }
  });
  return { waits, outcome };
}
