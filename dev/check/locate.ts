import { isWord, tokensWithin } from '../../src/sql-text.ts';
import type { Place } from './gate.ts';
import { FIXTURES, migrationsOf, type Sources } from './sources.ts';

const FOLDERS: Readonly<Record<string, string>> = {
  function: 'functions',
  procedure: 'functions',
  aggregate: 'functions',
  view: 'views',
  'materialized view': 'views',
  trigger: 'triggers',
};

/** The file that holds an object's definition by convention; undefined for kinds that have no files. */
export function fixtureOf(kind: string, name: string): string | undefined {
  const folder = FOLDERS[kind];
  // A function's name may carry its arguments.
  return folder && `${FIXTURES}/${folder}/${name.replace(/\(.*/s, '').replaceAll('"', '')}.sql`;
}

/**
 * Where an object is defined: in its own file, else where a statement of the migrations first has all of these names.
 * @param names Of the object, last, and of what it belongs to.
 */
export function locate(sources: Sources, kind: string, ...names: readonly string[]): Place {
  const own = fixtureOf(kind, names.at(-1) ?? '');
  if (own !== undefined && sources.fixtures.some(({ file }) => file === own)) return { file: own, line: 1 };
  return mentions(sources, names)[0] ?? nowhere(sources);
}

/** Where the migrations last have a name. For what is made by the server of names that stand nowhere. */
export function locateLast(sources: Sources, name: string): Place {
  return mentions(sources, [name]).at(-1) ?? nowhere(sources);
}

/** Every statement that has all of the names, at the last one. */
function mentions(sources: Sources, names: readonly string[]): readonly Place[] {
  return migrationsOf(sources).flatMap(({ statements, placeOf }) =>
    statements.flatMap(({ tokens }) => {
      // What must not be made twice stands in a block that asks first.
      const all = isWord(tokens[0], 'do') ? tokens.flatMap(tokensWithin) : tokens;
      const found = names.map((name) =>
        all.find(({ kind, value }) => (kind === 'word' || kind === 'name') && value === name),
      );
      const last = found.at(-1);
      return last === undefined || found.includes(undefined) ? [] : [placeOf(last.line)];
    }),
  );
}

function nowhere(sources: Sources): Place {
  return { file: migrationsOf(sources).at(-1)?.file ?? 'migrations', line: null };
}
