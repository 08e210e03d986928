import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { includedBy, includeMarks, parseMigrationText } from '../../src/graphile/migration-text.ts';
import { splitStatements, type TokenizedStatement } from '../../src/sql-text.ts';
import { blankLinesBefore } from '../../src/text.ts';
import type { Place, Problem } from './problem.ts';

export const COMMITTED = 'migrations/committed';
export const CURRENT = 'migrations/current.sql';
export const FIXTURES = 'migrations/fixtures';

/** SQL that is run as one migration, or is part of one. */
export interface SqlSource {
  readonly file: string;
  readonly text: string;
  readonly statements: readonly TokenizedStatement[];
  /** Whether it runs in a transaction: false if it begins with `--! no-transaction`. */
  readonly transaction: boolean;
  /** Where a line of the text, counted from 1, is in its file. */
  readonly placeOf: (line: number) => Place;
}

/** The SQL of a package. */
export interface Sources {
  /** Folder of the package. */
  readonly root: string;
  /** In their order. A gate checks that they form a chain. */
  readonly committed: readonly SqlSource[];
  /** migrations/current.sql as it is written. */
  readonly current: SqlSource;
  /** The same with its includes, if it is checked as the next migration; otherwise null. */
  readonly pending: SqlSource | Problem | null;
  readonly fixtures: readonly SqlSource[];
}

/** @param current Whether migrations/current.sql is checked as the next migration. */
export async function readSources(root: string, current: boolean): Promise<Sources> {
  const fixtures = await readFolder(root, FIXTURES);
  const text = await readFile(join(root, CURRENT), 'utf8').catch(() => '');
  const written = sourceOf(CURRENT, text);
  return {
    root,
    committed: await readFolder(root, COMMITTED),
    current: written,
    pending: current ? expandIncludes(written, fixtures) : null,
    fixtures,
  };
}

/** The SQL of the checkout: the committed migrations, current.sql and the fixtures. */
export function writtenSources({ committed, current, pending, fixtures }: Sources): readonly SqlSource[] {
  return [...committed, ...(pending === null ? [] : [current]), ...fixtures];
}

/** All migrations, in order. */
export function migrationsOf({ committed, pending }: Sources): readonly SqlSource[] {
  return isSource(pending) ? [...committed, pending] : committed;
}

export function isSource(pending: Sources['pending']): pending is SqlSource {
  return pending !== null && 'statements' in pending;
}

/** Whether it has no statement and no include. An include is a comment in SQL, but not for graphile-migrate. */
export function isEmpty(source: SqlSource): boolean {
  return (
    source.statements.length === 0 && source.text.split('\n').every((line) => includedBy(line) === undefined)
  );
}

/** The text with its includes expanded, as graphile-migrate runs it. */
export function expandIncludes(
  source: SqlSource,
  fixtures: readonly SqlSource[],
  within: readonly string[] = [],
): SqlSource | Problem {
  const lines: string[] = [];
  const places: Place[] = [];
  for (const [index, line] of source.text.split('\n').entries()) {
    const place = { file: source.file, line: index + 1 };
    const add = (text: string, at: Place) => {
      lines.push(text);
      places.push(at);
    };
    const path = includedBy(line);
    if (path === undefined) {
      add(line, place);
      continue;
    }
    const file = `${FIXTURES}/${path}`;
    const fixture = fixtures.find((candidate) => candidate.file === file);
    if (fixture === undefined) {
      const remedy = `Create the file in ${FIXTURES}, or correct its name.`;
      return { ...place, what: `includes ${path}, which does not exist`, remedy };
    }
    if (within.includes(file)) return { ...place, what: `includes itself by ${path}`, remedy: 'Remove it.' };
    const included = expandIncludes(fixture, fixtures, [...within, file]);
    if (!isSource(included)) return included;
    const { begin, end } = includeMarks(path);
    add(begin, place);
    const skipped = blankLinesBefore(included.text);
    included.text
      .trim()
      .split('\n')
      .forEach((text, number) => {
        add(text, included.placeOf(skipped + number + 1));
      });
    add(end, place);
  }
  return sourceOf(source.file, lines.join('\n'), places);
}

export function sourceOf(file: string, text: string, places: readonly Place[] = []): SqlSource {
  let statements: readonly TokenizedStatement[] | undefined;
  return {
    file,
    text,
    // Splitting every file takes a tenth of a second, and most callers need few of them.
    get statements() {
      statements ??= splitStatements(text);
      return statements;
    },
    transaction: parseMigrationText(text).transaction,
    placeOf: (line) => places[line - 1] ?? { file, line },
  };
}

async function readFolder(root: string, folder: string): Promise<readonly SqlSource[]> {
  const entries = await readdir(join(root, folder), { recursive: true }).catch(() => []);
  const files = entries.filter((entry) => entry.endsWith('.sql')).toSorted();
  return Promise.all(
    files.map(async (file) =>
      sourceOf(`${folder}/${file.replaceAll('\\', '/')}`, await readFile(join(root, folder, file), 'utf8')),
    ),
  );
}
