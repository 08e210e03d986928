import { type SqlToken, tokenize } from '../../../src/sql-text.ts';
import type { Problem } from '../../sources/problem.ts';
import type { Sources } from '../../sources/sources.ts';
import { type DatabaseSubject, type Gate, judge } from '../gate.ts';
import { locate, locateInBody } from '../locate.ts';

interface Routine {
  readonly name: string;
  readonly subject: string;
  readonly body: string;
  readonly procedure: boolean;
  readonly pinned: boolean;
}

interface Fault {
  /** In the body; null for the whole routine. */
  readonly line: number | null;
  readonly what: string;
  readonly remedy: string;
}

const PINNED = 'search_path=pg_catalog, pg_temp';
const PIN = 'set search_path = pg_catalog, pg_temp';
const PIN_TRANSACTION = 'set local search_path = pg_catalog, pg_temp;';

// The names in a body that begins with "begin atomic" were resolved when it was created.
const ROUTINES = `
  select p.proname as name, p.oid::regprocedure::text as subject, p.prosrc as body, p.prokind = 'p' as procedure,
         p.proconfig @> array[$1] is true or (p.prosqlbody is not null and not p.prosecdef) as pinned
  from pg_proc p
  join pg_language l on l.oid = p.prolang
  where p.pronamespace = 'filestore'::regnamespace and l.lanname in ('plpgsql', 'sql')
  order by 2`;

/** Needs a database with all migrations applied. */
export const callerSettings: Gate<DatabaseSubject> = {
  name: 'caller settings',
  proves: 'no function or procedure depends on the search_path or standard_conforming_strings of its caller',
  async evaluate({ sources, client }) {
    const { rows } = await client.query<Routine>(ROUTINES, [PINNED]);
    return judge(
      rows.flatMap((routine) => faultsOf(routine).map((fault) => report(sources, routine, fault))),
    );
  },
};

function report(sources: Sources, { name, subject, body }: Routine, { line, what, remedy }: Fault): Problem {
  const place = line === null ? locate(sources, 'function', name) : locateInBody(sources, name, body, line);
  return { ...place, what: `${subject} ${what}`, remedy };
}

function faultsOf({ body, procedure, pinned }: Routine): readonly Fault[] {
  const tokens = tokenize(body);
  const literals = tokens.filter(isUnsafeLiteral).map(({ line }) => ({
    line,
    what: 'has a string with a backslash, which means something else when the caller has switched standard_conforming_strings off',
    remedy: "Write E'...', with two backslashes for one.",
  }));
  if (pinned) return literals;
  if (procedure) return [...literals, ...faultsOfTransactions(body)];
  return [
    ...literals,
    {
      line: null,
      what: 'has no fixed search_path, so callers can put their objects in front',
      remedy: `Add below its language: ${PIN}`,
    },
  ];
}

const isUnsafeLiteral = ({ kind, text }: SqlToken) =>
  kind === 'string' && text.includes('\\') && !/^e'/i.test(text);

/** A procedure that commits cannot have settings, and "set local" ends with its transaction. */
function faultsOfTransactions(body: string): readonly Fault[] {
  const begin = body.search(/\bbegin\b/);
  const starts = [
    ...body.matchAll(/\b(begin|commit;|rollback;)\s*(set local search_path = pg_catalog, pg_temp;)?/g),
  ];
  return starts
    .filter(({ index, 1: word, 2: pin }) => pin === undefined && (word !== 'begin' || index === begin))
    .map(({ index }) => ({
      line: body.slice(0, index).split('\n').length,
      what: 'begins a transaction with the search_path of the caller',
      remedy: `Add as the first statement after begin, and after each commit: ${PIN_TRANSACTION}`,
    }));
}
