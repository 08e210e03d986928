import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { wrongTotals } from '../support/rows/directory-totals.ts';
import { createChain, createMount, deleteNode, type Mount, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { livePaths } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let other: Mount;
/** Chain of directories a, a/b, a/b/c. */
let [a, b, c]: [string, string, string] = ['', '', ''];

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  [mount, other] = [await createMount(service), await createMount(service, 's3')];
  [a, b, c] = (await createChain(service, mount, 'a', 'b', 'c')) as [string, string, string];
});

const copy = (
  id: string | null,
  parentId: string | null,
  name: string | null = null,
  version: number | null = null,
) => one(service, 'select * from filestore.copy_tree($1, $2, $3, $4)', [id, parentId, name, version]);

const create = (parentId: string, name: string, size = 0) =>
  one(service, 'select * from filestore.create_node($1, $2, size_bytes => $3)', [parentId, name, size]);

/** Expects that a copy is refused and that nothing was created. */
async function expectRefused(call: () => Promise<unknown>, expected: object): Promise<void> {
  const { rows: before } = await service.query('select count(*) from filestore.nodes');
  await expect(call()).rejects.toMatchObject(expected);
  const { rows: after } = await service.query('select count(*) from filestore.nodes');
  expect(after).toEqual(before);
}

describe('copy_tree', () => {
  test('copies everything live below a directory, and returns the new directory', async () => {
    await create(c, 'f', 5);
    const gone = await create(b, 'gone');
    await deleteNode(service, gone.id);
    // Names with a byte next to "/" sort nearby, but are not below the directory.
    for (const name of ['a!', 'a.', 'a0', 'ab']) await create(mount.rootId, name);
    const node = await copy(a, mount.rootId, 'z');
    expect(node).toMatchObject({ path: 'z', version: 1, parent_id: mount.rootId, kind: 'directory' });
    expect(node.id).not.toBe(a);
    const paths = await livePaths(service, mount.id);
    expect(paths.filter((path) => path.startsWith('z'))).toEqual(['z', 'z/b', 'z/b/c', 'z/b/c/f']);
    expect(await wrongTotals(service)).toEqual([]);
  });

  test('copies a file', async () => {
    const { id } = await create(c, 'f', 5);
    expect(await copy(id, a)).toMatchObject({ path: 'a/f', size_bytes: '5', kind: 'file' });
    expect(await copy(id, c, 'g')).toMatchObject({ path: 'a/b/c/g', size_bytes: '5' });
  });

  test('copies into another mount', async () => {
    await create(b, 'f', 7);
    expect(await copy(a, other.rootId)).toMatchObject({ path: 'a', backend_mount_id: other.id });
    expect(await livePaths(service, other.id)).toEqual(['a', 'a/b', 'a/b/c', 'a/b/f']);
    expect(await wrongTotals(service)).toEqual([]);
  });

  test('copies a whole mount into a directory of another mount', async () => {
    expect(await copy(mount.rootId, other.rootId, 'backup')).toMatchObject({ path: 'backup' });
    expect(await livePaths(service, other.id)).toEqual(['backup', 'backup/a', 'backup/a/b', 'backup/a/b/c']);
  });

  test('copies the content columns and the state, but not versions or sightings', async () => {
    const { id } = await create(b, 'f');
    const columns = (await one(service, 'select filestore.content_columns() as columns')).columns.join(', ');
    await service.query(
      `update filestore.nodes set size_bytes = 9, checksum = 'md5:00', content_hash = '"e"', storage_class = 'COLD',
         metadata = '{"k": [1]}', last_modified_at = '2024-01-02', state = 'missing' where id = $1`,
      [id],
    );
    await service.query('select filestore.record_sightings(array[$1::bigint])', [id]);
    const node = await copy(b, other.rootId);
    const content = (where: string, value: string) =>
      one(service, `select ${columns}, state from filestore.nodes where name = 'f' and ${where} = $1`, [
        value,
      ]);
    expect(await content('parent_id', node.id)).toEqual(await content('id', id));
    const copied = await one(
      service,
      `select v.version, v.last_seen_at, (select count(*)::int from filestore.snapshots s where s.id = v.id) as past
       from filestore.view_filestore_active_nodes v where v.name = 'f' and v.parent_id = $1`,
      [node.id],
    );
    expect(copied).toEqual({ version: 1, last_seen_at: null, past: 0 });
  });

  test('copies a column that a later migration adds', async () => {
    const client = await database().connect();
    await client.query('begin');
    for (const table of ['nodes', 'snapshots'])
      await client.query(`alter table filestore.${table} add column added_later text`);
    await client.query("update filestore.nodes set added_later = 'kept' where id = $1", [b]);
    const node = await one(client, 'select * from filestore.copy_tree($1, $2)', [b, other.rootId]);
    await client.query('rollback');
    expect(node).toMatchObject({ added_later: 'kept' });
  });

  test('copies twenty thousand nodes without statistics, after a small copy in the same session', async () => {
    await copy(c, other.rootId);
    await service.query(
      `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind)
       select $1, $2, 'a/b/c', 'd' || g, 'directory' from generate_series(1, 5000) g`,
      [mount.id, c],
    );
    await service.query(
      `insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind)
       select $1, d.id, d.path, 'f' || g, 'file' from filestore.nodes d, generate_series(1, 3) g where d.parent_id = $2`,
      [mount.id, c],
    );
    // Comparing every pair of rows would take minutes.
    await service.query("set statement_timeout = '30s'");
    await copy(a, other.rootId);
    await service.query('reset statement_timeout');
    expect(await livePaths(service, other.id)).toHaveLength(1 + 3 + 20_000);
  }, 60_000);

  test('refuses a source that is not at the expected version', async () => {
    await expectRefused(() => copy(a, other.rootId, null, 2), {
      ...refusal('FS409', 'is at version 1, not 2'),
      constraint: 'nodes_stale',
    });
    expect(await copy(a, other.rootId, null, 1)).toMatchObject({ path: 'a' });
  });

  test('refuses a source that does not exist or is deleted', async () => {
    await expectRefused(() => copy('999999', other.rootId), {
      ...refusal('FS404', '999999'),
      constraint: 'nodes_missing',
    });
    await deleteNode(service, c);
    await expectRefused(() => copy(c, other.rootId), {
      ...refusal('FS404', '"a/b/c"'),
      constraint: 'nodes_deleted',
    });
  });

  test('refuses a new parent that is not a live directory', async () => {
    const { id } = await create(a, 'f');
    const expected = (names: string, constraint: string) => ({ ...refusal('FS404', names), constraint });
    await expectRefused(() => copy(b, id), expected('is a file', 'nodes_not_directory'));
    await expectRefused(() => copy(b, '999999'), expected('999999', 'nodes_parent_missing'));
    await expectRefused(() => copy(b, null), expected('no parent', 'nodes_parent_missing'));
    await deleteNode(service, c);
    await expectRefused(() => copy(b, c), expected('is deleted', 'nodes_parent_deleted'));
  });

  test.each([
    ['itself', () => a],
    ['a directory below it', () => c],
  ])('refuses to copy a directory into %s', async (_, parent) => {
    await expectRefused(() => copy(a, parent(), 'x'), {
      ...refusal('FS422', '"a"'),
      constraint: 'nodes_cycle_check',
    });
  });

  test('refuses to copy a root without a name, or into its own mount', async () => {
    await expectRefused(() => copy(mount.rootId, other.rootId), {
      ...refusal('FS422', mount.rootId),
      constraint: 'nodes_root_check',
    });
    await expectRefused(() => copy(mount.rootId, c, 'x'), { code: 'FS422', constraint: 'nodes_cycle_check' });
  });

  test('refuses a name that is taken or not valid', async () => {
    await expectRefused(() => copy(b, a), { ...refusal('FS409', '"b"'), constraint: 'nodes_name_taken' });
    for (const name of ['', '..', 'x/y', 'x'.repeat(1025)])
      await expectRefused(() => copy(b, a, name), { code: 'FS422', constraint: 'nodes_name_check' });
  });

  test('refuses a name below the source that is too long for a local mount', async () => {
    const { id } = await copy(a, other.rootId);
    await create(id, 'l'.repeat(256));
    await expectRefused(() => copy(id, mount.rootId, 'back'), {
      ...refusal('FS422', 'lll'),
      constraint: 'nodes_local_name_check',
    });
  });

  test('refuses a path that would be too long, and names the node', async () => {
    const segment = 's'.repeat(250);
    const chain = await createChain(service, mount, ...Array.from({ length: 9 }, () => segment));
    const deep = await createChain(service, other, 'deep', segment, segment);
    const [top, last] = [chain[0] ?? '', chain[8]];
    const target = deep[2] ?? '';
    const expected = (bytes: number) => ({
      ...refusal('FS422', `copy of node ${last} `),
      message: expect.stringMatching(new RegExp(`copy of node ${last} .* ${bytes} bytes`)),
      constraint: 'nodes_path_length_check',
    });
    await expectRefused(() => copy(top, target), expected(2765));
    await expectRefused(() => copy(mount.rootId, target, 'all'), expected(2769));
  });
});
