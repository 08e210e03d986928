const REPEATED =
  'current.sql runs again at every save, so its objects may exist already. Write create … if not exists, create or replace, or drop … if exists before create.';

/** What to do, by SQLSTATE (PostgreSQL manual, appendix A). */
const ADVICE: Readonly<Record<string, string>> = {
  '42P06': REPEATED,
  '42P07': REPEATED,
  '42701': REPEATED,
  '42710': REPEATED,
  '42723': REPEATED,
  '42P16':
    'create or replace cannot change or remove columns of a view. Drop it first (drop view if exists …), then create it.',
  '42P13':
    'create or replace cannot change the result of a function. Drop it first (drop function if exists …), then create it.',
  '2BP01':
    'Drop the objects that depend on it first, by name, and include them again afterwards (--!include). Do not use cascade: it drops them without recreating them.',
  '25001':
    'This statement cannot run in a transaction. Write it as a separate migration that begins with "--! no-transaction".',
  '55P03':
    'Another session holds a lock on it, perhaps an open transaction in another terminal (select * from pg_stat_activity where xact_start is not null).',
};

/** What the author of failed SQL is told: the server's hint and this package's advice, each null if there is none. */
export interface Guidance {
  readonly hint: string | null;
  readonly advice: string | null;
}

export function guidanceOf(error: Failure): Guidance {
  const code = error.code ?? '';
  return {
    // The server recommends cascade.
    hint: code === '2BP01' ? null : (error.hint ?? null),
    advice: ADVICE[code] ?? null,
  };
}

interface Failure {
  readonly code?: string | null | undefined;
  readonly hint?: string | null | undefined;
}
