import { LockNotAcquiredError, MigrationFailedError } from '../errors.ts';
import { causeOf } from '../graphile/protocol.ts';
import { describeConnection } from '../settings/settings.ts';
import { capitalized, seconds } from '../text.ts';
import type { ApplyFailure, ApplyOutcome } from './applier.ts';
import { cancelUntil } from './cancel-until.ts';
import { clearAfterFailure, clearInvalidIndexes } from './clear-indexes.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import { isConnectionLoss, isPassing } from './connection-error.ts';
import { worksConcurrently } from './invalid-index.ts';
import { describeHolders, UNKNOWN_HOLDER } from './lock-holder.ts';
import { migrationFailure } from './migration-failure.ts';
import { PassingFailure } from './retry.ts';
import type { Application } from './run-state.ts';
import { openSession } from './session.ts';
import { type Sight, watchSession } from './watch-session.ts';

/** SQLSTATEs of a lock that was not to be had: it may be next time (PostgreSQL manual, appendix A). */
const LOCK_FAILURES: Readonly<Record<string, string>> = {
  '55P03': 'did not get the lock it needs within its lock timeout',
  '40P01': 'ran into a deadlock',
};

/** How long a cancelled statement may take to end before its session is ended, and then its thread. */
const CANCEL_MS = 600;
const END_MS = 900;

/** Applies what is pending, watching over it. Ends with everything applied, or throws. */
export async function applyPending(application: Application): Promise<void> {
  await clearInvalidIndexes(application, appliedBy(application));
  // The run may have been told to stop before anything here listened to that.
  application.run.signal.throwIfAborted();
  const watch = startWatch(application);
  const outcome = await untilApplied(application, watch);
  if (outcome.type === 'done') return;
  if (outcome.type === 'locked-out') throw lockedOut(application);
  await fail(application, outcome, watch);
}

/** What is under way, and who is in its way. */
interface Watch {
  start(filename: string): void;
  end(): void;
  /** Who was last seen in the way of the migration, in words; empty for nobody. */
  blockers(): string;
  /** Whether they held up a migration without a transaction for longer than the run waits for locks. */
  gaveUp(): boolean;
  stop(): void;
}

function startWatch(application: Application): Watch {
  const { run, session, applier, pending } = application;
  const stop = new AbortController();
  const state = {
    current: undefined as { readonly migration: CommittedMigration; readonly startedAt: number } | undefined,
    blockedSince: undefined as number | undefined,
    blockers: '',
    gaveUp: false,
  };
  const onSight = (sight: Sight) => {
    const { current } = state;
    if (current === undefined || state.gaveUp) return;
    // Kept when nobody is seen any more: the migration may just have failed for them.
    if (sight.blockedBy.length > 0) state.blockers = describeHolders(sight.blockedBy);
    if (sight.blockedBy.length > 0 || sight.indexBuild !== null) {
      const { filename } = current.migration;
      run.emit({ type: 'progress', filename, runningMs: performance.now() - current.startedAt, ...sight });
    }
    // A migration in a transaction has its lock timeout; the others are watched.
    if (current.migration.transaction || sight.blockedBy.length === 0) {
      state.blockedSince = undefined;
      return;
    }
    state.blockedSince ??= performance.now();
    if (performance.now() - state.blockedSince < run.settings.lockWaitMs) return;
    state.gaveUp = true;
    cancel(application).catch(() => undefined);
  };
  watchSession({ session, pid: applier.pid, signal: stop.signal, onSight }).catch(() => {
    if (stop.signal.aborted) return;
    run.emit({
      type: 'warning',
      message:
        "The connection that holds this run's lock is lost. graphile-migrate's own lock still keeps others out.",
    });
  });
  return {
    start(filename) {
      const migration = pending.find((one) => one.filename === filename);
      state.current = migration && { migration, startedAt: performance.now() };
      state.blockedSince = undefined;
      state.blockers = '';
    },
    end() {
      state.current = undefined;
    },
    blockers: () => state.blockers,
    gaveUp: () => state.gaveUp,
    stop: () => stop.abort(),
  };
}

async function untilApplied(application: Application, watch: Watch): Promise<ApplyOutcome> {
  const { run, progress, applier, preflight, pending } = application;
  const { signal } = run;
  const onAbort = () => {
    cancel(application).catch(() => undefined);
  };
  signal.addEventListener('abort', onAbort);
  try {
    return await applier.run({
      makeBookkeeping: !preflight.bookkeepingIsWhole,
      unlimited: pending.filter(worksConcurrently).map(({ filename }) => filename),
      onEvent(event) {
        if (event.type === 'migration-start') watch.start(event.filename);
        else if (event.type === 'migration-end') {
          watch.end();
          progress.durations.set(event.filename, event.durationMs);
        }
        run.emit(event);
      },
    });
  } finally {
    signal.removeEventListener('abort', onAbort);
    watch.stop();
  }
}

/**
 * Ends what the applier does: first the statement on the server, so that its transaction rolls back and its locks are
 * free, then the thread, whatever the server says. A thread that just ended would leave the server working.
 */
async function cancel(application: Application): Promise<void> {
  const { applier } = application;
  applier.stop();
  const overdue = AbortSignal.timeout(END_MS);
  const onOverdue = () => {
    applier.end().catch(() => undefined);
  };
  overdue.addEventListener('abort', onOverdue);
  try {
    await cancelOnServer(application, overdue);
  } finally {
    await applier.end();
    overdue.removeEventListener('abort', onOverdue);
  }
}

async function cancelOnServer({ run, session, applier }: Application, overdue: AbortSignal): Promise<void> {
  const pid = applier.pid();
  if (pid === undefined) return;
  const endSessionAt = performance.now() + CANCEL_MS;
  const canceller = (await session.isAlive())
    ? session
    : await openSession(run.connection, { waitMs: 0, signal: overdue });
  try {
    await cancelUntil(canceller, pid, applier.hasEnded, endSessionAt);
  } finally {
    if (canceller !== session) await canceller.close();
  }
}

/** Throws the error for a failure; a passing one when it is worth another attempt. */
async function fail(application: Application, failure: ApplyFailure, watch: Watch): Promise<never> {
  const { run, session, pending } = application;
  const alive = await session.isAlive();
  const migration = pending.find(({ filename }) => filename === failure.filename);
  if (alive && migration !== undefined) {
    await clearAfterFailure(application, migration, { briefly: watch.gaveUp() });
  }
  const lockFailure = LOCK_FAILURES[failure.error.code ?? ''];
  // Who was in the way before another failure has nothing to do with it.
  const blockers = lockFailure !== undefined || watch.gaveUp() ? watch.blockers() : '';
  const error = migrationFailure(failure, pending, appliedBy(application), blockers);
  if (watch.gaveUp()) {
    throw new MigrationFailedError(
      `Migration ${failure.filename} waited ${seconds(run.settings.lockWaitMs)} for ${blockers}, and was given up. End that transaction, or wait for it, and run this again. It waits longer with FILESTORE_MIGRATION_LOCK_WAIT_MS.`,
      error.place,
      error.sqlState,
      error.applied,
      { cause: error },
    );
  }
  if (lockFailure !== undefined) {
    const who = blockers === '' ? '' : `; in its way: ${blockers}`;
    throw new PassingFailure(`${failure.filename ?? 'The run'} ${lockFailure}${who}.`, error);
  }
  // A session that was ended while the other one lives was ended by somebody, who had a reason.
  const byHand = alive && failure.error.code === '57P01';
  const cause = causeOf(failure.error);
  const where = describeConnection(run.connection);
  if (isConnectionLoss(cause) && !byHand) {
    throw new PassingFailure(`The connection to ${where} was lost.`, error);
  }
  if (failure.filename === null && isPassing(cause)) {
    throw new PassingFailure(
      `${capitalized(where)} gave the run no second connection: ${cause.message}.`,
      error,
    );
  }
  throw error;
}

function lockedOut(application: Application): PassingFailure {
  const reason = `graphile-migrate itself is at work on ${describeConnection(application.run.connection)}.`;
  const error = new LockNotAcquiredError(
    `${reason} Run this again when it is done; nothing is applied twice.`,
    UNKNOWN_HOLDER,
    appliedBy(application),
  );
  return new PassingFailure(reason, error);
}

function appliedBy({ progress }: Application): readonly string[] {
  return [...progress.durations.keys()];
}
