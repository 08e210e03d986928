import { describe, expect, test } from 'vitest';
import { type Fault, importDatabaseForEachTest, key, type Row, stage } from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const MOMENT = '2025-01-02T03:04:05.678Z';

const check = (tables: string) =>
  database().query<Fault & Record<string, unknown>>(
    `select * from filestore.check_import('${key}', ${tables})`,
  );
const importAll = (options: string, tables: string) =>
  database().query(`call filestore.import_nodes('${key}', ${tables}${options})`);
const problems = () => database().query('select * from filestore.check_integrity()');
const nodes = () =>
  database().query(
    'select id::int, path, state, version from filestore.nodes where parent_id is not null order by id',
  );

describe('the dry run lists', () => {
  const good = { id: 10, path: 'a', kind: 'directory' };
  const named = { id: 10, parent_id: null, name: 'a', kind: 'directory' };
  const file = { kind: 'file' };

  test.each<[what: string, rows: readonly Row[], reasons: Readonly<Record<number, string>>]>([
    ['control characters', [good, { id: 11, path: 'a/\u0007', ...file }], { 11: 'nodes_name_check' }],
    [
      'two live rows of one path, and what is below them',
      [good, { ...good, id: 11 }, { id: 12, path: 'a/f', ...file }],
      { 10: 'nodes_name_taken', 11: 'nodes_name_taken', 12: 'import_parent_refused' },
    ],
    [
      'a live row below a deleted one',
      [
        { ...good, deleted_at: MOMENT },
        { id: 11, path: 'a/f', ...file },
      ],
      { 11: 'nodes_parent_deleted' },
    ],
    ['a missing directory', [good, { id: 11, path: 'b/f', ...file }], { 11: 'nodes_parent_missing' }],
    [
      'a missing parent',
      [named, { id: 11, parent_id: 99, name: 'f', ...file }],
      { 11: 'nodes_parent_missing' },
    ],
    [
      'a file with something in it',
      [
        { ...good, kind: 'file' },
        { id: 11, path: 'a/f', ...file },
      ],
      { 11: 'nodes_parent_missing' },
    ],
    [
      'a parent that is a file',
      [
        { ...named, kind: 'file' },
        { id: 11, parent_id: 10, name: 'f', ...file },
      ],
      { 11: 'nodes_not_directory' },
    ],
    [
      'a path that is not that of its parents',
      [
        { ...named, path: 'a' },
        { id: 11, parent_id: 10, name: 'f', path: 'b/f', ...file },
      ],
      { 11: 'nodes_derived_path_check' },
    ],
    [
      'a circle',
      [
        { ...named, parent_id: 11 },
        { ...named, id: 11, parent_id: 10 },
      ],
      { 10: 'nodes_cycle_check', 11: 'nodes_cycle_check' },
    ],
    [
      'a circle, and what is below it',
      [
        { ...named, parent_id: 11 },
        { ...named, id: 11, parent_id: 10 },
        { id: 12, parent_id: 11, name: 'f', ...file },
      ],
      { 10: 'nodes_cycle_check', 11: 'nodes_cycle_check', 12: 'nodes_cycle_check' },
    ],
    [
      'a missing parent, and what is levels below it',
      [
        { ...named, parent_id: 99 },
        { ...named, id: 11, parent_id: 10 },
        { id: 12, parent_id: 11, name: 'f', ...file },
      ],
      { 10: 'nodes_parent_missing', 11: 'import_parent_refused', 12: 'import_parent_refused' },
    ],
    ['an id that is given twice', [good, { ...good, path: 'b' }], { 10: 'nodes_pkey' }],
    ['an id outside of the range', [{ ...good, id: 2 ** 45 }], { [2 ** 45]: 'import_id_check' }],
    ['a path with a slash at its end', [{ ...good, path: 'a/' }], { 10: 'nodes_path_check' }],
    ['a path that leads out', [{ ...good, path: '../a' }], { 10: 'nodes_path_check' }],
    ['an unknown kind', [{ ...good, kind: 'folder' }], { 10: 'node_kind_check' }],
    ['an unknown state', [{ ...good, state: 'lost' }], { 10: 'node_state_check' }],
    [
      'a live row with a moment of deletion',
      [{ ...good, state: 'active', deleted_at: MOMENT }],
      { 10: 'nodes_live_check' },
    ],
    ['a negative size', [{ id: 10, path: 'f', ...file, size_bytes: -1 }], { 10: 'nodes_size_check' }],
    ['a version of 0', [{ ...good, version: 0 }], { 10: 'nodes_version_check' }],
    [
      'a version that few changes can follow',
      [{ ...good, version: 2 ** 31 - 1 }],
      { 10: 'nodes_version_check' },
    ],
    ['a moment in the future', [{ ...good, updated_at: '2999-01-01Z' }], { 10: 'nodes_updated_at_check' }],
    [
      'a moment of creation that has no end',
      [{ ...good, created_at: 'infinity', updated_at: MOMENT }],
      { 10: 'import_moment_check' },
    ],
    ['a name that is too long', [{ ...good, path: 'x'.repeat(1025) }], { 10: 'nodes_name_check' }],
    [
      'a path that is too long',
      [1, 2, 3].map((depth) => ({
        ...good,
        id: 9 + depth,
        path: Array(depth).fill('x'.repeat(1000)).join('/'),
      })),
      { 12: 'nodes_path_length_check' },
    ],
    ['metadata that is no object', [{ ...good, metadata: [] }], { 10: 'nodes_metadata_check' }],
    [
      'a secret',
      [{ id: 10, path: 'f', ...file, metadata: { password: 'hunter2-Zq9x' } }],
      { 10: 'import_secret_check' },
    ],
  ])('%s', async (_, rows, reasons) => {
    await stage(database(), 'nodes', rows);
    const found = await check("'old.nodes'");
    expect(Object.fromEntries(found.map(({ id, reason }) => [id, reason]))).toEqual(reasons);
    for (const fault of found) {
      expect(fault).toMatchObject({
        staged: 'nodes',
        problem: expect.stringMatching(/\w{3}/),
        remedy: expect.stringMatching(/\w{3}/),
      });
      expect(JSON.stringify(fault)).not.toContain('hunter2');
    }
    await importAll(', take_rest => true', "'old.nodes'");
    const taken = new Set((await nodes()).map(({ id }) => `${id}`));
    expect(Object.keys(reasons).filter((id) => taken.has(id))).toEqual([]);
    expect(await problems()).toEqual([]);
  });

  test('what an import then refuses, and takes nothing', async () => {
    await stage(database(), 'nodes', [good, { id: 11, path: 'b/f', ...file }]);
    expect(await check("'old.nodes'")).toHaveLength(1);
    await expect(importAll('', "'old.nodes'")).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'import_refused',
    });
    expect(await nodes()).toEqual([]);
  });

  test('versions with a gap, and everything before it', async () => {
    const node = { id: 10, path: 'f', kind: 'file', version: 5, updated_at: '2025-05-05Z' };
    await stage(database(), 'nodes', [node]);
    await stage(database(), 'versions', [
      { id: 10, version: 1, updated_at: '2025-01-01Z' },
      { id: 10, version: 2, updated_at: '2025-02-02Z' },
      { id: 10, version: 4, updated_at: '2025-04-04Z' },
      { id: 99, version: 1, updated_at: '2025-04-04Z' },
    ]);
    expect(await check("'old.nodes', 'old.versions'")).toMatchObject([
      { staged: 'versions', id: '10', version: 1, reason: 'import_version_check' },
      { staged: 'versions', id: '10', version: 2, reason: 'import_version_check' },
      { staged: 'versions', id: '99', version: 1, reason: 'nodes_missing' },
    ]);
    await importAll(', take_rest => true', "'old.nodes', 'old.versions'");
    expect(await database().query('select version from filestore.snapshots')).toEqual([{ version: 4 }]);
    expect(await problems()).toEqual([]);
  });

  test('journal entries that have not ended, share a key, have no error, or a secret', async () => {
    await stage(database(), 'nodes', [good]);
    const entry = {
      command: 'c',
      status: 'succeeded',
      created_at: MOMENT,
      started_at: MOMENT,
      completed_at: MOMENT,
    };
    await stage(database(), 'entries', [
      { ...entry, id: 1, status: 'running' },
      { ...entry, id: 2, idempotency_key: 'k' },
      { ...entry, id: 3, idempotency_key: 'k' },
      { ...entry, id: 4, status: 'failed' },
      { ...entry, id: 5, parameters: { token: 'ghp_abcdefghij0123456789' } },
      { ...entry, id: 6, status: 'odd' },
      { ...entry, id: 7 },
    ]);
    expect((await check("'old.nodes', null, 'old.entries'")).map(({ id, reason }) => [id, reason])).toEqual([
      ['1', 'journal_entries_born_open_check'],
      ['2', 'journal_entries_idempotency_key'],
      ['3', 'journal_entries_idempotency_key'],
      ['4', 'journal_entries_outcome_check'],
      ['5', 'import_secret_check'],
      ['6', 'command_status_check'],
    ]);
  });

  test.each([
    ['an unknown column', '(path text, kind text, sise bigint)', 'sise'],
    ['a column of another type', '(path text, kind text, size_bytes numeric)', 'size_bytes'],
    ['a moment without a zone', '(path text, kind text, updated_at timestamp)', "time zone 'UTC'"],
    ['a table without a kind', '(path text)', 'kind'],
    ['parents without ids', '(parent_id bigint, name text, kind text)', 'id'],
  ])('nothing of a table with %s, and says which', async (_, columns, said) => {
    await database().query('create schema old');
    await database().query(`create table old.nodes ${columns}`);
    const error = await check("'old.nodes'").then(
      () => undefined,
      (thrown: Error & { readonly hint: string }) => thrown,
    );
    expect(error).toMatchObject({ code: 'FS422', constraint: 'import_columns_check' });
    expect(`${error?.message} ${error?.hint}`).toContain(said);
  });

  test('rows whose places nodes have that are refused', async () => {
    const staged = { kind: 'file', version: 1, updated_at: '2025-01-01Z' };
    await stage(database(), 'nodes', [
      { ...staged, id: 10, path: 'f' },
      { ...staged, id: 11, path: 'g' },
      { ...staged, id: 12, path: 'd', kind: 'directory' },
      { ...staged, id: 13, path: 'd/h' },
    ]);
    await importAll('', "'old.nodes'");
    await database().query('update filestore.nodes set size_bytes = 5 where id in (10, 13)');
    const later = { ...staged, version: 2, updated_at: '2025-02-02Z' };
    await stage(database(), 'nodes', [
      { ...later, id: 10, path: 'x' },
      { ...later, id: 11, path: 'f' },
      { ...later, id: 12, path: 'd', kind: 'directory', deleted_at: '2025-02-02Z' },
      { ...later, id: 13, path: 'd/h', deleted_at: '2025-02-02Z' },
      { ...later, id: 14, path: 'g', version: 1 },
    ]);
    expect((await check("'old.nodes'")).map(({ id, reason }) => [id, reason]).sort()).toEqual([
      ['10', 'nodes_stale'],
      ['11', 'nodes_name_taken'],
      ['12', 'nodes_not_empty'],
      ['13', 'nodes_stale'],
      ['14', 'nodes_name_taken'],
    ]);
    await importAll(', take_rest => true', "'old.nodes'");
    expect((await nodes()).map(({ path }) => path)).toEqual(['f', 'g', 'd', 'd/h']);
    expect(await problems()).toEqual([]);
  });

  test('what is new in an equal directory below one whose new name is refused', async () => {
    const staged = { kind: 'directory', version: 1, updated_at: '2025-01-01Z' };
    const rows = [
      { ...staged, id: 10, parent_id: null, name: 'd' },
      { ...staged, id: 11, parent_id: 10, name: 'k' },
      { ...staged, id: 12, parent_id: 11, name: 'l' },
    ];
    await stage(database(), 'nodes', rows);
    await importAll('', "'old.nodes'");
    await stage(database(), 'nodes', [
      {
        ...rows[0],
        name: 'e',
        version: 2,
        updated_at: '2025-02-02Z',
        metadata: { password: 'hunter2-Zq9x' },
      },
      ...rows.slice(1),
      { ...staged, id: 13, parent_id: 12, name: 'new', kind: 'file' },
      { ...staged, id: 14, parent_id: null, name: 'other', kind: 'file' },
    ]);
    expect((await check("'old.nodes'")).map(({ id, reason }) => [id, reason])).toEqual([
      ['10', 'import_secret_check'],
      ['13', 'import_parent_refused'],
    ]);
    await importAll(', take_rest => true', "'old.nodes'");
    expect((await nodes()).map(({ path }) => path)).toEqual(['d', 'd/k', 'd/k/l', 'other']);
    expect(await problems()).toEqual([]);
  });
});
