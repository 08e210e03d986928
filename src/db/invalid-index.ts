import { codeOf, type LockHolder } from '../errors.ts';
import { tokenize } from '../sql-text.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import { describeHolders, type HolderRow, lockHolder, readHolder } from './lock-holder.ts';
import type { Queryable } from './session.ts';

/** An index and its schema, as the catalog has them. */
export interface IndexName {
  readonly schema: string;
  readonly index: string;
}

const IDENTIFIER = String.raw`(?:"(?:[^"]|"")+"|[a-z_\u0080-\uffff][\w$\u0080-\uffff]*)`;
const CREATE_INDEX = new RegExp(
  String.raw`^\s*create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?(?<index>${IDENTIFIER})\s+on\s+(?:only\s+)?(?<schema>${IDENTIFIER})\s*\.`,
  'i',
);
const WORKS_CONCURRENTLY =
  /^\s*(?:create\s+(?:unique\s+)?index|drop\s+index|reindex\s[^;]*?)\s+concurrently\b/i;

/** The index that a migration builds concurrently, if it is one that does. */
export function concurrentIndexOf(
  migration: Pick<CommittedMigration, 'body' | 'transaction'>,
): IndexName | undefined {
  if (migration.transaction) return undefined;
  const { index, schema } = CREATE_INDEX.exec(statementText(migration.body))?.groups ?? {};
  return index === undefined || schema === undefined
    ? undefined
    : { schema: fold(schema), index: fold(index) };
}

/**
 * Whether a migration works on an index "concurrently": it waits for others without standing in anybody's way, and
 * breaking the wait off would leave an invalid index. Any other statement that waits for a lock holds up all that come
 * after it.
 */
export function worksConcurrently(migration: CommittedMigration): boolean {
  return !migration.transaction && WORKS_CONCURRENTLY.test(statementText(migration.body));
}

/** The SQL without its comments. */
function statementText(sql: string): string {
  return tokenize(sql)
    .map(({ text }) => text)
    .join(' ');
}

/**
 * Drops what a concurrent index build left behind when it failed or was killed: an invalid index, over which
 * "create index concurrently if not exists" would pass in silence. Only an invalid index of that very schema and
 * name goes, and not while somebody may be building it.
 * @param patienceMs Milliseconds to wait for those who use the table; at least 1.
 * @returns whether there was one.
 * @throws {IndexBusyError} somebody works on the table, or has used it for longer than that.
 */
export async function dropInvalidIndex(
  session: Queryable,
  { schema, index }: IndexName,
  patienceMs: number,
): Promise<boolean> {
  const { rows } = await session.query<{ name: string; table: number }>(
    `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name, i.indrelid as table
     from pg_catalog.pg_index i
     join pg_catalog.pg_class c on c.oid = i.indexrelid
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = ${literal(schema)} and c.relname = ${literal(index)} and not i.indisvalid`,
  );
  const [found] = rows;
  if (found === undefined) return false;
  // A vacuum of the server's own has no role. It builds nothing, and makes way for a drop that waits.
  const builders = await usersOf(
    session,
    found.table,
    "l.mode = 'ShareUpdateExclusiveLock' and a.usesysid is not null",
  );
  if (builders.length > 0) {
    throw new IndexBusyError(
      `index ${found.name} is not complete, and its table is worked on by ${describeHolders(builders)}`,
    );
  }
  const waitMs = Math.max(1, Math.round(patienceMs));
  await session.query(`set lock_timeout = ${waitMs}; set statement_timeout = 0`);
  try {
    // Concurrently, so that it waits for those who use the table without holding anybody up.
    await session.query(`drop index concurrently if exists ${found.name}`);
  } catch (error) {
    if (codeOf(error) !== '55P03') throw error;
    const users = describeHolders(await usersOf(session, found.table, 'true'));
    throw new IndexBusyError(
      `the invalid index ${found.name}, which a failed build left, cannot be dropped while its table is used by ${users === '' ? 'others' : users}`,
      { cause: error },
    );
  }
  await session.query('reset lock_timeout; reset statement_timeout');
  return true;
}

/** An invalid index is there, and others are in the way of dropping it. Passes on its own. */
export class IndexBusyError extends Error {}

/** Who holds a lock on a table. Its oid alone would also be that of a table in a copy of this database. */
async function usersOf(session: Queryable, table: number, condition: string): Promise<readonly LockHolder[]> {
  const { rows } = await session.query<{ readonly holder: HolderRow }>(
    // One row for each holder, however many locks it has.
    `select distinct on (l.pid, l.virtualtransaction) ${lockHolder('l', 'a')} as holder
     from pg_catalog.pg_locks l
     join pg_catalog.pg_database d on d.oid = l.database and d.datname = pg_catalog.current_database()
     left join pg_catalog.pg_stat_activity a on a.pid = l.pid
     where l.relation = ${table} and l.granted and l.pid is distinct from pg_catalog.pg_backend_pid()
       and ${condition}`,
  );
  return rows.map(({ holder }) => readHolder(holder));
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
