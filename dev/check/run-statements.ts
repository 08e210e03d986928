import pg from 'pg';
import { placeAt, type SqlStatement } from '../../src/sql-text.ts';
import type { Problem } from './gate.ts';
import type { SqlSource } from './sources.ts';

/** Applies migrations in order, each in a transaction of its own where it does not say otherwise. */
export async function applyAll(
  client: pg.Client,
  sources: readonly SqlSource[],
): Promise<readonly Problem[]> {
  for (const source of sources) {
    if (source.transaction) await client.query('begin');
    const problem = await runStatements(client, source);
    if (source.transaction) await client.query(problem === undefined ? 'commit' : 'rollback');
    if (problem !== undefined) return [problem];
  }
  return [];
}

/**
 * Runs the statements of a migration one by one, so that it is known which of them fails.
 * @param around What to do with each; default: to execute it.
 * @returns what stopped it.
 */
export async function runStatements(
  client: pg.Client,
  source: SqlSource,
  around: (statement: SqlStatement, execute: () => Promise<void>) => Promise<void> = (_, execute) =>
    execute(),
): Promise<Problem | undefined> {
  for (const statement of source.statements) {
    try {
      await around(statement, async () => {
        await client.query(statement.text);
      });
    } catch (error) {
      if (error instanceof pg.DatabaseError) return describeFailure(error, statement, source);
      throw error;
    }
  }
  return undefined;
}

/** What the server said, at the line that it pointed to. */
export function describeFailure(
  error: pg.DatabaseError,
  { text, line }: Pick<SqlStatement, 'text' | 'line'>,
  source: SqlSource,
): Problem {
  const details = [error.detail, error.hint, error.where?.split('\n')[0]].filter(Boolean).join(' ');
  return {
    ...source.placeOf(line + placeAt(text, Number(error.position ?? 1)).line - 1),
    what: `fails: ${error.message} (SQLSTATE ${error.code})${details === '' ? '' : `. ${details}`}`,
    remedy: 'Correct the statement, or the objects that it uses.',
  };
}
