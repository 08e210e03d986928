import type { PoolClient } from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { closePool, getPool, withSavepoint, withTransaction } from '../../src/index.ts';
import { createNode } from '../../src/sql/index.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createMount, type Mount } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const database = databaseEmptiedAfterEachTest();
let mount: Mount;
let parentId: string;

beforeEach(async () => {
  vi.stubEnv('FILESTORE_DATABASE_URL', database().url);
  mount = await createMount(database());
  parentId = mount.rootId;
  await createNode(getPool(), { parentId, name: 'taken' });
});
afterEach(async () => {
  await closePool();
  vi.unstubAllEnvs();
});

const names = async () =>
  (await database().query('select name from filestore.nodes where parent_id is not null order by name')).map(
    ({ name }) => name,
  );

const raise = (client: PoolClient, code: string) =>
  client.query(`do $$ begin raise exception 'sample' using errcode = '${code}'; end $$`);

/** A create that is refused, because the name is taken. */
const createTaken = (client: PoolClient) => createNode(client, { parentId, name: 'taken' });
const ROLLED_BACK = {
  code: 'TRANSACTION_ROLLED_BACK',
  cause: { code: 'FS409', constraint: 'nodes_name_taken' },
};

describe('withTransaction throws, because nothing was committed,', () => {
  test('if its callback caught a refusal and returned', async () => {
    const work = withTransaction(async (client) => {
      await createNode(client, { parentId, name: 'lost' });
      await createTaken(client).catch(() => undefined);
      return 'done';
    });
    await expect(work).rejects.toMatchObject({
      ...ROLLED_BACK,
      message: expect.stringMatching(/"taken".*nothing was committed.* withSavepoint/is),
    });
    expect(await names()).toEqual(['taken']);
  });

  test('with the error that aborted the transaction as cause, not one of the statements after it', async () => {
    const work = withTransaction(async (client) => {
      await createTaken(client).catch(() => undefined);
      await client.query('select 1').catch(() => undefined);
    });
    await expect(work).rejects.toMatchObject(ROLLED_BACK);
  });

  test('if a statement that its callback did not wait for failed', async () => {
    const work = withTransaction(async (client) => {
      void createTaken(client).catch(() => undefined);
    });
    await expect(work).rejects.toMatchObject(ROLLED_BACK);
  });

  test('if its callback rolled back to a savepoint, and a later statement failed', async () => {
    const work = withTransaction(async (client) => {
      await client.query('savepoint before');
      await client.query('select 1 / 0').catch(() => undefined);
      await client.query('rollback to savepoint before');
      await createTaken(client).catch(() => undefined);
    });
    await expect(work).rejects.toMatchObject(ROLLED_BACK);
  });
});

test('withTransaction throws the error of a commit that is refused', async () => {
  await database().query(
    `create table public.late (id integer unique deferrable initially deferred); insert into public.late values (1)`,
  );
  const work = withTransaction((client) => client.query('insert into public.late values (1)'));
  await expect(work).rejects.toMatchObject({ code: '23505' });
  expect(getPool().idleCount).toBe(1);
  await database().query('drop table public.late');
});

describe('withSavepoint', () => {
  test('undoes the work that throws, and the transaction goes on', async () => {
    const caught = await withTransaction(async (client) => {
      await createNode(client, { parentId, name: 'before' });
      const refusal = await withSavepoint(client, async () => {
        await createNode(client, { parentId, name: 'undone' });
        await createTaken(client);
      }).catch((error: unknown) => error);
      await createNode(client, { parentId, name: 'after' });
      return refusal;
    });
    expect(caught).toMatchObject(ROLLED_BACK.cause);
    expect(await names()).toEqual(['after', 'before', 'taken']);
  });

  test('keeps work that succeeds, and returns its result', async () => {
    const work = (client: PoolClient) =>
      withSavepoint(client, () => createNode(client, { parentId, name: 'kept' }));
    expect(await withTransaction(work)).toMatchObject({ name: 'kept' });
    expect(await names()).toEqual(['kept', 'taken']);
  });

  test('also undoes the work after an error that is not of the database', async () => {
    await withTransaction(async (client) => {
      const work = withSavepoint(client, async () => {
        await createNode(client, { parentId, name: 'undone' });
        throw new Error('changed my mind');
      });
      await expect(work).rejects.toThrow('changed my mind');
    });
    expect(await names()).toEqual(['taken']);
  });

  test('works with the clients of old versions of pg, which do not tell the state of a transaction', async () => {
    const client = await database().connect();
    Object.assign(client, { getTransactionStatus: undefined });
    await client.query('begin');
    const work = withSavepoint(client, () => client.query('select 1 / 0'));
    await expect(work).rejects.toMatchObject({ code: '22012' });
    const caught = withSavepoint(client, () => client.query('select 1 / 0').catch(() => undefined));
    await expect(caught).rejects.toMatchObject({ code: 'TRANSACTION_ROLLED_BACK', cause: { code: '22012' } });
    await client.query('commit');
  });

  test('may be nested: the inner one undoes its own work only', async () => {
    await withTransaction((client) =>
      withSavepoint(client, async () => {
        await createNode(client, { parentId, name: 'outer' });
        await withSavepoint(client, () => createTaken(client)).catch(() => undefined);
        await createNode(client, { parentId, name: 'outer too' });
      }),
    );
    expect(await names()).toEqual(['outer', 'outer too', 'taken']);
  });

  test('may be nested deeply without more listeners on the connection', async () => {
    const nest = async (client: PoolClient, depth: number): Promise<number> =>
      depth === 0
        ? client.connection.listenerCount('readyForQuery')
        : withSavepoint(client, () => nest(client, depth - 1));
    const [before, flat, deep, after] = await withTransaction(async (client) => {
      const counts = [await nest(client, 0), await nest(client, 1), await nest(client, 12)];
      return [...counts, await nest(client, 0)];
    });
    expect([deep, after]).toEqual([flat, before]);
  });

  test('throws if its work caught a refusal, since that work is undone', async () => {
    const caught = await withTransaction(async (client) => {
      const work = withSavepoint(client, async () => {
        await createNode(client, { parentId, name: 'undone' });
        await createTaken(client).catch(() => undefined);
      });
      const error = await work.catch((cause: unknown) => cause);
      await createNode(client, { parentId, name: 'after' });
      return error;
    });
    expect(caught).toMatchObject(ROLLED_BACK);
    expect(await names()).toEqual(['after', 'taken']);
  });

  test('that ends while another one of the connection is at work is an error', async () => {
    const work = withTransaction(async (client) => {
      let isOpen = false;
      let hasEnded = false;
      const outer = withSavepoint(client, () => until(() => isOpen)).finally(() => {
        hasEnded = true;
      });
      const inner = withSavepoint(client, async () => {
        isOpen = true;
        await until(() => hasEnded);
      });
      await Promise.all([outer, inner]);
    });
    await expect(work).rejects.toMatchObject({ code: '3B001' });
  });
});

describe('with retries, withTransaction runs its callback again', () => {
  /** Two transactions that lock two rows in opposite order, so that the server ends one of them. */
  async function deadlock(retries: number, wrap: (error: unknown) => unknown = (error) => error) {
    const ids = [await createMount(database()), await createMount(database())].map(({ id }) => id);
    const touch = (client: PoolClient, id: string | undefined) =>
      client
        .query("update filestore.backend_mounts set contact = coalesce(contact, '') || 'x' where id = $1", [
          id,
        ])
        .catch((error: unknown) => {
          throw wrap(error);
        });
    let locked = 0;
    const run = (first: string | undefined, second: string | undefined) => {
      let runs = 0;
      return withTransaction(
        async (client) => {
          runs += 1;
          await touch(client, first);
          locked += 1;
          await until(() => locked >= 2);
          await touch(client, second);
          return runs;
        },
        { retries },
      );
    };
    const ended = await Promise.allSettled([run(ids[0], ids[1]), run(ids[1], ids[0])]);
    const contacts = await database().query(
      'select contact from filestore.backend_mounts where id = any ($1)',
      [ids],
    );
    return { ended, contacts: contacts.map(({ contact }) => contact) };
  }

  test('after a deadlock, and both transactions are committed once', async () => {
    const { ended, contacts } = await deadlock(3);
    expect(ended.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
    // Which one is ended, and how often, is up to the server: a repeated one can lock its first row before the other wakes up.
    const runs = ended.map((one) => (one.status === 'fulfilled' ? one.value : 0));
    expect(Math.max(...runs)).toBeGreaterThan(1);
    expect(contacts).toEqual(['xx', 'xx']);
  });

  test('also if the callback wraps the error of the server', async () => {
    const { ended } = await deadlock(3, (cause) => new Error('cannot touch the mount', { cause }));
    expect(ended.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
  });

  test('but not by default', async () => {
    const { ended, contacts } = await deadlock(0);
    expect(ended.flatMap((one) => (one.status === 'rejected' ? one.reason.code : []))).toEqual(['40P01']);
    expect(contacts).toEqual(['x', 'x']);
  });

  test.each([
    ['40001', 3],
    ['40P01', 3],
    ['FS409', 1],
    ['55P03', 1],
  ])('as often as allowed after %s: %i times', async (code, times) => {
    let runs = 0;
    const work = withTransaction(
      (client) => {
        runs += 1;
        return raise(client, code);
      },
      { retries: 2 },
    );
    await expect(work).rejects.toMatchObject({ code });
    expect(runs).toBe(times);
    expect(getPool().totalCount).toBe(1);
  });

  test('after a serialization failure that the callback caught', async () => {
    let runs = 0;
    const result = await withTransaction(
      async (client) => {
        runs += 1;
        if (runs === 1) await raise(client, '40001').catch(() => undefined);
        return runs;
      },
      { retries: 1 },
    );
    expect(result).toBe(2);
  });

  test.each<[string, (error: unknown) => unknown]>([
    ['as it is', (error) => error],
    ['as the cause of another one', (cause) => new Error('cannot look', { cause })],
  ])('after an error that a savepoint undid, and the callback threw on %s', async (_, wrap) => {
    let runs = 0;
    const result = await withTransaction(
      async (client) => {
        runs += 1;
        if (runs === 1) {
          await withSavepoint(client, () => raise(client, '40P01')).catch((error: unknown) => {
            throw wrap(error);
          });
        }
        return runs;
      },
      { retries: 1 },
    );
    expect(result).toBe(2);
  });

  test('but not after an error of the callback that follows one that a savepoint undid', async () => {
    let runs = 0;
    const work = withTransaction(
      async (client) => {
        runs += 1;
        await withSavepoint(client, () => raise(client, '40001')).catch(() => undefined);
        throw new Error('changed my mind');
      },
      { retries: 2 },
    );
    await expect(work).rejects.toThrow('changed my mind');
    expect(runs).toBe(1);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, -1, 1.5, '3', null])(
    'but refuses retries of %s',
    async (retries) => {
      const work = withTransaction(() => expect.fail('ran'), { retries: retries as number });
      await expect(work).rejects.toMatchObject({
        code: 'SETTINGS_INVALID',
        setting: 'retries',
        message: `retries of withTransaction is ${retries}, which is not a whole number from 0. Correct it, or leave it out for the default of 0.`,
      });
    },
  );
});
