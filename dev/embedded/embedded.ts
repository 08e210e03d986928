import { join, relative } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { removeAbandoned } from '../temporary-folder.ts';
import { withClient } from '../with-client.ts';
import { type Account, reachableFolder, serverAccount } from './account.ts';
import { DRAFT_PREFIX, findEmbeddedBinaries } from './binaries.ts';
import { freePort, serverConnection, serverUrl, startServer } from './server.ts';
import { readPassword, runningServer, serverIsAlive } from './server-data.ts';

/** Not 5432, where a Postgres of the machine's own would be. */
const PREFERRED_PORT = 54_329;
const ANY_PORT = 0;
const DATABASE = 'filestore';
const SHADOW_DATABASE = 'filestore_shadow';
/** Where databases are made from. Guests stay connected to it, so that the others can be dropped and made anew. */
const ROOT_DATABASE = 'postgres';
/** Key of the advisory lock that guests share: the letters "fs guest" as one number. */
const GUEST_LOCK_KEY = '7382279842913678196';
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
  /** Resolves when the server has ended, or the connection to another process's is gone. */
  readonly ended: Promise<void>;
  /** Lets go of it: stops it when this process started it and no other one uses it any more. */
  close(): Promise<void>;
}

export interface EmbeddedOptions {
  /**
   * Whether another process's server waits for this one before it stops. True for a command that comes to an end by
   * itself, the default; false for one that runs until somebody stops it.
   */
  readonly awaited?: boolean;
}

/**
 * Opens the embedded Postgres: data in `.postgres/` of the package, kept from one run to the next. Uses the
 * server of another command (such as `npm run db:start`) when one runs on that data already.
 * @throws {FilestoreError} `EMBEDDED_POSTGRES_FAILED` when it is not installed or does not start.
 */
export async function openEmbedded({ awaited = true }: EmbeddedOptions = {}): Promise<Embedded> {
  const account = serverAccount();
  const folder = reachableFolder(account, join(PACKAGE_ROOT, '.postgres'));
  await removeAbandoned(folder, DRAFT_PREFIX);
  const deadline = Date.now() + PATIENCE_MS;
  let binaries: string | undefined;
  for (let failures = 0; ; ) {
    const running = await joinRunning(folder, awaited);
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
  try {
    for (const database of [DATABASE, SHADOW_DATABASE]) await createDatabase(port, server.password, database);
  } catch (error) {
    // Else the next attempt would join it as another command's.
    await server.stop();
    throw error;
  }
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

async function joinRunning(folder: string, awaited: boolean): Promise<Embedded | undefined> {
  const password = readPassword(folder);
  const port = runningServer(folder)?.port;
  if (password === undefined || port === undefined) return undefined;
  // Stays connected to the end, and so learns of the server's.
  const guest = new pg.Client({
    ...connection(port, password, ROOT_DATABASE),
    application_name: 'filestore guest',
  });
  guest.on('error', () => undefined);
  const ended = new Promise<void>((resolve) => {
    guest.once('end', resolve);
  });
  try {
    await createDatabase(port, password, DATABASE);
    await guest.connect();
    // Refused once the server's own process waits for the last guest to leave.
    if (awaited && !(await becomeGuest(guest))) {
      await guest.end();
      return undefined;
    }
  } catch {
    await guest.end().catch(() => undefined);
    return undefined;
  }
  return {
    ...urls(port, password),
    folder: describeFolder(folder),
    startedHere: false,
    ended,
    close: () => guest.end(),
  };
}

function urls(port: number, password: string) {
  const urlOf = (database: string) => serverUrl({ kind: 'tcp', port }, password, database);
  return { url: urlOf(DATABASE), shadowUrl: urlOf(SHADOW_DATABASE), rootUrl: urlOf(ROOT_DATABASE) };
}

function connection(port: number, password: string, database: string) {
  return serverConnection({ kind: 'tcp', port }, password, database);
}

async function createDatabase(port: number, password: string, database: string): Promise<void> {
  await withClient(connection(port, password, ROOT_DATABASE), async (client) => {
    const { rows } = await client.query('select from pg_database where datname = $1', [database]);
    if (rows.length === 0) await client.query(`create database ${database}`);
  }).catch((error) => {
    // 42P04, 23505: another command made it meanwhile.
    if (!(error instanceof pg.DatabaseError && (error.code === '42P04' || error.code === '23505')))
      throw error;
  });
}

async function becomeGuest(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ admitted: boolean }>(
    `select pg_try_advisory_lock_shared(${GUEST_LOCK_KEY}) as admitted`,
  );
  return rows[0]?.admitted ?? false;
}

/**
 * Waits for the last guest, and lets no other in: one that came now would lose its server midway. The connection that
 * shuts the door stays open, and ends with the server.
 */
async function untilGuestsLeft(port: number, password: string): Promise<void> {
  const door = new pg.Client(connection(port, password, ROOT_DATABASE));
  door.on('error', () => undefined);
  await door.connect();
  await door.query(`select pg_advisory_lock(${GUEST_LOCK_KEY})`);
}

function describeFolder(folder: string): string {
  const path = relative(process.cwd(), folder);
  return path.startsWith('..') ? folder : path;
}
