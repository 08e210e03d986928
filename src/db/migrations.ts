import type { SchemaCheck } from '../catalog/drift.ts';
import { NotMigratedError } from '../errors.ts';
import { compareSurveyed } from '../migrate/compare-surveyed.ts';
import type { PendingMigration } from '../migrate/evaluate-data-checks.ts';
import { pendingIn } from '../migrate/plan.ts';
import { migrateDatabase, rehearse } from '../migrate/run.ts';
import {
  type MigrationOptions,
  type MigrationReport,
  openRun,
  type RunMigrationsOptions,
} from '../migrate/run-state.ts';
import { type MigrationStatus, statusOf, withSurvey } from '../migrate/survey.ts';
import { typedCommand } from '../package-root.ts';
import { capitalized, count, listFiles, paragraph } from '../text.ts';

/**
 * Applies the committed migrations that the database does not have yet, each in a separate transaction. If
 * several runs start at once, one migrates and the others wait. Safe to run at every deploy: without pending
 * migrations, it takes one connection and one message.
 * @example
 * const report = await runMigrations({ connectionString, logger: console });
 * console.log(report.applied.map(({ filename }) => filename), report.alreadyApplied);
 * @throws {FilestoreError} docs/operations.md has each `code` with its remedy. Migrations that the run
 * applied before stay: {@link MigrationFailedError}, {@link SchemaDriftedError}, {@link
 * LockNotAcquiredError}, {@link ConnectionLostError} and {@link RunAbortedError} list them as `applied`.
 */
export async function runMigrations(options: RunMigrationsOptions = {}): Promise<MigrationReport> {
  const run = await openRun(options);
  return migrateDatabase(run);
}

/**
 * Compares the history of a database with the migrations of this package. Reads only: works on a hot standby,
 * and for a role that can only read the history (`grant usage on schema graphile_migrate`, `grant select on
 * graphile_migrate.migrations`).
 * @example
 * const { state, pending } = await migrationStatus({ connectionString });
 * if (state === 'pending') console.log(`To apply: ${pending.join(', ')}`);
 * @throws {FilestoreError} as {@link runMigrations} does for the settings, the connection, the migration
 * files, and a history that the role may not read.
 */
export async function migrationStatus(options: MigrationOptions = {}): Promise<MigrationStatus> {
  return withSurvey(options, statusOf);
}

/**
 * Returns the migrations that {@link runMigrations} would apply, with SQL and the results of their checks.
 * Reads only. Throws as a run would after reading the package, the history, and tables without a history. A
 * run also throws if a check `failed`.
 * @example
 * for (const { filename, sql, checks } of await pendingMigrations({ connectionString })) {
 *   console.log(filename, sql, checks.filter(({ state }) => state === 'failed'));
 * }
 */
export async function pendingMigrations(
  options: MigrationOptions = {},
): Promise<readonly PendingMigration[]> {
  return rehearse(await openRun(options, { dryRun: true }));
}

/**
 * For a service's start: throws unless the database has every migration of this package. A database that is
 * ahead is accepted too: in a rolling deploy, the old version runs with the new schema, which supports both.
 * Without `connectionString`, it connects as {@link runMigrations} does, so `FILESTORE_MIGRATION_DATABASE_URL` comes
 * before the URL of the service.
 * @example
 * await assertMigrated({ connectionString });
 * @throws {NotMigratedError} whose message has the command that applies the pending migrations.
 * @throws {HistoryDivergedError} other files were applied. Also throws as {@link migrationStatus} does.
 */
export async function assertMigrated(options: MigrationOptions = {}): Promise<void> {
  const found = await withSurvey(options, (all) => all);
  if (found.plan.state === 'current' || found.plan.state === 'ahead') return;
  const pending = pendingIn(found).map(({ filename }) => filename);
  const message = paragraph(
    `${capitalized(found.where)} lacks ${count(pending.length, 'migration')} (${listFiles(pending)}).`,
    `Apply them: ${typedCommand('migrate')}`,
  );
  throw new NotMigratedError(message, pending);
}

/**
 * Compares the live schema with the model that ships with the package, object by object, and the rights of
 * roles with the levels that `filestore.grant_access` recorded. Reads only. The rights need a role that has a
 * level, or the owner. If the database lacks migrations or is ahead, nothing is compared, and `reason` says
 * what to do.
 * @example
 * const check = await verifySchema({ connectionString });
 * if (check.state === 'drifted') console.log(check.differences.join('\n'));
 * @throws {FilestoreError} as {@link migrationStatus} does; {HistoryDivergedError} if other files were
 * applied; `SCHEMA_MODEL_INVALID` if the model is missing or damaged.
 */
export async function verifySchema(options: MigrationOptions = {}): Promise<SchemaCheck> {
  return withSurvey(options, compareSurveyed);
}
