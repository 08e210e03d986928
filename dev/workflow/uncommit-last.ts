import { appendFile, copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { FilestoreError } from '../../src/errors.ts';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { readMigrations } from './committed-files.ts';
import { readPending } from './compare-history.ts';
import { currentFile, isBlank, readCurrent } from './current-sql.ts';
import type { WorkflowContext } from './databases.ts';
import { refuseToErase, untilUnused } from './erase.ts';
import { explainFailure, type SqlFailure } from './explain-failure.ts';
import { runCommand, withGraphile } from './run-command.ts';
import { withStaging } from './staging.ts';

export type UncommitResult =
  | {
      readonly type: 'uncommitted';
      readonly filename: string;
      /** Whether current.sql was changed during the command; the change is then in it after the migration. */
      readonly currentKept: boolean;
      readonly durationMs: number;
    }
  | {
      readonly type: 'failed';
      readonly failure: SqlFailure;
      /** The state after a failure, in sentences. */
      readonly consequence: string;
    };

/**
 * Moves the last committed migration back into current.sql, with its includes as includes, and removes it from the
 * development database's history; its objects stay. A failure changes no file, but the record may be lost.
 * @throws {SettingsError} when the shadow database may not be erased.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when there is nothing to uncommit, or current.sql is not empty.
 * @throws what applying current.sql does.
 */
export async function uncommitLast(
  context: WorkflowContext,
  { yesErase }: { readonly yesErase: string | undefined },
): Promise<UncommitResult> {
  const startedAt = performance.now();
  const { databases, onStep } = context;
  const committed = await readMigrations();
  const last = committed.at(-1);
  if (last === undefined)
    throw new FilestoreError('SCHEMA_CHANGE_REFUSED', 'There is no committed migration to uncommit.');
  const text = await readCurrent(MIGRATIONS_FOLDER);
  if (!isBlank(text)) {
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      `${last.filename} cannot be moved back, because migrations/current.sql has another change. Commit or remove that change first.`,
    );
  }
  refuseToErase(databases, 'shadow', yesErase);
  await readPending(databases.main, committed);
  await untilUnused(databases, 'shadow');
  onStep('recreating the shadow database');
  const consequence = `No file was changed. The development database may have lost its record of ${last.filename}, and would then run it again. Repeat this, or recreate the database (npm run db:reset).`;
  return withStaging(async (staging) => {
    const { folder } = staging;
    const outcome = await withGraphile(context, (graphile) =>
      runCommand(context, graphile, {
        async make() {
          await staging.refresh();
          return { type: 'uncommit', migrationsFolder: folder };
        },
        onceStopped: consequence,
      }),
    );
    if (outcome.type === 'failed') {
      return { type: 'failed', failure: await explainFailure(outcome, committed, folder), consequence };
    }
    // Write current.sql before deleting the migration, so the change is never lost.
    const saved = await readCurrent(MIGRATIONS_FOLDER);
    await copyFile(currentFile(folder), currentFile(MIGRATIONS_FOLDER));
    const currentKept = saved !== text;
    if (currentKept) await appendFile(currentFile(MIGRATIONS_FOLDER), `\n${saved}`);
    await rm(join(MIGRATIONS_FOLDER, 'committed', last.filename));
    return {
      type: 'uncommitted',
      filename: last.filename,
      currentKept,
      durationMs: performance.now() - startedAt,
    };
  });
}
