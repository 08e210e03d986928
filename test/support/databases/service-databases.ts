import { afterEach, inject } from 'vitest';
import {
  createTestDatabase,
  type TestDatabase as ServiceDatabase,
  type TestDatabaseOptions,
} from '../../../src/testing/index.ts';

export type { ServiceDatabase };

/** Creates databases as the tests of a service do, on the server of the run. They are closed after each test. */
export function serviceDatabasesForEachTest(): (options?: TestDatabaseOptions) => Promise<ServiceDatabase> {
  const databases: ServiceDatabase[] = [];
  afterEach(async () => {
    await Promise.all(databases.splice(0).map((database) => database.close()));
  });
  return async (options) => {
    const database = await createTestDatabase({ server: inject('adminUrl'), ...options });
    databases.push(database);
    return database;
  };
}

/** Whether the server has a database, and whether it has a role of that name. */
export const IS_THERE = `
  select exists (select from pg_database where datname = $1) as database,
         exists (select from pg_roles where rolname = $1)    as role`;
