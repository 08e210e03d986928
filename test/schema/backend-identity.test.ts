import type { Client } from 'pg';
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let key: string;

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  mount = await createMount(service);
  key = (await one(service, 'select mount_key from filestore.backend_mounts where id = $1', [mount.id]))
    .mount_key;
});

const create = (name: string, identity: string | null) =>
  one(service, 'select * from filestore.create_node($1, $2, backend_identity => $3)', [
    mount.rootId,
    name,
    identity,
  ]);

test('create_node, create_nodes and upsert_file store an identity', async () => {
  expect(await create('a', '1-2')).toMatchObject({ backend_identity: '1-2' });
  const batch = JSON.stringify([{ parent_id: mount.rootId, name: 'b', backend_identity: '3-4' }]);
  expect(await one(service, 'select * from filestore.create_nodes($1)', [batch])).toMatchObject({
    backend_identity: '3-4',
  });
  const upsert = 'select * from filestore.upsert_file($1, $2, backend_identity => $3)';
  expect(await one(service, upsert, [key, 'c', '5-6'])).toMatchObject({
    backend_identity: '5-6',
    version: 1,
  });
  expect(await one(service, upsert, [key, 'c', '7-8'])).toMatchObject({
    backend_identity: '7-8',
    version: 2,
  });
  expect(await one(service, upsert, [key, 'c', null])).toMatchObject({ backend_identity: null, version: 3 });
});

test('a change of it is a version, which history keeps and revert_node restores', async () => {
  const { id } = await create('a', '1');
  await service.query("update filestore.nodes set backend_identity = '2' where id = $1", [id]);
  const { rows } = await service.query(
    'select version, backend_identity from filestore.view_filestore_node_versions where id = $1 order by version',
    [id],
  );
  expect(rows).toEqual([
    { version: 1, backend_identity: '1' },
    { version: 2, backend_identity: '2' },
  ]);
  expect(await one(service, 'select * from filestore.revert_node($1, 1)', [id])).toMatchObject({
    backend_identity: '1',
  });
});

test('any number of nodes may share one, as hard links do', async () => {
  await create('a', 'same');
  await create('b', 'same');
  const { rows } = await service.query(
    `select name from filestore.nodes
     where hashtextextended(backend_identity, 0) = hashtextextended('same', 0) and backend_identity = 'same' order by 1`,
  );
  expect(rows).toEqual([{ name: 'a' }, { name: 'b' }]);
});

test('a copy is another object, and has none', async () => {
  const { id } = await create('a', '1');
  expect(
    await one(service, "select * from filestore.copy_tree($1, $2, 'copy')", [id, mount.rootId]),
  ).toMatchObject({
    backend_identity: null,
  });
});

test.each(['', 'i'.repeat(1025)])('an identity of 0 or more than 1024 bytes is refused', async (identity) => {
  await expect(create('a', identity)).rejects.toMatchObject({
    code: '23514',
    constraint: 'nodes_backend_identity_check',
    hint: expect.stringContaining('1024'),
  });
});
