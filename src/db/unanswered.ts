import type { ClientBase, PoolClient, QueryResult } from 'pg';
import { FilestoreError } from '../errors.ts';
import { paragraph, seconds } from '../text.ts';

/** Milliseconds to wait for statements that a callback did not wait for. Then their connection is closed. */
const UNANSWERED_MS = 5_000;

/** pg has no public properties for them. */
interface Queue {
  readonly _activeQuery?: object | null;
  readonly _queryQueue?: readonly unknown[];
}

/** Whether the server has not answered every statement. */
export function isAtWork(client: PoolClient): boolean {
  const { _activeQuery: active, _queryQueue: queue } = client as Queue;
  return active != null || (queue !== undefined && queue.length > 0);
}

/** Waits until the server has answered every statement, but not for long. */
export function untilAnswered(client: PoolClient): Promise<void> {
  return new Promise((resolve) => {
    const limit = setTimeout(resolve, UNANSWERED_MS);
    client.once('drain', () => {
      clearTimeout(limit);
      resolve();
    });
  });
}

/**
 * Runs a statement after a callback. It would never be sent if the callback left a cursor or stream open.
 * Then the session is ended.
 * @throws {FilestoreError} `TRANSACTION_ROLLED_BACK` if that happened.
 */
export async function sendAfter(name: string, client: ClientBase, text: string): Promise<QueryResult> {
  let before = openCursor(client);
  let hasEnded = false;
  const timer = setInterval(() => {
    const now = openCursor(client);
    if (now !== undefined && now === before) {
      hasEnded = true;
      void (client as PoolClient).end();
    }
    before = now;
  }, UNANSWERED_MS);
  try {
    return await client.query(text);
  } catch (cause) {
    throw hasEnded ? openCursorError(name, cause) : cause;
  } finally {
    clearInterval(timer);
  }
}

/** What the server answers now, unless it is a statement, which ends without its reader. */
function openCursor(client: ClientBase): object | undefined {
  const { _activeQuery: active } = client as Queue;
  const { Query } = client.constructor as { readonly Query?: new () => object };
  return active == null || Query === undefined || active instanceof Query ? undefined : active;
}

function openCursorError(name: string, cause: unknown): FilestoreError {
  const message = paragraph(
    `The callback of ${name} left a cursor or stream open for ${seconds(UNANSWERED_MS)}. Its session was ended,`,
    'and the transaction rolled back. Read each to its end, or close it, before the callback ends.',
  );
  return new FilestoreError('TRANSACTION_ROLLED_BACK', message, { cause });
}
