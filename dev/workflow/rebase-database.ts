import { setTimeout as delay } from 'node:timers/promises';
import type { CommittedMigration } from '../../src/db/committed-migrations.ts';
import { describeHolders, UNKNOWN_HOLDER } from '../../src/db/lock-holder.ts';
import { GRAPHILE_LOCK_KEY, MIGRATION_LOCK_KEY } from '../../src/db/lock-keys.ts';
import { planMigrations } from '../../src/db/plan.ts';
import { type Session, withSession } from '../../src/db/session.ts';
import { appliedIn, readPreflight } from '../../src/db/survey.ts';
import { codeOf, FilestoreError, LockNotAcquiredError, RunAbortedError } from '../../src/errors.ts';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { databaseOf } from '../../src/settings/database.ts';
import { describeConnection } from '../../src/settings/settings.ts';
import { capitalized } from '../../src/text.ts';
import { isLocal } from './erase.ts';
import { explainFailure, type SqlFailure } from './explain-failure.ts';
import type { Renumbering } from './renumber.ts';
import { runCommand, withGraphile } from './run-command.ts';
import type { WorkflowContext } from './workflow-context.ts';

/** What a rebase can do for the development database. */
export type DatabasePlan =
  | {
      readonly type: 'usable';
      /** Migrations that it records under their old number or hash. */
      readonly stale: readonly CommittedMigration[];
      /** The migrations to apply once these are removed from the history. */
      readonly pending: readonly CommittedMigration[];
    }
  | { readonly type: 'untouched'; readonly reason: string };

export type DatabaseOutcome =
  | { readonly type: 'applied'; readonly migrations: readonly string[] }
  | { readonly type: 'failed'; readonly failure: SqlFailure }
  | Extract<DatabasePlan, { readonly type: 'untouched' }>;

const RESET = 'Recreate it from these files, which erases its rows: npm run db:reset';
/** Another command on the same database takes seconds. */
const LOCK_PATIENCE_MS = 20_000;
const LOCK_RETRY_MS = 200;

/**
 * Compares the development database with the files after the rebase. Changes nothing.
 * @throws {FilestoreError} `CONNECTION_FAILED`, `CONNECTION_LOST` or `HISTORY_UNREADABLE`.
 */
export async function planDatabase(
  { databases: { main } }: WorkflowContext,
  { changed, chain }: Renumbering,
): Promise<DatabasePlan> {
  const what = capitalized(describeConnection(main));
  const untouched = (why: string): DatabasePlan => ({
    type: 'untouched',
    reason: `${what} was not changed: ${why}`,
  });
  if (!isLocal(main)) {
    return untouched('it is on another machine. If no one else uses it, recreate it: npm run db:reset');
  }
  const preflight = await withSession(databaseOf(main), readPreflight);
  const applied = appliedIn(preflight);
  const isStale = ({ before }: Renumbering['changed'][number]) =>
    applied.some(({ hash, filename }) => hash === before.hash && filename === before.recordedName);
  const stale = changed.filter(isStale).map(({ before }) => before);
  const forgotten = new Set(stale.map(({ hash }) => hash));
  const plan = planMigrations(
    chain,
    applied.filter(({ hash }) => !forgotten.has(hash)),
  );
  if (plan.state === 'ahead') {
    const names = plan.unknown.map(({ filename, hash }) => `${filename} (${hash})`).join(', ');
    return untouched(`it has migrations that are not among the files, ${names}. ${RESET}`);
  }
  if (plan.state === 'diverged') {
    const list = plan.problems.map(({ description }) => description).join('; ');
    return untouched(`${list}. ${RESET}`);
  }
  const pending = plan.state === 'current' ? [] : plan.pending;
  if (pending.length > 0 && (preflight.standby || preflight.readOnly)) {
    return untouched('its sessions are read-only, and it lacks migrations.');
  }
  return { type: 'usable', stale, pending };
}

/**
 * Removes migrations from the database's history, as an uncommit does. Their objects stay. They run again after the
 * others, so that an object that both change ends as in a new database.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` or `LOCK_NOT_ACQUIRED`, and then nothing was changed.
 */
export async function forgetMigrations(
  { databases: { main }, signal }: WorkflowContext,
  stale: readonly CommittedMigration[],
): Promise<void> {
  if (stale.length === 0) return;
  // Neither contains a quote, because the rules for names and hashes allow none.
  const rows = stale.map(({ recordedName, hash }) => `('${recordedName}', '${hash}')`);
  const statement = `delete from graphile_migrate.migrations where (filename, hash) in (${rows.join(', ')})`;
  const deadline = performance.now() + LOCK_PATIENCE_MS;
  await withSession(databaseOf(main), async (session) => {
    while (!(await runAsOnlyMigrator(session, statement))) {
      if (performance.now() > deadline) {
        const { migrators } = await readPreflight(session);
        throw new LockNotAcquiredError(
          `Another migrator is running on ${describeConnection(main)}: ${describeHolders(migrators)}. Nothing was changed. Run this again when it has ended.`,
          migrators[0] ?? UNKNOWN_HOLDER,
          [],
        );
      }
      if (signal.aborted) throw new RunAbortedError('Stopped on request. Nothing was changed.', []);
      await delay(LOCK_RETRY_MS);
    }
  }).catch((error) => {
    // An error of the server, such as a missing right.
    if (error instanceof Error && /^[0-9A-Z]{5}$/.test(codeOf(error) ?? '')) {
      throw new FilestoreError(
        'SCHEMA_CHANGE_REFUSED',
        `The history in ${describeConnection(main)} cannot be changed: ${error.message}. Nothing was changed. Grant the right to the role of DATABASE_URL, or recreate the database: npm run db:reset`,
        { cause: error },
      );
    }
    throw error;
  });
}

/** Returns false, without running the statement, if another migrator is running. */
async function runAsOnlyMigrator(session: Session, statement: string): Promise<boolean> {
  await session.query('begin');
  const keys = [MIGRATION_LOCK_KEY, GRAPHILE_LOCK_KEY];
  const locks = keys.map((key) => `pg_catalog.pg_try_advisory_xact_lock(${key})`);
  const { rows } = await session.query<{ locked: boolean }>(`select ${locks.join(' and ')} as locked`);
  const locked = rows[0]?.locked ?? false;
  if (locked) await session.query(statement);
  await session.query(locked ? 'commit' : 'rollback');
  return locked;
}

/**
 * Applies the pending migrations, without current.sql.
 * @throws {LockNotAcquiredError | RunAbortedError}
 */
export async function applyCommitted(
  context: WorkflowContext,
  pending: readonly CommittedMigration[],
  chain: readonly CommittedMigration[],
): Promise<DatabaseOutcome> {
  if (pending.length === 0) return { type: 'applied', migrations: [] };
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
  if (outcome.type === 'failed') {
    return { type: 'failed', failure: await explainFailure(outcome, chain, MIGRATIONS_FOLDER) };
  }
  return { type: 'applied', migrations: pending.map(({ filename }) => filename) };
}
