import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { one } from '../support/rows/nodes.ts';
import { type Fault, importDatabaseForEachTest, key, type Row, stage } from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const TABLES = "'old.nodes', 'old.versions'";
const call = (options = '', tables = TABLES) => `call filestore.import_nodes('${key}', ${tables}${options})`;
const importAll = (options = '', tables = TABLES) => database().query(call(options, tables));
const faults = async (tables = TABLES) =>
  (
    await database().query<Fault & Record<string, unknown>>(
      `select * from filestore.check_import('${key}', ${tables})`,
    )
  ).map(({ staged, id, version, reason }) => [staged, Number(id), version, reason]);
const history = async (id = 10) =>
  (
    await database().query<{ version: number; size: number }>(
      `select version, size_bytes::int as size from filestore.view_filestore_node_versions where id = ${id} order by version`,
    )
  ).map(({ version, size }) => [version, size]);
const horizon = async () =>
  (await one(database(), 'select history_horizon from filestore.backend_mounts where mount_key = $1', [key]))
    .history_horizon;
const problems = () => database().query('select * from filestore.check_integrity()');

const SECRET = { password: 'hunter2-Zq9x' };
const at = (month: number) => `2025-0${month}-01T00:00:00Z`;
const node = (version: number, more: Row = {}): Row => ({
  id: 10,
  path: 'f',
  kind: 'file',
  version,
  size_bytes: version,
  created_at: at(1),
  updated_at: at(version),
  ...more,
});
const version = (number: number, more: Row = {}): Row => ({
  id: 10,
  version: number,
  size_bytes: number,
  updated_at: at(number),
  ...more,
});
const stageAll = async (nodes: readonly Row[], versions: readonly Row[]) => {
  await stage(database(), 'nodes', nodes);
  await stage(database(), 'versions', versions);
};

describe('a later call imports', () => {
  test('versions that were refused, after they are corrected', async () => {
    await stageAll([node(3)], [version(1), version(2, { metadata: SECRET })]);
    await importAll(', take_rest => true');
    expect(await history()).toEqual([[3, 3]]);
    await stageAll([node(3)], [version(1), version(2)]);
    expect(await faults()).toEqual([]);
    await importAll();
    expect(await history()).toEqual([1, 2, 3].map((number) => [number, number]));
    expect(
      await one(
        database(),
        'select nodes::int, versions::int from filestore.imports order by id desc limit 1',
      ),
    ).toEqual({ nodes: 0, versions: 2 });
    await importAll();
    expect(await history()).toHaveLength(3);
    expect(await problems()).toEqual([]);
  });

  test('versions of nodes, tombstones and moved nodes that are staged for the first time', async () => {
    const others = [
      node(2, { id: 11, path: 'gone', deleted_at: at(2) }),
      node(2, { id: 12, path: 'd', kind: 'directory', size_bytes: 0 }),
      node(2, { id: 13, path: 'd/g' }),
    ];
    await stage(database(), 'nodes', [node(3), ...others]);
    await importAll('', "'old.nodes'");
    await stageAll(
      [node(4, { path: 'd/moved' }), ...others],
      [1, 2, 3]
        .map((number) => version(number))
        .concat([11, 12, 13].map((id) => version(1, { id, size_bytes: 0 }))),
    );
    expect(await faults()).toEqual([]);
    await importAll();
    expect(await history()).toEqual([1, 2, 3, 4].map((number) => [number, number]));
    for (const id of [11, 12, 13]) {
      expect(await history(id)).toHaveLength(2);
    }
    await importAll();
    expect(await problems()).toEqual([]);
  });

  test('the versions before those that the mount has, ending where these begin', async () => {
    await stageAll([node(4)], [version(3)]);
    await importAll();
    await stageAll([node(4)], [version(1), version(2), version(3, { updated_at: '2025-03-09T00:00:00Z' })]);
    expect(await faults()).toEqual([]);
    await importAll();
    expect(await history()).toHaveLength(4);
    expect(await problems()).toEqual([]);
  });

  test('versions of nodes whose table has no versions', async () => {
    const unnumbered = { id: 10, path: 'f', kind: 'file', created_at: at(1) };
    await stage(database(), 'nodes', [{ ...unnumbered, updated_at: at(1), size_bytes: 1 }]);
    await importAll('', "'old.nodes'");
    const changed = { ...unnumbered, updated_at: at(2), size_bytes: 2 };
    await stageAll([changed], [version(1)]);
    await importAll();
    expect(await faults()).toEqual([]);
    await importAll();
    expect(await history()).toEqual([
      [1, 1],
      [2, 2],
    ]);
    expect(await problems()).toEqual([]);
  });
});

describe('a node that has a history in the mount', () => {
  beforeEach(async () => {
    await stageAll([node(3)], [version(1), version(2)]);
    await importAll();
  });
  const kept = [1, 2, 3].map((number) => [number, number]);

  test.each<[what: string, versions: readonly Row[], others: readonly unknown[]]>([
    ['no versions', [], []],
    ['the first one missing', [version(4)], []],
    ['the last one missing', [version(1), version(2), version(3)], [1, 2, 3]],
    ['one that is refused', [version(3), version(4, { metadata: SECRET })], [3, 4]],
    ['the first one at another moment', [version(3, { updated_at: at(2) }), version(4)], [3]],
  ])('is refused with %s between that and the staged one', async (_, versions, refused) => {
    await stageAll(
      [node(5), node(1, { id: 11, path: 'other' })],
      versions.length === 0 ? [version(1, { id: 11, version: 0 })] : versions,
    );
    const tables = versions.length === 0 ? "'old.nodes'" : TABLES;
    const found = await faults(tables);
    expect(found[0]?.[0] === 'versions' ? found.at(-1) : found[0]).toEqual([
      'nodes',
      10,
      5,
      'import_version_check',
    ]);
    expect(found.filter(([staged]) => staged === 'versions').map(([, , number]) => number)).toEqual(
      expect.arrayContaining([...refused]),
    );
    await importAll(', take_rest => true', tables);
    expect(await history()).toEqual(kept);
    expect(await history(11)).toEqual([[1, 1]]);
    expect(await horizon()).toBeNull();
    expect(await problems()).toEqual([]);

    await stageAll(
      [node(5)],
      [3, 4].map((number) => version(number)),
    );
    expect(await faults()).toEqual([]);
    await importAll();
    expect(await history()).toEqual([...kept, [4, 4], [5, 5]]);
    expect(await horizon()).toBeNull();
    expect(await problems()).toEqual([]);
  });

  test('is refused with the new nodes that are to be in it', async () => {
    const directory = { kind: 'directory', size_bytes: 0 };
    const below = node(1, { id: 12, path: 'd', ...directory });
    await stageAll(
      [node(2, { id: 11, path: 'c', ...directory, updated_at: at(2) })],
      [version(1, { id: 11, size_bytes: 0 })],
    );
    await importAll();
    await stage(database(), 'nodes', [
      node(5, { id: 11, path: 'd', ...directory }),
      { ...below, id: 13, path: 'd/new', kind: 'file' },
    ]);
    expect(await faults("'old.nodes'")).toEqual([
      ['nodes', 11, 5, 'import_version_check'],
      ['nodes', 13, 1, 'import_parent_refused'],
    ]);
    await importAll(', take_rest => true', "'old.nodes'");
    expect(await problems()).toEqual([]);
  });
});

test('what is before versions that others prune during the import is left out', async () => {
  const files = Array.from({ length: 9 }, (_, index) => node(1, { id: 20 + index, path: `n${index}` }));
  await stageAll([node(3)], [version(2)]);
  await importAll();
  await stageAll([...files, node(3)], [version(1), version(2)]);
  const [service, importer] = [await database().connect(), await database().connect()];
  await service.query('begin');
  await service.query(
    `select filestore.create_node((select id from filestore.node_by_path('${key}', '')), 'n7')`,
  );
  const running = await sendAndBlock(importer, call(', batch => 5'));
  expect(running.waits).toBe(true);
  expect(await one(database(), "select filestore.prune_history('0', 0) as pruned")).toEqual({ pruned: 1 });
  await service.query('rollback');
  expect(await running.outcome).toMatchObject({ ok: true });
  expect(await history()).toEqual([[3, 3]]);
  expect(await problems()).toEqual([]);
});
