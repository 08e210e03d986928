import { beforeEach, describe, expect, test } from 'vitest';
import { REFERENCES_WITHOUT_KEY } from '../../migrations/facts.ts';
import { databaseEmptiedAfterEachTest, withoutTriggers } from '../support/databases/test-database.ts';
import {
  createChain,
  createMount,
  createNode,
  deleteNode,
  foldAll,
  type Mount,
} from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

let mount: Mount;
let other: Mount;
/** Creates the directories a and a/b, and the file a/b/f with two versions. Everything is folded. */
let a: string;
let b: string;
let f: string;

beforeEach(async () => {
  mount = await createMount(database());
  other = await createMount(database());
  [a, b] = (await createChain(database(), mount, 'a', 'b')) as [string, string];
  f = await createNode(database(), mount, b, 'f');
  await database().query('update filestore.nodes set size_bytes = 5 where id = $1', [f]);
  await foldAll(database());
});

const problems = async () =>
  (
    await database().query<{ problem: string }>(
      'select distinct problem from filestore.check_integrity() order by 1',
    )
  ).map((row) => row.problem);

/** Runs statements without triggers and foreign keys, as a restore or a careless session does. */
async function pastTheGuards(...statements: readonly string[]): Promise<void> {
  await withoutTriggers(database(), async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}

test('a catalogue with moved, deleted, restored and purged nodes has no problem', async () => {
  const g = await createNode(database(), mount, a, 'g');
  await deleteNode(database(), f);
  await database().query('select filestore.move_node($1, $2)', [b, mount.rootId]);
  await database().query('select filestore.restore_node($1)', [f]);
  await deleteNode(database(), g);
  await foldAll(database());
  await database().query("select filestore.purge_deleted('0')");
  expect(await problems()).toEqual([]);
});

describe('check_integrity finds', () => {
  test.each<[string, () => readonly string[], readonly string[], undo?: string]>([
    [
      'a path that does not follow from parent and name',
      () => [
        `update filestore.nodes set parent_path = 'elsewhere', path = 'elsewhere/f', depth = 2 where id = ${f}`,
      ],
      ['path mismatch'],
    ],
    [
      'a node whose parent does not exist',
      () => [`delete from filestore.nodes where id = ${b}`],
      ['orphan', 'totals of no directory', 'wrong totals'],
    ],
    [
      'history of a node that does not exist',
      () => [`delete from filestore.nodes where id = ${f}`],
      ['history of no node', 'wrong totals'],
    ],
    [
      'a live node below a deleted one',
      () => [
        `update filestore.nodes set state = 'deleted', deleted_at = now(), live = false, parent_live = null where id = ${b}`,
      ],
      ['live below deleted', 'wrong totals'],
    ],
    [
      'a node below a file',
      () => [
        `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, parent_live, name, path, depth, kind)
         values (${mount.id}, ${f}, 'a/b/f', true, 'g', 'a/b/f/g', 4, 'file')`,
      ],
      ['parent is a file', 'wrong totals'],
    ],
    [
      'a node whose parent is on another mount',
      () => [`update filestore.nodes set backend_mount_id = ${other.id} where id = ${f}`],
      ['history on another mount', 'parent on another mount', 'wrong totals'],
    ],
    [
      'directories in a ring',
      () => [
        `update filestore.nodes
         set parent_id = ${b}, parent_path = 'a/b', path = 'a/b/a', depth = 3, directory_path = 'a/b/a' where id = ${a}`,
      ],
      ['cycle', 'path mismatch', 'wrong totals'],
    ],
    [
      'two live nodes at one path',
      () => [
        `update filestore.nodes set parent_id = ${other.rootId}, parent_path = 'a/b', name = 'f' where id = ${f}`,
        `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, parent_live, name, path, depth, kind)
         values (${mount.id}, ${b}, 'a/b', true, 'f', 'a/b/f', 3, 'file')`,
      ],
      ['duplicate live path', 'parent on another mount', 'wrong totals'],
    ],
    [
      'a mount without a root',
      () => [`delete from filestore.nodes where id = ${other.rootId}`],
      ['mount without a root', 'totals of no directory'],
    ],
    [
      'a version that is missing',
      () => [`delete from filestore.snapshots where id = ${f}`],
      ['missing version'],
    ],
    [
      'versions that overlap',
      () => [`update filestore.snapshots set valid_to = valid_to + interval '1 hour' where id = ${f}`],
      ['overlapping versions'],
    ],
    [
      'a gap between versions',
      () => [`update filestore.nodes set updated_at = updated_at + interval '1 hour' where id = ${f}`],
      ['gap between versions'],
    ],
    [
      'a total that is wrong',
      () => [`update filestore.nodes set size_bytes = 6 where id = ${f}`],
      ['wrong totals'],
    ],
    [
      'a delta of a directory that does not exist',
      () => [
        `insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
         values (${mount.id}, 999999, 0, 0, 0, 0)`,
      ],
      ['delta of no directory'],
    ],
    [
      'a sighting of a node that does not exist',
      () => ['insert into filestore.node_sightings (node_id, last_seen_at) values (999999, now())'],
      ['sighting of no node'],
    ],
    [
      'nodes whose mount does not exist',
      () => [`delete from filestore.backend_mounts where id = ${mount.id}`],
      ['nodes of no mount'],
    ],
    [
      'history that names another mount than its node',
      () => [`update filestore.snapshots set backend_mount_id = ${other.id} where id = ${f}`],
      ['history on another mount'],
    ],
    [
      'ids that run out',
      () => ["select setval('filestore.nodes_id_seq', 1099511627775 - 1000)"],
      ['ids run out'],
      "select setval('filestore.nodes_id_seq', (select max(id) from filestore.nodes))",
    ],
    [
      'a secret in a mount',
      () => [`update filestore.backend_mounts set config = '{"password": "x"}' where id = ${other.id}`],
      ['secret in a mount'],
    ],
    [
      'a secret in the labels of a mount',
      () => [`update filestore.backend_mounts set labels = '{"apiKey": "x"}' where id = ${other.id}`],
      ['secret in a mount'],
    ],
    [
      'settings that nest too deeply to be searched',
      () => [
        `update filestore.backend_mounts set access_policy = (repeat('{"a":', 33) || '1' || repeat('}', 33))::jsonb
         where id = ${other.id}`,
      ],
      ['settings too big'],
    ],
    [
      'settings that are too long as text',
      () => [
        `update filestore.backend_mounts
         set config = jsonb_build_object('a', (select jsonb_agg('1e131071'::jsonb) from generate_series(1, 4000)))
         where id = ${other.id}`,
      ],
      ['settings too big'],
    ],
    [
      'a sequence behind its table',
      () => ["select setval(pg_get_serial_sequence('filestore.nodes', 'id'), 1)"],
      ['sequence behind its table'],
    ],
    [
      'a constraint that is not validated',
      () => [
        'alter table filestore.nodes drop constraint nodes_backend_mount_fkey',
        `alter table filestore.nodes add constraint nodes_backend_mount_fkey
           foreign key (root_of_mount_id) references filestore.backend_mounts (id) not valid`,
      ],
      ['guard switched off'],
      'alter table filestore.nodes validate constraint nodes_backend_mount_fkey',
    ],
    [
      'a trigger that is switched off',
      () => ['alter table filestore.nodes disable trigger nodes_prepare_update'],
      ['guard switched off'],
      'alter table filestore.nodes enable trigger nodes_prepare_update',
    ],
  ])('%s', async (_, spoil, expected, undo) => {
    expect(await problems()).toEqual([]);
    await pastTheGuards(...spoil());
    expect(await problems()).toEqual(expected);
    if (undo !== undefined) await pastTheGuards(undo);
  });
});

const AUDITED = Object.entries(REFERENCES_WITHOUT_KEY).flatMap(([table, columns]) =>
  Object.entries(columns).map(([column, { to, mayDangle }]) => ({ table, column, to, mayDangle })),
);

describe('an id of a row that does not exist', () => {
  /** Sets the column of the newest row of a table, and returns the number of problems. */
  async function problemsAfterSetting(table: string, column: string): Promise<number> {
    await database().query(
      'update filestore.nodes set metadata = \'{"a": 1}\', size_bytes = 6 where id = $1',
      [f],
    );
    await database().query('select filestore.record_sightings(array[$1::bigint])', [f]);
    await database().query("select filestore.begin_command('x')");
    const value = column.endsWith('s') ? "'{999999999}'" : '999999999';
    await pastTheGuards(
      `update filestore.${table} set ${column} = ${value} where ctid = (select max(ctid) from filestore.${table})`,
    );
    return (await problems()).length;
  }

  test.each(AUDITED.filter(({ mayDangle }) => mayDangle === undefined))(
    'of $to in $column of $table is found',
    async ({ table, column }) => {
      expect(await problemsAfterSetting(table, column)).toBeGreaterThan(0);
    },
  );

  test.each(AUDITED.filter(({ mayDangle }) => mayDangle !== undefined))(
    'of $to in $column of $table is no problem: $mayDangle',
    async ({ table, column }) => {
      expect(await problemsAfterSetting(table, column)).toBe(0);
    },
  );
});

test('each problem names the node and says what is wrong', async () => {
  await pastTheGuards(
    `update filestore.nodes set parent_path = 'elsewhere', path = 'elsewhere/f', depth = 2 where id = ${f}`,
  );
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([
    {
      problem: 'path mismatch',
      backend_mount_id: mount.id,
      node_id: f,
      detail: `"elsewhere/f", parent ${b} ("a/b")`,
    },
  ]);
});

test('a problem with what is missing says so', async () => {
  await pastTheGuards(
    `delete from filestore.rollups where node_id = ${b}`,
    `update filestore.nodes set parent_id = 999997 where id = ${f}`,
    'insert into filestore.rollups (node_id) values (999998)',
    'insert into filestore.node_sightings (node_id) values (999999)',
  );
  const rows = await database().query('select problem, detail from filestore.check_integrity()');
  expect(rows).toEqual(
    expect.arrayContaining([
      { problem: 'orphan', detail: '"a/b/f", parent 999997' },
      {
        problem: 'wrong totals',
        detail: '"a/b": no row in rollups instead of 0 bytes, 0 files, 0 directories, 0 children',
      },
      { problem: 'totals of no directory', detail: 'the node does not exist' },
      { problem: 'sighting of no node', detail: 'never seen' },
    ]),
  );
});
