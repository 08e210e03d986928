import { beforeEach } from 'vitest';
import { databaseEmptiedAfterEachTest, type TestDatabase } from '../databases/test-database.ts';
import { one, type Sql } from './nodes.ts';

/** A staged row, by the names of its columns. */
export type Row = Readonly<Record<string, unknown>>;

const TYPES: Readonly<Record<string, string>> = {
  id: 'bigint',
  parent_id: 'bigint',
  primary_node_id: 'bigint',
  superseded_by_journal_id: 'bigint',
  duration_ms: 'bigint',
  affected_node_ids: 'bigint[]',
  size_bytes: 'bigint',
  version: 'integer',
  created_at: 'timestamptz',
  updated_at: 'timestamptz',
  deleted_at: 'timestamptz',
  started_at: 'timestamptz',
  completed_at: 'timestamptz',
  last_modified_at: 'timestamptz',
  metadata: 'jsonb',
  parameters: 'jsonb',
  result: 'jsonb',
  error: 'jsonb',
};

/** Puts rows into a staging table, in place of the rows and columns that it had. Its columns are those of all rows. */
export async function stage(sql: Sql, table: string, rows: readonly Row[]): Promise<void> {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const list = columns.map((name) => `${name} ${TYPES[name] ?? 'text'}`).join(', ');
  await sql.query('create schema if not exists old');
  await sql.query(`drop table if exists old.${table}`);
  await sql.query(`create table old.${table} (${list})`);
  await sql.query(`insert into old.${table} select * from jsonb_populate_recordset(null::old.${table}, $1)`, [
    JSON.stringify(rows),
  ]);
}

export interface Fault {
  readonly staged: string;
  readonly id: string | null;
  readonly version: number | null;
  readonly path: string | null;
  readonly reason: string;
  readonly problem: string;
  readonly remedy: string;
}

/** Registers a bucket whose root has an id above those of the staged rows, and returns its key. */
export async function createImportMount(sql: Sql, key = 'imported'): Promise<string> {
  await one(sql, "select filestore.reserve_ids('nodes', 1000000)");
  await one(
    sql,
    `insert into filestore.backend_mounts (mount_key, backend_kind, bucket) values ($1, 's3', $1) returning id`,
    [key],
  );
  return key;
}

/** The key of the bucket into which a test imports. */
export const key = 'imported';

/** A database with that bucket, and nothing staged, before each test. */
export function importDatabaseForEachTest(): () => TestDatabase {
  const database = databaseEmptiedAfterEachTest();
  beforeEach(async () => {
    await database().query('drop schema if exists old cascade');
    await createImportMount(database(), key);
  });
  return database;
}
