import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createMount, type Mount } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf, livePaths, type Writers, writersOn } from '../support/rows/writer-functions.ts';

const database = databaseForFile();

let mount: Mount;
let key: string;
/** The connection that begins first and keeps its transaction open. */
let first: Client;
let second: Client;
let writers: Writers;

const ENSURE = 'select * from filestore.ensure_directory($1, $2)';
const MOVE = 'select * from filestore.move_node($1, $2, $3, $4)';
const RESTORE = 'select * from filestore.restore_node($1, null, $2)';
const REMOVE = 'select * from filestore.delete_node($1, null, $2)';

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  [first, second] = [await database().connect(), await database().connect()];
  writers = writersOn(database());
});

const ensure = (path: string) => writers.ensure(key, path);
const connections = (count: number) => Promise.all(Array.from({ length: count }, () => database().connect()));

describe('ensure_directory', () => {
  test('called by twenty at once for one path creates it once, and all get the same node', async () => {
    const clients = await connections(20);
    const path = 'a/b/c/d/e/f/g/h';
    const nodes = await Promise.all(clients.map((client) => writersOn(client).ensure(key, path)));
    expect(new Set(nodes.map(({ id }) => id)).size).toBe(1);
    expect(nodes[0]).toMatchObject({ path });
    expect(await livePaths(database(), mount.id)).toHaveLength(8);
  });

  test('called by twenty at once for paths with the same beginning creates each directory once', async () => {
    const clients = await connections(20);
    const nodes = await Promise.all(
      clients.map((client, index) => writersOn(client).ensure(key, `a/b/${index % 4}/c`)),
    );
    expect(nodes.map(({ path }) => path)).toEqual(clients.map((_, index) => `a/b/${index % 4}/c`));
    expect(await livePaths(database(), mount.id)).toHaveLength(2 + 4 * 2);
  });

  test.each([
    ['moved', MOVE, [null, 'z', null], ['a', 'a/b', 'a/b/c', 'z']],
    ['deleted', REMOVE, [true], ['a', 'a/b', 'a/b/c']],
  ])(
    'below a directory that is being %s waits, and creates the path that was given',
    async (_, call, values, paths) => {
      const { id } = await ensure('a');
      await first.query('begin');
      await first.query(call, [id, ...values]);
      const ensuring = await sendAndBlock(second, ENSURE, [key, 'a/b/c']);
      expect(ensuring.waits).toBe(true);
      await first.query('commit');
      expect(await ensuring.outcome).toMatchObject({ ok: true, result: { rows: [{ path: 'a/b/c' }] } });
      expect(await livePaths(database(), mount.id)).toEqual(paths);
    },
  );

  test.each(['move', 'delete'])('uses a directory whose %s is rolled back', async (what) => {
    const { id } = await ensure('a');
    await first.query('begin');
    await (what === 'move' ? first.query(MOVE, [id, null, 'z', null]) : first.query(REMOVE, [id, true]));
    const ensuring = await sendAndBlock(second, ENSURE, [key, 'a/b']);
    expect(ensuring.waits).toBe(true);
    await first.query('rollback');
    expect(await ensuring.outcome).toMatchObject({ ok: true, result: { rows: [{ parent_id: id }] } });
  });

  test('keeps a directory in place until its transaction ends', async () => {
    const { id } = await ensure('a');
    await first.query('begin');
    await first.query(ENSURE, [key, 'a/b']);
    const moving = await sendAndBlock(second, MOVE, [id, null, 'z', null]);
    expect(moving.waits).toBe(true);
    await first.query('commit');
    expect(await moving.outcome).toMatchObject({ ok: true });
    expect(await livePaths(database(), mount.id)).toEqual(['z', 'z/b']);
  });
});

test('of two creates of one name, one is refused', async () => {
  await first.query('begin');
  await writersOn(first).create(mount.rootId, 'f');
  const create = await sendAndBlock(second, "select filestore.create_node($1, 'f')", [mount.rootId]);
  expect(create.waits).toBe(true);
  await first.query('commit');
  expect(await create.outcome).toMatchObject({ ok: false, error: refusal('FS409', '"f"') });
});

test.each(['file', 'directory'])('of two moves of one %s at one version, one is refused', async (kind) => {
  const { id } = await writers.create(mount.rootId, 'n', kind);
  await first.query('begin');
  await first.query(MOVE, [id, null, 'one', 1]);
  const move = await sendAndBlock(second, MOVE, [id, null, 'two', 1]);
  expect(move.waits).toBe(true);
  await first.query('commit');
  expect(await move.outcome).toMatchObject({ ok: false, error: refusal('FS409', 'is at version 2, not 1') });
  expect(await livePaths(database(), mount.id)).toEqual(['one']);
});

test('of two directories moved into each other at once, one arrives and one is refused', async () => {
  const [a, b] = [await ensure('a'), await ensure('b')];
  await first.query('begin');
  await first.query(MOVE, [a.id, b.id, null, null]);
  const other = await sendAndBlock(second, MOVE, [b.id, a.id, null, null]);
  expect(other.waits).toBe(true);
  await first.query('commit');
  expect(await other.outcome).toMatchObject({ ok: false, error: refusal('FS422', '"b"') });
  expect(await livePaths(database(), mount.id)).toEqual(['b', 'b/a']);
});

describe('nothing deadlocks', () => {
  /** Locks a row, as any open transaction that changed it does. */
  const touch = (id: string) =>
    first.query(`update filestore.nodes set metadata = '{"touched": true}' where id = $1`, [id]);

  test('when the delete of a single directory is refused while its tree is being deleted', async () => {
    const [top, inner, between, outer] = [
      await ensure('top'),
      await ensure('top/inner'),
      await ensure('top/between'),
      await ensure('top/outer'),
    ];
    await writers.move(inner.id, { parent: outer.id });
    await first.query('begin');
    await writersOn(first).create(between.id, 'f');
    const tree = await sendAndBlock(second, REMOVE, [top.id, true]);
    const single = await sendAndBlock(await database().connect(), REMOVE, [outer.id, false]);
    await first.query('commit');
    expect(await tree.outcome).toMatchObject({ ok: true });
    expect(await single.outcome).toMatchObject({ ok: false, error: { code: expect.stringMatching(/^FS4/) } });
  });

  test('when a node is restored alone while its tree is being restored', async () => {
    const [top, before, node] = [await ensure('top'), await ensure('top/before'), await ensure('top/node')];
    await writers.remove(top.id, { recursive: true });
    await first.query('begin');
    await touch(before.id);
    const tree = await sendAndBlock(second, RESTORE, [top.id, true]);
    const single = await sendAndBlock(await database().connect(), RESTORE, [node.id, false]);
    await first.query('commit');
    expect(await tree.outcome).toMatchObject({ ok: true });
    expect(await single.outcome).toMatchObject({ ok: false, error: refusal('FS409', '"top/node"') });
    expect(await livePaths(database(), mount.id)).toEqual(['top', 'top/before', 'top/node']);
  });
});

describe('delete_node of a file', () => {
  const DELETE = 'select version, size_bytes, live from filestore.delete_node($1, $2)';
  const WRITE = 'update filestore.nodes set size_bytes = 5 where id = $1';

  test.each([
    [
      'deletes the new version',
      null,
      { ok: true, result: { rows: [{ version: 3, size_bytes: '5', live: false }] } },
    ],
    ['is refused if it expects the old version', 1, { ok: false, error: refusal('FS409', '"f"') }],
  ])('waits for a write of it, and then %s', async (_, version, expected) => {
    const { id } = await writers.create(mount.rootId, 'f');
    await first.query('begin');
    await first.query(WRITE, [id]);
    const removal = await sendAndBlock(second, DELETE, [id, version]);
    expect(removal.waits).toBe(true);
    await first.query('commit');
    expect(await removal.outcome).toMatchObject(expected);
  });

  test('does not deadlock with a writer that has already locked its key', async () => {
    const { id } = await writers.create(mount.rootId, 'f');
    await first.query('begin');
    await first.query('select from filestore.nodes where id = $1 for key share', [id]);
    const removal = await sendAndBlock(second, DELETE, [id, null]);
    expect(removal.waits).toBe(true);
    await first.query(WRITE, [id]);
    await first.query('commit');
    expect(await removal.outcome).toMatchObject({
      ok: true,
      result: { rows: [{ version: 3, live: false }] },
    });
  });
});

describe('delete_node of a tree', () => {
  test('waits for a create in it, and deletes the new node too', async () => {
    const [top, deep] = [await ensure('a'), await ensure('a/b/c')];
    await first.query('begin');
    await writersOn(first).create(deep.id, 'f');
    const removal = await sendAndBlock(second, REMOVE, [top.id, true]);
    expect(removal.waits).toBe(true);
    await first.query('commit');
    expect(await removal.outcome).toMatchObject({ ok: true });
    expect(await livePaths(database(), mount.id)).toEqual([]);
  });
});
