import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import {
  createChain,
  createMount,
  createNode,
  deleteNode,
  type Mount,
  moveNode,
  one,
} from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let reader: Client;
let mount: Mount;
let key: string;
let directory: string;
let file: string;
let gone: string;

beforeAll(async () => {
  reader = await connectAs('reader');
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  [directory] = (await createChain(database(), mount, 'd')) as [string];
  file = await createNode(database(), mount, directory, 'f');
  gone = await createNode(database(), mount, directory, 'gone');
  await deleteNode(database(), gone);
});

const idsOf = async (text: string, values: unknown[] = []): Promise<readonly string[]> =>
  (await reader.query(text, values)).rows.map(({ id }) => id);

test('node_by_id returns a live node, a tombstone, and no row for an unknown id', async () => {
  const byId = async (id: string | null) =>
    (await reader.query('select id, live from filestore.node_by_id($1)', [id])).rows;
  expect(await byId(file)).toEqual([{ id: file, live: true }]);
  expect(await byId(gone)).toEqual([{ id: gone, live: false }]);
  expect(await byId('999999')).toEqual([]);
  expect(await byId(null)).toEqual([]);
});

describe('nodes_by_id', () => {
  const byIds = (ids: readonly (string | null)[] | null) =>
    idsOf('select id from filestore.nodes_by_id($1)', [ids]);

  test('returns live nodes and tombstones once each, in the order of the ids', async () => {
    expect(await byIds([gone, '999999', file, null, gone, directory])).toEqual([gone, file, directory]);
    expect(await byIds([])).toEqual([]);
    expect(await byIds(null)).toEqual([]);
  });

  test('refuses more than 10000 ids, and accepts 10000', async () => {
    const many = (count: number) =>
      reader.query('select from filestore.nodes_by_id(array(select generate_series(1, $1::integer)))', [
        count,
      ]);
    await expect(many(10_001)).rejects.toMatchObject({
      ...refusal('FS422', '10001 ids'),
      constraint: 'node_ids_check',
    });
    expect((await many(10_000)).rows.length).toBeGreaterThan(3);
  });
});

describe('nodes_by_path', () => {
  const byPaths = (paths: readonly (string | null)[] | null) =>
    idsOf('select id from filestore.nodes_by_path($1, $2)', [key, paths]);

  test('returns the live nodes once each, in the order of the paths, which need not be canonical', async () => {
    expect(await byPaths(['d/f', 'd/gone', '/d//', 'none', null, 'd', '/'])).toEqual([
      file,
      directory,
      mount.rootId,
    ]);
    expect(await byPaths([])).toEqual([]);
    expect(await byPaths(null)).toEqual([]);
  });

  test('returns the tombstone that was deleted last with with_deleted, where no live node is', async () => {
    const twice = await createNode(database(), mount, directory, 'twice');
    await deleteNode(database(), twice);
    const again = await createNode(database(), mount, directory, 'twice');
    const withDeleted = () =>
      idsOf('select id from filestore.nodes_by_path($1, $2, with_deleted => true)', [
        key,
        ['d/twice', 'd/none', 'd/gone', 'd/f'],
      ]);
    expect(await withDeleted()).toEqual([again, gone, file]);
    await deleteNode(database(), again);
    expect(await withDeleted()).toEqual([again, gone, file]);
    expect(await byPaths(['d/twice', 'd/gone', 'd/f'])).toEqual([file]);
  });

  test('refuses an unknown mount, a path that is not valid, and more than 10000 paths', async () => {
    await expect(reader.query("select from filestore.nodes_by_path('nowhere', '{d}')")).rejects.toMatchObject(
      refusal('FS404', '"nowhere"'),
    );
    await expect(byPaths(['d', 'd/../e'])).rejects.toMatchObject(refusal('FS422', 'd/../e'));
    await expect(byPaths(Array.from({ length: 10_001 }, () => 'd'))).rejects.toMatchObject({
      ...refusal('FS422', '10001 paths'),
      constraint: 'node_ids_check',
    });
  });
});

describe('node_versions', () => {
  const versions = async (id: string, before: number | null, size: number) =>
    (
      await reader.query('select version, path, valid_to from filestore.node_versions($1, $2, $3)', [
        id,
        before,
        size,
      ])
    ).rows;

  test('pages through all versions, the current one first', async () => {
    const id = await createNode(database(), mount, directory, 'moved');
    for (const size of [1, 2, 3]) {
      await database().query('update filestore.nodes set size_bytes = $2 where id = $1', [id, size]);
    }
    await moveNode(database(), id, mount.rootId);
    const all = await versions(id, null, 100);
    expect(all.map(({ version }) => version)).toEqual([5, 4, 3, 2, 1]);
    expect(all[0]).toEqual({ version: 5, path: 'moved', valid_to: null });
    expect(all[1]).toMatchObject({ path: 'd/moved', valid_to: expect.any(Date) });
    expect([
      ...(await versions(id, null, 2)),
      ...(await versions(id, 4, 2)),
      ...(await versions(id, 2, 2)),
    ]).toEqual(all);
    expect(await versions(id, 1, 2)).toEqual([]);
    expect(await versions('999999', null, 2)).toEqual([]);
  });

  test.each([0, null, 100_001])('refuses a page of %s', async (size) => {
    await expect(versions(file, null, size as number)).rejects.toMatchObject({ constraint: 'limit_check' });
  });
});

test('command_by_id returns a journal entry, and no row for an unknown id', async () => {
  const { id } = await one(
    database(),
    "select (entry).id from filestore.begin_command('look', '{\"a\": 1}', principal => 'ada')",
  );
  const byId = async (entry: string) =>
    (await reader.query('select command, parameters, status from filestore.command_by_id($1)', [entry])).rows;
  expect(await byId(id)).toEqual([{ command: 'look', parameters: { a: 1 }, status: 'running' }]);
  expect(await byId('999999')).toEqual([]);
});
