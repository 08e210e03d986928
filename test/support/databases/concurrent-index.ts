import type { Client } from 'pg';
import { migrationNumber } from '../packages/committed-files.ts';
import { one, type Sql } from '../rows/nodes.ts';
import { until } from '../until.ts';
import type { TestDatabase } from './test-database.ts';

/** A migration that builds the index concurrently. */
export const BUILD_INDEX =
  '--! no-transaction\ncreate index concurrently if not exists items_note_idx on app.items (note);';

/** Creates the table app.items with duplicate rows. */
export async function createItems(sql: Sql): Promise<void> {
  await sql.query('create schema app');
  await sql.query('create table app.items (id bigint generated always as identity, note text)');
  await sql.query("insert into app.items (note) select 'note ' || n % 10 from generate_series(1, 100) n");
}

/**
 * Opens a transaction for which a concurrent build waits. One that writes the table blocks its beginning. One that
 * reads and keeps its snapshot blocks its end.
 */
export async function startReport(
  database: TestDatabase,
  { table = 'app.items', reads = false }: { readonly table?: string; readonly reads?: boolean } = {},
): Promise<Client> {
  const report = await database.connect();
  await report.query("set application_name = 'nightly report'");
  await report.query(`begin isolation level ${reads ? 'repeatable read' : 'read committed'}`);
  await report.query(reads ? `select from ${table}` : `lock table ${table} in row exclusive mode`);
  return report;
}

export async function pidOf(client: Client): Promise<number> {
  return (await one(client, 'select pg_backend_pid() as pid')).pid;
}

/** Waits until a statement with this beginning waits for a lock, and returns its server process. */
export async function untilBlocked(database: TestDatabase, statement: string): Promise<number> {
  return until(async () => {
    const [session] = await database.query<{ pid: number }>(
      `select pid from pg_stat_activity
       where datname = current_database() and state = 'active' and wait_event_type = 'Lock'
         and ltrim(regexp_replace(query, '--.*?\\n', '', 'g')) ilike $1`,
      [`${statement}%`],
    );
    return session?.pid;
  });
}

/** Leaves an invalid index, as a failed build does, and returns its oid. */
export async function leaveInvalidIndex(
  database: TestDatabase,
  index: string,
  table: string,
): Promise<number> {
  const failure = await database
    .query(`create unique index concurrently ${index} on ${table} (note)`)
    .catch((error) => error);
  if (failure.code !== '23505') throw failure;
  const { oid } = await one(
    database,
    `select indexrelid::int as oid from pg_index where indrelid = $1::regclass and not indisvalid`,
    [table],
  );
  return oid;
}

/** The oid and validity of an index; null when it does not exist. */
export async function findIndex(
  database: TestDatabase,
  name: string,
): Promise<{ readonly oid: number; readonly valid: boolean } | null> {
  const [found] = await database.query<{ oid: number; valid: boolean }>(
    'select indexrelid::int as oid, indisvalid as valid from pg_index where indexrelid = to_regclass($1)',
    [name],
  );
  return found ?? null;
}

/** How often a migration is recorded as applied. */
export async function timesRecorded(database: TestDatabase, filename: string): Promise<number> {
  const { count } = await one(
    database,
    'select count(*)::int from graphile_migrate.migrations where filename = $1',
    [`${migrationNumber(filename)}.sql`],
  );
  return count;
}
