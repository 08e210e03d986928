import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { withSession } from '../../src/session/session.ts';
import { databaseOf } from '../../src/settings/database.ts';
import { readMigrations } from './committed-folder.ts';
import type { WorkflowContext } from './databases.ts';
import { isMissingDatabase, refuseToErase, untilUnused } from './erase.ts';
import { explainFailure, type SqlFailure } from './explain-failure.ts';
import { runGraphileCommand, withChangeLock, withGraphile } from './run-graphile-command.ts';

export interface ResetOptions {
  /** Name of the database, if it is on another machine. */
  readonly yesErase: string | undefined;
  /** Called before the database is erased. Size in words, such as `12 MB`; null if the database does not exist. */
  readonly onErase: (size: string | null) => void;
}

export type ResetResult =
  | { readonly type: 'reset'; readonly migrations: number; readonly durationMs: number }
  | { readonly type: 'failed'; readonly failure: SqlFailure };

/**
 * Erases the development database and recreates it from the committed migrations. It does not apply current.sql.
 * @throws {SettingsError} when it is on another machine and was not named, or on another server than the root database.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when it has connections.
 * @throws {FilestoreError | MigrationsInvalidError | LockNotAcquiredError | RunAbortedError}
 */
export async function resetDatabase(context: WorkflowContext, options: ResetOptions): Promise<ResetResult> {
  await refuseToErase(context.databases, 'main', options.yesErase);
  return withChangeLock(context, () => resetAlone(context, options));
}

async function resetAlone(context: WorkflowContext, { onErase }: ResetOptions): Promise<ResetResult> {
  const startedAt = performance.now();
  const { databases } = context;
  // With a broken chain, the erased database could not be recreated.
  const committed = await readMigrations();
  onErase(await sizeOf(context));
  await untilUnused(databases, 'main');
  const outcome = await withGraphile(context, (graphile) =>
    runGraphileCommand(context, graphile, {
      make: async () => ({ type: 'reset', migrationsFolder: MIGRATIONS_FOLDER }),
      onceStopped: 'The database may be erased or incomplete. Run npm run db:reset again.',
    }),
  );
  if (outcome.type === 'failed') {
    return { type: 'failed', failure: await explainFailure(outcome, committed, MIGRATIONS_FOLDER) };
  }
  return { type: 'reset', migrations: committed.length, durationMs: performance.now() - startedAt };
}

async function sizeOf({ databases }: WorkflowContext): Promise<string | null> {
  try {
    return await withSession(databaseOf(databases.main), async (session) => {
      const { rows } = await session.query<{ size: string }>(
        'select pg_catalog.pg_size_pretty(pg_catalog.pg_database_size(pg_catalog.current_database())) as size',
      );
      return rows[0]?.size ?? null;
    });
  } catch (error) {
    if (isMissingDatabase(error)) return null;
    throw error;
  }
}
