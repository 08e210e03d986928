import { beforeEach, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { wrongTotals } from '../support/rows/directory-totals.ts';
import {
  createChain,
  createMount,
  createNode,
  deleteNode,
  foldAll,
  type Mount,
  moveNode,
} from '../support/rows/nodes.ts';
import { keyOf } from '../support/rows/writer-functions.ts';
import { until } from '../support/until.ts';

const database = databaseEmptiedAfterEachTest();
let mount: Mount;

beforeEach(async () => {
  mount = await createMount(database());
});

/** Creates directories inside each other with a file in each, folds nothing, and returns their ids, top first. */
async function createDeepTree(name: string, depth: number): Promise<string[]> {
  const names = Array.from({ length: depth }, () => name);
  const ids = await createChain(database(), mount, ...names);
  for (const id of ids) await createNode(database(), mount, id, 'f');
  return ids;
}

/** Below the directory `top`, chains of deleted directories, one inside the other, of which each was legal when it was deleted. */
const sink = (key: string, top: string, first: number, last: number) => `
  do $$
  declare
    x       bigint := (filestore.ensure_directory('${key}', '${top}')).id;
    root    bigint := (select n.parent_id from filestore.nodes n where n.id = x);
    mount   bigint := (select n.backend_mount_id from filestore.nodes n where n.id = x);
    lowest  bigint;
    top     bigint;
    second  bigint;
    p       text;
  begin
    perform filestore.delete_node((filestore.ensure_directory('${key}', '${top}/gone')).id, recursive => true);
    for turn in ${first} .. ${last} loop
      lowest := root;
      p := '';
      for level in 1 .. 1299 loop
        insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind)
        values (mount, lowest, p, case when level = 1 and turn % 2 = 0 then 'b' else 'a' end, 'directory')
        returning id, path into lowest, p;
        if level = 1 then top := lowest; elsif level = 2 then second := lowest; end if;
      end loop;
      perform filestore.move_node(x, lowest);
      perform filestore.delete_node(second, recursive => true);
      x := top;
    end loop;
  end $$`;

/** Number of pages that a statement reads: the same each time, also on a busy machine. Nothing stays changed. */
async function pagesOf(statement: string): Promise<number> {
  const client = await database().connect();
  await client.query(`begin; ${statement}; rollback; begin`);
  const { rows } = await client.query(`explain (analyze, buffers, timing off, format json) ${statement}`);
  await client.query('rollback');
  await client.end();
  const plan = rows[0]['QUERY PLAN'][0].Plan;
  return plan['Shared Hit Blocks'] + plan['Shared Read Blocks'];
}

test.each([
  ['list_totals', 4, (top: string) => `select * from filestore.list_totals(array[${top}])`],
  [
    'view_filestore_directories',
    9,
    (top: string) => `select * from filestore.view_filestore_directories where id = ${top}`,
  ],
  ['fold_rollups', 9, () => 'select filestore.fold_rollups()'],
  [
    'audit_rollups',
    9,
    () => 'select * from filestore.backend_mounts m, filestore.audit_rollups(m.mount_key)',
  ],
])(
  'the pages that %s reads grow with the number of directories, not with their depth',
  async (_, limit, statement) => {
    await database().query('analyze filestore.nodes');
    const [top] = await createDeepTree('a', 80);
    const before = await pagesOf(statement(String(top)));
    await createDeepTree('b', 320);
    // Five times the directories, and 17 times the sum of their depths. list_totals also reads pages that do not grow.
    expect(await pagesOf(statement(String(top)))).toBeLessThan(limit * before);
  },
);

test('the pages that purge_deleted reads grow with the number of directories, also with statistics of an empty table', async () => {
  await database().query('analyze filestore.nodes');
  const pages: number[] = [];
  for (const [name, depth] of [
    ['a', 80],
    ['b', 320],
  ] as const) {
    const [top] = await createDeepTree(name, depth);
    await database().query('select filestore.delete_node($1, recursive => true)', [top]);
    await foldAll(database());
    pages.push(await pagesOf("select filestore.purge_deleted('0', 10000)"));
  }
  expect(pages[1]).toBeLessThan(9 * Number(pages[0]));
});

test('totals of a deep tree are exact, also when a directory was deleted in it and what is above it moved down', async () => {
  const upper = await createDeepTree('a', 70);
  const moved = await createDeepTree('b', 40);
  const below = moved.slice(20).reverse();
  for (const id of below) {
    const files = await database().query<{ id: string }>(
      "select id from filestore.nodes where parent_id = $1 and kind = 'file'",
      [id],
    );
    for (const file of files) await deleteNode(database(), file.id);
    await deleteNode(database(), id);
  }
  await moveNode(database(), String(moved[0]), String(upper.at(-1)));
  expect(await wrongTotals(database())).toEqual([]);
  await database().query('select filestore.fold_rollups(50)');
  expect(await wrongTotals(database())).toEqual([]);
  await database().query('select filestore.fold_rollups()');
  expect(await database().query('select * from filestore.rollup_deltas')).toEqual([]);
  expect(await wrongTotals(database())).toEqual([]);
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
});

test('fold_rollups reads few pages for each of 5,000 deleted directories inside each other', async () => {
  const key = await keyOf(database(), mount.id);
  await database().query(sink(key, 'x', 1, 1));
  await database().query('analyze filestore.nodes');
  await database().query(sink(key, 'a', 2, 4));
  // 24 for each: its delta, its row in rollups and its parent. Where all climb round by round, it is over 80.
  expect(await pagesOf('select filestore.fold_rollups(1000000)')).toBeLessThan(4 * 1299 * 40);
}, 120_000);

test('totals above 22,000 deleted directories inside each other are exact, and all of them can be folded and purged', async () => {
  const key = await keyOf(database(), mount.id);
  await database().query(sink(key, 'x', 1, 1));
  // With statistics of an empty table, keys are checked by reading all nodes.
  await database().query('analyze filestore.nodes');
  await database().query(sink(key, 'a', 2, 17));
  const totals = () =>
    database().query('select size_bytes, file_count, dir_count from filestore.directory_totals($1)', [
      mount.rootId,
    ]);
  const expected = [{ size_bytes: '0', file_count: '0', dir_count: '1' }];
  expect(await totals()).toEqual(expected);
  await foldAll(database());
  expect(await totals()).toEqual(expected);
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  let purged = 0;
  await until(async () => {
    const [row] = await database().query<{ n: number }>("select filestore.purge_deleted('0', 5000) as n");
    purged += row?.n ?? 0;
    return row?.n === 0;
  });
  expect(purged).toBeGreaterThan(22_000);
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
}, 180_000);
