import { describe, expect, test } from 'vitest';
import { createMount, createNode, one } from '../support/rows/nodes.ts';
import { type Fault, importDatabaseForEachTest, key, type Row, stage } from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const MOMENT = '2025-01-01Z';
const LATER = '2025-05-01Z';
const SECRET = { password: 'hunter2-Zq9x' };

const faults = async (tables = "'old.nodes'", mount = key) =>
  (await database().query<Fault & Row>(`select * from filestore.check_import('${mount}', ${tables})`)).map(
    ({ id, reason }) => [Number(id), reason],
  );
const importAll = (mount = key, options = '') =>
  database().query(`call filestore.import_nodes('${mount}', 'old.nodes'${options})`);
const problems = () => database().query('select * from filestore.check_integrity()');
const places = async () =>
  Object.fromEntries(
    (
      await database().query(
        'select id::int, path, version, live from filestore.nodes where id < 1000 and parent_id is not null order by id',
      )
    ).map(({ id, path, version, live }) => [id, [path, version, live]]),
  );

const known = { version: 1, created_at: MOMENT, updated_at: MOMENT, deleted_at: null };
const next = { ...known, version: 2, updated_at: LATER };
const dead = { updated_at: LATER, deleted_at: LATER };
const file = (id: number, parent_id: number | null, name: string, more: Row = known): Row => ({
  ...{ id, parent_id, name, kind: 'file', ...more },
});
const directory = (id: number, parent_id: number | null, name: string, more: Row = known): Row => ({
  ...{ id, parent_id, name, kind: 'directory', ...more },
});
const create = async (parent: unknown, name: string) =>
  (await one(database(), 'select (filestore.create_node($1, $2)).id', [parent, name])).id as string;

describe('the dry run lists', () => {
  test('of rows with one place only those that are live, in the same directory', async () => {
    await stage(database(), 'nodes', [
      directory(10, null, 'd'),
      directory(11, null, 'e'),
      file(12, 10, 'same'),
      file(13, 10, 'same'),
      file(14, 10, 'same', { ...known, ...dead }),
      file(15, 11, 'same'),
      file(16, 10, 'other'),
    ]);
    expect(await faults()).toEqual([
      [12, 'nodes_name_taken'],
      [13, 'nodes_name_taken'],
    ]);
  });

  test('no row below a staged root with the id that a directory of the mount has, and they are placed once', async () => {
    await stage(database(), 'nodes', [directory(10, null, 'd'), file(11, 10, 'f')]);
    await importAll();
    await stage(database(), 'nodes', [directory(10, null, ''), file(12, 10, 'x')]);
    expect(await faults()).toEqual([]);
    await importAll();
    expect(await places()).toMatchObject({ 11: ['d/f', 1, true], 12: ['x', 1, true] });
    expect(await problems()).toEqual([]);
  });

  test('a row whose place a node of the mount has that is not staged, but not that of a tombstone or of a node that leaves it', async () => {
    await stage(database(), 'nodes', [
      directory(10, null, 'd'),
      file(11, 10, 'leaves'),
      file(12, 10, 'stays'),
    ]);
    await importAll();
    await create(10, 'taken');
    await database().query('select filestore.delete_node($1)', [await create(10, 'deleted')]);
    await stage(database(), 'nodes', [
      file(11, 10, 'left', next),
      file(20, 10, 'leaves'),
      file(21, 10, 'taken'),
      file(22, 10, 'deleted'),
      file(23, 10, 'stays'),
      file(24, 10, 'free'),
      file(25, 10, 'taken', { ...known, ...dead }),
      file(26, null, 'taken'),
    ]);
    expect(await faults()).toEqual([
      [21, 'nodes_name_taken'],
      [23, 'nodes_name_taken'],
    ]);
  });

  test('a row with the id of a node of another mount, and what is in it', async () => {
    const other = await createMount(database(), 's3');
    const id = Number(await createNode(database(), other, other.rootId, 'd', 'directory'));
    await stage(database(), 'nodes', [directory(id, null, 'd'), file(11, id, 'f'), file(12, null, 'g')]);
    expect(await faults()).toEqual([
      [id, 'nodes_pkey'],
      [11, 'import_parent_refused'],
    ]);
    const root = Number(other.rootId);
    await stage(database(), 'nodes', [directory(root, null, 'd'), file(12, id, 'g')]);
    expect(await faults()).toEqual([
      [root, 'nodes_pkey'],
      [12, 'nodes_parent_elsewhere'],
    ]);
  });

  test('a live row in a directory that the mount has as a tombstone or as a file', async () => {
    await stage(database(), 'nodes', [directory(10, null, 'd', { ...known, ...dead }), file(11, null, 'f')]);
    await importAll();
    await stage(database(), 'nodes', [
      file(12, 10, 'a'),
      file(13, 11, 'a'),
      file(14, 10, 'b', { ...known, ...dead }),
    ]);
    expect(await faults()).toEqual([
      [12, 'nodes_parent_deleted'],
      [13, 'nodes_not_directory'],
    ]);
  });

  test('a path in a file of the mount, or in a directory that only another mount has', async () => {
    const other = await createMount(database(), 's3');
    await createNode(database(), other, other.rootId, 'd', 'directory');
    await stage(database(), 'nodes', [file(10, null, 'f')]);
    await importAll();
    await stage(
      database(),
      'nodes',
      ['f/x', 'd/x'].map((path, at) => ({ id: 11 + at, path, kind: 'file' })),
    );
    expect(await faults()).toEqual([11, 12].map((id) => [id, 'nodes_parent_missing']));
  });

  test('a deleted directory that holds nodes of services, and what would be moved or created in it', async () => {
    await stage(database(), 'nodes', [
      directory(10, null, 'held'),
      directory(11, null, 'empty'),
      file(12, 10, 'f'),
      file(13, 11, 'f'),
    ]);
    await importAll();
    await create(10, 'svc');
    await database().query('select filestore.delete_node($1)', [await create(11, 'svc')]);
    const gone = { ...next, ...dead };
    await stage(database(), 'nodes', [
      directory(10, null, 'held', gone),
      directory(11, null, 'empty', gone),
      file(12, 10, 'f', gone),
      file(13, 11, 'f', gone),
      file(14, 10, 'new', { ...known, ...dead }),
    ]);
    expect(await faults()).toEqual([
      [10, 'nodes_not_empty'],
      [12, 'import_parent_refused'],
      [14, 'import_parent_refused'],
    ]);
    await importAll(key, ', take_rest => true');
    expect(await places()).toEqual({
      10: ['held', 1, true],
      11: ['empty', 2, false],
      12: ['held/f', 1, true],
      13: ['empty/f', 2, false],
    });
    expect(await problems()).toEqual([]);
  });

  test('what is new or moved below a directory that keeps its name, because its row is refused, and nothing elsewhere', async () => {
    const equal = [
      directory(11, 10, 'k'),
      directory(12, 11, 'l'),
      file(13, 12, 'f'),
      directory(20, null, 'z'),
    ];
    await stage(database(), 'nodes', [
      directory(10, null, 'd', { ...known, metadata: {} }),
      ...equal,
      file(21, 20, 'g'),
    ]);
    await importAll();
    await stage(database(), 'nodes', [
      directory(10, null, 'e', { ...next, metadata: SECRET }),
      ...equal,
      file(14, 12, 'new'),
      file(21, 11, 'g', next),
      file(22, 20, 'new'),
      directory(23, null, 'y'),
    ]);
    expect(await faults()).toEqual([
      [10, 'import_secret_check'],
      [21, 'import_parent_refused'],
      [14, 'import_parent_refused'],
    ]);
    await importAll(key, ', take_rest => true');
    expect(await places()).toMatchObject({
      10: ['d', 1, true],
      13: ['d/k/l/f', 1, true],
      21: ['z/g', 1, true],
      22: ['z/new', 1, true],
      23: ['y', 1, true],
    });
    expect(await problems()).toEqual([]);
  });

  test('rows that are not newer than their nodes, or of another kind, although they differ', async () => {
    const rows = [10, 11, 12, 13, 14, 15, 16].map((id) =>
      file(id, null, `f${id}`, { ...next, size_bytes: 1 }),
    );
    await stage(database(), 'nodes', rows);
    await importAll();
    const change = (at: number, more: Row) => ({ ...rows[at], size_bytes: 2, ...more });
    await stage(database(), 'nodes', [
      change(0, {}),
      change(1, { version: 1, updated_at: '2025-06-01Z' }),
      change(2, { version: 3 }),
      change(3, { version: 3, updated_at: '2025-04-30Z' }),
      change(4, { version: 3, updated_at: '2025-06-01Z', kind: 'directory', size_bytes: 0 }),
      change(5, { version: 3, updated_at: '2025-06-01Z' }),
      rows[6] ?? {},
    ]);
    expect(await faults()).toEqual([
      ...[10, 11, 12, 13].map((id) => [id, 'nodes_stale']),
      [14, 'nodes_fixed_check'],
    ]);
    const unnumbered = rows.map(({ version: _, ...row }) => row);
    await stage(database(), 'nodes', [
      { ...unnumbered[0], size_bytes: 2 },
      { ...unnumbered[1], size_bytes: 2, updated_at: '2025-04-30Z' },
      { ...unnumbered[2], size_bytes: 2, updated_at: '2025-05-01T00:00:00.001Z' },
      { ...unnumbered[3], name: 'renamed' },
      { ...unnumbered[4] },
    ]);
    expect(await faults()).toEqual([10, 11, 13].map((id) => [id, 'nodes_stale']));
  });

  test('names of more than 255 bytes on local mounts only', async () => {
    await database().query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('disk', 'local', '/srv/disk')",
    );
    const rows = [
      file(10, null, 'ü'.repeat(128), next),
      file(11, null, `x${'ü'.repeat(127)}`, next),
      file(12, null, 'f', next),
    ];
    await stage(database(), 'nodes', rows);
    await stage(database(), 'versions', [
      { id: 12, version: 1, updated_at: MOMENT, path: 'x'.repeat(256) },
      { id: 11, version: 1, updated_at: MOMENT, path: 'x'.repeat(255) },
    ]);
    expect(await faults("'old.nodes', 'old.versions'", 'disk')).toEqual([
      [12, 'nodes_local_name_check'],
      [10, 'nodes_local_name_check'],
    ]);
    expect(await faults("'old.nodes', 'old.versions'")).toEqual([]);
  });
});

describe('an import', () => {
  test('creates nodes in directories that only the mount has', async () => {
    const root = await one(database(), `select id from filestore.node_by_path('${key}', '')`);
    const { id } = await one(database(), "select (filestore.create_node($1, 'svc', 'directory')).id::int", [
      root.id,
    ]);
    await stage(database(), 'nodes', [
      directory(11, id, 'd'),
      file(12, 11, 'f'),
      file(13, Number(root.id), 'g'),
      file(14, id, 'h', { ...known, ...dead }),
    ]);
    expect(await faults()).toEqual([]);
    await importAll(key, ', batch => 1');
    await stage(database(), 'nodes', [
      { ...known, id: 15, path: 'svc/i', kind: 'file' },
      { ...known, id: 16, path: 'svc/d/j', kind: 'file' },
    ]);
    await importAll();
    expect(await places()).toEqual({
      11: ['svc/d', 1, true],
      12: ['svc/d/f', 1, true],
      13: ['g', 1, true],
      14: ['svc/h', 1, false],
      15: ['svc/i', 1, true],
      16: ['svc/d/j', 1, true],
    });
    expect(await problems()).toEqual([]);
  });

  test('leaves tombstones alone that are at the path to which it moves another directory', async () => {
    await stage(database(), 'nodes', [directory(10, null, 'a'), directory(11, null, 'b')]);
    await importAll();
    const svc = await create(10, 'svc');
    await database().query('select filestore.delete_node($1)', [svc]);
    await create(11, 'kept');
    await stage(database(), 'nodes', [directory(10, null, 'c', next), directory(11, null, 'a', next)]);
    await importAll();
    expect(
      await database().query(
        'select n.path, n.version, n.live from filestore.nodes n where n.parent_id in (10, 11) order by n.id',
      ),
    ).toEqual([
      { path: 'a/svc', version: 2, live: false },
      { path: 'a/kept', version: 2, live: true },
    ]);
    expect(
      await database().query('select nodes::int from filestore.imports order by id desc limit 1'),
    ).toEqual([{ nodes: 3 }]);
    expect(await problems()).toEqual([]);
  });
});
