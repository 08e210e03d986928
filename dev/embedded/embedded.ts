import { join, relative } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { codeOf } from '../../src/cause-codes.ts';
import { FilestoreError } from '../../src/errors.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { findEmbeddedBinaries } from '../../src/testing/embedded/binaries.ts';
import { freePort, serverUrl, startServer } from '../../src/testing/embedded/server.ts';
import { readPassword, runningServer } from '../../src/testing/embedded/server-data.ts';
import { withClient } from '../../src/testing/with-client.ts';
import {
  reachableFolder,
  refuseCopiedData,
  removeStalePidFile,
  serverIsAlive,
  servesFolder,
} from './kept-data.ts';

/** Not 5432, since another Postgres on this machine may use that. */
const PREFERRED_PORT = 54_329;
const ANY_PORT = 0;
/** What Postgres reports for a library that is not there. */
const UNDEFINED_FILE = '58P01';
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
  const folder = reachableFolder(join(PACKAGE_ROOT, '.postgres'));
  const deadline = Date.now() + PATIENCE_MS;
  for (let failures = 0; ; ) {
    const running = await joinRunning(folder, awaited);
    if (running !== undefined) return running;
    refuseCopiedData(folder);
    // While another command's server starts or stops, it accepts no connection but still owns the data.
    if (serverIsAlive(folder) && Date.now() < deadline) {
      await delay(50);
      continue;
    }
    removeStalePidFile(folder);
    try {
      // A free port may be taken before the server uses it.
      return await startHere(folder, await freePort(failures === 0 ? PREFERRED_PORT : ANY_PORT));
    } catch (error) {
      failures += 1;
      if (failures >= MOST_FAILURES && !serverIsAlive(folder)) throw error;
      if (Date.now() >= deadline) throw error;
    }
  }
}

async function startHere(folder: string, port: number): Promise<Embedded> {
  const binaries = await findEmbeddedBinaries(folder);
  const server = await startServer({ binaries, folder, listen: { kind: 'tcp', port }, temporary: false });
  const urls = urlsOf(folder, port, server.password);
  try {
    for (const database of [DATABASE, SHADOW_DATABASE]) await createIfMissing(urls.rootUrl, database);
  } catch (error) {
    // Otherwise the next attempt would join it as another command's server.
    await server.stop();
    throw error;
  }
  return {
    ...urls,
    startedHere: true,
    ended: server.ended,
    async close() {
      // A stopped server has no guests.
      await untilGuestsLeft(urls.rootUrl).catch(() => undefined);
      await server.stop();
    },
  };
}

async function joinRunning(folder: string, awaited: boolean): Promise<Embedded | undefined> {
  const password = readPassword(folder);
  const port = runningServer(folder)?.port;
  if (password === undefined || port === undefined) return undefined;
  const urls = urlsOf(folder, port, password);
  // Stays connected, to notice the end of the server.
  const guest = new pg.Client({ connectionString: urls.rootUrl, application_name: 'filestore guest' });
  guest.on('error', () => undefined);
  const ended = new Promise<void>((resolve) => {
    guest.once('end', resolve);
  });
  try {
    await guest.connect();
    // A copied folder names the server of another one.
    if (!(await servesFolder(guest, folder))) throw new Error('the server works on other data');
    await refuseMovedPrograms(guest);
    await createIfMissing(urls.rootUrl, DATABASE);
    // Refused if the process that runs the server is about to stop it.
    if (awaited && !(await becomeGuest(guest))) throw new Error('the server is about to stop');
  } catch (error) {
    await guest.end().catch(() => undefined);
    if (error instanceof FilestoreError) throw error;
    return undefined;
  }
  return { ...urls, startedHere: false, ended, close: () => guest.end() };
}

/**
 * Refuses a server that no longer finds its libraries, because its checkout was moved, or `npm ci` replaced them.
 * @throws {FilestoreError} `EMBEDDED_POSTGRES_FAILED`
 */
async function refuseMovedPrograms(server: pg.Client): Promise<void> {
  await server.query("load 'plpgsql'").catch((cause) => {
    if (codeOf(cause) !== UNDEFINED_FILE) throw cause;
    throw new FilestoreError(
      'EMBEDDED_POSTGRES_FAILED',
      'The programs of the embedded Postgres were moved or removed while it runs. Nothing was changed. Stop the command that runs it, such as "npm run db:start", and start it again.',
      { cause },
    );
  });
}

function urlsOf(folder: string, port: number, password: string) {
  const urlOf = (database: string) => serverUrl({ kind: 'tcp', port }, password, database);
  const path = relative(process.cwd(), folder);
  return {
    folder: path.startsWith('..') ? folder : path,
    url: urlOf(DATABASE),
    shadowUrl: urlOf(SHADOW_DATABASE),
    rootUrl: urlOf(ROOT_DATABASE),
  };
}

async function createIfMissing(rootUrl: string, database: string): Promise<void> {
  await withClient(rootUrl, async (client) => {
    const { rows } = await client.query('select from pg_database where datname = $1', [database]);
    if (rows.length === 0) await client.query(`create database ${database}`);
  }).catch((error) => {
    // 42P04, 23505: another command created it at the same time.
    if (!['42P04', '23505'].includes(codeOf(error) ?? '')) throw error;
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
async function untilGuestsLeft(rootUrl: string): Promise<void> {
  const door = new pg.Client(rootUrl);
  door.on('error', () => undefined);
  await door.connect();
  await door.query(`select pg_advisory_lock(${GUEST_LOCK_KEY})`);
}
