import { concurrentIndexOf } from '../../../src/graphile/concurrent-index-text.ts';
import { isWord, type TokenizedStatement } from '../../../src/sql-text.ts';
import type { Problem } from '../../sources/problem.ts';
import { migrationsOf, type Sources, type SqlSource } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';

const ALONE =
  'Write a separate migration with the first line "--! no-transaction" and one statement, "create index concurrently if not exists" or "drop index concurrently if exists".';

export const concurrently: Gate<Sources> = {
  name: 'concurrently',
  proves:
    'each concurrent statement is a separate migration without a transaction, and every other migration has one',
  evaluate: (sources) => judge(migrationsOf(sources).flatMap((source) => problemsOf(source))),
};

function problemsOf(source: SqlSource): readonly Problem[] {
  const built = source.statements.filter(isConcurrent);
  if (source.transaction) {
    return built.map(({ line }) => ({
      ...source.placeOf(line),
      what: 'runs concurrently, which the server refuses in a transaction',
      remedy: ALONE,
    }));
  }
  const [first, second] = source.statements;
  if (first === undefined) return [];
  if (second !== undefined) {
    const what =
      'is the second statement of a migration without a transaction: the server would run both in one transaction';
    return [{ ...source.placeOf(second.line), what, remedy: ALONE }];
  }
  if (built.length === 0) {
    const what = 'runs without a transaction, but not concurrently';
    return [{ ...source.placeOf(first.line), what, remedy: 'Remove the line "--! no-transaction".' }];
  }
  return canRunAgain(first, source)
    ? []
    : [{ ...source.placeOf(first.line), what: 'cannot be run again after a failure', remedy: ALONE }];
}

/** `refresh materialized view concurrently` is allowed: it runs in transactions. */
function isConcurrent({ tokens }: TokenizedStatement): boolean {
  return !isWord(tokens[0], 'refresh') && tokens.some((token) => isWord(token, 'concurrently'));
}

/** The runner drops an invalid index before a migration whose index it recognizes. */
function canRunAgain({ tokens }: TokenizedStatement, source: SqlSource): boolean {
  const words = tokens.map(({ value }) => value).join(' ');
  if (/^drop index concurrently if exists /.test(words)) return true;
  if (!/^create (?:unique )?index concurrently if not exists /.test(words)) return false;
  return concurrentIndexOf({ transaction: false, body: source.text }) !== undefined;
}
