import { includeMarks } from '../../src/graphile/migration-text.ts';
import type { Problem } from './problem.ts';
import { expandIncludes, FIXTURES, isSource, migrationsOf, type Sources } from './sources.ts';

/** Fixtures that differ from the last migration that includes them. */
export function staleFixtures(sources: Sources): readonly Problem[] {
  const committing = sources.pending === null ? ', and commit it' : '';
  return sources.fixtures.flatMap((written): readonly Problem[] => {
    const path = written.file.slice(FIXTURES.length + 1);
    const remedy = `Include it: write "--!include ${path}" in migrations/current.sql${committing}.`;
    const fixture = expandIncludes(written, sources.fixtures, [written.file]);
    if (!isSource(fixture)) return [fixture];
    const { begin, end } = includeMarks(path);
    const migration = migrationsOf(sources).findLast(({ text }) => text.includes(`${begin}\n`));
    if (migration === undefined) {
      const what = 'was never part of a migration';
      return [{ file: written.file, line: null, what, remedy: `${remedy} Or remove the file.` }];
    }
    const last = migration.text.slice(migration.text.lastIndexOf(`${begin}\n`));
    if (last.startsWith(`${begin}\n${fixture.text.trim()}\n${end}`)) return [];
    return [{ file: written.file, line: null, what: `differs from its text in ${migration.file}`, remedy }];
  });
}
