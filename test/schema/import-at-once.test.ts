import { expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { one } from '../support/rows/nodes.ts';
import { importDatabaseForEachTest, key, stage } from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

/** Begins the import of a call in an open transaction, as the call itself does, and returns its number and connection. */
async function beginImport(tables: string) {
  const client = await database().connect();
  await client.query('begin');
  const { rows } = await client.query(
    `select filestore.begin_import('${key}', ${tables}, false, 10000) as id`,
  );
  return { client, id: rows[0].id as string };
}

test.each([
  ['nodes', "'old.nodes', null, null", { path: 'f', kind: 'file', deleted_at: '2025-01-01Z' }],
  ['entries', "null, null, 'old.entries'", { id: 7, command: 'c', status: 'canceled' }],
])(
  'of two imports of %s that begin at the same time, the later one goes on and the earlier one ends',
  async (table, tables, row) => {
    await stage(database(), table, [row]);
    const earlier = await beginImport(tables);
    const later = await sendAndBlock(
      await database().connect(),
      `call filestore.import_nodes('${key}', ${tables})`,
    );
    expect(later.waits).toBe(true);
    await earlier.client.query('commit');
    expect(await later.outcome).toMatchObject({ ok: true });
    await expect(
      earlier.client.query('select filestore.begin_import_batch($1, true)', [earlier.id]),
    ).rejects.toMatchObject({ code: 'FS409', constraint: 'import_superseded' });
    expect(
      await one(
        database(),
        `select (select count(*) from filestore.nodes where not live) + (select count(*) from filestore.journal_entries) as n`,
      ),
    ).toEqual({ n: '1' });
  },
);

test('imports of nodes and of entries into one mount begin beside each other', async () => {
  await stage(database(), 'nodes', [{ path: 'f', kind: 'file' }]);
  await stage(database(), 'entries', [{ id: 7, command: 'c', status: 'canceled' }]);
  const nodes = await beginImport("'old.nodes', null, null");
  const client = await database().connect();
  await client.query("set lock_timeout = '1s'");
  await client.query('begin');
  await client.query(`select filestore.begin_import('${key}', null, null, 'old.entries', false, 10000)`);
  await nodes.client.query('commit');
  await client.query('commit');
  expect(
    await database().query('select takes_nodes from filestore.imports where finished_at is null'),
  ).toHaveLength(2);
});

test('an id that is reserved at the same time as a lower one stays reserved', async () => {
  const [higher, lower] = [await database().connect(), await database().connect()];
  await higher.query("begin; select filestore.reserve_ids('nodes', 50000000)");
  const reserving = await sendAndBlock(lower, "select filestore.reserve_ids('nodes', 40000000)::int as next");
  expect(reserving.waits).toBe(true);
  await higher.query('commit');
  expect(await reserving.outcome).toMatchObject({ ok: true });
  const next = await one(database(), "select nextval('filestore.nodes_id_seq')::int as id");
  expect(next.id).toBeGreaterThan(50_000_000);
});
