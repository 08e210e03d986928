import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import {
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  foldAll,
  type Mount,
  moveNode,
  one,
  pathOf,
} from '../support/rows/nodes.ts';

const database = databaseForFile();

let mount: Mount;
let directory: string;
let target: string;
/** The connection that begins first and keeps its transaction open. */
let first: Client;
let second: Client;

const CREATE = `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
  values ($1, $2, 'child', 'file') returning path`;

beforeEach(async () => {
  mount = await createMount(database());
  directory = await createDirectory(database(), mount, mount.rootId, 'a');
  target = await createDirectory(database(), mount, mount.rootId, 'b');
  [first, second] = [await database().connect(), await database().connect()];
});

describe('a create in a directory that is being moved', () => {
  test.each([
    ['commit', 'b/a/child'],
    ['rollback', 'a/child'],
  ])('waits for the %s and uses the path after it', async (ending, path) => {
    await first.query('begin');
    await moveNode(first, directory, target);
    const create = await sendAndBlock(second, CREATE, [mount.id, directory]);
    expect(create.waits).toBe(true);
    await first.query(ending);
    expect(await create.outcome).toMatchObject({ ok: true, result: { rows: [{ path }] } });
  });
});

describe('a create in a directory that is being deleted', () => {
  test('waits and is refused when the delete commits', async () => {
    await first.query('begin');
    await deleteNode(first, directory);
    const create = await sendAndBlock(second, CREATE, [mount.id, directory]);
    expect(create.waits).toBe(true);
    await first.query('commit');
    expect(await create.outcome).toMatchObject({ ok: false, error: { code: 'FS404' } });
  });

  test('waits and succeeds when the delete is rolled back', async () => {
    await first.query('begin');
    await deleteNode(first, directory);
    const create = await sendAndBlock(second, CREATE, [mount.id, directory]);
    await first.query('rollback');
    expect(await create.outcome).toMatchObject({ ok: true });
  });
});

describe('during a create in a directory', () => {
  test('a move of the directory waits and moves the new node too', async () => {
    await first.query('begin');
    const child = await createNode(first, mount, directory, 'child');
    const move = await sendAndBlock(second, 'update filestore.nodes set parent_id = $2 where id = $1', [
      directory,
      target,
    ]);
    expect(move.waits).toBe(true);
    await first.query('commit');
    expect(await move.outcome).toMatchObject({ ok: true });
    expect(await pathOf(database(), child)).toBe('b/a/child');
  });

  test('a delete of the directory waits and is refused', async () => {
    await first.query('begin');
    await createNode(first, mount, directory, 'child');
    const removal = await sendAndBlock(second, "update filestore.nodes set state = 'deleted' where id = $1", [
      directory,
    ]);
    expect(removal.waits).toBe(true);
    await first.query('commit');
    expect(await removal.outcome).toMatchObject({ ok: false, error: { code: 'FS409' } });
    expect(await one(database(), 'select live from filestore.nodes where id = $1', [directory])).toEqual({
      live: true,
    });
  });

  test('delete_node waits before it looks for a child, and says how to delete all of them', async () => {
    await first.query('begin');
    await createNode(first, mount, directory, 'child');
    const removal = await sendAndBlock(second, 'select filestore.delete_node($1)', [directory]);
    expect(removal.waits).toBe(true);
    await first.query('commit');
    expect(await removal.outcome).toMatchObject({
      ok: false,
      error: { constraint: 'nodes_not_empty', hint: expect.stringContaining('recursive => true') },
    });
  });

  test('another create in it does not wait', async () => {
    await first.query('begin');
    await createNode(first, mount, directory, 'one');
    const create = await sendAndBlock(second, CREATE, [mount.id, directory]);
    expect(create.waits).toBe(false);
    await first.query('commit');
  });

  test('another create with the same name waits and is refused', async () => {
    await first.query('begin');
    await createNode(first, mount, directory, 'child');
    const create = await sendAndBlock(second, CREATE, [mount.id, directory]);
    expect(create.waits).toBe(true);
    await first.query('commit');
    expect(await create.outcome).toMatchObject({ ok: false, error: { constraint: 'nodes_live_child_key' } });
  });
});

test.each(['size_bytes = size_bytes', `metadata = '{"note": "x"}'`, "state = 'inconsistent'"])(
  'a create in a directory does not wait for an open transaction that sets %s on it',
  async (change) => {
    await first.query('begin');
    await first.query(`update filestore.nodes set ${change} where id = $1`, [directory]);
    const create = await sendAndBlock(second, CREATE, [mount.id, directory]);
    expect(create.waits).toBe(false);
    expect(await create.outcome).toMatchObject({ ok: true });
    await first.query('commit');
  },
);

test('a bulk loader is refused by the foreign key when the parent has moved in the meantime', async () => {
  await first.query('begin');
  await moveNode(first, directory, target);
  const load = await sendAndBlock(
    second,
    `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, parent_live, name, kind)
     values ($1, $2, 'a', true, 'child', 'file')`,
    [mount.id, directory],
  );
  expect(load.waits).toBe(true);
  await first.query('commit');
  expect(await load.outcome).toMatchObject({ ok: false, error: { constraint: 'nodes_parent_fkey' } });
});

describe('a tombstone that is being removed', () => {
  const RESTORE = "update filestore.nodes set state = 'active' where id = $1";
  const REMOVE = 'delete from filestore.nodes where id = $1';

  test('cannot be restored', async () => {
    const file = await createNode(database(), mount, directory, 'f');
    await deleteNode(database(), file);
    await deleteNode(database(), directory);
    await foldAll(database());
    await first.query('begin');
    await first.query('delete from filestore.nodes where id = any($1)', [[directory, file]]);
    const restore = await sendAndBlock(second, RESTORE, [directory]);
    expect(restore.waits).toBe(true);
    await first.query('commit');
    expect(await restore.outcome).toMatchObject({ ok: true, result: { rowCount: 0 } });
  });

  test('stays when it is restored at the same time', async () => {
    await deleteNode(database(), directory);
    await first.query('begin');
    await first.query(RESTORE, [directory]);
    const removal = await sendAndBlock(second, REMOVE, [directory]);
    expect(removal.waits).toBe(true);
    await first.query('commit');
    expect(await removal.outcome).toMatchObject({ ok: false, error: { code: 'FS409' } });
  });
});
