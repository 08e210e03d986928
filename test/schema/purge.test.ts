import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createMount, foldAll, type Mount, one, type Sql } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { deleteDaysAgo } from '../support/rows/tombstones.ts';
import { keyOf, type Writers, writersOn } from '../support/rows/writer-functions.ts';

const database = databaseEmptiedAfterEachTest();

let mount: Mount;
let key: string;
let writers: Writers;

/** Takes no tree lock, unlike restore_node, so that a purge waits for the row. */
const restoreByHand = (sql: Sql, id: string) =>
  sql.query("update filestore.nodes set state = 'active' where id = $1", [id]);

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  writers = writersOn(database());
});

const PURGE = 'select filestore.purge_deleted($1, $2) as purged';

const purge = async (olderThan: string | null = '0', batch: number | null = 1000): Promise<number> =>
  (await one(database(), PURGE, [olderThan, batch])).purged;

/** The paths of all remaining nodes except the root, tombstones included. */
async function left(): Promise<readonly string[]> {
  const rows = await database().query(
    'select path from filestore.nodes where parent_id is not null order by path, id',
  );
  return rows.map(({ path }) => path);
}

/** Creates a directory with files. */
async function fill(path: string, files: number): Promise<string> {
  const { id } = await writers.ensure(key, path);
  await database().query(
    "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) select $1, $2, 'f' || g, 'file' from generate_series(1, $3) g",
    [mount.id, id, files],
  );
  return id;
}

describe('purge_deleted', () => {
  test('removes the oldest first', async () => {
    const [young, old, middle] = [
      await writers.create(mount.rootId, 'young'),
      await writers.create(mount.rootId, 'old'),
      await writers.create(mount.rootId, 'middle'),
    ];
    await deleteDaysAgo(database(), 40, young.id);
    await deleteDaysAgo(database(), 60, old.id);
    await deleteDaysAgo(database(), 50, middle.id);
    expect(await purge('30 days', 1)).toBe(1);
    expect(await left()).toEqual(['middle', 'young']);
    expect(await purge('30 days', 1)).toBe(1);
    expect(await left()).toEqual(['young']);
  });

  test('removes a tree from its leaves up', async () => {
    const { id } = await writers.ensure(key, 'a/b/c');
    await writers.create(id, 'f');
    await writers.remove((await writers.ensure(key, 'a')).id, { recursive: true });
    await foldAll(database());
    for (const rest of [['a', 'a/b', 'a/b/c'], ['a', 'a/b'], ['a'], []]) {
      expect(await purge('0', 1)).toBe(1);
      expect(await left()).toEqual(rest);
    }
    expect(await purge('0', 1)).toBe(0);
  });

  test('removes a whole tree in one batch if the batch is large enough', async () => {
    await writers.create((await writers.ensure(key, 'a/b/c')).id, 'f');
    await writers.remove((await writers.ensure(key, 'a')).id, { recursive: true });
    await foldAll(database());
    expect(await purge('0', 4)).toBe(4);
    expect(await left()).toEqual([]);
  });

  test('keeps a directory while a younger tombstone is below it', async () => {
    const directory = await writers.ensure(key, 'd');
    const file = await writers.create(directory.id, 'f');
    await deleteDaysAgo(database(), 10, file.id);
    await deleteDaysAgo(database(), 50, directory.id);
    await foldAll(database());
    expect(await purge('30 days')).toBe(0);
    expect(await left()).toEqual(['d', 'd/f']);
  });

  test('returns how many it removed, at most a batch over all mounts together', async () => {
    await writers.remove(await fill('d', 15), { recursive: true });
    const other = await createMount(database(), 's3');
    const { id } = await writers.ensure(await keyOf(database(), other.id), 'd');
    for (const name of ['f1', 'f2', 'f3']) await writers.create(id, name);
    await writers.remove(id, { recursive: true });
    await foldAll(database());
    expect([await purge('0', 8), await purge('0', 8), await purge('0', 8)]).toEqual([8, 8, 4]);
    expect(await purge('0', 8)).toBe(0);
    expect(await left()).toEqual([]);
  });

  test('removes no live nodes, and none that were deleted more recently', async () => {
    const [alive, now, before] = [
      await writers.create(mount.rootId, 'alive'),
      await writers.create(mount.rootId, 'now'),
      await writers.create(mount.rootId, 'before'),
    ];
    await deleteDaysAgo(database(), 29, before.id);
    await writers.remove(now.id);
    expect(await purge('30 days')).toBe(0);
    expect(await purge('28 days')).toBe(1);
    expect(await left()).toEqual(['alive', 'now']);
    expect(await purge('0')).toBe(1);
    expect(await left()).toEqual(['alive']);
    expect(await one(database(), 'select version from filestore.nodes where id = $1', [alive.id])).toEqual({
      version: 1,
    });
  });

  test('skips directories that have pending deltas, and removes them after a fold', async () => {
    await writers.remove(await fill('a/d', 3), { recursive: true });
    expect(await purge()).toBe(3);
    expect(await left()).toEqual(['a', 'a/d']);
    expect(await purge()).toBe(0);
    await foldAll(database());
    expect(await purge()).toBe(1);
    expect(await left()).toEqual(['a']);
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  });

  test('removes the history of a node, and keeps the journal', async () => {
    const file = await writers.create(mount.rootId, 'f');
    await database().query("select filestore.begin_command('delete', primary_node_id => $1)", [file.id]);
    await writers.remove(file.id);
    const history = () => database().query('select from filestore.snapshots where id = $1', [file.id]);
    expect(await history()).toHaveLength(1);
    expect(await purge()).toBe(1);
    expect(await history()).toEqual([]);
    expect(
      await database().query('select command from filestore.journal_entries where primary_node_id = $1', [
        file.id,
      ]),
    ).toEqual([{ command: 'delete' }]);
  });

  test.each([
    [null, 1, 'null'],
    ['-1 day', 1, '-1 days'],
    ['1 day', null, 'null'],
    ['1 day', 0, '0'],
    ['1 day', -1, '-1'],
  ])('refuses older_than %s and batch %s', async (olderThan, batch, names) => {
    await expect(purge(olderThan, batch)).rejects.toMatchObject(refusal('FS422', names));
  });
});

describe('purge_deleted, at the same time as others,', () => {
  test('skips a node that is being restored, and removes the others', async () => {
    const [restored, rest] = [
      await writers.create(mount.rootId, 'restored'),
      await writers.create(mount.rootId, 'rest'),
    ];
    for (const { id } of [restored, rest]) await writers.remove(id);
    const [first, second] = [await database().connect(), await database().connect()];
    await first.query('begin');
    await restoreByHand(first, restored.id);
    const purging = await sendAndBlock(second, PURGE, ['0', 10]);
    await first.query('commit');
    expect(await purging.outcome).toMatchObject({ ok: true, result: { rows: [{ purged: 1 }] } });
    expect(await left()).toEqual(['restored']);
  });

  test('skips a node that is restored and deleted again: its age counts from the last deletion', async () => {
    const file = await writers.create(mount.rootId, 'f');
    await deleteDaysAgo(database(), 50, file.id);
    const [first, second] = [await database().connect(), await database().connect()];
    await first.query('begin');
    await restoreByHand(first, file.id);
    await writersOn(first).remove(file.id);
    const purging = await sendAndBlock(second, PURGE, ['30 days', 10]);
    await first.query('commit');
    expect(await purging.outcome).toMatchObject({ ok: true, result: { rows: [{ purged: 0 }] } });
    expect(await left()).toEqual(['f']);
  });

  test('leaves a tombstone that is being changed, and those above it, and removes the others', async () => {
    const [a, below] = [await writers.ensure(key, 'a'), await writers.ensure(key, 'a/b')];
    const [file, rest] = [await writers.create(below.id, 'f'), await writers.create(mount.rootId, 'rest')];
    for (const { id } of [file, below, a, rest]) await deleteDaysAgo(database(), 50, id);
    await foldAll(database());
    const [first, second] = [await database().connect(), await database().connect()];
    await first.query('begin');
    await first.query('update filestore.nodes set size_bytes = 7 where id = $1', [file.id]);
    const purging = await sendAndBlock(second, PURGE, ['30 days', 10]);
    expect(purging.waits).toBe(true);
    await first.query('commit');
    expect(await purging.outcome).toMatchObject({ ok: true, result: { rows: [{ purged: 1 }] } });
    expect(await left()).toEqual(['a', 'a/b', 'a/b/f']);
  });

  test('leaves a directory that got pending deltas while it waited, and removes the others', async () => {
    const [directory, rest] = [await writers.ensure(key, 'd'), await writers.create(mount.rootId, 'rest')];
    const file = await writers.create(directory.id, 'f');
    await writers.remove(rest.id);
    await foldAll(database());
    const [first, second, third] = [
      await database().connect(),
      await database().connect(),
      await database().connect(),
    ];
    await third.query('begin');
    for (const { id } of [file, directory]) await writersOn(third).remove(id);
    await first.query('begin');
    await first.query('select from filestore.nodes where id = $1 for update', [rest.id]);
    const purging = await sendAndBlock(second, PURGE, ['0', 10]);
    expect(purging.waits).toBe(true);
    await third.query('commit');
    await first.query('rollback');
    expect(await purging.outcome).toMatchObject({ ok: true, result: { rows: [{ purged: 2 }] } });
    expect(await left()).toEqual(['d']);
    await foldAll(database());
    expect(await purge()).toBe(1);
  });
});
