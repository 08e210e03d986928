import type { Client } from 'pg';
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createDirectory, createMount, createNode, foldAll, type Mount, one } from '../support/rows/nodes.ts';
import { ageNodes, deleteDaysAgo } from '../support/rows/tombstones.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let operator: Client;
let mount: Mount;
let directory: string;
let file: string;

beforeAll(async () => {
  service = await connectAs('service');
  operator = await connectAs('operator');
});

beforeEach(async () => {
  mount = await createMount(database());
  directory = await createDirectory(database(), mount, mount.rootId, 'd');
  file = await createNode(database(), mount, directory, 'f');
});

const purge = async () => {
  await foldAll(operator);
  return (await one(operator, "select filestore.purge_deleted('30 days') as purged")).purged;
};

const deletedAt = async (id: string) =>
  (await one(database(), 'select deleted_at from filestore.nodes where id = $1', [id])).deleted_at;

const EPOCH = '1970-01-01T00:00:00Z';

const deletions: readonly [string, () => Promise<unknown>][] = [
  [
    'an update',
    () =>
      service.query("update filestore.nodes set state = 'deleted', deleted_at = $2 where id = $1", [
        file,
        EPOCH,
      ]),
  ],
  [
    'delete_batch',
    () => service.query('select filestore.delete_batch($1, moment => $2)', [directory, EPOCH]),
  ],
];

test.each(deletions)('%s with an old deleted_at does not shorten the retention', async (_, remove) => {
  await remove();
  expect(await deletedAt(file)).toEqual(new Date(EPOCH));
  // Next to a tombstone that really is so old.
  await deleteDaysAgo(database(), 31, await createNode(database(), mount, mount.rootId, 'old'));
  expect(await purge()).toBe(1);
  await ageNodes(database(), 29, directory, file);
  expect(await purge()).toBe(0);
  expect(await deletedAt(file)).not.toBeNull();
});

test.each(deletions)('a node that %s deleted is purged when the retention is over', async (_, remove) => {
  await remove();
  await ageNodes(database(), 31, directory, file);
  expect(await purge()).toBeGreaterThan(0);
  expect(await database().query('select from filestore.nodes where id = $1', [file])).toEqual([]);
});

test('a change of a tombstone restarts its retention', async () => {
  await service.query('select filestore.delete_node($1)', [file]);
  await ageNodes(database(), 31, file);
  await service.query(`update filestore.nodes set metadata = '{"keep": true}' where id = $1`, [file]);
  expect(await purge()).toBe(0);
});

test.each(['0001-01-01 BC', '-infinity', '4713-01-01 BC'])('a deletion at %s is refused', async (moment) => {
  const refused = { code: expect.stringMatching(/^(FS422|23514)$/), constraint: 'nodes_deleted_at_check' };
  await expect(
    service.query('select filestore.delete_batch($1, moment => $2)', [directory, moment]),
  ).rejects.toMatchObject(refused);
  await expect(
    service.query("update filestore.nodes set state = 'deleted', deleted_at = $2 where id = $1", [
      file,
      moment,
    ]),
  ).rejects.toMatchObject(refused);
  expect(await purge()).toBe(0);
  expect(await deletedAt(file)).toBeNull();
});
