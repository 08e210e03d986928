import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { rolesForEachTest } from '../support/roles/roles.ts';
import { wrongTotals } from '../support/rows/directory-totals.ts';
import {
  createChain,
  createMount,
  createNode,
  foldAll,
  type Mount,
  one,
  type Sql,
} from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();
const createRole = rolesForEachTest(database);

let mount: Mount;
/** Creates the directories a, a/b and a/b/c, with the files a/f, a/b/g and a/b/h. */
let a: string;
let b: string;
let c: string;
let f: string;
let g: string;

beforeEach(async () => {
  mount = await createMount(database());
  [a, b, c] = (await createChain(database(), mount, 'a', 'b', 'c')) as [string, string, string];
  f = await createNode(database(), mount, a, 'f');
  g = await createNode(database(), mount, b, 'g');
  await createNode(database(), mount, b, 'h');
});

const run = (text: string, values: readonly unknown[] = []) => database().query(text, values);

async function list(ids: readonly (string | null)[] | null, sql: Sql = database()) {
  const result = await sql.query('select * from filestore.list_totals($1)', [ids]);
  return 'rows' in result ? result.rows : result;
}

const idsOf = async (ids: readonly (string | null)[] | null) =>
  (await list(ids)).map(({ node_id }) => node_id);

const childrenOf = async (...ids: readonly string[]) =>
  (await list(ids)).map(({ child_count }) => Number(child_count));

describe('child_count', () => {
  /** Changes, and the child counts of the root, a, b and c after them. */
  const CHANGES = {
    'no change': ['select 1', [1, 2, 3, 0]],
    'a create in c': ['select filestore.create_node((select id from c), $$new$$)', [1, 2, 3, 1]],
    'the delete of a file': ['select filestore.delete_node((select id from g))', [1, 2, 2, 0]],
    'the delete of a tree': [
      'select filestore.delete_node((select id from b), recursive => true)',
      [1, 1, 0, 0],
    ],
    'a batch of a delete': ['select filestore.delete_batch((select id from b), 2)', [1, 2, 1, 0]],
    'the move of a file': [
      'select filestore.move_node((select id from g), (select id from c))',
      [1, 2, 2, 1],
    ],
    'the move of a directory': [
      'select filestore.move_node((select id from b), (select id from r))',
      [2, 1, 3, 0],
    ],
    'a rename': ['select filestore.move_node((select id from b), new_name => $$x$$)', [1, 2, 3, 0]],
    'the content of a file': [
      'update filestore.nodes set size_bytes = 9 where id = (select id from g)',
      [1, 2, 3, 0],
    ],
    'a directory and what is in it moved by one statement': [
      'update filestore.nodes set parent_id = (select id from r) where name in ($$b$$, $$g$$)',
      [3, 1, 2, 0],
    ],
  } as const;

  const named = (change: string) =>
    `with r as (select * from filestore.nodes where parent_id is null), b as (select * from filestore.nodes where name = 'b'),
          c as (select * from filestore.nodes where name = 'c'), g as (select * from filestore.nodes where name = 'g')
     ${change}`;

  describe.each(['pending', 'folded'])('with %s deltas counts only direct children, after', (before) => {
    test.each(Object.entries(CHANGES))('%s', async (_, [change, children]) => {
      if (before === 'folded') await foldAll(database());
      await run(named(change));
      expect(await childrenOf(mount.rootId, a, b, c)).toEqual(children);
      expect(await wrongTotals(database())).toEqual([]);
      await foldAll(database());
      expect(await childrenOf(mount.rootId, a, b, c)).toEqual(children);
      expect(await wrongTotals(database())).toEqual([]);
    });

    test('a tree is deleted, restored, restored to another place and purged', async () => {
      if (before === 'folded') await foldAll(database());
      await run('select filestore.delete_node($1, recursive => true)', [b]);
      await run('select filestore.restore_node($1, with_tree => true)', [b]);
      expect(await childrenOf(a, b, c)).toEqual([2, 3, 0]);
      await run('select filestore.delete_node($1, recursive => true)', [b]);
      await run("update filestore.nodes set state = 'active', parent_id = $2 where id = $1", [
        b,
        mount.rootId,
      ]);
      expect(await childrenOf(mount.rootId, a, b, c)).toEqual([2, 1, 0, 0]);
      expect(await wrongTotals(database())).toEqual([]);
      await foldAll(database());
      expect(await wrongTotals(database())).toEqual([]);
      await run("select filestore.purge_deleted('0')");
      expect(await childrenOf(mount.rootId, a, b, c)).toEqual([2, 1, 0]);
      expect(await run('select * from filestore.check_integrity()')).toEqual([]);
    });
  });

  test('is exact after each part of a fold', async () => {
    await run('select filestore.move_node($1, $2)', [b, mount.rootId]);
    do expect(await childrenOf(mount.rootId, a, b, c)).toEqual([2, 1, 3, 0]);
    while ((await one(database(), 'select filestore.fold_rollups(1) as n')).n > 0);
    expect(await wrongTotals(database())).toEqual([]);
  });

  test('counts the move of a directory whose other changes cancel out', async () => {
    await run('select filestore.delete_node($1, recursive => true)', [b]);
    await run('select filestore.delete_node($1)', [f]);
    await foldAll(database());
    const [creating, deleting] = [await database().connect(), await database().connect()];
    const d = await createNode(database(), mount, a, 'd', 'directory');
    // The fold of the deletion commits and the fold of the creation rolls back: a has -1 directories for a while.
    await creating.query('begin; select filestore.fold_rollups()');
    await run('select filestore.delete_node($1)', [d]);
    const fold = await sendAndBlock(deleting, 'select filestore.fold_rollups()');
    expect(fold.waits).toBe(true);
    await creating.query('rollback');
    await fold.outcome;
    expect(await run('select dir_count from filestore.rollups where node_id = $1', [a])).toEqual([
      { dir_count: '-1' },
    ]);
    const target = await createNode(database(), mount, mount.rootId, 'target', 'directory');
    await run('select filestore.move_node($1, $2)', [a, target]);
    expect(await childrenOf(mount.rootId, target, a)).toEqual([1, 1, 0]);
    expect(await wrongTotals(database())).toEqual([]);
    await foldAll(database());
    expect(await wrongTotals(database())).toEqual([]);
  });

  test('is found by the audit when it is wrong, and corrected by a recount', async () => {
    await foldAll(database());
    await createNode(database(), mount, b, 'i');
    await run('update filestore.rollups set child_count = 7 where node_id = $1', [b]);
    const audit =
      'select a.* from filestore.backend_mounts m cross join filestore.audit_rollups(m.mount_key) a';
    expect(await run(audit)).toMatchObject([{ node_id: b, child_count: '8', expected_child_count: '4' }]);
    expect(await run('select problem, detail from filestore.check_integrity()')).toEqual([
      { problem: 'wrong totals', detail: expect.stringContaining('8 children instead of') },
    ]);
    await run('select filestore.recount_rollups(mount_key) from filestore.backend_mounts');
    expect(await run(audit)).toEqual([]);
    expect(await childrenOf(b)).toEqual([4]);
  });
});

describe('list_totals', () => {
  test('returns a row for each directory once, in the order in which the ids are given', async () => {
    expect(await idsOf([c, a, mount.rootId, b, a, c])).toEqual([c, a, mount.rootId, b]);
  });

  test('returns no row for a file, an unknown id or null', async () => {
    expect(await idsOf([f, b, '999999', null, '-1', a])).toEqual([b, a]);
  });

  test.each([
    ['an empty list', []],
    ['null', null],
  ])('returns no row for %s', async (_, ids) => {
    expect(await list(ids)).toEqual([]);
  });

  test('returns zero for a deleted directory, as directory_totals does, and nothing once it is purged', async () => {
    await run('select filestore.delete_node($1, recursive => true)', [b]);
    const zero = { size_bytes: '0', file_count: '0', dir_count: '0', child_count: '0' };
    expect(await list([b])).toMatchObject([{ node_id: b, ...zero, consistency_state: 'pending' }]);
    await foldAll(database());
    expect(await list([b])).toMatchObject([{ node_id: b, ...zero, consistency_state: 'up_to_date' }]);
    expect(await run('select * from filestore.directory_totals($1)', [b])).toMatchObject([zero]);
    await run("select filestore.purge_deleted('0')");
    expect(await list([b])).toEqual([]);
  });

  test('has the moment of the last recount on request, and null otherwise', async () => {
    await run('select filestore.recount_rollups($1)', [
      (await one(database(), 'select mount_key from filestore.backend_mounts')).mount_key,
    ]);
    const recounts = (withRecounts: boolean) =>
      run('select node_id, last_calculated_at from filestore.list_totals($1, with_recounts => $2)', [
        [c, a],
        withRecounts,
      ]);
    const recounted = await run(
      'select node_id, last_calculated_at from filestore.rollups where node_id = any ($1) order by node_id desc',
      [[a, c]],
    );
    expect(recounted[0]?.last_calculated_at).toBeInstanceOf(Date);
    expect(await recounts(true)).toEqual(recounted);
    expect(await recounts(false)).toEqual([c, a].map((node_id) => ({ node_id, last_calculated_at: null })));
  });

  test('returns pending or stale for each directory', async () => {
    await foldAll(database());
    await createNode(database(), mount, b, 'new');
    await run("update filestore.rollups set consistency_state = 'stale' where node_id = $1", [a]);
    const states = async () => (await list([mount.rootId, a, b, c])).map((row) => row.consistency_state);
    expect(await states()).toEqual(['pending', 'stale', 'pending', 'up_to_date']);
    await foldAll(database());
    expect(await states()).toEqual(['up_to_date', 'stale', 'up_to_date', 'up_to_date']);
  });

  test('reads directories of several mounts in one call', async () => {
    const other = await createMount(database(), 's3');
    await createNode(database(), other, other.rootId, 'x', 'directory');
    await foldAll(database());
    await createNode(database(), other, other.rootId, 'y');
    expect(await list([other.rootId, a, mount.rootId])).toMatchObject([
      { file_count: '1', dir_count: '1', child_count: '2', consistency_state: 'pending' },
      { file_count: '3', dir_count: '2', child_count: '2', consistency_state: 'up_to_date' },
      { file_count: '3', dir_count: '3', child_count: '1', consistency_state: 'up_to_date' },
    ]);
  });

  test('refuses more than 10000 ids, and accepts 10000', async () => {
    const many = (count: number) =>
      run('select * from filestore.list_totals(array(select generate_series(1, $1::integer)))', [count]);
    await expect(many(10_001)).rejects.toMatchObject({
      code: 'FS422',
      constraint: 'node_ids_check',
      message: 'the call has 10001 ids, which are too many',
      hint: expect.stringContaining('10000'),
    });
    expect((await many(10_000)).length).toBeGreaterThanOrEqual(4);
  });

  test('can be read by a reader', async () => {
    const role = await createRole();
    await run("select filestore.grant_access($1, 'reader')", [role.name]);
    const reader = await role.connect();
    expect(await list([a, g], reader)).toMatchObject([{ node_id: a, file_count: '3', child_count: '2' }]);
  });

  test('reads each delta once, whatever the number of directories and with any statistics', async () => {
    await foldAll(database());
    await run('analyze filestore.rollup_deltas');
    await run(
      `with d as (
         insert into filestore.nodes (backend_mount_id, parent_id, parent_path, parent_live, name, kind)
         select $1, $2, 'a/b/c', true, 'd' || g, 'directory' from generate_series(1, 500) g
         returning *
       )
       select count(*) from d`,
      [mount.id, c],
    );
    await run(
      `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, parent_live, name, kind)
       select backend_mount_id, id, path, true, 'f', 'file' from filestore.nodes where parent_id = $1`,
      [c],
    );
    /** The lookups of nodes and scans of deltas of one list, on a new connection. */
    const costOf = async (ids: readonly string[]) => {
      const client = await database().connect();
      await client.query('set enable_seqscan = off; begin');
      expect((await list(ids, client)).length).toBe(ids.length);
      const { rows } = await client.query(
        `select relname, coalesce(idx_tup_fetch, 0)::integer + seq_tup_read::integer as rows_read, seq_scan::integer as scans
         from pg_stat_xact_user_tables where relname in ('nodes', 'rollup_deltas') order by relname`,
      );
      await client.query('commit');
      return { lookups: rows[0]?.rows_read, scans: rows[1]?.scans };
    };
    const directories = (await run('select id from filestore.nodes where parent_id = $1', [c])).map(
      ({ id }) => id,
    );
    const [few, all] = [await costOf([c]), await costOf(directories)];
    expect([few.scans, all.scans]).toEqual([1, 1]);
    // Each of the 500 directories once, c and the directories above it a few times, and the given ids.
    expect(few.lookups).toBeLessThan(500 + 50);
    expect(all.lookups).toBeLessThan(500 + 50 + 500);
  });
});
