import { beforeEach, describe, expect, test } from 'vitest';
import { askFunctions, command, jsonCommand } from '../support/command-line/answers.ts';
import { takePicture } from '../support/databases/picture.ts';
import { databaseForEachTest, withoutTriggers } from '../support/databases/test-database.ts';
import {
  committedMigrations,
  migrationNumber,
  numberAfterLast,
} from '../support/packages/committed-files.ts';
import { createMount, createNode, one } from '../support/rows/nodes.ts';

const database = databaseForEachTest();
const files = committedMigrations();
const last = files.at(-1) ?? '';
/** The second last, and the one before it if there is one. */
const middle = files.at(-2) ?? '';
const earlier = files.at(-3) ?? middle;
const NEXT = `${numberAfterLast(1)}.sql`;
const NEXT_BUT_ONE = `${numberAfterLast(2)}.sql`;
const rowOf = (filename: string) => `${migrationNumber(filename)}.sql`;

beforeEach(async () => {
  const mount = await createMount(database());
  await createNode(database(), mount, mount.rootId, 'kept.txt');
});

const hashOf = async (filename: string) =>
  (
    await one(database(), 'select hash from graphile_migrate.migrations where filename = $1', [
      rowOf(filename),
    ])
  ).hash;
const insertRow = (filename: string, hash: string, previous: string | null) =>
  database().query(
    'insert into graphile_migrate.migrations (filename, hash, previous_hash) values ($1, $2, $3)',
    [filename, hash, previous],
  );
/** Runs SQL without the foreign key between a row and the previous one, as a partial restore does. */
async function unguarded(statement: string): Promise<void> {
  await withoutTriggers(database(), (client) => client.query(statement));
}

/** A title, the change of the rows, the code of the error, and parts of its message: the row, the reason and the remedy. */
const DIVERGED: readonly (readonly [string, () => Promise<unknown>, string, ...(string | RegExp)[]])[] = [
  [
    'a row of other content',
    () =>
      unguarded(
        `update graphile_migrate.migrations set hash = 'sha1:00' where filename = '${rowOf(middle)}'`,
      ),
    'HISTORY_REWRITTEN',
    `${middle} was applied with other content: the database has sha1:00`,
    /Check whether this is the right database, or deploy the version of the package that migrated it/,
  ],
  [
    'an extra row between those of the files',
    async () => insertRow(`${migrationNumber(earlier)}a.sql`, 'sha1:77', await hashOf(earlier)),
    'HISTORY_ROW_UNKNOWN',
    `the database has ${migrationNumber(earlier)}a.sql (sha1:77), which is not among the files`,
    /delete it from graphile_migrate\.migrations/,
  ],
  [
    'an extra row after those of the files that does not continue the chain',
    async () => insertRow('000900.sql', 'sha1:77', await hashOf(earlier)),
    'HISTORY_ROW_UNKNOWN',
    '000900.sql (sha1:77), which is not among the files and does not continue them',
    /Deploy the version of the package that applied it/,
  ],
  [
    'a row less',
    () => unguarded(`delete from graphile_migrate.migrations where filename = '${rowOf(middle)}'`),
    'HISTORY_ROW_MISSING',
    `${middle} is not recorded as applied, but later ones are`,
    /record it: insert into graphile_migrate\.migrations/,
  ],
  [
    'a row of another number',
    () =>
      database().query(
        `update graphile_migrate.migrations set filename = '${NEXT}' where filename = '${rowOf(last)}'`,
      ),
    'HISTORY_RENUMBERED',
    `${last} was applied under another number, as ${NEXT}`,
    /Rename the file to that number/,
  ],
  [
    'the rows of another service',
    () =>
      unguarded(
        `delete from graphile_migrate.migrations;
         insert into graphile_migrate.migrations (filename, hash) values ('000001.sql', 'sha1:11'), ('000002.sql', 'sha1:22')`,
      ),
    'HISTORY_FOREIGN',
    /it has only migrations of another package: 000001\.sql \(sha1:11\), 000002\.sql \(sha1:22\)/,
    /Check whether this is the right database.*cannot share one/,
  ],
];

describe('a database whose history differs from the files is refused and not touched, for', () => {
  test.each(DIVERGED.map(([title, spoil, code, ...words]) => [title, { spoil, code, words }] as const))(
    '%s',
    async (_title, { spoil, code, words }) => {
      await spoil();
      const before = await takePicture(database());
      const { migrationStatus, ...answers } = await askFunctions(database().url);
      for (const answer of Object.values(answers)) {
        expect(answer).toMatchObject({ code, problems: [{ code }] });
      }
      expect(migrationStatus).toMatchObject({ value: { state: 'diverged', pending: [] } });

      const [migrate, status] = await Promise.all([
        command(['migrate', '--allow-ahead'], database().url),
        command(['status', '--allow-ahead'], database().url),
      ]);
      expect(migrate).toMatchObject({ exitCode: 4, stdout: expect.stringMatching(/^Using .*\n$/) });
      expect(migrate.stderr).toMatch(new RegExp(`^${code}: .*"${database().name}".*Nothing was changed\\.`));
      for (const part of words) expect(migrate.stderr).toMatch(part);
      expect(status).toMatchObject({ exitCode: 4, stdout: expect.stringMatching(/: diverged\n/) });
      for (const part of words) expect(status.stdout.match(/^PROBLEM .*$/m)?.[0]).toMatch(part);
      expect(await takePicture(database())).toEqual(before);
    },
  );

  test.each([[['migrate', '--dry-run']], [['verify']]])(
    'a row with other content, by %j too',
    async (args) => {
      await DIVERGED[0]?.[1]();
      expect(await jsonCommand(args, database().url)).toMatchObject({
        exitCode: 4,
        document: { ok: false, command: args[0], error: { code: 'HISTORY_REWRITTEN' } },
      });
    },
  );

  test('several reasons, and each is listed', async () => {
    await unguarded(
      `update graphile_migrate.migrations set hash = 'sha1:00' where filename = '${rowOf(earlier)}'`,
    );
    await insertRow('000900.sql', 'sha1:77', await hashOf(middle));
    const { document, stderr } = await jsonCommand(['migrate'], database().url);
    expect(document).toMatchObject({
      ok: false,
      error: {
        code: 'HISTORY_REWRITTEN',
        problems: [
          { code: 'HISTORY_REWRITTEN', description: expect.stringContaining(earlier) },
          { code: 'HISTORY_ROW_UNKNOWN', description: expect.stringContaining('000900.sql') },
        ],
      },
    });
    expect(stderr).toMatch(
      /deploy the version of the package that migrated it.* Deploy the version of the package that applied it/,
    );
  });
});

test('the statement in the message restores a missing row', async () => {
  const rows = () =>
    database().query(
      'select filename, hash, previous_hash from graphile_migrate.migrations order by filename',
    );
  const before = await rows();
  await unguarded(`delete from graphile_migrate.migrations where filename = '${rowOf(middle)}'`);
  const { stderr } = await command(['migrate'], database().url);
  await database().query(/insert into graphile_migrate\.migrations .*?;/.exec(stderr)?.[0] ?? 'no statement');
  expect(await rows()).toEqual(before);
  expect(await command(['verify'], database().url)).toMatchObject({ exitCode: 0 });
});

describe('a database that a later version has migrated', () => {
  beforeEach(async () => {
    await insertRow(NEXT, 'sha1:77', await hashOf(last));
    await insertRow(NEXT_BUT_ONE, 'sha1:88', 'sha1:77');
  });

  test('is not migrated, and services may use it', async () => {
    const before = await takePicture(database());
    expect(await askFunctions(database().url)).toMatchObject({
      runMigrations: { code: 'DATABASE_AHEAD', unknown: [NEXT, NEXT_BUT_ONE] },
      pendingMigrations: { code: 'DATABASE_AHEAD' },
      migrationStatus: {
        value: {
          state: 'ahead',
          pending: [],
          problems: [
            expect.stringMatching(new RegExp(`^${NEXT} .*Deploy that version`)),
            expect.stringMatching(new RegExp(`^${NEXT_BUT_ONE}`)),
          ],
        },
      },
      verifySchema: {
        value: {
          state: 'unchecked',
          reason: expect.stringMatching(
            new RegExp(`later version .*\\(${NEXT}, ${NEXT_BUT_ONE}\\).*with that version`),
          ),
        },
      },
      assertMigrated: { value: undefined },
    });
    expect(await takePicture(database())).toEqual(before);
  });

  test.each([
    [['migrate'], 4],
    [['migrate', '--dry-run'], 4],
    [['migrate', '--allow-ahead'], 0],
    [['migrate', '--dry-run', '--allow-ahead'], 0],
    [['status'], 4],
    [['status', '--allow-ahead'], 0],
    [['verify'], 1],
  ])('%j has exit code %i, names the rows, and changes nothing', async (args, exitCode) => {
    const before = await takePicture(database());
    const result = await command(args, database().url);
    expect(result).toMatchObject({
      exitCode,
      output: expect.stringMatching(new RegExp(`${NEXT}.*${NEXT_BUT_ONE}`, 's')),
    });
    expect(await takePicture(database())).toEqual(before);
  });

  test('the document of --allow-ahead lists the unknown migrations of the database', async () => {
    expect((await jsonCommand(['migrate', '--allow-ahead'], database().url)).document).toEqual({
      ok: true,
      command: 'migrate',
      ahead: [NEXT, NEXT_BUT_ONE],
    });
  });
});
