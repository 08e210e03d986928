import type { Client } from 'pg';
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, createNode, deleteNode, type Mount } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let files: readonly string[];

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  mount = await createMount(database());
  files = [];
  for (const name of ['a', 'b', 'c'])
    files = [...files, await createNode(database(), mount, mount.rootId, name)];
});

const SET = 'select id, state, version from filestore.set_states($1, $2)';
const set = async (ids: readonly (string | null)[] | null, state: string | null) =>
  (await service.query(SET, [ids, state])).rows;
const states = async () =>
  (await database().query('select state from filestore.nodes where id = any ($1) order by id', [files])).map(
    ({ state }) => state,
  );

test('nodes get a state, and those that changed are returned in order of id', async () => {
  const [a, b, c] = files as [string, string, string];
  expect(await set([b, a, a], 'missing')).toEqual([
    { id: a, state: 'missing', version: 2 },
    { id: b, state: 'missing', version: 2 },
  ]);
  expect(await set([c, a, b], 'missing')).toEqual([{ id: c, state: 'missing', version: 2 }]);
  expect(await set(files, 'missing')).toEqual([]);
  expect(await states()).toEqual(['missing', 'missing', 'missing']);
});

test('tombstones, unknown ids and null are left out', async () => {
  const [a, b] = files as [string, string, string];
  await deleteNode(database(), b);
  expect(await set([b, '999999', null, a], 'inconsistent')).toMatchObject([{ id: a }]);
  expect(await set([], 'missing')).toEqual([]);
  expect(await set(null, 'missing')).toEqual([]);
  expect(await states()).toEqual(['inconsistent', 'deleted', 'active']);
});

test('a state that one node cannot get changes none', async () => {
  const [a] = files as [string];
  await set([a], 'missing');
  await expect(set(files, 'inconsistent')).rejects.toMatchObject({
    ...refusal('FS422', '"a"'),
    constraint: 'nodes_state_change_check',
  });
  expect(await states()).toEqual(['missing', 'active', 'active']);
});

test.each(['deleted', null])('the state %s is refused', async (state) => {
  await expect(set(files, state)).rejects.toMatchObject({
    ...refusal('FS422', `cannot be set to ${state}`),
    constraint: 'nodes_state_change_check',
  });
});

test('more than 10000 ids are refused', async () => {
  await expect(
    service.query("select filestore.set_states(array(select generate_series(1, 10001)), 'missing')"),
  ).rejects.toMatchObject({ constraint: 'node_ids_check' });
});

test('nodes are locked in order of id, so that two calls do not deadlock', async () => {
  const [a, b, c] = files as [string, string, string];
  const [other, third] = [await connectAs('service'), await connectAs('service')];
  await other.query('begin');
  await other.query(SET, [[b], 'missing']);
  const { waits, outcome } = await sendAndBlock(service, SET, [[c, b, a], 'inconsistent']);
  expect(waits).toBe(true);
  const lock = (id: string) =>
    third.query('select from filestore.nodes where id = $1 for no key update nowait', [id]);
  await expect(lock(a)).rejects.toMatchObject({ code: '55P03' });
  await lock(c);
  await other.query('rollback');
  expect(await outcome).toMatchObject({ ok: true });
  expect(await states()).toEqual(['inconsistent', 'inconsistent', 'inconsistent']);
});
