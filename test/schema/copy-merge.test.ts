import type { Client } from 'pg';
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { wrongTotals } from '../support/rows/directory-totals.ts';
import { createMount, deleteNode, type Mount, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf, livePaths } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let key: string;

beforeAll(async () => {
  service = await connectAs('service');
});

/** The files from/f (1 byte), from/sub/g (2) and from/sub/new/h (3), and to/from/f (10), to/from/sub/g (20) and to/from/own (30). */
beforeEach(async () => {
  mount = await createMount(service);
  key = await keyOf(service, mount.id);
  for (const [path, size] of Object.entries(FILES)) {
    await service.query(
      "select filestore.upsert_file($1, $2, $3::bigint, metadata => jsonb_build_object('size', $3::bigint))",
      [...[key, path, size]],
    );
  }
  await service.query(
    "select filestore.merge_metadata(n.id, '{\"a\": 1}') from filestore.node_by_path($1, 'to/from/sub') n",
    [key],
  );
});

const FILES = {
  'from/f': 1,
  'from/sub/g': 2,
  'from/sub/new/h': 3,
  'from-': 4,
  'to/from/f': 10,
  'to/from/sub/g': 20,
  'to/from/own': 30,
};

const idAt = async (path: string) =>
  (await one(service, 'select id from filestore.node_by_path($1, $2)', [key, path])).id;

const copy = async (path: string, parent: string, onConflict: string, rest = '') =>
  one(service, `select * from filestore.copy_tree($1, $2, on_conflict => $3${rest})`, [
    await idAt(path),
    await idAt(parent),
    onConflict,
  ]);

/** Size, metadata and version of each live node below to/from, by path. */
async function merged() {
  const { rows } = await service.query(
    `select substr(path, 9) as path, size_bytes::integer as size, metadata, version from filestore.nodes
     where backend_mount_id = $1 and live and path >= 'to/from' and path < 'to/from0' order by path`,
    [mount.id],
  );
  return Object.fromEntries(
    rows.map(({ path, size, metadata, version }) => [path, [size, metadata.size ?? metadata.a, version]]),
  );
}

test('with overwrite, files get the content of the originals, and directories are merged', async () => {
  const [top, file] = [await idAt('to/from'), await idAt('to/from/f')];
  expect(await copy('from', 'to', 'overwrite')).toMatchObject({ id: top, path: 'to/from', version: 1 });
  expect(await merged()).toEqual({
    '': [0, undefined, 1],
    f: [1, 1, 2],
    own: [30, 30, 1],
    sub: [0, 1, 2],
    'sub/g': [2, 2, 2],
    'sub/new': [0, undefined, 1],
    'sub/new/h': [3, 3, 1],
  });
  expect(await idAt('to/from/f')).toBe(file);
  expect(await wrongTotals(service)).toEqual([]);
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
});

test('with skip, files that exist stay', async () => {
  await copy('from', 'to', 'skip');
  expect(await merged()).toMatchObject({
    f: [10, 10, 1],
    own: [30, 30, 1],
    'sub/g': [20, 20, 1],
    'sub/new/h': [3, 3, 1],
  });
});

test('with refuse, and for null, nothing is copied', async () => {
  const before = await merged();
  for (const onConflict of ['refuse', null]) {
    await expect(copy('from', 'to', onConflict as string)).rejects.toMatchObject({
      constraint: 'nodes_name_taken',
    });
  }
  await expect(copy('from', 'to', 'merge')).rejects.toMatchObject({ constraint: 'copy_conflict_check' });
  expect(await merged()).toEqual(before);
});

test('where the name is free, the choice makes no difference', async () => {
  expect(await copy('from/sub', 'to', 'skip')).toMatchObject({ path: 'to/sub', version: 1 });
  expect(await livePaths(service, mount.id)).toEqual(expect.arrayContaining(['to/sub/g', 'to/sub/new/h']));
});

test('a file is overwritten or kept, and a missing one becomes active', async () => {
  const id = await idAt('to/from/f');
  await service.query("update filestore.nodes set state = 'missing' where id = $1", [id]);
  expect(await copy('from/f', 'to/from', 'skip')).toMatchObject({ id, state: 'missing', size_bytes: '10' });
  expect(await copy('from/f', 'to/from', 'overwrite')).toMatchObject({
    id,
    state: 'active',
    size_bytes: '1',
  });
});

test('a whole mount is merged into a directory of another mount', async () => {
  const other = await createMount(service, 's3');
  const otherKey = await keyOf(service, other.id);
  await service.query("select filestore.upsert_file($1, 'backup/from/f', 99)", [otherKey]);
  const copied = await one(
    service,
    "select * from filestore.copy_tree($1, $2, 'backup', on_conflict => 'overwrite')",
    [mount.rootId, other.rootId],
  );
  expect(copied).toMatchObject({ path: 'backup', backend_mount_id: other.id });
  expect(await livePaths(service, other.id)).toEqual([
    'backup',
    ...(await livePaths(service, mount.id)).map((path) => `backup/${path}`),
  ]);
  expect(
    await one(service, "select size_bytes from filestore.node_by_path($1, 'backup/from/f')", [otherKey]),
  ).toEqual({ size_bytes: '1' });
  expect(await wrongTotals(service)).toEqual([]);
});

test('a directory is copied into the directory that holds it', async () => {
  await service.query("select filestore.upsert_file($1, 'a/a/x', 7)", [key]);
  await copy('a/a', '/', 'overwrite');
  expect((await livePaths(service, mount.id)).filter((path) => path.startsWith('a'))).toEqual([
    'a',
    'a/a',
    'a/a/x',
    'a/x',
  ]);
  await expect(copy('a', '/', 'overwrite')).rejects.toMatchObject({
    ...refusal('FS422', '"a" cannot be copied into itself ("a")'),
    constraint: 'nodes_cycle_check',
  });
});

test('a file never replaces a directory, nor a directory a file', async () => {
  await service.query("select filestore.upsert_file($1, 'to/from/sub/new')", [key]);
  await deleteNode(service, await idAt('to/from/f'));
  await service.query("select filestore.ensure_directory($1, 'to/from/f')", [key]);
  for (const onConflict of ['skip', 'overwrite']) {
    await expect(copy('from', 'to', onConflict)).rejects.toMatchObject({
      ...refusal('FS409', '"to/from/f" is a directory'),
      constraint: 'nodes_directory_in_the_way',
    });
  }
  await deleteNode(service, await idAt('to/from/f'));
  await expect(copy('from', 'to', 'overwrite')).rejects.toMatchObject({
    ...refusal('FS409', '"to/from/sub/new" is a file'),
    constraint: 'nodes_file_in_the_way',
  });
});

test('another version than expected is refused', async () => {
  await expect(copy('from', 'to', 'overwrite', ', expected_version => 7')).rejects.toMatchObject({
    constraint: 'nodes_stale',
  });
});

test('a file that is moved away while a merge waits for it is not overwritten, and nothing is copied', async () => {
  const [id, sub] = [await idAt('to/from/f'), await idAt('to/from/sub')];
  const mover = await connectAs('service');
  await mover.query('begin');
  await mover.query("select filestore.move_node($1, $2, 'moved')", [id, sub]);
  const before = await merged();
  const { waits, outcome } = await sendAndBlock(
    service,
    "select * from filestore.copy_tree($1, $2, on_conflict => 'overwrite')",
    [await idAt('from'), await idAt('to')],
  );
  expect(waits).toBe(true);
  await mover.query('commit');
  expect(await outcome).toMatchObject({ ok: false, error: { code: 'FS409', constraint: 'nodes_busy' } });
  const { f: moved, ...others } = before;
  expect(await merged()).toEqual({ ...others, 'sub/moved': [10, 10, 2] });
  expect(moved).toEqual([10, 10, 1]);
});

test('twenty thousand nodes without statistics are merged, and then overwritten, in a session that merged few before', async () => {
  await copy('from', 'to', 'skip');
  const many = await one(service, "select id from filestore.ensure_directory($1, 'from/many')", [key]);
  await service.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind)
     select $1, $2, 'from/many', 'f' || g, 'file' from generate_series(1, 20000) g`,
    [mount.id, many.id],
  );
  // Comparing every pair of rows would take minutes.
  await service.query("set statement_timeout = '30s'");
  await copy('from', 'to', 'skip');
  await copy('from', 'to', 'overwrite');
  await service.query('reset statement_timeout');
  expect(
    (await livePaths(service, mount.id)).filter((path) => path.startsWith('to/from/many/')),
  ).toHaveLength(20_000);
}, 90_000);
