import type { Client } from 'pg';
import { beforeEach, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest } from '../support/test-database.ts';

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
async function call(text: string): Promise<readonly [done: number, locks: number]> {
  await client.query('begin');
  const { rows } = await client.query(`select filestore.${text} as done`);
  const locks = await client.query(
    "select count(*)::integer as n from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
  );
  await client.query('commit');
  return [rows[0].done, locks.rows[0].n];
}

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
