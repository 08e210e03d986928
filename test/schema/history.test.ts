import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { brokenVersions } from '../support/rows/node-versions.ts';
import {
  createChain,
  createMount,
  createNode,
  deleteNode,
  foldAll,
  type Mount,
  one,
  pathOf,
} from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { until } from '../support/until.ts';

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

const update = (id: string, change: string) =>
  database().query(`update filestore.nodes set ${change} where id = $1`, [id]);

const pastOf = (id: string) =>
  database().query('select * from filestore.snapshots where id = $1 order by version', [id]);

const SETTLED = "select from filestore.nodes having max(updated_at) < clock_timestamp() - interval '2 ms'";

describe('every superseded version is kept', () => {
  test('with all columns of a node', async () => {
    await update(
      file,
      `size_bytes = 5, checksum = 'md5:ab', content_hash = 'etag', storage_class = 'COLD',
       metadata = '{"tag": "x"}', state = 'missing', last_modified_at = '2020-01-02'`,
    );
    const { before } = await one(
      database(),
      'select to_jsonb(n) as before from filestore.nodes n where id = $1',
      [file],
    );
    await deleteNode(database(), file);
    const { kept } = await one(
      database(),
      `select to_jsonb(s) - array['valid_from', 'valid_to', 'superseded_by_journal_id'] as kept from filestore.snapshots s where id = $1 and version = 2`,
      [file],
    );
    expect(kept).toEqual(before);
  });

  test.each([
    "name = 'g'",
    `parent_id = (select parent_id from filestore.nodes p where p.id = nodes.parent_id)`,
    'size_bytes = 1',
    "checksum = 'md5:cd'",
    "content_hash = 'etag'",
    "storage_class = 'COLD'",
    `metadata = '{"tag": "x"}'`,
    "state = 'inconsistent'",
    "last_modified_at = '2020-01-02'",
  ])('after a change of %s', async (change) => {
    await update(file, change);
    expect(await pastOf(file)).toMatchObject([{ version: 1, name: 'f', path: 'a/b/f', state: 'active' }]);
    expect(await brokenVersions(database(), mount.id)).toEqual([]);
  });

  test.each([
    ['moved', 'filestore.move_node(a.id, (filestore.create_node(a.parent_id, $$o$$, $$directory$$)).id)', 1],
    ['renamed', 'filestore.move_node(a.id, null, $$z$$)', 1],
    ['deleted', 'filestore.delete_node(a.id, null, true)', 1],
    ['restored', 'filestore.restore_node(a.id, null, true)', 2],
  ])('for every node of a tree that is %s, all up to the same moment', async (_, call, version) => {
    if (version === 2) await database().query('select filestore.delete_node($1, null, true)', [a]);
    // A version lasts at least a millisecond. One that began in this millisecond would end later than the others.
    await until(async () => (await database().query(SETTLED)).length > 0);
    await database().query(`select ${call} from filestore.nodes a where a.id = $1`, [a]);
    const past = await database().query(
      'select id, valid_to::text from filestore.snapshots where id = any($1) and version = $2',
      [[a, b, file], version],
    );
    expect(past.map(({ id }) => id).sort()).toEqual([a, b, file].sort());
    expect(new Set(past.map(({ valid_to }) => valid_to)).size).toBe(1);
    expect(await brokenVersions(database(), mount.id)).toEqual([]);
  });

  test('when one transaction changes a node several times', async () => {
    const client = await database().connect();
    await client.query('begin');
    for (const size of [1, 2, 3]) {
      await client.query('update filestore.nodes set size_bytes = $2 where id = $1', [file, size]);
    }
    await client.query('commit');
    expect((await pastOf(file)).map(({ size_bytes }) => size_bytes)).toEqual(['0', '1', '2']);
    expect(await brokenVersions(database(), mount.id)).toEqual([]);
  });

  test('when one statement changes a node several times', async () => {
    await database().query(
      `do $$ begin
         for size in 1..3 loop
           update filestore.nodes set size_bytes = size where id = ${file};
         end loop;
       end $$`,
    );
    expect((await pastOf(file)).map(({ size_bytes }) => size_bytes)).toEqual(['0', '1', '2']);
    expect(await brokenVersions(database(), mount.id)).toEqual([]);
  });

  test('when a statement renames a node and the directory above it, so that the cascade changes the node again', async () => {
    await database().query("update filestore.nodes set name = name || '2' where id = any($1)", [
      [a, b, file],
    ]);
    expect(await pathOf(database(), file)).toBe('a2/b2/f2');
    expect((await pastOf(file)).length).toBeGreaterThan(1);
    expect(await brokenVersions(database(), mount.id)).toEqual([]);
  });

  test('when twenty connections change one node at once', async () => {
    const clients = await Promise.all(Array.from({ length: 20 }, () => database().connect()));
    await Promise.all(
      clients.map(async (client) => {
        for (let turn = 0; turn < 5; turn += 1) {
          await client.query('update filestore.nodes set size_bytes = size_bytes + 1 where id = $1', [file]);
        }
      }),
    );
    expect((await pastOf(file)).map(({ size_bytes }) => Number(size_bytes))).toEqual([...Array(100).keys()]);
    expect(await brokenVersions(database(), mount.id)).toEqual([]);
  });

  test('with the journal entry of the command that superseded it, if one is set', async () => {
    const client = await database().connect();
    const { id } = await one(client, "select (entry).id from filestore.begin_command('write')");
    await client.query('begin');
    await client.query('select filestore.begin_work($1)', [id]);
    await client.query('update filestore.nodes set size_bytes = 1 where id = $1', [file]);
    await client.query('commit');
    await client.query('update filestore.nodes set size_bytes = 2 where id = $1', [file]);
    expect(await pastOf(file)).toMatchObject([
      { superseded_by_journal_id: id },
      { superseded_by_journal_id: null },
    ]);
  });
});

describe('history', () => {
  test.each([
    ['changed', 'update filestore.snapshots set size_bytes = 9 where id = $1', 'version 1 of node'],
    ['removed', 'delete from filestore.snapshots where id = $1', 'version 1 of node'],
    ['truncated', 'truncate filestore.snapshots', 'filestore.snapshots'],
  ])('cannot be %s, not even by the owner', async (_, statement, names) => {
    await update(file, 'size_bytes = 1');
    await expect(database().query(statement, statement.includes('$1') ? [file] : [])).rejects.toMatchObject(
      refusal('FS409', names),
    );
    expect(await pastOf(file)).toMatchObject([{ size_bytes: '0' }]);
  });
});

describe('revert_node', () => {
  const revert = (id: string, version: number, expectedVersion: number | null = null) =>
    one(database(), 'select * from filestore.revert_node($1, $2, $3)', [id, version, expectedVersion]);

  test('brings content, metadata, name and place back as a new version, and edits no history', async () => {
    await update(file, `size_bytes = 5, checksum = 'md5:ab', content_hash = 'etag', storage_class = 'COLD'`);
    await update(file, `metadata = '{"tag": "x"}', last_modified_at = '2020-01-02'`);
    await update(file, `size_bytes = 6, checksum = null, content_hash = null, storage_class = null`);
    await update(file, `metadata = '{}', last_modified_at = null, state = 'missing'`);
    await database().query("select filestore.move_node($1, $2, 'g')", [file, mount.rootId]);
    const before = await pastOf(file);
    expect(await revert(file, 3, 6)).toMatchObject({
      version: 7,
      path: 'a/b/f',
      size_bytes: '5',
      checksum: 'md5:ab',
      content_hash: 'etag',
      storage_class: 'COLD',
      metadata: { tag: 'x' },
      last_modified_at: new Date('2020-01-02'),
      state: 'missing',
    });
    expect((await pastOf(file)).slice(0, -1)).toEqual(before);
    expect(await brokenVersions(database(), mount.id)).toEqual([]);
  });

  test('of a directory moves its tree back', async () => {
    await database().query("select filestore.move_node($1, $2, 'z')", [b, mount.rootId]);
    await revert(b, 1);
    expect(await pathOf(database(), file)).toBe('a/b/f');
  });

  test('of a deleted node restores it as it was in that version', async () => {
    await update(file, 'size_bytes = 5');
    await deleteNode(database(), file);
    expect(await revert(file, 1)).toMatchObject({ state: 'active', live: true, size_bytes: '0', version: 4 });
  });

  test('can be reverted itself', async () => {
    await update(file, 'size_bytes = 5');
    await revert(file, 1);
    expect(await revert(file, 2)).toMatchObject({ size_bytes: '5', version: 4 });
  });

  test('is refused while the parent of that version is deleted or purged', async () => {
    await database().query('select filestore.move_node($1, $2)', [file, a]);
    await deleteNode(database(), b);
    await expect(revert(file, 1)).rejects.toMatchObject(refusal('FS404', '"a/b"'));
    await foldAll(database());
    await database().query('delete from filestore.nodes where id = $1', [b]);
    await expect(revert(file, 1)).rejects.toMatchObject(refusal('FS404', `parent ${b}`));
  });

  test('is refused while the name of that version is taken', async () => {
    await update(file, "name = 'g'");
    await createNode(database(), mount, b, 'f');
    await expect(revert(file, 1)).rejects.toMatchObject(refusal('FS409', '"f" is taken in directory'));
  });

  test('is refused when a directory would move below itself', async () => {
    await database().query('select filestore.move_node($1, $2)', [b, mount.rootId]);
    await database().query('select filestore.move_node($1, $2)', [a, b]);
    await expect(revert(b, 1)).rejects.toMatchObject(refusal('FS422', '"b"'));
  });

  test('is refused for a deleted version, an unknown version and the current one', async () => {
    await deleteNode(database(), file);
    await database().query('select filestore.restore_node($1)', [file]);
    await expect(revert(file, 2)).rejects.toMatchObject(refusal('FS422', `node ${file} ("a/b/f")`));
    await expect(revert(file, 3)).rejects.toMatchObject(refusal('FS404', `node ${file}`));
    await expect(revert(file, 99)).rejects.toMatchObject(refusal('FS404', `node ${file}`));
    await expect(revert('999999', 1)).rejects.toMatchObject(refusal('FS404', 'node 999999'));
  });

  test('is refused when the node is not at the expected version', async () => {
    await update(file, 'size_bytes = 5');
    await expect(revert(file, 1, 1)).rejects.toMatchObject(refusal('FS409', 'is at version 2, not 1'));
    expect(await pastOf(file)).toHaveLength(1);
  });
});
