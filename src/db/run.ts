import { setTimeout as delay } from 'node:timers/promises';
import { ConnectionError, type FilestoreError, MigrationFailedError, RunAbortedError } from '../errors.ts';
import { describeConnection } from '../settings/settings.ts';
import type { SchemaCheck } from './check-schema.ts';
import { connectionLostError, isConnectionLoss } from './connection-error.ts';
import { PassingFailure } from './passing-failure.ts';
import { appliedBy, type Run, type RunInput, type Surveyed } from './run-state.ts';
import { openSession, type Session } from './session.ts';
import { pendingIn, refuseReadOnly, survey } from './survey.ts';

/** How a run ended. */
export interface RunResult extends Pick<Run, 'durations' | 'waitedForLockMs' | 'attempts'> {
  readonly serverVersion: string;
  readonly schema: SchemaCheck;
}

const FIRST_DELAY_MS = 200;
const LONGEST_DELAY_MS = 10_000;

/**
 * Runs until everything is applied; tries again when what got in the way may pass. The waits double from 0.2 to 10 s,
 * each varied by a quarter so that many runs do not try at once.
 */
export async function run(input: RunInput): Promise<RunResult> {
  const current: Run = {
    ...input,
    durations: new Map(),
    waitedForLockMs: 0,
    attempts: 0,
    planTold: false,
  };
  let failures = 0;
  let firstFailureAt = 0;
  for (;;) {
    const before = current.durations.size;
    current.attempts += 1;
    try {
      return await attempt(current);
    } catch (error) {
      const cause = error instanceof PassingFailure ? error.error : error;
      if (input.signal.aborted) throw abortedError(current, cause);
      if (!(error instanceof PassingFailure)) throw notBack(current, error);
      if (current.durations.size > before) failures = 0;
      if (failures === 0) firstFailureAt = performance.now();
      const delayMs = Math.min(FIRST_DELAY_MS * 2 ** failures, LONGEST_DELAY_MS) * (0.75 + Math.random() / 2);
      failures += 1;
      if (performance.now() + delayMs - firstFailureAt > input.settings.lockWaitMs) throw error.error;
      input.emit({ type: 'retry', attempt: current.attempts + 1, reason: error.reason, delayMs });
      await delay(delayMs, undefined, { signal: input.signal }).catch((aborted) => {
        throw abortedError(current, aborted);
      });
    }
  }
}

/** One attempt, on connections of its own: whatever went wrong before, it begins by looking. */
async function attempt(run: Run): Promise<RunResult> {
  const { settings } = run;
  const session = await openSession(run.connection, {
    waitMs: settings.connectWaitMs,
    signal: run.signal,
    onWaiting: (reason) =>
      run.emit({ type: 'waiting', for: 'server', reason, atMostMs: settings.connectWaitMs }),
  });
  try {
    const found = await survey(session, run.committed, settings.pooler);
    const { serverVersion } = found;
    const pending = pendingIn(found);
    if (pending.length > 0) refuseReadOnly(found);
    if (!run.planTold) {
      run.planTold = true;
      const filenames = pending.map(({ filename }) => filename);
      const { where: database, adopting } = found;
      run.emit({ type: 'plan', database, serverVersion, pending: filenames, adopting });
    }
    if (pending.length > 0) await migrate({ run, session, found, pending });
    const schema = await verify(run, session);
    return { ...run, serverVersion, schema };
  } catch (error) {
    if (!isConnectionLoss(error)) throw error;
    throw new PassingFailure(
      `The connection to ${session.where} was lost.`,
      connectionLostError(session.where, error, appliedBy(run)),
    );
  } finally {
    await session.close({ clear: settings.pooler === 'session' });
  }
}

/** Applies what is pending, as the one migrator. Loads what that takes: most runs find nothing to do. */
async function migrate(surveyed: Surveyed): Promise<void> {
  const { startApplier } = await import('./applier.ts');
  // First of all: its thread loads graphile-migrate, which takes longer than all of the rest.
  const applier = startApplier(surveyed.run);
  try {
    const [{ apply }, { lock }, { refuseConflicts, requireModel }] = await Promise.all([
      import('./apply.ts'),
      import('./lock.ts'),
      import('./check-schema.ts'),
    ]);
    if (surveyed.run.comparesSchema) await requireModel();
    const locked = await lock(surveyed);
    if (locked === undefined) return;
    if (locked.found.adopting) await refuseConflicts(locked.session, locked.run.committed);
    await apply(locked, applier);
  } finally {
    await applier.end();
  }
}

/** Compares the schema, unless nothing was applied: then nothing is read. */
async function verify(run: Run, session: Session): Promise<SchemaCheck> {
  if (!run.comparesSchema) return { state: 'unchecked', reason: 'it was not asked for' };
  if (run.durations.size === 0) return { state: 'unchecked', reason: 'nothing was applied' };
  const { checkAfterRun } = await import('./check-schema.ts');
  return checkAfterRun(session, run);
}

/** To a run that had a connection, a server that does not let it in again is one that was lost. */
function notBack(run: Run, error: unknown): unknown {
  if (run.attempts === 1 || !(error instanceof ConnectionError)) return error;
  return connectionLostError(describeConnection(run.connection), error.cause, appliedBy(run));
}

/** The error of a run that was told to stop; `cause` is what it was doing. */
function abortedError(run: Run, cause: unknown): FilestoreError {
  if (cause instanceof RunAbortedError) return cause;
  const applied = appliedBy(run);
  const underWay =
    cause instanceof MigrationFailedError && cause.place !== null
      ? ` ${cause.place.filename} was under way and was not completed.`
      : '';
  const reason: unknown = run.signal.reason;
  const why = reason instanceof Error && reason.name !== 'AbortError' ? ` (${reason.message})` : '';
  return new RunAbortedError(
    `Stopped on request${why}. Applied and kept: ${applied.length === 0 ? 'nothing' : applied.join(', ')}.${underWay} Run this again to apply the rest.`,
    applied,
    { cause },
  );
}
