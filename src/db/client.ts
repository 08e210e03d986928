import type { Pool, PoolClient } from 'pg';
import { FilestoreError } from '../errors.ts';
import { SilenceWatch } from '../session/silence.mjs';
import { databaseOf, poolConfig } from '../settings/database.ts';
import { missingUrlError, poolSettings, serviceConnection } from '../settings/settings.ts';
import { paragraph } from '../text.ts';
import { lossNamer } from './lost-connections.ts';
import { OvertakenStatements } from './overtaken-statements.ts';
import { ServicePool } from './service-pool.ts';
import { isAtWork, untilAnswered } from './unanswered.ts';

/** The schema of this package. SQL writes it before each name. */
export const POSTGRES_SCHEMA = 'filestore';

/** The pool of the process, the only module state of this package. */
let pool: Pool | undefined;

/**
 * The pool of the process. The first call creates it from FILESTORE_DATABASE_URL (else DATABASE_URL) and the
 * pool variables of {@link poolSettings}. Connections are opened when they are needed.
 * @throws {SettingsError} when no URL is set or a value cannot be used.
 */
export function getPool(): Pool {
  pool ??= createPool();
  return pool;
}

/**
 * A connection of the pool. Return it with `release()`, or use {@link withConnection}, which does.
 * @throws {FilestoreError} `CONNECTION_FAILED` when the server cannot be reached or refuses, when no
 * connection of the pool gets free in time, or when {@link closePool} is called.
 */
export async function getClient(): Promise<PoolClient> {
  return getPool().connect();
}

/**
 * Runs `work` with a connection of the pool, and always returns the connection. A statement, cursor or stream
 * that `work` did not wait for has 5 s to end. Then the session is ended, the statement fails with
 * `CONNECTION_LOST`, and the result of `work` is returned.
 * @throws {FilestoreError} `TRANSACTION_ROLLED_BACK` when `work` left a transaction open.
 */
export async function withConnection<T>(work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await getClient();
  try {
    const result = await lend(client, work).finally(async () => {
      // A statement that the callback did not wait for, or whose error it caught, may begin a transaction.
      await untilAnswered(client);
    });
    if (client.getTransactionStatus() !== 'I') {
      const message = paragraph(
        'The callback of withConnection left a transaction open, which was rolled back.',
        'Commit it, or use withTransaction.',
      );
      throw new FilestoreError('TRANSACTION_ROLLED_BACK', message);
    }
    return result;
  } finally {
    client.release();
  }
}

/**
 * Runs `work` with a client that refuses statements afterwards, and no longer ends its connection. A branch
 * of the callback that still runs would disturb the next user of the connection, and so would what the
 * callback sets on the client. It is returned once, also if the callback does so.
 */
export async function lend<T>(client: PoolClient, work: (client: PoolClient) => Promise<T>): Promise<T> {
  let isOver = false;
  const own: PoolClient = Object.create(client);
  const instead: Readonly<Record<PropertyKey, unknown>> = {
    constructor: client.constructor,
    query: (...args: readonly unknown[]) =>
      isOver ? refuseStatement(args) : Reflect.apply(client.query, client, args),
    release: (destroy?: Error | boolean) => {
      if (destroy && !isOver) void client.end();
    },
    end: (done?: () => void) => (isOver ? Promise.resolve(done?.()) : client.end(done as () => void)),
  };
  const lent = new Proxy(own, {
    get(_, key) {
      if (Object.hasOwn(own, key)) return Reflect.get(own, key);
      if (Object.hasOwn(instead, key)) return instead[key];
      const value: unknown = Reflect.get(client, key);
      if (typeof value !== 'function') return value;
      return (...args: readonly unknown[]) => {
        const result: unknown = Reflect.apply(value, client, args);
        return result === client ? lent : result;
      };
    },
  });
  try {
    return await work(lent);
  } finally {
    isOver = true;
  }
}

/** Answers as pg's `query` does: by the callback, by a promise, or at once for a cursor or stream. */
function refuseStatement([statement, ...rest]: readonly unknown[]): Promise<never> | undefined {
  const message = paragraph(
    'A statement was sent after the callback that was given the connection had ended. It was not run.',
    'Wait for every statement in the callback; Promise.all does not wait for the others when one fails.',
  );
  const error = new FilestoreError('TRANSACTION_ENDED', message);
  const config: { readonly submit?: unknown; readonly callback?: unknown } = Object(statement);
  if (typeof config.submit === 'function') throw error;
  const callback = [config.callback, ...rest].find((one) => typeof one === 'function');
  if (typeof callback !== 'function') return Promise.reject(error);
  process.nextTick(() => callback(error));
  return undefined;
}

/**
 * Closes the pool once its connections are returned. Callers that wait for one get `CONNECTION_FAILED`.
 * The next call of {@link getPool} creates a new pool.
 */
export async function closePool(): Promise<void> {
  const closing = pool;
  pool = undefined;
  await closing?.end();
}

function createPool(): Pool {
  const { max, idleTimeoutMs } = poolSettings();
  const connection = serviceConnection();
  if (connection === undefined) throw missingUrlError('a service needs one.');
  const config = poolConfig(connection);
  const database = databaseOf(connection);
  const created = new ServicePool({ ...config, max, idleTimeoutMillis: idleTimeoutMs }, database);
  const silence = new SilenceWatch(config);
  const statements = new OvertakenStatements();
  // Without listeners, a connection that the server closes would end the process: the pool listens to idle
  // ones only, and emits their errors.
  created.on('connect', (client) => {
    // pg.defaults.binary would return values that the parsers of the pool do not get.
    Object.assign(client, { binary: false });
    const nameLoss = lossNamer(client, database);
    silence.watch(client);
    limitClosing(client);
    statements.watch(client, nameLoss);
  });
  created.on('error', () => undefined);
  // The next caller would be in the transaction of this one. The pool forgets a client that ends.
  created.on('release', (_, client) => {
    if (client.getTransactionStatus() !== 'I' || isAtWork(client) || statements.mustReconnect(client))
      void client.end();
  });
  return created;
}

/** Milliseconds for closing a connection cleanly. */
const CLOSE_MS = 1_000;

/** pg waits until the server closes the connection. One that passes nothing on would keep the process alive. */
function limitClosing(client: PoolClient): void {
  const end = client.end;
  const endInTime = (...args: readonly unknown[]): unknown => {
    setTimeout(() => client.connection.stream.destroy(), CLOSE_MS).unref();
    return Reflect.apply(end, client, args);
  };
  Object.assign(client, { end: endInTime });
}
