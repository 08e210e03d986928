import { setTimeout as delay } from 'node:timers/promises';
import {
  DatabaseAheadError,
  HistoryDivergedError,
  HistoryUnreadableError,
  PoolerError,
  ReadOnlyError,
} from '../errors.ts';
import { type ConnectionSettings, describeConnection } from '../settings/settings.ts';
import { capitalized, seconds } from '../text.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import { type AppliedMigration, type MigrationPlan, planMigrations } from './plan.ts';
import type { Preflight } from './preflight.ts';
import { openSession, type Session } from './session.ts';

/**
 * How often two connections are compared. In transaction mode, other clients' traffic can make one comparison look
 * like session mode, at most every fourth time.
 */
const ROUNDS = 10;

/** The migrations that a database records; none without a history. */
export function appliedIn(
  connection: ConnectionSettings,
  { bookkeeping }: Preflight,
): readonly AppliedMigration[] {
  if (bookkeeping.state === 'unreadable') {
    throw new HistoryUnreadableError(
      `${capitalized(describeConnection(connection))} was migrated, but this role may not read its history. Grant the rights: grant usage on schema graphile_migrate to …; grant select on graphile_migrate.migrations to ….`,
    );
  }
  return bookkeeping.state === 'read' ? bookkeeping.applied : [];
}

/** The pending migrations of a database. */
export function pendingIn(
  connection: ConnectionSettings,
  committed: readonly CommittedMigration[],
  preflight: Preflight,
): readonly CommittedMigration[] {
  const plan = planMigrations(committed, appliedIn(connection, preflight));
  refuseForeignHistory(plan, connection);
  return plan.state === 'empty' || plan.state === 'pending' ? plan.pending : [];
}

/** @throws {HistoryDivergedError | DatabaseAheadError} unless the files begin with the recorded history. */
function refuseForeignHistory(plan: MigrationPlan, connection: ConnectionSettings): void {
  refuseDiverged(plan, connection);
  if (plan.state === 'ahead') {
    const unknown = plan.unknown.map(({ filename }) => filename);
    throw new DatabaseAheadError(
      `A later version of this package has migrated ${describeConnection(connection)}: ${unknown.join(', ')} ${unknown.length === 1 ? 'is' : 'are'} not among the files. Nothing was changed. Deploy that version, or pass --allow-ahead to keep an older version running.`,
      unknown,
    );
  }
}

/** @throws {HistoryDivergedError} when other files than these were applied. */
export function refuseDiverged(plan: MigrationPlan, connection: ConnectionSettings): void {
  if (plan.state === 'diverged') {
    const list = plan.problems.map(({ description }) => description).join('; ');
    const remedies = new Set(plan.problems.map(({ remedy }) => remedy));
    throw new HistoryDivergedError(
      `The migrations in ${describeConnection(connection)} are not the ones of this package: ${list}. Nothing was changed. ${[...remedies].join(' ')}`,
      plan.problems,
    );
  }
}

/** Whether tables exist without a history. They are kept, and the migrations run over them. */
export function isAdopting(connection: ConnectionSettings, preflight: Preflight): boolean {
  return preflight.hasObjects && appliedIn(connection, preflight).length === 0;
}

/** Refuses to migrate a read-only database. */
export function refuseReadOnly(connection: ConnectionSettings, preflight: Preflight): void {
  if (preflight.standby) {
    throw new ReadOnlyError(
      `${capitalized(describeConnection(connection))} is a read-only hot standby and lacks migrations. Migrate its primary (FILESTORE_MIGRATION_DATABASE_URL); replication brings them here.`,
    );
  }
  if (preflight.readOnly) {
    throw new ReadOnlyError(
      `Sessions of this role in ${describeConnection(connection)} are read-only, and it lacks migrations. Set default_transaction_read_only to off for the role that migrates.`,
    );
  }
}

/**
 * Refuses a pooler: in transaction mode it gives one session's locks and settings to another, and the same migration
 * can run twice. A pooler is detected by the process id, which it invents for the connection.
 * @throws {PoolerError} unless the caller declares session mode and the comparison does not disprove it.
 */
export async function refusePooler(
  connection: ConnectionSettings,
  session: Session,
  preflight: Preflight,
  trust: 'refuse' | 'session',
): Promise<void> {
  if (session.announcedPid === preflight.pid) return;
  const where = describeConnection(connection);
  if (trust === 'refuse') {
    throw new PoolerError(
      `The connection to ${where} goes through a pooler, which can give this run's locks and settings to others. Nothing was changed. Set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself; for a pooler in session mode, set FILESTORE_MIGRATION_POOLER=session.`,
    );
  }
  const second = await openSession(connection, { waitMs: 0 });
  try {
    for (let round = 0; round < ROUNDS; round += 1) {
      const other = await processIdOf(second, connection.connectTimeoutMs);
      if (other === undefined) {
        throw new PoolerError(
          `The pooler in front of ${where} gave this run no second session within ${seconds(connection.connectTimeoutMs)}. Nothing was changed. A run needs two at once: raise the pool size, or set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself.`,
        );
      }
      const own = await processIdOf(session, connection.connectTimeoutMs);
      if (other !== preflight.pid && own === preflight.pid) continue;
      throw new PoolerError(
        `The pooler in front of ${where} is not in session mode: two connections met in one session of the server. Nothing was changed. Set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself.`,
      );
    }
  } finally {
    await second.close();
  }
}

/** Undefined without an answer in time: a pooler accepts connections before it has a session for them. */
async function processIdOf(session: Session, waitMs: number): Promise<number | undefined> {
  const answer = session.query<{ pid: number }>('select pg_catalog.pg_backend_pid() as pid');
  const pid = answer.then(({ rows }) => rows[0]?.pid);
  // It may fail after the wait has ended.
  pid.catch(() => undefined);
  return Promise.race([pid, delay(waitMs, undefined, { ref: false })]);
}
