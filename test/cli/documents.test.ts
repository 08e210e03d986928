import { describe, expect, test } from 'vitest';
import { command, jsonCommand } from '../support/command-line/answers.ts';
import { collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { forgetLast as forgetLastOf } from '../support/databases/fleet-databases.ts';
import { takePicture } from '../support/databases/picture.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import {
  committedMigrations,
  isTransactional,
  migrationNumber,
  migrationText,
  numberAfterLast,
} from '../support/packages/committed-files.ts';

const database = databaseForEachTest();
const files = committedMigrations();
const last = files.at(-1) ?? '';
const recorded = files.map((filename) => `${migrationNumber(filename)}.sql`);
const forgetLast = () => forgetLastOf(database());

/** Enough to recognize the SQL of a migration. */
const lastLineOf = (text: string) => text.trimEnd().split('\n').at(-1) ?? '';

const HASH = expect.stringMatching(/^sha1:[0-9a-f]{40}$/);
const MILLISECONDS = expect.any(Number);
const VERSION = expect.stringMatching(/^\d+/);

describe('with --json, stdout is one document:', () => {
  test('of migrate, the report', async () => {
    await forgetLast();
    const { exitCode, document, stderr } = await jsonCommand(['migrate'], database().url);
    expect({ exitCode, document }).toEqual({
      exitCode: 0,
      document: {
        ok: true,
        command: 'migrate',
        report: {
          applied: [{ filename: last, message: expect.any(String), hash: HASH, durationMs: MILLISECONDS }],
          alreadyApplied: files.length - 1,
          database: database().name,
          serverVersion: VERSION,
          waitedForLockMs: MILLISECONDS,
          attempts: 1,
          lockTimeouts: { count: 0, totalMs: 0, longestMs: 0 },
          schema: { state: 'same', notes: expect.any(Array) },
          durationMs: MILLISECONDS,
        },
      },
    });
    expect(stderr).toContain(`OK  ${last}  (`);
  });

  test('of migrate with nothing to do, the report too', async () => {
    const { exitCode, document } = await jsonCommand(['migrate'], database().url);
    expect({ exitCode, document }).toMatchObject({
      exitCode: 0,
      document: {
        ok: true,
        report: { applied: [], alreadyApplied: files.length, schema: { state: 'unchecked' } },
      },
    });
  });

  test('of migrate --dry-run, the SQL that would run, and nothing is applied', async () => {
    await forgetLast();
    const before = await takePicture(database());
    const { exitCode, document } = await jsonCommand(['migrate', '--dry-run'], database().url);
    expect({ exitCode, document }).toEqual({
      exitCode: 0,
      document: {
        ok: true,
        command: 'migrate',
        dryRun: true,
        pending: [
          {
            filename: last,
            message: expect.any(String),
            sql: expect.stringContaining(lastLineOf(migrationText(last))),
            transaction: isTransactional(last),
            checks: [],
          },
        ],
      },
    });
    expect(await takePicture(database())).toEqual(before);
  });

  test.each([
    ['current', async () => undefined, 0],
    ['pending', forgetLast, 3],
    ['empty', () => database().query('truncate graphile_migrate.migrations'), 3],
    [
      'diverged',
      () =>
        database().query(
          `update graphile_migrate.migrations set filename = '${numberAfterLast(1)}.sql' where filename = $1`,
          [recorded.at(-1)],
        ),
      4,
    ],
    [
      'ahead',
      () =>
        database().query(
          `insert into graphile_migrate.migrations (filename, hash, previous_hash)
           select '${numberAfterLast(1)}.sql', 'sha1:77', hash from graphile_migrate.migrations where filename = $1`,
          [recorded.at(-1)],
        ),
      4,
    ],
  ])('of status of a database that is %s', async (state, prepare, exitCode) => {
    await prepare();
    const found = await jsonCommand(['status'], database().url);
    expect({ exitCode: found.exitCode, document: found.document }).toEqual({
      exitCode,
      document: {
        ok: true,
        command: 'status',
        database: database().name,
        state,
        applied: expect.any(Array),
        pending: { pending: [last], empty: files }[state] ?? [],
        problems: ['ahead', 'diverged'].includes(state) ? [expect.any(String)] : [],
        serverVersion: VERSION,
        standby: false,
        migrators: [],
      },
    });
    for (const row of found.document.applied as readonly unknown[]) {
      expect(row).toEqual({
        filename: expect.stringMatching(/^\d{6}\.sql$/),
        hash: expect.stringMatching(/^sha1:/),
        previousHash: expect.toSatisfy((hash) => hash === null || /^sha1:/.test(hash)),
        appliedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      });
    }
  });

  test('of verify, that nothing differs', async () => {
    const { exitCode, document } = await jsonCommand(['verify'], database().url);
    expect({ exitCode, document }).toEqual({
      exitCode: 0,
      document: {
        ok: true,
        command: 'verify',
        database: database().name,
        state: 'same',
        notes: expect.any(Array),
      },
    });
  });
});

test('migrate --dry-run with nothing to do reports that', async () => {
  expect(await command(['migrate', '--dry-run'], database().url)).toMatchObject({
    exitCode: 0,
    stdout: '',
    stderr: expect.stringContaining(': 0 migrations to apply. Nothing was changed.\n'),
  });
});

/** Closes stdout early, like `… | head -1`. */
async function unread(args: readonly string[], url: string) {
  const child = startCli(args, { env: { DATABASE_URL: url } });
  child.stdout?.destroy();
  return collect(child);
}

describe('a reader that closes the pipe', () => {
  test('does not stop a migration', async () => {
    await forgetLast();
    expect(await unread(['migrate'], database().url)).toMatchObject({ exitCode: 0 });
    expect((await jsonCommand(['status'], database().url)).document).toMatchObject({ state: 'current' });
  });

  test.each([[['status', '--json']], [['migrate', '--dry-run']]])(
    'changes nothing about %j',
    async (args) => {
      await forgetLast();
      const { exitCode, stderr } = await unread(args, database().url);
      const read = await runCli(args, { env: { DATABASE_URL: database().url } });
      expect({ exitCode, stderr }).toEqual({ exitCode: read.exitCode, stderr: read.stderr });
    },
  );
});

describe('in a new database', () => {
  const emptyDatabase = databaseForEachTest('empty');

  test('migrate --dry-run prints only the SQL of each migration on stdout, and creates nothing', async () => {
    const { exitCode, stdout, stderr } = await command(['migrate', '--dry-run'], emptyDatabase().url);
    expect(exitCode).toBe(0);
    expect(stderr).toMatch(new RegExp(`: ${files.length} migrations to apply\\. Nothing was changed\\.\\n$`));
    expect(
      [...stdout.matchAll(/^-- (\d{6}-\S+) \((in a|without a) transaction\)$/gm)].map(([, filename, how]) => [
        filename,
        how,
      ]),
    ).toEqual(files.map((filename) => [filename, isTransactional(filename) ? 'in a' : 'without a']));
    expect(await takePicture(emptyDatabase())).toEqual({ catalog: [], relations: [], rows: {} });

    // Run by hand, this SQL creates the same schema as the migrations.
    for (const sql of stdout.split(/^(?=-- \d{6}-\S+ \()/m)) await emptyDatabase().query(sql);
    const { catalog } = await takePicture(emptyDatabase());
    expect(catalog).toEqual((await takePicture(database())).catalog);
  });
});
