import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { isBlank, readCurrent } from './current-sql.ts';
import { explainFailure, type SqlFailure } from './explain-failure.ts';
import type { Graphile } from './graphile.ts';
import { leftoversOfCommitted } from './leftovers.ts';
import { readMigrations, readPending } from './other-branch.ts';
import { runCommand } from './run-command.ts';
import type { WorkflowContext } from './workflow-context.ts';

/** How applying current.sql to the development database ended. */
export type ApplyResult =
  | {
      readonly type: 'applied';
      /** Committed migrations that it lacked and got first. */
      readonly migrations: readonly string[];
      /** Nothing is being written. */
      readonly blank: boolean;
      /** The same as at its last run, but for comments: nothing was run. */
      readonly unchanged: boolean;
      /** What the database holds and the files do not make, as far as it can be told: only when `blank`. */
      readonly leftovers: readonly string[];
      readonly durationMs: number;
    }
  | { readonly type: 'failed'; readonly failure: SqlFailure };

/**
 * Brings the development database to the committed migrations and applies current.sql, as `graphile-migrate watch
 * --once` does.
 * @throws {DatabaseAheadError | HistoryDivergedError} when the database was made of other files.
 * @throws {FilestoreError | ConnectionLostError | LockNotAcquiredError | MigrationsInvalidError | RunAbortedError}
 */
export async function applyCurrent(context: WorkflowContext, graphile: Graphile): Promise<ApplyResult> {
  const startedAt = performance.now();
  const { main } = context.databases;
  const committed = await readMigrations();
  const pending = await readPending(main, committed);
  const text = await readCurrent(MIGRATIONS_FOLDER);
  const outcome = await runCommand(context, graphile, {
    make: async () => ({ type: 'apply', migrationsFolder: MIGRATIONS_FOLDER }),
    onceStopped:
      'What had not ended was cancelled: it is rolled back where it runs in a transaction, and run again by the next apply.',
  });
  if (outcome.type === 'failed') {
    return { type: 'failed', failure: await explainFailure(outcome, committed, MIGRATIONS_FOLDER) };
  }
  const durationMs = performance.now() - startedAt;
  const blank = isBlank(text);
  return {
    type: 'applied',
    migrations: pending.map(({ filename }) => filename),
    blank,
    unchanged: outcome.unchanged,
    leftovers: blank ? await leftoversOfCommitted(main, committed) : [],
    durationMs,
  };
}
