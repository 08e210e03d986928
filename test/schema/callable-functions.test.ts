import { beforeAll, describe, expect, test } from 'vitest';
import { ACCESS_LEVELS, type AccessLevel } from '../../src/access-levels.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile();
const createRole = rolesForFile(database);

/** The functions that are there for callers, by the first level that may call them. */
const CALLABLE: Readonly<Record<AccessLevel, readonly string[]>> = {
  reader: [
    ...['access_rights', 'canonical_checksum', 'canonical_path', 'check_access', 'command_by_id'],
    ...['count_nodes', 'directory_totals', 'find_by_checksum', 'list_commands', 'list_directory'],
    ...['list_mounts', 'list_nodes', 'list_totals', 'list_unseen', 'mount_by_id', 'mount_by_key'],
    ...['node_at', 'node_by_id', 'node_by_path', 'node_commands', 'node_location', 'node_versions'],
    ...['nodes_by_id', 'nodes_by_path', 'tree_at'],
  ],
  service: [
    ...['apply_scan', 'begin_command', 'begin_scan', 'begin_work', 'cancel_scan', 'copy_tree'],
    ...['create_mount', 'create_node', 'create_nodes', 'delete_batch', 'delete_node', 'ensure_directory'],
    ...['expire_commands', 'expire_scans', 'finish_command', 'fold_rollups', 'lock_tree', 'merge_metadata'],
    ...['mount_place', 'move_node', 'record_entries', 'record_sightings', 'restore_node'],
    ...['revert_node', 'scan_differences', 'set_states', 'start_command', 'sync_nodes', 'update_mount'],
    ...['update_nodes', 'upsert_directory', 'upsert_file', 'writable_mount'],
  ],
  operator: [
    ...['audit_rollups', 'check_integrity', 'check_sequences', 'delete_mount', 'prune_history'],
    ...['prune_journal', 'purge_deleted', 'recount_rollups'],
  ],
};

/** Internal functions that a level may call without need. They read the catalog, or the state of the session. */
const UNNEEDED = ['content_columns for reader', 'require_first_write for service'];

interface Routine {
  readonly name: string;
  readonly level: AccessLevel | null;
  readonly isInternal: boolean;
  readonly isOwners: boolean;
  /** The functions that its text names. */
  readonly calls: ReadonlySet<string>;
}

let routines: readonly Routine[];
/** What checks of tables call, which run with the rights of the writer, and what views call, with those of the reader. */
let called: Readonly<Record<'checks' | 'views', ReadonlySet<string>>>;

beforeAll(async () => {
  const roles: string[] = [];
  for (const level of ACCESS_LEVELS) {
    const { name } = await createRole();
    await database().query('select filestore.grant_access($1, $2)', [name, level]);
    roles.push(name);
  }
  const rows = await database().query(
    `select p.proname as name, pg_get_functiondef(p.oid) as text, p.prosecdef,
       coalesce(obj_description(p.oid, 'pg_proc'), '') like 'Internal:%' as is_internal,
       ($2::text[])[(select min(r.place) from unnest($1::text[]) with ordinality as r (name, place)
                     where has_function_privilege(r.name, p.oid, 'execute'))] as level
     from pg_proc p
     where p.pronamespace = 'filestore'::regnamespace and p.prosrc !~ '^(range|multirange)_constructor'
     order by p.proname collate "C"`,
    [roles, ACCESS_LEVELS],
  );
  const names = new Set(rows.map(({ name }) => name));
  const namedIn = (text: string) =>
    new Set(
      [...text.replace(/--.*|'(?:[^']|'')*'/g, '').matchAll(/\bfilestore\.(\w+)\b(?=\()/g)]
        .map(([, name = '']) => name)
        .filter((name) => names.has(name)),
    );
  routines = rows.map((row) => ({
    name: row.name,
    level: row.level,
    isInternal: row.is_internal,
    isOwners: row.prosecdef,
    calls: namedIn(row.text),
  }));
  const [text] = await database().query<{ checks: string; views: string }>(
    `select
       (select string_agg(pg_get_constraintdef(c.oid), ' ') from pg_constraint c where c.connamespace = 'filestore'::regnamespace) as checks,
       (select string_agg(pg_get_viewdef(v.oid), ' ') from pg_class v
        where v.relnamespace = 'filestore'::regnamespace and v.relkind = 'v') as views`,
  );
  called = { checks: namedIn(text?.checks ?? ''), views: namedIn(text?.views ?? '') };
});

const namesOf = (condition: (routine: Routine) => boolean) =>
  routines.filter(condition).map(({ name }) => name);
const rankOf = (level: AccessLevel | null) =>
  level === null ? ACCESS_LEVELS.length : ACCESS_LEVELS.indexOf(level);

describe('functions', () => {
  test.each(ACCESS_LEVELS)('that are not internal can be called from level %s on', (level) => {
    expect(namesOf((routine) => routine.level === level && !routine.isInternal)).toEqual(CALLABLE[level]);
  });

  test('call only functions that their callers may call, or run as the owner; and so do views and checks', () => {
    const levels = new Map(routines.map(({ name, level }) => [name, level]));
    const callers = [
      ...routines.filter(({ level, isOwners }) => level !== null && !isOwners),
      { name: 'a view', level: 'reader' as const, calls: called.views },
      { name: 'a check', level: 'service' as const, calls: called.checks },
    ];
    const missing = callers.flatMap(({ name, level, calls }) =>
      [...calls]
        .filter((other) => rankOf(levels.get(other) ?? null) > rankOf(level))
        .map((other) => `${name} of level ${level} calls ${other}`),
    );
    expect(missing).toEqual([]);
  });

  test('that are internal can be called only by the levels whose functions, views or checks call them', () => {
    const needed = (name: string): number => {
      const callers = routines.filter(
        (other) => other.name !== name && !other.isOwners && other.calls.has(name),
      );
      return Math.min(
        called.views.has(name) ? rankOf('reader') : ACCESS_LEVELS.length,
        called.checks.has(name) ? rankOf('service') : ACCESS_LEVELS.length,
        ...callers.map(({ level }) => rankOf(level)),
      );
    };
    expect(
      routines
        .filter(({ name, level, isInternal }) => isInternal && rankOf(level) < needed(name))
        .map(({ name, level }) => `${name} for ${level}`),
    ).toEqual(UNNEEDED);
  });
});
