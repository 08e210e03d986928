import { describe, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createMount, createNode } from '../support/rows/nodes.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseEmptiedAfterEachTest();

/** Eight bytes as it is stored, and 131,072 as text. */
const LONG_NUMBER = '1e131071';
const VALUES = [
  [`[${LONG_NUMBER}, 1]`, 'a value of type array'],
  [`{"a": ${LONG_NUMBER}}`, 'a value of type object'],
  [LONG_NUMBER, 'a number of more than 30 digits'],
  ['-1e30', 'a number of more than 30 digits'],
  ['1e-16383', 'a number of more than 30 digits'],
  ['0e-16383', 'a number of more than 30 digits'],
] as const;

/** Columns that a JSON argument gives, other than those of type jsonb. */
async function columnsOf(table: string, privilege: string): Promise<readonly string[]> {
  const rows = await database().query<{ name: string }>(
    `select r.column_name as name
     from filestore.access_rights('service') r
     join pg_attribute a on a.attrelid = '${table}'::regclass and a.attname = r.column_name
     where r.object = $1 and r.privilege = $2 and a.atttypid <> 'jsonb'::regtype`,
    [table, privilege],
  );
  return rows.map(({ name }) => name);
}

describe.each(VALUES)('a column that is given as %s', (value, what) => {
  test('is refused by name in create_nodes and update_nodes', async () => {
    const mount = await createMount(database());
    const file = await createNode(database(), mount, mount.rootId, 'f');
    const [content] = await database().query<{ columns: string[] }>(
      'select filestore.content_columns() as columns',
    );
    const columns = (content?.columns ?? []).filter((column) => column !== 'metadata');
    expect(columns).toContain('link_target');
    for (const column of ['parent_id', 'name', 'kind', 'state', ...columns]) {
      const node = `{"parent_id": ${mount.rootId}, "name": "g", "metadata": {"a": [1]}, "${column}": ${value}}`;
      await expect(
        database().query('select filestore.create_nodes($1)', [`[{"name": "h"}, ${node}]`]),
      ).rejects.toMatchObject({
        code: 'FS422',
        constraint: 'nodes_batch_check',
        message: `element 2 has the field "${column}" with ${what}`,
      });
    }
    for (const column of ['id', 'expected_version', 'state', ...columns])
      await expect(
        database().query('select filestore.update_nodes($1)', [`[{"id": ${file}, "${column}": ${value}}]`]),
      ).rejects.toMatchObject({
        code: 'FS422',
        constraint: 'nodes_batch_check',
        message: `element 1 has the field "${column}" with ${what}`,
      });
  });

  test('is refused by name in create_mount and update_mount', async () => {
    const key = await keyOf(database(), (await createMount(database())).id);
    const refusal = (column: string) => ({
      code: 'FS422',
      constraint: 'backend_mounts_settings_check',
      message: `the settings have the field "${column}" with ${what}`,
    });
    const settings = (column: string) => `{"labels": {"a": [1]}, "${column}": ${value}}`;
    for (const column of await columnsOf('filestore.backend_mounts', 'INSERT'))
      await expect(
        database().query('select filestore.create_mount($1)', [settings(column)]),
      ).rejects.toMatchObject(refusal(column));
    for (const column of await columnsOf('filestore.backend_mounts', 'UPDATE'))
      await expect(
        database().query('select filestore.update_mount($1, $2)', [key, settings(column)]),
      ).rejects.toMatchObject(refusal(column));
  });
});

test('numbers and strings of columns are taken as before', async () => {
  const mount = await createMount(database());
  const nodes = JSON.stringify([
    { parent_id: mount.rootId, name: 'a', size_bytes: 0, storage_class: 5, checksum: null },
    { parent_id: mount.rootId, name: 'b', size_bytes: '9007199254740993', metadata: { a: [{ b: 1e29 }] } },
  ]);
  const rows = await database().query(
    'select name, size_bytes, storage_class, metadata from filestore.create_nodes($1)',
    [nodes],
  );
  expect(rows).toEqual([
    { name: 'a', size_bytes: '0', storage_class: '5', metadata: {} },
    { name: 'b', size_bytes: '9007199254740993', storage_class: null, metadata: { a: [{ b: 1e29 }] } },
  ]);
});
