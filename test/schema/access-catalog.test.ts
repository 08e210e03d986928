import { expect, test } from 'vitest';
import { databaseForFile } from '../support/database.ts';
import { rolesForFile } from '../support/roles.ts';

const database = databaseForFile();
const createRole = rolesForFile(database);

/** What no level may call, though it is no trigger's function. */
const INTERNAL: Readonly<Record<string, string>> = {
  check_state_change: 'part of a trigger, which calls it as the owner',
  current_journal_entry: 'part of a trigger, which calls it as the owner',
  find_parent: 'part of a trigger, which calls it as the owner; it locks rows',
  grant_access: 'for the owner, who alone has something to grant',
  next_version: 'part of a trigger, which calls it as the owner',
  refuse_created_node: 'part of a trigger, which calls it as the owner',
  refuse_long_name: 'part of a trigger, which calls it as the owner',
};

/** Without a search_path of their own, since a setting costs a call more than the function: they have the trigger's. */
const PINNED_BY_CALLER: readonly string[] = ['check_state_change', 'find_parent', 'next_version'];

async function namesOf(condition: string, values: readonly unknown[] = []): Promise<readonly string[]> {
  const rows = await database().query<{ name: string }>(
    `select p.proname as name from pg_proc p
     where p.pronamespace = 'filestore'::regnamespace and (${condition})
     order by p.proname collate "C"`,
    values,
  );
  return rows.map(({ name }) => name);
}

const UNPINNED = `not exists (select from unnest(p.proconfig) c where c = 'search_path=pg_catalog, pg_temp')`;

test('a function is for some level, a trigger, or the few that are for nobody else', async () => {
  const operator = await createRole();
  await database().query("select filestore.grant_access($1, 'operator')", [operator.name]);
  expect(
    await namesOf(`p.prorettype <> 'trigger'::regtype and not has_function_privilege($1, p.oid, 'execute')`, [
      operator.name,
    ]),
  ).toEqual(Object.keys(INTERNAL));
});

test('a function that runs as the owner finds what it names in pg_catalog first, whatever the caller has set', async () => {
  expect((await namesOf('p.prosecdef')).length).toBeGreaterThan(10);
  expect(await namesOf(`p.prosecdef and ${UNPINNED}`)).toEqual([]);
});

test('a trigger runs as the owner, and not by the search_path of whoever writes', async () => {
  const unguarded = await namesOf(`p.prorettype = 'trigger'::regtype and (not p.prosecdef or ${UNPINNED})`);
  // On graphile-migrate's tables, which only a migrator writes: it may own what the owner of the schema does not.
  expect(unguarded).toEqual(['renew_after_migration']);
  expect(await namesOf(`p.proname = 'renew_after_migration' and ${UNPINNED}`)).toEqual([]);
});

test('no other function reads the search_path of its caller either', async () => {
  // A body that begins with "begin atomic" was bound when the function was made.
  expect(await namesOf(`p.prosqlbody is null and ${UNPINNED}`)).toEqual(PINNED_BY_CALLER);
});

test('what has the search_path of its caller is for nobody, and called by triggers alone', async () => {
  expect(Object.keys(INTERNAL)).toEqual(expect.arrayContaining([...PINNED_BY_CALLER]));
  for (const name of PINNED_BY_CALLER) {
    const callers = `p.prosrc like '%filestore.' || $1 || '(%'`;
    expect(await namesOf(callers, [name])).not.toEqual([]);
    expect(await namesOf(`${callers} and p.prorettype <> 'trigger'::regtype`, [name])).toEqual([]);
  }
});

test('no function builds SQL from text but the one that grants', async () => {
  expect(await namesOf(`p.prosrc ~* '\\mexecute\\M'`)).toEqual(['grant_access']);
});
