import { beforeEach, expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { rolesForEachTest } from '../support/roles/roles.ts';
import { createImportMount, stage } from '../support/rows/staged.ts';

const database = databaseForEachTest();
const createRole = rolesForEachTest(database);
let key: string;

beforeEach(async () => {
  key = await createImportMount(database());
  await stage(database(), 'nodes', [{ path: 'f', kind: 'file' }]);
});

test('an import in a transaction block fails before it plans', async () => {
  const owner = await database().connect();
  await owner.query('begin');
  await owner.query('select');
  await expect(
    owner.query(`call filestore.import_nodes('${key}', 'old.nodes', batch => 0)`),
  ).rejects.toMatchObject({ code: '2D000' });
});

test('a temporary table with a name of the import is refused, and keeps its rows', async () => {
  const owner = await database().connect();
  await owner.query(
    "create temporary table filestore_import_raw as select 'f'::text as path, 'file'::text as kind",
  );
  for (const call of [
    `select * from filestore.check_import('${key}', 'filestore_import_raw')`,
    `call filestore.import_nodes('${key}', 'filestore_import_raw')`,
  ]) {
    await expect(owner.query(call)).rejects.toMatchObject({
      code: 'FS422',
      constraint: 'import_columns_check',
      hint: expect.stringContaining('Rename'),
    });
  }
  expect((await owner.query('select path from filestore_import_raw')).rows).toEqual([{ path: 'f' }]);
});

test('an import without the right to create temporary tables is refused with the statement that grants it', async () => {
  const role = await createRole();
  await database().query(`
    grant usage on schema filestore, old to "${role.name}";
    grant select on all tables in schema filestore, old to "${role.name}";
    grant execute on all functions in schema filestore to "${role.name}";
    do $$ begin execute format('revoke temporary on database %I from public', current_database()); end $$;
  `);
  const stranger = await role.connect();
  await expect(
    stranger.query(`select * from filestore.check_import('${key}', 'old.nodes')`),
  ).rejects.toMatchObject({
    code: 'FS409',
    constraint: 'import_rights_check',
    hint: expect.stringContaining('grant temporary on database'),
  });
});

test.each([['nope'], [null]])('ids of table %j are not reserved', async (table) => {
  await expect(database().query('select filestore.reserve_ids($1, 5)', [table])).rejects.toMatchObject({
    code: 'FS422',
    constraint: 'import_id_check',
    hint: expect.stringContaining('journal_entries'),
  });
});

test('lists and counts take states of several dimensions', async () => {
  const states = "states => '{{active,missing},{deleted,null}}'";
  await database().query(`call filestore.import_nodes('${key}', 'old.nodes')`);
  expect(await database().query(`select (node).path from filestore.list_nodes('${key}', ${states})`)).toEqual(
    [{ path: 'f' }],
  );
  expect(await database().query(`select nodes::int from filestore.count_nodes('${key}', ${states})`)).toEqual(
    [{ nodes: 1 }],
  );
});
