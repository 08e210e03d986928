import pg from 'pg';
import { type ConnectionSettings, poolConfig } from '../settings.ts';
import { connectionError } from './connection-error.ts';
import type { AppliedMigration } from './history.ts';

/** What a database says before anything is done to it. */
export interface Preflight {
  /** As the server names it, such as `18.4`. */
  readonly serverVersion: string;
  /** Rows of graphile_migrate.migrations; none when the table does not exist. */
  readonly applied: readonly AppliedMigration[];
}

/**
 * Asks a database for its version and for the migrations it remembers. Read-only.
 * @throws {ConnectionError} when the server cannot be reached or refuses.
 */
export async function readPreflight(connection: ConnectionSettings): Promise<Preflight> {
  const client = new pg.Client(poolConfig(connection));
  // A connection that breaks also rejects the query under way; without a listener it would end the process too.
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (cause) {
    throw connectionError(connection, cause);
  }
  try {
    return { serverVersion: await readServerVersion(client), applied: await readApplied(client) };
  } finally {
    await client.end();
  }
}

async function readServerVersion(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ version: string }>(
    "select current_setting('server_version') as version",
  );
  return rows[0]?.version.split(' ')[0] ?? 'unknown';
}

async function readApplied(client: pg.Client): Promise<readonly AppliedMigration[]> {
  const { rows: tables } = await client.query(
    `select
     from pg_catalog.pg_class c
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'graphile_migrate' and c.relname = 'migrations'`,
  );
  if (tables.length === 0) return [];
  const { rows } = await client.query<AppliedMigration>(
    `select filename, hash, previous_hash as "previousHash", date as "appliedAt"
     from graphile_migrate.migrations
     order by filename`,
  );
  return rows;
}
