import type { Socket } from 'node:net';
import type { ClientBase, PoolClient, QueryResult } from 'pg';
import { ConnectionLostError, FilestoreError } from '../errors.ts';
import { paragraph, seconds } from '../text.ts';

/** Milliseconds to wait for statements that a callback did not wait for. Then their session is ended. */
const UNANSWERED_MS = 5_000;

/** pg has no public properties for them. */
interface Queue {
  readonly _activeQuery?: object | null;
  readonly _queryQueue?: readonly unknown[];
  readonly readyForQuery?: boolean;
}

/**
 * Whether the server has not answered every statement completely. A statement fails at the server's error. The
 * state of the transaction arrives later, so that of the client is out of date until then.
 */
export function isAtWork(client: PoolClient): boolean {
  return hasStatements(client) || (client as Queue).readyForQuery !== true;
}

/** Whether a statement, cursor or stream still waits for the server. */
export function hasStatements(client: PoolClient): boolean {
  const { _activeQuery: active, _queryQueue: queue } = client as Queue;
  return active != null || (queue !== undefined && queue.length > 0);
}

/**
 * Waits until the server has answered every statement, or the connection is gone. After some time it ends the
 * session.
 */
export async function untilAnswered(client: PoolClient): Promise<void> {
  if (!isAtWork(client) || client.connection.stream.destroyed) return;
  await new Promise<void>((resolve) => {
    const settle = () => {
      clearTimeout(limit);
      for (const event of ANSWERED) client.off(event, settle);
      resolve();
    };
    const limit = setTimeout(() => {
      endSession(client, unansweredError());
      settle();
    }, UNANSWERED_MS);
    for (const event of ANSWERED) client.on(event, settle);
  });
}

/** A connection that is gone emits the last two. */
const ANSWERED = ['drain', 'error', 'end'] as const;

/**
 * Runs a statement after a callback. It would never be sent if the callback left a cursor or stream open.
 * Then the session is ended.
 * @throws {FilestoreError} `TRANSACTION_ROLLED_BACK` if that happened.
 */
export async function sendAfter(name: string, client: ClientBase, text: string): Promise<QueryResult> {
  let [cursor, bytes] = [openCursor(client), transferred(client)];
  const timer = setInterval(() => {
    const before = [cursor, bytes];
    [cursor, bytes] = [openCursor(client), transferred(client)];
    const isIdle = cursor !== undefined && cursor === before[0] && bytes === before[1];
    if (isIdle) endSession(client, openCursorError(name));
  }, UNANSWERED_MS);
  try {
    return await client.query(text);
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

function transferred(client: ClientBase): number {
  const { bytesRead, bytesWritten } = (client as PoolClient).connection.stream as Socket;
  return bytesRead + bytesWritten;
}

/** At once. Its pending statements fail with the reason, and so do later ones. */
function endSession(client: ClientBase, reason: FilestoreError): void {
  // Without a listener, which only the clients of the pool are sure to have, it would end the process.
  client.on('error', () => undefined);
  (client as PoolClient).connection.stream.destroy(reason);
}

function openCursorError(name: string): FilestoreError {
  const message = paragraph(
    `The callback of ${name} left a cursor or stream open that transferred nothing for ${seconds(UNANSWERED_MS)}.`,
    'Its session was ended, and the transaction rolled back.',
    'Read each to its end, or close it, before the callback ends.',
  );
  return new FilestoreError('TRANSACTION_ROLLED_BACK', message);
}

function unansweredError(): FilestoreError {
  const message = paragraph(
    'The callback of withConnection ended before a statement, cursor or stream of it. Its session was ended',
    `after ${seconds(UNANSWERED_MS)}; a statement may still take effect. Wait for each in the callback.`,
  );
  return new ConnectionLostError(message, []);
}
