import { type CommittedMigration, readCommittedMigrations } from '../../src/db/committed-migrations.ts';
import { type AppliedMigration, planMigrations } from '../../src/db/plan.ts';
import { withSession } from '../../src/db/session.ts';
import { appliedIn, readPreflight } from '../../src/db/survey.ts';
import { DatabaseAheadError, HistoryDivergedError, hasCode } from '../../src/errors.ts';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { databaseOf } from '../../src/settings/database.ts';
import { type ConnectionSettings, describeConnection } from '../../src/settings/settings.ts';
import { capitalized } from '../../src/text.ts';

/**
 * The committed migrations. In development there may be none, since the first one can be uncommitted.
 * @throws {MigrationsInvalidError} with the name of the invalid file.
 */
export async function readMigrations(): Promise<readonly CommittedMigration[]> {
  return readCommittedMigrations(MIGRATIONS_FOLDER).catch((error) => {
    if (hasCode(error, 'MIGRATIONS_MISSING')) return [];
    throw error;
  });
}

/**
 * Compares a database with the files.
 * @returns the committed migrations that it lacks.
 * @throws {DatabaseAheadError | HistoryDivergedError} when it was migrated by other files.
 */
export async function readPending(
  connection: ConnectionSettings,
  committed: readonly CommittedMigration[],
): Promise<readonly CommittedMigration[]> {
  const applied = appliedIn(await withSession(databaseOf(connection), readPreflight));
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
): Promise<string | undefined> {
  try {
    await readPending(connection, committed);
    return undefined;
  } catch (error) {
    if (error instanceof DatabaseAheadError || error instanceof HistoryDivergedError) return error.message;
    throw error;
  }
}

/** @throws what {@link readPending} does. */
export async function refuseOtherBranch(
  connection: ConnectionSettings,
  committed: readonly CommittedMigration[],
): Promise<void> {
  await readPending(connection, committed);
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
