import pg, { type Pool, type PoolClient, type PoolConfig } from 'pg';
import { FilestoreError } from '../errors.ts';
import { connectionError } from '../session/connection-error.ts';
import type { Database } from '../settings/database.ts';
import { paragraph } from '../text.ts';
import { nameLoss } from './lost-connections.ts';
import { hasStatements, isAtWork, untilAnswered } from './unanswered.ts';

type Connected = Parameters<Pool['connect']>[0];
type Callback = (error: unknown, result?: unknown) => void;
type Run = (statement: unknown, values?: unknown, callback?: Callback) => Promise<unknown>;

/** A pool whose errors name the database and the remedy when there is no connection, or it is lost. */
export class ServicePool extends pg.Pool {
  // Not shown by a log of the pool: it has the password.
  readonly #database: Database;
  /** Refuse the callers that have no connection yet. pg would let them wait until their time is over. */
  readonly #waiting = new Set<() => void>();
  /** Returned clients the state of whose transaction has not arrived. */
  readonly #returning = new Map<PoolClient, Promise<void>>();

  /** Open connections. pg also counts those that are being opened. */
  #opened = 0;

  constructor(config: PoolConfig, database: Database) {
    super(config);
    this.#database = database;
    this.on('connect', () => {
      this.#opened += 1;
    });
    this.on('remove', () => {
      this.#opened -= 1;
    });
    this.#nameLosses();
  }

  override connect(): Promise<PoolClient>;
  override connect(callback: Connected): void;
  override connect(callback?: Connected): Promise<PoolClient> | undefined {
    if (callback !== undefined) {
      this.#connect(callback);
      return undefined;
    }
    return new Promise((resolve, reject) => {
      this.#connect((error, client) => (client === undefined ? reject(error) : resolve(client)));
    });
  }

  override end(): Promise<void>;
  override end(callback: () => void): void;
  override end(callback?: () => void): Promise<void> | undefined {
    for (const refuse of this.#waiting) refuse();
    if (callback === undefined) return super.end();
    super.end(callback);
    return undefined;
  }

  /** When a connection is lost, pg's query of a pool fails with its error, before the statement does. */
  #nameLosses(): void {
    const run = super.query.bind(this) as Run;
    const query: Run = (statement, values, callback) => {
      const name = (error: unknown) => nameLoss(this.#database, error);
      if (typeof values === 'function') return query(statement, undefined, values as Callback);
      if (callback === undefined) return run(statement, values).catch((error) => Promise.reject(name(error)));
      return run(statement, values, (error, result) => callback(error && name(error), result));
    };
    this.query = query as Pool['query'];
  }

  #connect(callback: Connected): void {
    const refuse = () => {
      this.#waiting.delete(refuse);
      callback(this.#closedError(), undefined, () => undefined);
    };
    this.#waiting.add(refuse);
    const settle: Connected = (cause, client, done) => {
      if (client !== undefined) this.#returnWhenKnown(client);
      if (this.#waiting.delete(refuse))
        callback(cause && this.#nameError(cause), client, client?.release ?? done);
      // It was refused before.
      else client?.release();
    };
    const begin = () => {
      try {
        super.connect(settle);
      } catch (error) {
        // pg checks some settings when it creates the client.
        settle(error instanceof Error ? error : new Error(String(error)), undefined, () => undefined);
      }
    };
    const returning = this.idleCount === 0 ? [...this.#returning.values()] : [];
    // A new connection would take longer.
    if (returning.length > 0) void Promise.race(returning).then(begin);
    else begin();
  }

  /** After an error, the next user of the connection would be in a transaction of which pg does not know yet. */
  #returnWhenKnown(client: PoolClient): void {
    const release = client.release;
    client.release = (destroy) => {
      if (this.#returning.has(client)) {
        throw new Error('Release called on client which has already been released to the pool.');
      }
      // The pool ends a client whose statements still run.
      if (destroy || hasStatements(client) || !isAtWork(client)) return release(destroy);
      const returned = untilAnswered(client).then(() => {
        this.#returning.delete(client);
        release();
      });
      this.#returning.set(client, returned);
    };
  }

  #nameError(cause: Error): FilestoreError {
    if (cause.message.startsWith('Cannot use a pool after')) return this.#closedError(cause);
    if (!cause.message.startsWith('timeout exceeded')) return connectionError(this.#database, cause);
    if (this.#opened === 0) {
      return connectionError(this.#database, Object.assign(cause, { code: 'ETIMEDOUT' }));
    }
    const { max, connectionTimeoutMillis } = this.options;
    const message = paragraph(
      `All connections to ${this.#database.where} are in use (at most ${max}), and none was returned within`,
      `${connectionTimeoutMillis} ms. Return each connection, do not take a second one while you have one,`,
      'or raise FILESTORE_PGPOOL_MAX.',
    );
    return new FilestoreError('CONNECTION_FAILED', message, { cause });
  }

  #closedError(cause?: Error): FilestoreError {
    const message = `The pool of ${this.#database.where} was closed. Call getPool() for a new one.`;
    return new FilestoreError('CONNECTION_FAILED', message, { cause });
  }
}
