import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { migrateAs, rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile('empty');
const createRole = rolesForFile(database);

const LEVELS = ['none', 'reader', 'service', 'operator'] as const;
type Level = (typeof LEVELS)[number];

const sessions = new Map<Level, Client>();

beforeAll(async () => {
  const owner = await createRole();
  await migrateAs(owner, database());
  const client = await owner.connect();
  for (const level of LEVELS) {
    const role = await createRole();
    if (level !== 'none') await client.query('select filestore.grant_access($1, $2)', [role.name, level]);
    sessions.set(level, await role.connect());
  }
  await client.query(`
    insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('main', 'local', '/main'), ('empty', 'local', '/empty');
    select filestore.ensure_directory('main', 'docs/old');
    select filestore.create_node(d.id, f.name)
      from filestore.node_by_path('main', 'docs') d, unnest(array['a', 'gone']) f (name);
    update filestore.nodes set size_bytes = 5 where path = 'docs/a';
    select filestore.delete_node(id) from filestore.node_by_path('main', 'docs/gone');
  `);
  await client.query('select filestore.fold_rollups()');
  await client.query(`select filestore.record_sightings(array[${GONE}])`);
  await client.query(
    "insert into filestore.backfills (table_name, column_name, expression) values ('nodes', 'checksum', 'null')",
  );
  await client.query(`
    update filestore.nodes set size_bytes = 6 where path = 'docs/a';
    select filestore.begin_command('running');
    select filestore.begin_command('queued', queue => true);
    select filestore.finish_command((entry).id, 'succeeded', '{}') from filestore.begin_command('finished');
  `);
});

/** Runs a statement as a role of a level, and rolls back. */
async function attempt(level: Level, statement: string) {
  const client = sessions.get(level);
  if (client === undefined) throw new Error(`no role has level ${level}`);
  await client.query('begin');
  try {
    return await client.query(statement);
  } finally {
    await client.query('rollback');
  }
}

const TABLES = [
  ...['backend_mounts', 'nodes', 'snapshots', 'journal_entries', 'rollups', 'rollup_deltas'],
  ...['node_sightings', 'access_levels', 'backfills'],
  ...['view_filestore_active_nodes', 'view_filestore_node_versions', 'view_filestore_directories'],
].map((name) => `filestore.${name}`);

/** The ids of the rows that beforeAll creates: the database is new, so ids start at 1. */
const MAIN = 1;
const [DOCS, A, GONE] = [3, 5, 6];
const [RUNNING, QUEUED, FINISHED] = [1, 2, 3];

const NEW_FILE = '(backend_mount_id, parent_id, name, kind';

/** Statements that a level may run and the level before it may not. */
const ALLOWED: Readonly<Record<Exclude<Level, 'none'>, readonly string[]>> = {
  reader: [
    ...TABLES.map((table) => `select * from ${table}`),
    'select * from graphile_migrate.migrations',
    `select filestore.canonical_path('/a/')`,
    `select filestore.canonical_checksum(repeat('AB', 16))`,
    `select filestore.check_name('a')`,
    `select filestore.percent_encode('a b')`,
    `select filestore.location_uri('local', '/main', null, null, 'a b')`,
    `select filestore.find_mount('main')`,
    `select filestore.node_location(${A})`,
    `select * from filestore.node_by_path('main', 'docs')`,
    `select * from filestore.list_directory(${DOCS})`,
    `select * from filestore.list_nodes('main')`,
    `select * from filestore.count_nodes('main', kinds => '{file}', min_size => 1)`,
    `select * from filestore.node_by_id(${A})`,
    `select * from filestore.nodes_by_id(array[${A}]::bigint[])`,
    `select * from filestore.nodes_by_path('main', '{docs}')`,
    `select count(*) from filestore.node_versions(${A})`,
    'select * from filestore.list_mounts()',
    `select * from filestore.mount_by_key('main')`,
    `select * from filestore.mount_by_id(${MAIN})`,
    'select * from filestore.command_by_id(1)',
    `select * from filestore.list_unseen('main', now())`,
    `select count(*) from filestore.find_by_checksum(repeat('ab', 16))`,
    `select * from filestore.node_at(${A}, now())`,
    `select * from filestore.tree_at('main', '', now())`,
    `select * from filestore.directory_totals(${DOCS})`,
    `select * from filestore.list_totals(array[${DOCS}, ${A}])`,
    'select * from filestore.list_commands()',
    `select count(*) from filestore.node_commands(${A})`,
  ],
  service: [
    `insert into filestore.backend_mounts (mount_key, backend_kind, bucket) values ('new', 's3', 'new')`,
    `update filestore.backend_mounts set state = 'offline' where mount_key = 'main'`,
    `insert into filestore.nodes ${NEW_FILE}) values (${MAIN}, ${DOCS}, 'b', 'file')`,
    `insert into filestore.nodes ${NEW_FILE}, parent_path) values (${MAIN}, ${DOCS}, 'b', 'file', 'docs')`,
    `update filestore.nodes set state = 'missing', metadata = '{"a": 1}' where id = ${A}`,
    `update filestore.nodes set state = 'deleted' where id = ${A}`,
    `select filestore.create_mount('{"mount_key": "new", "backend_kind": "s3", "bucket": "new"}')`,
    `select filestore.update_mount('main', '{"state": "offline"}')`,
    `select * from filestore.update_nodes('[{"id": ${A}, "size_bytes": 7}]')`,
    `select * from filestore.set_states(array[${A}]::bigint[], 'missing')`,
    `select filestore.lock_tree(${MAIN}, true)`,
    `select filestore.create_node(${DOCS}, 'b')`,
    `select filestore.ensure_directory('main', 'x/y/z')`,
    `select filestore.upsert_directory('main', 'x/y', '{"a": 1}')`,
    `select filestore.upsert_file('main', 'x/y/z', last_seen_at => now())`,
    `select filestore.merge_metadata(${A}, '{"a": 1}')`,
    `select filestore.create_nodes('[{"parent_id": ${DOCS}, "name": "b"}]')`,
    `select filestore.copy_tree(${A}, ${DOCS}, 'b')`,
    `select filestore.sync_nodes('main', '[{"path": "b"}]')`,
    `select filestore.begin_scan('main')`,
    'select count(*) from filestore.expire_scans()',
    `select filestore.move_node(${A}, new_name => 'b')`,
    `select filestore.move_node(${DOCS}, new_name => 'papers')`,
    `select filestore.delete_node(${A})`,
    `select filestore.delete_node(${DOCS}, recursive => true)`,
    `select filestore.delete_batch(${DOCS}, 1)`,
    `select filestore.restore_node(${GONE}, with_tree => true)`,
    `select filestore.revert_node(${A}, 1)`,
    `select filestore.begin_command('move', idempotency_key => 'k')`,
    `select filestore.start_command(${QUEUED})`,
    `select filestore.finish_command(${RUNNING}, 'failed', error => '{}')`,
    `insert into filestore.journal_entries (command) values ('by hand')`,
    `update filestore.journal_entries set status = 'canceled' where id = ${QUEUED}`,
    `select filestore.begin_work(${RUNNING})`,
    `select * from filestore.expire_commands('0')`,
    `select filestore.record_sightings(array[${A}, ${DOCS}])`,
    'select filestore.fold_rollups()',
  ],
  operator: [
    `select filestore.purge_deleted('0')`,
    `select filestore.prune_journal('0')`,
    `select count(*) from filestore.audit_rollups('main')`,
    `select filestore.recount_rollups('main')`,
    'select count(*) from filestore.check_integrity()',
    `select filestore.delete_mount('empty')`,
    `update filestore.rollups set consistency_state = 'stale' where node_id = ${DOCS}`,
  ],
};

/** Statements that only the owner may run. */
const FORBIDDEN: readonly string[] = [
  ...TABLES.slice(0, 9).map((table) => `truncate ${table} cascade`),
  'delete from filestore.nodes',
  `delete from filestore.nodes where state = 'deleted'`,
  'delete from filestore.journal_entries',
  `delete from filestore.backend_mounts where mount_key = 'empty'`,
  ...['snapshots', 'rollup_deltas'].map((table) => `delete from filestore.${table}`),
  'delete from filestore.rollups',
  'insert into filestore.snapshots select * from filestore.view_filestore_node_versions',
  `update filestore.snapshots set name = 'b'`,
  `insert into filestore.rollups (node_id) values (${A})`,
  'update filestore.rollups set size_bytes = 0',
  `insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta) values (1, 1, 1, 1, 1, 1)`,
  'update filestore.rollup_deltas set size_delta = 0',
  ...[
    'version = version',
    'live = false',
    'created_at = now()',
    'updated_at = now()',
    'path = default',
    'id = default',
    'backend_mount_id = 2',
    `kind = 'file'`,
    `parent_path = ''`,
    'parent_live = null',
    `directory_path = 'x'`,
  ].map((change) => `update filestore.nodes set ${change}`),
  ...[
    ...['version', 'created_at', 'updated_at', 'deleted_at', 'live', 'parent_live'],
    ...['path', 'depth', 'directory_path', 'root_of_mount_id'],
  ].map(
    (column) =>
      `insert into filestore.nodes ${NEW_FILE}, ${column}) values (${MAIN}, ${DOCS}, 'b', 'file', default)`,
  ),
  `insert into filestore.nodes (id, backend_mount_id, parent_id, name, kind) overriding system value values (99, ${MAIN}, ${DOCS}, 'b', 'file')`,
  `insert into filestore.nodes ${NEW_FILE}) values (${MAIN}, ${DOCS}, 'b', 'file') returning filestore.refuse_version('', 1, 1)`,
  `insert into filestore.nodes ${NEW_FILE}) values (${MAIN}, ${DOCS}, 'a', 'file') on conflict (id) do update set version = 1`,
  `insert into filestore.backend_mounts (mount_key, backend_kind, bucket, version) values ('new', 's3', 'new', 7)`,
  `insert into filestore.backend_mounts (mount_key, backend_kind, bucket, created_at) values ('new', 's3', 'new', '2000-01-01')`,
  `insert into filestore.journal_entries (id, command) overriding system value values (1000000, 'x')`,
  `update filestore.backend_mounts set backend_kind = 's3'`,
  'update filestore.backend_mounts set erasing_since = now()',
  'insert into graphile_migrate.migrations select * from graphile_migrate.migrations',
  `update graphile_migrate.migrations set hash = ''`,
  'delete from graphile_migrate.migrations',
  'create table graphile_migrate.mine ()',
  `select filestore.grant_access(current_user, 'operator')`,
  'select filestore.revoke_access(current_user)',
  'select filestore.renew_access()',
  `select filestore.apply_access(current_user, 'operator')`,
  `insert into filestore.access_levels (role_name, level) values ('x', 'operator')`,
  `update filestore.access_levels set level = 'operator'`,
  'delete from filestore.access_levels',
  `insert into filestore.backfills (table_name, column_name, expression) values ('nodes', 'metadata', '1')`,
  'update filestore.backfills set transaction_id = null',
  'delete from filestore.node_sightings',
  `insert into filestore.node_sightings (node_id, last_seen_at) values (${A}, now())`,
  'select filestore.set_database_number(1)',
  `call filestore.backfill('nodes', 'checksum', '''md5:ab''')`,
  `call filestore.erase_mount('empty')`,
  // A grant without the right to grant does nothing and only warns.
  'grant delete on filestore.nodes to current_user; delete from filestore.nodes',
  'create table filestore.mine ()',
  'create view filestore.mine as select 1',
  `create function filestore.mine() returns int language sql as 'select 1'`,
  'create trigger mine before update on filestore.nodes for each row execute function suppress_redundant_updates_trigger()',
  'create rule mine as on insert to filestore.nodes do instead nothing',
  'create index on filestore.nodes (id)',
  'alter table filestore.nodes add column mine int',
  'alter table filestore.nodes disable trigger all',
  'alter table filestore.nodes disable trigger nodes_prepare_update',
  'alter table filestore.nodes drop constraint nodes_parent_fkey',
  'alter function filestore.prune_journal(interval, integer) reset search_path',
  'alter domain filestore.node_state drop constraint node_state_check',
  'drop trigger nodes_prepare_update on filestore.nodes',
  'drop table filestore.nodes cascade',
  'drop function filestore.refuse_version',
  'drop schema filestore cascade',
  'alter schema filestore rename to mine',
  `comment on table filestore.nodes is ''`,
  `select nextval('filestore.nodes_id_seq')`,
  `select setval('filestore.nodes_id_seq', 1)`,
  `set session_replication_role = 'replica'`,
  'lock table filestore.nodes in access exclusive mode',
  'lock table filestore.backend_mounts in access exclusive mode',
];

describe.each(LEVELS)('to %s', (level) => {
  const rank = LEVELS.indexOf(level);
  const upTo = (first: Level, statements: readonly string[]) =>
    rank >= LEVELS.indexOf(first) ? statements : [];
  const beyond = (first: Level, statements: readonly string[]) =>
    rank < LEVELS.indexOf(first) ? statements : [];
  const each = Object.entries(ALLOWED) as [Exclude<Level, 'none'>, readonly string[]][];

  test.each(each.flatMap(([first, statements]) => upTo(first, statements)))(
    'is allowed: %s',
    async (statement) => {
      expect((await attempt(level, statement)).rowCount).toBeGreaterThan(0);
    },
  );

  test.each([...each.flatMap(([first, statements]) => beyond(first, statements)), ...FORBIDDEN])(
    'is forbidden: %s',
    async (statement) => {
      await expect(attempt(level, statement)).rejects.toMatchObject({ code: '42501' });
    },
  );
});

describe.each(['service', 'operator'] as const)('the guards refuse a role of level %s:', (level) => {
  test.each([
    [`update filestore.journal_entries set result = '{"a": 1}' where id = ${FINISHED}`, 'FS409'],
    [`update filestore.journal_entries set status = 'running' where id = ${FINISHED}`, 'FS409'],
    [`update filestore.nodes set state = 'missing' where id = ${GONE}`, 'FS422'],
    [`update filestore.nodes set deleted_at = now() where id = ${A}`, '23514'],
    [`update filestore.nodes set parent_id = 4 where id = ${DOCS}`, 'FS422'],
    [
      `insert into filestore.nodes ${NEW_FILE}, state) values (${MAIN}, ${DOCS}, 'b', 'file', 'deleted')`,
      'FS422',
    ],
    [
      `insert into filestore.nodes ${NEW_FILE}, parent_path) values (${MAIN}, ${DOCS}, 'b', 'file', 'x')`,
      '23503',
    ],
    [`insert into filestore.nodes (backend_mount_id, name, kind) values (${MAIN}, '', 'directory')`, '23505'],
  ])('%s', async (statement, code) => {
    await expect(attempt(level, statement)).rejects.toMatchObject({ code });
  });
});

test('an operator cannot remove a mount that is not empty', async () => {
  await expect(attempt('operator', "select filestore.delete_mount('main')")).rejects.toMatchObject({
    code: 'FS409',
  });
});

test.each(LEVELS)('%s cannot become the owner or another role', async (level) => {
  const roles = await database().query<{ name: string }>(
    `select quote_ident(rolname) as name from pg_roles
     where starts_with(rolname, current_database()) and rolname <> $1 or rolname = current_user`,
    [sessions.get(level)?.user],
  );
  expect(roles).toHaveLength(LEVELS.length + 1);
  for (const { name } of roles) {
    for (const statement of [
      `set role ${name}`,
      `set session authorization ${name}`,
      `grant ${name} to current_user`,
    ]) {
      await expect(attempt(level, statement)).rejects.toMatchObject({ code: '42501' });
    }
  }
});

/** A role could otherwise attach our trigger function to its own table, and gain the owner's rights. */
test('no role can call a trigger function, or use it for a trigger on its own table', async () => {
  const functions = await database().query<{ name: string }>(
    `select oid::regproc::text as name from pg_proc
     where pronamespace = 'filestore'::regnamespace and prorettype = 'trigger'::regtype`,
  );
  expect(functions.length).toBeGreaterThan(5);
  for (const { name } of functions) {
    for (const statement of [
      `select ${name}()`,
      `create temp table nodes (id bigint); create trigger mine before insert on nodes for each row execute function ${name}()`,
    ]) {
      await expect(attempt('operator', statement)).rejects.toMatchObject({ code: '42501' });
    }
  }
});
