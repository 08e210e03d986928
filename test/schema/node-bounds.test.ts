import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, createNode, deleteNode, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let file: string;

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  mount = await createMount(service);
  file = await createNode(service, mount, mount.rootId, 'f');
});

const INSERT = (column: string, value: string) =>
  `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, ${column})
   values ($1, $2, 'new', 'file', ${value})`;
const UPDATE = (column: string, value: string) =>
  `update filestore.nodes set ${column} = ${value} where id = $1`;

const refusal = (constraint: string, size: string) => ({
  code: '23514',
  constraint,
  message: expect.stringContaining(size),
  hint: expect.stringMatching(/\w{3}/),
  // A plain check constraint would show the row here.
  detail: undefined,
});

const MEGABYTE = "jsonb_build_object('a', repeat('x', 1048576))";

describe('a node refuses', () => {
  test.each([
    ['metadata', MEGABYTE, 'nodes_metadata_check', '65536 bytes'],
    ['metadata', "'[]'", 'nodes_metadata_check', 'no JSON object'],
    ['metadata', "jsonb_build_object('a', repeat('x', 65528))", 'nodes_metadata_check', '65536 bytes'],
    // Each is written as six characters.
    ['metadata', "jsonb_build_object('a', repeat(chr(1), 10922))", 'nodes_metadata_check', '65536 bytes'],
    ['content_hash', "repeat('x', 10485760)", 'nodes_content_hash_check', '10485760 bytes'],
    ['content_hash', "repeat('x', 1025)", 'nodes_content_hash_check', '1025 bytes'],
    ['storage_class', "repeat('x', 10485760)", 'nodes_storage_class_check', '10485760 bytes'],
    ['storage_class', "repeat('x', 257)", 'nodes_storage_class_check', '257 bytes'],
    ['checksum', "'md5:' || repeat('a', 1021)", 'nodes_checksum_check', 'checksum'],
    ['link_target', "''", 'nodes_link_target_check', 'link_target'],
    ['link_target', "repeat('x', 4097)", 'nodes_link_target_check', 'link_target'],
    ['last_modified_at', "'infinity'", 'nodes_last_modified_check', 'infinity'],
    ['last_modified_at', "'-infinity'", 'nodes_last_modified_check', '-infinity'],
    ['last_modified_at', "'294276-12-31'", 'nodes_last_modified_check', '294276'],
    ['last_modified_at', "'0001-12-31 BC'", 'nodes_last_modified_check', 'BC'],
  ])('a %s of %s', async (column, value, constraint, size) => {
    await expect(service.query(INSERT(column, value), [mount.id, mount.rootId])).rejects.toMatchObject(
      refusal(constraint, size),
    );
    await expect(service.query(UPDATE(column, value), [file])).rejects.toMatchObject(
      refusal(constraint, size),
    );
  });

  test('metadata of 1 MB that is copied compressed from another table', async () => {
    await service.query('create temp table source (metadata jsonb)');
    await service.query(`insert into source values (${MEGABYTE})`);
    const { stored } = await one(service, 'select pg_column_size(metadata) as stored from source');
    expect(stored).toBeLessThan(65536);
    const refused = refusal('nodes_metadata_check', 'bytes');
    await expect(
      service.query('update filestore.nodes n set metadata = s.metadata from source s where n.id = $1', [
        file,
      ]),
    ).rejects.toMatchObject(refused);
    await expect(
      service.query(
        `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, metadata)
         select $1, $2, 'new', 'file', s.metadata from source s`,
        [mount.id, mount.rootId],
      ),
    ).rejects.toMatchObject(refused);
    await service.query('drop table source');
  });
});

test.each([
  ['metadata', "jsonb_build_object('a', repeat('x', 65527))"],
  ['content_hash', "repeat('x', 1024)"],
  ['storage_class', "repeat('x', 256)"],
  ['checksum', "'md5:' || repeat('a', 1020)"],
  ['link_target', "repeat('x', 4096)"],
  ['last_modified_at', "'0001-01-01T00:00:00Z'"],
  ['last_modified_at', "'9999-12-31T23:59:59.999Z'"],
])('a node accepts a %s of %s', async (column, value) => {
  await service.query(INSERT(column, value), [mount.id, mount.rootId]);
  await service.query(UPDATE(column, value), [file]);
  const stored = await one(
    service,
    `select bool_and(${column} = ${value}) as equal from filestore.nodes where backend_mount_id = $1 and kind = 'file'`,
    [mount.id],
  );
  expect(stored).toEqual({ equal: true });
});

/** The check also applies to a restore, or a session with triggers switched off. */
describe('without triggers, a node is still refused that has', () => {
  let superuser: Client;

  beforeAll(async () => {
    superuser = await database().connectAsSuperuser();
    await superuser.query('set session_replication_role = replica');
  });

  test.each([
    ["path = 'elsewhere'", 'nodes_derived_path_check'],
    ['depth = 2', 'nodes_derived_path_check'],
    ["parent_path = 'elsewhere'", 'nodes_derived_path_check'],
    ["name = 'g'", 'nodes_derived_path_check'],
    ['live = false', 'nodes_live_check'],
    ['deleted_at = now()', 'nodes_live_check'],
    ["state = 'deleted'", 'nodes_live_check'],
    ['parent_live = null', 'nodes_live_check'],
    ['parent_live = false', 'nodes_live_check'],
    ['root_of_mount_id = backend_mount_id', 'nodes_root_check'],
    ['parent_id = null, parent_path = null', 'nodes_root_check'],
    ["directory_path = 'f'", 'nodes_directory_check'],
    ["kind = 'directory'", 'nodes_directory_check'],
    ['size_bytes = -1', 'nodes_size_check'],
    ['version = 0', 'nodes_version_check'],
    ["metadata = '[]'", 'nodes_metadata_check'],
    ["name = 'a/b', path = 'a/b'", 'nodes_name_check'],
    ["kind = 'directory', directory_path = 'f', link_target = 'g'", 'nodes_link_target_check'],
  ])('%s', async (change, constraint) => {
    await expect(
      superuser.query(`update filestore.nodes set ${change} where id = $1`, [file]),
    ).rejects.toMatchObject({ code: '23514', constraint, hint: expect.any(String) });
  });

  test.each([
    ["deleted_at = '-infinity'", 'nodes_deleted_at_check'],
    ['deleted_at = null', 'nodes_live_check'],
    ["state = 'active'", 'nodes_live_check'],
    ['live = true', 'nodes_live_check'],
    ['parent_live = true', 'nodes_live_check'],
    ['parent_live = false', 'nodes_live_check'],
  ])('as a deleted node %s', async (change, constraint) => {
    await deleteNode(service, file);
    await expect(
      superuser.query(`update filestore.nodes set ${change} where id = $1`, [file]),
    ).rejects.toMatchObject({ code: '23514', constraint });
  });

  test.each([
    ["name = 'x'", 'nodes_root_check'],
    ["parent_path = ''", 'nodes_root_check'],
    ['parent_live = true', 'nodes_live_check'],
    ["path = 'x', directory_path = 'x'", 'nodes_derived_path_check'],
    ['root_of_mount_id = null', 'nodes_root_check'],
    ['depth = 1', 'nodes_derived_path_check'],
    ["state = 'deleted', deleted_at = now(), live = false", 'nodes_root_check'],
  ])('as the root of its mount %s', async (change, constraint) => {
    await expect(
      superuser.query(`update filestore.nodes set ${change} where id = $1`, [mount.rootId]),
    ).rejects.toMatchObject({ code: '23514', constraint });
  });
});
