import { lineEndProblems } from '../../sources/line-ends.ts';
import type { Problem } from '../../sources/problem.ts';
import { CURRENT, FIXTURES, type Sources, type SqlSource } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';

/** The folders of migrations/fixtures, and the statements that each of their files has. */
const KINDS = {
  functions: {
    kind: 'function',
    statements: [
      'create or replace KIND filestore.NAME(',
      'comment on KIND ',
      'revoke all on KIND filestore.NAME(',
    ],
  },
  triggers: {
    kind: 'trigger',
    statements: ['drop KIND if exists NAME on filestore.', 'create KIND NAME\n', 'comment on KIND '],
  },
  views: {
    kind: 'view',
    statements: [
      'drop KIND if exists filestore.NAME;',
      'create KIND filestore.NAME as\n',
      'comment on KIND ',
    ],
  },
} as const;

export const sqlFiles: Gate<Sources> = {
  name: 'sql files',
  proves:
    'SQL files have LF line ends and only ASCII characters, and each file of migrations/fixtures creates only the object it is named after',
  evaluate: ({ current, fixtures }) =>
    judge(
      [current, ...fixtures].flatMap((source) => [
        ...lineEndProblems(source),
        ...characterProblems(source),
        ...objectProblems(source),
      ]),
    ),
};

/**
 * A server in another encoding refuses a character that it lacks before the first migration can report that the database
 * must be in UTF-8. A client in another encoding would get an encoding error in place of the hint.
 */
function characterProblems({ file, text }: SqlSource): readonly Problem[] {
  return text.split('\n').flatMap((written, index) => {
    const other = /\P{ASCII}/u.exec(written);
    if (other === null) return [];
    const what = `has the character "${other[0]}", which other encodings may lack`;
    return [{ file, line: index + 1, what, remedy: 'Use ASCII characters.' }];
  });
}

/** Checks that the file creates only the object it is named after, repeatably and with a comment. */
function objectProblems({ file, text, statements }: SqlSource): readonly Problem[] {
  if (file === CURRENT) return [];
  const [, folder = '', name = ''] = /^(\w+)\/([^/]+)\.sql$/.exec(file.slice(FIXTURES.length + 1)) ?? [];
  const rules = Object.hasOwn(KINDS, folder) ? KINDS[folder as keyof typeof KINDS] : undefined;
  if (rules === undefined) {
    const remedy = `Move it to one of ${Object.keys(KINDS).join('/, ')}/.`;
    return [{ file, line: null, what: `is not in a folder of ${FIXTURES}`, remedy }];
  }
  // Procedures are in the folder of functions.
  const isProcedure = folder === 'functions' && /^create (?:or replace )?procedure\b/m.test(text);
  const kind = isProcedure ? 'procedure' : rules.kind;
  const missing = rules.statements
    .map((beginning) => beginning.replace('KIND', kind).replace('NAME', name))
    .filter((beginning) => !text.split(/^(?=\S)/m).some((part) => part.startsWith(beginning)))
    .map((beginning): Problem => {
      const what = `has no statement "${beginning.trim()}…"`;
      return {
        file,
        line: null,
        what,
        remedy: `Write the ${kind} ${name} in this file, and nothing else.`,
      };
    });
  const others = statements
    .filter(({ text }) => /^create\b/i.test(text))
    .slice(1)
    .map(({ line }): Problem => {
      const remedy = 'Move it to a separate file.';
      return { file, line, what: 'creates a second object', remedy };
    });
  return [...missing, ...others];
}
