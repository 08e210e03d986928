import type { QueryResult } from 'pg';
import { describe, expect, test } from 'vitest';
import { CHANGED, CONDITIONS, listedTreeForFile, PATHS } from '../support/rows/listed-tree.ts';
import { one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';

const { database, reader, mount, key, expectedIds, listed } = listedTreeForFile();

const ORDERS: Readonly<Record<string, string>> = {
  path: 'path',
  name: 'name',
  size: 'size_bytes',
  change: 'updated_at',
};

interface Row {
  readonly id: string;
  readonly cursor: string;
}

/** Reads a list page by page, each after the cursor of the last row of the previous page. */
async function allPages(args: string, size: number): Promise<readonly string[]> {
  const ids: string[] = [];
  let cursor: string | null = null;
  for (;;) {
    const { rows }: QueryResult<Row> = await reader().query(
      `${CHANGED} select (l.node).id, l.cursor from filestore.list_nodes(${args}, after_cursor => $1, page_size => $2) l`,
      [cursor, size],
    );
    ids.push(...rows.map(({ id }) => id));
    if (rows.length < size) return ids;
    cursor = rows.at(-1)?.cursor ?? null;
  }
}

describe('list_nodes', () => {
  test.each(CONDITIONS)(
    'with [%s] pages through the nodes that meet the conditions, in every order',
    async (args, condition) => {
      let nodes = 0;
      for (const path of PATHS) {
        for (const [order, column] of Object.entries(ORDERS)) {
          for (const descending of [false, true]) {
            const all = await expectedIds(path, condition, column, descending ? 'desc' : 'asc');
            nodes += all.length;
            const rest = `order_by => '${order}', descending => ${descending}`;
            expect(await allPages(listed(path, args, rest), 5), `${path} ${rest}`).toEqual(all);
          }
        }
      }
      expect(nodes > 0).toBe(condition !== 'false');
    },
  );

  // Fewer than the nodes below the root, and more than most conditions select: the other indexes are read.
  test.each(CONDITIONS)(
    'with [%s] returns the same from every index, or refuses',
    async (args, condition) => {
      const { total } = await one(
        database(),
        'select count(*)::integer as total from filestore.nodes where backend_mount_id = $1',
        [mount().id],
      );
      for (const [order, column] of Object.entries(ORDERS)) {
        const all = await expectedIds('', condition, column, 'asc');
        for (const most of [3, Math.ceil(total / 6), Math.ceil(total / 3)]) {
          const pages = allPages(listed('', args, `order_by => '${order}', max_nodes => ${most}`), 5);
          await pages.then(
            (ids) => expect(ids, `${order} ${most}`).toEqual(all),
            (error) => expect(error).toMatchObject({ code: 'FS422', constraint: 'nodes_range_check' }),
          );
        }
      }
    },
  );

  test('reads no more than max_nodes in order of size, name and change, and any number in order of path', async () => {
    const { total } = await one(
      database(),
      'select count(*)::integer as total from filestore.nodes where backend_mount_id = $1 and live and parent_id is not null',
      [mount().id],
    );
    for (const order of ['size', 'name', 'change']) {
      const args = (most: number) => listed('', `order_by => '${order}', max_nodes => ${most}`);
      expect((await allPages(args(total), 1000)).length).toBe(total);
      await expect(allPages(args(total - 1), 1000)).rejects.toMatchObject({
        code: 'FS422',
        constraint: 'nodes_range_check',
        message: `this would read more than ${total - 1} nodes of mount "${key()}" below ""`,
      });
    }
    expect((await allPages(listed('', 'max_nodes => 10'), 5)).length).toBe(total);
    // The nodes before those that match count, and those after a full page do not.
    const last = "name_contains => 'sea', kinds => '{file}'";
    await expect(allPages(listed('', `${last}, max_nodes => 10`), 1000)).rejects.toMatchObject({
      constraint: 'nodes_range_check',
    });
  });

  test.each([
    ["order_by => 'size'", /order_by path; only the states/],
    ['', /below it; only the states inconsistent and missing; metadata_contains; a larger max_nodes/],
    [`states => '{missing}', metadata_contains => '{"tag": "red"}'`, /below it; a larger max_nodes/],
  ])('that is refused with [%s] gets advice that it does not follow yet', async (args, hint) => {
    const conditions = `name_contains => 'no such name', max_nodes => 1`;
    await expect(allPages(listed('', conditions, args), 10)).rejects.toMatchObject({
      constraint: 'nodes_range_check',
      hint: expect.stringMatching(hint),
    });
  });

  test('reads missing nodes, metadata and directories by their indexes where the directory has too many nodes', async () => {
    for (const args of [
      "states => '{missing}'",
      "states => '{missing}', order_by => 'size'",
      `metadata_contains => '{"tag": "red"}', order_by => 'change'`,
    ]) {
      const most = (await allPages(listed('', args), 1000)).length;
      const { total } = await one(
        database(),
        'select count(*)::integer as total from filestore.nodes where metadata @> \'{"tag": "red"}\'',
      );
      const enough = args.startsWith('states') ? most : total;
      expect((await allPages(listed('', `${args}, max_nodes => ${enough}`), 1000)).length).toBe(most);
    }
    // The index also has deleted directories, and those of other mounts.
    const { directories } = await one(
      database(),
      "select count(*)::integer as directories from filestore.nodes where kind = 'directory' and parent_id is not null",
    );
    const all = await expectedIds('', "live and kind = 'directory'", 'path', 'asc');
    expect(await allPages(listed('', `kinds => '{directory}', max_nodes => ${directories}`), 1000)).toEqual(
      all,
    );
  });

  test('ignores case as the locale of the database does', async () => {
    const { is_known } = await one(database(), `select lower('É' collate "default") = 'é' as is_known`);
    const all = is_known ? await expectedIds('', "live and name like 'é%'", 'path', 'asc') : [];
    expect(await allPages(listed('', "name_contains => 'É'"), 1000)).toEqual(all);
  });

  test('has sightings and totals on request, and nulls otherwise', async () => {
    const { id } = await one(database(), 'select id from filestore.node_by_path($1, $2)', [key(), 'a/b']);
    await database().query(
      "select filestore.record_sightings(array[$1::bigint], '2024-01-01', '2024-01-02')",
      [id],
    );
    const rowOf = async (rest: string) =>
      (
        await reader().query(
          `select l.last_seen_at, l.last_reconciled_at, l.total_bytes, l.file_count, l.dir_count, l.child_count, l.consistency_state, l.last_calculated_at
           from filestore.list_nodes($1, 'a'${rest}) l where (l.node).path = 'a/b'`,
          [key()],
        )
      ).rows[0];
    const sightings = {
      last_seen_at: new Date('2024-01-01T00:00:00Z'),
      last_reconciled_at: new Date('2024-01-02T00:00:00Z'),
    };
    const { size_bytes: total_bytes, ...totals } = await one(
      database(),
      'select t.*, r.last_calculated_at from filestore.directory_totals($1) t join filestore.rollups r on r.node_id = $1',
      [id],
    );
    const none = {
      ...{ last_seen_at: null, last_reconciled_at: null, total_bytes: null, file_count: null },
      ...{ dir_count: null, child_count: null, consistency_state: null, last_calculated_at: null },
    };
    expect(await rowOf('')).toEqual(none);
    expect(await rowOf(', with_sightings => true')).toEqual({ ...none, ...sightings });
    expect(await rowOf(', with_totals => true')).toEqual({ ...none, total_bytes, ...totals });
    expect(await rowOf(', with_totals => true, with_sightings => true')).toEqual({
      ...sightings,
      total_bytes,
      ...totals,
    });
  });

  test('refuses an unknown mount, a directory that does not exist, and a file', async () => {
    const list = (args: string) => reader().query(`select from filestore.list_nodes(${args})`);
    await expect(list("'nowhere'")).rejects.toMatchObject(refusal('FS404', '"nowhere"'));
    await expect(list(listed('none', ''))).rejects.toMatchObject({
      ...refusal('FS404', '"none"'),
      constraint: 'nodes_missing',
    });
    const { path } = await one(
      database(),
      "select path from filestore.nodes where backend_mount_id = $1 and live and kind = 'file' limit 1",
      [mount().id],
    );
    await expect(list(listed(path, ''))).rejects.toMatchObject({
      ...refusal('FS404', 'is a file'),
      constraint: 'nodes_not_directory',
    });
    // Tombstones may be below a path that has no directory any more.
    expect((await list(listed('ab/B', "states => '{deleted}'"))).rows.length).toBeGreaterThan(0);
    expect((await list(listed('none', "states => '{deleted}'"))).rows).toEqual([]);
  });

  test.each([
    ['page_size => 0', 'limit_check'],
    ['page_size => 10001', 'limit_check'],
    ['page_size => null', 'limit_check'],
    ['max_nodes => 0', 'limit_check'],
    ['max_nodes => 10000001', 'limit_check'],
    ['max_depth => 0', 'limit_check'],
    [`metadata_contains => '["red"]'`, 'nodes_metadata_check'],
    ["order_by => 'id'", 'node_order_check'],
    ["states => '{gone}'", 'node_state_check'],
    ["kinds => '{link}'", 'node_kind_check'],
    ["path => 'a/../b'", 'nodes_path_check'],
  ])('refuses %s', async (args, constraint) => {
    await expect(
      reader().query(`select from filestore.list_nodes(mount_key => '${key()}', ${args})`),
    ).rejects.toMatchObject({ constraint });
  });

  test('takes null for a default', async () => {
    const { rows } = await reader().query(
      `select (l.node).id from filestore.list_nodes($1, null, null, null, null, null, null, null, null, null, null, null, null, 1000, null, null) l`,
      [key()],
    );
    expect(rows.map(({ id }) => id)).toEqual(await expectedIds('', 'live', 'path', 'asc'));
  });
});
