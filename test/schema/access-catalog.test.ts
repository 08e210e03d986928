import { expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile();
const createRole = rolesForFile(database);

/** Functions that no level may call, besides trigger functions. */
const INTERNAL: Readonly<Record<string, string>> = {
  apply_access: 'for the owner, who alone has something to grant',
  attach_renewal: 'for the owner, whose migrations it changes',
  backfill: 'for the owner, who writes what counts no version',
  check_backfill: 'part of backfill',
  check_mount_settings: 'part of a trigger, which calls it as the owner',
  check_import: 'for the owner, who alone imports',
  current_journal_entry: 'part of a trigger, which calls it as the owner',
  describe_node: 'part of a trigger, which calls it as the owner',
  erase_mount: 'for the owner: it removes live nodes',
  fill_batch: 'part of backfill',
  find_parent: 'part of a trigger, which calls it as the owner; it locks rows',
  grant_access: 'for the owner, who alone has something to grant',
  import_nodes: 'for the owner: it writes ids, versions and history',
  is_import: 'part of a trigger, which calls it as the owner',
  is_backfill: 'part of a trigger, which calls it as the owner',
  lagging_replica: 'part of backfill',
  refuse_created_node: 'part of a trigger, which calls it as the owner',
  refuse_long_name: 'part of a trigger, which calls it as the owner',
  refuse_state_change: 'part of a trigger, which calls it as the owner',
  refuse_version: 'part of a trigger, which calls it as the owner',
  renew_access: 'for the owner, who alone has something to grant',
  reserve_ids: 'for the owner, who alone imports',
  revoke_access: 'for the owner, who alone has something to grant',
  set_database_number: 'for the owner, before there are rows',
};

async function namesOf(condition: string, values: readonly unknown[] = []): Promise<readonly string[]> {
  const rows = await database().query<{ name: string }>(
    `select p.proname as name from pg_proc p
     where p.pronamespace = 'filestore'::regnamespace and (${condition})
       -- No constructors of range types, which the server creates.
       and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i')
     order by p.proname collate "C"`,
    values,
  );
  return rows.map(({ name }) => name);
}

test('no level may call trigger functions and functions for the owner', async () => {
  const operator = await createRole();
  await database().query("select filestore.grant_access($1, 'operator')", [operator.name]);
  expect(
    await namesOf(`p.prorettype <> 'trigger'::regtype and not has_function_privilege($1, p.oid, 'execute')`, [
      operator.name,
    ]),
  ).toEqual(expect.arrayContaining(Object.keys(INTERNAL)));
});

test.each(['service', 'operator'])('a %s has no right to a column of the server', async (level) => {
  const rows = await database().query<{ attnum: number }>(
    `select r.object, r.column_name, a.attnum from filestore.access_rights($1) r
     join pg_attribute a on a.attrelid = r.object::regclass and a.attname = r.column_name
     where r.kind = 'column'`,
    [level],
  );
  expect(rows.length).toBeGreaterThan(0);
  expect(rows.filter(({ attnum }) => attnum < 0)).toEqual([]);
});

test('a trigger runs as the owner', async () => {
  // The trigger on graphile-migrate's tables runs as the migrator, which may own objects that the schema's owner does not.
  expect(await namesOf(`p.prorettype = 'trigger'::regtype and not p.prosecdef`)).toEqual([
    'renew_after_migration',
  ]);
});

test('only the few functions that read columns from the catalog build SQL from text', async () => {
  expect(await namesOf(`p.prosrc ~* '\\mexecute (format|statement)\\M'`)).toEqual([
    'apply_access',
    'attach_renewal',
    'backfill',
    'cancel_step',
    'change_staged',
    'check_sequences',
    'check_staged_rows',
    'compare_staged_nodes',
    'copy_nodes',
    'create_mount',
    'create_staged',
    'digest_mount',
    'fill_batch',
    'finish_move',
    'list_commands',
    'merge_nodes',
    'revert_node',
    'revoke_from_public',
    'search_nodes',
    'set_database_number',
    'stage_entries',
    'stage_nodes',
    'stage_versions',
    'start_move',
    'take_entries',
    'take_versions',
    'try_statement',
    'update_mount',
    'update_nodes',
  ]);
  // Other matches are the name of the right "execute".
  expect(
    await namesOf(
      `p.prosrc ~ '\\mexecute\\M' and p.prosrc !~ '\\mexecute (format\\(|statement\\M|creation using)'`,
    ),
  ).toEqual([]);
});
