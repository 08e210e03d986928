import { codeOf, MigrationFailedError } from '../errors.ts';
import { cancelUntil } from './cancel.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import { isConnectionLoss, PassingFailure } from './connection-error.ts';
import { concurrentIndexOf, dropInvalidIndex, IndexBusyError, type IndexName } from './invalid-index.ts';
import type { Run, Surveyed } from './run-state.ts';

/** Where there is no time left, or somebody is known to be in the way. */
const BRIEFLY_MS = 300;

/**
 * Drops what failed builds of pending indexes have left.
 * @throws {PassingFailure} others are in the way of that.
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
          message: `Dropped the invalid index ${name.schema}.${name.index}, which a failed build had left.`,
        });
      }
    } catch (error) {
      if (run.signal.aborted || isConnectionLoss(error)) throw error;
      throw cannotRun(migration, error, run.progress.applied);
    }
  }
}

/** Tries to drop what a migration that failed has left. If it cannot, the next run does. */
export async function clearAfterFailure(
  locked: Surveyed,
  migration: CommittedMigration,
  isBrief: boolean,
): Promise<void> {
  const name = concurrentIndexOf(migration);
  if (name === undefined) return;
  // The error is about the failed migration, whatever happens here.
  await drop(locked, name, isBrief ? BRIEFLY_MS : patienceOf(locked.run)).catch(() => undefined);
}

/** As long as a migration waits for a lock; a lock timeout of 0 is none. */
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
    : `${migration.filename} cannot run, for the invalid index that it left before cannot be dropped: ${why}.`;
  const error = new MigrationFailedError(
    `Migration ${reason} Run this again when that is ${isBusy ? 'done' : 'fixed'}.`,
    { filename: migration.filename, statement: null, line: null, column: null },
    codeOf(cause) ?? null,
    applied,
    { cause },
  );
  return isBusy ? new PassingFailure(reason, error) : error;
}
