import { constants, copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FilestoreError, SettingsError } from '../../src/errors.ts';
import { isMigrationFile, recordedNameOf } from '../../src/graphile/migration-text.ts';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { committedFiles, readMigrations } from './committed-folder.ts';
import { findOtherBranch } from './compare-history.ts';
import {
  currentFile,
  isBlank,
  messageOf,
  readCurrent,
  refuseLineEnds,
  refuseMalformedDataChecks,
} from './current-sql.ts';
import type { WorkflowContext } from './databases.ts';
import { refuseToErase, untilUnused } from './erase.ts';
import { explainFailure, type SqlFailure } from './explain-failure.ts';
import { runGraphileCommand, withChangeLock, withGraphile } from './run-graphile-command.ts';
import { withStaging } from './staging.ts';
import { type Leftovers, leftoversOfCommit } from './stale-objects.ts';

export interface CommitOptions {
  /** Message of the migration; default: its message before it was uncommitted. */
  readonly message: string | undefined;
  /** Name of the shadow database, if it is on another machine. */
  readonly yesErase: string | undefined;
}

export type CommitResult =
  | {
      readonly type: 'committed';
      readonly filename: string;
      readonly hash: string;
      readonly leftovers: Leftovers;
      /** Whether current.sql was changed during the command, and therefore kept. */
      readonly currentKept: boolean;
      readonly durationMs: number;
    }
  | { readonly type: 'failed'; readonly failure: SqlFailure };

/**
 * Turns current.sql into a committed migration: applies all migrations to an empty shadow database, records the new
 * one in the development database unless that is of another branch, and empties current.sql. A failure changes no file.
 * @throws {SettingsError} without a message, or when the shadow database may not be erased.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when there is nothing to commit, its line ends or checks are malformed,
 * or the shadow database is in use.
 * @throws {FilestoreError | ConnectionLostError | LockNotAcquiredError | MigrationsInvalidError | RunAbortedError}
 */
export async function commitCurrent(context: WorkflowContext, options: CommitOptions): Promise<CommitResult> {
  await refuseToErase(context.databases, 'shadow', options.yesErase);
  return withChangeLock(context, () => commitAlone(context, options));
}

async function commitAlone(context: WorkflowContext, options: CommitOptions): Promise<CommitResult> {
  const startedAt = performance.now();
  const { databases, onStep } = context;
  await refuseLineEnds();
  const text = await readCurrent(MIGRATIONS_FOLDER);
  if (isBlank(text)) {
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      'There is nothing to commit: migrations/current.sql has no statement. Write the change there first.',
    );
  }
  await refuseMalformedDataChecks();
  const message = readMessage(options.message ?? messageOf(text));
  const committed = await readMigrations();
  const otherBranch = await findOtherBranch(databases.main, committed);
  await untilUnused(databases, 'shadow');
  onStep('recreating the shadow database');
  return withStaging(async (staging) => {
    const { folder } = staging;
    const used = otherBranch === undefined ? context : onShadowAlone(context);
    const outcome = await withGraphile(used, (graphile) =>
      runGraphileCommand(used, graphile, {
        async make() {
          await staging.refresh();
          return { type: 'commit', migrationsFolder: folder, message };
        },
        onceStopped: 'No file was changed; the next commit recreates the shadow database.',
      }),
    );
    if (outcome.type === 'failed') {
      return { type: 'failed', failure: await explainFailure(outcome, committed, folder) };
    }
    const { filename, currentKept } = await publish(folder, text);
    const migration = (await readMigrations()).find((file) => file.filename === filename);
    return {
      type: 'committed',
      filename,
      hash: migration?.hash ?? '',
      leftovers:
        otherBranch === undefined
          ? await leftoversOfCommit(databases)
          : { type: 'other branch', reason: otherBranch },
      currentKept,
      durationMs: performance.now() - startedAt,
    };
  });
}

/**
 * The development database is of another branch, and keeps its rows: the shadow database, which has all migrations by
 * then, takes its place.
 */
function onShadowAlone(context: WorkflowContext): WorkflowContext {
  const { databases } = context;
  return { ...context, databases: { ...databases, main: databases.shadow } };
}

/** Copies the result from the copy into the folder. The migration comes first, so the change is never lost. */
async function publish(folder: string, text: string) {
  const filename = (await committedFiles(folder)).findLast(isMigrationFile) ?? '';
  const taken = (await committedFiles(MIGRATIONS_FOLDER)).find(
    (name) => recordedNameOf(name) === recordedNameOf(filename),
  );
  if (taken !== undefined) {
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      `migrations/committed/${taken} was added during the command, and has the number of the new migration. No file was changed. Run npm run db:reset, and commit again.`,
    );
  }
  await mkdir(join(MIGRATIONS_FOLDER, 'committed'), { recursive: true });
  const target = join(MIGRATIONS_FOLDER, 'committed', filename);
  await copyFile(join(folder, 'committed', filename), target, constants.COPYFILE_EXCL);
  const currentKept = (await readCurrent(MIGRATIONS_FOLDER)) !== text;
  if (!currentKept) await writeFile(currentFile(MIGRATIONS_FOLDER), await readFile(currentFile(folder)));
  return { filename, currentKept };
}

/** graphile-migrate refuses a message that is too long. */
function readMessage(message = ''): string {
  // graphile-migrate cannot read a header with the line ends U+2028 and U+2029.
  if (message.trim() !== '' && !/[\p{Cc}\p{Zl}\p{Zp}]/u.test(message)) return message.trim();
  throw new SettingsError(
    '--message',
    'A commit needs a message in one line, which also names the file: --message "Owner hints".',
  );
}
