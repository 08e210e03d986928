import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FilestoreError } from '../../src/errors.ts';
import { type CommittedMigration, readMigrationFiles } from '../../src/graphile/committed-migrations.ts';
import { parseMigrationText } from '../../src/graphile/migration-text.ts';
import { survey } from '../../src/migrate/survey.ts';
import { MIGRATIONS_FOLDER, PACKAGE_ROOT } from '../../src/package-root.ts';
import { withSession } from '../../src/session/session.ts';
import { databaseOf } from '../../src/settings/database.ts';
import type { ConnectionSettings } from '../../src/settings/settings.ts';
import { readIfThere } from '../read-if-there.ts';
import { digestOfFile, readReleases, releasedMigrations } from '../sources/releases.ts';
import { currentFile, isBlank, readCurrent } from './current-sql.ts';
import type { WorkflowContext } from './databases.ts';
import { withChangeLock } from './run-graphile-command.ts';

/** The header lines that give a migration its place in the chain. */
const PLACE = /^--! (?:Previous|Hash):/;
const INCLUDED = /^--! Included (\S+)$\n([\s\S]*?)^--! EndIncluded \1$/gm;
const INCLUDE = '--!include $1';

export interface Uncommitted {
  readonly filename: string;
  /** Missing fixtures that it includes, which have the committed text again; as paths of includes. */
  readonly restored: readonly string[];
  /** Fixtures that it includes, and whose text is not the committed one. */
  readonly changed: readonly string[];
}

/**
 * Moves a committed migration that no other follows back into current.sql, with its includes as includes, and removes
 * it from the development database's history; its objects stay. The result is that of graphile-migrate's uncommit, which
 * cannot read the folder after a merge, and loses the text of a fixture that is missing.
 * @param requested Its file name; needed only if two are last, as after a merge.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when there is none, it is released, or current.sql is not empty. Nothing was changed.
 * @throws {FilestoreError | MigrationsInvalidError}
 */
export async function uncommitLast(
  context: WorkflowContext,
  requested: string | undefined,
): Promise<Uncommitted> {
  return withChangeLock(context, () => uncommitAlone(context, requested));
}

async function uncommitAlone(
  { databases }: WorkflowContext,
  requested: string | undefined,
): Promise<Uncommitted> {
  const { filename, hash } = chooseLast(await readMigrationFiles(MIGRATIONS_FOLDER), requested);
  if (!isBlank(await readCurrent(MIGRATIONS_FOLDER))) {
    throw refusal(
      `${filename} cannot be moved back, because migrations/current.sql has another change. Commit or remove that change first.`,
    );
  }
  await refuseReleased(filename);
  const path = join(MIGRATIONS_FOLDER, 'committed', filename);
  const committed = await readFile(path, 'utf8');
  await removeFromHistory(databases.main, hash);
  // Before the file is deleted, so the change is never lost.
  const fixtures = await restoreFixtures(committed);
  await writeFile(currentFile(MIGRATIONS_FOLDER), textOfCurrent(committed));
  await rm(path);
  return { filename, ...fixtures };
}

/** Creates the missing fixtures of a migration from its text, and compares the others with it. */
async function restoreFixtures(committed: string): Promise<Omit<Uncommitted, 'filename'>> {
  const restored: string[] = [];
  const changed: string[] = [];
  for (const [path, text] of includedTexts(committed)) {
    const file = join(MIGRATIONS_FOLDER, 'fixtures', path);
    const present = await readIfThere(file);
    if (present === undefined) {
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, text, { flag: 'wx' });
      restored.push(path);
    } else if (present.trim() !== text.trim()) changed.push(path);
  }
  return { restored, changed };
}

/** The included texts by path, also of includes in others. The last one counts, as for the object in the database. */
function includedTexts(text: string): ReadonlyMap<string, string> {
  return new Map(
    [...text.matchAll(INCLUDED)].flatMap(([, path = '', included = '']): [string, string][] => [
      ...includedTexts(included),
      [path, included.replace(INCLUDED, INCLUDE)],
    ]),
  );
}

/** Refuses a file with the name or the bytes of a released one, and any file that may be a missing one, edited. */
async function refuseReleased(filename: string): Promise<void> {
  const released = releasedMigrations(await readReleases(PACKAGE_ROOT));
  const digest = await digestOfFile(PACKAGE_ROOT, filename);
  const same = released.find((migration) => migration.name === filename || migration.digest === digest);
  if (same !== undefined) {
    throw refusal(
      `${filename} cannot be moved back, because databases have it since release ${same.version}. Write the change as a new migration.`,
    );
  }
  const missing = released.find(({ name }) => !existsSync(join(MIGRATIONS_FOLDER, 'committed', name)));
  if (missing !== undefined) {
    throw refusal(
      `${filename} cannot be moved back while ${missing.name} of release ${missing.version} is missing. Restore that file from version control.`,
    );
  }
}

function chooseLast(migrations: readonly CommittedMigration[], requested: string | undefined) {
  const followerOf = ({ hash }: CommittedMigration) =>
    migrations.find(({ previousHash }) => previousHash === hash);
  const last = migrations.filter((migration) => followerOf(migration) === undefined);
  const found = requested === undefined ? last : migrations.filter(({ filename }) => filename === requested);
  const [chosen] = found;
  if (chosen === undefined) {
    throw refusal(`There is no ${requested} in migrations/committed. Correct the name of the file.`);
  }
  if (found.length > 1) {
    const names = last.map(({ filename }) => filename).join(' and ');
    throw refusal(
      `Two branches were merged: ${names} are both last. Name yours: npm run db:uncommit -- --migration <file>`,
    );
  }
  const follower = followerOf(chosen);
  if (follower !== undefined) {
    throw refusal(`${chosen.filename} is followed by ${follower.filename}. Uncommit that one first.`);
  }
  return chosen;
}

function textOfCurrent(text: string): string {
  const { headerLines, body } = parseMigrationText(text);
  const header = text.split('\n').slice(0, headerLines);
  const kept = header.filter((line) => !PLACE.test(line)).map((line) => `${line}\n`);
  return [...kept, ...(kept.length === 0 ? [] : ['\n']), body.replace(INCLUDED, INCLUDE)].join('');
}

async function removeFromHistory(main: ConnectionSettings, hash: string): Promise<void> {
  await withSession(databaseOf(main), async (session) => {
    // The history may not exist yet.
    const { applied } = await survey(session, []);
    if (!applied.some((one) => one.hash === hash)) return;
    // A hash contains no quote: it was compared with that of the file.
    await session.query(`delete from graphile_migrate.migrations where hash = '${hash}'`);
  });
}

function refusal(why: string): FilestoreError {
  return new FilestoreError('SCHEMA_CHANGE_REFUSED', `${why} Nothing was changed.`);
}
