import pg from 'pg';
import { readDataChecks } from '../../src/graphile/data-check-text.ts';
import { evaluateDataChecks } from '../../src/migrate/evaluate-data-checks.ts';
import { migrationSettings } from '../../src/settings/settings.ts';
import { placeAt, type TokenizedStatement } from '../../src/sql-text.ts';
import { guidanceOf } from '../sources/guidance.ts';
import type { Problem } from '../sources/problem.ts';
import type { SqlSource } from '../sources/sources.ts';

// "role" is not in the view.
const SESSION_SETTINGS = `
  select name, setting from pg_settings where source = 'session'
  union all select 'role', current_setting('role') where current_setting('role') <> 'none'`;

/**
 * Applies migrations in order, each after its checks, and in its own transaction unless it declares none. A setting that
 * one of them leaves in the session is a problem, too.
 */
export async function applyAll(
  client: pg.Client,
  sources: readonly SqlSource[],
): Promise<readonly Problem[]> {
  for (const source of sources) {
    const failed = await failedChecks(client, source);
    if (failed.length > 0) return failed;
    if (source.transaction) await client.query('begin');
    const problem = await runStatements(client, source);
    if (source.transaction) await client.query(problem === undefined ? 'commit' : 'rollback');
    if (problem !== undefined) return [problem];
    const { rows: left } = await client.query(SESSION_SETTINGS);
    if (left.length > 0) return left.map(({ name, setting }) => describeLeft(source, name, setting));
  }
  return [];
}

function describeLeft({ file }: SqlSource, name: string, setting: string): Problem {
  const what = `leaves the session with ${name} = "${setting}", which also holds for later migrations`;
  return { file, line: null, what, remedy: 'Use "set local", which ends with the transaction.' };
}

async function failedChecks(client: pg.Client, source: SqlSource): Promise<readonly Problem[]> {
  const { checks } = readDataChecks(source.text);
  const outcomes = await evaluateDataChecks(client, checks, migrationSettings({}).checkTimeoutMs);
  return checks.flatMap(({ line }, index) => {
    const outcome = outcomes[index];
    if (outcome === undefined || outcome.state === 'passed') return [];
    const what = `has a check that ${outcome.reason ?? 'returned false'}`;
    const remedy = 'Correct the check, or the rows that it is about.';
    return [{ ...source.placeOf(line), what, remedy }];
  });
}

/**
 * Runs the statements of a migration one by one, to know which of them fails.
 * @param around Called for each statement; default: executes it.
 * @returns the problem that stopped it.
 */
export async function runStatements(
  client: pg.Client,
  source: SqlSource,
  around: (statement: TokenizedStatement, execute: () => Promise<void>) => Promise<void> = (_, execute) =>
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

/** The server's message, at the line that it reported. */
export function describeFailure(
  error: pg.DatabaseError,
  { text, line }: Pick<TokenizedStatement, 'text' | 'line'>,
  source: SqlSource,
): Problem {
  const { hint, advice } = guidanceOf(error);
  const details = [error.detail, hint, error.where?.split('\n')[0]].filter(Boolean).join(' ');
  return {
    ...source.placeOf(line + placeAt(text, Number(error.position ?? 1)).line - 1),
    what: `fails: ${error.message} (SQLSTATE ${error.code})${details === '' ? '' : `. ${details}`}`,
    remedy: advice ?? 'Correct the statement, or the objects that it uses.',
  };
}

/** Runs `work` in a transaction and rolls it back. */
export async function withRollback<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query('begin');
  try {
    return await work();
  } finally {
    await client.query('rollback');
  }
}
