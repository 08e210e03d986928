import { compareModels, describeDifference } from '../../src/catalog/compare.ts';
import { checkSchema } from '../../src/catalog/drift.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { FilestoreError, hasCode, MigrationsInvalidError } from '../../src/errors.ts';
import type { CommittedMigration } from '../../src/graphile/committed-migrations.ts';
import { withSession } from '../../src/session/session.ts';
import { databaseOf } from '../../src/settings/database.ts';
import type { ConnectionSettings } from '../../src/settings/settings.ts';
import type { WorkflowDatabases } from './databases.ts';

// current.sql runs at every save. Objects of an earlier save, or of another branch, stay in the database.

/** The differences of a database from its migrations, one line each, or the reason why they are unknown. */
export type Leftovers =
  | { readonly type: 'known'; readonly differences: readonly string[] }
  /** The database was migrated by other files, so current.sql was not applied. */
  | { readonly type: 'other branch'; readonly reason: string }
  | { readonly type: 'unknown'; readonly reason: string };

/**
 * The differences of the database from the committed model, one line each. None if the model is not of the last
 * migration, as after a commit or an uncommit until `npm run db:docs`.
 */
export async function leftoversOfCommitted(
  main: ConnectionSettings,
  committed: readonly CommittedMigration[],
): Promise<readonly string[]> {
  try {
    const check = await withSession(databaseOf(main), (session) => checkSchema(session, committed));
    return check.state === 'drifted' ? check.differences : [];
  } catch (error) {
    // After an uncommit, the model includes a migration that has no file.
    if (hasCode(error, 'SCHEMA_MODEL_INVALID') || error instanceof MigrationsInvalidError) return [];
    throw error;
  }
}

/**
 * The differences of the development database from the shadow database, which a commit has just created from the
 * files. A connection error does not fail the commit, which is complete by then.
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
