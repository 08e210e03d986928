import pg from 'pg';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

/** A database that is prepared for moves, and a connection to it. */
export interface NumberedDatabase {
  readonly number: number;
  readonly name: string;
  readonly url: string;
  readonly client: pg.Client;
  /** Runs a statement and returns its rows. */
  query<Row extends pg.QueryResultRow = pg.QueryResultRow>(
    text: string,
    values?: readonly unknown[],
  ): Promise<readonly Row[]>;
  connect(): Promise<pg.Client>;
}

/** Two databases of one server, between which mounts move as between two servers, only faster to start. */
export interface TwoDatabases {
  readonly server: OwnServer;
  readonly one: NumberedDatabase;
  readonly two: NumberedDatabase;
  stop(): Promise<void>;
}

const SETTINGS = [
  'wal_level=logical',
  'max_connections=100',
  'max_worker_processes=64',
  'max_logical_replication_workers=40',
  'max_replication_slots=60',
  'max_wal_senders=60',
  'max_prepared_transactions=2',
  // A worker that failed begins again at once.
  'wal_retrieve_retry_interval=100ms',
];

export async function startTwoDatabases(): Promise<TwoDatabases> {
  const server = await startOwnServer({ settings: SETTINGS, listen: 'tcp' });
  const clients: pg.Client[] = [];
  const connect = async (url: string) => {
    const client = new pg.Client(url);
    client.on('error', () => undefined);
    await client.connect();
    clients.push(client);
    return client;
  };
  const open = async (name: string, number: number): Promise<NumberedDatabase> => {
    const url = databaseUrl(server.url, name);
    const client = await connect(url);
    await client.query('select filestore.set_database_number($1)', [number]);
    await client.query('call filestore.prepare_moves(true)');
    return {
      number,
      name,
      url,
      client,
      async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []) {
        return (await client.query<Row>(text, [...values])).rows;
      },
      connect: () => connect(url),
    };
  };
  const stop = async () => {
    await Promise.allSettled(clients.splice(0).map((client) => client.end()));
    await server.stop();
  };
  try {
    const admin = await connect(server.url);
    await admin.query('create database one');
    await runMigrations({ connection: connectionTo(databaseUrl(server.url, 'one')) });
    await admin.query('create database two template one');
    return { server, one: await open('one', 1), two: await open('two', 2), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
