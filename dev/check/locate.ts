import type { Place } from '../sources/problem.ts';
import { FIXTURES, migrationsOf, type Sources } from '../sources/sources.ts';

const FOLDERS: Readonly<Record<string, string>> = {
  function: 'functions',
  procedure: 'functions',
  aggregate: 'functions',
  view: 'views',
  'materialized view': 'views',
  trigger: 'triggers',
};

/** The file of an object's definition, by convention; undefined for kinds without files. */
export function fixtureOf(kind: string, name: string): string | undefined {
  const folder = FOLDERS[kind];
  // A function's name may include its arguments.
  return folder && `${FIXTURES}/${folder}/${name.replace(/\(.*/s, '').replaceAll('"', '')}.sql`;
}

/**
 * Where an object is defined: in its own file, or at the first statement of the migrations with all of these names.
 * @param names Names of the objects that it belongs to, and then its own name.
 */
export function locate(sources: Sources, kind: string, ...names: readonly string[]): Place {
  const own = fixtureOf(kind, names.at(-1) ?? '');
  if (own !== undefined && sources.fixtures.some(({ file }) => file === own)) return { file: own, line: 1 };
  for (const { statements, placeOf } of migrationsOf(sources)) {
    for (const { tokens } of statements) {
      const found = names.map((name) =>
        tokens.find(({ kind, value }) => (kind === 'word' || kind === 'name') && value === name),
      );
      const last = found.at(-1);
      if (last !== undefined && !found.includes(undefined)) return placeOf(last.line);
    }
  }
  return { file: migrationsOf(sources).at(-1)?.file ?? 'migrations', line: null };
}

/** A line of a function's body, counted from 1. */
export function locateInBody(sources: Sources, name: string, body: string, line: number): Place {
  const { file, line: start } = locate(sources, 'function', name);
  const text = [...sources.fixtures, sources.current].find((source) => source.file === file)?.text ?? '';
  const offset = text.indexOf(body);
  if (offset === -1) return { file, line: start };
  return { file, line: text.slice(0, offset).split('\n').length + line - 1 };
}
