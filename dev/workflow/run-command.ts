import { setTimeout as delay } from 'node:timers/promises';
import { LockNotAcquiredError, RunAbortedError } from '../../src/errors.ts';
import type { ThreadCommand, ThreadOutcome, ThreadTarget } from '../../src/graphile/protocol.ts';
import { isLockedOut } from '../../src/graphile/thread.ts';
import { UNKNOWN_HOLDER } from '../../src/session/lock-holder.ts';
import { describeConnection } from '../../src/settings/settings.ts';
import type { WorkflowContext } from './databases.ts';
import { type Graphile, startGraphile } from './graphile.ts';

/** Another command on the same database takes seconds. */
const LOCK_PATIENCE_MS = 20_000;
const LOCK_RETRY_MS = 200;
/** Time for the server to roll back a cancelled statement. */
const CANCEL_PATIENCE_MS = 5_000;

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

export interface StoppableCommand {
  /** Recreated for each attempt, because a failed one may leave a changed folder. */
  readonly make: () => Promise<ThreadCommand>;
  /** The state after a stop, in sentences. */
  readonly onceStopped: string;
}

/**
 * Runs one command of graphile-migrate. Waits while another one is running on the same database.
 * @throws {LockNotAcquiredError} when that takes too long.
 * @throws {RunAbortedError} when the signal was aborted. The current statement is cancelled; earlier work of the command
 * stays.
 */
export async function runCommand(
  { databases, signal, onStep }: WorkflowContext,
  graphile: Graphile,
  { make, onceStopped }: StoppableCommand,
): Promise<ThreadOutcome> {
  const deadline = performance.now() + LOCK_PATIENCE_MS;
  for (;;) {
    const stopped = (how: string) => new RunAbortedError(`Stopped on request${how}. ${onceStopped}`, []);
    if (signal.aborted) throw stopped('');
    const outcome = await withCancel(graphile, signal, async () =>
      graphile.run(await make(), (target) => onStep(describeTarget(target))),
    );
    if (outcome === undefined)
      throw stopped(', but the server did not confirm that it stopped the statement');
    if (signal.aborted && outcome.type !== 'done') throw stopped('');
    if (!isLockedOut(outcome)) return outcome;
    if (performance.now() > deadline) {
      throw new LockNotAcquiredError(
        `Another migrator is running on ${describeConnection(databases.main)}. Nothing was changed. Run this again when it has ended.`,
        UNKNOWN_HOLDER,
        [],
      );
    }
    await delay(LOCK_RETRY_MS);
  }
}

/** Cancels the work when the signal comes; undefined if it does not end in time. */
async function withCancel<T>(
  graphile: Graphile,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T | undefined> {
  const given = new AbortController();
  const cancelled = new Promise<undefined>((resolve) => {
    const cancel = async () => {
      await graphile.cancel();
      await delay(CANCEL_PATIENCE_MS, undefined, { signal: given.signal }).catch(() => undefined);
      resolve(undefined);
    };
    signal.addEventListener('abort', () => void cancel(), { once: true, signal: given.signal });
  });
  try {
    return await Promise.race([work(), cancelled]);
  } finally {
    given.abort();
  }
}

function describeTarget({ committed, database }: ThreadTarget): string {
  return `running ${committed ?? 'current.sql'} on the ${database === 'main' ? 'development' : 'shadow'} database`;
}
