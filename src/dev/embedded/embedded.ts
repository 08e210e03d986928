import { join, relative } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { PACKAGE_ROOT } from '../../package-root.ts';
import { type Account, reachableFolder, serverAccount } from './account.ts';
import { findEmbeddedBinaries } from './binaries.ts';
import {
  freePort,
  readPassword,
  runningServer,
  serverConnection,
  serverIsAlive,
  serverUrl,
  startServer,
} from './server.ts';

/** Not 5432, where a Postgres of the machine's own would be. */
const PREFERRED_PORT = 54_329;
const ANY_PORT = 0;
const DATABASE = 'filestore';
const GUEST = 'filestore guest';
/** How long a server of another command may take to start or to stop. */
const PATIENCE_MS = 60_000;
const MOST_FAILURES = 3;

/** The embedded Postgres as a command uses it. */
export interface Embedded {
  /** URL of its database `filestore`, with the password: the server is open to this machine only. */
  readonly url: string;
  /** The same of the database that graphile-migrate tries commits in, and of the one it makes databases from. */
  readonly shadowUrl: string;
  readonly rootUrl: string;
  /** Where its files are, as seen from the current folder. */
  readonly folder: string;
  /** False when another process runs it. */
  readonly startedHere: boolean;
  /** Resolves when the server has ended. Never, when another process runs it. */
  readonly ended: Promise<void>;
  /** Lets go of it: stops it when this process started it and no other one uses it any more. */
  close(): Promise<void>;
}

/**
 * Opens the embedded Postgres: data in `.postgres/` of the package, kept from one run to the next. Uses the
 * server of another command (such as `npm run db:start`) when one runs on that data already.
 * @throws {EmbeddedPostgresError} when it is not installed or does not start.
 */
export async function openEmbedded(): Promise<Embedded> {
  const account = serverAccount();
  const folder = reachableFolder(account, join(PACKAGE_ROOT, '.postgres'));
  const deadline = Date.now() + PATIENCE_MS;
  let binaries: string | undefined;
  for (let failures = 0; ; ) {
    const running = await joinRunning(folder);
    if (running !== undefined) return running;
    // Another command's server that is starting or stopping lets nobody in, and nobody else have the data.
    if (serverIsAlive(folder) && Date.now() < deadline) {
      await delay(50);
      continue;
    }
    binaries ??= await findEmbeddedBinaries(account, folder);
    try {
      // A port that was free a moment ago may be taken by the time the server wants it.
      const port = await freePort(failures === 0 ? PREFERRED_PORT : ANY_PORT);
      return await startHere({ binaries, folder, account, port });
    } catch (error) {
      failures += 1;
      if (failures >= MOST_FAILURES && !serverIsAlive(folder)) throw error;
      if (Date.now() >= deadline) throw error;
    }
  }
}

async function startHere(options: {
  readonly binaries: string;
  readonly folder: string;
  readonly account: Account;
  readonly port: number;
}): Promise<Embedded> {
  const { folder, port } = options;
  const server = await startServer({ ...options, listen: { kind: 'tcp', port } });
  await createDatabase(port, server.password);
  await withClient(port, server.password, (client) => letGuestsIn(client, true));
  return {
    ...urls(port, server.password),
    folder: describeFolder(folder),
    startedHere: true,
    ended: server.ended,
    async close() {
      // A server that is gone already has no guests.
      await untilGuestsLeft(port, server.password).catch(() => undefined);
      await server.stop();
    },
  };
}

async function joinRunning(folder: string): Promise<Embedded | undefined> {
  const password = readPassword(folder);
  const port = runningServer(folder)?.port;
  if (password === undefined || port === undefined) return undefined;
  // Stays connected to the end: whoever started the server waits for its guests before stopping it.
  const guest = new pg.Client({ ...connection(port, password, DATABASE), application_name: GUEST });
  guest.on('error', () => undefined);
  try {
    await createDatabase(port, password);
    await guest.connect();
  } catch {
    return undefined;
  }
  return {
    ...urls(port, password),
    folder: describeFolder(folder),
    startedHere: false,
    ended: new Promise(() => undefined),
    close: () => guest.end(),
  };
}

function urls(port: number, password: string) {
  const urlOf = (database: string) => serverUrl({ kind: 'tcp', port }, password, database);
  return { url: urlOf(DATABASE), shadowUrl: urlOf(`${DATABASE}_shadow`), rootUrl: urlOf('postgres') };
}

function connection(port: number, password: string, database: string) {
  return serverConnection({ kind: 'tcp', port }, password, database);
}

async function createDatabase(port: number, password: string): Promise<void> {
  await withClient(port, password, async (client) => {
    const { rowCount } = await client.query('select from pg_database where datname = $1', [DATABASE]);
    if (rowCount === 1) return;
    await client.query(`create database ${DATABASE}`).catch((error) => {
      // 42P04, 23505: another command made it meanwhile.
      if (error.code !== '42P04' && error.code !== '23505') throw error;
    });
  });
}

/** Waits for the last guest, and shuts the door behind it: a guest that came now would lose its server midway. */
async function untilGuestsLeft(port: number, password: string): Promise<void> {
  await withClient(port, password, async (client) => {
    for (;;) {
      if (!(await hasGuests(client))) {
        await letGuestsIn(client, false);
        if (!(await hasGuests(client))) return;
        await letGuestsIn(client, true);
      }
      await delay(50);
    }
  });
}

async function hasGuests(client: pg.Client): Promise<boolean> {
  const { rowCount } = await client.query('select from pg_stat_activity where application_name = $1', [
    GUEST,
  ]);
  return rowCount !== 0;
}

async function letGuestsIn(client: pg.Client, open: boolean): Promise<void> {
  await client.query(`alter database ${DATABASE} allow_connections ${open}`);
}

async function withClient(
  port: number,
  password: string,
  work: (client: pg.Client) => Promise<void>,
): Promise<void> {
  const client = new pg.Client(connection(port, password, 'postgres'));
  client.on('error', () => undefined);
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

function describeFolder(folder: string): string {
  const path = relative(process.cwd(), folder);
  return path.startsWith('..') ? folder : path;
}
