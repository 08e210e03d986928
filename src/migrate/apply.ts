import { LockNotAcquiredError } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import type { MigrationLimits, ThreadEvent, ThreadOutcome } from '../graphile/protocol.ts';
import { type GraphileThread, isLockedOut } from '../graphile/thread.ts';
import { PassingFailure } from '../session/connection-error.ts';
import { UNKNOWN_HOLDER } from '../session/lock-holder.ts';
import { type Watch, watchMigration } from './blockers.ts';
import { cancelThread } from './cancel.ts';
import { worksConcurrently } from './invalid-index.ts';
import { failureOf } from './migration-failure.ts';
import { noteApplied, noteUnreported } from './note-applied.ts';
import type { Run, Surveyed } from './run-state.ts';

/**
 * Applies the pending migrations and watches for blockers. Returns when all are applied, or throws.
 * @param before Name of the file before which to stop; null to apply all.
 */
export async function apply(locked: Surveyed, thread: GraphileThread, before: string | null): Promise<void> {
  const { run, session, found, pending } = locked;
  // The signal may have been aborted before the listener below was added.
  run.signal.throwIfAborted();
  const watch: Watch = {
    current: undefined,
    blockers: '',
    blockedSince: undefined,
    sentAt: [],
    gaveUpOn: undefined,
  };
  const onEvent = (event: ThreadEvent) => {
    if (event.type === 'warning') run.emit(event);
    if (event.type === 'connected') run.progress.pids.add(event.pid);
    if (event.type === 'sent') watch.sentAt.push(performance.now());
    if (event.type !== 'start' && event.type !== 'end') return;
    const filename = event.target.committed ?? '';
    const migration = pending.find((one) => one.filename === filename);
    if (event.type === 'start') {
      watch.current = migration && { migration, startedAt: performance.now() };
      watch.blockers = '';
      watch.blockedSince = undefined;
      run.emit({ type: 'migration-start', filename });
      run.spans.begin('migration', filename);
    } else {
      watch.current = undefined;
      watch.sentAt.pop();
      noteApplied(run, filename, event.durationMs);
      run.spans.end();
    }
  };
  const cancel = () => {
    cancelThread(session, thread).catch(() => undefined);
  };
  const stop = new AbortController();
  watchMigration(locked, watch, thread, stop.signal, cancel).catch(() => {
    if (stop.signal.aborted) return;
    const message =
      "The connection that holds this run's lock was lost. graphile-migrate's own lock still excludes other runs.";
    run.emit({ type: 'warning', message });
  });
  run.signal.addEventListener('abort', cancel);
  let outcome: ThreadOutcome;
  try {
    const { migrationsFolder } = run;
    const makeBookkeeping = !found.bookkeepingIsWhole;
    const limits = Object.fromEntries(pending.map((one) => [one.filename, limitsOf(run, one)]));
    outcome = await thread.run(
      { type: 'migrate', migrationsFolder, makeBookkeeping, limits, before },
      onEvent,
    );
  } finally {
    run.signal.removeEventListener('abort', cancel);
    stop.abort();
  }
  await noteUnreported(locked, watch, outcome);
  if (outcome.type === 'done') return;
  if (!isLockedOut(outcome)) throw await failureOf(locked, outcome, watch);
  const reason = `graphile-migrate itself is running on ${found.where}.`;
  const message = `${reason} Run this again when it is done; nothing is applied twice.`;
  throw new PassingFailure(reason, new LockNotAcquiredError(message, UNKNOWN_HOLDER, run.progress.applied));
}

/**
 * A lock timeout would cancel the waits of "create index concurrently" and leave an invalid index. These waits block no
 * one, and {@link watchMigration} monitors them.
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
