import { expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { brokenVersions } from '../support/rows/node-versions.ts';
import { createDirectory, createMount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();

test('moving a directory with 20 000 nodes is quick, also in a session that changed one row before, and keeps every version', async () => {
  const mount = await createMount(database());
  const a = await createDirectory(database(), mount, mount.rootId, 'a');
  const client = await database().connect();
  // Comparing every pair of rows, or scanning the table for each directory, takes longer.
  await client.query("set statement_timeout = '20s'");
  await client.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select $1, $2, 'd' || g, 'directory' from generate_series(1, 200) g`,
    [mount.id, a],
  );
  await client.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select $1, d.id, 'f' || g, 'file' from filestore.nodes d, generate_series(1, 100) g where d.parent_id = $2`,
    [mount.id, a],
  );
  await client.query('analyze filestore.nodes');
  await client.query("update filestore.nodes set size_bytes = 1 where path = 'a/d1/f1'");
  await client.query("update filestore.nodes set name = 'z' where id = $1", [a]);
  expect(
    await one(
      client,
      `select count(*) filter (where path >= 'z/' and path < 'z0') as moved,
              count(*) filter (where path >= 'a/' and path < 'a0') as wrong,
              (select count(*) from filestore.snapshots) as versions
       from filestore.nodes where backend_mount_id = $1`,
      [mount.id],
    ),
  ).toEqual({ moved: '20200', wrong: '0', versions: '20202' });
  expect(await brokenVersions(database(), mount.id)).toEqual([]);
});
