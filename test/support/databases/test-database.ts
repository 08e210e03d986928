import pg, { type Client, type QueryResultRow } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, inject } from 'vitest';
import { databaseUrl } from '../../../harness/connection.ts';
import { withClient } from '../../../src/testing/with-client.ts';

/** A database for one test. */
export interface TestDatabase {
  readonly url: string;
  /** The same as a superuser. */
  readonly superuserUrl: string;
  readonly name: string;
  /** Opens another connection; all are closed with the database. */
  connect(): Promise<Client>;
  /**
   * The same as a superuser, for what the owner of a managed server may not do: switch triggers off, end the sessions of
   * other roles, or change settings of the server.
   */
  connectAsSuperuser(): Promise<Client>;
  /** Runs a statement and returns its rows. */
  query<Row extends QueryResultRow = QueryResultRow>(
    text: string,
    values?: readonly unknown[],
  ): Promise<readonly Row[]>;
  /** Ends its connections and drops it. */
  disconnect(): Promise<void>;
  drop(): Promise<void>;
}

let created = 0;
let maker: Promise<Client> | undefined;

/**
 * The connection that creates and drops databases for this process. It does not keep the process alive. A superuser, since
 * only it may drop a database in which autovacuum or another role is at work.
 */
function connectMaker(): Promise<Client> {
  maker ??= (async () => {
    const client = new pg.Client(inject('superuserUrl')) as Client & { unref(): void };
    client.on('error', () => undefined);
    await client.connect();
    client.unref();
    return client;
  })();
  return maker;
}

/** Creates a migrated or empty database. */
export async function createDatabase(kind: 'migrated' | 'empty' = 'migrated'): Promise<TestDatabase> {
  const template = inject('template');
  created += 1;
  const name = `${template}_${process.pid}_${created}`;
  const superuser = await connectMaker();
  const owner = pg.escapeIdentifier(decodeURIComponent(new URL(inject('adminUrl')).username));
  await superuser.query(
    kind === 'migrated'
      ? `create database ${name} owner ${owner} template ${template} strategy file_copy`
      : `create database ${name} owner ${owner} encoding 'UTF8' template template0`,
  );
  const url = databaseUrl(inject('adminUrl'), name);
  const superuserUrl = databaseUrl(inject('superuserUrl'), name);
  const clients: Client[] = [];
  const connectTo = async (address: string) => {
    const client = new pg.Client(address);
    client.on('error', () => undefined);
    await client.connect();
    clients.push(client);
    return client;
  };
  const connect = () => connectTo(url);
  let shared: Promise<Client> | undefined;
  const disconnect = async () => {
    shared = undefined;
    await Promise.allSettled(clients.splice(0).map((client) => client.end()));
  };
  return {
    url,
    superuserUrl,
    name,
    connect,
    connectAsSuperuser: () => connectTo(superuserUrl),
    async query<Row extends QueryResultRow>(text: string, values: readonly unknown[] = []) {
      shared ??= connect();
      const client = await shared;
      return (await client.query<Row>(text, [...values])).rows;
    },
    disconnect,
    async drop() {
      await disconnect();
      await superuser.query(`drop database if exists ${name} with (force)`);
    },
  };
}

/** A database for each test of a file. Call the returned function inside the test. */
export function databaseForEachTest(kind: 'migrated' | 'empty' = 'migrated'): () => TestDatabase {
  return provideDatabase(beforeEach, afterEach, kind);
}

/** Creates databases for a test, which are dropped after it: for files whose tests need different ones. */
export function databasesForEachTest(): (kind?: 'migrated' | 'empty') => Promise<TestDatabase> {
  const databases: TestDatabase[] = [];
  afterEach(async () => {
    for (const database of databases.splice(0)) await database.drop();
  });
  return async (kind) => {
    const database = await createDatabase(kind);
    databases.push(database);
    return database;
  };
}

/** One database for all tests of a file, for tests that only read prepared rows. */
export function databaseForFile(kind: 'migrated' | 'empty' = 'migrated'): () => TestDatabase {
  return provideDatabase(beforeAll, afterAll, kind);
}

/**
 * One database for all tests of a file; its rows are deleted after each test. Cheaper than a database for each test, for
 * tests that change only rows. Sequences are not reset.
 */
export function databaseEmptiedAfterEachTest(): () => TestDatabase {
  const database = databaseForFile();
  let tables: readonly string[];
  beforeAll(async () => {
    const rows = await database().query<{ name: string; empty: boolean }>(
      `select c.oid::regclass::text as name,
              query_to_xml(format('select from %s limit 1', c.oid::regclass), true, false, '')::text not like '%<row%' as empty
       from pg_class c
       where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'r'`,
    );
    tables = rows.filter(({ empty }) => empty).map(({ name }) => name);
  });
  afterEach(async () => {
    await database().disconnect();
    const deletes = tables.map((table) => `delete from ${table}`).join('; ');
    await withoutTriggers(database(), (client) => client.query(deletes));
    await database().disconnect();
  });
  return database;
}

/**
 * One database for all tests of a file. Each test is one transaction on one connection, which is rolled back. For
 * tests that change the schema and then read it, in ways that need a superuser too.
 */
export function databaseRolledBackAfterEachTest(kind: 'migrated' | 'empty' = 'migrated'): () => TestDatabase {
  const database = databaseForFile(kind);
  let client: Client;
  beforeEach(async () => {
    client = await database().connectAsSuperuser();
    await client.query('begin');
  });
  afterEach(async () => {
    await client.query('rollback');
    await client.end();
  });
  return () => ({
    ...database(),
    connect: async () => client,
    query: async <Row extends QueryResultRow>(text: string, values: readonly unknown[] = []) =>
      (await client.query<Row>(text, [...values])).rows,
  });
}

type Hook = (work: () => Promise<void>) => void;

function provideDatabase(before: Hook, after: Hook, kind: 'migrated' | 'empty'): () => TestDatabase {
  let database: TestDatabase | undefined;
  before(async () => {
    database = await createDatabase(kind);
  });
  after(async () => {
    await database?.drop();
    database = undefined;
  });
  return () => {
    if (database === undefined) throw new Error('the database exists only inside a test');
    return database;
  };
}

/** Runs statements in a transaction without triggers and foreign keys, as a restore does. */
export async function withoutTriggers<T>(
  database: TestDatabase,
  work: (superuser: Client) => Promise<T>,
): Promise<T> {
  const client = await database.connectAsSuperuser();
  try {
    await client.query('begin; set local session_replication_role = replica');
    const result = await work(client);
    await client.query('commit');
    return result;
  } finally {
    await client.end();
  }
}

/** Runs statements as the role that may create databases and roles. */
export async function asAdmin<T>(work: (admin: Client) => Promise<T>): Promise<T> {
  return withClient(inject('adminUrl'), work);
}

/** Runs statements as a superuser, for what the owner of a managed server may not do. */
export async function asSuperuser<T>(work: (superuser: Client) => Promise<T>): Promise<T> {
  return withClient(inject('superuserUrl'), work);
}
