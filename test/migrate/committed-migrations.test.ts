import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { type AppliedMigration, planMigrations } from '../../src/migrate/plan.ts';

const requireGraphile = createRequire(import.meta.url);
const { calculateHash } = requireGraphile('graphile-migrate/dist/hash.js') as {
  calculateHash: (body: string, previousHash: string | null) => string;
};

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'filestore-history-'));
  mkdirSync(join(folder, 'committed'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Writes migrations as graphile-migrate would commit them, and returns their hashes. */
function commit(...bodies: readonly string[]): readonly string[] {
  const hashes: string[] = [];
  bodies.forEach((body, index) => {
    const previous = hashes.at(-1) ?? null;
    const hash = calculateHash(body, previous);
    hashes.push(hash);
    write(
      index + 1,
      `--! Previous: ${previous ?? '-'}\n--! Hash: ${hash}\n--! Message: step ${index + 1}\n\n${body.trim()}\n`,
    );
  });
  return hashes;
}

const name = (number: number) => `${String(number).padStart(6, '0')}-step.sql`;
const write = (number: number, text: string) => writeFileSync(join(folder, 'committed', name(number)), text);

const row = (number: number, hash: string, previousHash: string | null = null): AppliedMigration => ({
  filename: `${String(number).padStart(6, '0')}.sql`,
  hash,
  previousHash,
  appliedAt: new Date(0),
});

describe('reading the committed migrations', () => {
  test('returns the chain of files in order, and ignores other files', async () => {
    const hashes = commit('select 1;', '\n\nselect 2;\n\n', '--! no-transaction\nselect 3;');
    writeFileSync(join(folder, 'committed', 'README.md'), 'not a migration');
    const files = await readCommittedMigrations(folder);
    expect(files.map(({ hash }) => hash)).toEqual(hashes);
    expect(files[1]).toMatchObject({
      filename: name(2),
      recordedName: '000002.sql',
      previousHash: hashes[0],
      message: 'step 2',
    });
  });

  test.each([
    [
      'an edited file',
      'MIGRATION_EDITED',
      () => write(2, '--! Previous: sha1:00\n--! Hash: sha1:00\n\nselect 9;\n'),
      'edited',
    ],
    [
      'CRLF line ends',
      'MIGRATION_CRLF',
      () => write(2, '--! Previous: -\r\n--! Hash: sha1:00\r\n\r\nselect 9;\r\n'),
      'CRLF',
    ],
    ['a file without header', 'MIGRATION_MALFORMED', () => write(2, 'select 9;\n'), 'header'],
    [
      'a second file of the same number',
      'MIGRATION_NUMBER_TAKEN',
      () =>
        writeFileSync(
          join(folder, 'committed', '000001-another.sql'),
          `--! Previous: -\n--! Hash: ${calculateHash('x', null)}\n\nx\n`,
        ),
      'same number',
    ],
    [
      'a file whose header names another predecessor',
      'MIGRATION_OUT_OF_CHAIN',
      () => write(4, `--! Previous: sha1:77\n--! Hash: ${calculateHash('x', 'sha1:77')}\n\nx\n`),
      'does not follow',
    ],
    [
      'an invalid hash, allowed or not',
      'MIGRATION_MALFORMED',
      () => write(4, '--! Previous: -\n--! Hash: sha1:00\n--! AllowInvalidHash\n\nx\n'),
      'invalid hash',
    ],
    [
      'a missing file',
      'MIGRATION_FILE_MISSING',
      () => rmSync(join(folder, 'committed', name(2))),
      'Migration 000002 is missing: 000003-step.sql follows it, and 000001-step.sql comes before it',
    ],
    [
      'a gap at the start',
      'MIGRATION_FILE_MISSING',
      () => rmSync(join(folder, 'committed', name(1))),
      'Migration 000001 is missing: 000002-step.sql follows it, and no file comes before it',
    ],
    [
      'a renumbered file',
      'MIGRATION_OUT_OF_CHAIN',
      () => renameSync(join(folder, 'committed', name(2)), join(folder, 'committed', name(4))),
      'renumbered',
    ],
  ])('refuses %s', async (_, code, spoil, reason) => {
    commit('select 1;', 'select 2;', 'select 3;');
    spoil();
    await expect(readCommittedMigrations(folder)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(reason),
      filename: expect.stringMatching(/\.sql$/),
    });
  });

  test.each(['committed', ''])('refuses a folder with nothing in it (%j missing)', async (missing) => {
    if (missing !== '') rmSync(join(folder, missing), { recursive: true });
    await expect(readCommittedMigrations(folder)).rejects.toMatchObject({ code: 'MIGRATIONS_MISSING' });
  });
});

describe('the plan', () => {
  const plan = async (makeRows: (hashes: readonly string[]) => readonly AppliedMigration[]) => {
    const hashes = commit('select 1;', 'select 2;', 'select 3;');
    return planMigrations(await readCommittedMigrations(folder), makeRows(hashes));
  };
  const [h1, h2, h3] = [0, 1, 2].map((index) => (hashes: readonly string[]) => hashes[index] ?? '') as [
    (hashes: readonly string[]) => string,
    (hashes: readonly string[]) => string,
    (hashes: readonly string[]) => string,
  ];

  test('for a new database has all migrations', async () => {
    expect(await plan(() => [])).toMatchObject({ state: 'empty', pending: [{}, {}, {}] });
  });

  test('for a database that has some has the others', async () => {
    expect(await plan((h) => [row(1, h1(h))])).toMatchObject({
      state: 'pending',
      pending: [{ filename: name(2) }, { filename: name(3) }],
    });
  });

  test('for a database that has all is empty, in any order of its rows', async () => {
    expect(await plan((h) => [row(3, h3(h)), row(1, h1(h)), row(2, h2(h))])).toEqual({ state: 'current' });
  });

  const all = (h: readonly string[]) => h.map((hash, index) => row(index + 1, hash));

  test('names the migrations of a later version', async () => {
    expect(
      await plan((h) => [...all(h), row(4, 'sha1:44', h3(h)), row(5, 'sha1:55', 'sha1:44')]),
    ).toMatchObject({
      state: 'ahead',
      unknown: [{ filename: '000004.sql' }, { filename: '000005.sql' }],
    });
  });

  test.each([
    [
      'other content',
      (h: readonly string[]) => [row(1, 'sha1:99'), row(2, h2(h))],
      [['HISTORY_REWRITTEN', /^000001-step\.sql was applied with other content/]],
    ],
    [
      'another number',
      (h: readonly string[]) => [row(2, h1(h))],
      [['HISTORY_RENUMBERED', /under another number, as 000002\.sql/]],
    ],
    [
      'a foreign history',
      () => [row(1, 'sha1:98'), row(7, 'sha1:99')],
      [['HISTORY_FOREIGN', /000001\.sql \(sha1:98\), 000007\.sql/]],
    ],
    [
      'a missing row',
      (h: readonly string[]) => [row(1, h1(h)), row(3, h3(h))],
      [['HISTORY_ROW_MISSING', /^000002-step\.sql is not recorded/]],
    ],
    [
      'an extra row between those of the files',
      (h: readonly string[]) => [...all(h), { ...row(2, 'sha1:77', h2(h)), filename: '000002a.sql' }],
      [['HISTORY_ROW_UNKNOWN', /000002a\.sql \(sha1:77\)/]],
    ],
    [
      'an extra row at the end that does not continue the chain',
      (h: readonly string[]) => [...all(h), row(4, 'sha1:44', h1(h))],
      [['HISTORY_ROW_UNKNOWN', /000004\.sql .* does not continue them/]],
    ],
    [
      'several problems',
      (h: readonly string[]) => [row(1, 'sha1:99'), row(3, h3(h)), row(9, h2(h))],
      [
        ['HISTORY_REWRITTEN', /000001/],
        ['HISTORY_RENUMBERED', /as 000009\.sql/],
      ],
    ],
  ] as const)('lists where the database diverged: %s', async (_, makeRows, problems) => {
    expect(await plan(makeRows)).toEqual({
      state: 'diverged',
      problems: problems.map(([code, words]) => ({
        code,
        description: expect.stringMatching(words),
        remedy: expect.stringMatching(/[.;]$/),
      })),
    });
  });
});
