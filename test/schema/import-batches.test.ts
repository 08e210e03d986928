import { expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { one } from '../support/rows/nodes.ts';
import {
  createImportMount,
  type Fault,
  importDatabaseForEachTest,
  key,
  type Row,
  stage,
} from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const at = (month: number) => `2025-0${month}-01T00:00:00Z`;
const node = (id: number, parent_id: number | null, name: string, version = 1): Row => ({
  ...{ id, parent_id, name, version, kind: name.startsWith('d') ? 'directory' : 'file' },
  ...{ created_at: at(1), updated_at: at(version), deleted_at: null },
});
const importAll = (options = '', tables = "'old.nodes'") =>
  database().query(`call filestore.import_nodes('${key}', ${tables}${options})`);
const paths = async () =>
  (
    await database().query(
      'select path from filestore.nodes where id < 1000 and parent_id is not null order by id',
    )
  ).map(({ path }) => path);
const problems = () => database().query('select * from filestore.check_integrity()');

test('one transaction changes places with the directories that are new, and batches take everything else', async () => {
  await stage(database(), 'nodes', [node(10, null, 'd1'), node(11, null, 'f1'), node(12, null, 'f2')]);
  await importAll();
  const rows = [
    node(10, null, 'd2', 2),
    node(11, 20, 'f1', 2),
    { ...node(12, null, 'f2', 2), size_bytes: 5 },
    node(20, 10, 'd3'),
    node(21, 20, 'f3'),
    node(22, 20, 'f4'),
  ];
  await stage(database(), 'nodes', rows);
  const client = await database().connect();
  const { id } = await one(
    client,
    `select filestore.begin_import('${key}', 'old.nodes', null, null, false, 1) as id`,
  );
  expect(await paths()).toEqual(['d1', 'f1', 'f2']);
  expect(await one(client, `select filestore.arrange_staged(${id}) as arranged`)).toEqual({ arranged: true });
  expect(await paths()).toEqual(['d2', 'd2/d3/f1', 'f2', 'd2/d3']);
  const progress = () => one(database(), `select nodes::int from filestore.imports where id = ${id}`);
  expect(await progress()).toEqual({ nodes: 3 });
  for (let number = 1; number <= rows.length; number += 1) {
    await client.query(`select filestore.take_nodes(${id}, ${number}, ${number}, true)`);
  }
  expect(await progress()).toEqual({ nodes: 6 });
  expect(await paths()).toEqual(['d2', 'd2/d3/f1', 'f2', 'd2/d3', 'd2/d3/f3', 'd2/d3/f4']);
  expect(await problems()).toEqual([]);
});

test('rows that are refused are neither moved nor created beside others that are', async () => {
  const equal = node(14, 10, 'd6');
  const before = [node(10, null, 'd1'), node(11, null, 'd2'), node(12, 10, 'f'), node(13, null, 'f1'), equal];
  await stage(database(), 'nodes', before);
  await importAll();
  const refused = { metadata: { password: 'hunter2-Zq9x' } };
  await stage(database(), 'nodes', [
    { ...node(10, null, 'd3', 2), metadata: {} },
    { ...node(11, null, 'd4', 2), ...refused },
    { ...node(13, null, 'f1', 2), ...refused },
    { ...node(20, null, 'd5'), ...refused },
    { ...node(21, 10, 'f'), version: 0, name: 'f2' },
    node(22, 10, 'f3'),
    equal,
    node(23, 14, 'f4'),
  ]);
  await importAll(', take_rest => true');
  expect(await paths()).toEqual(['d3', 'd2', 'd3/f', 'f1', 'd3/d6', 'd3/f3', 'd3/d6/f4']);
  expect(
    await database().query(
      'select id::int, version from filestore.nodes where id between 10 and 13 order by id',
    ),
  ).toEqual([
    { id: 10, version: 2 },
    { id: 11, version: 1 },
    { id: 12, version: 2 },
    { id: 13, version: 1 },
  ]);
  expect(await problems()).toEqual([]);
});

test('a history with a gap refuses the versions of its node and of those that would be in it, and no others', async () => {
  const directory = (version: number, name: string) => node(10, null, name, version);
  await stage(database(), 'nodes', [directory(2, 'd1'), node(11, null, 'f1')]);
  const version = (id: number, number: number): Row => ({ id, version: number, updated_at: at(number) });
  await stage(database(), 'versions', [version(10, 1)]);
  const tables = "'old.nodes', 'old.versions'";
  await importAll('', tables);
  await stage(database(), 'nodes', [directory(5, 'd2'), node(11, null, 'f1', 2), node(12, 10, 'f2', 2)]);
  await stage(database(), 'versions', [version(10, 1), version(10, 4), version(11, 1), version(12, 1)]);
  const found = await database().query<Fault & Row>(
    `select * from filestore.check_import('${key}', ${tables})`,
  );
  expect(
    found.map(({ staged, id, version: number, reason }) => [staged, Number(id), number, reason]),
  ).toEqual([
    ['versions', 10, 1, 'import_version_check'],
    ['versions', 10, 4, 'nodes_missing'],
    ['versions', 12, 1, 'nodes_missing'],
    ['nodes', 10, 5, 'import_version_check'],
    ['nodes', 12, 2, 'import_parent_refused'],
  ]);
  await importAll(', take_rest => true', tables);
  expect(
    await database().query('select id::int, version from filestore.snapshots order by id, version'),
  ).toEqual([
    { id: 10, version: 1 },
    { id: 11, version: 1 },
  ]);
  expect(await problems()).toEqual([]);
});

test('the moment from which trees are known changes for the mount of the import only, and does not move back', async () => {
  await createImportMount(database(), 'other');
  const horizons = async () =>
    (await database().query('select history_horizon from filestore.backend_mounts order by mount_key')).map(
      ({ history_horizon }) => history_horizon,
    );
  await stage(database(), 'nodes', [node(10, null, 'f1', 3), node(11, null, 'f2', 2), node(12, null, 'f3')]);
  await importAll();
  expect(await horizons()).toEqual([new Date(at(3)), null]);
  await stage(database(), 'nodes', [node(13, null, 'f4', 2), node(14, null, 'f5')]);
  await importAll();
  expect(await horizons()).toEqual([new Date(at(3)), null]);
  await stage(database(), 'nodes', [node(15, null, 'f6', 4)]);
  await stage(database(), 'versions', [{ id: 15, version: 3, updated_at: at(3) }]);
  await importAll('', "'old.nodes', 'old.versions'");
  expect(await horizons()).toEqual([new Date(at(3)), null]);
  await stage(database(), 'nodes', [{ ...node(16, null, 'f7'), updated_at: at(5) }]);
  await importAll();
  expect(await horizons()).toEqual([new Date(at(5)), null]);
});

test('a batch waits for a service that holds the tree of the mount, even shared', async () => {
  await stage(database(), 'nodes', [node(10, null, 'f')]);
  const [service, importer] = [await database().connect(), await database().connect()];
  const hold = async (mount: string) => {
    await service.query('begin');
    await service.query('select filestore.lock_tree(filestore.find_mount($1), false)', [mount]);
  };
  await hold(key);
  const running = await sendAndBlock(importer, `call filestore.import_nodes('${key}', 'old.nodes')`);
  expect(running.waits).toBe(true);
  await service.query('rollback');
  expect(await running.outcome).toMatchObject({ ok: true });
});
