import { beforeEach, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest, withoutTriggers } from '../support/databases/test-database.ts';
import {
  createDirectory,
  createMount,
  deleteNode,
  foldAll,
  type Mount,
  type Sql,
} from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

let mount: Mount;
let directory: string;

beforeEach(async () => {
  mount = await createMount(database());
  directory = await createDirectory(database(), mount, mount.rootId, 'a');
});

const insertRollup = (nodeId: string) =>
  database().query('insert into filestore.rollups (node_id) values ($1)', [nodeId]);

const insertVersion = (from: string, to: string, sql: Sql = database()) =>
  sql.query(
    `insert into filestore.snapshots
     select $2, $3, null, n.* from filestore.nodes n where id = $1`,
    [directory, from, to],
  );

test('history cannot be written by hand, not even by the owner', async () => {
  await expect(insertVersion('2024-01-01', '2024-01-02')).rejects.toMatchObject({
    code: 'FS409',
    message: expect.stringContaining('filestore.snapshots'),
    constraint: 'snapshots_fixed',
  });
});

test('a version must end after it begins, also when triggers are switched off', async () => {
  const written = withoutTriggers(database(), (client) => insertVersion('2024-01-01', '2024-01-01', client));
  await expect(written).rejects.toMatchObject({
    code: '23514',
    constraint: 'snapshots_valid_check',
  });
});

test.each(['infinity', '-infinity', '2999-01-01'])(
  'a node can be neither created nor deleted at %s',
  async (moment) => {
    await expect(
      database().query(
        `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, updated_at) values ($1, $2, 'f', 'file', $3)`,
        [mount.id, directory, moment],
      ),
    ).rejects.toMatchObject({ code: 'FS422', message: expect.stringContaining('"a/f"') });
    await expect(
      database().query(`update filestore.nodes set state = 'deleted', deleted_at = $2 where id = $1`, [
        directory,
        moment,
      ]),
    ).rejects.toMatchObject({ code: 'FS422', message: expect.stringContaining('"a"') });
  },
);

test('a directory has one row of totals, in a known state', async () => {
  await expect(insertRollup(directory)).rejects.toMatchObject({ constraint: 'rollups_pkey' });
  await expect(
    database().query("update filestore.rollups set consistency_state = 'pending'"),
  ).rejects.toMatchObject({ constraint: 'rollups_consistency_state_check' });
});

test('history, totals and sightings are removed with their node', async () => {
  await database().query('select filestore.record_sightings(array[$1::bigint])', [directory]);
  await deleteNode(database(), directory);
  await foldAll(database());
  await database().query('delete from filestore.nodes where id = $1', [directory]);
  for (const [table, column] of [
    ['snapshots', 'id'],
    ['rollups', 'node_id'],
    ['node_sightings', 'node_id'],
  ]) {
    expect(
      await database().query(`select from filestore.${table} where ${column} = $1`, [directory]),
    ).toEqual([]);
  }
});

test.each([
  'backend_mounts',
  'nodes',
  'snapshots',
  'journal_entries',
  'rollups',
  'rollup_deltas',
  'node_sightings',
])('%s cannot be truncated', async (table) => {
  await expect(database().query(`truncate filestore.${table} cascade`)).rejects.toMatchObject({
    code: 'FS409',
    message: expect.stringContaining('cannot be truncated'),
  });
});

test('a node cannot be created with a version that the writer chose', async () => {
  await expect(
    database().query(
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, version) values ($1, $2, 'f', 'file', 2)`,
      [mount.id, directory],
    ),
  ).rejects.toMatchObject({ code: 'FS422', message: expect.stringContaining('"a/f"') });
});
