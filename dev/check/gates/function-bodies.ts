import { type Gate, judge, type Place } from '../gate.ts';
import { locate } from '../locate.ts';
import type { Sources } from '../sources.ts';
import type { DatabaseSubject } from '../subject.ts';

interface Complaint {
  readonly name: string;
  readonly body: string;
  readonly subject: string;
  /** Line in the body, from 1; null if the complaint is about the whole function. */
  readonly line: number | null;
  readonly level: string;
  readonly message: string;
  readonly detail: string | null;
  readonly hint: string | null;
}

// A trigger function is checked once for each of its tables, with the transition tables of that trigger.
const CHECK = `
  select p.proname as name, p.prosrc as body,
         p.oid::regprocedure || case when t.tgrelid is null then '' else ' as trigger of ' || t.tgrelid::regclass end as subject,
         c.lineno as line, c.level, c.message, c.detail, c.hint
  from pg_proc p
  join pg_language l on l.oid = p.prolang
  left join (
    select distinct tgfoid, tgrelid, tgoldtable, tgnewtable from pg_trigger where not tgisinternal
  ) t on t.tgfoid = p.oid
  cross join lateral plpgsql_check_function_tb(
    funcoid => p.oid, relid => coalesce(t.tgrelid, 0), oldtable => t.tgoldtable, newtable => t.tgnewtable,
    fatal_errors => false, extra_warnings => true, performance_warnings => false, security_warnings => true
  ) c
  where p.pronamespace = 'filestore'::regnamespace and l.lanname = 'plpgsql'
    and (t.tgfoid is not null or p.prorettype <> 'trigger'::regtype)
    -- These two are reported for every function that returns a row and other columns, and for every dynamic query.
    and c.message not like 'composite OUT variable % is not single argument'
    and c.message not like 'cannot determinate a result of dynamic SQL%'
  order by 3, 4`;

/** Needs a database with all migrations applied, on a server with the extension, which it installs. */
export const functionBodies: Gate<DatabaseSubject> = {
  name: 'function bodies',
  proves: 'plpgsql_check reports no problem in a function',
  async check({ sources, client }) {
    await client.query('create extension if not exists plpgsql_check');
    const { rows } = await client.query<Complaint>(CHECK);
    return judge(
      rows.map(({ name, body, subject, line, level, message, detail, hint }) => ({
        ...placeIn(sources, name, body, line ?? 1),
        what: `${subject}: ${level}: ${[message, detail].filter(Boolean).join('. ')}`,
        remedy: hint ?? 'Correct the function.',
      })),
    );
  },
};

function placeIn(sources: Sources, name: string, body: string, line: number): Place {
  const { file, line: start } = locate(sources, 'function', name);
  const text = [...sources.fixtures, sources.current].find((source) => source.file === file)?.text ?? '';
  const offset = text.indexOf(body);
  if (offset === -1) return { file, line: start };
  return { file, line: text.slice(0, offset).split('\n').length + line - 1 };
}
