import { type SqlToken, tokenize, tokensWithin } from '../../../src/sql-text.ts';
import { type Gate, judge, type Problem } from '../gate.ts';
import { CURRENT, FIXTURES, type Sources, type SqlSource } from '../sources.ts';

/** Maximum length of a line, not counting string literals. */
const LONGEST_LINE = 150;
/** Statements that stay on one line, because they contain a full signature. */
const ONE_LINERS = /^(?:comment on|revoke all on|drop (?:function|procedure) if exists) /;
/** A continuation of an expression is aligned with its beginning. */
const CONTINUATION = /^(?:and|or|is)\b|^\(/;

/** The folders of migrations/fixtures, and the statements that each file must have. */
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

export const style: Gate<Sources> = {
  name: 'style',
  proves: 'SQL in current.sql and migrations/fixtures follows the style of migrations/README.md',
  look: ({ current, fixtures }) =>
    judge([current, ...fixtures].flatMap((source) => [...layoutProblems(source), ...objectProblems(source)])),
};

function layoutProblems(source: SqlSource): readonly Problem[] {
  const { file, text } = source;
  const problem = (line: number, what: string, remedy: string): Problem => ({ file, line, what, remedy });
  const tokens = tokenize(text).flatMap(tokensWithin);
  const capitals = tokens
    .filter(({ kind, text }) => kind === 'word' && /[A-Z]/.test(text))
    .map(({ line, text }) =>
      problem(line, `has ${text} in capitals`, 'Write keywords and names in lower case.'),
    );
  const shape = shapeOf(text, tokens);
  const lines = text.split('\n').flatMap((line, index): readonly Problem[] => {
    const { open, width } = shape[index] ?? { open: false, width: 0 };
    const indentation = line.length - line.trimStart().length;
    const number = index + 1;
    if (line.includes('\r')) return [problem(number, 'ends in CR LF', 'End lines in LF.')];
    if (line.includes('\t')) return [problem(number, 'has a tab', 'Indent by two spaces.')];
    if (/ $/.test(line)) return [problem(number, 'ends in spaces', 'Remove the spaces.')];
    if (width > LONGEST_LINE && !ONE_LINERS.test(line)) {
      const what = `is ${width} characters long, not counting strings`;
      return [problem(number, what, `Break the line: at most ${LONGEST_LINE} characters.`)];
    }
    const free = open || CONTINUATION.test(line.trimStart());
    if (indentation % 2 === 1 && !free) {
      return [problem(number, `is indented by ${indentation} spaces`, 'Indent by two spaces per level.')];
    }
    return [];
  });
  const end = /[^\n]\n$/.test(text) || text === '';
  const last = end
    ? []
    : [
        problem(
          text.split('\n').length,
          'does not end in one line break',
          'End the file with exactly one line break.',
        ),
      ];
  return [...capitals, ...lines, ...last];
}

interface Line {
  /** The line begins within parentheses or a string. */
  readonly open: boolean;
  /** Its length without the content of strings. */
  readonly width: number;
}

function shapeOf(text: string, tokens: readonly SqlToken[]): readonly Line[] {
  const strings = tokens.filter(({ kind }) => kind === 'string');
  const brackets = tokens.filter(({ text }) => text === '(' || text === ')');
  let start = 0;
  return text.split('\n').map((line) => {
    const end = start + line.length;
    const depth = brackets
      .filter(({ offset }) => offset < start)
      .reduce((sum, { text }) => sum + (text === '(' ? 1 : -1), 0);
    const hidden = strings
      .map(({ offset, text }) => Math.min(end, offset + text.length) - Math.max(start, offset))
      .reduce((sum, length) => sum + Math.max(0, length), 0);
    const within = strings.some(({ offset, text }) => offset < start && start < offset + text.length);
    start = end + 1;
    return { open: depth > 0 || within, width: line.length - hidden };
  });
}

/** Each file creates one object of the same name, repeatably, with a comment. */
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
