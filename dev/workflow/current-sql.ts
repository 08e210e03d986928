import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { FilestoreError } from '../../src/errors.ts';
import { readDataChecks } from '../../src/graphile/data-check-text.ts';
import { parseMigrationText } from '../../src/graphile/migration-text.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { readIfThere } from '../read-if-there.ts';
import { lineEndProblems } from '../sources/line-ends.ts';
import type { Problem } from '../sources/problem.ts';
import {
  CURRENT,
  FIXTURES,
  isEmpty,
  isSource,
  readSources,
  type SqlSource,
  sourceOf,
} from '../sources/sources.ts';
import { staleFixtures } from '../sources/stale-fixtures.ts';

export function currentFile(migrationsFolder: string): string {
  return join(migrationsFolder, 'current.sql');
}

/**
 * The migration being written; empty when there is no file yet.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when it is no file, since a commit or an uncommit could not write it.
 */
export async function readCurrent(migrationsFolder: string): Promise<string> {
  const file = currentFile(migrationsFolder);
  const stats = await lstat(file).catch(() => undefined);
  if (stats?.isFile() === false) {
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      'migrations/current.sql is a folder or a symbolic link. Replace it with a file.',
    );
  }
  return (await readIfThere(file)) ?? '';
}

/** Whether there is nothing to run. */
export function isBlank(text: string): boolean {
  return isEmpty(sourceOf(CURRENT, text));
}

/** The message that an uncommit left in the header. */
export function messageOf(text: string): string | undefined {
  return parseMigrationText(text).headers.get('Message') || undefined;
}

/** current.sql with its includes; undefined if one of them does not exist. */
export async function readCompiled(): Promise<SqlSource | undefined> {
  const { pending } = await readSources(PACKAGE_ROOT, true);
  return isSource(pending) ? pending : undefined;
}

/**
 * Refuses a CR or a byte order mark in current.sql or in a file that it includes: a watch and a commit would run other
 * SQL than the file shows.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` that names the line.
 */
export async function refuseLineEnds(): Promise<void> {
  await refuseProblem(lineEndProblems);
}

/**
 * Refuses a data check that is malformed, since a committed migration cannot be corrected after its release.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` that names the line.
 */
export async function refuseMalformedDataChecks(): Promise<void> {
  await refuseProblem(({ text, placeOf }) =>
    readDataChecks(text).problems.map(({ line, what, remedy }) => ({ ...placeOf(line), what, remedy })),
  );
}

async function refuseProblem(problemsOf: (compiled: SqlSource) => readonly Problem[]): Promise<void> {
  const compiled = await readCompiled();
  const [problem] = compiled === undefined ? [] : problemsOf(compiled);
  if (problem === undefined) return;
  const { file, line, what, remedy } = problem;
  throw new FilestoreError('SCHEMA_CHANGE_REFUSED', `${file}:${line} ${what}. ${remedy}`);
}

/** Fixtures that differ from the last migration that includes them, current.sql included; as paths of includes. */
export async function staleFixturePaths(): Promise<readonly string[]> {
  const problems = staleFixtures(await readSources(PACKAGE_ROOT, true));
  return problems.map(({ file }) => file.slice(FIXTURES.length + 1));
}
