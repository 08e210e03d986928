import { codeOf, LockNotAcquiredError } from '../../src/errors.ts';
import type { CommittedMigration } from '../../src/graphile/committed-migrations.ts';
import { appliedIn, readPreflight } from '../../src/migrate/survey.ts';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import {
  describeHolders,
  GRAPHILE_LOCK_KEY,
  MIGRATION_LOCK_KEY,
  UNKNOWN_HOLDER,
} from '../../src/session/lock-holder.ts';
import { withSession } from '../../src/session/session.ts';
import { databaseOf } from '../../src/settings/database.ts';
import { type ConnectionSettings, describeConnection } from '../../src/settings/settings.ts';
import type { WorkflowContext } from './databases.ts';
import { explainFailure, type SqlFailure } from './explain-failure.ts';
import { runCommand, withGraphile } from './run-command.ts';

/** Another command on the same database takes seconds. */
const LOCK_PATIENCE = '20s';

/**
 * Removes migrations from the database's history, as an uncommit does. Their objects stay. They run again after the
 * others, so that an object that both change ends as in a new database.
 * @param forgotten Their hashes.
 * @throws {LockNotAcquiredError} when another migrator is running.
 */
export async function forgetMigrations(
  main: ConnectionSettings,
  forgotten: ReadonlySet<string>,
): Promise<void> {
  await withSession(databaseOf(main), async (session) => {
    const stale = appliedIn(await readPreflight(session)).filter(({ hash }) => forgotten.has(hash));
    if (stale.length === 0) return;
    // A hash contains no quote, because the rule for migrations allows none.
    const hashes = stale.map(({ hash }) => `'${hash}'`).join(', ');
    try {
      await session.query(`
        begin;
        set local lock_timeout = '${LOCK_PATIENCE}';
        select pg_catalog.pg_advisory_xact_lock(${MIGRATION_LOCK_KEY}), pg_catalog.pg_advisory_xact_lock(${GRAPHILE_LOCK_KEY});
        delete from graphile_migrate.migrations where hash in (${hashes});
        commit`);
    } catch (error) {
      await session.query('rollback');
      if (codeOf(error) !== '55P03') throw error;
      const { migrators } = await readPreflight(session);
      throw new LockNotAcquiredError(
        `Another migrator is running on ${describeConnection(main)}: ${describeHolders(migrators)}. Nothing was changed. Run this again when it has ended.`,
        migrators[0] ?? UNKNOWN_HOLDER,
        [],
      );
    }
  });
}

/**
 * Applies the pending migrations, without current.sql.
 * @returns the failure of a migration.
 * @throws {LockNotAcquiredError | RunAbortedError}
 */
export async function applyCommitted(
  context: WorkflowContext,
  chain: readonly CommittedMigration[],
): Promise<SqlFailure | undefined> {
  const outcome = await withGraphile(context, (graphile) =>
    runCommand(context, graphile, {
      make: async () => ({
        type: 'migrate',
        migrationsFolder: MIGRATIONS_FOLDER,
        makeBookkeeping: true,
        limits: {},
        before: null,
      }),
      onceStopped: 'The files are in order; the database lacks migrations. Run this again to apply them.',
    }),
  );
  return outcome.type === 'failed' ? explainFailure(outcome, chain, MIGRATIONS_FOLDER) : undefined;
}
