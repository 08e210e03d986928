import { beforeEach, describe, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { totalsOf, wrongTotals } from '../support/rows/directory-totals.ts';
import {
  createChain,
  createMount,
  createNode,
  foldAll,
  type Mount,
  moveNode,
  one,
} from '../support/rows/nodes.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseEmptiedAfterEachTest();

let mount: Mount;
/** Creates the directories a, a/b and a/b/c. */
let a: string;
let b: string;
let c: string;

beforeEach(async () => {
  mount = await createMount(database());
  [a, b, c] = (await createChain(database(), mount, 'a', 'b', 'c')) as [string, string, string];
});

const run = (text: string, values: readonly unknown[] = []) => database().query(text, values);

async function createFile(directory: string, name: string, size: number): Promise<string> {
  const { id } = await one(database(), 'select id from filestore.create_node($1, $2, size_bytes => $3)', [
    directory,
    name,
    size,
  ]);
  return id;
}

const pendingDeltas = async () => (await run('select from filestore.rollup_deltas')).length;

const audit = () =>
  run('select a.* from filestore.backend_mounts m cross join filestore.audit_rollups(m.mount_key) a');

/** Changes of the tree a/b/c with the files a/b/f (10 bytes) and a/b/c/g (5 bytes), and the totals of a after them. */
const CHANGES = {
  'a file written': ["update filestore.nodes set size_bytes = 30 where name = 'f'", [35, 2, 2]],
  'a file moved out': ['select filestore.move_node((select id from f), (select id from r))', [5, 1, 2]],
  'a file deleted': ['select filestore.delete_node((select id from f))', [5, 1, 2]],
  'a directory moved out': ['select filestore.move_node((select id from b), (select id from r))', [0, 0, 0]],
  'a directory renamed': ["select filestore.move_node((select id from b), new_name => 'x')", [15, 2, 2]],
  'a tree deleted': ['select filestore.delete_node((select id from b), recursive => true)', [0, 0, 0]],
  'a batch deleted': ['select filestore.delete_batch((select id from b), 2)', [0, 0, 2]],
  'rows loaded in bulk': [
    `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, parent_live, name, kind, size_bytes)
     select b.backend_mount_id, b.id, 'a/b', true, 'n' || g, 'file', g from b, generate_series(1, 4) g`,
    [25, 6, 2],
  ],
  'an insert of a taken name': [
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select b.backend_mount_id, b.id, 'f', 'file' from b on conflict do nothing`,
    [15, 2, 2],
  ],
  'a directory and a file in it moved by one statement': [
    `update filestore.nodes set parent_id = (select id from r) where name in ('c', 'g')`,
    [10, 1, 1],
  ],
} as const;

/** A change whose SQL can use the names f, b and r for its nodes. */
const named = (change: string) =>
  `with f as (select * from filestore.nodes where name = 'f'), b as (select * from filestore.nodes where name = 'b'),
        r as (select * from filestore.nodes where parent_id is null)
   ${change}`;

describe.each(['pending', 'folded'])('when the deltas before it are %s, totals are exact after', (before) => {
  test.each(Object.entries(CHANGES))('%s', async (_, [change, totals]) => {
    await createFile(b, 'f', 10);
    await createFile(c, 'g', 5);
    if (before === 'folded') await foldAll(database());
    await run(named(change));
    expect(await totalsOf(database(), a)).toEqual(totals);
    expect(await wrongTotals(database())).toEqual([]);
    await foldAll(database());
    expect(await totalsOf(database(), a)).toEqual(totals);
    expect(await wrongTotals(database())).toEqual([]);
    expect(await audit()).toEqual([]);
  });

  test('a tree is deleted, restored to another place and purged', async () => {
    const file = await createFile(c, 'g', 5);
    if (before === 'folded') await foldAll(database());
    await run('select filestore.delete_node($1, recursive => true)', [b]);
    await run('select filestore.restore_node($1, with_tree => true)', [b]);
    expect(await totalsOf(database(), a)).toEqual([5, 1, 2]);
    await run('select filestore.delete_node($1, recursive => true)', [b]);
    // Restored without its tree and moved, with folded and pending totals below it.
    await run("update filestore.nodes set state = 'active', parent_id = $2 where id = $1", [b, mount.rootId]);
    expect(await totalsOf(database(), mount.rootId)).toEqual([0, 0, 2]);
    expect(await wrongTotals(database())).toEqual([]);
    await foldAll(database());
    await run("select filestore.purge_deleted('0')");
    expect(await run('select from filestore.nodes where id = $1', [file])).toEqual([]);
    expect(await totalsOf(database(), mount.rootId)).toEqual([0, 0, 2]);
    expect(await audit()).toEqual([]);
  });
});

describe('in a tree of more than 64 levels, totals are exact', () => {
  const chain = (name: string, levels: number) => Array.from({ length: levels }, () => name).join('/');
  let lowest: string;

  beforeEach(async () => {
    const key = await keyOf(database(), mount.id);
    await run('select filestore.upsert_file($1, $2, 5)', [key, `${chain('d', 70)}/f`]);
    lowest = (await one(database(), "select parent_id from filestore.nodes where name = 'f'")).parent_id;
    await run('select filestore.upsert_file($1, $2, 7)', [key, `${chain('m', 9)}/g`]);
  });

  test('pending and folded', async () => {
    await createFile(c, 'h', 11);
    expect(await wrongTotals(database())).toEqual([]);
    await foldAll(database());
    expect(await wrongTotals(database())).toEqual([]);
  });

  test('also above a directory that was deleted before a directory above it moved down', async () => {
    await foldAll(database());
    const { top, gone } = await one(
      database(),
      `select max(id) filter (where path = 'm') as top, max(id) filter (where path = $1) as gone
       from filestore.nodes`,
      [chain('m', 6)],
    );
    await run('select filestore.delete_node($1, recursive => true)', [gone]);
    await moveNode(database(), top, lowest);
    await createFile(c, 'h', 11);
    expect(await wrongTotals(database())).toEqual([]);
    await foldAll(database());
    expect(await wrongTotals(database())).toEqual([]);
  });
});

describe('no delta is appended by', () => {
  test.each(['size_bytes = size_bytes', 'metadata = \'{"a": 1}\'', "name = 'h'", "state = 'missing'"])(
    'a change of a file that sets %s',
    async (change) => {
      await createFile(b, 'f', 10);
      await foldAll(database());
      await run(`update filestore.nodes set ${change} where name = 'f'`);
      expect(await pendingDeltas()).toBe(0);
    },
  );

  test('a transaction that is rolled back', async () => {
    await foldAll(database());
    const client = await database().connect();
    await client.query('begin');
    await createNode(client, mount, a, 'f');
    await client.query('rollback');
    expect(await pendingDeltas()).toBe(0);
  });
});

describe('fold_rollups', () => {
  test('folds at most max_deltas, returns how many, and 0 when none are left', async () => {
    for (let index = 0; index < 5; index += 1) await createFile(c, `f${index}`, 1);
    const folded: number[] = [];
    do {
      folded.push((await one(database(), 'select filestore.fold_rollups(3) as n')).n);
      expect(await wrongTotals(database())).toEqual([]);
    } while (folded.at(-1) !== 0);
    expect(folded).toEqual([3, 3, 2, 0]);
    expect(await pendingDeltas()).toBe(0);
  });

  test('updates each directory above once', async () => {
    await createFile(c, 'f', 7);
    await createFile(c, 'g', 7);
    await foldAll(database());
    expect(
      await run('select size_bytes, file_count, dir_count from filestore.rollups order by node_id'),
    ).toEqual(
      [3, 2, 1, 0].map((directories) => ({ size_bytes: '14', file_count: '2', dir_count: `${directories}` })),
    );
  });

  test.each([
    ['a number below one', 'select filestore.fold_rollups(0)', 'FS422'],
    ['null', 'select filestore.fold_rollups(null)', 'FS422'],
    [
      'a REPEATABLE READ transaction',
      'begin isolation level repeatable read; select filestore.fold_rollups()',
      'FS409',
    ],
  ])('refuses %s', async (_, statement, code) => {
    await expect(run(statement)).rejects.toMatchObject({ code, hint: expect.stringMatching(/\w/) });
  });

  test('fails and folds nothing when a directory has no row of totals', async () => {
    await run('delete from filestore.rollups where node_id = $1', [b]);
    const pending = await pendingDeltas();
    await expect(run('select filestore.fold_rollups()')).rejects.toMatchObject({
      code: 'FS409',
      hint: expect.stringContaining('recount_rollups'),
    });
    expect(await pendingDeltas()).toBe(pending);
  });
});

describe('the state of a total', () => {
  const stateOf = async (id: string) =>
    (await one(database(), 'select consistency_state from filestore.directory_totals($1)', [id]))
      .consistency_state;
  const stateInView = async (id: string) =>
    (
      await one(
        database(),
        'select consistency_state from filestore.view_filestore_directories where id = $1',
        [id],
      )
    ).consistency_state;

  test.each([
    ['directory_totals', stateOf],
    ['view_filestore_directories', stateInView],
  ])('is pending, up_to_date or stale in %s', async (_, state) => {
    expect(await state(mount.rootId)).toBe('pending');
    await foldAll(database());
    expect([await state(mount.rootId), await state(b)]).toEqual(['up_to_date', 'up_to_date']);
    await createFile(b, 'f', 1);
    expect([await state(a), await state(b), await state(c)]).toEqual(['pending', 'pending', 'up_to_date']);
    await run("update filestore.rollups set consistency_state = 'stale' where node_id = $1", [b]);
    expect(await state(b)).toBe('stale');
  });

  test('is missing for a file or an unknown id', async () => {
    const file = await createFile(b, 'f', 1);
    expect(await run('select * from filestore.directory_totals($1)', [file])).toEqual([]);
    expect(await run('select * from filestore.directory_totals(999999)')).toEqual([]);
  });
});

describe('a wrong total', () => {
  test('is found by the audit and corrected by a recount, also with pending deltas', async () => {
    await createFile(c, 'f', 10);
    await foldAll(database());
    await createFile(c, 'g', 1);
    await run(
      "update filestore.rollups set size_bytes = 3, file_count = 9, consistency_state = 'stale' where node_id = $1",
      [b],
    );
    await run('delete from filestore.rollups where node_id = $1', [c]);
    expect(await audit()).toMatchObject([
      {
        node_id: b,
        path: 'a/b',
        size_bytes: '4',
        file_count: '10',
        expected_size_bytes: '11',
        expected_file_count: '2',
      },
      { node_id: c, path: 'a/b/c', size_bytes: null, expected_size_bytes: '11' },
    ]);
    expect(await run('select problem, node_id from filestore.check_integrity() order by node_id')).toEqual(
      [b, c].map((node_id) => ({ problem: 'wrong totals', node_id })),
    );

    const { recounted } = await one(
      database(),
      'select filestore.recount_rollups(mount_key) as recounted from filestore.backend_mounts',
    );
    expect(recounted).toBe('2');
    expect(await audit()).toEqual([]);
    expect(await wrongTotals(database())).toEqual([]);
    await foldAll(database());
    expect(await wrongTotals(database())).toEqual([]);
    expect(
      await one(database(), 'select consistency_state from filestore.directory_totals($1)', [b]),
    ).toEqual({ consistency_state: 'up_to_date' });
  });

  test.each(['audit_rollups', 'recount_rollups'])('%s refuses a mount that does not exist', async (name) => {
    await expect(run(`select filestore.${name}('nowhere')`)).rejects.toMatchObject({
      code: 'FS404',
      message: expect.stringContaining('"nowhere"'),
    });
  });
});
