import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { ACCESS_LEVELS, type AccessLevel } from '../../src/access-levels.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { migrateAs, rolesForFile } from '../support/roles/roles.ts';
import { one } from '../support/rows/nodes.ts';

const database = databaseForFile('empty');
const createRole = rolesForFile(database);

let owner: Client;
const sessions = new Map<AccessLevel, Client>();
const session = (level: AccessLevel): Client => {
  const client = sessions.get(level);
  if (client === undefined) throw new Error(`no session is ${level}`);
  return client;
};

/** The ids of the rows that beforeAll creates: the database is new, so ids start at 1. */
const MAIN = 1;
const [ROOT, DOCS, A, GONE] = [1, 3, 4, 5];
const [RUNNING, QUEUED] = [1, 2];
const SCAN = 1;

const fixture = (path: string) => readFileSync(join(PACKAGE_ROOT, 'migrations/fixtures', path), 'utf8');

/** Adds a column to nodes and a function for readers, as migrations/README.md does. */
const MIGRATION = `
  alter table filestore.nodes add column tier text;
  alter table filestore.snapshots add column tier text;
  ${fixture('views/view_filestore_active_nodes.sql')}
  ${fixture('views/view_filestore_node_versions.sql')}
  create function filestore.tier_of(node_id bigint) returns text language sql stable set search_path = pg_catalog, pg_temp
  return (select n.tier from filestore.nodes n where n.id = node_id);
  revoke all on function filestore.tier_of(bigint) from public;
  ${fixture('functions/access_rights.sql').replace('    tree_at\n', '    tier_of,\n    tree_at\n')}`;

/** A call of each function that a level may execute. An error of class FS also shows that the call was allowed. */
const CALLS: Readonly<Record<string, string>> = {
  access_rights: `filestore.access_rights('service')`,
  apply_scan: `filestore.apply_scan(${SCAN})`,
  audit_rollups: `filestore.audit_rollups('main')`,
  audit_totals: 'filestore.audit_totals(null)',
  begin_command: `filestore.begin_command('x', idempotency_key => 'y')`,
  begin_scan: `filestore.begin_scan('main', 'other')`,
  begin_work: `filestore.begin_work(${RUNNING})`,
  cancel_scan: `filestore.cancel_scan(${SCAN})`,
  canonical_checksum: `filestore.canonical_checksum(repeat('AB', 16))`,
  canonical_path: `filestore.canonical_path('/a/')`,
  check_access: 'filestore.check_access()',
  check_batch: `filestore.check_batch('[]')`,
  check_changes: `filestore.check_changes('[]')`,
  check_count: `filestore.check_count('ids', 1)`,
  check_integrity: 'filestore.check_integrity()',
  check_list: `filestore.check_list('{}', '{}', '{}', 1)`,
  check_limit: `filestore.check_limit('batch', 1)`,
  check_name: `filestore.check_name('a')`,
  check_retention: `filestore.check_retention('1 day', 1)`,
  child_path: `filestore.child_path('docs', 'a')`,
  check_sequences: 'filestore.check_sequences()',
  command_by_id: 'filestore.command_by_id(1)',
  climb_far: `filestore.climb_far(array[${DOCS}]::bigint[], '{1}', '{1}', '{0}', '{1}')`,
  climb_totals: `filestore.climb_totals(array[${DOCS}]::bigint[], '{1}', '{1}', '{0}', '{1}')`,
  content_columns: 'filestore.content_columns()',
  copy_nodes: `filestore.copy_nodes(${A}, ${DOCS}, 'copy', null)`,
  copy_tree: `filestore.copy_tree(${A}, ${DOCS}, 'copy')`,
  count_nodes: `filestore.count_nodes('main')`,
  create_mount: `filestore.create_mount('{"mount_key": "new", "backend_kind": "s3", "bucket": "new"}')`,
  create_node: `filestore.create_node(${DOCS}, 'b', metadata => '{"a": 1}')`,
  database_number: `filestore.database_number()`,
  create_nodes: `filestore.create_nodes(jsonb_build_array(jsonb_build_object('parent_id', ${DOCS}, 'name', 'b')))`,
  delete_batch: `filestore.delete_batch(${DOCS}, 1)`,
  delete_node: `filestore.delete_node(${DOCS}, recursive => true)`,
  delete_mount: `filestore.delete_mount('empty')`,
  describe_element: `filestore.describe_element(1, '{}')`,
  directory_totals: `filestore.directory_totals(${DOCS})`,
  ensure_child: `filestore.ensure_child(n, 'c') from filestore.nodes n where n.id = ${DOCS}`,
  ensure_directory: `filestore.ensure_directory('main', 'x/y/z')`,
  expire_commands: `filestore.expire_commands('0')`,
  expire_scans: 'filestore.expire_scans()',
  find_by_checksum: `filestore.find_by_checksum(repeat('ab', 16))`,
  find_mount: `filestore.find_mount('main')`,
  find_secret: `filestore.find_secret('{}')`,
  finish_command: `filestore.finish_command(${RUNNING}, 'succeeded', '{}')`,
  fold_rollups: 'filestore.fold_rollups()',
  freeze_tree: `filestore.freeze_tree(${MAIN}, 'docs')`,
  guard_statements: `filestore.guard_statements(true)`,
  holds_secret: `filestore.holds_secret('x')`,
  is_small_json: `filestore.is_small_json('{}', 2)`,
  has_long_values: `filestore.has_long_values('{}')`,
  has_long_zeros: `filestore.has_long_zeros('{}')`,
  holds_mount: `filestore.holds_mount(1)`,
  is_sound: 'filestore.is_sound(n) from filestore.nodes n',
  is_sound_entry: 'filestore.is_sound_entry(j) from filestore.journal_entries j',
  list_commands: 'filestore.list_commands()',
  list_directory: `filestore.list_directory(${DOCS})`,
  list_mounts: 'filestore.list_mounts()',
  list_nodes: `filestore.list_nodes('main')`,
  list_totals: `filestore.list_totals(array[${DOCS}])`,
  listed_directory: `filestore.listed_directory(${MAIN}, 'docs', false)`,
  list_unseen: `filestore.list_unseen('main', now())`,
  location_uri: `filestore.location_uri('local', '/main', null, null, 'a b')`,
  lock_command: `filestore.lock_command('x', 'y')`,
  lock_parents: `filestore.lock_parents(jsonb_build_array(jsonb_build_object('parent_id', ${DOCS})))`,
  lock_tree: `filestore.lock_tree(${MAIN}, true)`,
  lock_trees: `filestore.lock_trees(array[${MAIN}]::bigint[])`,
  merge_metadata: `filestore.merge_metadata(${A}, '{"a": 1}')`,
  merge_nodes: `filestore.merge_nodes(${A}, ${DOCS}, 'copy', null, 'skip')`,
  mount_by_id: `filestore.mount_by_id(${MAIN})`,
  mount_by_key: `filestore.mount_by_key('main')`,
  mount_fields: `filestore.mount_fields('{}', 'UPDATE')`,
  mount_place: `filestore.mount_place('local', '/main')`,
  move_node: `filestore.move_node(${DOCS}, new_name => 'papers')`,
  move_progress: `filestore.move_progress(null)`,
  move_slot: `filestore.move_slot(1)`,
  move_steps: `filestore.move_steps()`,
  move_subscription: `filestore.move_subscription(1)`,
  moving_mounts: `filestore.moving_mounts(true)`,
  names_secret: `filestore.names_secret('password', 'x')`,
  node_at: `filestore.node_at(${A}, now())`,
  node_by_id: `filestore.node_by_id(${A})`,
  node_by_path: `filestore.node_by_path('main', 'docs/a')`,
  node_commands: `filestore.node_commands(${A})`,
  node_location: `filestore.node_location(${A})`,
  node_versions: `filestore.node_versions(${A})`,
  nodes_by_id: `filestore.nodes_by_id(array[${A}]::bigint[])`,
  nodes_by_path: `filestore.nodes_by_path('main', '{docs}')`,
  pending_totals: 'filestore.pending_totals(null)',
  percent_encode: `filestore.percent_encode('a b')`,
  prune_history: `filestore.prune_history('0')`,
  prune_journal: `filestore.prune_journal('0')`,
  purge_deleted: `filestore.purge_deleted('0')`,
  record_entries: `filestore.record_entries(${SCAN}, '[{"path": "a/b"}]')`,
  record_sightings: `filestore.record_sightings(array[${A}, ${DOCS}], now(), now())`,
  record_write_sighting: `filestore.record_write_sighting(${A}, now())`,
  recount_rollups: `filestore.recount_rollups('main')`,
  refuse_element: `filestore.refuse_element('select $1, $2', '[]', '[]')`,
  refuse_entry: 'filestore.refuse_entry(999)',
  refuse_long_copy: `filestore.refuse_long_copy(n, ${DOCS}, repeat('x', 2600)) from filestore.nodes n where n.id = ${A}`,
  refuse_long_values: `filestore.refuse_long_values('[{"a": []}]')`,
  refuse_pruned: `filestore.refuse_pruned(${A})`,
  refuse_range: `filestore.refuse_range('main', 'docs', 1, '{}', null)`,
  refuse_stale: `filestore.refuse_stale(${A}, 99)`,
  refuse_taken_name: `filestore.refuse_taken_name(${DOCS}, 'a')`,
  refuse_taken_names: `filestore.refuse_taken_names('[{"parent_id": 1, "name": "a"}, {"parent_id": 1, "name": "a"}]')`,
  refuse_unsound: `filestore.refuse_unsound(jsonb_populate_record(n, '{"size_bytes": -1}')) from filestore.nodes n where n.id = ${A}`,
  require_first_write: `filestore.require_first_write('x')`,
  require_read_committed: `filestore.require_read_committed('x')`,
  restore_node: `filestore.restore_node(${GONE}, with_tree => true)`,
  restore_tree: `filestore.restore_tree(n, now()) from filestore.nodes n where n.id = ${DOCS}`,
  revert_node: `filestore.revert_node(${A}, 1)`,
  scan_differences: `filestore.scan_differences(${SCAN})`,
  search_nodes: `filestore.search_nodes(${MAIN}, ${DOCS}, 'docs', '{active}', null, null, null, null, null, null, null, 'path', false, null, null, 1, 1)`,
  server_timeline: `filestore.server_timeline()`,
  set_states: `filestore.set_states(array[${A}]::bigint[], 'missing')`,
  start_command: `filestore.start_command(${QUEUED})`,
  sync_nodes: `filestore.sync_nodes('main', '[{"path": "docs/a", "size_bytes": 1}, {"path": "x/y"}]')`,
  tier_of: `filestore.tier_of(${A})`,
  subscription_errors: `filestore.subscription_errors('x')`,
  tree_at: `filestore.tree_at('main', '', now())`,
  update_nodes: `filestore.update_nodes(jsonb_build_array(jsonb_build_object('id', ${A}, 'size_bytes', 7)))`,
  update_mount: `filestore.update_mount('main', '{"state": "offline"}')`,
  upsert_directory: `filestore.upsert_directory('main', 'x/y', '{}')`,
  upsert_file: `filestore.upsert_file('main', 'x/y/z', last_seen_at => now())`,
  writable_mount: `filestore.writable_mount('main')`,
};

/** Calls a function as a role of a level, and rolls back. Returns the SQLSTATE if the call fails. */
async function callAs(level: AccessLevel, name: string): Promise<string> {
  const call = CALLS[name];
  if (call === undefined) return `there is no call of ${name} in this test`;
  const client = session(level);
  await client.query('begin');
  try {
    await client.query(`select ${call}`);
    return 'done';
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return 'code' in error ? `${error.code}: ${error.message}` : error.message;
  } finally {
    await client.query('rollback');
  }
}

async function functionsOf(level: AccessLevel): Promise<readonly string[]> {
  const { rows } = await owner.query<{ name: string }>(
    `select distinct p.proname::text as name
     from filestore.access_rights($1) r join pg_proc p on r.kind = 'function' and p.oid = r.object::regprocedure
     order by 1`,
    [level],
  );
  return rows.map(({ name }) => name);
}

/** Errors of functions that only raise. */
const refuses = (name: string) => name.startsWith('refuse_');

async function expectEveryCall(level: AccessLevel): Promise<void> {
  const names = await functionsOf(level);
  expect(names.length).toBeGreaterThan(15);
  for (const name of names) {
    const answer = await callAs(level, name);
    if (refuses(name)) expect(answer, name).toMatch(/^(FS4|23514)/);
    else expect(answer, name).toBe('done');
  }
}

beforeAll(async () => {
  const role = await createRole();
  await migrateAs(role, database());
  owner = await role.connect();
  for (const level of ACCESS_LEVELS) {
    const levelRole = await createRole();
    await owner.query('select filestore.grant_access($1, $2)', [levelRole.name, level]);
    sessions.set(level, await levelRole.connect());
  }
  await owner.query(`
    insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('main', 'local', '/main'), ('empty', 'local', '/empty');
    select filestore.ensure_directory('main', 'docs');
    select filestore.create_node(${DOCS}, 'a');
    select filestore.create_node(${DOCS}, 'gone');
    update filestore.nodes set size_bytes = 5 where id = ${A};
    select filestore.delete_node(${GONE});
    select filestore.begin_command('running');
    select filestore.begin_command('queued', queue => true);
    select filestore.begin_scan('main', 'scanned')`);
  // Open sessions that compiled every trigger and function before the migration.
  for (const level of ACCESS_LEVELS) await expectEveryCall(level);
  await session('service').query(`update filestore.nodes set metadata = '{"a": 1}' where id = ${A}`);
  await owner.query(MIGRATION);
  await owner.query('select filestore.renew_access()');
});

describe('after a migration and renew_access, without connecting again,', () => {
  test.each(ACCESS_LEVELS)('%s calls every function of its level', async (level) => {
    expect(await functionsOf(level)).toContain('tier_of');
    await expectEveryCall(level);
  });

  test('every role has exactly the rights of its level', async () => {
    expect((await owner.query('select * from filestore.check_access()')).rows).toEqual([]);
  });

  test.each(ACCESS_LEVELS)('%s reads the recreated views', async (level) => {
    const client = session(level);
    for (const view of ['active_nodes', 'node_versions', 'directories']) {
      expect((await client.query(`select * from filestore.view_filestore_${view}`)).rowCount).toBeGreaterThan(
        0,
      );
    }
  });

  test('a service writes the new column, and it is versioned, kept in history, reverted and in every view', async () => {
    const service = session('service');
    const { id } = await one(service, `select id from filestore.create_node(${DOCS}, 'tiered')`);
    const moments: Date[] = [];
    for (const tier of ['hot', 'cold']) {
      const { updated_at } = await one(
        service,
        'update filestore.nodes set tier = $2 where id = $1 returning updated_at',
        [id, tier],
      );
      moments.push(updated_at);
    }
    const versions = async () =>
      (
        await service.query(
          'select version, tier from filestore.view_filestore_node_versions where id = $1 order by version',
          [id],
        )
      ).rows.map(({ version, tier }) => `${version} ${tier}`);
    expect(await versions()).toEqual(['1 null', '2 hot', '3 cold']);

    await service.query('update filestore.nodes set tier = tier where id = $1', [id]);
    expect(await versions()).toHaveLength(3);

    expect(await one(service, 'select * from filestore.revert_node($1, 2)', [id])).toMatchObject({
      version: 4,
      tier: 'hot',
    });
    for (const [index, tier] of ['hot', 'cold'].entries()) {
      const moment = moments[index];
      expect(await one(service, 'select tier from filestore.node_at($1, $2)', [id, moment])).toEqual({
        tier,
      });
      expect(
        await one(service, `select tier from filestore.tree_at('main', 'docs/tiered', $1)`, [moment]),
      ).toEqual({ tier });
    }
    expect(
      await one(service, 'select tier from filestore.view_filestore_active_nodes where id = $1', [id]),
    ).toEqual({
      tier: 'hot',
    });
    expect(await one(service, 'select filestore.tier_of($1) as tier', [id])).toEqual({ tier: 'hot' });
    expect(
      await one(
        service,
        "insert into filestore.nodes (backend_mount_id, parent_id, name, kind, tier) values ($1, $2, 'n', 'file', 'cold') returning tier",
        [MAIN, ROOT],
      ),
    ).toEqual({ tier: 'cold' });
    expect((await owner.query('select * from filestore.check_integrity()')).rows).toEqual([]);
  });

  test('a move of a directory still moves its subtree, and history keeps every version', async () => {
    const service = session('service');
    await service.query(`select filestore.move_node(${DOCS}, new_name => 'papers')`);
    await service.query(`select filestore.delete_node(${DOCS}, recursive => true)`);
    await service.query(`select filestore.restore_node(${DOCS}, with_tree => true)`);
    expect(await one(service, `select path from filestore.nodes where id = ${A}`)).toEqual({
      path: 'papers/a',
    });
    expect((await owner.query('select * from filestore.check_integrity()')).rows).toEqual([]);
  });
});
