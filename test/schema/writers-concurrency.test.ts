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

const RESTORE = 'select * from filestore.restore_node($1, null, $2)';
const REMOVE = 'select * from filestore.delete_node($1, null, $2)';

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  [first, second] = [await database().connect(), await database().connect()];
  writers = writersOn(database());
});

const ensure = (path: string) => writers.ensure(key, path);

test.each([false, true])(
  'a delete of a directory at its version is refused when the directory is written at the same time (recursive: %s)',
  async (recursive) => {
    const { id } = await ensure('a');
    await first.query('begin');
    await first.query(`update filestore.nodes set metadata = '{"note": "x"}' where id = $1`, [id]);
    const removal = await sendAndBlock(second, 'select filestore.delete_node($1, 1, $2)', [id, recursive]);
    expect(removal.waits).toBe(true);
    await first.query('commit');
    expect(await removal.outcome).toMatchObject({ ok: false, error: refusal('FS409', 'version 2, not 1') });
    expect(await livePaths(database(), mount.id)).toEqual(['a']);
  },
);

describe('nothing deadlocks', () => {
  /** Locks a row, as any open transaction that changed it does, and no other one. */
  const TOUCH = `update filestore.nodes set metadata = metadata || '{"touched": true}' where id = $1`;

  test('when a directory that is not empty is deleted beside writes of several nodes in order of id', async () => {
    const child = await writers.create((await ensure('elsewhere')).id, 'child');
    const directory = await ensure('younger than its child');
    await writers.move(child.id, { parent: directory.id });
    await first.query('begin');
    await first.query('select filestore.lock_tree($1, false)', [mount.id]);
    await first.query(TOUCH, [child.id]);
    const removal = await sendAndBlock(second, REMOVE, [directory.id, false]);
    const touch = await sendAndBlock(first, TOUCH, [directory.id]);
    expect(await touch.outcome).toMatchObject({ ok: true });
    await first.query('commit');
    expect(await removal.outcome).toMatchObject({ ok: false, error: { code: 'FS409' } });
  });

  test('when it is deleted beside a delete of its parent and a move between them', async () => {
    const [parent, directory] = [await ensure('parent'), await ensure('parent/directory')];
    const file = await writers.create(directory.id, 'file');
    await first.query('begin');
    await first.query(TOUCH, [file.id]);
    const removals = [
      await sendAndBlock(second, REMOVE, [directory.id, false]),
      await sendAndBlock(await database().connect(), REMOVE, [parent.id, false]),
    ];
    const move = await sendAndBlock(first, 'select filestore.move_node($1, $2)', [file.id, parent.id]);
    expect(await move.outcome).toMatchObject({ ok: true });
    await first.query('commit');
    for (const { outcome } of removals) expect(await outcome).not.toMatchObject({ error: { code: '40P01' } });
  });

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
    await first.query(TOUCH, [before.id]);
    const tree = await sendAndBlock(second, RESTORE, [top.id, true]);
    const single = await sendAndBlock(await database().connect(), RESTORE, [node.id, false]);
    await first.query('commit');
    expect(await tree.outcome).toMatchObject({ ok: true });
    expect(await single.outcome).toMatchObject({ ok: false, error: refusal('FS409', '"top/node"') });
    expect(await livePaths(database(), mount.id)).toEqual(['top', 'top/before', 'top/node']);
  });
});

test('of two restores of a node that wait for the same lock, one restores it and the other is refused', async () => {
  const { id } = await writers.create(mount.rootId, 'f');
  await writers.remove(id);
  await first.query('begin');
  await first.query('select from filestore.nodes where id = $1 for share', [id]);
  const restores = [
    await sendAndBlock(second, RESTORE, [id, false]),
    await sendAndBlock(await database().connect(), RESTORE, [id, false]),
  ];
  await first.query('commit');
  const outcomes = await Promise.all(restores.map(({ outcome }) => outcome));
  expect(outcomes.map((outcome) => (outcome.ok ? 'restored' : outcome.error.constraint)).sort()).toEqual([
    'nodes_alive',
    'restored',
  ]);
});

test('a create in a tree that is being deleted waits, also in a directory that the delete has not reached', async () => {
  const top = await ensure('top');
  const file = await writers.create(top.id, 'f');
  const late = await ensure('top/late');
  await first.query('begin');
  await first.query('select from filestore.nodes where id = $1 for update', [file.id]);
  const removal = await sendAndBlock(second, REMOVE, [top.id, true]);
  const create = await sendAndBlock(
    await database().connect(),
    "select * from filestore.create_node($1, 'new')",
    [late.id],
  );
  expect(create.waits).toBe(true);
  await first.query('commit');
  expect(await removal.outcome).toMatchObject({ ok: true });
  expect(await create.outcome).toMatchObject({ ok: false, error: { code: 'FS404' } });
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
