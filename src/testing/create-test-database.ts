import { randomBytes } from 'node:crypto';
import pg, { type Client, type Pool } from 'pg';
import { ACCESS_LEVELS } from '../access-levels.ts';
import { codeOf } from '../cause-codes.ts';
import { SettingsError } from '../errors.ts';
import { readCommittedMigrations } from '../graphile/committed-migrations.ts';
import { MIGRATIONS_FOLDER } from '../package-root.ts';
import { databaseFromUrl, poolConfig } from '../settings/database.ts';
import { replaceInUrl } from '../settings/database-url.ts';
import { isSet, serviceConnection } from '../settings/settings.ts';
import { paragraph } from '../text.ts';
import { connect, onDatabase } from './connect.ts';
import { dropTestDatabase, removeLeftovers } from './leftovers.ts';
import { makeOlder, type NodeId } from './make-older.ts';
import { levelRole, readState, refuseUnusable, type TestLevel } from './server-state.ts';
import { startTestServer } from './start-test-server.ts';
import { makeTemplate, newName } from './template.ts';

/**
 * A server for test databases: its URL, the result of `startTestServer`, or a started container of
 * `@testcontainers/postgresql`. Its user needs CREATEDB, and CREATEROLE for any level but `owner`.
 */
export type TestServerSource = string | { readonly url: string } | { getConnectionUri(): string };

export interface TestDatabaseOptions {
  /**
   * Default, also for an empty string: a separate server that `startTestServer` starts and `close` stops. This takes
   * a few seconds.
   */
  readonly server?: TestServerSource | undefined;
  /** The role that is logged in. Default: `service`. */
  readonly level?: TestLevel | undefined;
}

/** A migrated database of one test or one file of tests. */
export interface TestDatabase {
  /** Unique on its server. */
  readonly name: string;
  /** URL with a role of the level, which is dropped with the database. Roles of a level have it in every test database of the server. */
  readonly url: string;
  /** URL of the same database with its owner, the user of the server's URL, for statements that no level may run. */
  readonly ownerUrl: string;
  /** At most 5 connections with `url`. Rows have the types of `@apphub/filestore/rows`. */
  readonly pool: Pool;
  /**
   * Moves rows into the past, as if everything had happened that much earlier: moments of creation, change, deletion
   * and sightings, versions, and the journal. `last_modified_at` stays, since it is a moment of the file.
   * @param age An interval of Postgres, such as `31 days`. A month counts as 30 days.
   * @param nodeIds Only these nodes, with their versions and sightings. Default: every row.
   * @example
   * await deleteNode(db.pool, { nodeId });
   * await db.makeOlder('31 days');
   * @throws {SettingsError} when `age` is not a positive interval.
   * @throws {FilestoreError} `TEST_DATABASE_FAILED` when a transaction of the test holds a lock for 10 s.
   */
  makeOlder(age: string, nodeIds?: readonly NodeId[]): Promise<void>;
  /** Ends all connections, and drops the database and its role. */
  close(): Promise<void>;
}

const UNDEFINED_DATABASE = '3D000';
const MOST_ATTEMPTS = 3;

/**
 * Creates a database with the migrations of this package, in which a role of a level is logged in. The first call on a
 * server makes a template, and others wait for it; each database is a copy. Test databases that killed runs left are
 * removed after a minute.
 * @example
 * const db = await createTestDatabase({ server: process.env.TEST_DATABASE_URL, level: 'service' });
 * const { rows } = await db.pool.query('select id from filestore.backend_mounts');
 * await db.close();
 * @throws {SettingsError} when `server` or `level` cannot be used.
 * @throws {FilestoreError} `TEST_DATABASE_FAILED` when the user of the server lacks a right, or the server refuses;
 * `CONNECTION_FAILED` when it cannot be reached; `EMBEDDED_POSTGRES_FAILED` as {@link startTestServer} does; errors of
 * `runMigrations`.
 */
export async function createTestDatabase({
  server,
  level = 'service',
}: TestDatabaseOptions = {}): Promise<TestDatabase> {
  refuseUnknownLevel(level);
  const url = urlOf(server);
  if (url !== undefined) return openOn(url, level);
  const own = await startTestServer();
  try {
    const database = await openOn(own.url, level);
    const close = () => {
      // The server ends all connections.
      void database.pool.end().catch(() => undefined);
      return own.stop();
    };
    return { ...database, close };
  } catch (error) {
    await own.stop();
    throw error;
  }
}

function urlOf(server: TestServerSource | undefined): string | undefined {
  if (server === undefined || typeof server === 'string') return isSet(server) ? server : undefined;
  const given: { readonly url?: unknown; getConnectionUri?(): unknown } = Object(server);
  const url = given.getConnectionUri?.() ?? given.url;
  if (typeof url === 'string') return url;
  const message = paragraph(
    'server of createTestDatabase must be a URL, the result of startTestServer, or a started container of',
    '@testcontainers/postgresql. Correct it, or leave it out.',
  );
  throw new SettingsError('server', message);
}

function refuseUnknownLevel(level: TestLevel): void {
  if (level === 'owner' || ACCESS_LEVELS.includes(level)) return;
  throw new SettingsError(
    'level',
    `level of createTestDatabase must be ${ACCESS_LEVELS.join(', ')} or owner. Correct it, or leave it out.`,
  );
}

/** @param url URL of any database of the server. */
async function openOn(url: string, level: TestLevel): Promise<TestDatabase> {
  const database = databaseFromUrl('server', url);
  const clone = await onDatabase(database, (admin) => cloneTemplate(admin, url, level));
  const ownerUrl = replaceInUrl('server', url, { database: clone.name });
  const keeper = await keepInUse(ownerUrl);
  const pool = openPool(clone.url);
  let closed: Promise<void> | undefined;
  const close = async () => {
    // Not awaited: the test may have connections that it did not return.
    void pool.end().catch(() => undefined);
    // Without it, a process with nothing else to do would end now.
    keeper.ref();
    await keeper.end();
    await onDatabase(database, (admin) => dropTestDatabase(admin, clone.name));
  };
  return {
    name: clone.name,
    url: clone.url,
    ownerUrl,
    pool,
    makeOlder: (age, nodeIds) =>
      onDatabase(databaseFromUrl('server', ownerUrl), (owner) => makeOlder(owner, age, nodeIds)),
    close() {
      closed ??= close();
      return closed;
    },
  };
}

/** The types of pg leave these two methods out. */
type Keeper = Client & { ref(): void; unref(): void };

/** Opens a connection, which shows other runs that the database is in use. It does not keep the process alive. */
async function keepInUse(url: string): Promise<Keeper> {
  const keeper = (await connect(databaseFromUrl('server', url))) as Keeper;
  await keeper.query('set idle_session_timeout = 0');
  keeper.unref();
  return keeper;
}

interface Clone {
  readonly name: string;
  /** URL with the role of the level. */
  readonly url: string;
}

/** The name of the template of this user, which is made if there is none. Then another user may have taken its name. */
async function provideTemplate(admin: Client, url: string, level: TestLevel): Promise<string> {
  const last = (await readCommittedMigrations(MIGRATIONS_FOLDER)).at(-1);
  if (last === undefined) throw new Error('there is at least one migration');
  const read = async () => {
    const found = await readState(admin, last.hash);
    refuseUnusable(databaseFromUrl('server', url).where, found, level);
    return found;
  };
  const state = await read();
  if (state.templateOwner === null) {
    await makeTemplate(admin, url, state, last.filename);
    await read();
  }
  return state.template;
}

async function cloneTemplate(admin: Client, url: string, level: TestLevel): Promise<Clone> {
  for (let attempt = 1; ; attempt += 1) {
    const template = await provideTemplate(admin, url, level);
    await removeLeftovers(admin, template);
    const name = await newName(admin);
    try {
      await admin.query(`create database ${name} template ${template}`);
      if (level === 'owner') return { name, url: replaceInUrl('server', url, { database: name }) };
      const password = randomBytes(18).toString('hex');
      // The owner is a member, so that it may end the sessions of the role.
      await admin.query(
        `create role ${name} login password '${password}' in role ${levelRole(template, level)} role current_user`,
      );
      return { name, url: replaceInUrl('server', url, { database: name, user: name, password }) };
    } catch (error) {
      // Another run has just removed the template, since no run had used it for a week.
      if (codeOf(error) !== UNDEFINED_DATABASE || attempt === MOST_ATTEMPTS) throw error;
    }
  }
}

function openPool(url: string): Pool {
  const connection = serviceConnection({ DATABASE_URL: url });
  if (connection === undefined) throw new Error('the URL is set');
  const pool = new pg.Pool({ ...poolConfig(connection), max: 5, allowExitOnIdle: true });
  // close() ends connections that the test still uses. Without listeners, that would end the process.
  pool.on('error', () => undefined);
  pool.on('connect', (client) => client.on('error', () => undefined));
  return pool;
}
