import type { Client } from 'pg';
import { beforeAll } from 'vitest';
import { databaseForFile, type TestDatabase } from '../databases/test-database.ts';
import { levelsForFile } from '../roles/roles.ts';
import { createMount, foldAll, type Mount } from './nodes.ts';
import { keyOf } from './writer-functions.ts';

/** Arguments of list_nodes, and the same condition in plain SQL. */
export const CONDITIONS: readonly (readonly [string, string])[] = [
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

export const PATHS = ['', '/a//b/', 'ab'];

export const CHANGED = `with changed as (
  select percentile_disc(0.5) within group (order by updated_at) as moment from filestore.nodes)`;

/** A tree with many nodes to list, and the lists that it must have. */
export interface ListedTree {
  readonly database: () => TestDatabase;
  readonly reader: () => Client;
  readonly mount: () => Mount;
  readonly key: () => string;
  /** The ids that a list must have, by plain SQL. */
  expectedIds(path: string, condition: string, order: string, direction: string): Promise<readonly string[]>;
  /** The arguments of a list. */
  listed(path: string, condition: string, rest?: string): string;
}

/**
 * A tree of 3 levels with every state, sizes and metadata, on two mounts. Names repeat in other directories, and some
 * paths have several tombstones.
 */
export function listedTreeForFile(): ListedTree {
  const database = databaseForFile();
  const connectAs = levelsForFile(database);
  let reader: Client;
  let mount: Mount;
  let key: string;

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

  return {
    database,
    reader: () => reader,
    mount: () => mount,
    key: () => key,
    listed: (path, condition, rest = '') =>
      [`'${key}', '${path}'`, condition, rest].filter((part) => part !== '').join(', '),
    async expectedIds(path, condition, order, direction) {
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
    },
  };
}
