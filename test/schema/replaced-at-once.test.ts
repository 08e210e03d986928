import type { Client } from 'pg';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createDirectory, createMount, createNode, foldAll, type Mount } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

/** What a function in "returning" does, before the keys of its statement are checked. */
const REPLACEMENTS = {
  deletes: "update filestore.nodes set state = 'deleted' where id = created",
  moves: 'update filestore.nodes set parent_id = moved_to where id = created',
} as const;
type Replacement = keyof typeof REPLACEMENTS;

let service: Client;
beforeAll(async () => {
  service = await connectAs('service');
  for (const [name, statement] of Object.entries(REPLACEMENTS)) {
    await service.query(
      `create function pg_temp.${name}(created bigint, moved_to bigint) returns void language plpgsql as
       $$ begin ${statement}; end $$`,
    );
  }
});

afterEach(() => service.query('rollback'));

let mount: Mount;
let directory: string;
let destination: string;
beforeEach(async () => {
  mount = await createMount(database());
  directory = await createDirectory(database(), mount, mount.rootId, 'd');
  destination = await createDirectory(database(), mount, mount.rootId, 'destination');
});

const insertAnd = (replacement: Replacement, mountId: string, parentId: string, parentPath: string) =>
  service.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind, size_bytes)
     values ($1, $2, $3, 'f', 'file', 7) returning pg_temp.${replacement}(id, $4)`,
    [mountId, parentId, parentPath, destination],
  );

const problems = () => database().query('select * from filestore.check_integrity()');

interface Place {
  readonly mountId: string;
  readonly parentId: string;
  readonly parentPath: string;
}

const WRONG_PLACES: readonly (readonly [string, () => Promise<Place>])[] = [
  ['no directory', async () => ({ mountId: mount.id, parentId: '999999999', parentPath: 'd' })],
  ['another path', async () => ({ mountId: mount.id, parentId: directory, parentPath: 'no/such' })],
  ['no mount', async () => ({ mountId: '999999999', parentId: directory, parentPath: 'd' })],
  [
    'another mount',
    async () => ({ mountId: (await createMount(database())).id, parentId: directory, parentPath: 'd' }),
  ],
  [
    'a file',
    async () => {
      const file = await createNode(database(), mount, mount.rootId, 'file');
      return { mountId: mount.id, parentId: file, parentPath: 'file' };
    },
  ],
];

describe.each(Object.keys(REPLACEMENTS) as readonly Replacement[])(
  'a node that the statement that creates it %s',
  (replacement) => {
    test.each(WRONG_PLACES)('is refused below %s', async (_, makePlace) => {
      const { mountId, parentId, parentPath } = await makePlace();
      await expect(insertAnd(replacement, mountId, parentId, parentPath)).rejects.toMatchObject({
        code: 'FS404',
        constraint: 'nodes_parent_missing',
        hint: expect.any(String),
      });
    });

    test('is accepted below its parent', async () => {
      await insertAnd(replacement, mount.id, mount.rootId, '');
      await foldAll(database());
      expect(await problems()).toEqual([]);
    });
  },
);

test('a directory and a file in it are created, and moved by one statement, in one transaction', async () => {
  await service.query('begin');
  await service.query(
    "select filestore.upsert_file(mount_key, 'd/e/f') from filestore.backend_mounts where id = $1",
    [mount.id],
  );
  await service.query(
    "update filestore.nodes set parent_id = $2 where backend_mount_id = $1 and name in ('d', 'e', 'f')",
    [mount.id, destination],
  );
  await service.query('commit');
  const paths = await database().query(
    "select path from filestore.nodes where backend_mount_id = $1 and name in ('d', 'e', 'f') order by path",
    [mount.id],
  );
  expect(paths.map(({ path }) => path)).toEqual(['destination/d', 'destination/e', 'destination/f']);
  await foldAll(database());
  expect(await problems()).toEqual([]);
});

describe('a node below another path is refused when its directory is moved too', () => {
  const refused = { code: 'FS404', constraint: 'nodes_parent_missing', hint: expect.any(String) };

  test('by an earlier statement of the transaction', async () => {
    await service.query('begin');
    await service.query('update filestore.nodes set parent_id = $2 where id = $1', [directory, destination]);
    await expect(insertAnd('deletes', mount.id, directory, 'd')).rejects.toMatchObject(refused);
  });

  test('by the statement that replaces the node', async () => {
    await service.query(
      `create or replace function pg_temp.move_both(created bigint, directory bigint, moved_to bigint) returns void
       language plpgsql as
       $$ begin update filestore.nodes set parent_id = moved_to where id in (created, directory); end $$`,
    );
    await expect(
      service.query(
        `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind)
         values ($1, $2, 'no/such', 'f', 'file') returning pg_temp.move_both(id, $2, $3)`,
        [mount.id, directory, destination],
      ),
    ).rejects.toMatchObject(refused);
  });
});

test('a tree is created, moved and deleted in one transaction, each by one statement', async () => {
  await service.query('begin');
  for (const statement of [
    "select filestore.upsert_file(m.mount_key, path) from filestore.backend_mounts m, (values ('a/b/c/f'), ('a/g')) p (path) where m.id = $1",
    "update filestore.nodes set parent_id = (select id from filestore.nodes where backend_mount_id = $1 and path = 'd') where backend_mount_id = $1 and path = 'a/b'",
    "update filestore.nodes set state = 'deleted' where backend_mount_id = $1 and parent_id is not null",
  ]) {
    await service.query(statement, [mount.id]);
  }
  await service.query('commit');
  await foldAll(database());
  expect(await problems()).toEqual([]);
});
