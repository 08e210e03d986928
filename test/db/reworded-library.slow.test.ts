import { afterEach, describe, expect, test } from 'vitest';
import type { MigrationEvent } from '../../src/index.ts';
import { command, jsonCommand } from '../support/command-line/answers.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import type { StagedPackage } from '../support/packages/staged-package.ts';
import { copyWithRewordedLibrary } from '../support/packages/staged-package.ts';

const database = databaseForEachTest();
let copy: StagedPackage | undefined;
afterEach(() => copy?.remove());

const migrate = (folder: string) => jsonCommand(['migrate'], database().url, { folder });

const LOG_LINE = ['Running migration', 'Applying migration'] as const;

describe.each([
  ['another line in its log', ...LOG_LINE],
  ['another name for the query that records a migration', 'name: "migration-insert"', 'name: "insert"'],
])('a graphile-migrate with %s', (_, text, other) => {
  test('applies, and the run reports what the history then has', async () => {
    copy = copyWithRewordedLibrary(text, other);
    const { exitCode, document, stderr } = await migrate(copy.folder);
    expect({ exitCode, document }).toMatchObject({
      exitCode: 0,
      document: {
        ok: true,
        report: {
          applied: copy.staged.map((filename) => ({ filename, durationMs: expect.any(Number) })),
          alreadyApplied: committedMigrations().length,
          attempts: 1,
          schema: { state: 'same' },
        },
      },
    });
    expect(stderr).toContain(
      `Warning: The installed graphile-migrate logs words that this package does not know. According to the history, it applied ${copy.staged.join(', ')}. `,
    );
  });

  test('and a migration that fails: the ones before it are reported as applied', async () => {
    copy = copyWithRewordedLibrary(text, other);
    copy.addMigration('broken', 'select 1 / 0;');
    const { exitCode, document } = await migrate(copy.folder);
    expect({ exitCode, document }).toMatchObject({
      exitCode: 1,
      document: {
        ok: false,
        error: {
          code: 'MIGRATION_FAILED',
          applied: copy.staged,
          sqlState: '22012',
          message: expect.stringContaining(`Applied before it: ${copy.staged.join(', ')}.`),
        },
      },
    });
  });
});

test('events and spans of migrations come late, but with their own durations', async () => {
  copy = copyWithRewordedLibrary(...LOG_LINE);
  const { stdout } = await command(['migrate', '--events'], database().url, { folder: copy.folder });
  const events = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as MigrationEvent);
  const ends = events.flatMap((event) => (event.type === 'migration-end' ? [event] : []));
  const spans = events.flatMap((event) => (event.type === 'span' ? [event] : []));
  const migrations = spans.filter(({ name }) => name === 'migration');
  expect(ends.map(({ filename }) => filename)).toEqual(copy.staged);
  expect(migrations).toMatchObject(ends.map(({ filename, durationMs }) => ({ filename, durationMs })));
  const run = spans.at(-1);
  const sum = migrations.reduce((total, { durationMs }) => total + durationMs, 0);
  expect(sum).toBeLessThan(run?.durationMs ?? 0);
  const starts = migrations.map(({ startedAtMs }) => startedAtMs);
  expect(starts).toEqual([...starts].sort((a, b) => a - b));
  expect(Math.min(...migrations.map(({ durationMs }) => durationMs))).toBeGreaterThan(0);
});

test('with another line in the log, no migration passes the checks of a later one', async () => {
  copy = copyWithRewordedLibrary(...LOG_LINE);
  const check = '--check: The third table is there.\n--  select count(*) = 0 from staged.third_ended\n';
  const checked = copy.addMigration('checked', `${check}create table staged.checked ();`);
  const { exitCode, document } = await migrate(copy.folder);
  expect({ exitCode, document }).toMatchObject({
    exitCode: 1,
    document: {
      error: {
        code: 'MIGRATION_FAILED',
        applied: [],
        message: expect.stringContaining(`cannot stop before ${checked} to evaluate its checks`),
      },
    },
  });
  expect(await database().query("select from pg_namespace where nspname = 'staged'")).toEqual([]);
});

test('a graphile-migrate that records nothing is an error, not a success', async () => {
  copy = copyWithRewordedLibrary('if (committedMigration) {', 'if (false) {');
  const { exitCode, document } = await migrate(copy.folder);
  expect({ exitCode, document }).toMatchObject({
    exitCode: 1,
    document: {
      ok: false,
      error: {
        code: 'MIGRATION_FAILED',
        applied: [],
        message: expect.stringMatching(
          new RegExp(`does not record ${copy.staged.join(', ')}\\..*Applied and kept: nothing\\.$`),
        ),
      },
    },
  });
});
