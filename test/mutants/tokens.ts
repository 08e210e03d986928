/** A word, number, string, operator or parenthesis of SQL or PL/pgSQL, without comments and white space. */
export interface Token {
  /** In lower case. A string in dollars is not one token: its delimiters and its text are tokens. */
  readonly text: string;
  readonly start: number;
  readonly end: number;
  /** How many parentheses, brackets and `case` expressions it is in. Those that open and close one count as outside. */
  readonly depth: number;
  /** Belongs to a `case` expression, and not to the statements `if` and `case`. */
  readonly inCase: boolean;
}

const TOKEN =
  /\s+|--[^\n]*|(?<text>'(?:[^']|'')*'|"[^"]*"|\$\w*\$|[a-z_][\w$]*|\d[\d.]*|:=|=>|<=|>=|<>|\|\||->>?|::|@>|<@|&&|[^\s])/giy;

/** Reads the tokens of a part of a text. */
export function readTokens(sql: string, from = 0, to = sql.length): readonly Token[] {
  const tokens: Token[] = [];
  const open: string[] = [];
  TOKEN.lastIndex = from;
  for (;;) {
    const start = TOKEN.lastIndex;
    const match = start < to ? TOKEN.exec(sql) : null;
    if (match === null) return tokens;
    const text = match.groups?.text?.toLowerCase();
    if (text === undefined) continue;
    const inside = open.at(-1);
    if (text === ')' || text === ']' || (text === 'end' && inside === 'case')) open.pop();
    tokens.push({
      text,
      start,
      end: start + text.length,
      depth: open.length,
      inCase: (text === 'case' ? text : open.at(-1)) === 'case',
    });
    if (text === '(' || text === '[' || (text === 'case' && tokens.at(-2)?.text !== 'end')) open.push(text);
  }
}
