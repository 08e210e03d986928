import type { Client } from 'pg';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createDirectory, createMount, createNode, foldAll, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

const REFUSED = { code: 'FS404', constraint: 'nodes_parent_missing', hint: expect.any(String) };

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

const insertAnd = (
  replacement: Replacement,
  mountId: string,
  parentId: string,
  parentPath: string,
  kind: 'file' | 'directory' = 'file',
) =>
  service.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind, size_bytes)
     values ($1, $2, $3, 'f', $5::filestore.node_kind, case $5::text when 'file' then 7 else 0 end) returning pg_temp.${replacement}(id, $4)`,
    [mountId, parentId, parentPath, destination, kind],
  );

/** The same where the transaction began later than the statement. */
const insertInBlockAnd = (replacement: Replacement, { mountId, parentId, parentPath }: Place) =>
  service.query(
    `do $$
     declare
       nothing text;
     begin
       perform pg_sleep(0.002);
       commit;
       insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind)
       values (${mountId}, ${parentId}, '${parentPath}', 'f', 'file')
       returning pg_temp.${replacement}(id, ${destination})::text into nothing;
     end $$`,
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
      await expect(insertAnd(replacement, mountId, parentId, parentPath)).rejects.toMatchObject(REFUSED);
    });

    test.each(WRONG_PLACES)(
      'is refused below %s, in a "do" block that has committed',
      async (_, makePlace) => {
        await expect(insertInBlockAnd(replacement, await makePlace())).rejects.toMatchObject(REFUSED);
      },
    );

    test('is refused below no directory, where age() was called before the transaction had a number', async () => {
      const createOthers = async (...names: readonly string[]) => {
        for (const name of names) await createNode(database(), mount, mount.rootId, name);
      };
      await service.query('begin');
      await service.query("select age('3'::xid)");
      await createOthers('a', 'b', 'c');
      await service.query('select pg_current_xact_id()');
      await createOthers('e', 'f', 'g');
      await expect(insertAnd(replacement, mount.id, '999999999', 'd')).rejects.toMatchObject(REFUSED);
    });

    test.each(['file', 'directory'] as const)('is accepted below its parent as a %s', async (kind) => {
      await insertAnd(replacement, mount.id, mount.rootId, '', kind);
      await foldAll(database());
      expect(await problems()).toEqual([]);
    });
  },
);

describe('a directory and a file in it are moved by one statement', () => {
  const moveBoth = () =>
    service.query(
      "update filestore.nodes set parent_id = $2 where backend_mount_id = $1 and name in ('e', 'f')",
      [mount.id, destination],
    );
  const place = () =>
    database().query(
      "select path from filestore.nodes where backend_mount_id = $1 and name in ('e', 'f') order by path",
      [mount.id],
    );

  test('of which an earlier transaction created both, even in the same millisecond', async () => {
    const e = await createDirectory(database(), mount, directory, 'e');
    // As if it were created in the millisecond in which the next transaction begins. The owner may give created_at.
    await database().query(
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, created_at)
       values ($1, $2, 'f', 'file', now() + interval '1 minute')`,
      [mount.id, e],
    );
    await moveBoth();
    expect(await place()).toEqual([{ path: 'destination/e' }, { path: 'destination/f' }]);
  });

  test('of which another transaction created both during this one', async () => {
    await service.query('begin');
    await service.query('select pg_current_xact_id()');
    await createNode(database(), mount, await createDirectory(database(), mount, directory, 'e'), 'f');
    await moveBoth();
    await service.query('commit');
    expect(await place()).toEqual([{ path: 'destination/e' }, { path: 'destination/f' }]);
  });

  test('is refused in the transaction that created them, where two statements move them', async () => {
    await service.query('begin');
    await service.query(
      "select filestore.upsert_file(mount_key, 'd/e/f') from filestore.backend_mounts where id = $1",
      [mount.id],
    );
    await service.query('savepoint before');
    await expect(moveBoth()).rejects.toMatchObject(REFUSED);
    await service.query('rollback to savepoint before');
    for (const name of ['e', 'f']) {
      await service.query(
        'update filestore.nodes set parent_id = $3 where backend_mount_id = $1 and name = $2',
        [mount.id, name, destination],
      );
    }
    await service.query('commit');
    expect(await place()).toEqual([{ path: 'destination/e' }, { path: 'destination/f' }]);
  });
});

test('a directory cannot move below one that the same statement moves into it, where both are deleted before the keys are checked', async () => {
  const inner = await createDirectory(database(), mount, directory, 'inner');
  await service.query(
    `create or replace function pg_temp.close_ring(moved bigint, inner_id bigint, moved_to bigint) returns void
     language plpgsql as
     $$ begin
       update filestore.nodes set parent_id = inner_id where id = moved_to;
       update filestore.nodes set state = 'deleted' where id in (moved, inner_id, moved_to);
     end $$`,
  );
  await expect(
    service.query(
      'update filestore.nodes set parent_id = $3 where id = $1 returning pg_temp.close_ring($1, $2, $3)',
      [directory, inner, destination],
    ),
  ).rejects.toMatchObject({ code: 'FS422', constraint: 'nodes_cycle_check' });
});

describe('a node below a false path is refused when its directory is written too', () => {
  test('and moved by an earlier statement of the transaction', async () => {
    await service.query('begin');
    await service.query('update filestore.nodes set parent_id = $2 where id = $1', [directory, destination]);
    await expect(insertAnd('deletes', mount.id, directory, 'd')).rejects.toMatchObject(REFUSED);
  });

  test('and moved by the statement that replaces the node', async () => {
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
    ).rejects.toMatchObject(REFUSED);
  });

  test('by the statement that creates the node', async () => {
    await expect(
      service.query(
        `with written as (update filestore.nodes set metadata = '{"a": 1}' where id = $2 returning id),
              created as (insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind)
                          select $1, w.id, 'no/such', 'f', 'file' from written w returning id)
         select pg_temp.deletes(c.id, $2) from created c`,
        [mount.id, directory],
      ),
    ).rejects.toMatchObject(REFUSED);
  });

  test('by statements of which none has ended, and each of two directories is the parent of the other', async () => {
    const { next } = await one(database(), 'select last_value + 1 as next from filestore.nodes_id_seq');
    const [first, second] = [Number(next), Number(next) + 1];
    const nest = (name: string, update: string) =>
      service.query(
        `create or replace function pg_temp.${name}(created bigint) returns void language plpgsql as
         $$ declare done text; begin ${update}; end $$`,
      );
    await nest('delete_second', `update filestore.nodes set state = 'deleted' where id = ${second}`);
    await nest(
      'delete_both',
      `update filestore.nodes set state = 'deleted' where id = ${first} returning pg_temp.delete_second(id) into done`,
    );
    await nest(
      'write_and_delete',
      `update filestore.nodes set metadata = '{"a": 1}' where id = ${second} returning pg_temp.delete_both(id) into done`,
    );
    await expect(
      service.query(
        `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind)
         values ($1, $3, 'p', 'first', 'directory'), ($1, $2, 'p', 'second', 'directory')
         returning case when id = $3 then pg_temp.write_and_delete(id) end`,
        [mount.id, first, second],
      ),
    ).rejects.toMatchObject(REFUSED);
  });
});

test.each([
  ['', ''],
  ['that the same transaction writes', 'update filestore.nodes set metadata = \'{"a": 1}\' where id = $1'],
])('a node that is deleted at once is refused below an older tombstone %s', async (_, first) => {
  await service.query(
    "update filestore.nodes set state = 'deleted', deleted_at = now() - interval '1 minute' where id = $1",
    [directory],
  );
  await service.query('begin');
  if (first !== '') await service.query(first, [directory]);
  await expect(insertAnd('deletes', mount.id, directory, 'd')).rejects.toMatchObject(REFUSED);
});

test('a node is accepted below a directory that its transaction creates and deletes', async () => {
  await service.query('begin');
  await service.query(
    `with e as (insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
                values ($1, $2, 'e', 'directory') returning id, path)
     insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind)
     select $1, e.id, e.path, 'f', 'file' from e`,
    [mount.id, directory],
  );
  await service.query(
    "update filestore.nodes set state = 'deleted' where backend_mount_id = $1 and starts_with(path, 'd/e')",
    [mount.id],
  );
  await service.query('commit');
  await foldAll(database());
  expect(await problems()).toEqual([]);
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
