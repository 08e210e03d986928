import type { Client } from 'pg';
import { beforeEach, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';

const database = databaseEmptiedAfterEachTest();
const MOUNTS = 230;
let client: Client;

/** Each mount has one file, and pending deltas. */
beforeEach(async () => {
  await database().query(
    `insert into filestore.backend_mounts (mount_key, backend_kind, bucket)
     select 'many-' || g, 's3', 'many-' || g from generate_series(1, ${MOUNTS}) g`,
  );
  await database().query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select backend_mount_id, id, 'f', 'file' from filestore.nodes where parent_id is null`,
  );
  client = await database().connect();
});

/** Makes a call in a transaction, and returns its result and the number of tree locks that it took. */
async function call(text: string, result = 'done'): Promise<readonly [done: number, locks: number]> {
  await client.query('begin');
  const { rows } = await client.query(`select ${result} as done from filestore.${text} done`);
  const locks = await countLocks();
  await client.query('commit');
  return [rows[0].done, locks];
}

async function countLocks(): Promise<number> {
  const { rows } = await client.query(
    "select count(*)::integer as n from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
  );
  return rows[0].n;
}

/** The first nodes that a condition finds, one for each mount. */
const nodesOf = (mounts: number, condition: string) =>
  `(select n.* from filestore.nodes n where ${condition} order by n.id limit ${mounts}) n`;
const createIn = (mounts: number) =>
  `select * from filestore.create_nodes((
     select jsonb_agg(jsonb_build_object('parent_id', n.id, 'name', 'new')) from ${nodesOf(mounts, 'n.parent_id is null')}))`;
const see = (mounts: number) =>
  `select filestore.record_sightings(array(select n.id from ${nodesOf(mounts, "n.path = 'f'")})) as seen`;

test('a fold takes the locks of at most 100 mounts, and the next one folds the next mounts', async () => {
  const calls = [1, 2, 3, 4].map(() => 'fold_rollups(10000)');
  const results = [];
  for (const text of calls) results.push(await call(text));
  expect(results).toEqual([
    [100, 100],
    [100, 100],
    [30, 30],
    [0, 0],
  ]);
});

test('a fold takes the oldest deltas first, and the locks of no mounts that have later ones only', async () => {
  const oldest = 'select id, backend_mount_id as mount from filestore.rollup_deltas order by id limit 1';
  const [{ id, mount } = {}] = await database().query<{ id: string; mount: string }>(oldest);
  expect(await call('fold_rollups(1)')).toEqual([1, 1]);
  expect(await database().query('select from filestore.rollup_deltas where id = $1', [id])).toEqual([]);
  // Each mount but this one has older deltas than the second, but not than the first of these.
  await database().query(
    `insert into filestore.rollup_deltas (id, backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
     overriding system value
     select given.id, n.backend_mount_id, n.id, given.size, 0, 0, 0
     from filestore.nodes n, (values ($1::bigint, 1), (9000000000000, -1)) given (id, size)
     where n.root_of_mount_id = $2`,
    [id, mount],
  );
  expect((await call('fold_rollups(10000)'))[1]).toBe(100);
  expect(
    await database().query('select from filestore.rollup_deltas where backend_mount_id = $1', [mount]),
  ).toEqual([]);
});

test('a purge takes the locks of at most 100 mounts, and the next one purges the next mounts', async () => {
  await database().query("update filestore.nodes set state = 'deleted' where kind = 'file'");
  const results = [];
  for (let i = 0; i < 4; i += 1) results.push(await call("purge_deleted('0', 10000)"));
  expect(results).toEqual([
    [100, 100],
    [100, 100],
    [30, 30],
    [0, 0],
  ]);
});

test('expire_commands takes the locks of at most 100 mounts, and the next call expires the commands of the next mounts', async () => {
  await database().query(
    "select filestore.begin_command('scan', mount_id => m.id) from filestore.backend_mounts m",
  );
  await database().query("select filestore.begin_command('report')");
  await database().query('call filestore.prepare_moves(true)');
  const results = [];
  for (let i = 0; i < 4; i += 1) results.push(await call("expire_commands('0', 10000)", 'count(*)::integer'));
  await database().query('call filestore.prepare_moves(false)');
  expect(results).toEqual([
    [101, 100],
    [100, 100],
    [30, 30],
    [0, 0],
  ]);
});

test('a purge passes mounts in which only directories with pending deltas are deleted', async () => {
  await database().query(
    `with made as (
       insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
       select backend_mount_id, id, 'd', 'directory' from filestore.nodes where parent_id is null order by id limit 150
       returning id
     )
     select count(*) from made`,
  );
  while ((await call('fold_rollups(10000)'))[0] > 0);
  // A directory that got a file and lost it again: its deltas are pending when it is deleted.
  await database().query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select backend_mount_id, id, 'f', 'file' from filestore.nodes where name = 'd'`,
  );
  await database().query("update filestore.nodes set state = 'deleted' where kind = 'file' and path = 'd/f'");
  await database().query("update filestore.nodes set state = 'deleted' where name = 'd'");
  while ((await call("purge_deleted('0', 10000)"))[0] > 0);
  await database().query(
    `update filestore.nodes set state = 'deleted'
     where path = 'f' and backend_mount_id = (select max(id) from filestore.backend_mounts)`,
  );
  expect(await call("purge_deleted('0', 10000)")).toEqual([1, 1]);
});

const REFUSAL = {
  code: 'FS422',
  constraint: 'mount_ids_check',
  message: 'the call concerns 101 mounts, which are too many',
  hint: expect.stringContaining('at most 100 mounts in one call'),
};

test('one call creates nodes on 100 mounts, and is refused for more', async () => {
  await client.query('begin');
  expect((await client.query(createIn(100))).rowCount).toBe(100);
  expect(await countLocks()).toBe(100);
  await client.query('rollback');
  await expect(client.query(createIn(101))).rejects.toMatchObject(REFUSAL);
});

test('one call records first sightings on 100 mounts, is refused for more, and records later ones on all mounts', async () => {
  await expect(client.query(see(101))).rejects.toMatchObject(REFUSAL);
  await client.query('begin');
  expect((await client.query(see(100))).rows).toEqual([{ seen: 100 }]);
  expect(await countLocks()).toBe(100);
  await client.query('commit');
  expect((await client.query(see(200))).rows).toEqual([{ seen: 200 }]);
  expect((await client.query(see(200))).rows).toEqual([{ seen: 200 }]);
});

async function startBackfill(): Promise<string> {
  const [job] = await database().query<{ id: string }>(
    "insert into filestore.backfills (table_name, column_name, expression) values ('nodes', 'storage_class', 'name') returning id",
  );
  return `fill_batch(${job?.id}, 'id', 10000, 9223372036854775807)`;
}

async function expectFilled(rows: number): Promise<void> {
  expect(await database().query('select filled::integer, finished_at from filestore.backfills')).toEqual([
    { filled: rows, finished_at: expect.any(Date) },
  ]);
  expect(
    await database().query('select from filestore.nodes where live and storage_class is distinct from name'),
  ).toEqual([]);
}

test('a batch of a backfill ends before the nodes of a 101st mount, and the next one goes on there', async () => {
  const fill = await startBackfill();
  // 230 roots come first, and then 230 files.
  expect([await call(fill), await call(fill)]).toEqual([
    [true, 100],
    [true, 100],
  ]);
  while ((await call(fill))[0]);
  await expectFilled(2 * MOUNTS);
});

test('a batch of a backfill whose nodes are removed while it waits for a lock is not the last one', async () => {
  const fill = await startBackfill();
  await database().query(
    'update filestore.backfills set last_key = (select max(id) from filestore.nodes where parent_id is null)',
  );
  const files = `select id from ${nodesOf(100, "n.path = 'f'")}`;
  await database().query(`update filestore.nodes set state = 'deleted' where id in (${files})`);
  const purger = await database().connect();
  await purger.query('begin');
  await purger.query('select filestore.lock_tree(min(id), true) from filestore.backend_mounts');
  const filling = await sendAndBlock(client, `select filestore.${fill} as is_unfinished`);
  expect(filling.waits).toBe(true);
  await purger.query(`delete from filestore.nodes where id in (${files})`);
  await purger.query('commit');
  expect(await filling.outcome).toMatchObject({ ok: true, result: { rows: [{ is_unfinished: true }] } });
  while ((await call(fill))[0]);
  await database().query("update filestore.nodes set storage_class = '' where parent_id is null");
  await expectFilled(MOUNTS - 100);
});
