import { describe, expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import { type Fault, importDatabaseForEachTest, key, type Row, stage } from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const MOMENT = '2025-01-02T03:04:05.678Z';

const check = (tables: string) =>
  database().query<Fault & Record<string, unknown>>(
    `select * from filestore.check_import('${key}', ${tables})`,
  );

describe('the dry run lists', () => {
  test('a changed row of a node whose version cannot increase', async () => {
    await stage(database(), 'nodes', [{ path: 'f', kind: 'file', size_bytes: 1, version: 2_000_000_000 }]);
    await database().query(`call filestore.import_nodes('${key}', 'old.nodes')`);
    const superuser = await database().connectAsSuperuser();
    await superuser.query('begin');
    await superuser.query('set local session_replication_role = replica');
    await superuser.query("update filestore.nodes set version = 2147483647 where path = 'f'");
    await superuser.query('commit');
    await stage(database(), 'nodes', [{ path: 'f', kind: 'file', size_bytes: 2 }]);
    expect(await check("'old.nodes'")).toMatchObject([{ path: 'f', reason: 'nodes_version_check' }]);
  });

  test('an id that leaves few ids of the range, as reserve_ids refuses it', async () => {
    const range = await one(
      database(),
      "select (seqmax - 100000)::text as last from pg_sequence where seqrelid = 'filestore.nodes_id_seq'::regclass",
    );
    await stage(database(), 'nodes', [{ id: range.last, path: 'f', kind: 'file' }]);
    expect(await check("'old.nodes'")).toMatchObject([{ id: range.last, reason: 'import_id_check' }]);
    await stage(database(), 'entries', [{ id: range.last, command: 'c', status: 'canceled' }]);
    expect(await check("null, null, 'old.entries'")).toMatchObject([
      { id: range.last, reason: 'import_id_check' },
    ]);
    await expect(
      database().query("select filestore.reserve_ids('nodes', $1)", [range.last]),
    ).rejects.toMatchObject({ constraint: 'import_id_check' });
  });

  test.each([
    ['the highest', 2 ** 31 - 1],
    ['the lowest', -(2 ** 31)],
  ])('staged versions with %s number of the type', async (_, version) => {
    await stage(database(), 'nodes', [{ id: 10, path: 'f', kind: 'file', version: 2 }]);
    const row = { id: 10, version, updated_at: MOMENT };
    await stage(database(), 'versions', [row, row]);
    expect(await check("'old.nodes', 'old.versions'")).toMatchObject([
      { staged: 'versions', version, reason: 'import_version_check' },
      { staged: 'versions', version, reason: 'import_version_check' },
    ]);
  });

  test.each<[what: string, row: Row, reason: string]>([
    ['without a version', { version: null }, 'import_version_check'],
    ['with a path that leads out', { path: '../../x' }, 'nodes_path_check'],
    ['with a path that is not canonical', { path: '/a//b' }, 'nodes_path_check'],
    ['with a control character in its path', { path: 'a\u0001/b' }, 'nodes_path_check'],
    ['with a name of two segments', { name: 'x/y' }, 'nodes_name_check'],
  ])('a staged version %s, and takes the one after it', async (_, row, reason) => {
    await stage(database(), 'nodes', [{ id: 10, path: 'f', kind: 'file', version: 3 }]);
    await stage(database(), 'versions', [
      { id: 10, version: 1, updated_at: MOMENT, ...row },
      { id: 10, version: 2, updated_at: '2025-02-02Z' },
    ]);
    expect(await check("'old.nodes', 'old.versions'")).toMatchObject([{ staged: 'versions', reason }]);
    await database().query(
      `call filestore.import_nodes('${key}', 'old.nodes', 'old.versions', take_rest => true)`,
    );
    expect(await database().query('select version from filestore.snapshots')).toEqual([{ version: 2 }]);
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  });

  test.each(['../../etc/passwd', 'a\u0001/b', ''])(
    'a tombstone with a parent and the path %j',
    async (path) => {
      const row = { parent_id: null, kind: 'file', deleted_at: MOMENT };
      await stage(database(), 'nodes', [
        { ...row, id: 10, name: 'passwd', path },
        { ...row, id: 11, name: 'f', path: 'gone/f' },
      ]);
      expect(await check("'old.nodes'")).toMatchObject([{ id: '10', reason: 'nodes_path_check' }]);
    },
  );
});
