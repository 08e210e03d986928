import type { PoolClient } from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { closePool, getPool, withTransaction } from '../../src/index.ts';
import { createNode } from '../../src/sql/index.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createMount, type Mount } from '../support/rows/nodes.ts';

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
    expect(await names()).toEqual(['second', 'taken']);
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
    expect(await names()).toEqual(['taken']);
  });
});
