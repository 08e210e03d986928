import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { createChain, createMount, createNode, deleteNode, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForEachTest();

let mount: Mount;
let directory: string;
let file: string;

beforeEach(async () => {
  mount = await createMount(database());
  [directory = ''] = await createChain(database(), mount, 'd');
  file = await createNode(database(), mount, directory, 'f');
});

/** With wal_level = replica the server only warns, and still checks what may be published. */
const publish = (filter: string) =>
  database().query(`create publication mounts for table filestore.nodes where (${filter})`);

test.each(['nodes', 'snapshots', 'journal_entries'])(
  '%s has no generated column: it would not be replicated, and updates with replica identity full would fail',
  async (table) => {
    expect(
      await database().query(
        `select attname from pg_attribute where attrelid = ('filestore.' || $1)::regclass and attgenerated <> ''`,
        [table],
      ),
    ).toEqual([]);
  },
);

describe('with a publication of the nodes of one mount', () => {
  test('nodes are written and removed with replica identity full', async () => {
    await database().query('alter table filestore.nodes replica identity full');
    await publish(`backend_mount_id = ${mount.id}`);
    await database().query('update filestore.nodes set size_bytes = 5 where id = $1', [file]);
    await database().query("select filestore.move_node($1, new_name => 'e')", [directory]);
    expect(await one(database(), 'select path, version from filestore.nodes where id = $1', [file])).toEqual({
      path: 'e/f',
      version: 3,
    });
    await deleteNode(database(), file);
    await database().query('select filestore.fold_rollups()');
    expect(await one(database(), "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 1 });
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  });

  test('an update is refused while the replica identity is the primary key', async () => {
    await publish(`backend_mount_id = ${mount.id}`);
    await expect(
      database().query('update filestore.nodes set size_bytes = 5 where id = $1', [file]),
    ).rejects.toMatchObject({ code: '42P10' });
  });
});
