import type { PoolClient } from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { closePool, getPool, withConnection, withSavepoint, withTransaction } from '../../src/index.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createMount } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

beforeEach(() => {
  vi.stubEnv('FILESTORE_DATABASE_URL', database().url);
  vi.stubEnv('FILESTORE_PGPOOL_MAX', '1');
});
afterEach(async () => {
  await closePool();
  vi.unstubAllEnvs();
});

const mountCount = async () => {
  const { rows } = await getPool().query('select count(*)::integer as count from filestore.backend_mounts');
  return rows[0].count;
};

const openCursor = (client: PoolClient) =>
  client.query({ submit: () => undefined, handleError: () => undefined } as never);

test('withConnection returns although a cursor is left open, and closes its connection', async () => {
  const work = withConnection(async (client) => {
    openCursor(client);
    return 'result';
  });
  expect(await work).toBe('result');
  expect(await getPool().query('select 1 as one')).toMatchObject({ rows: [{ one: 1 }] });
});

test('withConnection ends a statement that takes long and was not waited for, which says so', async () => {
  const statements: Promise<unknown>[] = [];
  const work = withConnection(async (client) => {
    const statement = client.query('select pg_sleep(8)');
    statements.push(statement);
    statement.catch(() => undefined);
    return 'result';
  });
  expect(await work).toBe('result');
  await expect(statements[0]).rejects.toMatchObject({
    code: 'CONNECTION_LOST',
    message: expect.stringMatching(
      /^The callback of withConnection ended before .* after 5 s; .* Wait for each/,
    ),
  });
});

describe('a transaction whose callback leaves a cursor open is rolled back, and its session ended', () => {
  const failure = new Error('changed my mind');
  const leftOpen = (name: string) => ({
    code: 'TRANSACTION_ROLLED_BACK',
    message: expect.stringMatching(`^The callback of ${name} left a cursor or stream open .* close it`),
  });

  test.each<[string, unknown, (client: PoolClient) => Promise<unknown>]>([
    ['when it returns', leftOpen('withTransaction'), async (client) => openCursor(client)],
    [
      'when it throws, with its error',
      failure,
      async (client) => {
        openCursor(client);
        throw failure;
      },
    ],
    [
      'when it does so after a savepoint',
      leftOpen('withSavepoint'),
      (client) => withSavepoint(client, async () => openCursor(client)),
    ],
    [
      'when it catches the error of a savepoint that did so',
      leftOpen('withSavepoint'),
      (client) => withSavepoint(client, async () => openCursor(client)).catch(() => 'caught'),
    ],
  ])('%s', async (_, expected, callback) => {
    const work = withTransaction(async (client) => {
      await createMount(client);
      return callback(client);
    });
    const error = await work.catch((cause: unknown) => cause);
    if (expected === failure) expect(error).toBe(failure);
    else expect(error).toMatchObject(expected as object);
    expect(await mountCount()).toBe(0);
  });

  test('but a stream that transfers data is waited for', async () => {
    const text = `do $$ begin for i in 1 .. 8 loop raise notice 'read'; perform pg_sleep(1); end loop; end $$`;
    await withTransaction(async (client) => {
      await createMount(client);
      await withSavepoint(client, async () => {
        client.query({
          submit: (connection: { query(sent: string): void }) => connection.query(text),
          handleCommandComplete: () => undefined,
          handleReadyForQuery: () => undefined,
          handleError: () => undefined,
        } as never);
      });
    });
    expect(await mountCount()).toBe(1);
  });

  test('but a statement that takes longer is waited for', async () => {
    await withTransaction(async (client) => {
      await createMount(client);
      void client.query('select pg_sleep(7)');
    });
    expect(await mountCount()).toBe(1);
  });
});
