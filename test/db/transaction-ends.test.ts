import type { PoolClient } from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { closePool, getPool, withTransaction } from '../../src/index.ts';
import { createNode } from '../../src/sql/index.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createMount } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();
let parentId: string;

beforeEach(async () => {
  vi.stubEnv('FILESTORE_DATABASE_URL', database().url);
  parentId = (await createMount(database())).rootId;
});
afterEach(async () => {
  await closePool();
  vi.unstubAllEnvs();
});

const names = async () =>
  (await database().query('select name from filestore.nodes where parent_id is not null order by name')).map(
    ({ name }) => name,
  );

describe('withTransaction throws if its callback ended the transaction', () => {
  const create = (client: PoolClient, name: string) => createNode(client, { parentId, name });

  test.each([
    ['commit', ['commit'], ['first']],
    ['rollback', ['rollback'], []],
    ['rollback and begin', ['rollback', 'begin'], []],
    ['rollback and begin in one message', ['rollback; begin'], []],
    ['commit and start transaction in one message', ['commit; start transaction'], ['first']],
    ['rollback and chain', ['rollback and chain'], []],
    [
      'rollback and chain after a rollback to a savepoint',
      ['savepoint a', 'rollback to a; rollback and chain'],
      [],
    ],
    ['a rollback and chain with a comment', ['abort transaction and/* of it */ CHAIN'], []],
    ['commit and chain', ['commit and chain'], ['first']],
    ['commit of a transaction that failed', ['select 1 / 0', 'commit and chain'], []],
    ['two transactions and a third one', ['begin', 'commit', 'begin', 'commit', 'begin'], ['first']],
    ['statements that fail', ['rollback; select 1 / 0'], []],
  ])('%s', async (_, statements, kept) => {
    const work = withTransaction(async (client) => {
      await create(client, 'first');
      for (const text of statements) await client.query(text).catch(() => undefined);
      await create(client, 'second');
    });
    await expect(work).rejects.toMatchObject({
      code: 'TRANSACTION_ENDED',
      message: expect.stringMatching(/ended its transaction/),
    });
    const left = (await names()).filter((name) => name !== 'second');
    expect(left).toEqual(kept);
    expect(getPool().idleCount).toBe(1);
  });

  test('by a statement that it did not wait for', async () => {
    const work = withTransaction(async (client) => {
      await create(client, 'first');
      void client.query('rollback');
    });
    await expect(work).rejects.toMatchObject({ code: 'TRANSACTION_ENDED' });
    expect(await names()).toEqual([]);
  });

  test('and then threw, with the error as cause', async () => {
    const cause = new Error('changed my mind');
    const work = withTransaction(async (client) => {
      await client.query('commit and chain');
      throw cause;
    });
    await expect(work).rejects.toMatchObject({ code: 'TRANSACTION_ENDED', cause });
  });

  test('and never repeats it, because a part of its work may be committed', async () => {
    let runs = 0;
    const work = withTransaction(
      async (client) => {
        runs += 1;
        await create(client, `run ${runs}`);
        await client.query('commit; begin');
        await client.query(`do $$ begin raise exception 'sample' using errcode = '40001'; end $$`);
      },
      { retries: 5 },
    );
    await expect(work).rejects.toMatchObject({ code: 'TRANSACTION_ENDED', cause: { code: '40001' } });
    expect(await names()).toEqual(['run 1']);
  });

  test('but not if it rolled back to a savepoint', async () => {
    await withTransaction(async (client) => {
      await create(client, 'first');
      await client.query('savepoint "start"');
      await client.query('rollback to "start"');
      await client.query('rollback work to savepoint "start"; release "start"');
    });
    expect(await names()).toEqual(['first']);
  });

  test.each([
    ['chain', 'rollback to savepoint chain'],
    ['"supply-chain"', 'rollback to savepoint "supply-chain"'],
    ['a', 'rollback to a -- and chain'],
    ['a', "rollback to a; select '; rollback and chain;'"],
  ])('but not if it rolled back to savepoint %s by: %s', async (savepoint, text) => {
    await withTransaction(async (client) => {
      await create(client, 'first');
      await client.query(`savepoint ${savepoint}`);
      await client.query(text);
    });
    expect(await names()).toEqual(['first']);
  });
});

const raise = (client: PoolClient, code: string) =>
  client.query(`do $$ begin raise exception 'sample' using errcode = '${code}'; end $$`);

describe('a branch that still runs when its callback has ended', () => {
  /** Fails at once, while another branch writes `name` after `go`. */
  const raceOf = (client: PoolClient, name: string, go: Promise<unknown>, branches: Promise<unknown>[]) => {
    const slow = go.then(() => createNode(client, { parentId, name }));
    branches.push(slow.catch((error) => error));
    return Promise.all([raise(client, '40001'), slow]);
  };
  const REFUSED = { code: 'TRANSACTION_ENDED', message: expect.stringContaining('was not run') };

  test('writes nothing into the next attempt', async () => {
    const branches: Promise<unknown>[] = [];
    let goOn = () => {};
    const go = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    await withTransaction(
      async (client) => {
        if (branches.length === 0) return raceOf(client, 'first', go, branches);
        goOn();
        expect(await Promise.all(branches)).toEqual([expect.objectContaining(REFUSED)]);
        return createNode(client, { parentId, name: 'second' });
      },
      { retries: 1 },
    );
    expect(await names()).toEqual(['second']);
  });

  test('writes nothing after the rollback', async () => {
    const branches: Promise<unknown>[] = [];
    let goOn = () => {};
    const go = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    await expect(withTransaction((client) => raceOf(client, 'ghost', go, branches))).rejects.toThrow();
    goOn();
    expect(await Promise.all(branches)).toEqual([expect.objectContaining(REFUSED)]);
    expect(await names()).toEqual([]);
  });
});
