import { DatabaseAheadError, HistoryDivergedError } from '../../src/errors.ts';
import type { CommittedMigration } from '../../src/graphile/committed-migrations.ts';
import { type AppliedMigration, planMigrations } from '../../src/migrate/plan.ts';
import { appliedIn, readPreflight } from '../../src/migrate/survey.ts';
import { withSession } from '../../src/session/session.ts';
import { databaseOf } from '../../src/settings/database.ts';
import { type ConnectionSettings, describeConnection } from '../../src/settings/settings.ts';
import { capitalized } from '../../src/text.ts';

/**
 * Compares a database with the files.
 * @param forgotten Hashes of applied migrations to leave out.
 * @returns the committed migrations that it lacks.
 * @throws {DatabaseAheadError | HistoryDivergedError} when it was migrated by other files.
 */
export async function readPending(
  connection: ConnectionSettings,
  committed: readonly CommittedMigration[],
  forgotten: ReadonlySet<string> = new Set(),
): Promise<readonly CommittedMigration[]> {
  const preflight = await withSession(databaseOf(connection), readPreflight);
  const applied = appliedIn(preflight).filter(({ hash }) => !forgotten.has(hash));
  if (committed.length === 0 && applied.length > 0) throw aheadError(connection, applied);
  const plan = planMigrations(committed, applied);
  if (plan.state === 'ahead') throw aheadError(connection, plan.unknown);
  if (plan.state === 'diverged') {
    const list = plan.problems.map(({ description }) => description).join('; ');
    throw new HistoryDivergedError(
      `${otherFiles(connection)}: ${list}. ${remedy(connection)}`,
      plan.problems,
    );
  }
  return plan.state === 'current' ? [] : plan.pending;
}

/** How a database was migrated by other files; undefined if it was not. */
export async function findOtherBranch(
  connection: ConnectionSettings,
  committed: readonly CommittedMigration[],
  forgotten?: ReadonlySet<string>,
): Promise<string | undefined> {
  try {
    await readPending(connection, committed, forgotten);
    return undefined;
  } catch (error) {
    if (error instanceof DatabaseAheadError || error instanceof HistoryDivergedError) return error.message;
    throw error;
  }
}

function aheadError(
  connection: ConnectionSettings,
  unknown: readonly AppliedMigration[],
): DatabaseAheadError {
  const names = unknown.map(({ filename }) => filename);
  return new DatabaseAheadError(
    `${otherFiles(connection)}: it has ${names.join(', ')}, which ${names.length === 1 ? 'is' : 'are'} not among the files. ${remedy(connection)}`,
    names,
  );
}

function otherFiles(connection: ConnectionSettings): string {
  return `${capitalized(describeConnection(connection))} has other migrations than the files, perhaps those of another branch`;
}

function remedy({ database }: ConnectionSettings): string {
  return `The database was not changed. Switch back to that branch, or recreate the database from these files, which erases the rows in "${database}": npm run db:reset`;
}
