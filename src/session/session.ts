import { setTimeout as delay } from 'node:timers/promises';
import pg, { type QueryResult, type QueryResultRow } from 'pg';
import { copyOf, type Database } from '../settings/database.ts';
import { sendUntilLifted } from '../settings/setting-statement.mjs';
import { ROW_TYPES } from '../value-parsers.ts';
import { connectionError, connectionLostError, isConnectionLoss, isTemporary } from './connection-error.ts';
import { SilenceWatch } from './silence.mjs';

/** A server that does not answer for this long counts as lost. */
const ANSWER_MS = 5_000;
/** How long a server may take to answer after the signal was aborted. */
const STOP_MS = 2_000;
/** Time limit for closing a connection cleanly. */
const CLOSE_MS = 1_000;

/** pg's events of the messages by which a server asks for one. */
const PASSWORD_REQUESTS = [
  'authenticationCleartextPassword',
  'authenticationMD5Password',
  'authenticationSASL',
] as const;

/** Anything that runs a statement the way pg does. */
export interface Queryable {
  query<Row extends QueryResultRow = QueryResultRow>(text: string): Promise<QueryResult<Row>>;
}

/** The rows of the last statement of a message. */
export async function lastRows<Row extends QueryResultRow>(
  session: Queryable,
  message: string,
): Promise<readonly Row[]> {
  // Several statements are several results, which pg's types do not know.
  const results = (await sendUntilLifted(() =>
    session.query(message),
  )) as unknown as readonly QueryResult<Row>[];
  return results.at(-1)?.rows ?? [];
}

/** An answer; undefined if it does not come in time. A later failure is no unhandled rejection. */
export function inTime<T>(answer: Promise<T>, waitMs: number): Promise<T | undefined> {
  answer.catch(() => undefined);
  return Promise.race([answer, delay(waitMs, undefined, { ref: false })]);
}

/** A connection of the runner. Its errors never become uncaught errors. */
export interface Session extends Queryable {
  readonly database: Database;
  /** Process id that was sent at the connection; a pooler makes one up. */
  readonly announcedPid: number;
  /** Whether the server asked for a password. */
  readonly askedPassword: boolean;
  /** Tests whether the server still answers. */
  isAlive(): Promise<boolean>;
  /**
   * Closes it cleanly, or by force if the server is silent. It first clears settings and locks, because a
   * pooler may give the session to its next client.
   */
  close(options?: { readonly clear: boolean }): Promise<void>;
  /** Opens another session to the same database, without a second attempt. */
  openAnother(signal?: AbortSignal): Promise<Session>;
}

export interface Patience {
  /** Milliseconds to wait for a server that cannot be reached yet. 0: one attempt. */
  readonly waitMs: number;
  /**
   * Ends the wait. A session that is open is then ended too, unless its user closes it within two seconds.
   */
  readonly signal?: AbortSignal | undefined;
  /** Called once, if the first attempt fails and there is time for another. */
  readonly onWaiting?: (reason: string) => void;
  /** Called when the server does not answer on the open session. Default: a warning of the process. */
  readonly onSilent?: (message: string) => void;
}

/**
 * Connects, and waits for a server that is starting or cannot be reached yet. A permanent error, such as a
 * wrong password, is thrown at once.
 * @throws {FilestoreError} `CONNECTION_FAILED` when the server cannot be reached or refuses.
 */
export async function openSession(database: Database, patience: Patience): Promise<Session> {
  const startedAt = performance.now();
  for (let attempt = 1; ; attempt += 1) {
    patience.signal?.throwIfAborted();
    try {
      return await connect(database, patience);
    } catch (cause) {
      patience.signal?.throwIfAborted();
      const error = connectionError(database, cause);
      const leftMs = startedAt + patience.waitMs - performance.now();
      if (!isTemporary(cause) || leftMs <= 0) throw error;
      if (attempt === 1) patience.onWaiting?.(error.message);
      const { signal } = patience;
      await delay(Math.min(100 * attempt, 1_000, leftMs), undefined, { ...(signal && { signal }) });
    }
  }
}

async function connect(database: Database, { signal, onSilent }: Patience): Promise<Session> {
  const client = new pg.Client({ ...copyOf(database.config), types: ROW_TYPES });
  // pg.defaults.binary would return values that have no parser.
  Object.assign(client, { binary: false });
  let askedPassword = false;
  for (const request of PASSWORD_REQUESTS) {
    client.connection.once(request, () => {
      askedPassword = true;
    });
  }
  let lost: unknown;
  // Without this listener, a lost connection would also end the process. Its first error says why.
  client.on('error', (error) => {
    lost ??= error;
  });
  // end() would wait for the server, and would never settle the promise of an unfinished connect().
  const abandon = () => {
    const { stream } = client.connection;
    // pg listens only after it has begun to connect.
    stream.on('error', () => undefined);
    stream.destroy(new Error('Connection terminated by this side'));
  };
  signal?.addEventListener('abort', abandon, { once: true });
  await client
    .connect()
    .catch((error) => {
      // When pg gives up on its own, it leaves the socket open.
      abandon();
      throw error;
    })
    .finally(() => signal?.removeEventListener('abort', abandon));
  new SilenceWatch(database.config, onSilent).watch(client);
  const ended = new AbortController();
  const onAbort = () => {
    delay(STOP_MS, undefined, { signal: ended.signal }).then(abandon, () => undefined);
  };
  signal?.addEventListener('abort', onAbort);
  // One statement at a time, because the watcher, the cancellation and the comparison share the session
  // independently.
  let last: Promise<unknown> = Promise.resolve();
  const query: Session['query'] = <Row extends QueryResultRow>(text: string) => {
    const result = last
      .then(() => client.query<Row>(text))
      .catch((error) => {
        throw isConnectionLoss(error) ? (lost ?? error) : error;
      });
    last = result.catch(() => undefined);
    return result;
  };
  return {
    database,
    announcedPid: processIdOf(client),
    askedPassword,
    query,
    async isAlive() {
      const answer = query('select').then(() => true);
      return (await inTime(answer, ANSWER_MS).catch(() => false)) ?? false;
    },
    openAnother: (other) => openSession(database, { waitMs: 0, signal: other }),
    async close({ clear } = { clear: false }) {
      signal?.removeEventListener('abort', onAbort);
      ended.abort();
      const deadline = setTimeout(abandon, CLOSE_MS);
      if (clear) await query('discard all').catch(() => undefined);
      await client.end().catch(() => undefined);
      clearTimeout(deadline);
    },
  };
}

/** From the server's BackendKeyData message. pg has it as a property that its types lack. */
function processIdOf(client: pg.Client): number {
  return 'processID' in client && typeof client.processID === 'number' ? client.processID : 0;
}

/**
 * Runs `work` on a separate connection, without a second attempt to connect. The signal stops connecting, and
 * ends the session.
 */
export async function withSession<T>(
  database: Database,
  work: (session: Session) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const session = await openSession(database, { waitMs: 0, signal });
  try {
    return await work(session);
  } catch (error) {
    throw isConnectionLoss(error) ? connectionLostError(database.where, error) : error;
  } finally {
    await session.close();
  }
}
