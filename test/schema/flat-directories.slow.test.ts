import type { Client } from 'pg';
import { beforeAll, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { keepStatistics } from '../support/rows/large-tables.ts';
import { createMount, foldAll, one } from '../support/rows/nodes.ts';

const FILES = 20_000;

const database = databaseForFile();
let client: Client;
let rootId: string;

/** A catalogue of few directories, which are large: the planner expects a child of any directory on the first pages. */
beforeAll(async () => {
  client = await database().connect();
  ({ rootId } = await createMount(client));
  await keepStatistics(database());
  await client.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select backend_mount_id, id, unnest(array['a', 'b', 'c', 'empty']), 'directory' from filestore.nodes`,
  );
  await client.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select d.backend_mount_id, d.id, 'f' || g, 'file'
     from filestore.nodes d, generate_series(1, $1) g where d.name in ('a', 'b', 'c')`,
    [FILES],
  );
  await foldAll(client);
  await client.query('vacuum analyze filestore.nodes');
  await client.query('set plan_cache_mode = force_generic_plan');
});

const idOf = async (name: string) =>
  (await one(client, 'select id from filestore.nodes where parent_id = $1 and name = $2', [rootId, name])).id;

/** How many rows of nodes a statement reads. It is undone. */
async function rowsReadBy(statement: string, values: readonly unknown[]): Promise<number> {
  // Otherwise the counters also have what the statements before this one read.
  await client.query('select pg_stat_force_next_flush()');
  await client.query('begin');
  await client.query(statement, [...values]);
  const { read } = await one(
    client,
    `select (seq_tup_read + idx_tup_fetch)::integer as read
     from pg_stat_xact_user_tables where relid = 'filestore.nodes'::regclass`,
  );
  await client.query('rollback');
  return read;
}

test('deleting an empty directory looks its children up', async () => {
  expect(await rowsReadBy('select filestore.delete_node($1)', [await idOf('empty')])).toBeLessThan(100);
});

test('deleting a batch reads the nodes of its tree, and none after it', async () => {
  expect(await rowsReadBy('select filestore.delete_batch($1, 100)', [await idOf('a')])).toBeLessThan(2_000);
});

test('deleting an empty mount reads none of the other mounts', async () => {
  const { id } = await createMount(client);
  expect(await rowsReadBy('delete from filestore.backend_mounts where id = $1', [id])).toBeLessThan(100);
});

test.each(['that the statistics do not know', 'that the statistics know'])(
  'purging a batch looks for the children of each of many tombstones %s',
  async (which) => {
    const directory = which.endsWith('not know') ? 'b' : 'c';
    await client.query('select filestore.delete_node($1, recursive => true)', [await idOf(directory)]);
    await foldAll(client);
    if (directory === 'c') await client.query('vacuum analyze filestore.nodes');
    // All tombstones are read at most once, to find the oldest.
    expect(await rowsReadBy("select filestore.purge_deleted('0', 100)", [])).toBeLessThan(4 * FILES);
  },
);
