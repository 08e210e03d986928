import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Problem } from '../../sources/problem.ts';
import { type Sources, type SqlSource, writtenSources } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';

const REMEDY =
  'Write the schema by its name, and ask the server for other names (current_database(), current_user).';
/**
 * graphile-migrate replaces these everywhere, even in strings and comments (dist/migration.js). It leaves others as they
 * are, so that the server refuses them, unless .gmrc declares them.
 */
const RESERVED = /:DATABASE_(?:NAME|OWNER)\b/g;
/** The key of .gmrc that declares placeholders, if it is not empty. */
const DECLARED = /^\s*"?placeholders"?\s*:\s*\{\s*[^\s}]/m;

export const placeholders: Gate<Sources> = {
  name: 'placeholders',
  proves: 'no migration has a placeholder',
  async evaluate(sources) {
    const settings = await readFile(join(sources.root, '.gmrc'), 'utf8');
    return judge([...declarationIn(settings), ...writtenSources(sources).flatMap(reservedIn)]);
  },
};

function declarationIn(settings: string): readonly Problem[] {
  const found = DECLARED.exec(settings);
  if (found === null) return [];
  const line = settings.slice(0, found.index + found[0].length).split('\n').length;
  const what = 'declares placeholders, which graphile-migrate also replaces in string literals';
  return [{ file: '.gmrc', line, what, remedy: 'Leave "placeholders" empty.' }];
}

function reservedIn(source: SqlSource): readonly Problem[] {
  return [...source.text.matchAll(RESERVED)].map((found) =>
    problem(source, source.text.slice(0, found.index).split('\n').length, found[0]),
  );
}

function problem(source: SqlSource, line: number, name: string): Problem {
  return { ...source.placeOf(line), what: `has the placeholder ${name}`, remedy: REMEDY };
}
