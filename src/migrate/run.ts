import { setTimeout as delay } from 'node:timers/promises';
import { readCommittedModel } from '../catalog/committed-model.ts';
import type { SchemaCheck } from '../catalog/drift.ts';
import {
  type FilestoreError,
  hasCode,
  MigrationFailedError,
  RunAbortedError,
  SchemaDriftedError,
} from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { typedCommand } from '../package-root.ts';
import { connectionLostError, isConnectionLoss, TemporaryFailure } from '../session/connection-error.ts';
import { openSession, type Session, withSession } from '../session/session.ts';
import { count, describeStop, listFiles, paragraph } from '../text.ts';
import { endSessions } from './cancel.ts';
import type { PendingMigration } from './evaluate-data-checks.ts';
import { pendingIn } from './plan.ts';
import { type MigrationReport, type Run, reportOf } from './run-state.ts';
import { refuseUnwritable, type Survey, survey } from './survey.ts';

const FIRST_DELAY_MS = 200;
const LONGEST_DELAY_MS = 10_000;

/** `migrate`: takes all steps, attempt after attempt. */
export async function migrateDatabase(run: Run): Promise<MigrationReport> {
  try {
    const { schema } = await attemptUntilDone(run);
    run.spans.endRun();
    return reportOf(run, schema);
  } catch (error) {
    run.spans.endRun(error);
    throw error;
  }
}

/** `migrate --dry-run`: surveys once, and evaluates the data checks. It locks and waits for nothing. */
export async function rehearse(run: Run): Promise<readonly PendingMigration[]> {
  const { pending } = await withSession(run.database, (session) => takeSteps(run, session));
  return pending;
}

/**
 * Tries until everything is applied, and again after each temporary failure. It gives up when the next pause
 * would end later than `lockWaitMs` after the first failure since the last progress. The pauses double from
 * 0.2 to 10 s, each varied by a quarter so that many runs do not retry at once. After a wait for a table's
 * lock, the pause is twice as long as the wait, so that traffic has the table for most of the time.
 */
async function attemptUntilDone(run: Run): Promise<Outcome> {
  const { progress, settings, signal, spans } = run;
  let failures = 0;
  let firstFailureAt = 0;
  for (;;) {
    const before = progress.durations.size;
    progress.attempts += 1;
    try {
      return await attempt(run);
    } catch (error) {
      const cause = error instanceof TemporaryFailure ? error.error : error;
      const failure = signal.aborted ? abortedError(run, cause) : cause;
      spans.end(failure);
      if (signal.aborted || !(error instanceof TemporaryFailure)) throw failure;
      if (progress.durations.size > before) failures = 0;
      if (failures === 0) firstFailureAt = performance.now();
      const delayMs = error.atOnce ? 0 : pauseAfter(error, failures);
      failures += 1;
      const leftMs = firstFailureAt + settings.lockWaitMs - performance.now();
      if (delayMs > leftMs && !error.atOnce) throw error.error;
      const { reason, lockWaitedMs } = error;
      run.emit({ type: 'retry', attempt: progress.attempts + 1, reason, delayMs, lockWaitedMs });
      await delay(delayMs, undefined, { signal }).catch((aborted) => {
        throw abortedError(run, aborted);
      });
    }
  }
}

/** @param failures How many others there were since the last progress. */
function pauseAfter({ lockWaitedMs }: TemporaryFailure, failures: number): number {
  const wanted = lockWaitedMs === null ? FIRST_DELAY_MS * 2 ** failures : 2 * lockWaitedMs;
  return Math.min(Math.max(wanted, FIRST_DELAY_MS), LONGEST_DELAY_MS) * (0.75 + Math.random() / 2);
}

/** Takes the steps on a new connection. */
async function attempt(run: Run): Promise<Outcome> {
  const { where } = run.database;
  const session = await run.spans.measure('connect', () => connect(run));
  try {
    return await takeSteps(run, session);
  } catch (error) {
    if (!isConnectionLoss(error)) throw error;
    const lost = connectionLostError(where, error, run.progress.applied);
    throw new TemporaryFailure(`The connection to ${where} was lost.`, lost);
  } finally {
    await session.close({ clear: run.settings.pooler === 'session' });
  }
}

interface Outcome {
  readonly pending: readonly PendingMigration[];
  readonly schema: SchemaCheck;
}

/**
 * The steps of a run: survey, lock, refuse, check, apply, verify. The survey already refuses what needs no
 * lock. A dry run surveys and checks only.
 */
async function takeSteps(run: Run, session: Session): Promise<Outcome> {
  const { spans } = run;
  const found = await spans.measure('survey', () => surveyFirst(run, session));
  tellPlan(run, found);
  if (pendingIn(found).length > 0) {
    // First, because the thread loads graphile-migrate, which takes longer than all other steps.
    const { startMigrateThread } = await import('../graphile/thread.ts');
    let thread = run.dryRun ? undefined : startMigrateThread(run);
    try {
      const [{ lock }, { refuseConflicts }, { evaluatePending, countReady }, { applyPart }] =
        await loadSteps();
      // Before anything is applied: a damaged model would fail the comparison afterwards.
      if (run.compareSchema) await readCommittedModel();
      const locked = run.dryRun ? found : await spans.measure('lock', () => lock(run, session));
      if (locked.adopting) await refuseConflicts(session, run.committed);
      // A thread applies one part, and then ends.
      for (let rest = pendingIn(locked); rest.length > 0; thread = undefined) {
        const pending = await spans
          .measure('checks', () => evaluatePending(run, session, rest))
          .catch((error: unknown) => refuseCurrent(run, session, rest, error));
        if (run.dryRun) return { pending, schema: await verify(run, session) };
        const ready = rest.slice(0, countReady(pending));
        rest = rest.slice(ready.length);
        thread ??= startMigrateThread(run);
        await applyPart(run, session, { found: locked, pending: ready }, thread);
      }
      await requireApplied(run, session);
    } finally {
      await thread?.end();
    }
  }
  return { pending: [], schema: await verify(run, session) };
}

/**
 * Always throws. Checks that do not hold end the run, except if their migrations are no longer pending: then it tries
 * again. Graphile-migrate's own command line may have applied them, since it does not wait for this run's lock.
 */
async function refuseCurrent(
  run: Run,
  session: Session,
  [next]: readonly CommittedMigration[],
  error: unknown,
): Promise<never> {
  if (run.dryRun || !hasCode(error, 'MIGRATION_CHECK_FAILED')) throw error;
  const pending = pendingIn(await survey(session, run.committed));
  if (pending[0]?.filename === next?.filename) throw error;
  const reason = 'Another migrator applied migrations after they were surveyed.';
  throw new TemporaryFailure(reason, error, { atOnce: true });
}

/** graphile-migrate reads the files itself, and they may have changed since this run read them. */
async function requireApplied({ committed, database, progress }: Run, session: Session): Promise<void> {
  const left = pendingIn(await survey(session, committed)).map(({ filename }) => filename);
  if (left.length === 0) return;
  const message = paragraph(
    `${count(left.length, 'migration')} (${listFiles(left)}) did not reach ${database.where}:`,
    'the files of the package changed during the run.',
    progress.appliedAndKept,
    'Run this again when nothing changes them.',
  );
  throw new MigrationFailedError(message, null, null, progress.applied);
}

/** Loaded only when needed: most runs have nothing to apply. */
const loadSteps = () =>
  Promise.all([
    import('./migration-lock.ts'),
    import('../catalog/drift.ts'),
    import('./evaluate-data-checks.ts'),
    import('./apply.ts'),
  ]);

/**
 * Waits `connectWaitMs` for a server that is starting. In a later attempt, the run has been connected before, so an error
 * says that the connection was lost.
 */
async function connect({ database, settings, signal, emit, progress }: Run): Promise<Session> {
  const waitMs = settings.connectWaitMs;
  try {
    return await openSession(database, {
      waitMs,
      signal,
      onWaiting: (reason) => emit({ type: 'waiting', for: 'server', reason, atMostMs: waitMs }),
      onSilent: (message) => emit({ type: 'warning', message }),
    });
  } catch (error) {
    if (progress.attempts === 1 || !hasCode(error, 'CONNECTION_FAILED')) throw error;
    throw connectionLostError(database.where, error.cause, progress.applied);
  }
}

async function surveyFirst(run: Run, session: Session): Promise<Survey> {
  const { settings, progress, committed, dryRun } = run;
  if (progress.pids.size > 0 && settings.pooler === 'refuse') await endSessions(session, progress.pids);
  progress.pids.add(session.announcedPid);
  const found = await survey(session, committed, dryRun ? undefined : settings.pooler);
  run.onIdentity?.(found.identity);
  progress.serverVersion = found.serverVersion;
  if (pendingIn(found).length > 0 && !dryRun) {
    refuseUnwritable(found);
    const { refuseStrangers } = await import('../catalog/owners.ts');
    await refuseStrangers(session, found.applied.length > 0);
  }
  return found;
}

/** Once, also after several attempts. */
function tellPlan({ progress, emit }: Run, found: Survey): void {
  const { where, serverVersion, adopting } = found;
  const pending = pendingIn(found).map(({ filename }) => filename);
  if (!progress.planTold) emit({ type: 'plan', database: where, serverVersion, pending, adopting });
  progress.planTold = true;
}

const unchecked = (reason: string): SchemaCheck => ({ state: 'unchecked', reason });

/**
 * Compares the schema after a run that applied something.
 * @throws {SchemaDriftedError} when it differs from its model.
 */
async function verify(run: Run, session: Session): Promise<SchemaCheck> {
  const { committed, progress, spans, database, emit } = run;
  if (run.dryRun) return unchecked('it was a dry run');
  if (!run.compareSchema) return unchecked('it was not asked for');
  // After a lost connection, a migration may have been applied without an answer.
  if (progress.durations.size === 0 && progress.attempts === 1) return unchecked('nothing was applied');
  const warn = (message: string) => emit({ type: 'warning', message });
  spans.begin('verify');
  const { checkSchema, checkRights } = await import('../catalog/drift.ts');
  const check = await checkSchema(session, committed);
  if (check.state === 'drifted') {
    const lines = check.differences.map((line) => `  ${line}\n`).join('');
    const message = paragraph(
      `The schema in ${database.where} differs from its migrations:\n${lines}Someone changed it by hand.`,
      `Undo the change, or write it as a migration; ${typedCommand('verify')} compares again.`,
      progress.appliedAndKept,
    );
    throw new SchemaDriftedError(message, check.differences, progress.applied);
  }
  if (check.state === 'unchecked') warn(`The schema was not checked: ${check.reason}`);
  else {
    check.notes.forEach(warn);
    // Rights that someone granted by hand are no reason to fail a deploy.
    const rights = await checkRights(session);
    if (rights.state === 'unchecked') warn(rights.reason);
    if (rights.state === 'drifted') rights.differences.forEach(warn);
  }
  spans.end();
  return check;
}

/** The error of a run that was stopped. `cause` is the error of its current step. */
function abortedError({ progress, signal }: Run, cause: unknown): FilestoreError {
  if (cause instanceof RunAbortedError) return cause;
  const place = cause instanceof MigrationFailedError ? cause.place : null;
  const message = paragraph(
    describeStop(signal),
    progress.appliedAndKept,
    place !== null && `${place.filename} was running and was not completed.`,
    'Run this again to apply the rest.',
  );
  return new RunAbortedError(message, progress.applied, { cause });
}
