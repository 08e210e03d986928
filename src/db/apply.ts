import { LockNotAcquiredError, MigrationFailedError } from '../errors.ts';
import { causeOf, type ThreadFailure, type ThreadOutcome } from '../graphile/protocol.ts';
import { type GraphileThread, isLockedOut } from '../graphile/thread.ts';
import { capitalized, seconds } from '../text.ts';
import { clearAfterFailure, clearInvalidIndexes } from './clear-indexes.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import { isConnectionLoss, isPassing } from './connection-error.ts';
import { worksConcurrently } from './invalid-index.ts';
import { describeHolders, UNKNOWN_HOLDER } from './lock-holder.ts';
import { migrationFailure } from './migration-failure.ts';
import { PassingFailure } from './passing-failure.ts';
import { appliedBy, type Surveyed } from './run-state.ts';
import { cancelUntil } from './session.ts';
import { type Sight, watchSession } from './watch-session.ts';

/** SQLSTATEs of a lock that was not to be had: it may be next time (PostgreSQL manual, appendix A). */
const LOCK_FAILURES: Readonly<Record<string, string>> = {
  '55P03': 'did not get the lock it needs within its lock timeout',
  '40P01': 'ran into a deadlock',
};

/** How long a cancelled statement may take to end before its session is ended, and then its thread. */
const CANCEL_MS = 600;
const END_MS = 900;

/** What is under way, and who is in its way. */
interface Watch {
  current: { readonly migration: CommittedMigration; readonly startedAt: number } | undefined;
  blockedSince: number | undefined;
  /** Who was last seen in the way of the migration, in words; empty for no one. */
  blockers: string;
  /** Whether they held up a migration without a transaction for longer than the run waits for locks. */
  gaveUp: boolean;
}

/** Applies what is pending, watching over it. Ends with everything applied, or throws. */
export async function apply(locked: Surveyed, thread: GraphileThread): Promise<void> {
  const { run, session, found, pending } = locked;
  await clearInvalidIndexes(locked);
  // The signal may have been aborted before anything here listened to it.
  run.signal.throwIfAborted();
  const watch: Watch = { current: undefined, blockedSince: undefined, blockers: '', gaveUp: false };
  const onAbort = () => {
    cancel(locked, thread).catch(() => undefined);
  };
  const stop = new AbortController();
  const onSight = (sight: Sight) => {
    noteSight(locked, watch, sight);
    if (watch.gaveUp) onAbort();
  };
  watchSession({ session, pid: thread.pid, signal: stop.signal, onSight }).catch(() => {
    if (stop.signal.aborted) return;
    run.emit({
      type: 'warning',
      message:
        "The connection that holds this run's lock is lost. graphile-migrate's own lock still keeps others out.",
    });
  });
  run.signal.addEventListener('abort', onAbort);
  let outcome: ThreadOutcome;
  try {
    outcome = await thread.run(
      {
        type: 'migrate',
        migrationsFolder: run.migrationsFolder,
        makeBookkeeping: !found.bookkeepingIsWhole,
        unlimited: pending.filter(worksConcurrently).map(({ filename }) => filename),
      },
      (event) => {
        if (event.type === 'warning') run.emit(event);
        if (event.type !== 'start' && event.type !== 'end') return;
        const filename = event.target.committed ?? '';
        const migration = pending.find((one) => one.filename === filename);
        if (event.type === 'start') {
          const current = migration && { migration, startedAt: performance.now() };
          Object.assign(watch, { current, blockedSince: undefined, blockers: '' } satisfies Partial<Watch>);
          run.emit({ type: 'migration-start', filename });
        } else {
          watch.current = undefined;
          run.durations.set(filename, event.durationMs);
          run.emit({ type: 'migration-end', filename, durationMs: event.durationMs });
        }
      },
    );
  } finally {
    run.signal.removeEventListener('abort', onAbort);
    stop.abort();
  }
  if (isLockedOut(outcome)) throw lockedOut(locked);
  if (outcome.type === 'failed') await fail(locked, outcome, watch);
}

function noteSight({ run }: Surveyed, watch: Watch, sight: Sight): void {
  const { current } = watch;
  if (current === undefined || watch.gaveUp) return;
  const isBlocked = sight.blockedBy.length > 0;
  // Kept when no one is seen any more: the migration may just have failed because of them.
  if (isBlocked) watch.blockers = describeHolders(sight.blockedBy);
  if (isBlocked || sight.indexBuild !== null) {
    const { filename } = current.migration;
    run.emit({ type: 'progress', filename, runningMs: performance.now() - current.startedAt, ...sight });
  }
  // A migration in a transaction has its lock timeout; the others are watched.
  if (current.migration.transaction || !isBlocked) {
    watch.blockedSince = undefined;
    return;
  }
  watch.blockedSince ??= performance.now();
  watch.gaveUp = performance.now() - watch.blockedSince >= run.settings.lockWaitMs;
}

/**
 * Ends what the thread does: first the statement on the server, so that its transaction rolls back and its locks are
 * free, then the thread, whatever the server says. A thread that just ended would leave the server working.
 */
async function cancel({ session }: Surveyed, thread: GraphileThread): Promise<void> {
  thread.stop();
  const endSessionAt = performance.now() + CANCEL_MS;
  const overdue = AbortSignal.timeout(END_MS);
  const onOverdue = () => {
    thread.end().catch(() => undefined);
  };
  overdue.addEventListener('abort', onOverdue);
  try {
    const pid = thread.pid();
    if (pid === undefined) return;
    const canceller = (await session.isAlive()) ? session : await session.openAnother(overdue);
    try {
      await cancelUntil(canceller, pid, thread.hasEnded, endSessionAt);
    } finally {
      if (canceller !== session) await canceller.close();
    }
  } finally {
    await thread.end();
    overdue.removeEventListener('abort', onOverdue);
  }
}

/** Throws the error for a failure; a passing one when it is worth another attempt. */
async function fail(locked: Surveyed, failure: ThreadFailure, watch: Watch): Promise<never> {
  const { run, session, pending } = locked;
  const filename = failure.target?.committed ?? null;
  const alive = await session.isAlive();
  const migration = pending.find((one) => one.filename === filename);
  if (alive && migration !== undefined) {
    await clearAfterFailure(locked, migration, watch.gaveUp || run.signal.aborted);
  }
  const lockFailure = LOCK_FAILURES[failure.error.code ?? ''];
  // Who was in the way before another failure has nothing to do with it.
  const blockers = lockFailure !== undefined || watch.gaveUp ? watch.blockers : '';
  const error = migrationFailure(failure, migration, appliedBy(run), blockers);
  if (watch.gaveUp) {
    throw new MigrationFailedError(
      `Migration ${filename} waited ${seconds(run.settings.lockWaitMs)} for ${blockers}, and was given up. End that transaction, or wait for it, and run this again. It waits longer with FILESTORE_MIGRATION_LOCK_WAIT_MS.`,
      error.place,
      error.sqlState,
      error.applied,
      { cause: error },
    );
  }
  if (lockFailure !== undefined) {
    const who = blockers === '' ? '' : `; in its way: ${blockers}`;
    throw new PassingFailure(`${filename ?? 'The run'} ${lockFailure}${who}.`, error);
  }
  // A session that ended while the other one lives was ended on purpose.
  const byHand = alive && failure.error.code === '57P01';
  const cause = causeOf(failure.error);
  if (isConnectionLoss(cause) && !byHand) {
    throw new PassingFailure(`The connection to ${session.where} was lost.`, error);
  }
  if (filename === null && isPassing(cause)) {
    throw new PassingFailure(
      `${capitalized(session.where)} gave the run no second connection: ${cause.message}.`,
      error,
    );
  }
  throw error;
}

function lockedOut({ run, session }: Surveyed): PassingFailure {
  const reason = `graphile-migrate itself is at work on ${session.where}.`;
  const error = new LockNotAcquiredError(
    `${reason} Run this again when it is done; nothing is applied twice.`,
    UNKNOWN_HOLDER,
    appliedBy(run),
  );
  return new PassingFailure(reason, error);
}
