import { setImmediate as turn } from 'node:timers/promises';
import type { PoolClient } from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type Proxy as Cable, startProxy } from '../../harness/proxy.ts';
import { closePool, getClient, getPool, withConnection } from '../../src/index.ts';
import { asAdmin, databaseForFile } from '../support/databases/test-database.ts';

// A statement fails at the server's error. The state of the transaction is in the next message, which may
// arrive later.
const database = databaseForFile();
let proxy: Cable;

beforeEach(async () => {
  proxy = await startProxy(database().url);
  vi.stubEnv('FILESTORE_DATABASE_URL', proxy.url);
  vi.stubEnv('FILESTORE_PGPOOL_MAX', '1');
});
afterEach(async () => {
  await closePool();
  vi.unstubAllEnvs();
  await proxy.stop();
});

const FAILING = 'begin; select 1/0';

/** Lets the state arrive after the program has handled the error of the failing statement. */
async function failFirst(client: PoolClient, text = FAILING): Promise<unknown> {
  const held = proxy.holdReadyAt(text);
  const error = await client.query(text).catch((failure: unknown) => failure);
  const release = await held;
  void turn().then(release);
  return error;
}

describe('a statement that leaves a failed transaction', () => {
  test('in withConnection does not disturb the next caller', async () => {
    const work = withConnection(async (client) => {
      throw await failFirst(client);
    });
    const next = getPool().query('select 1');
    await expect(work).rejects.toMatchObject({ code: '22012' });
    expect(await next).toMatchObject({ rowCount: 1 });
  });

  test('on a connection that is returned does not disturb the next caller', async () => {
    const client = await getClient();
    await failFirst(client);
    client.release();
    expect(() => client.release()).toThrow(/already been released/);
    expect(await getPool().query('select 1')).toMatchObject({ rowCount: 1 });
    expect(proxy.conversations).toHaveLength(2);
  });

  test('is TRANSACTION_ROLLED_BACK if the callback of withConnection catches the error', async () => {
    const work = withConnection(async (client) => {
      await failFirst(client, `${FAILING}; commit`);
    });
    await expect(work).rejects.toMatchObject({ code: 'TRANSACTION_ROLLED_BACK' });
  });
});

test('a commit that fails ends the transaction, and the callback of withConnection may catch its error', async () => {
  const work = withConnection(async (client) => {
    await client.query('create temp table deferred_keys (id integer unique deferrable initially deferred)');
    await client.query('begin');
    await client.query('insert into deferred_keys values (1), (1)');
    return failFirst(client, 'commit');
  });
  expect(await work).toMatchObject({ code: '23505' });
});

test('errors outside of transactions cost no connections', async () => {
  vi.stubEnv('FILESTORE_PGPOOL_MAX', '2');
  for (const text of ['select 1/0', 'select 2/0']) {
    await withConnection((client) => failFirst(client, text));
    const client = await getClient();
    await failFirst(client, `${text} returned`);
    client.release();
  }
  await withConnection((client) => client.query('select 1'));
  expect(proxy.conversations).toHaveLength(1);
});

test('withConnection does not wait for a statement on a connection that is gone', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  try {
    const [statement, ended] = await withConnection(async (client) => {
      const { rows } = await client.query('select pg_backend_pid() as pid');
      const failing = client.query('select pg_sleep(60)').catch((error: unknown) => error);
      const ending = turn().then(() =>
        asAdmin((admin) => admin.query('select pg_terminate_backend($1)', [rows[0].pid])),
      );
      return [() => failing, ending];
    });
    expect(await statement()).toMatchObject({ code: '57P01' });
    await ended;
  } finally {
    vi.useRealTimers();
  }
});
