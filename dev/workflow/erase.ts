import { setTimeout as delay } from 'node:timers/promises';
import { codeOf } from '../../src/cause-codes.ts';
import { FilestoreError, hasCode, type ServerProcess, SettingsError } from '../../src/errors.ts';
import type { DatabaseKind } from '../../src/graphile/protocol.ts';
import { describeProcess } from '../../src/session/lock-holder.ts';
import { withSession } from '../../src/session/session.ts';
import { databaseOf, describeConnection } from '../../src/settings/database.ts';
import type { ConnectionSettings } from '../../src/settings/settings.ts';
import { capitalized } from '../../src/text.ts';
import { hostOf, VARIABLES, type WorkflowDatabases } from './databases.ts';

/** A database that a command erases. */
type ErasedKind = Exclude<DatabaseKind, 'root'>;

/** Commands that have just ended need a moment to disconnect. */
const PATIENCE_MS = 5_000;
const LOOK_EVERY_MS = 50;

/** Whether a server is on this machine, as far as its address tells. */
export function isLocal(connection: ConnectionSettings): boolean {
  const host = hostOf(connection).toLowerCase();
  return host.startsWith('/') || /^(localhost|127(\.\d{1,3}){3}|::1)$/.test(host);
}

/**
 * Refuses to erase a database on another machine, unless its name was given, and one that the root connection does not
 * lead to.
 * @param allowed The name of the database that may be erased, if one was given.
 * @throws {SettingsError} that says what to write.
 */
export async function refuseToErase(
  databases: WorkflowDatabases,
  kind: ErasedKind,
  allowed: string | undefined,
): Promise<void> {
  refuseUnnamed(databases, kind, allowed);
  await refuseOtherServer(databases, kind);
}

function refuseUnnamed(databases: WorkflowDatabases, kind: ErasedKind, allowed: string | undefined): void {
  const connection = databases[kind];
  const what = `${describeConnection(connection)} (${VARIABLES[kind]})`;
  if (allowed !== undefined && allowed !== connection.database) {
    throw new SettingsError(
      '--yes-erase',
      `--yes-erase names another database than the one to erase, ${what}. Nothing was changed. Write: --yes-erase ${connection.database}`,
    );
  }
  // Databases are dropped over the root connection, so its host counts.
  const local = isLocal(connection) && isLocal(databases.root);
  if (local || allowed !== undefined) return;
  throw new SettingsError(
    VARIABLES[kind],
    `${capitalized(what)} is not on this machine, and would be erased. Nothing was changed. To erase it, add: --yes-erase ${connection.database}`,
  );
}

/** graphile-migrate drops a database by its name over the root connection: on another server, that is another database. */
async function refuseOtherServer(databases: WorkflowDatabases, kind: ErasedKind): Promise<void> {
  const { [kind]: connection, root } = databases;
  const rootServer = await serverOf(root);
  const server = await serverOf(connection).catch((error: unknown) => {
    if (!isMissingDatabase(error)) throw error;
    return serverOf({ ...connection, database: root.database });
  });
  if (server === rootServer) return;
  throw new SettingsError(
    VARIABLES.root,
    `${VARIABLES[kind]} and ${VARIABLES.root} lead to two servers: ${describeConnection(connection)}, and ${describeConnection(root)}. The database of that name on the second one would be erased. Nothing was changed. Correct one of the URLs.`,
  );
}

/** What identifies a running server, whatever its address. A copy of its files has another start. */
async function serverOf(connection: ConnectionSettings): Promise<string | undefined> {
  return withSession(databaseOf(connection), async (session) => {
    const { rows } = await session.query<{ server: string }>(
      `select pg_catalog.concat_ws(' ', s.system_identifier, extract(epoch from pg_catalog.pg_postmaster_start_time())) as server
       from pg_catalog.pg_control_system() s`,
    );
    return rows[0]?.server;
  });
}

/** Whether a connection failed only because its database does not exist. */
export function isMissingDatabase(error: unknown): boolean {
  return hasCode(error, 'CONNECTION_FAILED') && codeOf(error.cause) === '3D000';
}

/**
 * Waits until a database has no connections, since it cannot be dropped before.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` that names the remaining connections.
 */
export async function untilUnused(databases: WorkflowDatabases, kind: DatabaseKind): Promise<void> {
  const { database } = databases[kind];
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const users = await usersOf(databases.root, database);
    if (users.length === 0) return;
    if (performance.now() > deadline) {
      const list = users.map(describeProcess).join('; ');
      throw new FilestoreError(
        'SCHEMA_CHANGE_REFUSED',
        `${capitalized(describeConnection(databases[kind]))} cannot be erased while it has connections: ${list}. Nothing was changed. Close them, and run this again.`,
      );
    }
    await delay(LOOK_EVERY_MS);
  }
}

async function usersOf(root: ConnectionSettings, database: string): Promise<readonly ServerProcess[]> {
  const name = database.replaceAll("'", "''");
  return withSession(databaseOf(root), async (session) => {
    const { rows } = await session.query<ServerProcess & Record<string, unknown>>(
      `select pid, usename as role, application_name as "applicationName"
       from pg_catalog.pg_stat_activity
       where datname = '${name}' and backend_type = 'client backend'`,
    );
    return rows;
  });
}
