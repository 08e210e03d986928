import pg, { type Client, type QueryResultRow } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, inject } from 'vitest';
import { databaseUrl } from './connection.ts';

/** A database of a test's own. */
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
  drop(): Promise<void>;
}

let created = 0;

/** Makes a database: migrated, or empty. */
export async function createDatabase(kind: 'migrated' | 'empty' = 'migrated'): Promise<TestDatabase> {
  const template = inject('template');
  created += 1;
  const name = `${template}_${process.pid}_${created}`;
  await asAdmin((admin) =>
    admin.query(
      kind === 'migrated'
        ? `create database ${name} template ${template} strategy file_copy`
        : `create database ${name} encoding 'UTF8' template template0`,
    ),
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
  return {
    url,
    name,
    connect,
    async query<Row extends QueryResultRow>(text: string, values: readonly unknown[] = []) {
      shared ??= connect();
      const client = await shared;
      return (await client.query<Row>(text, [...values])).rows;
    },
    async drop() {
      await Promise.allSettled(clients.map((client) => client.end()));
      await asAdmin((admin) => admin.query(`drop database if exists ${name} with (force)`));
    },
  };
}

/** A database for each test of a file; ask for it inside the test. */
export function databaseForEachTest(kind: 'migrated' | 'empty' = 'migrated'): () => TestDatabase {
  return provideDatabase(beforeEach, afterEach, kind);
}

/** One database for all tests of a file that only read what it prepares. */
export function databaseForFile(kind: 'migrated' | 'empty' = 'migrated'): () => TestDatabase {
  return provideDatabase(beforeAll, afterAll, kind);
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
    if (database === undefined) throw new Error('the database is there inside a test only');
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
