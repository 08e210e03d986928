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

/** Not 5432, since another Postgres on this machine may use that. */
const PREFERRED_PORT = 54_329;
const ANY_PORT = 0;
const DATABASE = 'filestore';
const SHADOW_DATABASE = 'filestore_shadow';
/**
 * The database from which others are created. Guests stay connected to it, so that the others can be dropped and
 * recreated.
 */
const ROOT_DATABASE = 'postgres';
/** Key of the advisory lock that guests share: the letters "fs guest" as one number. */
const GUEST_LOCK_KEY = '7382279842913678196';
/** Time limit for a server of another command to start or stop. */
const PATIENCE_MS = 60_000;
const MOST_FAILURES = 3;

/** The embedded Postgres, as seen by a command. */
export interface Embedded {
  /** URL of its database `filestore`, with the password; the server listens on this machine only. */
  readonly url: string;
  /** URLs of the shadow database and of the root database, from which the others are created. */
  readonly shadowUrl: string;
  readonly rootUrl: string;
  /** The folder of its files, relative to the current folder. */
  readonly folder: string;
  /** False if another process runs it. */
  readonly startedHere: boolean;
  /** Resolves when the server has ended, or the connection to another process's server is lost. */
  readonly ended: Promise<void>;
  /** Releases it: stops it if this process started it and no other process uses it. */
  close(): Promise<void>;
}

export interface EmbeddedOptions {
  /**
   * Whether a process that stops the server waits until this process ends. True (the default) for a command that ends
   * on its own; false for one that runs until it is stopped.
   */
  readonly awaited?: boolean;
}

/**
 * Opens the embedded Postgres: data in `.postgres/` of the package, kept between runs. Uses the server of another
 * command (such as `npm run db:start`) if one runs on that data.
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
    // While another command's server starts or stops, it accepts no connection but still owns the data.
    if (serverIsAlive(folder) && Date.now() < deadline) {
      await delay(50);
      continue;
    }
    binaries ??= await findEmbeddedBinaries(account, folder);
    try {
      // A free port may be taken before the server uses it.
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
    // Otherwise the next attempt would join it as another command's server.
    await server.stop();
    throw error;
  }
  return {
    ...urls(port, server.password),
    folder: describeFolder(folder),
    startedHere: true,
    ended: server.ended,
    async close() {
      // A stopped server has no guests.
      await untilGuestsLeft(port, server.password).catch(() => undefined);
      await server.stop();
    },
  };
}

async function joinRunning(folder: string, awaited: boolean): Promise<Embedded | undefined> {
  const password = readPassword(folder);
  const port = runningServer(folder)?.port;
  if (password === undefined || port === undefined) return undefined;
  // Stays connected, to notice the end of the server.
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
    // Refused if the process that runs the server is about to stop it.
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
    // 42P04, 23505: another command created it at the same time.
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
 * Waits for the last guest and admits no new one, which would lose its server midway. The connection that holds the
 * lock stays open, and ends with the server.
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
