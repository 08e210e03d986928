import { setTimeout as delay } from 'node:timers/promises';
import {
  ConnectionError,
  type FilestoreError,
  type LockHolder,
  LockNotAcquiredError,
  MigrationFailedError,
  RunAbortedError,
} from '../errors.ts';
import { describeConnection } from '../settings/settings.ts';
import { seconds } from '../text.ts';
import type { SchemaCheck } from './check-schema.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import { connectionLostError, isConnectionLoss } from './connection-error.ts';
import { type LockOutcome, waitForLock } from './lock.ts';
import { describeHolderAndSince, UNKNOWN_HOLDER } from './lock-holder.ts';
import { type Preflight, readPreflight } from './preflight.ts';
import { isAdopting, pendingIn, refusePooler, refuseReadOnly } from './refuse.ts';
import { PassingFailure, startBackoff } from './retry.ts';
import type { Progress, Run } from './run-state.ts';
import { LONG_SESSION, openSession, type Session } from './session.ts';

/** How long a server may take to answer a run that was told to stop. */
const STOP_MS = 2_000;

/** How a run ended. */
export interface RunResult {
  readonly progress: Readonly<Progress>;
  readonly serverVersion: string;
  readonly schema: SchemaCheck;
}

/** Runs until everything is applied; tries again when what got in the way may pass. */
export async function run(options: Run): Promise<RunResult> {
  const progress: Progress = { durations: new Map(), waitedForLockMs: 0, attempts: 0, planTold: false };
  const backoff = startBackoff(options.settings.lockWaitMs);
  for (;;) {
    const before = progress.durations.size;
    progress.attempts += 1;
    try {
      return await attempt(options, progress);
    } catch (error) {
      const cause = error instanceof PassingFailure ? error.error : error;
      if (options.signal.aborted) throw abortedError(options, progress, cause);
      if (!(error instanceof PassingFailure)) throw notBack(options, progress, error);
      if (progress.durations.size > before) backoff.reset();
      const delayMs = backoff.next();
      if (delayMs === undefined) throw error.error;
      const next = progress.attempts + 1;
      options.emit({ type: 'retry', attempt: next, reason: error.reason, delayMs });
      await pause(options, progress, delayMs);
    }
  }
}

async function pause(options: Run, progress: Progress, delayMs: number): Promise<void> {
  await delay(delayMs, undefined, { signal: options.signal }).catch((cause) => {
    throw abortedError(options, progress, cause);
  });
}

/** One attempt, on connections of its own: whatever went wrong before, it begins by looking. */
async function attempt(run: Run, progress: Progress): Promise<RunResult> {
  const { connection, settings, committed } = run;
  const session = await openSession(connection, {
    waitMs: settings.connectWaitMs,
    signal: run.signal,
    onWaiting: (reason) =>
      run.emit({ type: 'waiting', for: 'server', reason, atMostMs: settings.connectWaitMs }),
  });
  const release = abandonWhenStopped(session, run.signal);
  try {
    const preflight = await readPreflight(session);
    await refusePooler(connection, session, preflight, settings.pooler);
    const pending = pendingIn(connection, committed, preflight);
    if (pending.length > 0) refuseReadOnly(connection, preflight);
    tellPlan(run, progress, preflight, pending);
    if (pending.length > 0) await migrate(run, progress, session);
    const { serverVersion } = preflight;
    return { progress, serverVersion, schema: await verify(run, progress, session) };
  } catch (error) {
    throw isConnectionLoss(error) ? lost(run, progress, error) : error;
  } finally {
    release();
    await session.close({ clear: settings.pooler === 'session' });
  }
}

/** A run that is told to stop waits for a server that says nothing only so long. */
function abandonWhenStopped(session: Session, signal: AbortSignal): () => void {
  const stopped = new AbortController();
  const onAbort = () => {
    delay(STOP_MS, undefined, { signal: stopped.signal }).then(session.abandon, () => undefined);
  };
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort);
  return () => {
    signal.removeEventListener('abort', onAbort);
    stopped.abort();
  };
}

function tellPlan(
  run: Run,
  progress: Progress,
  preflight: Preflight,
  pending: readonly CommittedMigration[],
): void {
  if (progress.planTold) return;
  progress.planTold = true;
  run.emit({
    type: 'plan',
    database: describeConnection(run.connection),
    serverVersion: preflight.serverVersion,
    pending: pending.map(({ filename }) => filename),
    adopting: isAdopting(run.connection, preflight),
  });
}

/** Applies what is pending, as the one migrator. Loads what that takes: most runs find nothing to do. */
async function migrate(run: Run, progress: Progress, session: Session): Promise<void> {
  const { startApplier } = await import('./applier.ts');
  // First of all: its thread loads graphile-migrate meanwhile, which takes longer than all of the rest.
  const applier = startApplier(run);
  try {
    const [{ applyPending }, { refuseConflicts, requireModel }] = await Promise.all([
      import('./apply-pending.ts'),
      import('./check-schema.ts'),
    ]);
    if (run.verifySchema) await requireModel();
    await prepareLongSession(session);
    const preflight = await becomeTheOne(run, progress, session);
    if (preflight === undefined) return;
    if (isAdopting(run.connection, preflight)) await refuseConflicts(session, run.committed, run.connection);
    const pending = pendingIn(run.connection, run.committed, preflight);
    await applyPending({ run, progress, session, applier, preflight, pending });
  } finally {
    await applier.end();
  }
}

/** The lock lives as long as this session. */
async function prepareLongSession(session: Session): Promise<void> {
  const calls = Object.entries(LONG_SESSION).map(
    ([name, value]) => `pg_catalog.set_config('${name}', '${value}', false)`,
  );
  await session.query(`select ${calls.join(', ')}`);
}

/** @returns what the database says under the lock; undefined when another migrator has done everything meanwhile. */
async function becomeTheOne(run: Run, progress: Progress, session: Session): Promise<Preflight | undefined> {
  const { connection, settings, committed } = run;
  const outcome = await waitForLock({
    session,
    look: () => readPreflight(session),
    isDone: (preflight) => pendingIn(connection, committed, preflight).length === 0,
    waitMs: settings.lockWaitMs,
    signal: run.signal,
    onWaiting: (holder) => run.emit({ type: 'waiting', for: 'lock', holder, atMostMs: settings.lockWaitMs }),
  });
  progress.waitedForLockMs += outcome.waitedMs;
  if (outcome.type === 'gave-up') throw lockError(run, progress, outcome);
  return outcome.type === 'acquired' ? outcome.preflight : undefined;
}

/** Only after work of its own: where nothing was to do, nothing is read. */
async function verify(run: Run, progress: Progress, session: Session): Promise<SchemaCheck> {
  if (!run.verifySchema) return { state: 'unchecked', reason: 'it was not asked for' };
  if (progress.durations.size === 0) return { state: 'unchecked', reason: 'nothing was applied' };
  const { checkSchema, driftError } = await import('./check-schema.ts');
  const check = await checkSchema(session, run.committed);
  if (check.state === 'drifted') {
    throw driftError(run.connection, check.differences, [...progress.durations.keys()]);
  }
  if (check.state === 'unchecked') {
    run.emit({ type: 'warning', message: `The schema was not checked: ${check.reason}` });
  } else {
    for (const note of check.notes) run.emit({ type: 'warning', message: note });
    await warnOfRights(run, session);
  }
  return check;
}

/** Rights that someone granted by hand are no reason to fail a deploy. */
async function warnOfRights(run: Run, session: Session): Promise<void> {
  const { checkRights } = await import('./rights.ts');
  const rights = await checkRights(session);
  if (rights.state === 'unchecked') run.emit({ type: 'warning', message: rights.reason });
  if (rights.state !== 'drifted') return;
  for (const message of rights.differences) run.emit({ type: 'warning', message });
}

function lost({ connection }: Run, progress: Progress, cause: unknown): PassingFailure {
  const error = connectionLostError(connection, cause, [...progress.durations.keys()]);
  return new PassingFailure(`The connection to ${describeConnection(connection)} was lost.`, error);
}

/** To a run that had a connection, a server that does not let it in again is one that was lost. */
function notBack({ connection }: Run, progress: Progress, error: unknown): unknown {
  if (progress.attempts === 1 || !(error instanceof ConnectionError)) return error;
  return connectionLostError(connection, error.cause, [...progress.durations.keys()]);
}

function lockError(
  run: Run,
  progress: Progress,
  { holders, waitedMs }: Extract<LockOutcome, { readonly type: 'gave-up' }>,
): LockNotAcquiredError {
  const where = describeConnection(run.connection);
  return new LockNotAcquiredError(
    `Gave up after ${seconds(waitedMs)}: ${describeLock(where, holders)} It waits longer with FILESTORE_MIGRATION_LOCK_WAIT_MS; nothing is applied twice.`,
    holders[0] ?? UNKNOWN_HOLDER,
    [...progress.durations.keys()],
  );
}

function describeLock(where: string, holders: readonly LockHolder[]): string {
  const who = holders.map(describeHolderAndSince).join('; ');
  const prepared = holders.flatMap((holder) =>
    holder.kind === 'prepared transaction' ? [holder.remedy] : [],
  );
  // A run has two sessions, one for each lock: of a dead one, both have to go.
  const ends = holders.flatMap((holder) => ('pid' in holder ? [`pg_terminate_backend(${holder.pid})`] : []));
  const what =
    prepared.length > 0
      ? `the lock of migrations on ${where} is held by ${who}`
      : `another migrator is at work on ${where}, ${who === '' ? 'and who it is cannot be told' : who}`;
  const end = ends.length > 0 ? ` if the program behind it is dead, end it: select ${ends.join(', ')}.` : '';
  return [
    `${what}.`,
    ...prepared.map((remedy) => `${remedy}.`),
    `Run this again when it is done${end === '' ? '.' : `;${end}`}`,
  ].join(' ');
}

/** The error of a run that was told to stop; `cause` is what it was doing. */
function abortedError(run: Run, progress: Progress, cause: unknown): FilestoreError {
  if (cause instanceof RunAbortedError) return cause;
  const applied = [...progress.durations.keys()];
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
