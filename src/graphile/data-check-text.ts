import { isWord, tokenize } from '../sql-text.ts';

/**
 * A condition about the data that must hold before a migration runs. It is written in comments at the top of
 * the migration, so graphile-migrate hashes it and ignores it:
 *
 *     --check: Some mounts have no contact. Set backend_mounts.contact first.
 *     --  select not exists (select from filestore.backend_mounts where contact is null)
 */
export interface DataCheck {
  /** What is wrong if it does not hold, and what to do. */
  readonly message: string;
  /** One select. Positions in it have the same columns as in the file. */
  readonly sql: string;
  /** Line of the message in the file, from 1. The select begins in the next one. */
  readonly line: number;
}

/** Why a check of a migration is invalid. */
export interface CheckProblem {
  readonly line: number;
  /** Such as `is a check without a message`. */
  readonly what: string;
  readonly remedy: string;
}

export interface DataChecks {
  readonly checks: readonly DataCheck[];
  readonly problems: readonly CheckProblem[];
}

const HEAD = /^--[ \t]*check:(.*)$/;
const QUERY = /^--((?:[ \t]{2,}|\t)\S.*)$/;
/** Stricter than HEAD, because a later comment may begin with "-- check:". */
const MISPLACED = /^--check:/;
const BLANK_OR_COMMENT = /^\s*(?:--.*)?$/;
const INCLUDE = /^--![ \t]*include/i;

/**
 * The checks in the SQL of a migration: those above its first statement and its first include.
 * @param linesBefore Number of lines of the file before the text.
 */
export function readDataChecks(text: string, linesBefore = 0): DataChecks {
  const lines = text.split('\n');
  const top = lines.findIndex((line) => !BLANK_OR_COMMENT.test(line) || INCLUDE.test(line));
  const end = top === -1 ? lines.length : top;
  const checks: DataCheck[] = [];
  const problems: CheckProblem[] = [];
  for (const [index, content] of lines.entries()) {
    const line = linesBefore + index + 1;
    if (index >= end) {
      if (!MISPLACED.test(content)) continue;
      const remedy = 'Move it to the top of the migration.';
      problems.push({ line, what: 'is a check below the first statement or include', remedy });
      continue;
    }
    const message = HEAD.exec(content)?.[1]?.trim();
    if (message === undefined) continue;
    const check = { message, sql: queryBelow(lines.slice(index + 1, end)), line };
    const problem = problemOf(check);
    if (problem === undefined) checks.push(check);
    else problems.push({ line, ...problem });
  }
  return { checks, problems };
}

/** The select in the comment lines below a message, with blanks in place of the dashes. */
function queryBelow(lines: readonly string[]): string {
  const end = lines.findIndex((line) => !QUERY.test(line));
  return lines
    .slice(0, end === -1 ? lines.length : end)
    .map((line) => line.replace(QUERY, '  $1'))
    .join('\n');
}

function problemOf({ message, sql }: DataCheck): Omit<CheckProblem, 'line'> | undefined {
  const tokens = tokenize(sql);
  if (message === '') {
    const remedy = 'Write after "--check:" what is wrong, and what to do about it.';
    return { what: 'is a check without a message', remedy };
  }
  if (tokens.length === 0) {
    const remedy = 'Write one select in the lines below it. Begin each of them with "--" and two spaces.';
    return { what: 'is a check without a query', remedy };
  }
  if (!isWord(tokens[0], 'select', 'with')) {
    return { what: 'is a check whose query is not a select', remedy: 'Write a select that returns true.' };
  }
  if (tokens.some(({ text }) => text === ';')) {
    const remedy = 'Write one select without a semicolon, and a separate check for another one.';
    return { what: 'is a check with a semicolon', remedy };
  }
  return undefined;
}
