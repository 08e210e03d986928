import { beforeEach, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest, withoutTriggers } from '../support/databases/test-database.ts';
import { createMount, type Mount } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

let mount: Mount;
beforeEach(async () => {
  mount = await createMount(database());
});

/** Records running scans as no call does, in order: "a/" is one of a whole tree, and "a" of a directory. */
async function recordScans(scans: readonly string[]): Promise<void> {
  await withoutTriggers(database(), async (superuser) => {
    for (const path of scans) {
      await superuser.query(
        `insert into filestore.scans (backend_mount_id, directory_id, path, is_recursive)
         values ($1, $2, rtrim($3, '/'), $3 like '%/')`,
        [mount.id, mount.rootId, path],
      );
    }
  });
}

/** The scans that overlap with another one, and that one, as they were recorded. */
async function overlaps(scans: readonly string[]): Promise<readonly (readonly string[])[]> {
  await recordScans(scans);
  const rows = await database().query<{ ends: string[] }>(
    `select array(
       select s.place
       from regexp_matches(c.detail, '^scan ([0-9]+) of .* beside scan ([0-9]+)$') f (found)
       cross join unnest(f.found) with ordinality e (id, at)
       join (select id::text, path || case when is_recursive then '/' else '' end as place from filestore.scans) s on s.id = e.id
       order by e.at
     ) as ends
     from filestore.check_integrity() c where c.problem = 'scans that overlap' order by c.detail`,
  );
  return rows.map(({ ends }) => ends);
}

test.each([
  ['beside each other', ['a/', 'a!/', 'a0/', 'a-b', 'b/c/', 'b/d']],
  ['of directories above each other', ['', 'a', 'a/b', 'a/b/c/']],
])('scans %s do not overlap', async (_, scans) => {
  expect(await overlaps(scans)).toEqual([]);
});

test.each([
  ['of one directory', ['a', 'a'], [['a', 'a']]],
  ['below one of a tree', ['a/', 'a/b'], [['a/b', 'a/']]],
  ['below one of a tree that began later', ['a/b/c', 'a/'], [['a/b/c', 'a/']]],
  ['below one of the mount', ['/', 'b'], [['b', '/']]],
  [
    'behind a smaller tree',
    ['a/', 'a/b/', 'a/c'],
    [
      ['a/b/', 'a/'],
      ['a/c', 'a/'],
    ],
  ],
])('a scan %s overlaps', async (_, scans, expected) => {
  expect(await overlaps(scans)).toEqual(expected);
});
