import type { Client } from 'pg';
import { rolesForFile } from './roles.ts';
import type { TestDatabase } from './test-database.ts';

export type AccessLevel = 'reader' | 'service' | 'operator';

/** Connections to the database of a file as new roles with a level. Call it after the function for the database. */
export function levelsForFile(database: () => TestDatabase): (level: AccessLevel) => Promise<Client> {
  const createRole = rolesForFile(database);
  return async (level) => {
    const role = await createRole();
    await database().query('select filestore.grant_access($1, $2)', [role.name, level]);
    return role.connect();
  };
}
