import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createMount, type Mount } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

let mount: Mount;
let other: Mount;
let ids: Readonly<Record<string, string>>;
let holder: Client;
let session: Client;

beforeEach(async () => {
  [mount, other] = [await createMount(database()), await createMount(database(), 's3')];
  const key = `#${mount.id}`;
  [holder, session] = [await database().connect(), await database().connect()];
  for (const path of ['from/a', 'from/empty', 'to', 'gone/a'])
    await session.query('select filestore.ensure_directory($1, $2)', [key, path]);
  for (const path of ['from/a/f', 'from/g', 'to/lost', 'to/again'])
    await session.query('select filestore.upsert_file($1, $2, 1)', [key, path]);
  await session.query(`select filestore.upsert_file($1, 'from/g', 2)`, [key]);
  await session.query(`select filestore.upsert_directory($1, 'from/a', '{"a": 1}')`, [key]);
  const { rows } = await session.query('select path, id from filestore.nodes where backend_mount_id = $1', [
    mount.id,
  ]);
  ids = Object.fromEntries(rows.map(({ path, id }) => [path, id]));
  await session.query('select filestore.delete_node($1, recursive => true)', [ids.gone]);
  await session.query('select filestore.delete_node($1)', [ids['to/lost']]);
});

const key = () => `#${mount.id}`;

/** Which tree lock each operation takes, as the comment of `lock_tree` says. */
const OPERATIONS: readonly [
  what: string,
  lock: 'exclusive' | 'shared' | 'none',
  sql: string,
  values: () => readonly unknown[],
][] = [
  ['moving a directory', 'exclusive', 'select filestore.move_node($1, $2)', () => [ids['from/a'], ids.to]],
  [
    'renaming a directory with SQL',
    'exclusive',
    "update filestore.nodes set name = 'b' where id = $1",
    () => [ids.from],
  ],
  ['reverting a directory', 'exclusive', 'select filestore.revert_node($1, 1)', () => [ids['from/a']]],
  ['deleting a tree', 'exclusive', 'select filestore.delete_node($1, recursive => true)', () => [ids.from]],
  ['deleting a batch', 'exclusive', 'select filestore.delete_batch($1)', () => [ids.from]],
  ['restoring a tree', 'exclusive', 'select filestore.restore_node($1, with_tree => true)', () => [ids.gone]],
  ['purging', 'exclusive', "select filestore.purge_deleted('0')", () => []],
  ['recounting', 'exclusive', 'select filestore.recount_rollups($1)', () => [key()]],
  ['folding', 'shared', 'select filestore.fold_rollups()', () => []],
  ['moving a file', 'shared', 'select filestore.move_node($1, $2)', () => [ids['from/g'], ids.to]],
  ['reverting a file', 'shared', 'select filestore.revert_node($1, 1)', () => [ids['from/g']]],
  ['restoring a node', 'shared', 'select filestore.restore_node($1)', () => [ids['to/lost']]],
  [
    'setting states',
    'shared',
    "select filestore.set_states(array[$1]::bigint[], 'missing')",
    () => [ids['from/g']],
  ],
  [
    'updating several nodes',
    'shared',
    'select filestore.update_nodes($1)',
    () => [
      JSON.stringify([
        { id: Number(ids['from/g']), size_bytes: 3 },
        { id: Number(ids['to/again']), size_bytes: 3 },
      ]),
    ],
  ],
  [
    'a first sighting',
    'shared',
    'select filestore.record_sightings(array[$1]::bigint[])',
    () => [ids['from/g']],
  ],
  [
    'creating in several directories',
    'shared',
    'select filestore.create_nodes($1)',
    () => [
      JSON.stringify([ids.from, ids.to].map((id) => ({ parent_id: Number(id), name: 'n', kind: 'file' }))),
    ],
  ],
  [
    'replacing a file by a directory',
    'shared',
    "select filestore.upsert_directory($1, 'from/g', replace_file => true)",
    () => [key()],
  ],
  [
    'syncing',
    'shared',
    `select filestore.sync_nodes($1, '[{"path": "from/g", "size_bytes": 4}]')`,
    () => [key()],
  ],
  ['creating', 'none', "select filestore.create_node($1, 'n')", () => [ids.from]],
  ['writing content', 'none', "select filestore.upsert_file($1, 'from/g', 3)", () => [key()]],
  ['deleting a file', 'none', 'select filestore.delete_node($1)', () => [ids['from/g']]],
  ['deleting a directory', 'none', 'select filestore.delete_node($1)', () => [ids['from/empty']]],
];

describe('the lock of a tree:', () => {
  test.each(OPERATIONS)('%s takes it: %s', async (_, lock, sql, values) => {
    /** Whether the operation waits while another session holds a lock. The operation is undone. */
    async function waitsBeside(held: Mount, exclusive: boolean): Promise<boolean> {
      await holder.query('begin');
      await holder.query('select filestore.lock_tree($1, $2)', [held.id, exclusive]);
      await session.query('begin');
      const operation = await sendAndBlock(session, sql, [...values()]);
      await holder.query('rollback');
      const { waits } = operation;
      expect(await operation.outcome).toMatchObject({ ok: true });
      await session.query('rollback');
      return waits;
    }
    expect({
      shared: await waitsBeside(mount, false),
      exclusive: await waitsBeside(mount, true),
      ofAnotherMount: await waitsBeside(other, true),
    }).toEqual({ shared: lock === 'exclusive', exclusive: lock !== 'none', ofAnotherMount: false });
  });
});

test.each(['null, true', '1, null'])(
  'lock_tree(%s) is refused, since it would lock nothing',
  async (given) => {
    await expect(session.query(`select filestore.lock_tree(${given})`)).rejects.toMatchObject({
      code: 'FS422',
      constraint: 'tree_lock_check',
    });
  },
);
