import pg, { type ClientConfig, type Pool, type PoolClient } from 'pg';
import { FilestoreError } from '../errors.ts';
import { connectionError } from '../session/connection-error.ts';
import { watchSilence } from '../session/silence.mjs';
import { databaseOf, poolConfig } from '../settings/database.ts';
import {
  type ConnectionSettings,
  missingUrlError,
  poolSettings,
  serviceConnection,
} from '../settings/settings.ts';
import { surviveMigrations } from './overtaken-statements.ts';

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

/**
 * Runs `work` with a connection of the pool, and always returns the connection.
 * @throws {FilestoreError} `TRANSACTION_ROLLED_BACK` when `work` returned within a transaction that it had begun.
 */
export async function withConnection<T>(work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await getClient();
  try {
    const result = await work(client);
    if (client.getTransactionStatus() !== 'I') throw leftOpenError();
    return result;
  } finally {
    client.release();
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
  const statements = surviveMigrations();
  // Without listeners, a connection that the server closes would end the process: the pool listens to idle ones
  // only, and emits their errors. Queries on a lost connection are still rejected.
  created.on('connect', (client) => {
    client.on('error', () => undefined);
    watchSilence(client, config);
    statements.watch(client);
  });
  created.on('error', () => undefined);
  // The next caller would be in the transaction of this one. The pool forgets a client that ends.
  created.on('release', (_, client) => {
    if (client.getTransactionStatus() !== 'I' || statements.mustReconnect(client)) void client.end();
  });
  return created;
}

/**
 * A client whose connection errors name the database and the remedy, also through the pool's own `query` and
 * `connect`.
 */
function clientOf(connection: ConnectionSettings) {
  const database = databaseOf(connection);
  return class extends pg.Client {
    constructor(config?: ClientConfig) {
      super(config);
      // pg.defaults.binary would return values that the parsers of the pool do not get.
      Object.assign(this, { binary: false });
    }

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

function leftOpenError(): FilestoreError {
  return new FilestoreError(
    'TRANSACTION_ROLLED_BACK',
    'The callback of withConnection left a transaction open, which was rolled back. Commit it, or use withTransaction.',
  );
}
