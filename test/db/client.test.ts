import pg, { type PoolClient } from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  closePool,
  getClient,
  getPool,
  POSTGRES_SCHEMA,
  withConnection,
  withTransaction,
} from '../../src/index.ts';
import { asAdmin, databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createMount, one } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

beforeEach(() => {
  vi.stubEnv('FILESTORE_DATABASE_URL', database().url);
  vi.stubEnv('FILESTORE_PGPOOL_MAX', '2');
});
afterEach(async () => {
  await closePool();
  vi.unstubAllEnvs();
});

const mountCount = async () =>
  (await one(database(), `select count(*)::integer as count from ${POSTGRES_SCHEMA}.backend_mounts`)).count;

describe('the pool', () => {
  test('exists once per process, with the settings of the environment', () => {
    expect(getPool()).toBe(getPool());
    expect(getPool().options).toMatchObject({
      max: 2,
      idleTimeoutMillis: 30_000,
      connectionTimeoutMillis: 10_000,
    });
  });

  test('sets application_name and READ COMMITTED, whatever the defaults of the database', async () => {
    await database().query(
      `alter database ${database().name} set default_transaction_isolation = 'serializable'`,
    );
    const { rows } = await getPool().query(
      "select current_setting('application_name') as name, current_setting('transaction_isolation') as isolation",
    );
    expect(rows).toEqual([{ name: expect.stringMatching(/^filestore /), isolation: 'read committed' }]);
  });

  test('is recreated after it was closed', async () => {
    const before = getPool();
    await closePool();
    expect(getPool()).not.toBe(before);
    await expect(getPool().query('select 1')).resolves.toMatchObject({ rowCount: 1 });
  });

  test('survives an idle connection that the server ends', async () => {
    const { rows } = await getPool().query('select pg_backend_pid() as pid');
    await asAdmin((admin) => admin.query('select pg_terminate_backend($1, 5000)', [rows[0].pid]));
    await vi.waitFor(() => expect(getPool().totalCount).toBe(0));
    await expect(getPool().query('select 1')).resolves.toMatchObject({ rowCount: 1 });
  });

  test('leaves the data of a connection to its only listener, which streams of COPY replace', async () => {
    const plain = new pg.Client(database().url);
    await plain.connect();
    const client = await getClient();
    const listeners = [plain, client].map(({ connection }) => connection.stream.listenerCount('data'));
    client.release();
    await plain.end();
    expect(listeners).toEqual([1, 1]);
  });

  test('without a URL names the variable to set', () => {
    vi.stubEnv('FILESTORE_DATABASE_URL', '');
    vi.stubEnv('DATABASE_URL', '');
    expect(() => getPool()).toThrow(/FILESTORE_DATABASE_URL/);
  });
});

test('reports a refused connection as an error of this package, without the password', async () => {
  vi.stubEnv('FILESTORE_DATABASE_URL', 'postgres://app:hunter2@127.0.0.1:1/app');
  await expect(getClient()).rejects.toMatchObject({
    code: 'CONNECTION_FAILED',
    message: expect.not.stringContaining('hunter2'),
  });
});

describe('a connection that is returned within a transaction is closed, and the next caller gets another one', () => {
  test.each([
    [
      'after its callback failed',
      () =>
        withConnection(async (client) => {
          await client.query('begin');
          await client.query('select 1 / 0');
        }),
    ],
    [
      'by getClient',
      async () => {
        const client = await getClient();
        await client.query('begin');
        client.release();
      },
    ],
    ["by the pool's query", () => getPool().query('begin')],
  ])('%s', async (_, leaveOpen) => {
    vi.stubEnv('FILESTORE_PGPOOL_MAX', '1');
    await leaveOpen().catch(() => undefined);
    await getPool().query("set application_name = 'committed'");
    // The server needs a moment to end a session.
    await vi.waitFor(async () => {
      const sessions = await database().query(
        "select application_name, state from pg_stat_activity where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()",
      );
      expect(sessions).toEqual([{ application_name: 'committed', state: 'idle' }]);
    });
  });
});

test('a connection that is returned while the server begins a transaction on it is closed', async () => {
  const client = await getClient();
  client.query('begin').catch(() => undefined);
  client.release();
  await createMount(getPool());
  expect(await mountCount()).toBe(1);
});

test('PGOPTIONS count where the URL has no options', async () => {
  vi.stubEnv('PGOPTIONS', '-c statement_timeout=1234');
  expect(await getPool().query('show statement_timeout')).toMatchObject({
    rows: [{ statement_timeout: '1234ms' }],
  });
  expect(await getPool().query('show default_transaction_isolation')).toMatchObject({
    rows: [{ default_transaction_isolation: 'read committed' }],
  });
});

describe('withConnection', () => {
  test('whose callback leaves a transaction open is an error, because its changes are lost', async () => {
    const work = withConnection(async (client) => {
      await client.query('begin');
      await createMount(client);
    });
    await expect(work).rejects.toMatchObject({
      code: 'TRANSACTION_ROLLED_BACK',
      message: expect.stringMatching(/left a transaction open.* Commit it/),
    });
    expect(await mountCount()).toBe(0);
  });

  test('waits for a statement that its callback did not wait for', async () => {
    const work = withConnection(async (client) => {
      void client.query('begin');
    });
    await expect(work).rejects.toMatchObject({ code: 'TRANSACTION_ROLLED_BACK' });
    await createMount(getPool());
    expect(await mountCount()).toBe(1);
  });

  test('keeps its session after refusals', async () => {
    const sessions = new Set<number>();
    const refused = async (client: PoolClient) => {
      const { rows } = await client.query('select pg_backend_pid() as pid');
      sessions.add(rows[0].pid);
      await client.query('select filestore.delete_node(-1)');
    };
    for (let turn = 0; turn < 30; turn += 1) {
      await expect(withConnection(refused)).rejects.toMatchObject({ code: 'FS404' });
      const client = await getClient();
      await expect(refused(client).finally(() => client.release())).rejects.toMatchObject({ code: 'FS404' });
    }
    expect(sessions.size).toBe(1);
  });

  test('refuses statements after its callback has ended', async () => {
    const client = await withConnection(async (lent) => lent);
    const refused = { code: 'TRANSACTION_ENDED' };
    await expect(client.query('select 1')).rejects.toMatchObject(refused);
    const answered = new Promise((resolve) => client.query('select 1', resolve));
    expect(await answered).toMatchObject(refused);
    const called = new Promise((resolve) => client.query({ text: 'select 1', callback: resolve } as never));
    expect(await called).toMatchObject(refused);
    expect(() => client.query({ submit: () => undefined } as never)).toThrow('was not run');
  });

  test.each<[string, (client: PoolClient) => unknown]>([
    ['release(true)', (client) => client.release(true)],
    ['end()', (client) => client.end()],
    ['end(callback)', (client) => new Promise<void>((resolve) => client.end(() => resolve()))],
  ])('does not end the connection of its next user by %s after its callback has ended', async (_, end) => {
    vi.stubEnv('FILESTORE_PGPOOL_MAX', '1');
    const kept = await withConnection(async (lent) => lent);
    const next = withConnection(async (client) => {
      await client.query('select 1');
      await end(kept);
      return client.query('select 2 as two');
    });
    expect(await next).toMatchObject({ rows: [{ two: 2 }] });
  });

  test('keeps what its callback sets on the client from the next user, and returns the connection once', async () => {
    vi.stubEnv('FILESTORE_PGPOOL_MAX', '1');
    for (const useClient of [withConnection, withTransaction]) {
      const result = await useClient(async (client) => {
        const { query } = client;
        const texts: unknown[] = [];
        Object.assign(client, {
          query: (...args: readonly unknown[]) => {
            texts.push(args[0]);
            return Reflect.apply(query, client, args);
          },
        });
        expect(client.on('notice', () => undefined)).toBe(client);
        await client.query('select 1');
        client.release();
        return texts;
      });
      expect(result).toEqual(['select 1']);
      expect(await getPool().query('select 2 as two')).toMatchObject({ rows: [{ two: 2 }] });
    }
    const failure = new Error('changed my mind');
    const work = withConnection(async (client) => {
      client.release(true);
      throw failure;
    });
    await expect(work).rejects.toBe(failure);
    expect(getPool().totalCount).toBe(0);
  });

  test('releases the connection, also after an error', async () => {
    for (let turn = 0; turn < 5; turn += 1) {
      await withConnection((client) => client.query('select 1 / 0')).catch(() => undefined);
    }
    expect(getPool().idleCount).toBe(getPool().totalCount);
    expect(await withConnection(async () => 'result')).toBe('result');
  });
});

describe('withTransaction', () => {
  test('commits the changes of its work', async () => {
    await withTransaction((client) => createMount(client));
    expect(await mountCount()).toBe(1);
  });

  test('rolls back when its callback throws, and throws the same error', async () => {
    const failure = new Error('changed my mind');
    const work = withTransaction(async (client) => {
      await createMount(client);
      throw failure;
    });
    await expect(work).rejects.toBe(failure);
    expect(await mountCount()).toBe(0);
    expect(getPool().idleCount).toBe(1);
  });

  test('discards a connection that broke midway', async () => {
    const work = withTransaction(async (client) => {
      await createMount(client);
      const { rows } = await client.query('select pg_backend_pid() as pid');
      await asAdmin((admin) => admin.query('select pg_terminate_backend($1, 5000)', [rows[0].pid]));
      await client.query('select 1');
    });
    await expect(work).rejects.toThrow();
    expect(await mountCount()).toBe(0);
    await expect(withTransaction((client) => client.query('select 1'))).resolves.toMatchObject({
      rowCount: 1,
    });
  });
});
