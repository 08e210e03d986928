import { includeMarks } from '../../src/graphile/migration-text.ts';
import { blankLinesBefore } from '../../src/text.ts';
import type { Problem } from './problem.ts';
import { expandIncludes, FIXTURES, isSource, migrationsOf, type Sources, type SqlSource } from './sources.ts';

/** Fixtures that differ from the last migration that includes them. */
export function staleFixtures(sources: Sources): readonly Problem[] {
  return sources.fixtures.flatMap((fixture) => problemsOf(fixture, sources, migrationsOf(sources)));
}

function problemsOf(
  written: SqlSource,
  { fixtures, pending }: Sources,
  migrations: readonly SqlSource[],
): readonly Problem[] {
  const path = written.file.slice(FIXTURES.length + 1);
  const remedy =
    pending === null
      ? `Include it: write "--!include ${path}" in migrations/current.sql, and commit it.`
      : `Include it: write "--!include ${path}" in migrations/current.sql.`;
  const fixture = expandIncludes(written, fixtures, [written.file]);
  if (!isSource(fixture)) return [fixture];
  const migration = migrations.findLast(({ text }) => text.includes(beginning(path)));
  if (migration === undefined) {
    const what = 'was never part of a migration';
    return [{ file: written.file, line: 1, what, remedy: `${remedy} Or remove the file.` }];
  }
  const [is, was] = [fixture.text.trim().split('\n'), definitionIn(migration.text, path)];
  const parting = is.findIndex((line, index) => line !== was[index]);
  if (parting === -1 && is.length === was.length) return [];
  const skipped = blankLinesBefore(fixture.text);
  const line = skipped + (parting === -1 ? is.length : parting + 1);
  return [{ ...fixture.placeOf(line), what: `differs from its text in ${migration.file}`, remedy }];
}

function definitionIn(migration: string, path: string): readonly string[] {
  const start = migration.lastIndexOf(beginning(path)) + beginning(path).length;
  const end = migration.indexOf(`\n${includeMarks(path).end}`, start);
  return migration.slice(start, end === -1 ? undefined : end).split('\n');
}

function beginning(path: string): string {
  return `${includeMarks(path).begin}\n`;
}
