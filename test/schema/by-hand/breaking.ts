import { beforeAll, beforeEach, expect, test } from 'vitest';
import { keepRows } from '../../support/databases/kept-rows.ts';
import {
  databaseForFile,
  type TestDatabase,
  withoutTriggers,
} from '../../support/databases/test-database.ts';
import { createChain, createMount, createNode, foldAll, one } from '../../support/rows/nodes.ts';
import { keyOf } from '../../support/rows/writer-functions.ts';
import type { Break } from './breaks-of-nodes.ts';
import { fill, heal, readProblems } from './healing.ts';

/** A small catalogue of everything that can be broken. */
export interface Catalogue {
  readonly database: TestDatabase;
  /**
   * Mounts: mount, other. Nodes: root and other_root; the directories a, a/b (b), lost and a/old (old, deleted);
   * the files a/b/f (f, with two versions), a/gone (gone, deleted) and a/old/x (deleted). A running command: entry.
   */
  readonly ids: Readonly<
    Record<
      'a' | 'b' | 'entry' | 'f' | 'gone' | 'lost' | 'mount' | 'old' | 'other' | 'other_root' | 'root',
      string
    >
  >;
}

/** Everything is folded, seen, and scanned from a on by a scan that runs. */
export function catalogueForEachTest(): () => Catalogue {
  const database = databaseForFile();
  let catalogue: Catalogue;
  let putBack: () => Promise<void>;
  beforeAll(async () => {
    const sql = database();
    const mount = await createMount(sql);
    const other = await createMount(sql);
    const [a = '', b = ''] = await createChain(sql, mount, 'a', 'b');
    const f = await createNode(sql, mount, b, 'f');
    const gone = await createNode(sql, mount, a, 'gone');
    const old = await createNode(sql, mount, a, 'old', 'directory');
    const lost = await createNode(sql, mount, mount.rootId, 'lost', 'directory');
    await createNode(sql, mount, old, 'x');
    await sql.query('update filestore.nodes set size_bytes = 5 where id = $1', [f]);
    await sql.query('select filestore.record_sightings(array(select id from filestore.nodes))');
    await sql.query(
      'select filestore.delete_node(id, recursive => true) from filestore.nodes where id = any ($1)',
      [[gone, old]],
    );
    await foldAll(sql);
    await sql.query("select filestore.begin_scan($1, 'a')", [await keyOf(sql, mount.id)]);
    const { id: entry } = await one(sql, "select (entry).id from filestore.begin_command('x')");
    catalogue = {
      database: sql,
      ids: {
        a,
        b,
        entry,
        f,
        gone,
        lost,
        mount: mount.id,
        old,
        other: other.id,
        other_root: other.rootId,
        root: mount.rootId,
      },
    };
    putBack = await keepRows(sql);
  });
  beforeEach(() => putBack());
  return () => catalogue;
}

export const namesOf = async (database: TestDatabase): Promise<readonly string[]> =>
  [...new Set((await readProblems(database)).map(({ problem }) => problem))].sort();

/** Runs the statements of a break, with that switched off which it names. */
async function breakRows(
  database: TestDatabase,
  { off = 'all', sql }: Break,
  ids: Catalogue['ids'],
): Promise<void> {
  const statements = sql.map((statement) => fill(statement, ids));
  if (off === 'all') {
    await withoutTriggers(database, async (client) => {
      for (const statement of statements) await client.query(statement);
    });
    return;
  }
  const client = await database.connectAsSuperuser();
  const { rows } = await client.query<{ name: string; table: string }>(
    `select tgname as name, tgrelid::regclass::text as table from pg_trigger
     where tgenabled = 'O' and (tgname = any ($1) or ($1 = '{every}' and tgrelid::regclass::text like 'filestore.%'))`,
    [off.split(' ')],
  );
  for (const { name, table } of rows) await client.query(`alter table ${table} disable trigger "${name}"`);
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    for (const { name, table } of rows) await client.query(`alter table ${table} enable trigger "${name}"`);
    await client.end();
  }
}

/** A live directory of the mount of a problem, which is not the parent, and a name that is free there. */
const FOUND = {
  directory: `(
    select coalesce(max(n.id) filter (where n.name = 'lost'), max(n.id) filter (where n.name = ''), min(n.id))
    from filestore.nodes n
    join filestore.nodes o on o.backend_mount_id = n.backend_mount_id and n.id not in (o.id, coalesce(o.parent_id, 0))
    where o.id = :node_id and n.live and n.kind = 'directory'
  )`,
  name: "'found-' || :node_id",
};

/** One test for each break. */
export function runBreaks(breaks: readonly Break[], catalogue: () => Catalogue): void {
  test.each(breaks)('$rule: $what', async (each) => {
    const { database, ids } = catalogue();
    await breakRows(database, each, ids);
    expect(await namesOf(database)).toEqual([...each.named].sort());
    await heal(database, { ...FOUND, ...each.chosen });
  });
}
