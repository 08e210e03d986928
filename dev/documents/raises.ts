import { isWord, type SqlToken, tokenize } from '../../src/sql-text.ts';

/** One `raise exception` of a PL/pgSQL function. */
export interface Raise {
  /** SQLSTATE, or the name of a condition such as `check_violation`; undefined when it has none. */
  readonly code: string | undefined;
  /** Possible values of `constraint`; empty if it has none. */
  readonly reasons: readonly string[];
  readonly hasHint: boolean;
}

/**
 * Reads what a function can raise. A raise whose errcode is a variable rethrows another function's error, and is left
 * out.
 * @param prefixes Beginnings of reasons, such as `nodes_`. A raise whose constraint comes from a list of rules can
 * name, for each row of the function's lists, the first string with such a beginning.
 */
export function readRaises(body: string, prefixes: readonly string[]): readonly Raise[] {
  const tokens = tokenize(body);
  return tokens.flatMap((token, index) => {
    if (!isWord(token, 'raise') || !isWord(tokens[index + 1], 'exception')) return [];
    const end = tokens.findIndex(({ text }, at) => at > index && text === ';');
    const statement = tokens.slice(index, end === -1 ? undefined : end);
    const code = optionOf(statement, 'errcode');
    // A variable: the error of another function is rethrown.
    if (code.length === 1 && code[0]?.kind === 'word') return [];
    const constraint = optionOf(statement, 'constraint');
    const isPlain = constraint.length === 1 && constraint[0]?.kind === 'string';
    const rules = isPlain || constraint.length === 0 ? [] : ruleNames(tokens, prefixes);
    return {
      code: code.at(0)?.value,
      reasons: [...stringsOf(constraint), ...rules],
      hasHint: optionOf(statement, 'hint').length > 0,
    };
  });
}

/** The functions of a schema that a function mentions. */
export function readCalls(body: string, schema: string): readonly string[] {
  const tokens = tokenize(body);
  return tokens.flatMap(({ value }, index) =>
    tokens[index - 1]?.text === '.' && tokens[index - 2]?.value === schema ? [value] : [],
  );
}

/** The tokens after `name =`, up to the comma or the end of the statement. */
function optionOf(statement: readonly SqlToken[], name: string): readonly SqlToken[] {
  const start = statement.findIndex((token, at) => isWord(token, name) && statement[at + 1]?.text === '=');
  if (start === -1) return [];
  const value: SqlToken[] = [];
  let depth = 0;
  for (const token of statement.slice(start + 2)) {
    if (token.text === ',' && depth === 0) break;
    if (token.text === '(') depth += 1;
    if (token.text === ')') depth -= 1;
    value.push(token);
  }
  return value;
}

function ruleNames(tokens: readonly SqlToken[], prefixes: readonly string[]): readonly string[] {
  const firsts = tokens.filter((_, at) => tokens[at - 1]?.text === '(' && tokens[at + 1]?.text === ',');
  return stringsOf(firsts).filter((text) => prefixes.some((prefix) => text.startsWith(prefix)));
}

function stringsOf(tokens: readonly SqlToken[]): readonly string[] {
  return tokens.filter(({ kind }) => kind === 'string').map(({ value }) => value);
}
