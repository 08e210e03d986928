import type pg from 'pg';
import { codeOf } from '../../src/cause-codes.ts';
import type * as Package from '../../src/index.ts';
import type { SessionClasses } from './statement-classes.ts';
import type { StatementRecord } from './statement-record.ts';

/** Runs statements of a service: single ones, and transactions that are repeated when a migration overtakes them. */
export interface Session {
  readonly single: Queries;
  transact<T>(work: (client: Queries) => Promise<T>): Promise<T>;
}

export type Queries = Pick<pg.Client, 'query'>;

const RETRIES = 3;
const OUTDATED = '0A000';
const REPEATABLE: ReadonlySet<string | undefined> = new Set(['40001', '40P01', '42804', OUTDATED]);

/** A session of the package's pool, which repeats single statements itself. */
export function sessionOfPackage(
  { getPool, withTransaction }: Pick<typeof Package, 'getPool' | 'withTransaction'>,
  record: StatementRecord,
  { alone, inTransaction }: SessionClasses,
): Session {
  return {
    single: record.of(getPool(), alone) as unknown as Queries,
    transact: (work) =>
      withTransaction((client) => work(record.of(client, inTransaction)), { retries: RETRIES }),
  };
}

/** A session of another pool, for which the service does what docs/service.md says. */
export function sessionOfPool(pool: pg.Pool, record: StatementRecord, classes: SessionClasses): Session {
  const outdated = new WeakSet<pg.PoolClient>();
  const repeated = async <T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> => {
    for (let left = RETRIES; ; left -= 1) {
      const client = await pool.connect();
      try {
        return await work(client);
      } catch (error) {
        if (client.getTransactionStatus() !== 'I') await client.query('rollback');
        if (left <= 0 || !REPEATABLE.has(codeOf(error))) throw error;
        // Its prepared statements would fail until the session ends.
        if (codeOf(error) === OUTDATED) outdated.add(client);
      } finally {
        client.release(outdated.has(client));
      }
    }
  };
  const query = (...args: Parameters<pg.Client['query']>) =>
    repeated((client) => record.of(client, classes.alone).query(...args) as unknown as Promise<unknown>);
  return {
    single: { query } as unknown as Queries,
    transact: (work) =>
      repeated(async (client) => {
        const measured = record.of(client, classes.inTransaction);
        await measured.query('begin');
        const result = await work(measured);
        await measured.query('commit');
        return result;
      }),
  };
}
