import pg, { type Pool, type PoolClient } from 'pg';
import { databaseOf, poolConfig } from '../settings/database.ts';
import {
  type ConnectionSettings,
  missingUrlError,
  poolSettings,
  serviceConnection,
} from '../settings/settings.ts';
import { watchSilence } from '../silence.mjs';
import { connectionError } from './connection-error.ts';

/** The schema of this package. SQL writes it before each name. */
export const POSTGRES_SCHEMA = 'filestore';

/** The pool of the process, the only module state of this package. */
let pool: Pool | undefined;

/**
 * The pool of the process. The first call creates it from FILESTORE_DATABASE_URL (else DATABASE_URL) and
 * the pool variables of {@link poolSettings}. Connections are opened when they are needed.
 * @throws {SettingsError} when no URL is set or a value cannot be used.
 */
export function getPool(): Pool {
  pool ??= createPool();
  return pool;
}

/**
 * A connection of the pool. Return it with `release()`, or use {@link withConnection}, which does.
 * @throws {FilestoreError} `CONNECTION_FAILED` when the server cannot be reached or refuses.
 */
export async function getClient(): Promise<PoolClient> {
  const connection = requireServiceConnection();
  try {
    return await getPool().connect();
  } catch (cause) {
    throw connectionError(databaseOf(connection), cause);
  }
}

/** Runs `work` with a connection of the pool, and always returns the connection. */
export async function withConnection<T>(work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await getClient();
  try {
    return await work(client);
  } finally {
    client.release();
  }
}

/**
 * Runs `work` in a READ COMMITTED transaction: committed when it returns, rolled back when it throws. A
 * connection whose rollback fails is closed and not returned to the pool.
 */
export async function withTransaction<T>(work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await getClient();
  let broken: Error | undefined;
  try {
    await client.query('begin isolation level read committed');
    const result = await work(client);
    await client.query('commit');
    return result;
  } catch (error) {
    await client.query('rollback').catch((rollbackError: Error) => {
      broken = rollbackError;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}

/** Closes the pool once its connections are returned. The next call of {@link getPool} creates a new one. */
export async function closePool(): Promise<void> {
  const closing = pool;
  pool = undefined;
  await closing?.end();
}

function createPool(): Pool {
  const { max, idleTimeoutMs } = poolSettings();
  const connection = requireServiceConnection();
  const config = poolConfig(connection);
  const created = new pg.Pool({
    ...config,
    Client: clientOf(connection),
    max,
    idleTimeoutMillis: idleTimeoutMs,
  });
  // Without listeners, a connection that the server closes would end the process: the pool listens to idle ones
  // only, and emits their errors. Queries on a lost connection are still rejected.
  created.on('connect', (client) => {
    client.on('error', () => undefined);
    watchSilence(client, config);
  });
  created.on('error', () => undefined);
  return created;
}

/**
 * A client whose connection errors name the database and the remedy, also through the pool's own `query` and
 * `connect`.
 */
function clientOf(connection: ConnectionSettings) {
  const database = databaseOf(connection);
  return class extends pg.Client {
    override connect(): Promise<pg.Client>;
    override connect(callback: (error: Error) => void): void;
    override connect(callback?: (error: Error) => void): Promise<pg.Client> | undefined {
      if (callback === undefined) {
        return super.connect().catch((cause) => {
          throw connectionError(database, cause);
        });
      }
      // Called with null on success.
      super.connect((cause: Error) => callback(cause && connectionError(database, cause)));
      return undefined;
    }
  };
}

function requireServiceConnection() {
  const connection = serviceConnection();
  if (connection === undefined) throw missingUrlError('a service needs one.');
  return connection;
}
