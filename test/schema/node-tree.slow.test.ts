import { describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createDirectory, createMount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();

describe('moving a directory', () => {
  test('with 20 000 nodes is one statement, which does not scan the table for each node', async () => {
    const mount = await createMount(database());
    const a = await createDirectory(database(), mount, mount.rootId, 'a');
    await database().query(
      `with directories as (
         insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
         select $1, $2, 'd' || g, 'directory' from generate_series(1, 200) g returning id
       )
       select count(*) from directories`,
      [mount.id, a],
    );
    await database().query(
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
       select $1, d.id, 'f' || g, 'file' from filestore.nodes d, generate_series(1, 100) g where d.parent_id = $2`,
      [mount.id, a],
    );
    await database().query('analyze filestore.nodes');
    await database().query("update filestore.nodes set name = 'z' where id = $1", [a]);
    const { moved, wrong } = await one(
      database(),
      `select count(*) filter (where path >= 'z/' and path < 'z0') as moved,
              count(*) filter (where path >= 'a/' and path < 'a0') as wrong
       from filestore.nodes where backend_mount_id = $1`,
      [mount.id],
    );
    expect({ moved, wrong }).toEqual({ moved: '20200', wrong: '0' });
  });
});
