import { beforeEach, describe, expect, test } from 'vitest';
import type { TestDatabase } from '../support/databases/test-database.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { createImportMount, importDatabaseForEachTest, key, stage } from '../support/rows/staged.ts';

interface Refusal extends Error {
  readonly code: string;
  readonly constraint: string;
  readonly hint: string;
}

/** How the dry run refuses empty tables with these columns, or undefined when it takes them. */
async function refusalOf(database: TestDatabase, tables: Readonly<Record<string, string>>) {
  await database.query('drop schema if exists old cascade; create schema old');
  for (const [table, columns] of Object.entries(tables)) {
    await database.query(`create table old.${table} (${columns})`);
  }
  const names = ['nodes', 'versions', 'entries'].map((table) =>
    table in tables ? `'old.${table}'` : 'null',
  );
  return database.query(`select * from filestore.check_import('${key}', ${names.join(', ')})`).then(
    () => undefined,
    (error: Refusal) => error,
  );
}

describe('a staging table', () => {
  const database = importDatabaseForEachTest();
  const refusal = (tables: Readonly<Record<string, string>>) => refusalOf(database(), tables);
  const NODES = 'path text, kind text';

  test.each([
    ['path', { nodes: 'kind text' }],
    ['kind', { nodes: 'path text' }],
    ['id', { nodes: 'parent_id bigint, name text, kind text' }],
    ['name', { nodes: 'id bigint, parent_id bigint, kind text' }],
    ['kind', { nodes: 'id bigint, parent_id bigint, name text' }],
    ['id', { nodes: NODES, versions: 'version integer, updated_at timestamptz' }],
    ['version', { nodes: NODES, versions: 'id bigint, updated_at timestamptz' }],
    ['updated_at', { nodes: NODES, versions: 'id bigint, version integer' }],
    ['id', { entries: 'command text, status text' }],
    ['command', { entries: 'id bigint, status text' }],
    ['status', { entries: 'id bigint, command text' }],
  ])('needs the column %s', async (column, tables) => {
    const table = Object.keys(tables).at(-1);
    expect(await refusal(tables)).toMatchObject({
      code: 'FS422',
      constraint: 'import_columns_check',
      message: `table old.${table} has no column "${column}"`,
    });
  });

  test('is refused by the first of its columns that is unknown, and the hint lists those that are not', async () => {
    const error = await refusal({ nodes: `path text, kind text, zeta text, alpha text` });
    expect(error).toMatchObject({
      constraint: 'import_columns_check',
      message: 'table old.nodes has column "zeta", which is no column to import',
    });
    const derived =
      'backend_mount_id depth live parent_path parent_live directory_path root_of_mount_id'.split(' ');
    const columns = await database().query<{ name: string }>(
      `select attname as name from pg_attribute where attrelid = 'filestore.nodes'::regclass
       and attnum > 0 and not attisdropped and attname <> all ($1) order by attnum`,
      [derived],
    );
    expect(error?.hint).toBe(
      `Leave it out, by a view. Columns are: ${columns.map(({ name }) => name).join(', ')}.`,
    );
    for (const name of derived) {
      expect((await refusal({ nodes: `path text, kind text, ${name} text` }))?.message).toContain(
        `"${name}"`,
      );
    }
  });

  test('has each type that becomes that of the column without a loss', async () => {
    const integers = ['smallint', 'integer', 'bigint'];
    const others = ['numeric', 'boolean', 'json', 'jsonb', 'timestamptz', 'timestamp', 'text'];
    const takes: Readonly<Record<string, readonly string[]>> = {
      size_bytes: integers,
      version: ['smallint', 'integer'],
      metadata: ['jsonb'],
      updated_at: ['timestamptz'],
      storage_class: [...integers, ...others],
      state: [...integers, ...others],
    };
    const taken: Record<string, string[]> = {};
    for (const column of Object.keys(takes)) {
      taken[column] = [];
      for (const type of [...integers, ...others]) {
        const error = await refusal({ nodes: `${NODES}, ${column} ${type}` });
        if (error === undefined) taken[column].push(type);
        else expect(error).toMatchObject({ constraint: 'import_columns_check' });
      }
    }
    expect(taken).toEqual(takes);
  });

  test.each([
    ['updated_at date', 'of type date instead of', `updated_at at time zone 'UTC' as updated_at`],
    [
      'created_at timestamp',
      'of type timestamp without time zone',
      `created_at at time zone 'UTC' as created_at`,
    ],
    ['size_bytes numeric', 'of type numeric instead of bigint', 'Convert it in a view'],
    ['version bigint', 'of type bigint instead of integer', 'Convert it in a view'],
  ])('with %s is refused with the way to convert it', async (column, complaint, remedy) => {
    expect(await refusal({ nodes: `${NODES}, ${column}` })).toMatchObject({
      message: expect.stringContaining(complaint),
      hint: expect.stringContaining(remedy),
    });
  });

  test('is a view of any collation, without system columns', async () => {
    await database().query(
      `create schema old; create table old.files (path text collate "POSIX", kind text collate "POSIX")`,
    );
    await database().query("insert into old.files values ('d', 'directory'), ('d/f', 'file')");
    await database().query('create view old.nodes as select f.*, f.ctid from old.files f');
    await expect(
      database().query(`select * from filestore.check_import('${key}', 'old.nodes')`),
    ).rejects.toMatchObject({
      message: 'table old.nodes has column "ctid", which is no column to import',
    });
    for (let call = 1; call <= 2; call += 1) {
      await database().query(`call filestore.import_nodes('${key}', 'old.files')`);
      expect(
        await database().query(
          'select path, version from filestore.nodes where parent_id is not null order by path',
        ),
      ).toEqual([
        { path: 'd', version: 1 },
        { path: 'd/f', version: 1 },
      ]);
    }
  });

  test('may have dropped columns, unless they are required', async () => {
    await database().query(
      "create schema old; create table old.nodes (path text, kind text, sise numeric); insert into old.nodes values ('f', 'file', 1); alter table old.nodes drop column sise",
    );
    const check = () => database().query(`select * from filestore.check_import('${key}', 'old.nodes')`);
    expect(await check()).toEqual([]);
    await database().query('alter table old.nodes drop column kind');
    await expect(check()).rejects.toMatchObject({ message: 'table old.nodes has no column "kind"' });
    await database().query(
      'drop table old.nodes; create table old.nodes (path text, kind text, parent_id bigint)',
    );
    await database().query('alter table old.nodes drop column parent_id');
    expect(await check()).toEqual([]);
  });
});

describe('in a database whose tables had other columns before', () => {
  const database = databaseForEachTest();

  beforeEach(async () => {
    for (const table of ['nodes', 'snapshots', 'journal_entries']) {
      await database().query(`alter table filestore.${table} add column gone integer`);
      await database().query(`alter table filestore.${table} drop column gone`);
    }
    await createImportMount(database(), key);
  });

  test('an import takes nodes, their changes, versions and entries', async () => {
    const at = (month: number) => `2025-0${month}-01T00:00:00Z`;
    const file = { id: 10, parent_id: null, name: 'f', kind: 'file', created_at: at(1) };
    await stage(database(), 'nodes', [{ ...file, version: 2, size_bytes: 2, updated_at: at(2) }]);
    await stage(database(), 'versions', [{ id: 10, version: 1, size_bytes: 1, updated_at: at(1) }]);
    await stage(database(), 'entries', [
      { id: 7, command: 'c', status: 'canceled', created_at: at(1), principal: 'ada' },
      { id: 8, command: '', status: 'canceled', created_at: at(1), principal: 'ada' },
    ]);
    const call = `call filestore.import_nodes('${key}', 'old.nodes', 'old.versions', 'old.entries', take_rest => true)`;
    await database().query(call);
    await stage(database(), 'nodes', [
      { ...file, version: 3, size_bytes: 3, updated_at: at(3) },
      { ...file, id: 11, version: 1, name: 'x/y', updated_at: at(3) },
    ]);
    await database().query(call);
    expect(
      await database().query(
        `select version, size_bytes::int from filestore.view_filestore_node_versions where id = 10 order by version`,
      ),
    ).toEqual([1, 2, 3].map((number) => ({ version: number, size_bytes: number })));
    expect(
      await database().query(
        "select id::int, principal from filestore.journal_entries where command in ('c', '')",
      ),
    ).toEqual([{ id: 7, principal: 'ada' }]);
    expect(await database().query('select id from filestore.nodes where id = 11')).toEqual([]);
    const error = await refusalOf(database(), { nodes: 'path text, kind text, gone integer' });
    expect(error).toMatchObject({ constraint: 'import_columns_check' });
    expect(error?.hint).not.toContain('dropped');
  });
});
