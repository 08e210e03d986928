import { LockNotAcquiredError, MigrationFailedError } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { worksConcurrently } from '../graphile/concurrent-index-text.ts';
import {
  causeOf,
  type MigrationLimits,
  type ThreadEvent,
  type ThreadFailure,
  type ThreadOutcome,
} from '../graphile/protocol.ts';
import { type GraphileThread, isLockedOut } from '../graphile/thread.ts';
import {
  connectionLostError,
  isConnectionLoss,
  isTemporary,
  TemporaryFailure,
} from '../session/connection-error.ts';
import { UNKNOWN_HOLDER } from '../session/lock-holder.ts';
import type { Session } from '../session/session.ts';
import { capitalized, paragraph, seconds } from '../text.ts';
import { Watch, watchBlockers } from './blockers.ts';
import { cancelThread } from './cancel.ts';
import { clearAfterFailure, clearInvalidIndexes } from './invalid-index.ts';
import { defaultPrivilegesRemedy, migrationFailedError } from './migration-failure.ts';
import type { Run } from './run-state.ts';
import type { Survey } from './survey.ts';

/** The migrations to apply at once, under the lock. */
export interface Part {
  readonly found: Survey;
  readonly pending: readonly CommittedMigration[];
}

/** Applies a part of the pending migrations, and watches what blocks them. Throws unless all are applied. */
export async function applyPart(
  run: Run,
  session: Session,
  part: Part,
  thread: GraphileThread,
): Promise<void> {
  const { signal, emit, migrationsFolder } = run;
  await clearInvalidIndexes(run, session, part.pending);
  // The signal may have been aborted before the listener below was added.
  signal.throwIfAborted();
  const watch = new Watch();
  const cancel = () => {
    cancelThread(session, thread).catch(() => undefined);
  };
  const stop = new AbortController();
  watchBlockers(run, session, watch, thread, stop.signal, cancel).catch(() => {
    if (stop.signal.aborted) return;
    const message = paragraph(
      "The connection that holds this run's lock was lost. graphile-migrate's own lock still",
      'excludes other runs.',
    );
    emit({ type: 'warning', message });
  });
  signal.addEventListener('abort', cancel);
  let outcome: ThreadOutcome;
  try {
    outcome = await thread.run(
      {
        type: 'migrate',
        migrationsFolder,
        makeBookkeeping: !part.found.bookkeepingIsWhole,
        limits: Object.fromEntries(part.pending.map((one) => [one.filename, limitsOf(run, one)])),
      },
      (event) => noteEvent(run, part, watch, event),
    );
  } finally {
    signal.removeEventListener('abort', cancel);
    stop.abort();
  }
  if (outcome.type === 'failed') throw await errorOf(run, session, part, watch, outcome);
}

/**
 * A lock timeout would cancel the waits of "create index concurrently" and leave an invalid index. These
 * waits block no one, and {@link watchBlockers} monitors them.
 */
function limitsOf({ settings, progress }: Run, migration: CommittedMigration): MigrationLimits {
  const { filename, transaction } = migration;
  const unlimited = worksConcurrently(migration);
  const lockTimeoutMs = unlimited ? 0 : progress.lockWaits.timeoutOf(filename, settings.lockTimeoutMs);
  const statementTimeoutMs = unlimited ? 0 : settings.statementTimeoutMs;
  return {
    transaction,
    settings: { lock_timeout: String(lockTimeoutMs), statement_timeout: String(statementTimeoutMs) },
  };
}

function noteEvent(run: Run, { pending }: Part, watch: Watch, event: ThreadEvent): void {
  if (event.type === 'warning') run.emit(event);
  if (event.type === 'connected') run.progress.pids.add(event.pid);
  if (event.type !== 'start' && event.type !== 'end') return;
  const filename = event.target.committed ?? '';
  if (event.type === 'start') {
    const migration = pending.find((one) => one.filename === filename);
    if (migration !== undefined) watch.begin(migration, worksConcurrently(migration));
    run.emit({ type: 'migration-start', filename });
    run.spans.begin('migration', filename);
  } else {
    watch.current = undefined;
    run.progress.durations.set(filename, event.durationMs);
    run.emit({ type: 'migration-end', filename, durationMs: event.durationMs });
    run.spans.end();
  }
}

/** SQLSTATEs of lock failures, after which another attempt can succeed (PostgreSQL manual, appendix A). */
const LOCK_FAILURES: Readonly<Record<string, string>> = {
  '55P03': 'did not get the lock it needs within its lock timeout',
  '40P01': 'ran into a deadlock',
};

/**
 * The server's message, without an SQLSTATE for it, if two sessions change one object of the catalog at once, such as the
 * rights of a function.
 */
const CATALOG_RACE = /^tuple concurrently (updated|deleted)$/;

/** The error for a failure of the thread; temporary if another attempt can succeed. */
async function errorOf(
  run: Run,
  session: Session,
  part: Part,
  { gaveUpOn, blockers: seen }: Watch,
  failure: ThreadFailure,
): Promise<MigrationFailedError | TemporaryFailure> {
  const { where } = run.database;
  const { applied, lockWaits } = run.progress;
  if (isLockedOut(failure)) return lockedOutFailure(where, applied);
  const { code } = failure.error;
  const filename = failure.target?.committed ?? null;
  const migration = part.pending.find((one) => one.filename === filename);
  const alive = await session.isAlive();
  if (alive && migration !== undefined) {
    await clearAfterFailure(run, session, migration, gaveUpOn === migration);
  }
  const remedy = alive && code === '42501' ? await defaultPrivilegesRemedy(session) : undefined;
  const lockFailure = LOCK_FAILURES[code ?? ''];
  // Blockers that were seen earlier do not explain other failures.
  const blockers = lockFailure !== undefined || gaveUpOn !== undefined ? seen : '';
  const error = migrationFailedError(failure, migration, applied, blockers, remedy);
  if (gaveUpOn !== undefined) return gaveUpError(run, gaveUpOn, blockers, error);
  if (lockFailure !== undefined) {
    const reason = `${filename ?? 'The run'} ${lockFailure}${blockers && `; blocked by ${blockers}`}.`;
    const isInWay = migration !== undefined && !worksConcurrently(migration);
    if (!isInWay) return new TemporaryFailure(reason, error);
    const { lockTimeoutMs } = run.settings;
    const lockWaitedMs = lockWaits.noteTimeout(migration.filename, lockTimeoutMs, failure.ranMs);
    return new TemporaryFailure(reason, error, { lockWaitedMs });
  }
  if (CATALOG_RACE.test(failure.error.message)) {
    const reason = `${filename ?? 'The run'} met a change of the same object by another session.`;
    return new TemporaryFailure(reason, error);
  }
  const cause = causeOf(failure.error);
  // If only one of the two sessions ended, someone ended it on purpose.
  const isByHand = alive && code === '57P01';
  if (isConnectionLoss(cause) && !isByHand) {
    const lost = connectionLostError(where, cause, applied, filename);
    return new TemporaryFailure(`The connection to ${where} was lost.`, lost);
  }
  if (filename !== null || !isTemporary(cause)) return error;
  const reason = `${capitalized(where)} refused the run a second connection: ${cause.message}.`;
  return new TemporaryFailure(reason, error);
}

function lockedOutFailure(where: string, applied: readonly string[]): TemporaryFailure {
  const reason = `graphile-migrate itself is running on ${where}.`;
  const message = `${reason} Run this again when it is done; nothing is applied twice.`;
  return new TemporaryFailure(reason, new LockNotAcquiredError(message, UNKNOWN_HOLDER, applied));
}

/** For a migration without a transaction that was cancelled, since it was blocked for too long. */
function gaveUpError(
  { progress, settings }: Run,
  { filename }: CommittedMigration,
  blockers: string,
  error: MigrationFailedError,
): MigrationFailedError | TemporaryFailure {
  if (progress.durations.has(filename)) {
    const reason = `${filename} was applied in the moment in which the run gave up waiting for its locks.`;
    return new TemporaryFailure(reason, error, { atOnce: true });
  }
  const message = paragraph(
    `Migration ${filename} waited ${seconds(settings.lockWaitMs)} for ${blockers}, and was cancelled.`,
    'End that transaction or wait for its end, and run this again.',
    'Raise FILESTORE_MIGRATION_LOCK_WAIT_MS to wait longer.',
  );
  return new MigrationFailedError(message, error.place, error.sqlState, error.applied, { cause: error });
}
