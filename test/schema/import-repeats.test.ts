import { describe, expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import { importDatabaseForEachTest, key, type Row, stage } from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const check = async () =>
  (
    await database().query<{ path: string; reason: string }>(
      `select path, reason from filestore.check_import('${key}', 'old.nodes')`,
    )
  ).map(({ path, reason }) => [path, reason]);
const importAll = () => database().query(`call filestore.import_nodes('${key}', 'old.nodes')`);
const nodes = () =>
  database().query<Row>(
    `select path, state, version, size_bytes::int as size from filestore.nodes
     where parent_id is not null order by path, id`,
  );
const ids = async () =>
  (await database().query<{ id: string }>('select id from filestore.nodes order by id')).map(({ id }) => id);
const problems = () => database().query('select * from filestore.check_integrity()');

/** Imports rows, and expects that the same call again changes nothing. */
async function pass(...rows: readonly Row[]): Promise<readonly Row[]> {
  await stage(database(), 'nodes', rows);
  expect(await check()).toEqual([]);
  await importAll();
  const first = await nodes();
  expect(await check()).toEqual([]);
  await importAll();
  expect(await nodes()).toEqual(first);
  expect(await problems()).toEqual([]);
  return first;
}

const file = { kind: 'file', size_bytes: 4 };
const active = { state: 'active', version: 1, size: 4 };
const deleted = { state: 'deleted', version: 1, size: 4 };
const MOMENT = '2025-01-01Z';
const LATER = '2025-05-01Z';

describe('of rows without ids', () => {
  test('a tombstone at the path of a live node deletes it, and without deleted_at again restores it', async () => {
    const directory = { path: 'a', kind: 'directory', size_bytes: 0, created_at: MOMENT };
    const row = { ...file, path: 'a/f', created_at: MOMENT };
    await pass({ ...directory, updated_at: MOMENT }, { ...row, updated_at: MOMENT });
    const known = await ids();
    const gone = { updated_at: LATER, deleted_at: LATER };
    expect(await pass({ ...directory, ...gone }, { ...row, ...gone })).toEqual([
      { path: 'a', state: 'deleted', version: 2, size: 0 },
      { path: 'a/f', state: 'deleted', version: 2, size: 4 },
    ]);
    const back = { updated_at: '2025-06-01Z', deleted_at: null };
    expect(await pass({ ...directory, ...back }, { ...row, ...back })).toMatchObject([
      { path: 'a', state: 'active', version: 3 },
      { path: 'a/f', state: 'active', version: 3 },
    ]);
    expect(await ids()).toEqual(known);
  });

  test('a tombstone of a node without any moment deletes it, in a table of moments or of states', async () => {
    await pass({ ...file, path: 'f' }, { ...file, path: 'g' });
    expect(await pass({ ...file, path: 'f', deleted_at: LATER }, { ...file, path: 'g' })).toEqual([
      { ...deleted, path: 'f', version: 2 },
      { ...active, path: 'g' },
    ]);
    expect(await pass({ ...file, path: 'g', state: 'deleted' })).toMatchObject([
      { path: 'f' },
      { ...deleted, path: 'g', version: 2 },
    ]);
  });

  test('the first of several deletions is that of the node, and those before its creation are of others', async () => {
    await pass({ ...file, path: 'f', created_at: MOMENT, deleted_at: null });
    const known = await ids();
    const tombstones = ['2024-01-01Z', '2025-02-02Z', '2025-03-03Z'].map((deleted_at) => ({
      ...file,
      path: 'f',
      deleted_at,
    }));
    await pass(...tombstones);
    expect(
      await database().query(
        "select id = any ($1::bigint[]) as known, deleted_at from filestore.nodes where path = 'f' order by deleted_at",
        [known],
      ),
    ).toEqual([
      { known: false, deleted_at: new Date('2024-01-01Z') },
      { known: true, deleted_at: new Date('2025-02-02Z') },
      { known: false, deleted_at: new Date('2025-03-03Z') },
    ]);
  });

  test('a tombstone does not delete the live node of another row, nor what a service has created', async () => {
    const dead = { ...file, path: 'f', deleted_at: MOMENT };
    await pass({ ...file, path: 'f', deleted_at: null });
    expect(await pass({ ...file, path: 'f', deleted_at: null }, dead)).toEqual([
      { ...active, path: 'f' },
      { ...deleted, path: 'f' },
    ]);
    await one(
      database(),
      "select filestore.create_node((select id from filestore.node_by_path($1, '')), 'svc')",
      [key],
    );
    await pass({ ...file, path: 'f', deleted_at: null }, dead, { ...dead, path: 'svc' });
    expect(await nodes()).toContainEqual({ path: 'svc', state: 'active', version: 1, size: 0 });
  });

  test('a tombstone without a moment is taken once', async () => {
    expect(await pass({ ...file, path: 'f', state: 'deleted' })).toEqual([{ ...deleted, path: 'f' }]);
    expect(
      await pass({ ...file, path: 'f', state: 'deleted', updated_at: null }, { ...file, path: 'g' }),
    ).toHaveLength(2);
  });

  test('tombstones of one path with one moment, or none, are refused from the first call on', async () => {
    for (const moment of [MOMENT, null]) {
      const row = { ...file, path: 'f', state: 'deleted', deleted_at: moment };
      await stage(database(), 'nodes', [row, row, { ...row, path: 'g' }]);
      for (let call = 1; call <= 2; call += 1) {
        expect(await check()).toEqual([
          ['f', 'nodes_tombstone_check'],
          ['f', 'nodes_tombstone_check'],
        ]);
        await database().query(`call filestore.import_nodes('${key}', 'old.nodes', take_rest => true)`);
        expect(await nodes()).toEqual([{ ...deleted, path: 'g' }]);
      }
    }
  });
});

test('rows with ids and without moments are equal at the next call', async () => {
  const row = { ...file, parent_id: null, updated_at: null };
  await pass({ ...row, id: 11, name: 'f', state: 'deleted' }, { ...row, id: 12, name: 'g', state: 'active' });
});

describe('a directory that an import renames', () => {
  const directory = { id: 10, parent_id: null, name: 'd', kind: 'directory' };
  const known = { version: 1, updated_at: MOMENT };
  const renamed = { name: 'e', version: 2, updated_at: LATER };
  const create = (parent: number, name: string) =>
    one(database(), 'select filestore.create_node($1, $2)', [parent, name]);
  const history = (path: string) =>
    database().query(
      `select s.version, s.path, s.parent_path, s.depth, s.valid_to = n.updated_at as ends
       from filestore.nodes n join filestore.snapshots s on s.id = n.id where n.path = $1 and n.live`,
      [path],
    );

  test('gives the nodes of services below it a version with the path that they had', async () => {
    const below = { id: 11, parent_id: 10, name: 'k', kind: 'directory', ...known };
    await pass({ ...directory, ...known }, below);
    await create(11, 'svc.txt');
    const { now } = await one(database(), 'select clock_timestamp() as now');
    expect(await pass({ ...directory, ...renamed }, { ...below, ...renamed, name: 'l' })).toMatchObject([
      { path: 'e', version: 2 },
      { path: 'e/l', version: 2 },
      { path: 'e/l/svc.txt', version: 2 },
    ]);
    expect(await history('e/l/svc.txt')).toEqual([
      { version: 1, path: 'd/k/svc.txt', parent_path: 'd/k', depth: 3, ends: true },
    ]);
    expect(
      await one(
        database(),
        "select path, (select updated_at from filestore.nodes where id = n.id) > $1 as later from filestore.node_at((select id from filestore.node_by_path($2, 'e/l/svc.txt')), $1) n",
        [now, key],
      ),
    ).toEqual({ path: 'd/k/svc.txt', later: true });
  });

  test('and a tombstone in it keeps the path that its row has', async () => {
    const gone = { id: 11, parent_id: 10, name: 'f', kind: 'file', state: 'deleted', ...known };
    const before = { ...directory, ...known, path: 'd', deleted_at: null };
    const after = { ...before, ...renamed, path: 'e' };
    await pass(before, { ...gone, path: 'd/f', deleted_at: MOMENT });
    await pass(after, { ...gone, path: 'd/f', deleted_at: MOMENT });
    const again = { ...gone, version: 3, updated_at: LATER, path: 'e/f', deleted_at: LATER };
    expect(await pass(after, again)).toMatchObject([{ path: 'e' }, { path: 'e/f', state: 'deleted' }]);
  });

  test('leaves equal rows at the version that they have in their table, which counts them', async () => {
    const below = { id: 11, parent_id: 10, name: 'f', kind: 'file', ...known };
    await pass({ ...directory, ...known }, below);
    expect(await pass({ ...directory, ...renamed }, below)).toMatchObject([
      { path: 'e', version: 2 },
      { path: 'e/f', version: 1 },
    ]);
  });

  test('gives equal rows of a table that does not count versions the next one', async () => {
    const below = { id: 11, parent_id: 10, name: 'k', kind: 'directory' };
    await pass(directory, below);
    expect(await pass({ ...directory, name: 'e' }, below)).toMatchObject([
      { path: 'e', version: 2 },
      { path: 'e/k', version: 2 },
    ]);
    expect(await history('e/k')).toMatchObject([{ version: 1, path: 'd/k', parent_path: 'd', depth: 2 }]);
  });

  test('does not need a name that a service can take', async () => {
    await pass({ ...directory, ...known });
    const { id } = await one(database(), "select id from filestore.node_by_path($1, '')", [key]);
    await create(Number(id), '.filestore-import-10');
    await pass({ ...directory, ...renamed });
  });
});

test('an import of changed rows without their versions moves the moment from which trees are known', async () => {
  await pass({ ...file, path: 'f', created_at: MOMENT, updated_at: LATER });
  expect(
    await one(database(), 'select history_horizon from filestore.backend_mounts where mount_key = $1', [key]),
  ).toEqual({ history_horizon: new Date(LATER) });
});
