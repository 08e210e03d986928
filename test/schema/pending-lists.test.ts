import { expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { one } from '../support/rows/nodes.ts';

const database = databaseForFile();

test('each GIN index limits its pending list itself, since any session can raise the limit of the server', async () => {
  const rows = await database().query<{ index: string; options: string[] | null }>(
    `select c.relname as index, c.reloptions as options
     from pg_class c join pg_am a on a.oid = c.relam
     where a.amname = 'gin' and c.relnamespace = 'filestore'::regnamespace`,
  );
  expect(rows.length).toBeGreaterThan(0);
  for (const { index, options } of rows) expect(options, index).toContain('gin_pending_list_limit=64');
});

test('a session that raises the limit leaves few pages for the next one that ends a command', async () => {
  const client = await database().connect();
  await client.query("set gin_pending_list_limit = '2000GB'");
  for (let number = 0; number < 5; number += 1) {
    const { id } = await one(client, "select (entry).id from filestore.begin_command('upload')");
    await client.query(
      `select filestore.finish_command($1, 'succeeded', affected_node_ids => array(
         select g from generate_series(1::bigint, 5000) g))`,
      [id],
    );
  }
  const { pages } = await one(
    database(),
    "select gin_clean_pending_list('filestore.journal_entries_nodes_idx')::int as pages",
  );
  expect(pages).toBeLessThan(20);
});
