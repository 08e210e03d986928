/** A token of SQL. Whitespace and comments are not tokens. */
export interface SqlToken {
  /** `word`: a keyword or a plain name; `name`: a quoted one; `body`: the text between dollar quotes. */
  readonly kind: 'word' | 'name' | 'string' | 'body' | 'number' | 'symbol';
  /** As written, with its quotes. */
  readonly text: string;
  /** The value: a word in lower case, or the text between the quotes. */
  readonly value: string;
  /** Line of its first character, from 1. */
  readonly line: number;
  /** Offset of its first character, from 0. */
  readonly offset: number;
}

/** One statement, without the semicolon that ends it. */
export interface TokenizedStatement {
  /** From its first token to its last. */
  readonly text: string;
  /** Line of its first token, from 1. */
  readonly line: number;
  /** Offsets of its first character and of the character after its last, from 0. */
  readonly start: number;
  readonly end: number;
  /** At least one. */
  readonly tokens: readonly SqlToken[];
}

// PostgreSQL manual, section 4.1, with standard_conforming_strings on. An unclosed quote is a symbol; the
// server reports it.
const WORD = String.raw`[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*`;
const BLANK = /[ \t\n\r\f\v]+|--[^\n\r]*/y;
const TOKEN = new RegExp(
  [
    String.raw`(?<comment>/\*)`,
    String.raw`(?<escaped>[eE]'(?:[^'\\]|\\[\s\S]|'')*')`,
    "(?<string>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*')",
    '(?<name>(?:[uU]&)?"(?:[^"]|"")*")',
    String.raw`(?<tag>\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$)`,
    `(?<word>${WORD})`,
    String.raw`(?<number>\d[\w.]*)`,
    String.raw`(?<symbol>::|:=|[\s\S])`,
  ].join('|'),
  'y',
);

/** The tokens of the SQL in a file: several statements, comments, bodies of functions. */
export function tokenize(sql: string): readonly SqlToken[] {
  const tokens: SqlToken[] = [];
  const pattern = new RegExp(TOKEN);
  let line = 1;
  let counted = 0;
  let end = 0;
  for (let offset = endOfBlank(sql, 0); offset < sql.length; offset = endOfBlank(sql, end)) {
    line += countLineEnds(sql, counted, offset);
    counted = offset;
    pattern.lastIndex = offset;
    const groups = pattern.exec(sql)?.groups ?? {};
    end = endOf(sql, offset, pattern.lastIndex, groups);
    if (groups.comment !== undefined) continue;
    const text = sql.slice(offset, end);
    const { kind, value } = meaningOf(text, groups);
    tokens.push({ kind, value, text, line, offset });
  }
  return tokens;
}

/** The statements of a file, split where the server splits them. */
export function splitStatements(sql: string): readonly TokenizedStatement[] {
  const statements: TokenizedStatement[] = [];
  let tokens: SqlToken[] = [];
  let parentheses = 0;
  /** Depth in a body that is not a string: `begin atomic … end`, with its `case … end`. */
  let blocks = 0;
  const finish = () => {
    const [first, last] = [tokens[0], tokens.at(-1)];
    if (first !== undefined && last !== undefined) {
      const [start, end] = [first.offset, last.offset + last.text.length];
      statements.push({ text: sql.slice(start, end), line: first.line, start, end, tokens });
    }
    tokens = [];
    parentheses = 0;
    blocks = 0;
  };
  for (const token of tokenize(sql)) {
    if (token.text === ';' && parentheses <= 0 && blocks === 0) {
      finish();
      continue;
    }
    if (token.text === '(') parentheses += 1;
    else if (token.text === ')') parentheses -= 1;
    else if (isWord(token, 'atomic') && isWord(tokens.at(-1), 'begin')) blocks += 1;
    else if (blocks > 0 && isWord(token, 'case')) blocks += 1;
    else if (blocks > 0 && isWord(token, 'end')) blocks -= 1;
    tokens.push(token);
  }
  finish();
  return statements;
}

/** A character of a text. */
export interface TextPlace {
  /** In the string, from 0. */
  readonly offset: number;
  /** From 1. */
  readonly line: number;
  /** In characters, from 1. */
  readonly column: number;
}

/**
 * The character at a position that the server reported.
 * @param position In characters, from 1. A character outside the basic plane counts as one here, and as two
 * in a string.
 */
export function placeAt(text: string, position: number): TextPlace {
  const before = Array.from(text).slice(0, Math.max(position - 1, 0));
  return {
    offset: before.join('').length,
    line: before.filter((character) => character === '\n').length + 1,
    column: before.length - before.lastIndexOf('\n'),
  };
}

/** Whether the token is one of these keywords. */
export function isWord(token: SqlToken | undefined, ...words: readonly string[]): boolean {
  return token?.kind === 'word' && words.includes(token.value);
}

/** The end of the whitespace and line comments that begin at an offset. */
function endOfBlank(sql: string, offset: number): number {
  const blank = new RegExp(BLANK);
  blank.lastIndex = offset;
  let end = offset;
  while (blank.test(sql)) end = blank.lastIndex;
  return end;
}

function countLineEnds(sql: string, start: number, end: number): number {
  let count = 0;
  for (let at = start; at < end; at += 1) if (sql[at] === '\n') count += 1;
  return count;
}

function endOf(
  sql: string,
  offset: number,
  end: number,
  { comment, tag }: Readonly<Record<string, string | undefined>>,
): number {
  if (comment !== undefined) return endOfComment(sql, offset);
  if (tag === undefined) return end;
  const close = sql.indexOf(tag, end);
  return close === -1 ? sql.length : close + tag.length;
}

/** Block comments can be nested. */
function endOfComment(sql: string, offset: number): number {
  const marks = /\/\*|\*\//g;
  marks.lastIndex = offset;
  let depth = 0;
  for (let mark = marks.exec(sql); mark !== null; mark = marks.exec(sql)) {
    depth += mark[0] === '/*' ? 1 : -1;
    if (depth === 0) return marks.lastIndex;
  }
  return sql.length;
}

function meaningOf(
  text: string,
  { escaped, string, name, tag, word, number }: Readonly<Record<string, string | undefined>>,
): Pick<SqlToken, 'kind' | 'value'> {
  if (word !== undefined) return { kind: 'word', value: text.toLowerCase() };
  if (tag !== undefined) {
    const end = text.length > tag.length && text.endsWith(tag) ? -tag.length : undefined;
    return { kind: 'body', value: text.slice(tag.length, end) };
  }
  if (name !== undefined) return { kind: 'name', value: insideOf(text, '"') };
  if (string !== undefined || escaped !== undefined) return { kind: 'string', value: insideOf(text, "'") };
  return { kind: number === undefined ? 'symbol' : 'number', value: text };
}

function insideOf(text: string, quote: string): string {
  return text.slice(text.indexOf(quote) + 1, -1).replaceAll(quote + quote, quote);
}
