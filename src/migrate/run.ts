import { setTimeout as delay } from 'node:timers/promises';
import type { SchemaCheck } from '../catalog/drift.ts';
import {
  type FilestoreError,
  hasCode,
  MigrationFailedError,
  RunAbortedError,
  SchemaDriftedError,
} from '../errors.ts';
import { connectionLostError, isConnectionLoss, PassingFailure } from '../session/connection-error.ts';
import { openSession, type Session } from '../session/session.ts';
import { endSessions } from './cancel.ts';
import { refuseStrangers } from './owners.ts';
import { pendingIn, refuseDisabledTriggers, refuseReadOnly } from './plan.ts';
import { type Progress, type Run, type RunUnderWay, Spans } from './run-state.ts';
import { survey } from './survey.ts';

/** How a run ended. */
export interface RunResult {
  readonly progress: Readonly<Progress>;
  readonly serverVersion: string;
  readonly schema: SchemaCheck;
}

const FIRST_DELAY_MS = 200;
const LONGEST_DELAY_MS = 10_000;

/** Performs a run, and times it. */
export async function run(prepared: Run): Promise<RunResult> {
  const spans = new Spans(prepared);
  try {
    const result = await attemptUntilDone({ ...prepared, spans });
    spans.endRun();
    return result;
  } catch (error) {
    spans.endRun(error);
    throw error;
  }
}

/**
 * Runs until everything is applied, and retries after temporary failures. The pauses double from 0.2 to 10 s,
 * each varied by a quarter so that many runs do not retry at once. After a wait for a table's lock, the pause is about
 * twice as long as the wait, so that traffic has the table for most of the time.
 */
async function attemptUntilDone(run: RunUnderWay): Promise<RunResult> {
  const { progress, settings, signal, emit, spans } = run;
  let failures = 0;
  let firstFailureAt = 0;
  for (;;) {
    const before = progress.durations.size;
    progress.attempts += 1;
    try {
      return await attempt(run);
    } catch (error) {
      const cause = error instanceof PassingFailure ? error.error : error;
      const failure = signal.aborted ? abortedError(run, cause) : cause;
      spans.end(failure);
      if (signal.aborted || !(error instanceof PassingFailure)) throw failure;
      if (progress.durations.size > before) failures = 0;
      if (failures === 0) firstFailureAt = performance.now();
      const growth = error.lockWaitedMs === null ? 2 ** failures : failures + 1;
      const pauseMs = Math.min(FIRST_DELAY_MS * growth, LONGEST_DELAY_MS) * (0.75 + Math.random() / 2);
      const delayMs = error.atOnce ? 0 : pauseMs;
      failures += 1;
      const leftMs = firstFailureAt + settings.lockWaitMs - performance.now();
      if (delayMs > leftMs && !error.atOnce) throw error.error;
      const { reason, lockWaitedMs } = error;
      emit({ type: 'retry', attempt: progress.attempts + 1, reason, delayMs, lockWaitedMs });
      await delay(delayMs, undefined, { signal }).catch((aborted) => {
        throw abortedError(run, aborted);
      });
    }
  }
}

/** One attempt, on new connections. It begins with a survey, because the state may have changed. */
async function attempt(run: RunUnderWay): Promise<RunResult> {
  const { settings, progress, emit, spans } = run;
  spans.begin('connect');
  const session = await openSession(run.database, {
    waitMs: settings.connectWaitMs,
    signal: run.signal,
    onWaiting: (reason) => emit({ type: 'waiting', for: 'server', reason, atMostMs: settings.connectWaitMs }),
    onSilent: (message) => emit({ type: 'warning', message }),
  }).catch((error) => {
    // After a first connection, a failed reconnect is reported as a lost connection.
    if (progress.attempts === 1 || !hasCode(error, 'CONNECTION_FAILED')) throw error;
    throw connectionLostError(run.database.where, error.cause, progress.applied);
  });
  spans.end();
  try {
    spans.begin('survey');
    if (progress.pids.size > 0 && settings.pooler === 'refuse') await endSessions(session, progress.pids);
    progress.pids.add(session.announcedPid);
    const found = await survey(session, run.committed, settings.pooler);
    run.onSurvey?.(found);
    const { where, serverVersion, adopting } = found;
    progress.serverVersion = serverVersion;
    const pending = pendingIn(found.plan, where);
    if (pending.length > 0) {
      refuseReadOnly(found);
      refuseDisabledTriggers(found);
      await refuseStrangers(session, found.applied.length > 0);
    }
    spans.end();
    if (!progress.planTold) {
      progress.planTold = true;
      const filenames = pending.map(({ filename }) => filename);
      emit({ type: 'plan', database: where, serverVersion, pending: filenames, adopting });
    }
    if (pending.length > 0) {
      // Loaded only when needed: most runs have nothing to apply.
      const { applyPending } = await import('./apply-pending.ts');
      await applyPending({ run, session, found, pending });
    }
    const notCompared = run.compareSchema ? 'nothing was applied' : 'it was not asked for';
    if (!run.compareSchema || progress.durations.size === 0) {
      return { progress, serverVersion, schema: { state: 'unchecked', reason: notCompared } };
    }
    spans.begin('verify');
    const schema = await verifyRun(run, session);
    spans.end();
    return { progress, serverVersion, schema };
  } catch (error) {
    if (!isConnectionLoss(error)) throw error;
    const lost = connectionLostError(session.database.where, error, progress.applied);
    throw new PassingFailure(`The connection to ${session.database.where} was lost.`, lost);
  } finally {
    await session.close({ clear: settings.pooler === 'session' });
  }
}

/**
 * Compares the schema after a run that applied something.
 * @throws {SchemaDriftedError} when it differs from its model.
 */
async function verifyRun(run: Run, session: Session): Promise<SchemaCheck> {
  const { checkSchema } = await import('../catalog/drift.ts');
  const { checkRights } = await import('../catalog/rights.ts');
  const warn = (message: string) => run.emit({ type: 'warning', message });
  const check = await checkSchema(session, run.committed);
  if (check.state === 'drifted') {
    const { applied } = run.progress;
    throw new SchemaDriftedError(
      `The schema in ${session.database.where} differs from its migrations:\n${check.differences.map((line) => `  ${line}`).join('\n')}\nSomeone changed it by hand. Undo the change, or write it as a migration; npm run db:verify:filestore compares again. Applied and kept: ${applied.join(', ')}.`,
      check.differences,
      applied,
    );
  }
  if (check.state === 'unchecked') {
    warn(`The schema was not checked: ${check.reason}`);
    return check;
  }
  check.notes.forEach(warn);
  // Rights that someone granted by hand are no reason to fail a deploy.
  const rights = await checkRights(session);
  if (rights.state === 'unchecked') warn(rights.reason);
  if (rights.state === 'drifted') rights.differences.forEach(warn);
  return check;
}

/** The error of a run that was stopped. `cause` is the error of its current step. */
function abortedError(run: Run, cause: unknown): FilestoreError {
  if (cause instanceof RunAbortedError) return cause;
  const { applied } = run.progress;
  const underWay =
    cause instanceof MigrationFailedError && cause.place !== null
      ? ` ${cause.place.filename} was running and was not completed.`
      : '';
  return new RunAbortedError(
    `${describeStop(run.signal)} Applied and kept: ${applied.length === 0 ? 'nothing' : applied.join(', ')}.${underWay} Run this again to apply the rest.`,
    applied,
    { cause },
  );
}

/** That a run was told to stop, and by which signal. */
export function describeStop({ reason }: AbortSignal): string {
  const why = reason instanceof Error && reason.name !== 'AbortError' ? ` (${reason.message})` : '';
  return `Stopped on request${why}.`;
}
