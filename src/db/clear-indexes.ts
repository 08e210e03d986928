import { codeOf, MigrationFailedError } from '../errors.ts';
import { cancelUntil } from './cancel-until.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import { isConnectionLoss } from './connection-error.ts';
import { concurrentIndexOf, dropInvalidIndex, IndexBusyError, type IndexName } from './invalid-index.ts';
import { PassingFailure } from './retry.ts';
import type { Application } from './run-state.ts';
import { withSession } from './session.ts';

/** For cases without time left, or with a known blocker. */
const BRIEFLY_MS = 300;

/**
 * Drops the invalid indexes of failed builds of pending migrations.
 * @param applied Names of the files that this run applied already, for the error.
 * @throws {PassingFailure} other sessions block the drop.
 */
export async function clearInvalidIndexes(
  application: Application,
  applied: readonly string[],
): Promise<void> {
  const { run, pending } = application;
  for (const migration of pending) {
    const name = concurrentIndexOf(migration);
    if (name === undefined) continue;
    run.signal.throwIfAborted();
    try {
      if (await drop(application, name, patienceOf(application))) {
        run.emit({
          type: 'warning',
          message: `Dropped the invalid index ${name.schema}.${name.index}, left by a failed build.`,
        });
      }
    } catch (error) {
      if (run.signal.aborted || isConnectionLoss(error)) throw error;
      throw cannotRun(migration, error, applied);
    }
  }
}

/** Tries to drop the invalid index of a failed migration. If it fails, the next run drops it. */
export async function clearAfterFailure(
  application: Application,
  migration: CommittedMigration,
  { briefly }: { readonly briefly: boolean },
): Promise<void> {
  const name = concurrentIndexOf(migration);
  if (name === undefined) return;
  const isBrief = briefly || application.run.signal.aborted;
  // The failure of the migration is reported, not one of this cleanup.
  await drop(application, name, isBrief ? BRIEFLY_MS : patienceOf(application)).catch(() => undefined);
}

/** The lock timeout of migrations; 0 means no limit. */
function patienceOf({ run }: Application): number {
  return run.settings.lockTimeoutMs || run.settings.lockWaitMs;
}

async function drop(
  { run, session, preflight }: Application,
  name: IndexName,
  patienceMs: number,
): Promise<boolean> {
  const done = new AbortController();
  const onAbort = () => {
    withSession(run.connection, (other) =>
      cancelUntil(other, preflight.pid, () => done.signal.aborted),
    ).catch(() => undefined);
  };
  run.signal.addEventListener('abort', onAbort);
  try {
    return await dropInvalidIndex(session, name, patienceMs);
  } finally {
    run.signal.removeEventListener('abort', onAbort);
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
    codeOf(cause) ?? null,
    applied,
    { cause },
  );
  return isBusy ? new PassingFailure(reason, error) : error;
}
