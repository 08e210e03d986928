import { tokenize } from '../sql-text.ts';
import { isConnectionLoss } from './connection-error.ts';
import type { CommittedMigration } from './history.ts';
import type { Queryable } from './session.ts';

/** Names of an index and its table as SQL writes them, quotes and all. */
interface IndexName {
  readonly schema: string;
  readonly index: string;
}

const IDENTIFIER = String.raw`(?:"(?:[^"]|"")+"|[a-z_][\w$]*)`;
/** The one statement that a migration without a transaction holds. */
const CREATE_INDEX = new RegExp(
  String.raw`create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?(?<index>${IDENTIFIER})\s+on\s+(?:only\s+)?(?<schema>${IDENTIFIER})\s*\.`,
  'i',
);

/** The index that a migration builds concurrently, if it is one that does. */
export function concurrentIndexOf(
  migration: Pick<CommittedMigration, 'body' | 'transaction'>,
): IndexName | undefined {
  if (migration.transaction) return undefined;
  const sql = tokenize(migration.body)
    .map(({ text }) => text)
    .join(' ');
  const { index, schema } = CREATE_INDEX.exec(sql)?.groups ?? {};
  return index === undefined || schema === undefined
    ? undefined
    : { schema: fold(schema), index: fold(index) };
}

/**
 * Drops what a concurrent index build left behind when it failed or was killed: an invalid index, over which
 * "create index concurrently if not exists" would pass in silence. Only an invalid index of that very schema and
 * name goes, and not while its table is being worked on by another build or a vacuum.
 * @returns whether there was one.
 */
export async function dropInvalidIndex(session: Queryable, { schema, index }: IndexName): Promise<boolean> {
  const { rows } = await session.query<{ name: string; builders: string | null }>(
    `select
       pg_catalog.format('%I.%I', n.nspname, c.relname) as name,
       (
         select pg_catalog.string_agg(l.pid::text, ', ')
         from pg_catalog.pg_locks l
         where l.relation = i.indrelid and l.mode = 'ShareUpdateExclusiveLock' and l.granted
       ) as builders
     from pg_catalog.pg_index i
     join pg_catalog.pg_class c on c.oid = i.indexrelid
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = ${literal(schema)} and c.relname = ${literal(index)} and not i.indisvalid`,
  );
  const [found] = rows;
  if (found === undefined) return false;
  if (found.builders !== null) throw new IndexBusyError(found.name, found.builders);
  // Concurrently, so that it waits for readers of the table without holding anybody up.
  await session.query(`drop index concurrently if exists ${found.name}`);
  return true;
}

/** An invalid index is there, and somebody may be building it at this moment. Passes by itself. */
export class IndexBusyError extends Error {
  constructor(name: string, builders: string) {
    super(`index ${name} is not complete, and server process ${builders} works on its table`);
  }
}

/** Tries to clear away what a failed build left. A server that is gone is left to the next run. */
export async function dropInvalidIndexIfPossible(session: Queryable, name: IndexName): Promise<void> {
  try {
    await dropInvalidIndex(session, name);
  } catch (error) {
    if (!(error instanceof IndexBusyError) && !isConnectionLoss(error)) throw error;
  }
}

/** An identifier as the catalog has it (PostgreSQL manual, section 4.1.1). */
function fold(identifier: string): string {
  return identifier.startsWith('"')
    ? identifier.slice(1, -1).replaceAll('""', '"')
    : identifier.toLowerCase();
}

function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
