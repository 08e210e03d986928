import { beforeEach, describe, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { rolesForFile } from '../support/roles/roles.ts';
import { wrongTotals } from '../support/rows/directory-totals.ts';
import {
  createChain,
  createMount,
  createNode,
  foldAll,
  type Mount,
  moveNode,
  one,
} from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();
const createRole = rolesForFile(database);

let mount: Mount;
/** Creates the directories a, a/b and a/b/c. */
let a: string;
let b: string;
let c: string;

beforeEach(async () => {
  mount = await createMount(database());
  [a, b, c] = (await createChain(database(), mount, 'a', 'b', 'c')) as [string, string, string];
});

const run = (text: string, values: readonly unknown[] = []) => database().query(text, values);

const audit = () =>
  run('select a.* from filestore.backend_mounts m cross join filestore.audit_rollups(m.mount_key) a');

test('an operator marks totals as stale, and only a recount ends that', async () => {
  const operator = await createRole();
  await run("select filestore.grant_access($1, 'operator')", [operator.name]);
  const client = await operator.connect();
  const mark = (state: string) =>
    client.query('update filestore.rollups set consistency_state = $1 where node_id = $2', [state, a]);
  const state = async () =>
    (await one(client, 'select consistency_state from filestore.directory_totals($1)', [a]))
      .consistency_state;

  await foldAll(database());
  await mark('stale');
  await expect(mark('up_to_date')).rejects.toMatchObject({
    code: 'FS422',
    constraint: 'rollups_stale_check',
    hint: expect.stringContaining('recount_rollups'),
  });
  expect(await state()).toBe('stale');
  await client.query('select filestore.recount_rollups(mount_key) from filestore.backend_mounts');
  expect(await state()).toBe('up_to_date');
});

test('a directory that has pending deltas cannot be removed', async () => {
  await foldAll(database());
  await run('select filestore.delete_node($1, recursive => true)', [b]);
  await expect(run('delete from filestore.nodes where id = any($1)', [[b, c]])).rejects.toMatchObject({
    code: 'FS409',
    hint: expect.stringContaining('fold_rollups'),
  });
  await foldAll(database());
  await run('delete from filestore.nodes where id = any($1)', [[b, c]]);
  expect(await audit()).toEqual([]);
});

test('a deleted mount leaves no deltas and no totals', async () => {
  const other = await createMount(database());
  const file = await createNode(database(), other, other.rootId, 'f');
  await run('select filestore.delete_node($1)', [file]);
  await run("select filestore.purge_deleted('0')");
  await run('delete from filestore.backend_mounts where id = $1', [other.id]);
  expect(await run('select from filestore.rollup_deltas where backend_mount_id = $1', [other.id])).toEqual(
    [],
  );
  expect(await run('select from filestore.rollups where node_id = $1', [other.rootId])).toEqual([]);
});

test('a move of a directory moves its totals at any isolation level, or fails', async () => {
  await createNode(database(), mount, c, 'f');
  const client = await database().connect();
  await client.query('begin isolation level repeatable read');
  await client.query('select count(*) from filestore.rollups');
  await foldAll(database());
  await expect(moveNode(client, c, mount.rootId)).rejects.toMatchObject({ code: '40001' });
  await client.query('rollback');
  expect(await wrongTotals(database())).toEqual([]);
});

describe('inside a statement that writes nodes, before its deltas are appended', () => {
  test.each([
    ['fold', 'filestore.fold_rollups()'],
    ['recount', 'filestore.recount_rollups((select mount_key from filestore.backend_mounts limit 1))'],
    ['purge', "filestore.purge_deleted('0')"],
  ])('a %s is refused', async (_, call) => {
    await createNode(database(), mount, c, 'f');
    const refused = { code: 'FS409', message: expect.stringContaining('must be the first to write') };
    await expect(
      run(`update filestore.nodes set parent_id = $2 where id = $1 returning ${call}`, [b, mount.rootId]),
    ).rejects.toMatchObject(refused);
    await expect(
      run(
        `insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values ($1, $2, 'n', 'file') returning ${call}`,
        [mount.id, b],
      ),
    ).rejects.toMatchObject(refused);
    expect(await wrongTotals(database())).toEqual([]);
  });
});

test('sizes whose sum does not fit a bigint are added, folded and subtracted again', async () => {
  const most = '9223372036854775807';
  for (const name of ['f', 'g'])
    await run('select filestore.create_node($1, $2, size_bytes => $3)', [c, name, most]);
  const sizeOf = async () =>
    (await one(database(), 'select size_bytes from filestore.directory_totals($1)', [a])).size_bytes;
  expect(await sizeOf()).toBe('18446744073709551614');
  await foldAll(database());
  expect(await sizeOf()).toBe('18446744073709551614');
  expect(await run('select * from filestore.check_integrity()')).toEqual([]);
  await run('select filestore.delete_node($1, recursive => true)', [b]);
  expect(await sizeOf()).toBe('0');
});

test('a directory gets no delta when a tombstone moves out of it', async () => {
  const file = await createNode(database(), mount, b, 'f');
  await run('select filestore.delete_node($1)', [file]);
  await foldAll(database());
  await run("update filestore.nodes set state = 'active', parent_id = $2 where id = $1", [file, a]);
  expect(await run('select directory_id from filestore.rollup_deltas')).toEqual([{ directory_id: a }]);
});

describe('in a transaction with an older snapshot', () => {
  test.each([
    ['a directory is not removed', 'delete from filestore.nodes where id = $1'],
    ['a mount is not deleted', 'delete from filestore.backend_mounts where id = $1'],
  ])('%s', async (_, statement) => {
    const other = await createMount(database());
    const d = await createNode(database(), mount, mount.rootId, 'd', 'directory');
    await run('select filestore.delete_node($1)', [d]);
    await foldAll(database());
    const client = await database().connect();
    await client.query('begin isolation level repeatable read');
    await expect(client.query(statement, [statement.includes('nodes') ? d : other.id])).rejects.toMatchObject(
      { code: 'FS409', message: expect.stringContaining('repeatable read') },
    );
  });
});

test('a node cannot be restored to another directory by the statement that removes its old one', async () => {
  const file = await createNode(database(), mount, c, 'f');
  await run('select filestore.delete_node($1, recursive => true)', [c]);
  await foldAll(database());
  await expect(
    run(
      `with gone as (delete from filestore.nodes where id = $1)
       update filestore.nodes set state = 'active', parent_id = $2 where id = $3`,
      [c, a, file],
    ),
  ).rejects.toMatchObject({ code: 'FS404', message: expect.stringContaining('"a/b/c/f"') });
  expect(await run('select * from filestore.check_integrity()')).toEqual([]);
});
