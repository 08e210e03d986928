import { DatabaseAheadError, HistoryDivergedError } from '../../src/errors.ts';
import type { CommittedMigration } from '../../src/graphile/committed-migrations.ts';
import type { MigrationPlan } from '../../src/migrate/plan.ts';
import { survey } from '../../src/migrate/survey.ts';
import { withSession } from '../../src/session/session.ts';
import { databaseOf, describeConnection } from '../../src/settings/database.ts';
import type { ConnectionSettings } from '../../src/settings/settings.ts';
import { capitalized } from '../../src/text.ts';

/**
 * Compares a database with the files.
 * @returns the committed migrations that it lacks.
 * @throws {DatabaseAheadError | HistoryDivergedError} when it was migrated by other files.
 */
export async function readPending(
  connection: ConnectionSettings,
  committed: readonly CommittedMigration[],
): Promise<readonly CommittedMigration[]> {
  const found = await withSession(databaseOf(connection), (session) => survey(session, committed));
  const plan: MigrationPlan =
    committed.length === 0 && found.applied.length > 0
      ? { state: 'ahead', unknown: found.applied }
      : found.plan;
  if (plan.state === 'ahead') {
    const names = plan.unknown.map(({ filename }) => filename);
    const what = `it has ${names.join(', ')}, which ${names.length === 1 ? 'is' : 'are'} not among the files`;
    throw new DatabaseAheadError(otherFiles(connection, what), names);
  }
  if (plan.state === 'diverged') {
    const list = plan.problems.map(({ description }) => description).join('; ');
    throw new HistoryDivergedError(otherFiles(connection, list), plan.problems);
  }
  return plan.state === 'current' ? [] : plan.pending;
}

/** How a database was migrated by other files; undefined if it was not. */
export async function findOtherBranch(
  connection: ConnectionSettings,
  committed: readonly CommittedMigration[],
): Promise<string | undefined> {
  try {
    await readPending(connection, committed);
    return undefined;
  } catch (error) {
    if (error instanceof DatabaseAheadError || error instanceof HistoryDivergedError) return error.message;
    throw error;
  }
}

function otherFiles(connection: ConnectionSettings, what: string): string {
  return `${capitalized(describeConnection(connection))} has other migrations than the files, perhaps those of another branch: ${what}. The database was not changed. Switch back to that branch, or recreate the database from these files, which erases the rows in "${connection.database}": npm run db:reset`;
}
