import type { Client } from 'pg';
import { afterEach, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { insertMount, one } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import { directory, file, readIds, readStates, scan } from '../support/rows/scans.ts';

let service: Client;
let key: string;
let mountId: string;
const { database, connectAs } = diskForEachTest((disk) => {
  ({ service, key, mountId } = disk);
});

afterEach(async () => {
  expect(await database().query('select from filestore.scan_entries')).toEqual([]);
  expect(await database().query('select from filestore.scan_changes')).toEqual([]);
});

const sync = async (entries: readonly unknown[], place = '', client = service) =>
  (
    await client.query('select * from filestore.sync_nodes($1, $2, $3)', [
      key,
      JSON.stringify(entries),
      place,
    ])
  ).rows;
const outcomes = async (entries: readonly unknown[], place = '') =>
  (await sync(entries, place)).map(({ path, version, outcome }) => `${path} ${version} ${outcome}`);

test('creates files and directories with those above them, in the order given', async () => {
  expect(await outcomes([file('b/c/d'), directory('a', '1'), file('b/e')])).toEqual([
    'b/c/d 1 created',
    'a 1 created',
    'b/e 1 created',
  ]);
  expect(await readStates(service, key)).toEqual([
    'a active',
    'b active',
    'b/c active',
    'b/c/d active',
    'b/e active',
  ]);
});

test('refuses entries that need more than 30000 directories of their own, and creates nothing', async () => {
  const entries = Array.from({ length: 10_000 }, (_, number) => file(`${number}/a/b/c/d`));
  await expect(sync(entries)).rejects.toMatchObject({
    code: 'FS422',
    constraint: 'limit_check',
    message: 'the entries need more than 30000 directories that are not among them',
  });
  expect(await readStates(service, key)).toEqual([]);
});

test('writes only what changed, and sees everything', async () => {
  await sync([file('a', '1', 5), file('b', '2', 5), directory('d', '3')], 'top');
  expect(
    await outcomes([file('b', '2', 6), file('a', '1', 5), directory('d', '4'), file('c')], 'top'),
  ).toEqual(['top/b 2 changed', 'top/a 1 unchanged', 'top/d 2 changed', 'top/c 1 created']);
  const { rows } = await service.query(
    `select n.path from filestore.nodes n join filestore.node_sightings s on s.node_id = n.id
     where n.backend_mount_id = $1 and s.last_reconciled_at > now() - interval '1 minute' order by 1`,
    [mountId],
  );
  expect(rows.map(({ path }) => path)).toEqual(['top', 'top/a', 'top/b', 'top/c', 'top/d']);
});

test('marks nothing as missing, moves nothing, and finds what was missing', async () => {
  await scan(service, key, [file('a', '1'), file('b', '2')]);
  await scan(service, key, [file('b', '2')]);
  await sync([file('c', '2'), file('a', '1')]);
  expect(await readStates(service, key)).toEqual(['a active', 'b active', 'c active']);
});

test('overwrites what others wrote a moment ago', async () => {
  await service.query("select filestore.upsert_file($1, 'a', 5)", [key]);
  expect(await outcomes([file('a', '1', 6)])).toEqual(['a 2 changed']);
});

test('returns an entry that no node can have as refused', async () => {
  expect(await outcomes([file('a\u0001'), file('b')])).toEqual(['a\u0001 null refused', 'b 1 created']);
});

test('refuses a file where a directory is needed, and the other way round; nothing is written', async () => {
  await sync([file('a'), directory('d')]);
  await expect(sync([file('new'), file('a/b')])).rejects.toMatchObject({
    code: 'FS409',
    constraint: 'nodes_file_in_the_way',
  });
  await expect(sync([file('new'), file('d')])).rejects.toMatchObject({
    code: 'FS409',
    constraint: 'nodes_directory_in_the_way',
  });
  await expect(sync([file('new')], 'a')).rejects.toMatchObject({
    code: 'FS409',
    constraint: 'nodes_file_in_the_way',
  });
  await expect(sync([file('new'), { path: 'x', size_bytes: -1 }])).rejects.toMatchObject({ code: 'FS422' });
  await expect(sync([{ path: '../x' }])).rejects.toMatchObject({
    code: 'FS422',
    constraint: 'scan_entries_path_check',
  });
  expect(await readStates(service, key)).toEqual(['a active', 'd active']);
});

test('belongs to the command for which the transaction works', async () => {
  await sync([file('a', '1', 5)]);
  const { id } = await one(service, "select (entry).id from filestore.begin_command('import')");
  await service.query('begin');
  await service.query('select filestore.begin_work($1)', [id]);
  await sync([file('a', '1', 6)]);
  await service.query("select filestore.finish_command($1, 'succeeded')", [id]);
  await service.query('commit');
  expect(
    await database().query(
      'select superseded_by_journal_id as id from filestore.snapshots where backend_mount_id = $1',
      [mountId],
    ),
  ).toEqual([{ id }]);
});

test('several callers sync the same entries at once', async () => {
  const entries = Array.from({ length: 300 }, (_, index) =>
    file(`d${index % 7}/e${index % 3}/f${index}`, `${index}`),
  );
  const clients = [await connectAs('service'), await connectAs('service'), await connectAs('service')];
  const results = await Promise.all(clients.map((client) => sync(entries, 'p', client)));
  expect(results[0]?.map(({ node_id: id }) => id)).toEqual(results[1]?.map(({ node_id: id }) => id));
  const created = results.flat().filter(({ outcome }) => outcome === 'created');
  expect(created).toHaveLength(300);
});

test('says that a node was deleted at the same time, and not that its name is refused', async () => {
  await sync([file('d/a'), file('e/b')]);
  const ids = await readIds(service, key);
  const deleter = await connectAs('service');
  // The sync waits in the middle for a name that another transaction has not committed.
  const holder = await connectAs('service');
  await holder.query('begin');
  await holder.query("select filestore.create_node($1, 'd-', 'directory')", [
    (await one(service, "select id from filestore.node_by_path($1, '')", [key])).id,
  ]);
  const syncing = await sendAndBlock(service, 'select * from filestore.sync_nodes($1, $2)', [
    key,
    JSON.stringify([directory('c'), directory('d'), directory('d-'), file('d/a'), file('d/new')]),
  ]);
  expect(syncing.waits).toBe(true);
  await deleter.query('select filestore.delete_node($1)', [ids['d/a']]);
  const removal = await sendAndBlock(deleter, 'select filestore.delete_node($1)', [ids.d]);
  expect(removal.waits).toBe(true);
  await holder.query('rollback');
  expect(await syncing.outcome).toMatchObject({ ok: true });
  expect(await removal.outcome).toMatchObject({ ok: false, error: { constraint: 'nodes_not_empty' } });
  expect(await readStates(service, key)).toEqual([
    'c active',
    'd active',
    'd- active',
    'd/a deleted',
    'd/a active',
    'd/new active',
    'e active',
    'e/b active',
  ]);
});

test.each([
  ['a directory', "select filestore.upsert_directory($1, 'a', replace_file => true)"],
  [
    'another file',
    "select filestore.delete_node((filestore.node_by_path($1, 'a')).id), filestore.upsert_file($1, 'a', 5)",
  ],
])('does not say that a file was written which became %s while it waited', async (_, replace) => {
  await sync([file('a')]);
  const writer = await connectAs('service');
  await writer.query('begin');
  await writer.query(replace, [key]);
  const { waits, outcome } = await sendAndBlock(service, 'select * from filestore.sync_nodes($1, $2)', [
    key,
    JSON.stringify([{ ...file('a'), size_bytes: 7 }, file('b')]),
  ]);
  expect(waits).toBe(true);
  await writer.query('commit');
  expect(await outcome).toMatchObject({ ok: false, error: { code: 'FS409', constraint: 'nodes_busy' } });
});

test('does not say that a file is unchanged which became a directory while it wrote another one', async () => {
  await sync([file('a'), file('b')]);
  const writer = await connectAs('service');
  await writer.query('begin');
  await writer.query("select filestore.upsert_file($1, 'b', 6)", [key]);
  const { waits, outcome } = await sendAndBlock(service, 'select * from filestore.sync_nodes($1, $2)', [
    key,
    JSON.stringify([file('a'), { ...file('b'), size_bytes: 7 }]),
  ]);
  expect(waits).toBe(true);
  await (await connectAs('service')).query(
    "select filestore.upsert_directory($1, 'a', replace_file => true)",
    [key],
  );
  await writer.query('commit');
  expect(await outcome).toMatchObject({ ok: false, error: { code: 'FS409', constraint: 'nodes_busy' } });
});

test('reports an entry that is refused although a node has a similar path', async () => {
  const bucket = `${key}-bucket`;
  await insertMount(service, { mount_key: bucket, backend_kind: 's3', bucket });
  const call = async (entries: readonly unknown[]) =>
    (await service.query('select * from filestore.sync_nodes($1, $2)', [bucket, JSON.stringify(entries)]))
      .rows;
  await call([directory('a')]);
  expect(await call([{ path: 'a//', kind: 'directory' }])).toMatchObject([
    { path: 'a/', outcome: 'refused' },
  ]);
});

test('reads a few nodes for each entry, however many the mount has', async () => {
  const entries = (count: number) =>
    Array.from({ length: count }, (_, index) => file(`f${index}`, `${index}`));
  await sync(entries(2000));
  await service.query('begin');
  await sync(entries(2500));
  const { read } = await one(
    service,
    "select seq_tup_read + idx_tup_fetch as read from pg_stat_xact_user_tables where schemaname = 'filestore' and relname = 'nodes'",
  );
  await service.query('rollback');
  expect(Number(read)).toBeLessThan(50_000);
});
