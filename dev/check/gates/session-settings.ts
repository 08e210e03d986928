import { isWord, type SqlToken, tokenize } from '../../../src/sql-text.ts';
import type { Problem } from '../../sources/problem.ts';
import { type Sources, type SqlSource, writtenSources } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';

export const sessionSettings: Gate<Sources> = {
  name: 'settings',
  proves: 'migrations and fixtures change settings for their own transaction only',
  evaluate: (sources) =>
    judge(
      writtenSources(sources).flatMap((source) =>
        source.statements.flatMap(({ tokens }) => problemsIn(tokens, source, 0)),
      ),
    ),
};

/** Includes the bodies of functions and `do` blocks, where a plain `set` stays in force after the call. */
function problemsIn(tokens: readonly SqlToken[], source: SqlSource, linesBefore: number): readonly Problem[] {
  return tokens.flatMap((token, index): readonly Problem[] => {
    if (token.kind === 'body') {
      return problemsIn(tokenize(token.value), source, linesBefore + token.line - 1);
    }
    const place = source.placeOf(linesBefore + token.line);
    const what = 'stays in force for the rest of the session, including later migrations';
    if (outlivesTransaction(tokens, index)) {
      const remedy = isWord(token, 'set')
        ? 'Write "set local".'
        : 'Use "set local", which ends with the transaction.';
      return [{ ...place, what: `"${quote(tokens, index)}" ${what}`, remedy }];
    }
    if (token.value === 'set_config' && tokens[index + 1]?.text === '(' && !isLocal(tokens, index + 2)) {
      const remedy = 'Give "true" as its third argument.';
      return [{ ...place, what: `"set_config" without "true" ${what}`, remedy }];
    }
    return [];
  });
}

function outlivesTransaction(tokens: readonly SqlToken[], index: number): boolean {
  const [before, token, after] = [tokens[index - 1], tokens[index], tokens[index + 1]];
  const begins =
    before === undefined || before.text === ';' || isWord(before, 'begin', 'then', 'else', 'loop');
  if (!begins) return false;
  if (isWord(token, 'set')) return !isWord(after, 'local', 'constraints', 'transaction');
  return isWord(token, 'reset', 'discard');
}

/** Whether the last argument of a call is `true`. */
function isLocal(tokens: readonly SqlToken[], start: number): boolean {
  let depth = 1;
  const end = tokens.findIndex((token, index) => {
    if (index < start) return false;
    if (token.text === '(') depth += 1;
    if (token.text === ')') depth -= 1;
    return depth === 0;
  });
  return isWord(tokens[end - 1], 'true') && [',', '=>', '>'].includes(tokens[end - 2]?.text ?? '');
}

function quote(tokens: readonly SqlToken[], index: number): string {
  return tokens
    .slice(index, index + 3)
    .filter(({ text }) => text !== ';' && text !== '=')
    .map(({ text }) => text)
    .join(' ');
}
