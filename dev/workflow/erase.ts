import { setTimeout as delay } from 'node:timers/promises';
import { describeProcess } from '../../src/db/lock-holder.ts';
import { withSession } from '../../src/db/session.ts';
import { FilestoreError, type ServerProcess, SettingsError } from '../../src/errors.ts';
import type { DatabaseKind } from '../../src/graphile/protocol.ts';
import { databaseOf } from '../../src/settings/database.ts';
import { type ConnectionSettings, describeConnection } from '../../src/settings/settings.ts';
import { capitalized } from '../../src/text.ts';
import { hostOf, VARIABLES, type WorkflowDatabases } from './databases.ts';

/** Commands that have just ended take a moment to leave. */
const PATIENCE_MS = 5_000;
const LOOK_EVERY_MS = 50;

/** Whether a server is on this machine, as far as its address tells. */
export function isLocal(connection: ConnectionSettings): boolean {
  const host = hostOf(connection).toLowerCase();
  return host.startsWith('/') || /^(localhost|127(\.\d{1,3}){3}|::1)$/.test(host);
}

/**
 * Refuses to erase a database that is not on this machine, unless its name was given as well.
 * @param told The name of the database that may go, where one was given.
 * @throws {SettingsError} that says what to write.
 */
export function refuseToErase(
  databases: WorkflowDatabases,
  kind: Exclude<DatabaseKind, 'root'>,
  told: string | undefined,
): void {
  const connection = databases[kind];
  const what = `${describeConnection(connection)} (${VARIABLES[kind]})`;
  if (told !== undefined && told !== connection.database) {
    throw new SettingsError(
      '--yes-erase',
      `--yes-erase names "${told}", and what would be erased is ${what}. Nothing was changed.`,
    );
  }
  // Databases are dropped by way of the root connection, wherever that leads.
  const local = isLocal(connection) && isLocal(databases.root);
  if (local || told !== undefined) return;
  throw new SettingsError(
    VARIABLES[kind],
    `${capitalized(what)} would be erased, and it is not on this machine. Nothing was changed. If that is what you want, say so: --yes-erase ${connection.database}`,
  );
}

/**
 * Waits until nobody is connected to a database, since it cannot be dropped while somebody is.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` that names who still is.
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
        `${capitalized(describeConnection(databases[kind]))} cannot be erased while somebody is connected to it: ${list}. Nothing was changed. End that, and run this again.`,
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
