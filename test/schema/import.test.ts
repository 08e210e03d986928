import { beforeEach, expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { one } from '../support/rows/nodes.ts';
import { createImportMount, type Fault, stage } from '../support/rows/staged.ts';

const database = databaseForEachTest();
let key: string;

beforeEach(async () => {
  key = await createImportMount(database());
});

const MOMENT = '2025-01-02T03:04:05.678Z';

/** A catalogue with a history, tombstones of one path, and a log. */
const NODES = [
  { id: 1, parent_id: null, name: '', kind: 'directory', version: 1, updated_at: '2025-01-01Z' },
  { id: 10, parent_id: 1, name: 'a', kind: 'directory', version: 1, updated_at: MOMENT, created_at: MOMENT },
  {
    id: 11,
    parent_id: 10,
    name: 'f',
    kind: 'file',
    version: 3,
    size_bytes: 30,
    updated_at: '2025-03-03Z',
    created_at: MOMENT,
    metadata: { tag: 'x' },
  },
  {
    id: 12,
    parent_id: 10,
    name: 'f',
    kind: 'file',
    version: 2,
    size_bytes: 12,
    updated_at: '2025-01-03Z',
    deleted_at: '2025-01-03Z',
    created_at: '2025-01-02Z',
  },
  {
    id: 13,
    parent_id: 10,
    name: 'f',
    kind: 'file',
    version: 1,
    size_bytes: 13,
    updated_at: '2025-01-04Z',
    deleted_at: '2025-01-04Z',
  },
  {
    id: 14,
    parent_id: 1,
    name: 'gone',
    kind: 'directory',
    version: 1,
    updated_at: '2025-01-05Z',
    deleted_at: '2025-01-05Z',
  },
  {
    id: 15,
    parent_id: 14,
    name: 'below',
    kind: 'file',
    version: 1,
    updated_at: '2025-01-05Z',
    deleted_at: '2025-01-05Z',
  },
];
const VERSIONS = [
  { id: 11, version: 1, size_bytes: 10, updated_at: MOMENT, name: 'old name' },
  { id: 11, version: 2, size_bytes: 20, updated_at: '2025-02-02Z', name: 'f' },
  { id: 12, version: 1, size_bytes: 12, updated_at: '2025-01-02Z', name: 'f' },
];
const ENTRIES = [
  {
    id: 7,
    command: 'upload',
    status: 'succeeded',
    primary_node_id: 11,
    created_at: MOMENT,
    started_at: MOMENT,
    completed_at: '2025-01-02T03:04:06Z',
    idempotency_key: 'k',
  },
  { id: 9, command: 'remove', status: 'failed', error: { code: 'EIO' }, started_at: MOMENT },
];

const stageAll = async () => {
  await stage(database(), 'nodes', NODES);
  await stage(database(), 'versions', VERSIONS);
  await stage(database(), 'entries', ENTRIES);
};
const TABLES = "'old.nodes', 'old.versions', 'old.entries'";
const check = (tables = TABLES) =>
  database().query<Fault & Record<string, unknown>>(
    `select * from filestore.check_import('${key}', ${tables})`,
  );
const importAll = (options = '', tables = TABLES) =>
  database().query(`call filestore.import_nodes('${key}', ${tables}${options})`);
const problems = () => database().query('select * from filestore.check_integrity()');
const nodes = () =>
  database().query(
    `select id::int, path, state, version, size_bytes::int from filestore.nodes
     where parent_id is not null order by id`,
  );
const totals = () =>
  one(
    database(),
    `select t.size_bytes::int, t.file_count::int, t.dir_count::int
     from filestore.backend_mounts m
     join filestore.nodes r on r.root_of_mount_id = m.id
     cross join lateral filestore.directory_totals(r.id) t
     where m.mount_key = $1`,
    [key],
  );

test('keeps ids, versions, moments, tombstones, history and the journal', async () => {
  await stageAll();
  expect(await check()).toEqual([]);
  await importAll();
  expect(await nodes()).toEqual([
    { id: 10, path: 'a', state: 'active', version: 1, size_bytes: 0 },
    { id: 11, path: 'a/f', state: 'active', version: 3, size_bytes: 30 },
    { id: 12, path: 'a/f', state: 'deleted', version: 2, size_bytes: 12 },
    { id: 13, path: 'a/f', state: 'deleted', version: 1, size_bytes: 13 },
    { id: 14, path: 'gone', state: 'deleted', version: 1, size_bytes: 0 },
    { id: 15, path: 'gone/below', state: 'deleted', version: 1, size_bytes: 0 },
  ]);
  expect(
    await one(database(), 'select created_at, updated_at, metadata from filestore.nodes where id = 11'),
  ).toEqual({ created_at: new Date(MOMENT), updated_at: new Date('2025-03-03Z'), metadata: { tag: 'x' } });
  expect(
    await database().query(
      `select id::int, version, path, size_bytes::int, valid_from, valid_to from filestore.snapshots order by id, version`,
    ),
  ).toEqual([
    {
      id: 11,
      version: 1,
      path: 'a/old name',
      size_bytes: 10,
      valid_from: new Date(MOMENT),
      valid_to: new Date('2025-02-02Z'),
    },
    {
      id: 11,
      version: 2,
      path: 'a/f',
      size_bytes: 20,
      valid_from: new Date('2025-02-02Z'),
      valid_to: new Date('2025-03-03Z'),
    },
    {
      id: 12,
      version: 1,
      path: 'a/f',
      size_bytes: 12,
      valid_from: new Date('2025-01-02Z'),
      valid_to: new Date('2025-01-03Z'),
    },
  ]);
  expect(
    await database().query(
      `select id::int, status, created_at, completed_at, duration_ms::int from filestore.journal_entries
       where command in ('upload', 'remove') order by id`,
    ),
  ).toEqual([
    {
      id: 7,
      status: 'succeeded',
      created_at: new Date(MOMENT),
      completed_at: new Date('2025-01-02T03:04:06Z'),
      duration_ms: 322,
    },
    { id: 9, status: 'failed', created_at: new Date(MOMENT), completed_at: new Date(MOMENT), duration_ms: 0 },
  ]);
  expect(await totals()).toEqual({ size_bytes: 30, file_count: 1, dir_count: 1 });
  expect(await problems()).toEqual([]);
});

test('lets new ids continue above the imported ones', async () => {
  await stage(database(), 'nodes', [{ id: 5_000_000, path: 'f', kind: 'file' }]);
  await stage(database(), 'entries', [{ id: 6_000_000, command: 'c', status: 'canceled' }]);
  await importAll('', "'old.nodes', null, 'old.entries'");
  const created = await one(
    database(),
    `select (filestore.upsert_file($1, 'g')).id::int as node, ((filestore.begin_command('c')).entry).id::int as entry`,
    [key],
  );
  expect(created.node).toBeGreaterThan(5_000_000);
  expect(created.entry).toBeGreaterThan(6_000_000);
  expect(await problems()).toEqual([]);
});

test('without its earlier versions, a node has a history that begins with its import', async () => {
  await stage(database(), 'nodes', NODES);
  await stage(database(), 'versions', VERSIONS.slice(1, 2));
  await importAll('', "'old.nodes', 'old.versions'");
  expect(
    await one(database(), 'select history_horizon from filestore.backend_mounts where mount_key = $1', [key]),
  ).toEqual({ history_horizon: new Date('2025-02-02Z') });
  await expect(database().query('select filestore.node_at(11, $1)', [MOMENT])).rejects.toMatchObject({
    constraint: 'snapshots_pruned',
  });
  expect(await problems()).toEqual([]);
});
