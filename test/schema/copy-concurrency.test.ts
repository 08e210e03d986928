import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { wrongTotals } from '../support/rows/directory-totals.ts';
import { createChain, createMount, type Mount } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf, livePaths, writersOn } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let mount: Mount;
let other: Mount;
/** The connection that begins first and keeps its transaction open. */
let first: Client;
let second: Client;
/** A tree to copy, s/x/y, and a place for the copy, t/u. */
let [source, inner, deep]: [string, string, string] = ['', '', ''];
let [above, target]: [string, string] = ['', ''];

const COPY = 'select * from filestore.copy_tree($1, $2, $3)';
const CREATE = 'select * from filestore.create_nodes($1)';

beforeEach(async () => {
  [mount, other] = [await createMount(database()), await createMount(database())];
  [first, second] = [await connectAs('service'), await connectAs('service')];
  [source, inner, deep] = (await createChain(first, mount, 's', 'x', 'y')) as [string, string, string];
  [above, target] = (await createChain(first, other, 't', 'u')) as [string, string];
});

async function expectSound(): Promise<void> {
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  for (const { id } of [mount, other]) {
    const key = await keyOf(database(), id);
    expect(await database().query('select * from filestore.audit_rollups($1)', [key])).toEqual([]);
  }
  expect(await wrongTotals(database())).toEqual([]);
}

const copied = async () =>
  (await livePaths(database(), other.id)).filter((path) => !['t', 't/u'].includes(path));

describe('a copy', () => {
  test.each([
    ['a move of the source', () => writersOn(first).move(source, { name: 'elsewhere' })],
    ['a move within the source', () => writersOn(first).move(deep, { parent: source })],
    ['a delete of the source', () => writersOn(first).remove(source, { recursive: true })],
    ['a create in the source', () => writersOn(first).create(deep, 'f')],
  ])('does not wait for %s, and copies the tree as it was before', async (_, change) => {
    await first.query('begin');
    await change();
    const copy = await sendAndBlock(second, COPY, [source, target, 'copy']);
    expect(copy.waits).toBe(false);
    await first.query('commit');
    expect(await copy.outcome).toMatchObject({ ok: true });
    expect(await copied()).toEqual(['t/u/copy', 't/u/copy/x', 't/u/copy/x/y']);
    await expectSound();
  });

  test.each([
    ['moved', () => writersOn(first).move(target, { name: 'v' }), 't/v/copy'],
    ['moved with a directory above it', () => writersOn(first).move(above, { name: 'w' }), 'w/u/copy'],
  ])('into a directory that is being %s waits, and then uses the new path', async (_, move, path) => {
    await first.query('begin');
    await move();
    const copy = await sendAndBlock(second, COPY, [source, target, 'copy']);
    expect(copy.waits).toBe(true);
    await first.query('commit');
    expect(await copy.outcome).toMatchObject({ ok: true, result: { rows: [{ path }] } });
    await expectSound();
  });

  test('of a tree that is deleted while the copy waits for its place is refused', async () => {
    await first.query('begin');
    await writersOn(first).move(target, { name: 'v' });
    const copy = await sendAndBlock(second, COPY, [source, target, 'copy']);
    expect(copy.waits).toBe(true);
    await writersOn(first).remove(source, { recursive: true });
    await first.query('commit');
    expect(await copy.outcome).toMatchObject({ ok: false, error: refusal('FS404', '"s"') });
    await expectSound();
  });

  test('of a directory into itself is refused, also while the directory is being moved', async () => {
    const place = await createChain(first, mount, 'place');
    await first.query('begin');
    await writersOn(first).move(inner, { parent: place[0] as string });
    const copy = await sendAndBlock(second, COPY, [inner, deep, 'copy']);
    expect(copy.waits).toBe(true);
    await first.query('commit');
    expect(await copy.outcome).toMatchObject({
      ok: false,
      error: { ...refusal('FS422', '"place/x"'), constraint: 'nodes_cycle_check' },
    });
  });

  test('and a delete of its source in one transaction do not deadlock with the same in the opposite direction', async () => {
    await first.query('begin');
    await second.query('begin');
    await first.query(COPY, [source, other.rootId, 'copy']);
    await second.query(COPY, [above, mount.rootId, 'copy']);
    await writersOn(first).remove(source, { recursive: true });
    await writersOn(second).remove(above, { recursive: true });
    await first.query('commit');
    await second.query('commit');
    expect(await livePaths(database(), mount.id)).toEqual(['copy', 'copy/u']);
    expect(await livePaths(database(), other.id)).toEqual(['copy', 'copy/x', 'copy/x/y']);
    await expectSound();
  });

  test('and a delete of its source on one mount, under the exclusive tree lock, do not deadlock with a move', async () => {
    const [place] = await createChain(first, mount, 'place');
    await first.query('begin');
    await first.query('select filestore.lock_tree($1, true)', [mount.id]);
    await first.query(COPY, [source, place, 'copy']);
    const move = await sendAndBlock(second, 'select * from filestore.move_node($1, new_name => $2)', [
      place,
      'moved',
    ]);
    expect(move.waits).toBe(true);
    await writersOn(first).remove(source, { recursive: true });
    await first.query('commit');
    expect(await move.outcome).toMatchObject({ ok: true });
    expect(await livePaths(database(), mount.id)).toEqual([
      'moved',
      'moved/copy',
      'moved/copy/x',
      'moved/copy/x/y',
    ]);
  });

  test('works in a transaction that holds the exclusive tree lock', async () => {
    await first.query('begin');
    await first.query('select filestore.lock_tree($1, true)', [mount.id]);
    await first.query(COPY, [source, mount.rootId, 'copy']);
    await first.query('commit');
    expect(await livePaths(database(), mount.id)).toContain('copy/x/y');
  });
});

describe('create_nodes', () => {
  const batch = (...ids: readonly string[]) =>
    JSON.stringify(ids.map((parent_id) => ({ parent_id, name: 'new' })));

  test('in several directories that another transaction moves one by one does not deadlock with it', async () => {
    await first.query('begin');
    await writersOn(first).move(deep, { name: 'moved' });
    const create = await sendAndBlock(second, CREATE, [batch(deep, inner)]);
    expect(create.waits).toBe(true);
    await writersOn(first).move(inner, { name: 'moved too' });
    await first.query('commit');
    expect(await create.outcome).toMatchObject({ ok: true });
  });

  test('by two callers with the same names in different orders does not deadlock', async () => {
    const nodes = Array.from({ length: 300 }, (_, index) => ({ parent_id: deep, name: `n${index}` }));
    const outcomes = await Promise.all(
      [nodes, [...nodes].reverse()].map((list, index) =>
        (index === 0 ? first : second).query(CREATE, [JSON.stringify(list)]).then(
          () => 'created',
          (error) => error.constraint,
        ),
      ),
    );
    expect(outcomes.sort()).toEqual(['created', 'nodes_name_taken']);
  });
});
