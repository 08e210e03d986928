import { afterEach, describe, expect, test } from 'vitest';
import { jsonCommand } from '../support/command-line/answers.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import type { StagedPackage } from '../support/packages/staged-package.ts';
import { copyWithRewordedLibrary } from '../support/packages/staged-package.ts';

const database = databaseForEachTest();
let copy: StagedPackage | undefined;
afterEach(() => copy?.remove());

const migrate = (folder: string) => jsonCommand(['migrate'], database().url, { folder });

describe.each([
  ['another line in its log', 'Running migration', 'Applying migration'],
  ['another name for the query that records a migration', 'name: "migration-insert"', 'name: "insert"'],
])('a graphile-migrate with %s', (_, text, other) => {
  test('applies, and each migration is reported', async () => {
    copy = copyWithRewordedLibrary(text, other);
    const { exitCode, document, stderr } = await migrate(copy.folder);
    const applied = copy.staged.map((filename) => ({ filename, durationMs: expect.any(Number) }));
    expect({ exitCode, document }).toMatchObject({
      exitCode: 0,
      document: { ok: true, report: { applied, attempts: 1, schema: { state: 'same' } } },
    });
    expect(stderr).not.toContain('Warning');
  });

  test('and a migration that fails: the ones before it are reported as applied', async () => {
    copy = copyWithRewordedLibrary(text, other);
    const broken = copy.addMigration('broken', 'select 1;\nselect 1 / 0;');
    const { exitCode, document } = await migrate(copy.folder);
    expect({ exitCode, document }).toMatchObject({
      exitCode: 1,
      document: {
        ok: false,
        error: {
          code: 'MIGRATION_FAILED',
          applied: copy.staged,
          sqlState: '22012',
          place: { filename: broken, statement: 2 },
          message: expect.stringContaining(`Applied before it: ${copy.staged.join(', ')}.`),
        },
      },
    });
  });

  test('stops before a migration whose check waits for an earlier one, and then applies it', async () => {
    copy = copyWithRewordedLibrary(text, other);
    const check = '--check: The third table is there.\n--  select count(*) = 0 from staged.third_ended\n';
    const checked = copy.addMigration('checked', `${check}create table staged.checked ();`);
    copy.modelIsOf(checked);
    const { exitCode, document } = await migrate(copy.folder);
    const applied = [...copy.staged, checked].map((filename) => ({ filename }));
    expect({ exitCode, document }).toMatchObject({ exitCode: 0, document: { report: { applied } } });
  });
});

test('a graphile-migrate that records nothing is an error, and applies no second migration', async () => {
  copy = copyWithRewordedLibrary('if (committedMigration) {', 'if (false) {');
  const { exitCode, document } = await migrate(copy.folder);
  const message = expect.stringContaining(`applied ${copy.staged[0]} and does not record it`);
  expect({ exitCode, document }).toMatchObject({
    exitCode: 1,
    document: { ok: false, error: { code: 'MIGRATION_FAILED', applied: [], message } },
  });
  const tables = "select tablename from pg_tables where schemaname = 'staged' order by tablename";
  expect(await database().query(tables)).toEqual([
    { tablename: 'first_begun' },
    { tablename: 'first_ended' },
  ]);
});

test('a graphile-migrate without a function that the run replaces is an error, and applies nothing', async () => {
  copy = copyWithRewordedLibrary('exports.runCommittedMigration = runCommittedMigration', 'void 0');
  const { exitCode, document } = await migrate(copy.folder);
  const message = expect.stringContaining('has no function runCommittedMigration in dist/migration.js');
  expect({ exitCode, document }).toMatchObject({
    exitCode: 1,
    document: { ok: false, error: { code: 'MIGRATION_FAILED', applied: [], message } },
  });
  expect(await database().query("select from pg_namespace where nspname = 'staged'")).toEqual([]);
});

test('a library that fails after the commit: the migration counts as applied', async () => {
  const commit = 'await pgClient.query("commit");';
  copy = copyWithRewordedLibrary(commit, `${commit} throw new Error("lost");`);
  const { exitCode, document } = await migrate(copy.folder);
  const [first] = copy.staged;
  const message = `The migrations could not be applied: lost. Applied before it: ${first}.`;
  expect({ exitCode, document }).toMatchObject({
    exitCode: 1,
    document: {
      error: { code: 'MIGRATION_FAILED', applied: [first], message: expect.stringContaining(message) },
    },
  });
});
