import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { FUNCTIONS_WITHOUT_CALL } from '../../../migrations/facts.ts';
import { PACKAGE_ROOT } from '../../../src/package-root.ts';
import type { Problem } from '../../sources/problem.ts';
import { type Sources, sourceOf } from '../../sources/sources.ts';
import { type DatabaseSubject, FACTS_FILE, type Gate, judge } from '../gate.ts';
import { locate, locateInBody } from '../locate.ts';
import { SAMPLE_ROWS } from '../populate.ts';
import { describeFailure } from '../run-statements.ts';

const SAMPLE_CALLS = 'migrations/sample-calls.sql';

/** A line of an error's context, for each function that was running. */
const RUNNING = /PL\/pgSQL function filestore\.(\w+)\([^)]*\)(?: line (\d+))?/g;

// The server counts a call when it returns. It parses functions in SQL when they are created, and inlines some of them. The
// constructors of range types are its own.
const NOT_RETURNED = `
  select p.proname as name
  from pg_proc p
  join pg_language l on l.oid = p.prolang
  where p.pronamespace = 'filestore'::regnamespace and l.lanname = 'plpgsql'
    and coalesce(pg_stat_get_function_calls(p.oid), 0) = 0
  order by 1`;

/** Needs a database with all migrations applied and no rows, and fills it. */
export const sampleCalls: Gate<DatabaseSubject> = {
  name: 'sample calls',
  proves: `every function and trigger runs on the sample rows, by a statement of ${SAMPLE_CALLS}`,
  async evaluate({ sources, client }) {
    await client.query("set track_functions = 'all'");
    const refused = new Set<string>();
    const problems: Problem[] = [];
    for (const file of [SAMPLE_ROWS, SAMPLE_CALLS]) {
      const source = sourceOf(file, await readFile(join(PACKAGE_ROOT, file), 'utf8'));
      for (const statement of source.statements) {
        const error = await errorOf(client, statement.text);
        if (error === undefined) continue;
        if (file === SAMPLE_CALLS && isRefusal(error)) {
          for (const [, name = ''] of (error.where ?? '').matchAll(RUNNING)) refused.add(name);
        } else {
          problems.push(await describe(client, sources, error, describeFailure(error, statement, source)));
        }
      }
      // The calls need the rows.
      if (problems.length > 0) return judge(problems);
    }
    await client.query('select pg_stat_force_next_flush()');
    const { rows } = await client.query<{ name: string }>(NOT_RETURNED);
    return judge(
      rows
        .filter(({ name }) => !refused.has(name) && FUNCTIONS_WITHOUT_CALL[name] === undefined)
        .map(({ name }) => ({
          ...locate(sources, 'function', name),
          what: `filestore.${name} is not run by ${SAMPLE_ROWS} or ${SAMPLE_CALLS}, so an error in it would show only when it is called`,
          remedy: `Add a statement that runs it to ${SAMPLE_CALLS}, or a reason to ${FACTS_FILE}.`,
        })),
    );
  },
};

/** Whether the schema refused the call, by a function or a check. */
function isRefusal({ code = '' }: pg.DatabaseError): boolean {
  return code.startsWith('FS') || code === '23514';
}

async function errorOf(client: pg.Client, sql: string): Promise<pg.DatabaseError | undefined> {
  try {
    await client.query(sql);
    return undefined;
  } catch (error) {
    if (error instanceof pg.DatabaseError) return error;
    throw error;
  }
}

/** At the line of the function that failed, if one was running. */
async function describe(
  client: pg.Client,
  sources: Sources,
  error: pg.DatabaseError,
  problem: Problem,
): Promise<Problem> {
  const [, name, line] = (error.where ?? '').matchAll(RUNNING).next().value ?? [];
  if (name === undefined || line === undefined) return problem;
  const { rows } = await client.query<{ body: string }>(
    "select prosrc as body from pg_proc where pronamespace = 'filestore'::regnamespace and proname = $1",
    [name],
  );
  return {
    ...locateInBody(sources, name, rows[0]?.body ?? '', Number(line)),
    what: `${problem.what}, called at ${problem.file}:${problem.line}`,
    remedy: 'Correct the function, or the objects that it uses.',
  };
}
