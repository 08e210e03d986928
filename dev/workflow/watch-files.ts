import { FilestoreError, hasCode, RunAbortedError } from '../../src/errors.ts';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { withSession } from '../../src/session/session.ts';
import { databaseOf } from '../../src/settings/database.ts';
import type { ConnectionSettings } from '../../src/settings/settings.ts';
import { type ApplyResult, applyCurrent } from './apply-current.ts';
import { readMigrations } from './committed-files.ts';
import { readPending } from './compare-history.ts';
import { staleFixturePaths } from './current-sql.ts';
import type { Graphile } from './graphile.ts';
import { withGraphile } from './run-command.ts';
import { type Change, nextChange, takeSnapshot } from './snapshot.ts';
import type { WorkflowContext } from './workflow-context.ts';

export type WatchEvent =
  | {
      readonly type: 'result';
      readonly result: ApplyResult;
      /** Milliseconds from the save to the end of applying; null at the start. */
      readonly sinceSaveMs: number | null;
      /** Saved fixtures that no migration has in this form, so they had no effect. */
      readonly notIncluded: readonly string[];
    }
  /** The database cannot be used. The watch tries again at every save and at intervals. */
  | { readonly type: 'refused'; readonly error: FilestoreError };

const RETRY_MS = 1_000;

/**
 * Applies current.sql at every save of it, of a fixture or of a committed migration (which git writes when the branch is
 * switched), until the signal comes.
 * @throws {FilestoreError} `CONNECTION_FAILED` when the database is not reachable at the start.
 */
export async function watch(context: WorkflowContext, onEvent: (event: WatchEvent) => void): Promise<void> {
  const { signal } = context;
  await withGraphile(context, async (graphile) => {
    let snapshot = takeSnapshot(MIGRATIONS_FOLDER);
    let change: Change | undefined;
    let isRetry = false;
    let last: WatchEvent | undefined;
    while (!signal.aborted) {
      const event = await attempt(context, graphile, change);
      if (event === undefined) return;
      if (last === undefined && isUnreachable(event)) throw event.error;
      // A repeated failure without a save is not reported again.
      const isNews = last === undefined || !isRetry || temporaryReason(event) !== temporaryReason(last);
      if (isNews) onEvent(event);
      last = event;
      isRetry = false;
      if (failsByItsSql(event)) {
        change = await waitForChangeOrReset(context, snapshot);
      } else {
        change = await waitForChange(snapshot, signal, temporaryReason(event) !== undefined);
        isRetry = change === undefined;
      }
      snapshot = change?.snapshot ?? snapshot;
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

function failsByItsSql(event: WatchEvent): boolean {
  return event.type === 'result' && event.result.type === 'failed' && event.result.failure.place !== null;
}

async function attempt(
  context: WorkflowContext,
  graphile: Graphile,
  change: Change | undefined,
): Promise<WatchEvent | undefined> {
  try {
    const result = await applyCurrent(context, graphile);
    const sinceSaveMs = change === undefined ? null : Date.now() - change.savedAt;
    const notIncluded = result.type === 'applied' ? await fixturesNotIncluded(change?.paths ?? []) : [];
    return { type: 'result', result, sinceSaveMs, notIncluded };
  } catch (error) {
    if (error instanceof RunAbortedError) return undefined;
    if (error instanceof FilestoreError) return { type: 'refused', error };
    throw error;
  }
}

/** Undefined when the signal came, or if `impatient` and nothing changed for a while. */
async function waitForChange(
  before: Change['snapshot'],
  signal: AbortSignal,
  impatient: boolean,
): Promise<Change | undefined> {
  try {
    return await nextChange(MIGRATIONS_FOLDER, before, signal, impatient ? RETRY_MS : undefined);
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
}

/** Undefined when the signal came, or when the database was recreated, which may end a failure too. */
async function waitForChangeOrReset(
  context: WorkflowContext,
  before: Change['snapshot'],
): Promise<Change | undefined> {
  const { main } = context.databases;
  const database = await readIdentity(main);
  for (;;) {
    const change = await waitForChange(before, context.signal, true);
    if (change !== undefined || context.signal.aborted) return change;
    const now = await readIdentity(main);
    if (now !== undefined && now !== database) return undefined;
  }
}

/** A number that changes when the database is recreated; undefined while it lacks migrations or cannot be used. */
async function readIdentity(main: ConnectionSettings): Promise<string | undefined> {
  try {
    const pending = await readPending(main, await readMigrations());
    // Its recreation is under way.
    if (pending.length > 0) return undefined;
    return await withSession(databaseOf(main), async (session) => {
      const { rows } = await session.query<{ oid: string }>(
        'select oid::pg_catalog.text from pg_catalog.pg_database where datname = pg_catalog.current_database()',
      );
      return rows[0]?.oid;
    });
  } catch (error) {
    if (error instanceof FilestoreError) return undefined;
    throw error;
  }
}

/** A merge also writes fixtures: those are in its migrations. */
async function fixturesNotIncluded(paths: readonly string[]): Promise<readonly string[]> {
  if (!paths.some((path) => path.startsWith('fixtures/'))) return [];
  const stale = await staleFixturePaths();
  return paths.filter((path) => stale.has(path)).map((path) => path.slice('fixtures/'.length));
}
