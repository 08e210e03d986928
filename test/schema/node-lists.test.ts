import type { Client, QueryResult } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createDirectory, createMount, createNode, foldAll, type Mount, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let reader: Client;
let mount: Mount;
let key: string;

/**
 * A tree of 3 levels with every state, sizes and metadata, on two mounts. Names repeat in other directories, and some
 * paths have several tombstones.
 */
beforeAll(async () => {
  reader = await connectAs('reader');
  for (const at of [0, 1]) {
    const made = await createMount(database());
    const madeKey = await keyOf(database(), made.id);
    await database().query(
      `select filestore.ensure_directory($1, p) from unnest(array['a/b/c', 'a/b-', 'a!', 'ab/B', 'z']) p`,
      [madeKey],
    );
    await database().query(
      `select filestore.create_node(d.id, new_name, size_bytes => length(d.path) * 7 + g, metadata => case g % 3
         when 0 then jsonb_build_object('tag', 'red', 'n', g) when 1 then '{"empty": {}}' else '{}' end)
       from filestore.nodes d
       cross join generate_series(1, 9) g
       cross join lateral (select (array['f', 'Sea ', 'é', '10%_'])[1 + g % 4] || g as new_name) n
       where d.backend_mount_id = $1 and d.kind = 'directory'`,
      [made.id],
    );
    for (const [state, rest] of [
      ['missing', 2],
      ['inconsistent', 3],
      ['deleted', 4],
    ]) {
      await database().query(
        "update filestore.nodes set state = $1 where id % 7 = $2 and kind = 'file' and live",
        [state, rest],
      );
    }
    for (const _ of [1, 2]) {
      await database().query(
        `select filestore.delete_node(n.id) from filestore.upsert_file($1, 'a/b/again') n`,
        [madeKey],
      );
    }
    await database().query(
      `select filestore.delete_node(n.id, recursive => true) from filestore.node_by_path($1, 'ab') n`,
      [madeKey],
    );
    await database().query("select filestore.ensure_directory($1, 'ab')", [madeKey]);
    if (at === 0) [mount, key] = [made, madeKey];
  }
  await foldAll(database());
});

/** Arguments of list_nodes, and the same condition in plain SQL. */
const CONDITIONS: readonly (readonly [string, string])[] = [
  ['', 'live'],
  ["states => '{missing}'", "state = 'missing'"],
  ["states => '{missing,inconsistent}'", "state in ('missing', 'inconsistent')"],
  ["states => '{active}', kinds => '{file}'", "state = 'active' and kind = 'file'"],
  ["states => '{deleted}'", 'not live'],
  ["states => '{active,inconsistent,missing,deleted}'", 'true'],
  ["states => '{missing,deleted}', max_size => 40", "state in ('missing', 'deleted') and size_bytes <= 40"],
  ["states => '{}'", 'false'],
  ["kinds => '{directory}'", "live and kind = 'directory'"],
  ["kinds => '{directory}', states => '{active,deleted}'", "kind = 'directory'"],
  ["kinds => '{}'", 'false'],
  ["name_contains => 'sea'", "live and name ilike '%sea%'"],
  ["name_contains => 'é'", "live and name like 'é%'"],
  ["name_contains => '%_'", "live and name like '10%'"],
  ["name_contains => ''", 'live'],
  [`metadata_contains => '{"tag": "red"}'`, 'live and metadata @> \'{"tag": "red"}\''],
  [
    `metadata_contains => '{"tag": "red"}', states => '{deleted,active}'`,
    "state in ('active', 'deleted') and metadata @> '{\"tag\": \"red\"}'",
  ],
  [`metadata_contains => '{"empty": {}}'`, 'live and metadata @> \'{"empty": {}}\''],
  [`metadata_contains => '{}'`, 'live'],
  ['max_depth => 1', 'live and relative_depth <= 1'],
  [
    "max_depth => 1, states => '{deleted,missing}'",
    "state in ('deleted', 'missing') and relative_depth <= 1",
  ],
  ["max_depth => 1, kinds => '{directory}'", "live and relative_depth <= 1 and kind = 'directory'"],
  ['max_depth => 2', 'live and relative_depth <= 2'],
  ['max_depth => 2147483647', 'live'],
  ['min_size => 12, max_size => 20', 'live and size_bytes between 12 and 20'],
  ['changed_since => (select moment from changed)', 'live and updated_at >= (select moment from changed)'],
];

const PATHS = ['', '/a//b/', 'ab'];

const ORDERS: Readonly<Record<string, string>> = {
  path: 'path',
  name: 'name',
  size: 'size_bytes',
  change: 'updated_at',
};

const CHANGED = `with changed as (
  select percentile_disc(0.5) within group (order by updated_at) as moment from filestore.nodes)`;

interface Row {
  readonly id: string;
  readonly cursor: string;
}

/** Reads a list page by page, each after the cursor of the last row of the previous page. */
async function allPages(args: string, size: number): Promise<readonly string[]> {
  const ids: string[] = [];
  let cursor: string | null = null;
  for (;;) {
    const { rows }: QueryResult<Row> = await reader.query(
      `${CHANGED} select (l.node).id, l.cursor from filestore.list_nodes(${args}, after_cursor => $1, page_size => $2) l`,
      [cursor, size],
    );
    ids.push(...rows.map(({ id }) => id));
    if (rows.length < size) return ids;
    cursor = rows.at(-1)?.cursor ?? null;
  }
}

/** The ids that a list must have, by plain SQL. */
async function expectedIds(path: string, condition: string, order: string, direction: string) {
  const top = path.split('/').filter(Boolean).join('/');
  const { rows } = await reader.query<{ id: string }>(
    `${CHANGED}
     select id from (
       select n.*, n.depth - cardinality(string_to_array($2, '/')) as relative_depth
       from filestore.nodes n where n.backend_mount_id = $1 and n.parent_id is not null
         and ($2 = '' or starts_with(n.path, $2 || '/'))
     ) n
     where ${condition}
     order by ${order} ${direction}, id ${direction}`,
    [mount.id, top],
  );
  return rows.map(({ id }) => id);
}

const listed = (path: string, condition: string, rest = '') =>
  [`'${key}', '${path}'`, condition, rest].filter((part) => part !== '').join(', ');

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
        [mount.id],
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
      [mount.id],
    );
    for (const order of ['size', 'name', 'change']) {
      const args = (most: number) => listed('', `order_by => '${order}', max_nodes => ${most}`);
      expect((await allPages(args(total), 1000)).length).toBe(total);
      await expect(allPages(args(total - 1), 1000)).rejects.toMatchObject({
        code: 'FS422',
        constraint: 'nodes_range_check',
        message: `this would read more than ${total - 1} nodes of mount "${key}" below ""`,
      });
    }
    expect((await allPages(listed('', 'max_nodes => 10'), 5)).length).toBe(total);
    // The nodes before those that match count, and those after a full page do not.
    const last = "name_contains => 'sea', kinds => '{file}'";
    await expect(allPages(listed('', `${last}, max_nodes => 10`), 1000)).rejects.toMatchObject({
      constraint: 'nodes_range_check',
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
    const { id } = await one(database(), 'select id from filestore.node_by_path($1, $2)', [key, 'a/b']);
    await database().query(
      "select filestore.record_sightings(array[$1::bigint], '2024-01-01', '2024-01-02')",
      [id],
    );
    const rowOf = async (rest: string) =>
      (
        await reader.query(
          `select l.last_seen_at, l.last_reconciled_at, l.total_bytes, l.file_count, l.dir_count, l.child_count, l.consistency_state, l.last_calculated_at
           from filestore.list_nodes($1, 'a'${rest}) l where (l.node).path = 'a/b'`,
          [key],
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

  test.each([1, 2, 3])(
    'pages of %i lose and repeat no node while nodes are created, deleted and restored',
    async (size) => {
      const top = await createDirectory(database(), mount, mount.rootId, `pages-${size}`);
      const files: string[] = [];
      for (const name of ['b', 'c', 'd', 'e', 'f'])
        files.push(await createNode(database(), mount, top, name));
      const seen: string[] = [];
      let cursor: string | null = null;
      for (let turn = 0; ; turn += 1) {
        const { rows }: QueryResult<Row> = await reader.query(
          `select (l.node).id, l.cursor from filestore.list_nodes($1, $2, after_cursor => $3, page_size => $4,
           states => '{active,deleted}') l`,
          [key, `pages-${size}`, cursor, size],
        );
        if (rows.length === 0) break;
        seen.push(...rows.map(({ id }) => id));
        cursor = rows.at(-1)?.cursor ?? null;
        await createNode(database(), mount, top, `a${turn}`);
        await database().query(
          "update filestore.nodes set state = case when live then 'deleted' else 'active' end where id = $1",
          [files[(turn * 3) % files.length]],
        );
      }
      expect(seen).toEqual(files);
    },
  );

  test('refuses a cursor of another order or directory, and what is no cursor', async () => {
    const cursorOf = async (args: string) =>
      (await reader.query(`select cursor from filestore.list_nodes(${args}, page_size => 1)`)).rows[0].cursor;
    const list = (args: string, cursor: string) =>
      reader.query(`select from filestore.list_nodes(${args}, after_cursor => $1)`, [cursor]);
    const [byPath, bySize] = [
      await cursorOf(listed('a/b', '')),
      await cursorOf(listed('', "order_by => 'size'")),
    ];
    for (const [args, cursor] of [
      [listed('', ''), bySize],
      [listed('', "order_by => 'size'"), byPath],
      [listed('z', ''), byPath],
      [listed('', ''), 'x'],
      [listed('', ''), ''],
      [listed('', "order_by => 'size'"), 'size:1:x'],
      [listed('', "order_by => 'change'"), 'change:1:2024-01-01'],
      [listed('', "order_by => 'change'"), 'change:1:9223372036854775807'],
    ] as const) {
      await expect(list(args, cursor), `${args} ${cursor}`).rejects.toMatchObject({
        ...refusal('FS422', 'after_cursor'),
        constraint: 'cursor_check',
      });
    }
    // In one directory, the orders of path and name are one.
    await list(
      listed('a/b', "max_depth => 1, order_by => 'name'"),
      await cursorOf(listed('a/b', 'max_depth => 1')),
    );
    // No file is larger.
    expect((await list(listed('', "order_by => 'size'"), 'size:1:9999999999999999999')).rows).toEqual([]);
  });

  test('refuses an unknown mount, a directory that does not exist, and a file', async () => {
    const list = (args: string) => reader.query(`select from filestore.list_nodes(${args})`);
    await expect(list("'nowhere'")).rejects.toMatchObject(refusal('FS404', '"nowhere"'));
    await expect(list(listed('none', ''))).rejects.toMatchObject({
      ...refusal('FS404', '"none"'),
      constraint: 'nodes_missing',
    });
    const { path } = await one(
      database(),
      "select path from filestore.nodes where backend_mount_id = $1 and live and kind = 'file' limit 1",
      [mount.id],
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
      reader.query(`select from filestore.list_nodes(mount_key => '${key}', ${args})`),
    ).rejects.toMatchObject({ constraint });
  });

  test('takes null for a default', async () => {
    const { rows } = await reader.query(
      `select (l.node).id from filestore.list_nodes($1, null, null, null, null, null, null, null, null, null, null, null, null, 1000, null, null) l`,
      [key],
    );
    expect(rows.map(({ id }) => id)).toEqual(await expectedIds('', 'live', 'path', 'asc'));
  });
});

describe('count_nodes', () => {
  const count = async (args: string) =>
    (await reader.query(`${CHANGED} select nodes::integer, is_estimate from filestore.count_nodes(${args})`))
      .rows[0];

  test.each(CONDITIONS)('with [%s] counts the nodes of the list', async (args, condition) => {
    for (const path of PATHS) {
      const { length } = await expectedIds(path, condition, 'id', 'asc');
      expect(await count(listed(path, args)), path).toEqual({ nodes: length, is_estimate: false });
    }
  });

  test('of all nodes, of a kind, or in one directory is exact with any max_nodes, also while deltas are pending', async () => {
    await createNode(database(), mount, mount.rootId, 'pending');
    for (const [args, condition] of [
      ['', 'live'],
      ["kinds => '{file}'", "live and kind = 'file'"],
      ["kinds => '{directory}'", "live and kind = 'directory'"],
      ['max_depth => 1', 'live and relative_depth = 1'],
    ] as const) {
      const { length } = await expectedIds('', condition, 'id', 'asc');
      expect(await count(listed('', args, 'max_nodes => 1')), args).toEqual({
        nodes: length,
        is_estimate: false,
      });
    }
  });

  test('says when it is an estimate, by the share of the nodes that were read', async () => {
    const { length: all } = await expectedIds('', 'live', 'path', 'asc');
    const first = await database().query(
      `select n.kind from filestore.nodes n where n.backend_mount_id = $1 and n.live and n.parent_id is not null
       order by n.path limit 11`,
      [mount.id],
    );
    const files = first.filter(({ kind }) => kind === 'file').length;
    expect(await count(listed('', "kinds => '{file}', min_size => 0", 'max_nodes => 10'))).toEqual({
      nodes: Math.round((files * all) / 11),
      is_estimate: true,
    });
  });

  test('of too many tombstones is refused', async () => {
    await expect(count(listed('', "states => '{deleted}', max_nodes => 3"))).rejects.toMatchObject({
      code: 'FS422',
      constraint: 'nodes_range_check',
    });
  });
});
