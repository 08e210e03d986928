import { expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createDirectory, createNode, one } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

async function createMount(columns: { kind: string; root?: string; bucket?: string; prefix?: string }) {
  const { id } = await one(
    database(),
    `insert into filestore.backend_mounts (mount_key, backend_kind, root_path, bucket, prefix)
     values ('m', $1, $2, $3, $4) returning id`,
    [columns.kind, columns.root ?? null, columns.bucket ?? null, columns.prefix ?? null],
  );
  const root = await one(database(), 'select id from filestore.nodes where backend_mount_id = $1', [id]);
  return { id, rootId: root.id };
}

test.each([
  [{ kind: 'local', root: '/srv/media' }, 'file:///srv/media', 'file:///srv/media/a%20b/%C3%A9%25%23%3F.txt'],
  [{ kind: 'local', root: '/' }, 'file:///', 'file:///a%20b/%C3%A9%25%23%3F.txt'],
  [
    { kind: 'local', root: '/with space' },
    'file:///with%20space',
    'file:///with%20space/a%20b/%C3%A9%25%23%3F.txt',
  ],
  [{ kind: 's3', bucket: 'media-eu' }, 's3://media-eu', 's3://media-eu/a%20b/%C3%A9%25%23%3F.txt'],
  [
    { kind: 's3', bucket: 'media-eu', prefix: 'x/y' },
    's3://media-eu/x/y',
    's3://media-eu/x/y/a%20b/%C3%A9%25%23%3F.txt',
  ],
])('the location of a node on the mount %j is its URI', async (columns, rootLocation, fileLocation) => {
  const mount = await createMount(columns);
  const directory = await createDirectory(database(), mount, mount.rootId, 'a b');
  await createNode(database(), mount, directory, 'é%#?.txt');
  const rows = await database().query(
    'select mount_key, path, depth, location from filestore.view_filestore_active_nodes order by path',
  );
  expect(rows).toEqual([
    { mount_key: 'm', path: '', depth: 0, location: rootLocation },
    { mount_key: 'm', path: 'a b', depth: 1, location: expect.any(String) },
    { mount_key: 'm', path: 'a b/é%#?.txt', depth: 2, location: fileLocation },
  ]);
});

test.each([
  'plain-name_1.txt',
  'a b/c',
  '100%',
  'é/日本/🗂️',
  "!$&'()*+,;=:@~",
  'back\\slash"quote',
  '?#[]<>|^`{}',
])('the path %j survives encoding and decoding', async (path) => {
  const { encoded } = await one(database(), 'select filestore.percent_encode($1) as encoded', [path]);
  expect(decodeURIComponent(encoded)).toBe(path);
  expect(encoded).toMatch(/^[\x21-\x7e]*$/);
});

test('percent_encode keeps null', async () => {
  expect(await one(database(), 'select filestore.percent_encode(null) as encoded')).toEqual({
    encoded: null,
  });
});
