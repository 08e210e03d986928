import { expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { asAdmin } from '../support/databases/test-database.ts';
import { rolesForEachTest } from '../support/roles/roles.ts';
import { one } from '../support/rows/nodes.ts';
import { importDatabaseForEachTest, key, stage } from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();
const createRole = rolesForEachTest(database);
const connectAs = async (level: 'service' | 'operator') => {
  const role = await createRole();
  await database().query('select filestore.grant_access($1, $2)', [role.name, level]);
  return role.connect();
};

const call = (batch = 10_000) => `call filestore.import_nodes('${key}', 'old.nodes', batch => ${batch})`;
const problems = () => database().query('select * from filestore.check_integrity()');
const paths = async () =>
  Object.fromEntries(
    (
      await database().query<{ id: string; path: string }>(
        'select id, path from filestore.nodes where live and parent_id is not null order by id',
      )
    ).map(({ id, path }) => [Number(id), path]),
  );
const rootId = async () =>
  (
    await one(
      database(),
      `select n.id from filestore.nodes n join filestore.backend_mounts m on m.id = n.root_of_mount_id where m.mount_key = $1`,
      [key],
    )
  ).id as string;

const files = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, index) => ({
    id: first + index,
    path: `f${first + index}`,
    kind: 'file',
    size_bytes: 1,
  }));

/** Starts an import that waits in its second batch for a service, which creates the file of that path. */
async function startImport(path: string) {
  const [service, importer] = [await connectAs('service'), await database().connect()];
  await service.query('begin');
  await service.query(
    'insert into filestore.nodes (backend_mount_id, parent_id, name, kind) select backend_mount_id, id, $2, $3 from filestore.nodes where id = $1',
    [await rootId(), path, 'file'],
  );
  const { rows } = await importer.query('select pg_backend_pid() as pid');
  const running = await sendAndBlock(importer, call(5));
  expect(running.waits).toBe(true);
  return { service, importer, running, pid: rows[0].pid as number };
}

test('a killed import keeps its batches, and the same call continues', async () => {
  await stage(database(), 'nodes', files(11, 30));
  const { service, running, pid } = await startImport('f18');
  expect(Object.keys(await paths())).toHaveLength(5);
  await asAdmin((admin) => admin.query('select pg_terminate_backend($1)', [pid]));
  expect((await running.outcome).ok).toBe(false);
  await service.query('rollback');
  expect(await problems()).toEqual([]);

  await database().query(call(5));
  expect(Object.keys(await paths())).toHaveLength(20);
  expect(
    await database().query(
      'select nodes::int, finished_at is null as running from filestore.imports order by id',
    ),
  ).toEqual([
    { nodes: 5, running: false },
    { nodes: 15, running: false },
  ]);
  expect(await problems()).toEqual([]);
});

test('an import takes the rows that were staged when it began', async () => {
  await stage(database(), 'nodes', files(11, 30));
  const { service, running } = await startImport('f18');
  await database().query(
    "delete from old.nodes; update old.nodes set path = 'other'; insert into old.nodes values (40, 'late', 'file', 1)",
  );
  await service.query('rollback');
  expect((await running.outcome).ok).toBe(true);
  expect(Object.keys(await paths())).toHaveLength(20);
  await database().query(call());
  expect(await paths()).toMatchObject({ 11: 'f11', 40: 'late' });
});

test('a node that a service creates at a staged path ends the import, and the next call lists the row', async () => {
  await stage(database(), 'nodes', files(11, 30));
  const { service, running } = await startImport('f18');
  await service.query('commit');
  expect(await running.outcome).toMatchObject({
    ok: false,
    error: { code: '23505', constraint: 'nodes_live_child_key' },
  });
  expect(
    await database().query(`select id, reason from filestore.check_import('${key}', 'old.nodes')`),
  ).toEqual([{ id: '18', reason: 'nodes_name_taken' }]);
  expect(await problems()).toEqual([]);
});

test('a node that a service changes during an import is not overwritten', async () => {
  await stage(database(), 'nodes', files(11, 30));
  await database().query(call());
  await database().query('update old.nodes set size_bytes = 2');
  const [service, importer] = [await connectAs('service'), await database().connect()];
  await service.query('begin');
  await service.query('update filestore.nodes set size_bytes = 5 where id = 18');
  const running = await sendAndBlock(importer, call(5));
  expect(running.waits).toBe(true);
  await service.query('commit');
  expect(await running.outcome).toMatchObject({
    ok: false,
    error: { code: 'FS409', constraint: 'import_disturbed' },
  });
  expect(
    await database().query(
      'select size_bytes::int, count(*)::int from filestore.nodes where id >= 11 and depth = 1 and live group by 1 order by 1',
    ),
  ).toEqual([
    { size_bytes: 1, count: 14 },
    { size_bytes: 2, count: 5 },
    { size_bytes: 5, count: 1 },
  ]);
  expect(await problems()).toEqual([]);
});

test('of two imports into a mount, the later one goes on', async () => {
  await stage(database(), 'nodes', files(11, 30));
  const [holder, importer] = [await database().connect(), await database().connect()];
  await holder.query('begin');
  await holder.query('select filestore.lock_tree(filestore.find_mount($1), true)', [key]);
  const running = await sendAndBlock(importer, call(5));
  expect(running.waits).toBe(true);
  // What the second call does first.
  await database().query(`select filestore.begin_import('${key}', 'old.nodes', null, null, false, 5)`);
  await holder.query('rollback');
  expect(await running.outcome).toMatchObject({
    ok: false,
    error: { code: 'FS409', constraint: 'import_superseded' },
  });
  await database().query(call());
  expect(Object.keys(await paths())).toHaveLength(20);
  expect(await problems()).toEqual([]);
});

test('an import into tables that were analyzed while empty does not read them for each row', async () => {
  await stage(database(), 'nodes', files(11, 110));
  await database().query('vacuum analyze filestore.nodes');
  const importer = await database().connect();
  const scans = async () => {
    await importer.query('select pg_stat_force_next_flush()');
    const { rows } = await importer.query(
      "select pg_stat_get_numscans('filestore.nodes'::regclass)::int as scans",
    );
    return rows[0].scans as number;
  };
  const before = await scans();
  await importer.query(call());
  expect((await scans()) - before).toBeLessThan(50);
});

const tree = (
  ...rows: readonly (readonly [
    id: number,
    parent: number | null,
    name: string,
    version: number,
    more?: object,
  ])[]
) =>
  rows.map(([id, parent_id, name, version, more]) => ({
    id,
    parent_id,
    name,
    version,
    kind: name.startsWith('d') ? 'directory' : 'file',
    size_bytes: name.startsWith('d') ? 0 : id,
    updated_at: `2025-0${version}-01Z`,
    deleted_at: null,
    ...more,
  }));

test('a second pass swaps names, moves trees, deletes, restores and changes', async () => {
  await stage(
    database(),
    'nodes',
    tree(
      [10, null, 'd1', 1],
      [11, 10, 'd2', 1],
      [12, 11, 'f', 1],
      [13, null, 'f1', 1],
      [14, null, 'f2', 1],
      [15, null, 'd3', 1],
      [16, 15, 'f', 1],
      [17, null, 'f3', 1, { deleted_at: '2025-01-01Z' }],
      [18, 10, 'same', 1],
    ),
  );
  await database().query(call());
  await stage(
    database(),
    'nodes',
    tree(
      // d1 is now below its former child d2, in a new directory.
      [20, 11, 'd9', 1],
      [10, 20, 'd1', 2],
      [11, null, 'd2', 2],
      [12, 11, 'f', 2, { size_bytes: 1200 }],
      [13, null, 'f2', 2],
      [14, null, 'f1', 2],
      [15, null, 'd3', 2, { deleted_at: '2025-02-01Z' }],
      [16, 15, 'f', 2, { deleted_at: '2025-02-01Z' }],
      [17, null, 'f3', 2],
      [18, 10, 'same', 1],
      [21, null, 'd3', 1],
    ),
  );
  expect(await database().query(`select * from filestore.check_import('${key}', 'old.nodes')`)).toEqual([]);
  await database().query(call(2));
  expect(await paths()).toEqual({
    10: 'd2/d9/d1',
    11: 'd2',
    12: 'd2/f',
    13: 'f2',
    14: 'f1',
    17: 'f3',
    18: 'd2/d9/d1/same',
    20: 'd2/d9',
    21: 'd3',
  });
  expect(
    await database().query(
      `select id::int, version, name, valid_to from filestore.snapshots where id in (10, 12, 13, 16, 17) order by id`,
    ),
  ).toEqual(
    [
      [10, 'd1'],
      [12, 'f'],
      [13, 'f1'],
      [16, 'f'],
      [17, 'f3'],
    ].map(([id, name]) => ({ id, version: 1, name, valid_to: new Date('2025-02-01Z') })),
  );
  expect(await problems()).toEqual([]);
  const before = await one(database(), 'select sum(xmin::text::bigint) from filestore.nodes');
  await database().query(call());
  expect(await one(database(), 'select sum(xmin::text::bigint) from filestore.nodes')).toEqual(before);
});

test('a later pass does not overwrite what the mount has newer', async () => {
  await stage(database(), 'nodes', tree([10, null, 'f', 1]));
  await database().query(call());
  await database().query('update filestore.nodes set size_bytes = 5 where id = 10');
  await database().query('update filestore.nodes set size_bytes = 6 where id = 10');
  await stage(database(), 'nodes', tree([10, null, 'f', 2, { size_bytes: 7 }]));
  expect(
    await database().query(`select id, reason from filestore.check_import('${key}', 'old.nodes')`),
  ).toEqual([{ id: '10', reason: 'nodes_stale' }]);
});

test('without versions, a changed row becomes the next version', async () => {
  await stage(database(), 'nodes', [{ path: 'f', kind: 'file', size_bytes: 1 }]);
  await database().query(call());
  await stage(database(), 'nodes', [{ path: 'f', kind: 'file', size_bytes: 2 }]);
  await database().query(call());
  expect(
    await one(database(), "select version, size_bytes::int from filestore.nodes where path = 'f'"),
  ).toEqual({
    version: 2,
    size_bytes: 2,
  });
  expect(await database().query('select version, size_bytes::int from filestore.snapshots')).toEqual([
    { version: 1, size_bytes: 1 },
  ]);
  expect(await problems()).toEqual([]);
});

test('the setting of an import gives no right to write what only an import writes', async () => {
  await stage(database(), 'nodes', files(11, 12));
  await database().query(call());
  const insert = `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, state)
    select backend_mount_id, id, 'f', 'file', 'deleted' from filestore.nodes where id = $1`;
  for (const client of [await connectAs('operator'), await database().connect()]) {
    await client.query("set filestore.backfill_id = 'import'");
    await expect(client.query(insert, [await rootId()])).rejects.toMatchObject({
      constraint: 'nodes_born_live_check',
    });
  }
  const owner = await database().connect();
  await owner.query("set filestore.backfill_id = 'import'");
  await expect(
    owner.query('insert into filestore.snapshots select now(), now(), null, n.* from filestore.nodes n'),
  ).rejects.toMatchObject({ constraint: 'snapshots_fixed' });
  await expect(
    owner.query("insert into filestore.journal_entries (command, status) values ('c', 'succeeded')"),
  ).rejects.toMatchObject({ constraint: 'journal_entries_born_open_check' });
});
