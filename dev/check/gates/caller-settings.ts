import { isWord, type SqlToken, tokenize } from '../../../src/sql-text.ts';
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

/** Types that the grammar knows, so that no search_path applies to them. */
const BUILT_IN = ['bigint', 'boolean', 'integer', 'interval', 'numeric', 'smallint', 'timestamp'];

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
  if (procedure) return [...literals, ...faultsOfDeclarations(tokens), ...faultsOfTransactions(tokens)];
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

/** The server looks up types when it compiles the body, and evaluates initial values before the first statement. */
function faultsOfDeclarations(tokens: readonly SqlToken[]): readonly Fault[] {
  const begin = tokens.findIndex((token) => isWord(token, 'begin'));
  const nested = tokens.slice(begin).filter((token) => isWord(token, 'declare'));
  const declarations: SqlToken[][] = [[]];
  for (const token of tokens.slice(0, begin).filter((one) => !isWord(one, 'declare'))) {
    if (token.text === ';') declarations.push([]);
    else declarations.at(-1)?.push(token);
  }
  return [
    ...declarations.filter((declaration) => !isSafe(declaration)).flatMap(([first]) => first ?? []),
    ...nested,
  ].map(({ line }) => ({
    line,
    what: 'declares a variable whose type or value is looked up in the search_path of the caller',
    remedy:
      'Qualify the type (pg_catalog.text), set the value in the body, and declare all variables at the top.',
  }));
}

function isSafe(declaration: readonly SqlToken[]): boolean {
  const rest = declaration.slice(isWord(declaration[1], 'constant') ? 2 : 1);
  const assignment = rest.findIndex(({ text }) => text === ':=');
  const [type, value] =
    assignment === -1 ? [rest, []] : [rest.slice(0, assignment), rest.slice(assignment + 1)];
  const builtIn =
    isWord(type[0], ...BUILT_IN) || (isWord(type[0], 'pg_catalog', 'filestore') && type[1]?.text === '.');
  const literal = value.every(
    (token) => ['string', 'number'].includes(token.kind) || isWord(token, 'true', 'false', 'null'),
  );
  return declaration.length === 0 || (builtIn && literal && value.length <= 1);
}

/** A procedure that commits cannot have settings, and "set local" ends with its transaction. */
function faultsOfTransactions(tokens: readonly SqlToken[]): readonly Fault[] {
  const pin = tokenize(PIN_TRANSACTION).map(({ value }) => value);
  const isPinned = (from: number) => pin.every((value, index) => tokens[from + index]?.value === value);
  const begin = tokens.findIndex((token) => isWord(token, 'begin'));
  const starts = tokens.flatMap((token, index) => {
    if (index === begin) return [{ line: token.line, next: index + 1 }];
    return isWord(token, 'commit', 'rollback') ? [{ line: token.line, next: index + 2 }] : [];
  });
  return starts
    .filter(({ next }) => !isPinned(next))
    .map(({ line }) => ({
      line,
      what: 'begins a transaction with the search_path of the caller',
      remedy: `Add as the first statement after begin, and after each commit: ${PIN_TRANSACTION}`,
    }));
}
