import { MigrationFailedError, sqlStateOf } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { isConnectionLoss, PassingFailure } from '../session/connection-error.ts';
import { cancelUntil } from './cancel.ts';
import { concurrentIndexOf, dropInvalidIndex, IndexBusyError, type IndexName } from './invalid-index.ts';
import type { Run, Surveyed } from './run-state.ts';

/** For cases without time left, or with a known blocker. */
const BRIEFLY_MS = 300;

/**
 * Drops the invalid indexes of failed builds of pending migrations.
 * @throws {PassingFailure} other sessions block the drop.
 */
export async function clearInvalidIndexes(locked: Surveyed): Promise<void> {
  const { run, pending } = locked;
  for (const migration of pending) {
    const name = concurrentIndexOf(migration);
    if (name === undefined) continue;
    run.signal.throwIfAborted();
    try {
      if (await drop(locked, name, patienceOf(run))) {
        run.emit({
          type: 'warning',
          message: `Dropped the invalid index ${name.schema}.${name.index}, left by a failed build.`,
        });
      }
    } catch (error) {
      if (run.signal.aborted || isConnectionLoss(error)) throw error;
      throw cannotRun(migration, error, run.progress.applied);
    }
  }
}

/** Tries to drop the invalid index of a failed migration. If it fails, the next run drops it. */
export async function clearAfterFailure(
  locked: Surveyed,
  migration: CommittedMigration,
  isBrief: boolean,
): Promise<void> {
  const name = concurrentIndexOf(migration);
  if (name === undefined) return;
  // The failure of the migration is reported, not one of this cleanup.
  await drop(locked, name, isBrief ? BRIEFLY_MS : patienceOf(locked.run)).catch(() => undefined);
}

/** The lock timeout of migrations; 0 means no limit. */
function patienceOf({ settings }: Run): number {
  return settings.lockTimeoutMs || settings.lockWaitMs;
}

async function drop({ run, session, found }: Surveyed, name: IndexName, patienceMs: number) {
  const done = new AbortController();
  const onAbort = async () => {
    const other = await session.openAnother();
    await cancelUntil(other, found.pid, () => done.signal.aborted).finally(() => other.close());
  };
  const cancel = () => onAbort().catch(() => undefined);
  run.signal.addEventListener('abort', cancel);
  try {
    return await dropInvalidIndex(session, name, patienceMs);
  } finally {
    run.signal.removeEventListener('abort', cancel);
    done.abort();
  }
}

function cannotRun(migration: CommittedMigration, cause: unknown, applied: readonly string[]): Error {
  const isBusy = cause instanceof IndexBusyError;
  const why = cause instanceof Error ? cause.message : String(cause);
  const reason = isBusy
    ? `${migration.filename} cannot run yet: ${why}.`
    : `${migration.filename} cannot run, because the invalid index of an earlier attempt cannot be dropped: ${why}.`;
  const error = new MigrationFailedError(
    `Migration ${reason} ${isBusy ? 'Run this again when they have ended.' : 'Fix the cause, and run this again.'}`,
    { filename: migration.filename, statement: null, line: null, column: null },
    sqlStateOf(cause),
    applied,
    { cause },
  );
  return isBusy ? new PassingFailure(reason, error) : error;
}
