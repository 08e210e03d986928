import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { brokenVersions } from '../support/rows/node-versions.ts';
import { createChain, createMount, createNode, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();

let mount: Mount;
/** The path of the file is a/b/f. */
let a: string;
let b: string;
let file: string;

beforeEach(async () => {
  mount = await createMount(database());
  [a = '', b = ''] = await createChain(database(), mount, 'a', 'b');
  file = await createNode(database(), mount, b, 'f');
});

describe('every superseded version is kept', () => {
  test('when a session changes one row and then moves 20 000 rows', async () => {
    const client = await database().connect();
    await client.query(
      "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) select $1, $2, g, 'file' from generate_series(1, 20000) g",
      [mount.id, b],
    );
    await client.query('update filestore.nodes set size_bytes = 1 where id = $1', [file]);
    await client.query("select filestore.move_node($1, null, 'z')", [a]);
    const { versions } = await one(
      client,
      'select count(*) as versions from filestore.snapshots where parent_id = $1 and id <> $2',
      [b, file],
    );
    expect(versions).toBe('20000');
    expect(await brokenVersions(database(), mount.id)).toEqual([]);
  });
});
