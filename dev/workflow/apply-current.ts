import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { readMigrations } from './committed-folder.ts';
import { readPending } from './compare-history.ts';
import { isBlank, readCurrent, refuseLineEnds, staleFixturePaths } from './current-sql.ts';
import type { WorkflowContext } from './databases.ts';
import { explainFailure, type SqlFailure } from './explain-failure.ts';
import type { Graphile } from './graphile.ts';
import { runGraphileCommand } from './run-graphile-command.ts';
import { leftoversOfCommitted } from './stale-objects.ts';

/** The result of applying current.sql to the development database. */
export type ApplyResult =
  | {
      readonly type: 'applied';
      /** Committed migrations that were applied first. */
      readonly migrations: readonly string[];
      /** current.sql is empty. */
      readonly blank: boolean;
      /** Unchanged since the last run, except for comments: nothing was run. */
      readonly unchanged: boolean;
      /** Objects in the database that the files do not create; empty if they are not known, or unless `blank`. */
      readonly leftovers: readonly string[];
      /** Files below migrations/fixtures that differ from the last migration, and so had no effect. */
      readonly notIncluded: readonly string[];
      readonly durationMs: number;
    }
  | { readonly type: 'failed'; readonly failure: SqlFailure };

/**
 * Brings the development database to the committed migrations and applies current.sql, as `graphile-migrate watch
 * --once` does.
 * @throws {DatabaseAheadError | HistoryDivergedError} when the database was migrated by other files.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when a line has a CR or a byte order mark.
 * @throws {FilestoreError | ConnectionLostError | LockNotAcquiredError | MigrationsInvalidError | RunAbortedError}
 */
export async function applyCurrent(context: WorkflowContext, graphile: Graphile): Promise<ApplyResult> {
  const startedAt = performance.now();
  const { main } = context.databases;
  await refuseLineEnds();
  const committed = await readMigrations();
  const pending = await readPending(main, committed);
  const text = await readCurrent(MIGRATIONS_FOLDER);
  const outcome = await runGraphileCommand(context, graphile, {
    make: async () => ({ type: 'apply', migrationsFolder: MIGRATIONS_FOLDER }),
    onceStopped:
      'The current statement was cancelled. In a transaction, it is rolled back. The next apply runs it again.',
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
    notIncluded: await staleFixturePaths(),
    durationMs,
  };
}
