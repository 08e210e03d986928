import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { createOwner, testRole } from '../support/roles/test-role.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

/** A server with a migrated database `filestore`. */
export interface NumberedServer {
  readonly name: ServerName;
  readonly server: OwnServer;
  /** Of the database, as its owner: an ordinary role with TEST_ROLE=owner. */
  readonly url: string;
  /** Of the database, as a superuser: to end the sessions of other roles. */
  readonly superuserUrl: string;
}

export type ServerName = 'source' | 'target';

export interface TwoServers {
  readonly source: NumberedServer;
  readonly target: NumberedServer;
  stop(): Promise<void>;
}

export interface TwoServersOptions {
  /** Default: off, as tests have it. */
  readonly fsync?: 'on' | 'off';
}

const SETTINGS = [
  'wal_level=logical',
  'max_connections=200',
  // A killed worker begins again at once.
  'wal_retrieve_retry_interval=200ms',
];

/** The ids of the source begin at 2^40 + 1, and those of the target at 2^41 + 1. */
export async function startTwoServers({ fsync = 'off' }: TwoServersOptions = {}): Promise<TwoServers> {
  const settings = [...SETTINGS, `fsync=${fsync}`, `full_page_writes=${fsync}`];
  const servers = await Promise.allSettled([
    startNumbered('source', 1, settings),
    startNumbered('target', 2, settings),
  ]);
  const [source, target] = servers.flatMap((result) => (result.status === 'fulfilled' ? result.value : []));
  const stop = async () => {
    // The target first: it asks the source for changes.
    for (const server of [target, source]) await server?.server.stop();
  };
  if (source !== undefined && target !== undefined) return { source, target, stop };
  await stop();
  throw servers.find((result) => result.status === 'rejected')?.reason;
}

async function startNumbered(
  name: ServerName,
  number: number,
  settings: readonly string[],
): Promise<NumberedServer> {
  const server = await startOwnServer({ settings, listen: 'tcp' });
  try {
    const url = await createMigrated(await ownerUrlOf(server), 'filestore');
    await withClient(url, (client) => client.query('select filestore.set_database_number($1)', [number]));
    const superuserUrl = databaseUrl(server.url, 'filestore');
    // docs/scaling.md says who can create it.
    await withClient(superuserUrl, (client) =>
      client.query(
        `create extension postgres_fdw; grant usage on foreign data wrapper postgres_fdw to public`,
      ),
    );
    return { name, server, url, superuserUrl };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/** Recipes need a superuser on PostgreSQL 15, where only it can create subscriptions and roles that replicate. */
async function ownerUrlOf({ url }: OwnServer): Promise<string> {
  if (testRole() === 'superuser') return url;
  return withClient(url, async (client) => {
    const { rows } = await client.query("select current_setting('server_version_num')::integer as version");
    return rows[0].version < 160000 ? url : createOwner(client, url, 'filestore_owner', { replicates: true });
  });
}

async function createMigrated(serverUrl: string, name: string): Promise<string> {
  await withClient(serverUrl, (client) => client.query(`create database ${name}`));
  const url = databaseUrl(serverUrl, name);
  await runMigrations({ connection: connectionTo(url) });
  return url;
}

/** Makes another migrated database on a server, and drops it afterwards. */
export async function withMigratedDatabase<T>(
  server: OwnServer,
  name: string,
  run: (url: string) => Promise<T>,
): Promise<T> {
  const url = await createMigrated(server.url, name);
  try {
    return await run(url);
  } finally {
    await withClient(server.url, (client) => client.query(`drop database ${name} with (force)`));
  }
}
