import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { TRAPS } from '../support/databases/traps.ts';
import { type LoginRole, rolesForFile } from '../support/roles/roles.ts';
import { createChain, createMount, createNode, deleteNode, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const createRole = rolesForFile(database);

const TABLES = [
  'backend_mounts',
  'nodes',
  'snapshots',
  'journal_entries',
  'rollups',
  'rollup_deltas',
  'node_sightings',
] as const;

let attacker: LoginRole;
let client: Client;
/** The roles that ran one of these traps. */
const ranAs = new Set<string>();
let mount: Mount;
let [docs, old, file, gone]: readonly string[] = [];

/** A role with its own schema and temporary tables first in its search_path. */
beforeAll(async () => {
  attacker = await createRole();
  await database().query("select filestore.grant_access($1, 'operator')", [attacker.name]);
  // Far more rights than the level has, so that only the guards protect the data.
  await database().query(`grant all on all tables in schema filestore to ${attacker.quotedName}`);
  await database().query(`grant create on database ${database().name} to ${attacker.quotedName}`);

  client = await attacker.connect();
  client.on('notice', ({ message }) => ranAs.add(message ?? ''));
  await client.query(`create schema ${attacker.quotedName}`);
  // Otherwise the owner could not use the objects in it.
  await client.query(`grant usage on schema ${attacker.quotedName} to public`);
  await client.query(`set search_path = ${attacker.quotedName}`);
  await client.query(TRAPS);
  for (const table of TABLES) {
    await client.query(
      `create table ${table} (like filestore.${table}); create temp table ${table} (like filestore.${table})`,
    );
  }
  await client.query(`set search_path = pg_temp, ${attacker.quotedName}, pg_catalog`);
});

beforeEach(async () => {
  mount = await createMount(database());
  [docs, old] = await createChain(database(), mount, 'docs', 'old');
  file = await createNode(database(), mount, mount.rootId, 'file');
  gone = await createNode(database(), mount, mount.rootId, 'gone');
  await database().query('update filestore.nodes set size_bytes = 5 where id = $1', [file]);
  await deleteNode(database(), gone);
  ranAs.clear();
});

test('a function of the owner without a pinned search_path runs a trap', async () => {
  await database().query(`
    create function filestore.unguarded(state text) returns boolean language plpgsql security definer
    as $$begin return state = 'deleted'; end$$`);
  try {
    await client.query(`select filestore.unguarded('active')`);
  } finally {
    await database().query('drop function filestore.unguarded');
  }
  const { current_user: owner } = await one(database(), 'select current_user');
  expect([...ranAs]).toContain(owner);
});

describe('a role whose own operators, functions, types and tables shadow ours', () => {
  test.each([
    [
      'set a state illegally',
      () => `update filestore.nodes set state = 'missing' where id = ${gone}`,
      'FS422',
    ],
    ['give a node a version', () => `update filestore.nodes set version = 9 where id = ${file}`, 'FS409'],
    [
      'increment a version without a change',
      () => `update filestore.nodes set version = version + 1 where id = ${file}`,
      'FS422',
    ],
    [
      'create a node at a version',
      () =>
        `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, version) values (${mount.id}, ${docs}, 'x', 'file', 9)`,
      'FS422',
    ],
    [
      'change a node into another kind',
      () => `update filestore.nodes set kind = 'directory' where id = ${file}`,
      'FS422',
    ],
    [
      'move a directory into itself',
      () => `update filestore.nodes set parent_id = ${old} where id = ${docs}`,
      'FS422',
    ],
    [
      'move a directory into itself with move_node',
      () => `select filestore.move_node(${docs}, ${old})`,
      'FS422',
    ],
    [
      'create in a file',
      () =>
        `insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values (${mount.id}, ${file}, 'x', 'file')`,
      'FS404',
    ],
    [
      'create under a long name',
      () =>
        `insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values (${mount.id}, ${docs}, '${'x'.repeat(256)}', 'file')`,
      'FS422',
    ],
    ['create under no name', () => `select filestore.create_node(${docs}, '..')`, 'FS422'],
    [
      'delete a directory that is not empty',
      () => `update filestore.nodes set state = 'deleted' where id = ${docs}`,
      'FS409',
    ],
    ['move a tombstone', () => `update filestore.nodes set parent_id = ${docs} where id = ${gone}`, 'FS422'],
    [
      'delete a root',
      () => `update filestore.nodes set state = 'deleted' where id = ${mount.rootId}`,
      'FS422',
    ],
    ['remove a live node', () => `delete from filestore.nodes where id = ${file}`, 'FS409'],
    // The foreign key of its children raises before the guard.
    ['remove a root', () => `delete from filestore.nodes where id = ${mount.rootId}`, '23503'],
    [
      'remove a mount that is not empty',
      () => `delete from filestore.backend_mounts where id = ${mount.id}`,
      'FS409',
    ],
    [
      'make a mount another',
      () => `update filestore.backend_mounts set backend_kind = 's3' where id = ${mount.id}`,
      'FS422',
    ],
    ['change history', () => `update filestore.snapshots set name = 'x' where id = ${file}`, 'FS409'],
    ['remove history', () => `delete from filestore.snapshots where id = ${file}`, 'FS409'],
    ['truncate history', () => 'truncate filestore.snapshots', 'FS409'],
    [
      'set a journal entry that is not a number',
      () =>
        `set filestore.journal_entry_id = 'x'; update filestore.nodes set size_bytes = 6 where id = ${file}`,
      'FS422',
    ],
    [
      'remove a running command',
      () => `select filestore.begin_command('x'); delete from filestore.journal_entries`,
      'FS409',
    ],
    [
      'change the request of a command',
      () =>
        `select filestore.begin_command('x'); update filestore.journal_entries set status = 'canceled', command = 'y'`,
      'FS422',
    ],
  ])('cannot %s', async (_, statement, code) => {
    await client.query('begin');
    await expect(client.query(statement()).finally(() => client.query('rollback'))).rejects.toMatchObject({
      code,
    });
    expect([...ranAs].filter((name) => name !== attacker.name)).toEqual([]);
  });

  test('can still use our tables, and none of its functions runs as the owner', async () => {
    const before = await one(database(), 'select count(*)::int as entries from filestore.journal_entries');
    for (const statement of [
      `insert into filestore.backend_mounts (mount_key, backend_kind, bucket) values ('${attacker.name}', 's3', '${attacker.name}')`,
      `update filestore.backend_mounts set state = 'degraded' where mount_key = '${attacker.name}'`,
      `select filestore.delete_mount('${attacker.name}')`,
      `select filestore.ensure_directory(mount_key, 'docs/old/older') from filestore.backend_mounts where id = ${mount.id}`,
      `select filestore.create_node(${old}, 'new', size_bytes => 7)`,
      `update filestore.nodes set size_bytes = 8 where id = ${file}`,
      `select filestore.record_sightings(array[${file}::pg_catalog.int8, ${docs}], reconciled_at => pg_catalog.now())`,
      `select filestore.move_node(${docs}, new_name => 'papers')`,
      `select filestore.revert_node(${file}, 1)`,
      `select filestore.delete_node(${docs}, recursive => true)`,
      `select filestore.restore_node(${docs}, with_tree => true)`,
      'select filestore.fold_rollups()',
      `select filestore.recount_rollups(mount_key) from filestore.backend_mounts where id = ${mount.id}`,
      `select filestore.finish_command((entry).id, 'succeeded') from filestore.begin_command('x', idempotency_key => 'x')`,
      `select filestore.expire_commands('0')`,
      `select filestore.purge_deleted('0')`,
      `select filestore.check_integrity()`,
      `select filestore.directory_totals(${docs})`,
      `select filestore.tree_at(mount_key, '', pg_catalog.now()) from filestore.backend_mounts`,
    ]) {
      await client.query(statement);
    }
    expect([...ranAs]).toEqual([attacker.name]);

    for (const table of TABLES) {
      const { rows } = await client.query(
        `select from pg_temp.${table} union all select from ${attacker.quotedName}.${table}`,
      );
      expect(rows).toEqual([]);
    }
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
    expect(
      await database().query('select path from filestore.nodes where backend_mount_id = $1 order by path', [
        mount.id,
      ]),
    ).toEqual(
      ['', 'file', 'papers', 'papers/old', 'papers/old/new', 'papers/old/older'].map((path) => ({ path })),
    );
    expect(await one(database(), 'select count(*)::int as entries from filestore.journal_entries')).toEqual({
      entries: before.entries + 1,
    });
    await client.query(`select filestore.prune_journal('0')`);
    expect([...ranAs]).toEqual([attacker.name]);
  });
});
