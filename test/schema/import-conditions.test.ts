import { describe, expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import { beginScan } from '../support/rows/scans.ts';
import {
  createImportMount,
  type Fault,
  importDatabaseForEachTest,
  key,
  type Row,
  stage,
} from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const MOMENT = '2025-01-01T00:00:00Z';
const LATER = '2025-05-01T00:00:00Z';
const FILE = { path: 'f', kind: 'file' };
const TABLES = "'old.nodes', 'old.versions', 'old.entries'";

const check = (tables = "'old.nodes'") =>
  database().query<Fault & Row>(`select * from filestore.check_import('${key}', ${tables})`);
const importAll = (tables = "'old.nodes'", options = '') =>
  database().query(`call filestore.import_nodes('${key}', ${tables}${options})`);
const lastImport = () =>
  one(
    database(),
    'select nodes::int, versions::int, refused::int from filestore.imports order by id desc limit 1',
  );

describe('an import is refused', () => {
  test.each([
    ['moves', 'held_by = 0', 'backend_mounts_moving'],
    ['is erased', 'erasing_since = now()', 'backend_mounts_erasing'],
  ])('while its mount %s, and not while another one does', async (_, change, constraint) => {
    await createImportMount(database(), 'other');
    await stage(database(), 'nodes', [FILE]);
    const set = `update filestore.backend_mounts set ${change} where mount_key = $1`;
    await database().query(set, ['other']);
    expect(await check()).toEqual([]);
    await database().query(set, [key]);
    await expect(check()).rejects.toMatchObject({ code: 'FS409', constraint });
    await expect(importAll()).rejects.toMatchObject({ code: 'FS409', constraint });
  });

  test('while its mount is scanned, and not while another one is, or when the scan has ended', async () => {
    await createImportMount(database(), 'other');
    await stage(database(), 'nodes', [FILE]);
    await beginScan(database(), 'other');
    expect(await check()).toEqual([]);
    const { id } = await beginScan(database(), key);
    await expect(check()).rejects.toMatchObject({ code: 'FS409', constraint: 'scans_running' });
    await database().query('select filestore.cancel_scan($1)', [id]);
    expect(await check()).toEqual([]);
  });

  test.each([
    [
      'a mount that does not exist',
      "call filestore.import_nodes('nope', 'old.nodes')",
      'backend_mounts_missing',
    ],
    ['no rows in a batch', `call filestore.import_nodes('${key}', 'old.nodes', batch => 0)`, 'limit_check'],
    ['null as batch', `call filestore.import_nodes('${key}', 'old.nodes', batch => null)`, 'limit_check'],
  ])('with %s', async (_, call, constraint) => {
    await stage(database(), 'nodes', [FILE]);
    await expect(database().query(call)).rejects.toMatchObject({ constraint });
    expect(await database().query('select from filestore.imports')).toEqual([]);
  });

  test('at another isolation level than READ COMMITTED', async () => {
    await stage(database(), 'nodes', [FILE]);
    const owner = await database().connect();
    await owner.query("set default_transaction_isolation = 'repeatable read'");
    await expect(owner.query(`call filestore.import_nodes('${key}', 'old.nodes')`)).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'read_committed_check',
    });
  });

  test.each(['', ', take_rest => null', ', take_rest => false'])(
    'with the number of rows that cannot be imported and the first one (%s)',
    async (options) => {
      await stage(database(), 'nodes', [
        { ...FILE, id: 10 },
        { ...FILE, id: 11, path: 'missing/f' },
        { ...FILE, id: 12, path: 'missing/g' },
      ]);
      await stage(database(), 'versions', [{ id: 99, version: 1, updated_at: MOMENT }]);
      await stage(database(), 'entries', [
        { id: 1, command: 'c', status: 'canceled' },
        { id: 2, command: '', status: 'canceled' },
      ]);
      await expect(importAll(TABLES, options)).rejects.toMatchObject({
        code: 'FS409',
        constraint: 'import_refused',
        message:
          '4 of 6 rows cannot be imported, such as 99 in versions: its node is not staged, or is refused',
        hint: expect.stringContaining('filestore.check_import'),
      });
      expect(await database().query('select from filestore.imports')).toEqual([]);
      await importAll(TABLES, ', take_rest => true');
      expect(await lastImport()).toEqual({ nodes: 1, versions: 0, refused: 4 });
    },
  );
});

describe('an import', () => {
  test('takes temporary tables, and tables of other schemas with the names that imports use', async () => {
    const owner = await database().connect();
    await owner.query(
      "create temporary table filestore_import_mine as select 'f'::text as path, 'file'::text as kind",
    );
    await owner.query(`call filestore.import_nodes('${key}', 'filestore_import_mine')`);
    await stage(database(), 'filestore_import_nodes', [{ ...FILE, path: 'g' }]);
    await owner.query(`call filestore.import_nodes('${key}', 'old.filestore_import_nodes')`);
    expect(
      await database().query('select path from filestore.nodes where parent_id is not null order by id'),
    ).toEqual([{ path: 'f' }, { path: 'g' }]);
  });

  test('follows one that failed in the same session', async () => {
    await stage(database(), 'nodes', [FILE]);
    await stage(database(), 'versions', [{ id: 1 }]);
    const owner = await database().connect();
    await expect(
      owner.query(`call filestore.import_nodes('${key}', 'old.nodes', 'old.versions')`),
    ).rejects.toMatchObject({ constraint: 'import_columns_check' });
    await owner.query(`call filestore.import_nodes('${key}', 'old.nodes')`);
    expect(await lastImport()).toMatchObject({ nodes: 1 });
    expect((await owner.query(`select * from filestore.check_import('${key}', 'old.nodes')`)).rows).toEqual(
      [],
    );
  });

  test('ends no import of another mount or of the other kind, and none that has ended', async () => {
    await createImportMount(database(), 'other');
    await stage(database(), 'nodes', [FILE]);
    await stage(database(), 'entries', [{ id: 1, command: 'c', status: 'canceled' }]);
    for (const call of [
      `begin_import('other', 'old.nodes', null, null, false, 5)`,
      `begin_import('${key}', null, null, 'old.entries', false, 5)`,
    ]) {
      await database().query(`select filestore.${call}`);
    }
    await importAll();
    const ended = () =>
      database().query(
        'select id, finished_at from filestore.imports where finished_at is not null order by id',
      );
    const before = await ended();
    expect(before).toHaveLength(1);
    await importAll();
    expect(await ended()).toEqual([...before, expect.anything()]);
    expect(await database().query('select from filestore.imports where finished_at is null')).toHaveLength(2);
  });

  test('reserves ids of the rows that it takes, and not of those that it refuses', async () => {
    const last = async (table: string) =>
      Number((await one(database(), `select nextval('filestore.${table}_id_seq') as last`)).last);
    const [node, entry] = [await last('nodes'), await last('journal_entries')];
    await stage(database(), 'nodes', [
      { ...FILE, id: node + 1000 },
      { ...FILE, id: 10, path: 'g' },
      { ...FILE, id: node + 400_000, path: 'missing/f' },
    ]);
    const canceled = { command: 'c', status: 'canceled' };
    await stage(database(), 'entries', [
      { ...canceled, id: entry + 1000 },
      { ...canceled, id: entry + 10 },
      { ...canceled, id: entry + 400_000, command: '' },
    ]);
    await importAll("'old.nodes', null, 'old.entries'", ', take_rest => true');
    for (const [table, first] of [
      ['nodes', node],
      ['journal_entries', entry],
    ] as const) {
      const next = (await last(table)) - first;
      expect(next).toBeGreaterThan(1000);
      expect(next).toBeLessThan(400_000);
    }
  });
});

test('a moment of a node that is left out is another one of the same row', async () => {
  const none = { ...FILE, created_at: null, updated_at: null, deleted_at: null };
  const rows = [
    { ...none, path: 'a', created_at: MOMENT },
    { ...none, path: 'b', updated_at: MOMENT },
    { ...none, path: 'c', deleted_at: MOMENT },
    { ...none, path: 'd', created_at: MOMENT, deleted_at: LATER },
    { ...none, path: 'e', created_at: MOMENT, updated_at: LATER },
    { ...none, path: 'f', created_at: MOMENT, updated_at: LATER, deleted_at: MOMENT },
  ];
  const moments = async () =>
    (
      await database().query(
        'select path, created_at, updated_at, deleted_at from filestore.nodes where parent_id is not null order by path',
      )
    ).map((row) => [row.path, row.created_at, row.updated_at, row.deleted_at]);
  const [at, later] = [new Date(MOMENT), new Date(LATER)];
  const expected = [
    ['a', at, at, null],
    ['b', at, at, null],
    ['c', at, at, at],
    ['d', at, later, later],
    ['e', at, later, null],
    ['f', at, later, at],
  ];
  await stage(database(), 'nodes', rows);
  await importAll();
  expect(await moments()).toEqual(expected);
  await importAll();
  expect(await lastImport()).toEqual({ nodes: 0, versions: 0, refused: 0 });
  for (const row of rows) {
    await stage(database(), 'nodes', [
      Object.fromEntries(
        Object.entries({ ...row, path: `${row.path}2` }).filter(([, value]) => value !== null),
      ),
    ]);
    await importAll();
  }
  expect(await moments()).toEqual(
    expected.flatMap(([path, ...others]) => [
      [path, ...others],
      [`${path}2`, ...others],
    ]),
  );
});

test('a staged version has no moment of deletion that is in the future or without end', async () => {
  await stage(
    database(),
    'nodes',
    [10, 11, 12, 13].map((id) => ({ ...FILE, id, path: `f${id}`, version: 2, updated_at: LATER })),
  );
  await stage(
    database(),
    'versions',
    ['infinity', '-infinity', '2999-01-01Z', '0001-01-01T00:00:00Z'].map((deleted_at, index) => ({
      ...{ id: 10 + index, version: 1, updated_at: MOMENT, state: 'deleted', deleted_at },
    })),
  );
  expect((await check("'old.nodes', 'old.versions'")).map(({ id, reason }) => [Number(id), reason])).toEqual(
    [10, 11, 12].map((id) => [id, 'nodes_deleted_at_check']),
  );
});
