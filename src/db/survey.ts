import { setTimeout as delay } from 'node:timers/promises';
import {
  DatabaseAheadError,
  HistoryDivergedError,
  HistoryUnreadableError,
  PoolerError,
  ReadOnlyError,
} from '../errors.ts';
import { capitalized, seconds } from '../text.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import { type AppliedMigration, type MigrationPlan, planMigrations } from './plan.ts';
import { type Preflight, readPreflight } from './preflight.ts';
import type { Session } from './session.ts';

/** A database, and how its history compares with the files. */
export interface Survey extends Preflight {
  readonly applied: readonly AppliedMigration[];
  readonly plan: MigrationPlan;
  /** Whether there are tables that no migration is recorded for: they are kept, and the migrations run over them. */
  readonly adopting: boolean;
}

/**
 * How often two connections are compared. In transaction mode, other clients' traffic can make one comparison look
 * like session mode, at most every fourth time.
 */
const ROUNDS = 10;

/** Reads a database and compares it with the files. Refuses only a history that may not be read. */
export async function survey(
  session: Session,
  committed: readonly CommittedMigration[],
  pooler?: 'refuse' | 'session',
): Promise<Survey> {
  const preflight = await readPreflight(session);
  if (pooler !== undefined) await refusePooler(session, preflight.pid, pooler);
  const applied = appliedIn(preflight);
  return {
    ...preflight,
    applied,
    plan: planMigrations(committed, applied),
    adopting: preflight.hasObjects && applied.length === 0,
  };
}

/** The migrations that a database remembers; none when it remembers nothing. */
export function appliedIn({ where, bookkeeping }: Preflight): readonly AppliedMigration[] {
  if (bookkeeping.state === 'unreadable') {
    throw new HistoryUnreadableError(
      `${capitalized(where)} was migrated, and this role may not read its history. Grant it: grant usage on schema graphile_migrate to …; grant select on graphile_migrate.migrations to ….`,
    );
  }
  return bookkeeping.state === 'read' ? bookkeeping.applied : [];
}

/**
 * The migrations that a database lacks.
 * @throws {HistoryDivergedError | DatabaseAheadError} unless its history is that of the files, as far as it goes.
 */
export function pendingIn({ plan, where }: Survey): readonly CommittedMigration[] {
  refuseDiverged(plan, where);
  if (plan.state === 'ahead') {
    const unknown = plan.unknown.map(({ filename }) => filename);
    throw new DatabaseAheadError(
      `A later version of this package has migrated ${where}: ${unknown.join(', ')} ${unknown.length === 1 ? 'is' : 'are'} not among the files. Nothing was changed. Deploy that version; where an older one is to go on running beside it, let it pass with --allow-ahead.`,
      unknown,
    );
  }
  return plan.state === 'empty' || plan.state === 'pending' ? plan.pending : [];
}

/** @throws {HistoryDivergedError} when other files than these were applied. */
export function refuseDiverged(plan: MigrationPlan, where: string): void {
  if (plan.state === 'diverged') {
    const list = plan.problems.map(({ description }) => description).join('; ');
    const remedies = new Set(plan.problems.map(({ remedy }) => remedy));
    throw new HistoryDivergedError(
      `The migrations in ${where} are not the ones of this package: ${list}. Nothing was changed. ${[...remedies].join(' ')}`,
      plan.problems,
    );
  }
}

/** Refuses to migrate a database that can only be read. */
export function refuseReadOnly({ where, standby, readOnly }: Preflight): void {
  if (standby) {
    throw new ReadOnlyError(
      `${capitalized(where)} is a hot standby, which only allows reading, and it lacks migrations. Migrate its primary (FILESTORE_MIGRATION_DATABASE_URL); they arrive by replication.`,
    );
  }
  if (readOnly) {
    throw new ReadOnlyError(
      `Sessions of this role in ${where} are read-only, and it lacks migrations. Set default_transaction_read_only to off for the role that migrates.`,
    );
  }
}

/**
 * Refuses a pooler: in transaction mode it gives one session's locks and settings to another, and the same migration
 * can run twice. It shows by the process id: a pooler makes one up for the connection.
 * @throws {PoolerError} unless the caller trusts it to be in session mode, and it is not seen to be in another.
 */
async function refusePooler(session: Session, pid: number, trust: 'refuse' | 'session'): Promise<void> {
  if (session.announcedPid === pid) return;
  const { where } = session;
  const { connectTimeoutMs } = session.connection;
  if (trust === 'refuse') {
    throw new PoolerError(
      `The connection to ${where} goes through a pooler, which can give this run's locks and settings to others. Nothing was changed. Set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself; for a pooler in session mode, set FILESTORE_MIGRATION_POOLER=session.`,
    );
  }
  const second = await session.openAnother();
  try {
    for (let round = 0; round < ROUNDS; round += 1) {
      const other = await processIdOf(second, connectTimeoutMs);
      if (other === undefined) {
        throw new PoolerError(
          `The pooler in front of ${where} gave this run no second session of the server within ${seconds(connectTimeoutMs)}. Nothing was changed. A run needs two at once: raise the size of the pool, or set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself.`,
        );
      }
      const own = await processIdOf(session, connectTimeoutMs);
      if (other !== pid && own === pid) continue;
      throw new PoolerError(
        `The pooler in front of ${where} is not in session mode: it does not keep one session of the server for one connection. Nothing was changed. Set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself.`,
      );
    }
  } finally {
    await second.close();
  }
}

/** Undefined when there is no answer in time: a pooler lets connections in that it has no session for. */
async function processIdOf(session: Session, waitMs: number): Promise<number | undefined> {
  const answer = session.query<{ pid: number }>('select pg_catalog.pg_backend_pid() as pid');
  const pid = answer.then(({ rows }) => rows[0]?.pid);
  // It may fail when the wait for it is over.
  pid.catch(() => undefined);
  return Promise.race([pid, delay(waitMs, undefined, { ref: false })]);
}
