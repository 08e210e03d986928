import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { applies, currentApplies } from '../../dev/check/gates/applies.ts';
import { repeatable } from '../../dev/check/gates/repeatable.ts';
import { populate } from '../../dev/check/populate.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { createDatabase, databaseForEachTest } from '../support/databases/test-database.ts';
import {
  checkoutWith,
  linesOf,
  PASSED,
  packageToSpoil,
  problemsOf,
} from '../support/packages/spoiled-package.ts';

const database = databaseForEachTest();
const emptyDatabase = databaseForEachTest('empty');
const spoil = packageToSpoil();
const CURRENT = 'migrations/current.sql';
const CHECK = '--check: There are nodes.\n--  select not exists (select from filestore.nodes)\n\nselect 1;';

let client: Client;
let empty: Client;
beforeEach(async () => {
  client = await database().connect();
  empty = await emptyDatabase().connect();
});
test('the sample has rows for every table that the service needs', async () => {
  expect(await populate(client)).toBeUndefined();
  for (const name of ['backend_mounts', 'nodes', 'snapshots', 'journal_entries', 'rollups']) {
    expect(await database().query(`select from filestore.${name} limit 1`), name).toHaveLength(1);
  }
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
});

test('a sample row that no longer fits the schema is reported with its line', async () => {
  await client.query('alter table filestore.nodes add constraint nodes_test_check check (size_bytes < 3)');
  const problem = await populate(client);
  expect(problem).toMatchObject({
    file: expect.stringMatching(/\/sample-rows\.sql$/),
    what: expect.stringContaining('nodes_test_check'),
    remedy: expect.stringContaining('Update this file'),
  });
  const lines = readFileSync(join(PACKAGE_ROOT, problem?.file ?? ''), 'utf8').split('\n');
  expect(lines[(problem?.line ?? 0) - 1]).toContain('insert into filestore.nodes ');
});

describe('the committed migrations', () => {
  test('that do not apply are reported with line, reason and hint', async () => {
    const copy = spoil();
    const file = copy.addMigration(
      'more',
      `create table filestore.half ();\nselect '😀', 1,\nnmae\nfrom filestore.backend_mounts;`,
    );
    expect(await linesOf(applies.evaluate({ sources: await copy.sources(), client: empty }))).toEqual([
      expect.stringMatching(
        new RegExp(
          `^migrations/committed/${file}:6 fails: column "nmae" does not exist \\(SQLSTATE 42703\\)`,
        ),
      ),
    ]);
    const { rows } = await empty.query("select to_regclass('filestore.half') as half");
    expect(rows).toEqual([{ half: null }]);
  });

  test.each([
    ["update pg_settings set setting = '77777' where name = 'work_mem';", 'work_mem = "77777"'],
    ["do $$ begin execute 'set lock_timeout = 77'; end $$;", 'lock_timeout = "77"'],
    ["do $$ begin execute 'set role pg_monitor'; end $$;", 'role = "pg_monitor"'],
  ])('may not leave a setting in the session, as %s does', async (sql, setting) => {
    const copy = spoil();
    const file = copy.addMigration('more', sql);
    // As db:check does. An owner may not take the role.
    const superuser = await emptyDatabase().connectAsSuperuser();
    expect(await linesOf(applies.evaluate({ sources: await copy.sources(), client: superuser }))).toEqual([
      `migrations/committed/${file}:null leaves the session with ${setting}, which also holds for later migrations`,
    ]);
  });

  test('have checks that can be evaluated before them', async () => {
    const copy = spoil();
    copy.addMigration('more', CHECK);
    const file = copy.addMigration('wrong', CHECK.replace('filestore.nodes', 'filestore.noodles'));
    expect(await linesOf(applies.evaluate({ sources: await copy.sources(), client: empty }))).toEqual([
      expect.stringMatching(
        new RegExp(`^migrations/committed/${file}:4 has a check that fails at line 5, column \\d+: relation`),
      ),
    ]);
  });
});

describe('applied again, the migrations', () => {
  const again = async (...migrations: readonly string[]) => {
    const copy = spoil();
    const files = migrations.map((sql) => `migrations/committed/${copy.addMigration('more', sql)}`);
    return { files, found: await repeatable.evaluate({ sources: await copy.sources(), client: empty }) };
  };

  test('are reported if one fails', async () => {
    const { files, found } = await again(
      'select 1;\nalter table filestore.nodes add column owner_hint text;',
    );
    expect(await linesOf(found)).toEqual([
      expect.stringMatching(
        new RegExp(`^${files[0]}:5 at its second run, fails: column "owner_hint".*already exists`),
      ),
    ]);
  });

  test('are reported if one creates something twice', async () => {
    const { files, found } = await again('select 1;\ncreate index on filestore.nodes (size_bytes);');
    expect(await linesOf(found)).toEqual([
      expect.stringContaining(
        `${files[0]}:null index filestore.nodes_size_bytes_idx1 exists only after the second time: `,
      ),
    ]);
  });

  test('are reported if the result differs', async () => {
    const { files, found } = await again(
      `do $$ begin
         if to_regclass('filestore.marker') is null then create table filestore.marker ();
         else drop table filestore.marker; end if;
       end $$;`,
    );
    expect(await linesOf(found)).toEqual([
      expect.stringContaining(`${files[0]}:null table filestore.marker is missing after the second time`),
    ]);
  });

  test('are reported if an older one fails, unless a comment declares it', async () => {
    const table = 'create table if not exists filestore.labels (old int, new int);';
    const first = `${table}\ncomment on column filestore.labels.old is 'The old name.';`;
    const last = 'alter table filestore.labels drop column if exists old;';
    const { files, found } = await again(first, last);
    expect(await linesOf(found)).toEqual([
      expect.stringMatching(
        new RegExp(`^${files[0]}:5 after later migrations, at its second run, fails: column "old"`),
      ),
    ]);
    expect(await problemsOf(found)).toMatchObject([
      { remedy: expect.stringContaining('-- No replay from before: why') },
    ]);

    const another = await createDatabase('empty');
    const copy = spoil();
    copy.addMigration('more', first);
    copy.addMigration(
      'more',
      `-- No replay from before: the table's first migration comments on this column.\n${last}`,
    );
    const client = await another.connect();
    expect(await repeatable.evaluate({ sources: await copy.sources(), client })).toEqual(PASSED);
    await another.drop();
  });
});

describe('current.sql', () => {
  const check = async (text: string) => {
    const withoutRows = await createDatabase();
    try {
      expect(await populate(client)).toBeUndefined();
      return await linesOf(
        currentApplies.evaluate({
          sources: await checkoutWith(text),
          empty: await withoutRows.connect(),
          populated: client,
        }),
      );
    } finally {
      await withoutRows.drop();
    }
  };

  test('that can be repeated passes, also with includes', async () => {
    expect(
      await check(
        'alter table filestore.nodes add column if not exists owner_hint text;\n--!include functions/check_limit.sql\n',
      ),
    ).toEqual([]);
  });

  test.each([
    ['fails', 'select 1;\nselect 1/0;', `${CURRENT}:2 fails: division by zero`],
    [
      'fails on rows',
      'alter table filestore.nodes add column if not exists owner_hint text not null;',
      `${CURRENT}:1 with rows in the tables, fails: column "owner_hint"`,
    ],
    [
      'has a check that the rows do not pass',
      CHECK,
      `${CURRENT}:1 with rows in the tables, has a check that returned false`,
    ],
    [
      'cannot be repeated',
      'alter table filestore.nodes add column owner_hint text;',
      `${CURRENT}:1 at its second run, fails: column "owner_hint"`,
    ],
    [
      'creates something twice',
      'create index on filestore.nodes (size_bytes);',
      'nodes_size_bytes_idx1 exists only after',
    ],
    [
      'drops what others depend on',
      'drop function if exists filestore.location_uri(text, text, text, text, text);',
      `${CURRENT}:1 fails: cannot drop function`,
    ],
    ['includes a missing file', '\n--!include views/none.sql\n', `${CURRENT}:2 includes views/none.sql`],
    ['is empty', '-- Nothing.\n', `${CURRENT}:null has no migration to check`],
  ])('that %s is reported', async (_, text, what) => {
    const found = await check(text);
    expect(found).toEqual([expect.stringContaining(what)]);
    // The server's hint recommends it.
    expect(found.join()).not.toMatch(/cascade/i);
  });
});
