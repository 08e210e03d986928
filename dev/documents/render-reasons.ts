import { MODELLED_SCHEMA } from '../../src/catalog/model.ts';
import type { CatalogClient } from '../../src/catalog/read.ts';
import { readCalls, readRaises } from './raises.ts';

/** A reason of a refusal: the value of the field `constraint` of an error. */
export interface Reason {
  readonly name: string;
  /** The SQLSTATEs it comes with, sorted. */
  readonly codes: readonly string[];
}

interface FunctionRow {
  readonly name: string;
  readonly body: string;
  /** Whether a level may call it, or a write of a row does. */
  readonly is_entry: boolean;
}

const FUNCTIONS = `
  select
    p.proname as name,
    p.prosrc as body,
    p.oid in (select r.object::regprocedure from ${MODELLED_SCHEMA}.access_rights('operator') r where r.kind = 'function')
      or p.oid in (
        select t.tgfoid
        from pg_trigger t
        join pg_class c on c.oid = t.tgrelid
        where c.relnamespace = p.pronamespace
          and not t.tgisinternal
          -- Only the owner truncates.
          and t.tgtype & 32 = 0
      ) as is_entry
  from pg_proc p
  where p.pronamespace = '${MODELLED_SCHEMA}'::regnamespace`;

const TABLES = `
  select c.relname as name
  from pg_class c
  where c.relnamespace = '${MODELLED_SCHEMA}'::regnamespace
    and c.relkind in ('r', 'p')`;

/** Constraints and unique indexes of the tables that a level may write, and of domains. */
const CONSTRAINTS = `
  with written as (
    select distinct r.object::regclass as oid
    from ${MODELLED_SCHEMA}.access_rights('operator') r
    where r.kind in ('table', 'column')
      and r.privilege in ('INSERT', 'UPDATE', 'DELETE')
  )
  select k.conname as name, case k.contype when 'c' then '23514' when 'f' then '23503' when 'x' then '23P01' else '23505' end as code
  from pg_constraint k
  where k.contype in ('c', 'f', 'p', 'u', 'x')
    and (
      k.conrelid in (select w.oid from written w)
      or k.contypid in (select t.oid from pg_type t where t.typnamespace = '${MODELLED_SCHEMA}'::regnamespace)
    )
  union
  select c.relname, '23505'
  from pg_index i
  join pg_class c on c.oid = i.indexrelid
  where i.indisunique
    and i.indrelid in (select w.oid from written w)
    and not exists (select from pg_constraint k where k.conindid = i.indexrelid and k.contype = 'x')`;

/** Reads every reason that a role with a level can get, in order of name. */
export async function readReasons(client: CatalogClient): Promise<readonly Reason[]> {
  const functions = await rowsOf<FunctionRow>(client, FUNCTIONS);
  const tables = await rowsOf<{ readonly name: string }>(client, TABLES);
  const constraints = await rowsOf<{ readonly name: string; readonly code: string }>(client, CONSTRAINTS);

  const prefixes = tables.map(({ name }) => `${name}_`);
  const raised = reachable(functions).flatMap(({ body }) =>
    readRaises(body, prefixes).flatMap(({ code, reasons }) =>
      reasons.map((name) => ({ name, code: code === 'check_violation' ? '23514' : (code ?? 'P0001') })),
    ),
  );
  const codes = new Map<string, Set<string>>();
  for (const { name, code } of [...raised, ...constraints]) {
    codes.set(name, (codes.get(name) ?? new Set()).add(code));
  }
  return [...codes].map(([name, found]) => ({ name, codes: [...found].sort() })).sort(byName);
}

/** Renders the module that types the reasons. */
export function renderReasons(reasons: readonly Reason[]): string {
  return `// Generated from the migrations by "npm run db:docs". Do not edit it.

/** Every reason of a refusal: the value of the field \`constraint\` of an error. */
export const REFUSAL_REASONS = [
${reasons.map(({ name }) => `  '${name}',\n`).join('')}] as const;

/** One of {@link REFUSAL_REASONS}. docs/functions.md describes each. */
export type RefusalReason = (typeof REFUSAL_REASONS)[number];
`;
}

/** The functions that an entry calls, or a function that it calls. Other functions run only for the owner. */
function reachable(functions: readonly FunctionRow[]): readonly FunctionRow[] {
  const reached = new Set(functions.filter(({ is_entry }) => is_entry));
  for (const caller of reached) {
    const called = readCalls(caller.body, MODELLED_SCHEMA);
    for (const one of functions) if (called.includes(one.name)) reached.add(one);
  }
  return [...reached];
}

async function rowsOf<Row>(client: CatalogClient, query: string): Promise<readonly Row[]> {
  return ((await client.query(query)) as { readonly rows: readonly Row[] }).rows;
}

function byName(a: Reason, b: Reason): number {
  return a.name < b.name ? -1 : 1;
}
