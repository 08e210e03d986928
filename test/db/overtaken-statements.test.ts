import type { PoolClient } from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { closePool, getPool, withConnection, withTransaction } from '../../src/index.ts';
import { beginCommand, createNode } from '../../src/sql/index.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { createMount, one } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();
let parentId: string;
let mountKey: string;
const SELECT = { name: 'mounts', text: 'select * from filestore.backend_mounts' };
const UPDATE = {
  name: 'touch',
  text: "update filestore.backend_mounts set contact = coalesce(contact, '') || $1 returning *",
  values: ['x'],
};

beforeEach(async () => {
  vi.stubEnv('FILESTORE_DATABASE_URL', database().url);
  vi.stubEnv('FILESTORE_PGPOOL_MAX', '1');
  parentId = (await createMount(database())).rootId;
  mountKey = (await one(database(), 'select mount_key from filestore.backend_mounts')).mount_key;
  await createNode(getPool(), { parentId, name: 'present' });
});
afterEach(async () => {
  await closePool();
  vi.unstubAllEnvs();
});

const addColumn = (name = 'late_hint') =>
  database().query(`alter table filestore.backend_mounts add column ${name} text`);
const serverProcess = async (client: { query: PoolClient['query'] }) =>
  (await client.query('select pg_backend_pid() as pid')).rows[0].pid;

describe('after a migration has added a column, a named statement of the pool', () => {
  test('runs again without its name, once, and returns the new column', async () => {
    await withConnection(async (client) => {
      await client.query(UPDATE);
      await addColumn();
      const { rows } = await client.query(UPDATE);
      expect(rows).toMatchObject([{ contact: 'xx', late_hint: null }]);
      await addColumn('another');
      expect((await client.query(UPDATE)).rows).toMatchObject([{ contact: 'x'.repeat(3), another: null }]);
    });
  });

  test('works through the pool, with a promise and with a callback', async () => {
    await getPool().query(SELECT);
    await addColumn();
    expect((await getPool().query(SELECT)).rows).toMatchObject([{ late_hint: null }]);
    await getPool().query(SELECT);
    await addColumn('another');
    const rows = await new Promise((resolve, reject) => {
      getPool().query(SELECT, (error, result) => (error ? reject(error) : resolve(result.rows)));
    });
    expect(rows).toMatchObject([{ another: null }]);
  });

  test('passes other errors to a callback too', async () => {
    const failing = { name: 'failing', text: 'select 1 / 0' };
    const failed = new Promise((resolve) => {
      void withConnection(async (client) => client.query(failing, (error) => resolve(error)));
    });
    expect(await failed).toMatchObject({ code: '22012' });
  });

  test('fails inside a transaction, and the next transaction on the connection works', async () => {
    await withConnection(async (client) => {
      await client.query(SELECT);
      await addColumn();
      await client.query('begin');
      await expect(client.query(SELECT)).rejects.toMatchObject({ code: '0A000' });
      await client.query('rollback');
      await client.query('begin');
      expect((await client.query(SELECT)).rows).toMatchObject([{ late_hint: null }]);
      await client.query('commit');
    });
  });

  test('is repeated with its transaction, if that has retries', async () => {
    await getPool().query(UPDATE);
    await addColumn();
    const result = await withTransaction((client) => client.query(UPDATE), { retries: 1 });
    expect(result.rows).toMatchObject([{ contact: 'xx' }]);
  });

  test('makes the pool open a new session, which prepares it again', async () => {
    const before = await withConnection(async (client) => {
      await client.query(SELECT);
      return serverProcess(client);
    });
    await addColumn();
    await getPool().query(SELECT);
    await withConnection(async (client) => {
      expect(await serverProcess(client)).not.toBe(before);
      await client.query(SELECT);
      const prepared = await client.query('select name from pg_prepared_statements');
      expect(prepared.rows).toEqual([{ name: 'mounts' }]);
    });
  });
});

describe('while a migration adds a column, a statement that waits for it', () => {
  /** Runs work that waits until a new column of a table is committed. */
  async function overtake<T>(table: string, work: () => Promise<T>): Promise<T> {
    const migration = await database().connect();
    await migration.query(`begin; alter table filestore.${table} add column late_hint text`);
    const outcome = work();
    outcome.catch(() => undefined);
    await until(async () => {
      const waiting =
        'select from pg_locks where not granted and database = (select oid from pg_database where datname = $1)';
      return (await database().query(waiting, [database().name])).length > 0;
    });
    await migration.query('commit');
    return outcome;
  }

  // A new session first loads the table's columns, and waits for that too. So each session has worked before.
  test('as a typed call on any client returns the new column', async () => {
    const client = await database().connect();
    await createNode(client, { parentId, name: 'before' });
    const node = await overtake('nodes', () => createNode(client, { parentId, name: 'overtaken' }));
    expect(node).toMatchObject({ name: 'overtaken', late_hint: null });
  });

  test('as a typed call in a transaction returns the new column', async () => {
    const node = await overtake('nodes', () =>
      withTransaction((client) => createNode(client, { parentId, name: 'overtaken' })),
    );
    expect(node).toMatchObject({ name: 'overtaken', late_hint: null });
  });

  test('as a typed call for out parameters returns the new column', async () => {
    const client = await database().connect();
    await beginCommand(client, { command: 'look' });
    const begun = await overtake('journal_entries', () => beginCommand(client, { command: 'look' }));
    expect(begun).toMatchObject({ is_new: true, entry: { command: 'look', late_hint: null } });
  });

  test.each([
    ['create_node', "select * from filestore.create_node($1, 'overtaken')", () => [parentId]],
    ['node_by_path', 'select * from filestore.node_by_path($1, $2);', () => [mountKey, 'present']],
  ])('as plain SQL in the pool is repeated: %s', async (_, text, values) => {
    const { rows } = await overtake('nodes', () => getPool().query(text, values()));
    expect(rows).toMatchObject([{ late_hint: null }]);
  });

  test.each([1, 0])(
    'as plain SQL in a transaction is repeated with it, if that has retries: %i',
    async (retries) => {
      const text = "select * from filestore.create_node($1, 'overtaken')";
      const work = overtake('nodes', () =>
        withTransaction((client) => client.query(text, [parentId]), { retries }),
      );
      if (retries === 0) await expect(work).rejects.toMatchObject({ code: '42804' });
      else expect((await work).rows).toMatchObject([{ name: 'overtaken', late_hint: null }]);
    },
  );

  test('is not repeated if it is one of several in a text, of which another may be committed', async () => {
    const text = `update filestore.backend_mounts set contact = coalesce(contact, '') || 'x'; commit;
                  select * from filestore.create_node(${parentId}, 'overtaken')`;
    await expect(overtake('nodes', () => getPool().query(text))).rejects.toMatchObject({ code: '42804' });
    expect(await database().query('select contact from filestore.backend_mounts')).toEqual([
      { contact: 'x' },
    ]);
  });
});

test('a named statement of the pool is prepared once per session', async () => {
  await withConnection(async (client) => {
    for (let turn = 0; turn < 3; turn += 1) await client.query(SELECT);
    const prepared = await client.query(
      'select name, generic_plans + custom_plans as plans from pg_prepared_statements',
    );
    expect(prepared.rows).toEqual([{ name: 'mounts', plans: '3' }]);
  });
});
