import { join } from 'node:path';
import { readCommittedMigrations } from '../src/graphile/committed-migrations.ts';
import { withClient } from '../src/testing/with-client.ts';
import { type BenchDatabase, type BenchServer, withEmptyDatabase } from './bench-server.ts';

/**
 * Runs `work` with a new database that has the schema of another checkout, and drops it afterwards. It uses only the SQL
 * of that checkout, whose code may be of any age.
 */
export async function withOtherSchema<T>(
  server: BenchServer,
  checkout: string,
  work: (database: BenchDatabase) => Promise<T>,
): Promise<T> {
  const migrations = await readCommittedMigrations(join(checkout, 'migrations'));
  return withEmptyDatabase(server, (url) =>
    withClient(url, async (client) => {
      for (const { filename, body, transaction } of migrations) {
        await client.query(transaction ? `begin;\n${body}\n;commit` : body).catch((cause: Error) => {
          throw new Error(`${filename} of ${checkout}: ${cause.message}`, { cause });
        });
      }
      // A migration may leave settings behind.
      await client.query('discard all');
      return work({ url, client });
    }),
  );
}
