import { expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import {
  createImportMount,
  importDatabaseForEachTest,
  key,
  type Row,
  stage,
} from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const MOMENT = '2025-01-01Z';
const LATER = '2025-05-01Z';

const faults = async () =>
  (await database().query(`select path, reason from filestore.check_import('${key}', 'old.nodes')`)).map(
    ({ path, reason }) => [path, reason],
  );
/** Imports rows, and returns how many nodes were new or changed. */
async function pass(mount: string, ...rows: readonly Row[]): Promise<number> {
  await stage(database(), 'nodes', rows);
  await database().query(`call filestore.import_nodes('${mount}', 'old.nodes')`);
  return (await one(database(), 'select nodes::int from filestore.imports order by id desc limit 1')).nodes;
}
const nodes = async (path: string) =>
  (
    await database().query(
      `select n.kind, n.state, n.version from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id
       where m.mount_key = $1 and n.path = $2 order by n.id`,
      [key, path],
    )
  ).map(({ kind, state, version }) => [kind, state, version]);

test('tombstones without ids are refused only if path, kind and moment of deletion are those of another one', async () => {
  const file = { id: null, kind: 'file', deleted_at: MOMENT };
  await stage(database(), 'nodes', [
    { ...file, path: 'same' },
    { ...file, path: 'same' },
    { ...file, path: 'same', deleted_at: LATER },
    { ...file, path: 'same', id: 11 },
    { ...file, path: 'moment' },
    { ...file, path: 'moment', deleted_at: LATER },
    { ...file, path: 'kind' },
    { ...file, path: 'kind', kind: 'directory' },
    { ...file, path: 'id', id: 10 },
    { ...file, path: 'id' },
    { ...file, path: 'live' },
    { ...file, path: 'live', deleted_at: null },
  ]);
  expect(await faults()).toEqual([
    ['same', 'nodes_tombstone_check'],
    ['same', 'nodes_tombstone_check'],
  ]);
});

test('a tombstone without any moment is the last one with its path and kind in its mount', async () => {
  const file = { path: 'f', kind: 'file' };
  await createImportMount(database(), 'other');
  await pass('other', { ...file, deleted_at: '2025-09-09Z' });
  await pass(key, { ...file, deleted_at: MOMENT }, { ...file, deleted_at: LATER });
  await pass(key, { ...file, kind: 'directory', deleted_at: '2025-08-08Z' });
  const dead = { ...file, state: 'deleted' };
  expect(await pass(key, dead)).toBe(0);
  expect(await pass(key, { ...dead, size_bytes: 5 })).toBe(1);
  expect(
    await database().query(
      "select size_bytes::int as size, deleted_at from filestore.nodes where path = 'f' order by id",
    ),
  ).toEqual([
    { size: 0, deleted_at: new Date('2025-09-09Z') },
    { size: 0, deleted_at: new Date(MOMENT) },
    { size: 5, deleted_at: new Date(LATER) },
    { size: 0, deleted_at: new Date('2025-08-08Z') },
  ]);
  expect(await pass(key, { ...dead, path: 'g' })).toBe(1);
  expect(await nodes('g')).toEqual([['file', 'deleted', 1]]);
});

test('a tombstone deletes the live node with its path and kind, unless that was created later or has a row', async () => {
  const row = { kind: 'file', created_at: MOMENT, deleted_at: null };
  const paths = ['gone', 'later', 'row', 'kind'];
  await pass(key, ...paths.map((path) => ({ ...row, path })), { ...row, path: 'exact' });
  const dead = (path: string, deleted_at = LATER) => ({ ...row, path, deleted_at });
  expect(
    await pass(
      key,
      dead('gone'),
      dead('later', '2024-12-31Z'),
      { ...row, path: 'row' },
      dead('row'),
      { ...dead('kind'), kind: 'directory' },
      dead('exact', MOMENT),
    ),
  ).toBe(5);
  const states: unknown[] = [];
  for (const path of ['gone', 'later', 'row', 'kind', 'exact']) states.push(await nodes(path));
  expect(states).toEqual([
    [['file', 'deleted', 2]],
    [
      ['file', 'active', 1],
      ['file', 'deleted', 1],
    ],
    [
      ['file', 'active', 1],
      ['file', 'deleted', 1],
    ],
    [
      ['file', 'active', 1],
      ['directory', 'deleted', 1],
    ],
    [['file', 'deleted', 2]],
  ]);
});

test('a tombstone deletes what a service created before the last import, and nothing that it created since then', async () => {
  const row = { kind: 'file', created_at: MOMENT, deleted_at: null };
  const root = await one(database(), `select id from filestore.node_by_path('${key}', '')`);
  const create = (name: string) => database().query('select filestore.create_node($1, $2)', [root.id, name]);
  await pass(key, { ...row, path: 'a' });
  await create('before');
  await pass(key, { ...row, path: 'b' });
  await create('since');
  const { now } = await one(database(), "select date_trunc('milliseconds', clock_timestamp()) as now");
  const dead = { ...row, deleted_at: now.toISOString() };
  await pass(key, { ...dead, path: 'before' }, { ...dead, path: 'since' });
  expect(await nodes('before')).toEqual([['file', 'deleted', 2]]);
  expect(await nodes('since')).toEqual([
    ['file', 'active', 1],
    ['file', 'deleted', 1],
  ]);
});

test('a live row restores the tombstone that was created at its moment, and no other one', async () => {
  const file = { path: 'f', kind: 'file', created_at: MOMENT, updated_at: MOMENT, deleted_at: null };
  const dead = { ...file, updated_at: LATER, deleted_at: LATER };
  await createImportMount(database(), 'other');
  await pass('other', dead);
  await pass(key, dead, {
    ...dead,
    created_at: '2025-02-02Z',
    updated_at: '2025-06-06Z',
    deleted_at: '2025-06-06Z',
  });
  await pass(key, { ...dead, path: 'd', kind: 'directory' });
  const back = { ...file, updated_at: '2025-07-07Z' };
  expect(await pass(key, back, { ...back, path: 'd' })).toBe(2);
  expect(await nodes('f')).toEqual([
    ['file', 'active', 2],
    ['file', 'deleted', 1],
  ]);
  expect(await nodes('d')).toEqual([
    ['directory', 'deleted', 1],
    ['file', 'active', 1],
  ]);
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
});

test('a tombstone without any moment is a tombstone of the mount, even if a live node has its path', async () => {
  await pass(
    key,
    { path: 'f', kind: 'file', deleted_at: MOMENT },
    { path: 'f', kind: 'file', deleted_at: null },
  );
  expect(await pass(key, { path: 'f', kind: 'file', state: 'deleted' })).toBe(0);
  expect(await nodes('f')).toEqual([
    ['file', 'deleted', 1],
    ['file', 'active', 1],
  ]);
});

test('a row with an id is the node with that id, whatever others have its path and moments', async () => {
  const file = { kind: 'file', created_at: MOMENT, deleted_at: null };
  const dead = { ...file, deleted_at: LATER };
  await pass(
    key,
    { ...dead, id: 10, path: 'f' },
    { ...dead, id: 11, path: 'g' },
    { ...file, id: 12, path: 'h' },
  );
  expect(
    await pass(
      key,
      { ...dead, id: 20, path: 'f' },
      { ...file, id: 21, path: 'g', updated_at: '2025-06-06Z' },
      { ...dead, id: 22, path: 'h' },
    ),
  ).toBe(3);
  expect(
    await database().query(
      'select id::int, path, live from filestore.nodes where id between 10 and 22 order by id',
    ),
  ).toEqual([
    { id: 10, path: 'f', live: false },
    { id: 11, path: 'g', live: false },
    { id: 12, path: 'h', live: true },
    { id: 20, path: 'f', live: false },
    { id: 21, path: 'g', live: true },
    { id: 22, path: 'h', live: false },
  ]);
  const unknown = { kind: 'file', state: 'deleted', deleted_at: null };
  expect(await pass(key, { ...unknown, id: 30, path: 'f' })).toBe(1);
});

test('a row without an id is not the node that another row names', async () => {
  const file = { id: null, path: 'f', kind: 'file', created_at: MOMENT };
  await pass(key, { ...file, id: 10, deleted_at: MOMENT }, { ...file, id: 11, deleted_at: LATER });
  expect(
    await pass(
      key,
      { ...file, id: 10, deleted_at: MOMENT },
      { ...file, id: 11, deleted_at: LATER },
      { ...file, deleted_at: null },
      { ...file, deleted_at: '2025-06-06Z' },
    ),
  ).toBe(2);
  expect(await nodes('f')).toHaveLength(4);
  const dead = { id: null, path: 'g', kind: 'file', state: 'deleted' };
  expect(await pass(key, { ...dead, id: 20 })).toBe(1);
  expect(await pass(key, { ...dead, id: 20 }, dead)).toBe(1);
  expect(await nodes('g')).toHaveLength(2);
});

test.each([
  ['with ids and versions', (row: Row): Row => row],
  ['of paths alone', ({ id, version, ...row }: Row): Row => row],
])('a table %s is imported again after a deleted directory in it was created again', async (_, shape) => {
  const moments = { created_at: MOMENT, updated_at: LATER, deleted_at: LATER };
  const deleted = [
    shape({ id: 10, path: 'd', kind: 'directory', version: 2, ...moments }),
    shape({ id: 11, path: 'd/f', kind: 'file', version: 2, ...moments }),
  ];
  const again = { created_at: '2025-06-01Z', updated_at: '2025-06-01Z', deleted_at: null };
  const created = [
    shape({ id: 12, path: 'd', kind: 'directory', version: 1, ...again }),
    shape({ id: 13, path: 'd/f', kind: 'file', version: 1, ...again }),
  ];
  await pass(key, ...deleted);
  const parents = async () =>
    (
      await database().query<{ path: string; live: boolean; parent: boolean }>(
        `select n.path, n.live, p.live as parent
         from filestore.nodes n join filestore.nodes p on p.id = n.parent_id and p.parent_id is not null order by n.id`,
      )
    ).map(({ path, live, parent }) => [path, live, parent]);
  expect(await pass(key, ...deleted, ...created)).toBe(2);
  expect(await parents()).toEqual([
    ['d/f', false, false],
    ['d/f', true, true],
  ]);
  expect(await pass(key, ...deleted, ...created)).toBe(0);
});
