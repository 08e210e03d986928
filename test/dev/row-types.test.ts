import { beforeAll, describe, expect, test } from 'vitest';
import { fieldsOf, typesOf } from '../support/databases/row-types.ts';
import { databaseForFile, databaseRolledBackAfterEachTest } from '../support/databases/test-database.ts';
import { createDirectory, createMount, createNode, foldAll } from '../support/rows/nodes.ts';

const filled = databaseForFile();
const changed = databaseRolledBackAfterEachTest();

/** Whether a value that pg returned fits a type, as far as this can be checked. */
function isOf(value: unknown, type: string): boolean {
  const choices = type.split(' | ');
  if (choices.includes('JsonValue')) return true;
  return choices.some((choice) => {
    if (choice === 'null') return value === null;
    if (choice === 'string') return typeof value === 'string';
    if (choice === 'number') return typeof value === 'number';
    if (choice === 'boolean') return typeof value === 'boolean';
    if (choice === 'Date') return value instanceof Date;
    if (choice === 'JsonObject') return typeof value === 'object' && value !== null && !Array.isArray(value);
    if (choice === 'string[]') return Array.isArray(value) && value.every((item) => typeof item === 'string');
    if (choice === 'CommandStatus')
      return ['queued', 'running', 'succeeded', 'failed', 'canceled'].includes(value as string);
    if (choice === 'NodeKind') return ['file', 'directory'].includes(value as string);
    if (choice === 'TotalsState') return ['up_to_date', 'pending', 'stale'].includes(value as string);
    if (choice === 'NodeState')
      return ['active', 'inconsistent', 'missing', 'deleted'].includes(value as string);
    return choice === `'${value}'`;
  });
}

describe('a row that pg returns', () => {
  let types: string;
  beforeAll(async () => {
    const database = filled();
    types = await typesOf(filled);
    const [local, s3] = [await createMount(database), await createMount(database, 's3')];
    for (const mount of [local, s3]) {
      const directory = await createDirectory(database, mount, mount.rootId, 'a directory');
      const file = await createNode(database, mount, directory, 'a file');
      await database.query(
        `update filestore.nodes set checksum = 'sha256:00', content_hash = 'tag', storage_class = 'cold', size_bytes = 7,
                metadata = '{"a": [1]}', last_modified_at = now() where id = $1`,
        [file],
      );
      await database.query('select filestore.record_sightings(array[$1::bigint], now(), now())', [file]);
      const gone = await createNode(database, mount, directory, 'a tombstone');
      await database.query("update filestore.nodes set state = 'deleted' where id = $1", [gone]);
      const empty = await createDirectory(database, mount, directory, 'a deleted directory');
      await database.query("update filestore.nodes set state = 'deleted' where id = $1", [empty]);
    }
    await foldAll(database);
    await createNode(database, local, local.rootId, 'pending');
    const [begun] = await database.query(
      "select (entry).id from filestore.begin_command('scan', '{\"a\": 1}', idempotency_key => 'k')",
    );
    await database.query(
      "select filestore.finish_command($1, 'failed', error => '{\"code\": 1}', affected_node_ids => array[1, 2])",
      [begun?.id],
    );
    await database.query("select filestore.begin_command('scan')");
    await database.query("select filestore.grant_access('pg_monitor', 'reader')");
    await database.query("call filestore.backfill('nodes', 'content_hash', 'null::text')");
  });

  const calls: Readonly<Record<string, string>> = {
    AccessLevelRow: 'filestore.access_levels',
    BackendMountRow: 'filestore.backend_mounts',
    BackfillRow: 'filestore.backfills',
    JournalEntryRow: 'filestore.journal_entries',
    NodeRow: 'filestore.nodes',
    NodeSightingRow: 'filestore.node_sightings',
    RollupDeltaRow: 'filestore.rollup_deltas',
    RollupRow: 'filestore.rollups',
    SnapshotRow: 'filestore.snapshots',
    ActiveNodeRow: 'filestore.view_filestore_active_nodes',
    DirectoryRow: 'filestore.view_filestore_directories',
    NodeVersionRow: 'filestore.view_filestore_node_versions',
    BeginCommandRow: "filestore.begin_command('look')",
    CanonicalPathRow: "filestore.canonical_path('a')",
    CreateNodeRow:
      "filestore.create_node((select id from filestore.nodes where parent_id is null limit 1), 'new')",
    DirectoryTotalsRow: 'filestore.directory_totals((select min(id) from filestore.nodes))',
    ExpireCommandsRow: "filestore.expire_commands('0 seconds')",
    FoldRollupsRow: 'filestore.fold_rollups(0 + 1)',
    ListCommandsRow: 'filestore.list_commands()',
    ListDirectoryRow: 'filestore.list_directory((select min(id) from filestore.nodes))',
    ListNodesRow:
      'filestore.list_nodes((select min(mount_key) from filestore.backend_mounts), with_totals => true)',
    CountNodesRow: 'filestore.count_nodes((select min(mount_key) from filestore.backend_mounts))',
    ListTotalsRow: 'filestore.list_totals(array(select id from filestore.nodes))',
    NodeLocationRow: 'filestore.node_location((select min(id) from filestore.nodes))',
    MountPlaceRow: "filestore.mount_place('local', '/data')",
    LockTreeRow: 'filestore.lock_tree((select min(id) from filestore.backend_mounts), false)',
    ListUnseenRow:
      "filestore.list_unseen((select min(mount_key) from filestore.backend_mounts), now(), '', 1)",
    NodeAtRow: 'filestore.node_at((select min(id) from filestore.nodes), now())',
    NodeCommandsRow: 'filestore.node_commands(1)',
    NodeVersionsRow: 'filestore.node_versions((select min(id) from filestore.nodes))',
    RestoreNodeRow:
      'filestore.restore_node((select min(id) from filestore.nodes where deleted_at is not null))',
    TreeAtRow: "filestore.tree_at((select min(mount_key) from filestore.backend_mounts), '', now())",
  };

  test.each(Object.entries(calls))('is a %s, from %s', async (name, from) => {
    const rows = await filled().query(`select * from ${from}`);
    const fields = fieldsOf(types, name);
    expect(rows.length).toBeGreaterThan(0);
    for (const row of rows) {
      expect(Object.keys(row)).toEqual(Object.keys(fields));
      for (const [field, type] of Object.entries(fields)) {
        expect(isOf(row[field], type), `${field}: ${row[field]} is no ${type}`).toBe(true);
      }
    }
  });

  test.each([
    ['DirectoryTotalsRow', 'filestore.directory_totals', 'a.id'],
    ['ListTotalsRow', 'filestore.list_totals', 'array[a.id]'],
  ])('%s has no nulls, even for a new or deleted directory', async (name, called, argument) => {
    const rows = await filled().query(
      `with a as materialized (
         select n.id from filestore.nodes n where n.kind = 'directory' order by n.id
       )
       select t.* from a cross join lateral ${called}(${argument}) t`,
    );
    expect(rows.some((row) => row.consistency_state === 'pending')).toBe(true);
    expect(rows.some((row) => row.consistency_state === 'up_to_date')).toBe(true);
    // Null unless it is requested.
    const valuesOf = ({ last_calculated_at: _, ...others }: Readonly<Record<string, unknown>>) =>
      Object.values(others);
    expect(rows.flatMap(valuesOf)).not.toContain(null);
    expect(valuesOf(fieldsOf(types, name)).join()).not.toContain('null');
  });

  test('ListUnseenRow has an empty array if every node was seen, and no path at the end', async () => {
    const rows = await filled().query(
      "select u.* from filestore.backend_mounts m cross join lateral filestore.list_unseen(m.mount_key, '-infinity') u",
    );
    expect(new Set(rows.map((row) => JSON.stringify(row)))).toEqual(
      new Set(['{"node_ids":[],"next_path":null}']),
    );
    expect(fieldsOf(types, 'ListUnseenRow')).toEqual({ node_ids: 'string[]', next_path: 'string | null' });
  });

  test('has a type for every table, view and function of services, except internal ones', async () => {
    const objects = await filled().query<{ kind: string; name: string }>(
      `select 'relation' as kind, relname as name from pg_class
       where relnamespace = 'filestore'::regnamespace and relkind in ('r', 'v', 'm')
         and not starts_with(obj_description(oid, 'pg_class'), 'Internal: ')
       union all
       select 'function', proname from pg_proc
       where oid in (select object::regprocedure from filestore.access_rights('operator') where kind = 'function')
         and not starts_with(obj_description(oid, 'pg_proc'), 'Internal: ')`,
    );
    for (const { name } of objects) {
      expect(types).toMatch(
        new RegExp(`/\\*\\* A row of (?:${name}\\.|"select \\* from filestore\\.${name}\\()`),
      );
    }
  });

  test('has no field of an unknown type, except intervals', async () => {
    const intervals = await filled().query<{ name: string }>(
      `select distinct a.attname as name from pg_attribute a join pg_class c on c.oid = a.attrelid
       where c.relnamespace = 'filestore'::regnamespace and a.atttypid = 'interval'::regtype`,
    );
    const unknown = [...types.matchAll(/(\w+)\??: unknown/g)].map(([, field]) => field);
    expect([...new Set(unknown)].sort()).toEqual(intervals.map(({ name }) => name).sort());
  });

  test('has the values of a domain in its type', () => {
    expect(types).toContain("export type NodeKind = 'file' | 'directory';");
    expect(types).toContain("export type NodeState = 'active' | 'inconsistent' | 'missing' | 'deleted';");
    expect(types).toContain(
      "export type CommandStatus = 'queued' | 'running' | 'succeeded' | 'failed' | 'canceled';",
    );
    expect(fieldsOf(types, 'JournalEntryRow')).toMatchObject({ status: 'CommandStatus' });
    expect(types).toContain("export type TotalsState = 'up_to_date' | 'pending' | 'stale';");
    expect(fieldsOf(types, 'NodeVersionRow')).toMatchObject({ kind: 'NodeKind', state: 'NodeState' });
  });

  test('may have null from a left join, or in the current version', () => {
    expect(fieldsOf(types, 'ActiveNodeRow')).toMatchObject({ id: 'string', last_seen_at: 'Date | null' });
    for (const name of ['NodeVersionRow', 'NodeAtRow', 'NodeVersionsRow', 'TreeAtRow']) {
      expect(fieldsOf(types, name), name).toMatchObject({ valid_from: 'Date', valid_to: 'Date | null' });
    }
  });

  test('has an object in metadata, which can be nothing else', async () => {
    expect(fieldsOf(types, 'NodeRow').metadata).toBe('JsonObject');
    expect(fieldsOf(types, 'NodeInsert').metadata).toBe('JsonObjectInput');
    await expect(filled().query("update filestore.nodes set metadata = '[]'")).rejects.toMatchObject({
      constraint: 'nodes_metadata_check',
    });
  });

  test('has no type for functions that services cannot call, or for arguments', () => {
    expect(types).not.toMatch(
      /\b(?:EraseMount|GrantAccess|CheckName|IsSound|DescribeNode|PrepareNodeInsert)Row\b/,
    );
    expect(types).not.toMatch(/Arguments\b/);
  });

  test('has a type for updates, with the columns that a service may update, all optional', () => {
    expect(fieldsOf(types, 'NodeUpdate')).toMatchObject({
      parent_id: 'string | number | bigint | null',
      name: 'string',
      state: 'NodeState',
    });
    for (const field of ['id', 'kind', 'path', 'live', 'version']) {
      expect(fieldsOf(types, 'NodeUpdate')).not.toHaveProperty(field);
    }
    expect(fieldsOf(types, 'BackendMountUpdate')).toMatchObject({ access_mode: "'rw' | 'ro'" });
    expect(types).toMatch(/export interface NodeUpdate \{\n(?: {2}\w+\?: .*;\n)+\}/);
  });

  test('has a type for inserts, with the columns that a service may insert', () => {
    expect(fieldsOf(types, 'NodeInsert')).toMatchObject({
      backend_mount_id: 'string | number | bigint',
      kind: 'NodeKind',
      last_modified_at: 'Date | string | null',
    });
    for (const field of ['id', 'path', 'depth', 'live', 'parent_live', 'version', 'deleted_at']) {
      expect(fieldsOf(types, 'NodeInsert')).not.toHaveProperty(field);
    }
    expect(types.match(/interface \w+Insert /g)).toEqual([
      'interface BackendMountInsert ',
      'interface JournalEntryInsert ',
      'interface NodeInsert ',
    ]);
    expect(types).toMatch(/export interface NodeInsert \{[^}]* backend_mount_id: [^}]* size_bytes\?: /);
  });
});

describe('a type of SQL', () => {
  test.each([
    ['smallint', 'number | null'],
    ['double precision', 'number | null'],
    ['numeric(10, 2)', 'string | null'],
    ['bigint[]', 'string[] | null'],
    ['timestamp', 'Date | null'],
    ['date', 'Date | null'],
    ['bytea', 'Uint8Array | null'],
    ['json', 'JsonValue'],
    ['jsonb[]', 'JsonValue[] | null'],
    ['uuid', 'string | null'],
    ['point', 'unknown'],
    ['filestore.node_kind[]', 'NodeKind[] | null'],
    ['filestore.odd_range', 'string | null'],
    ['filestore.odd_enum', 'string | null'],
    ['filestore.odd_pair', 'string | null'],
    ['filestore.odd_pair[]', 'string | null'],
  ])('%s is %s', async (sql, type) => {
    await changed().query(
      `create type filestore.odd_range as range (subtype = text);
       create type filestore.odd_enum as enum ('a');
       create type filestore.odd_pair as (a text, b text);
       create table filestore.odd_things (it ${sql})`,
    );
    expect(fieldsOf(await typesOf(changed), 'OddThingRow').it).toBe(type);
  });

  test('is left out for an internal table', async () => {
    await changed().query(
      `create table filestore.odd_things (it text);
       create table filestore.odd_plans (it text);
       comment on table filestore.odd_plans is 'Internal: Plans.'`,
    );
    const types = await typesOf(changed);
    expect(types).toContain('interface OddThingRow');
    expect(types).not.toContain('OddPlan');
  });

  test('can have values with quotes, and columns with odd names', async () => {
    await changed().query(
      `create table filestore.odd_things (
         "a name" text not null default 'x',
         it text constraint odd_things_it_check check (it in ('it''s', 'back\\slash')))`,
    );
    await changed().query("comment on table filestore.odd_things is 'Ends */ here'");
    const types = await typesOf(changed);
    expect(types).toContain("  'a name': string;\n");
    expect(types).toContain("it: 'it\\'s' | 'back\\\\slash' | null;");
    expect(types).toContain('Ends * / here');
  });
});
