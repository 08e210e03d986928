import pg, { type Client, type QueryResultRow } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, inject } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';

/** A database for one test. */
export interface TestDatabase {
  readonly url: string;
  readonly name: string;
  /** Opens another connection; all are closed with the database. */
  connect(): Promise<Client>;
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

/** The connection that creates and drops databases for this process. It does not keep the process alive. */
function connectMaker(): Promise<Client> {
  maker ??= (async () => {
    const client = new pg.Client(inject('adminUrl')) as Client & { unref(): void };
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
  const admin = await connectMaker();
  await admin.query(
    kind === 'migrated'
      ? `create database ${name} template ${template} strategy file_copy`
      : `create database ${name} encoding 'UTF8' template template0`,
  );
  const url = databaseUrl(inject('adminUrl'), name);
  const clients: Client[] = [];
  const connect = async () => {
    const client = new pg.Client(url);
    client.on('error', () => undefined);
    await client.connect();
    clients.push(client);
    return client;
  };
  let shared: Promise<Client> | undefined;
  const disconnect = async () => {
    shared = undefined;
    await Promise.allSettled(clients.splice(0).map((client) => client.end()));
  };
  return {
    url,
    name,
    connect,
    async query<Row extends QueryResultRow>(text: string, values: readonly unknown[] = []) {
      shared ??= connect();
      const client = await shared;
      return (await client.query<Row>(text, [...values])).rows;
    },
    disconnect,
    async drop() {
      await disconnect();
      await admin.query(`drop database if exists ${name} with (force)`);
    },
  };
}

/** A database for each test of a file. Call the returned function inside the test. */
export function databaseForEachTest(kind: 'migrated' | 'empty' = 'migrated'): () => TestDatabase {
  return provideDatabase(beforeEach, afterEach, kind);
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
    // Without the triggers and keys that protect the rows.
    const deletes = tables.map((table) => `delete from ${table}`);
    await database().query(['set session_replication_role = replica', ...deletes].join('; '));
    await database().disconnect();
  });
  return database;
}

/**
 * One database for all tests of a file. Each test is one transaction on one connection, which is rolled back. For
 * tests that change the schema and then read it.
 */
export function databaseRolledBackAfterEachTest(kind: 'migrated' | 'empty' = 'migrated'): () => TestDatabase {
  const database = databaseForFile(kind);
  let client: Client;
  beforeEach(async () => {
    client = await database().connect();
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

/** Runs statements as the role that may create databases and roles. */
export async function asAdmin<T>(work: (admin: Client) => Promise<T>): Promise<T> {
  const admin = new pg.Client(inject('adminUrl'));
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.end();
  }
}
