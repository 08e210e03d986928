import { FilestoreError, hasCode, RunAbortedError } from '../../src/errors.ts';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { type ApplyResult, applyCurrent } from './apply-current.ts';
import type { WorkflowContext } from './databases.ts';
import type { Graphile } from './graphile.ts';
import { withGraphile } from './run-graphile-command.ts';
import { nextChange, takeSnapshot } from './snapshot.ts';

export type WatchEvent =
  | { readonly type: 'result'; readonly result: ApplyResult }
  /** The database cannot be used. The watch tries again at every save and at intervals. */
  | { readonly type: 'refused'; readonly error: FilestoreError };

const RETRY_MS = 1_000;

/**
 * Applies current.sql at every save of it, of a fixture or of a committed migration (which git writes when the branch is
 * switched), until the signal comes.
 * @throws {FilestoreError} `CONNECTION_FAILED` when the database is not reachable at the start.
 */
export async function watchFiles(
  context: WorkflowContext,
  onEvent: (event: WatchEvent) => void,
): Promise<void> {
  const { signal } = context;
  await withGraphile(context, async (graphile) => {
    let snapshot = takeSnapshot(MIGRATIONS_FOLDER);
    let isRetry = false;
    let last: WatchEvent | undefined;
    while (!signal.aborted) {
      const event = await attempt(context, graphile);
      if (event === undefined) return;
      if (last === undefined && isUnreachable(event)) throw event.error;
      // A repeated failure without a save is not reported again.
      const isNews = last === undefined || !isRetry || temporaryReason(event) !== temporaryReason(last);
      if (isNews) onEvent(event);
      last = event;
      const giveUpMs = temporaryReason(event) === undefined ? Number.POSITIVE_INFINITY : RETRY_MS;
      const now = await nextChange(MIGRATIONS_FOLDER, snapshot, signal, giveUpMs);
      isRetry = now === snapshot;
      snapshot = now;
    }
  });
}

/** Applies current.sql once. */
export async function applyOnce(context: WorkflowContext): Promise<ApplyResult> {
  return withGraphile(context, (graphile) => applyCurrent(context, graphile));
}

function isUnreachable(event: WatchEvent): event is WatchEvent & { readonly type: 'refused' } {
  return event.type === 'refused' && hasCode(event.error, 'CONNECTION_FAILED');
}

/**
 * The reason of a failure that may end without a save: an unusable database, or a failure outside the files, such as
 * during a reset.
 */
function temporaryReason(event: WatchEvent): string | undefined {
  if (event.type === 'refused') return event.error.message;
  const { result } = event;
  return result.type === 'failed' && result.failure.place === null ? result.failure.message : undefined;
}

async function attempt(context: WorkflowContext, graphile: Graphile): Promise<WatchEvent | undefined> {
  try {
    return { type: 'result', result: await applyCurrent(context, graphile) };
  } catch (error) {
    if (error instanceof RunAbortedError) return undefined;
    if (error instanceof FilestoreError) return { type: 'refused', error };
    throw error;
  }
}
