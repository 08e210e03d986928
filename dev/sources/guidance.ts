import { adviceFor } from '../../src/migrate/migration-failure.ts';
import { paragraph } from '../../src/text.ts';

/** The advice for the author of failed SQL: the server's hint and this package's advice, each null if there is none. */
export interface Guidance {
  readonly hint: string | null;
  readonly advice: string | null;
}

const TWICE = paragraph(
  'current.sql runs again at every save, so its objects may exist already.',
  'Write create … if not exists, create or replace, or drop … if exists before create.',
);

/** What an author does differently from a deployer, by SQLSTATE. */
const ADVICE_FOR_AUTHORS: Readonly<Record<string, string>> = {
  '2BP01': paragraph(
    'Drop the objects that depend on it first, by name, and include them again afterwards (--!include).',
    'Do not use cascade: it drops them without recreating them.',
  ),
  '42701': TWICE,
  '42710': TWICE,
  '42723': TWICE,
  '42P06': TWICE,
  '42P07': TWICE,
  '42P13': paragraph(
    'create or replace cannot change the result of a function.',
    'Drop it first (drop function if exists …), then create it.',
  ),
  '42P16': paragraph(
    'create or replace cannot change or remove columns of a view.',
    'Drop it first (drop view if exists …), then create it.',
  ),
};

export function guidanceOf(error: Failure): Guidance {
  const code = error.code ?? '';
  return {
    // The server recommends cascade.
    hint: code === '2BP01' ? null : (error.hint ?? null),
    advice: ADVICE_FOR_AUTHORS[code] ?? adviceFor(code) ?? null,
  };
}

interface Failure {
  readonly code?: string | null | undefined;
  readonly hint?: string | null | undefined;
}
