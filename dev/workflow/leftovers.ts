import { compareModels, describeDifference } from '../../src/catalog/compare.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { checkSchema } from '../../src/db/check-schema.ts';
import type { CommittedMigration } from '../../src/db/committed-migrations.ts';
import { withSession } from '../../src/db/session.ts';
import { FilestoreError, hasCode, MigrationsInvalidError } from '../../src/errors.ts';
import { databaseOf } from '../../src/settings/database.ts';
import type { ConnectionSettings } from '../../src/settings/settings.ts';
import type { WorkflowDatabases } from './databases.ts';

// current.sql is run again and again as it is written, and nothing takes back what an earlier save, or a migration
// being written on another branch, has made.

/** In what a database differs from what the migrations make, one line each, or why that is not known. */
export type Leftovers =
  | { readonly type: 'known'; readonly differences: readonly string[] }
  | { readonly type: 'unknown'; readonly reason: string };

/**
 * In what the database differs from the model of the committed migrations, one line each. None where there is no model
 * of the last migration to compare with, as between a commit or an uncommit and `npm run db:docs`.
 */
export async function leftoversOfCommitted(
  main: ConnectionSettings,
  committed: readonly CommittedMigration[],
): Promise<readonly string[]> {
  try {
    const check = await withSession(databaseOf(main), (session) => checkSchema(session, committed));
    return check.state === 'drifted' ? check.differences : [];
  } catch (error) {
    // The latter: the model is of a migration that was uncommitted.
    if (hasCode(error, 'SCHEMA_MODEL_INVALID') || error instanceof MigrationsInvalidError) return [];
    throw error;
  }
}

/**
 * In what the development database differs from the shadow database, which a commit has just made of the files. Never
 * fails for want of a connection: the commit is done by then.
 */
export async function leftoversOfCommit({ main, shadow }: WorkflowDatabases): Promise<Leftovers> {
  try {
    const expected = await withSession(databaseOf(shadow), readCatalog);
    const { differences } = compareModels(expected, await withSession(databaseOf(main), readCatalog));
    return { type: 'known', differences: differences.map(describeDifference) };
  } catch (error) {
    if (error instanceof FilestoreError) return { type: 'unknown', reason: error.message };
    throw error;
  }
}
