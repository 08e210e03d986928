import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { askFunctionsOf, command, jsonCommand } from '../support/command-line/answers.ts';
import { takePicture } from '../support/databases/picture.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { eventsOf, startRun } from '../support/processes/run-copy.ts';
import { until } from '../support/until.ts';

const MESSAGE = 'Some items have no owner. Set items.owner first.';
const OWNERS = `--check: ${MESSAGE}
--  select not exists (
--    select from public.items where owner is null
--  )
`;
const NOT_NULL = `${OWNERS}alter table public.items alter column owner set not null;`;

const database = databaseForEachTest();
let copy: PackageCopy;

beforeEach(() => {
  copy = copyPackage();
});
afterEach(() => copy.remove());

const createItems = (...owners: readonly (string | null)[]) =>
  database().query(
    `create table public.items as
     select null::integer as id, owner from unnest($1::text[]) owner`,
    [owners],
  );

describe('a migration with a check', () => {
  test('is applied when the data passes it, and a dry run says so', async () => {
    await createItems('ann');
    const filename = copy.addMigration('owners', NOT_NULL);
    copy.modelIsOf(filename);
    const dryRun = await jsonCommand(['migrate', '--dry-run'], database().url, { folder: copy.folder });
    expect(dryRun).toMatchObject({
      exitCode: 0,
      stderr: expect.stringContaining('1 check: 1 passed, 0 failed, 0 to be evaluated later\n'),
      document: {
        ok: true,
        pending: [{ filename, checks: [{ message: MESSAGE, line: 4, state: 'passed', reason: null }] }],
      },
    });
    const { runMigrations } = await askFunctionsOf(copy.folder, database().url);
    expect(runMigrations).toMatchObject({ value: { applied: [{ filename }] } });
  });

  test('is refused with its message before anything is applied, by a run and by a dry run', async () => {
    await createItems('ann', null);
    copy.addMigration('first', 'create table public.first ();');
    const filename = copy.addMigration('owners', NOT_NULL);
    copy.modelIsOf(filename);
    const before = await takePicture(database());
    const failure = {
      code: 'MIGRATION_CHECK_FAILED',
      message: expect.stringMatching(
        new RegExp(`does not pass 1 check .*${filename}, line 4: ${MESSAGE} Nothing was applied\\. Correct`),
      ),
      checks: [{ filename, line: 4, message: MESSAGE, reason: null }],
      applied: [],
    };
    const { runMigrations, pendingMigrations } = await askFunctionsOf(copy.folder, database().url);
    expect(runMigrations).toMatchObject(failure);
    expect(pendingMigrations).toMatchObject({
      value: [{ checks: [] }, { filename, checks: [{ state: 'failed', line: 4 }] }],
    });
    for (const args of [['migrate'], ['migrate', '--dry-run']]) {
      const result = await jsonCommand(args, database().url, { folder: copy.folder });
      expect(result).toMatchObject({
        exitCode: 1,
        stderr: expect.stringMatching(/^MIGRATION_CHECK_FAILED: Database /m),
        document: { ok: false, command: 'migrate', error: failure },
      });
    }
    expect(await takePicture(database())).toEqual(before);
  });

  test('names every check that fails', async () => {
    const files = ['first', 'second'].map((name) =>
      copy.addMigration(name, `--check: Not ${name}.\n--  select false\n\nselect 1;`),
    );
    const { exitCode, stdout, stderr } = await command(['migrate', '--dry-run'], database().url, {
      folder: copy.folder,
    });
    expect(exitCode).toBe(1);
    expect(stdout).toContain('--check: Not second.\n--  select false\n');
    expect(stderr).toContain('2 checks: 0 passed, 2 failed');
    expect(stderr).toContain(`${files[0]}, line 4: Not first. ${files[1]}, line 4: Not second. Nothing`);
  });

  test('is refused with a reason for each check that does not return true', async () => {
    const checks = [
      ['null', 'select null::boolean', 'returned null instead of true'],
      ['no row', 'select true where false', 'returned 0 rows instead of one'],
      ['several rows', 'select true from generate_series(1, 2)', 'returned 2 rows instead of one'],
      ['several columns', 'select true, true', 'returned 2 columns instead of one'],
      ['a number', 'select 1', 'returned something other than a boolean'],
      [
        'an error of its syntax',
        'select 1 = 1\n--  and and true',
        'fails at line LINE, column 9: syntax error at or near "and" (SQLSTATE 42601)',
      ],
      [
        'a change by a function',
        "select nextval('filestore.nodes_id_seq') > 0",
        'fails: cannot execute nextval() in a read-only transaction (SQLSTATE 25006), and a check may only read',
      ],
      [
        'a change by its own',
        'with gone as (delete from filestore.nodes returning id) select exists (select from gone)',
        'fails: cannot execute SELECT in a read-only transaction (SQLSTATE 25006), and a check may only read',
      ],
      [
        'a table that no earlier migration creates',
        'select exists (select from public.nothing)',
        'fails at line LINE, column 32: relation "public.nothing" does not exist (SQLSTATE 42P01)',
      ],
    ] as const;
    // The first line of the text is line 4 of the file.
    let line = 4;
    const expected = checks.map(([message, sql, reason]) => {
      const expectation = {
        line,
        message: `${message}.`,
        reason: reason.replace('LINE', String(line + sql.split('\n').length)),
      };
      line += sql.split('\n').length + 1;
      return expectation;
    });
    const text = checks.map(([message, sql]) => `--check: ${message}.\n--  ${sql}\n`).join('');
    const filename = copy.addMigration('more', `${text}\ncreate table public.more ();`);
    const [{ message, reason }] = expected as [(typeof expected)[number]];
    await expect(startRun(copy, database().url).ended).rejects.toMatchObject({
      code: 'MIGRATION_CHECK_FAILED',
      checks: expected.map((check) => ({ filename, ...check })),
      message: expect.stringContaining(`${filename}, line 4: the check "${message}" ${reason}.`),
    });
  });

  test('is refused when the check runs for too long, and the others are still evaluated', async () => {
    const slow = copy.addMigration('slow', '--check: Slow.\n--  select pg_sleep(600) is null\n\nselect 1;');
    const wrong = copy.addMigration('wrong', '--check: Wrong.\n--  select false\n\nselect 1;');
    const run = startRun(copy, database().url, { settings: { checkTimeoutMs: 100 } });
    await expect(run.ended).rejects.toMatchObject({
      code: 'MIGRATION_CHECK_FAILED',
      checks: [
        {
          filename: slow,
          reason: expect.stringContaining('after 0.1 s (FILESTORE_MIGRATION_CHECK_TIMEOUT_MS)'),
        },
        { filename: wrong, reason: null },
      ],
    });
  });

  test('that is malformed is refused before anything is applied', async () => {
    const filename = copy.addMigration('more', '--check:\n--  select true\n\ncreate table public.more ();');
    await expect(startRun(copy, database().url).ended).rejects.toMatchObject({
      code: 'MIGRATION_MALFORMED',
      filename,
      message: expect.stringContaining('line 4 is a check without a message'),
    });
    expect(await database().query("select to_regclass('public.more') as more")).toEqual([{ more: null }]);
  });

  test('stops on request while the check runs, and leaves nothing on the server', async () => {
    copy.addMigration('slow', '--check: Slow.\n--  select pg_sleep(600) is null\n\nselect 1;');
    const stop = new AbortController();
    const run = startRun(copy, database().url, { signal: stop.signal });
    const sleeping = () =>
      database().query(
        "select from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid() and datname = current_database()",
      );
    await until(async () => (await sleeping()).length > 0);
    stop.abort();
    await expect(run.ended).rejects.toMatchObject({ code: 'RUN_ABORTED', applied: [] });
    await until(async () => (await sleeping()).length === 0);
  });
});

describe('a check of what an earlier pending migration creates', () => {
  const CREATE = 'create table public.items (id integer, owner text);';

  test.each([
    ['in a transaction', NOT_NULL],
    [
      'without a transaction',
      `--! no-transaction\n${OWNERS}create index concurrently items_owner_idx on public.items (owner);`,
    ],
  ])('is evaluated after that one, %s', async (_, sql) => {
    const created = copy.addMigration('items', CREATE);
    const checked = copy.addMigration('owners', sql);
    const after = copy.addMigration('after', 'create table public.after ();');
    const dryRun = await command(['migrate', '--dry-run'], database().url, { folder: copy.folder });
    expect(dryRun.exitCode).toBe(0);
    expect(dryRun.stderr).toMatch(
      new RegExp(
        `^LATER  ${checked}, line \\d: the check fails .*relation "public.items" does not exist`,
        'm',
      ),
    );
    const run = startRun(copy, database().url);
    const { applied, attempts } = await run.ended;
    expect(applied.map(({ filename }) => filename)).toEqual([created, checked, after]);
    expect(attempts).toBe(1);
    const told = run.events
      .filter(({ type }) => type !== 'span')
      .map((event) => ('filename' in event ? `${event.type} ${event.filename}` : event.type));
    expect(told).toEqual([
      'plan',
      ...[created, checked, after].flatMap((name) => [`migration-start ${name}`, `migration-end ${name}`]),
    ]);
  });

  test('is refused then, and what was applied before it stays', async () => {
    const created = copy.addMigration('items', `${CREATE}\ninsert into public.items values (1, null);`);
    const checked = copy.addMigration('owners', NOT_NULL);
    await expect(startRun(copy, database().url).ended).rejects.toMatchObject({
      code: 'MIGRATION_CHECK_FAILED',
      checks: [{ filename: checked, reason: null }],
      applied: [created],
      message: expect.stringContaining(`Applied before: ${created}.`),
    });
    await database().query("update public.items set owner = 'ann'");
    const run = startRun(copy, database().url);
    expect((await run.ended).applied).toMatchObject([{ filename: checked }]);
    expect(eventsOf(run, 'plan')[0]?.pending).toEqual([checked]);
  });

  test('is refused when that one does not create it', async () => {
    const first = copy.addMigration('first', 'create table public.first ();');
    const checked = copy.addMigration('owners', NOT_NULL);
    await expect(startRun(copy, database().url).ended).rejects.toMatchObject({
      code: 'MIGRATION_CHECK_FAILED',
      checks: [{ filename: checked, reason: expect.stringContaining('"public.items" does not exist') }],
      applied: [first],
    });
    expect(committedMigrations(copy.folder)).toContain(checked);
  });
});
