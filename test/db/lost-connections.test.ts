import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import type { PoolClient } from 'pg';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { closePool, getClient, getPool, withConnection, withTransaction } from '../../src/index.ts';
import { asAdmin, databaseForFile } from '../support/databases/test-database.ts';
import { until } from '../support/until.ts';

const database = databaseForFile();

beforeEach(() => {
  vi.stubEnv('FILESTORE_DATABASE_URL', database().url);
  vi.stubEnv('FILESTORE_PGPOOL_MAX', '1');
});
afterEach(async () => {
  await closePool();
  vi.unstubAllEnvs();
});

const ended = (client: PoolClient) => new Promise<void>((resolve) => client.once('end', () => resolve()));

test.each<[string, string, (client: PoolClient) => Promise<unknown>]>([
  [
    'by the limit of idle transactions',
    '25P03',
    (client) => client.query("set local idle_in_transaction_session_timeout = '50ms'"),
  ],
  [
    'by an administrator',
    '57P01',
    async (client) => {
      const { rows } = await client.query('select pg_backend_pid() as pid');
      await asAdmin((admin) => admin.query('select pg_terminate_backend($1, 5000)', [rows[0].pid]));
    },
  ],
])(
  'a session that is ended between two statements %s is CONNECTION_LOST, with %s as cause',
  async (_, code, end) => {
    const lost = {
      code: 'CONNECTION_LOST',
      message: expect.stringMatching(
        /^The connection to database ".*" on .* was lost: terminating connection .*Repeat/,
      ),
      cause: { code },
    };
    const work = withTransaction(async (client) => {
      const gone = ended(client);
      await end(client);
      await gone;
      await expect(client.query('select 1')).rejects.toMatchObject(lost);
      await new Promise<void>((resolve) => {
        client.query('select 1', (error) => {
          expect(error).toMatchObject(lost);
          resolve();
        });
      });
      return 'done';
    });
    await expect(work).rejects.toMatchObject(lost);
    expect(await withTransaction(async () => 'next')).toBe('next');
  },
);

test('a session that is ended during a statement has the error of the server', async () => {
  const work = withTransaction((client) => client.query('select pg_terminate_backend(pg_backend_pid())'));
  await expect(work).rejects.toMatchObject({ code: '57P01' });
});

test.each<[string, () => Promise<unknown>]>([
  ["the pool's query", () => getPool().query('select pg_sleep(60)')],
  [
    "the pool's query with a callback",
    () =>
      new Promise((resolve, reject) => {
        const done = (error: Error | undefined) => (error ? reject(error) : resolve(undefined));
        getPool().query('select pg_sleep(60)', done);
      }),
  ],
  ['withConnection', () => withConnection((client) => client.query('select pg_sleep(60)'))],
])('a connection that closes during a statement of %s is CONNECTION_LOST', async (_, run) => {
  const opened = new Promise<PoolClient>((resolve) => getPool().once('connect', resolve));
  const failure = expect(run()).rejects.toMatchObject({
    code: 'CONNECTION_LOST',
    message: expect.stringMatching(/^The connection to database ".*" on .* was lost: .*Repeat/),
  });
  const client = await opened;
  await until(() => !(client as { readonly readyForQuery?: boolean }).readyForQuery);
  client.connection.stream.destroy();
  await failure;
  expect(await withTransaction(async () => 'next')).toBe('next');
});

test('a pool whose connections are all in use says so, also to its own query, and how to change it', async () => {
  const client = await getClient();
  // Only now, because the limit also counts for opening the connection.
  getPool().options.connectionTimeoutMillis = 50;
  for (const call of [
    () => getClient(),
    () => getPool().query('select 1'),
    () => withTransaction(async () => 1),
  ]) {
    await expect(call()).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringMatching(
        /^All connections .*at most 1.* none was returned within 50 ms\..*FILESTORE_PGPOOL_MAX/,
      ),
    });
  }
  client.release();
  getPool().options.connectionTimeoutMillis = 10_000;
  await expect(getPool().query('select 1')).resolves.toMatchObject({ rowCount: 1 });
});

test('closePool refuses callers that wait for a connection, and waits for those that have one', async () => {
  vi.stubEnv('FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS', '2000');
  const client = await getClient();
  const pool = getPool();
  const waiting = Promise.allSettled([getClient(), pool.query('select 1')]);
  await until(() => pool.waitingCount === 2);
  const closing = closePool();
  const refused = {
    status: 'rejected',
    reason: {
      code: 'CONNECTION_FAILED',
      message: expect.stringMatching(/^The pool .* was closed\..*getPool/),
    },
  };
  expect(await waiting).toMatchObject([refused, refused]);
  await expect(client.query('select 1')).resolves.toMatchObject({ rowCount: 1 });
  client.release();
  await closing;
  // pg's own time limit for them is over later, and changes nothing.
  await until(() => pool.waitingCount === 0);
  await expect(pool.query('select 1')).rejects.toMatchObject(refused.reason);
});

test('a pool keeps the description of its database when the variable is gone', async () => {
  await getPool().query('select 1');
  vi.stubEnv('FILESTORE_DATABASE_URL', '');
  expect(await withTransaction(async () => 'done')).toBe('done');
});

test('callers that wait while the pool opens connections to a silent server learn that it does not answer', async () => {
  const silent = createServer().listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as AddressInfo;
  vi.stubEnv('FILESTORE_DATABASE_URL', `postgres://app@127.0.0.1:${port}/app`);
  vi.stubEnv('FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS', '100');
  const refused = {
    status: 'rejected',
    reason: { code: 'CONNECTION_FAILED', message: expect.stringMatching(/^Cannot connect to /) },
  };
  expect(await Promise.allSettled([getClient(), getClient()])).toMatchObject([refused, refused]);
  silent.close();
});

test('settings with which pg creates no connection are an error of this package', async () => {
  vi.stubEnv('PGSSLNEGOTIATION', 'direct');
  vi.stubEnv('FILESTORE_DATABASE_URL', 'postgres://app@127.0.0.1:1/app?sslmode=disable');
  await expect(getClient()).rejects.toMatchObject({ code: 'CONNECTION_FAILED' });
  await closePool();
});
