import { setTimeout as delay } from 'node:timers/promises';
import { LockNotAcquiredError, RunAbortedError } from '../../src/errors.ts';
import type { ThreadCommand, ThreadOutcome, ThreadTarget } from '../../src/graphile/protocol.ts';
import { isLockedOut } from '../../src/graphile/thread.ts';
import { UNKNOWN_HOLDER } from '../../src/session/lock-holder.ts';
import { withSession } from '../../src/session/session.ts';
import { databaseOf, describeConnection } from '../../src/settings/database.ts';
import type { ConnectionSettings } from '../../src/settings/settings.ts';
import type { WorkflowContext } from './databases.ts';
import { type Graphile, startGraphile } from './graphile.ts';

/** Another command on the same database takes seconds. */
const LOCK_PATIENCE_MS = 20_000;
const LOCK_RETRY_MS = 200;

/** Runs `work` with graphile-migrate in a thread, and ends the thread afterwards. */
export async function withGraphile<T>(
  { databases }: WorkflowContext,
  work: (graphile: Graphile) => Promise<T>,
): Promise<T> {
  const graphile = startGraphile(databases);
  try {
    return await work(graphile);
  } finally {
    await graphile.end();
  }
}

/**
 * Runs `work` while no other commit, uncommit or reset of the same development database runs. Their lock is in the root
 * database, because a reset drops the others.
 * @throws {LockNotAcquiredError | RunAbortedError} when another one takes too long.
 */
export async function withChangeLock<T>(
  { databases: { main, root }, signal }: WorkflowContext,
  work: () => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + LOCK_PATIENCE_MS;
  const key = `filestore change of ${main.database.replaceAll("'", "''")}`;
  return withSession(databaseOf(root), async (session) => {
    for (;;) {
      const { rows } = await session.query<{ locked: boolean }>(
        `select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('${key}', 0)) as locked`,
      );
      if (rows[0]?.locked) return work();
      if (signal.aborted) throw new RunAbortedError('Stopped on request. Nothing was changed.', []);
      if (performance.now() > deadline) throw lockedOut('commit, uncommit or reset', main);
      await delay(LOCK_RETRY_MS);
    }
  });
}

export interface StoppableCommand {
  /** Recreated for each attempt, because a failed one may leave a changed folder. */
  readonly make: () => Promise<ThreadCommand>;
  /** The state after a stop, in sentences. */
  readonly onceStopped: string;
}

/**
 * Runs one command of graphile-migrate. Waits while another one is running on the same database.
 * @throws {LockNotAcquiredError} when that takes too long.
 * @throws {RunAbortedError} when the signal was aborted. The server cancels the current statement within half a second;
 * earlier work of the command stays.
 */
export async function runGraphileCommand(
  { databases, signal, onStep }: WorkflowContext,
  graphile: Graphile,
  { make, onceStopped }: StoppableCommand,
): Promise<ThreadOutcome> {
  const deadline = performance.now() + LOCK_PATIENCE_MS;
  const end = () => void graphile.end();
  signal.addEventListener('abort', end);
  try {
    for (;;) {
      const command = await make();
      if (signal.aborted) throw new RunAbortedError(`Stopped on request. ${onceStopped}`, []);
      const outcome = await graphile.run(command, (target) => onStep(describeTarget(target)));
      if (signal.aborted && outcome.type !== 'done') continue;
      if (!isLockedOut(outcome)) return outcome;
      if (performance.now() > deadline) throw lockedOut('migrator', databases.main);
      await delay(LOCK_RETRY_MS);
    }
  } finally {
    signal.removeEventListener('abort', end);
  }
}

function lockedOut(what: string, main: ConnectionSettings): LockNotAcquiredError {
  return new LockNotAcquiredError(
    `Another ${what} is running on ${describeConnection(main)}. Nothing was changed. Run this again when it has ended.`,
    UNKNOWN_HOLDER,
    [],
  );
}

function describeTarget({ committed, database }: ThreadTarget): string {
  return `running ${committed ?? 'current.sql'} on the ${database === 'main' ? 'development' : 'shadow'} database`;
}
