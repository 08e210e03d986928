import { join } from 'node:path';
import pg from 'pg';
import { readCommittedMigrations } from '../src/db/committed-migrations.ts';
import { type BenchDatabase, type BenchServer, withEmptyDatabase } from './bench-server.ts';

/**
 * Gives the work a new database with the schema of another checkout, and drops it afterwards. Only the SQL of that
 * checkout is used, applied by this one: its code may be of any age.
 */
export async function withOtherSchema<T>(
  server: BenchServer,
  checkout: string,
  work: (database: BenchDatabase) => Promise<T>,
): Promise<T> {
  const migrations = await readCommittedMigrations(join(checkout, 'migrations'));
  return withEmptyDatabase(server, async (url) => {
    const client = new pg.Client(url);
    await client.connect();
    try {
      for (const { filename, body, transaction } of migrations) {
        await client.query(transaction ? `begin;\n${body}\n;commit` : body).catch((cause: Error) => {
          throw new Error(`${filename} of ${checkout}: ${cause.message}`, { cause });
        });
      }
      // Settings that a migration left behind end with its session.
      await client.query('discard all');
      return await work({ url, client });
    } finally {
      await client.end();
    }
  });
}
