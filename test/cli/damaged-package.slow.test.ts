import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { MODEL_FILE } from '../../src/catalog/committed-model.ts';
import { askFunctionsOf, command, jsonCommand } from '../support/command-line/answers.ts';
import { type Picture, takePicture } from '../support/databases/picture.ts';
import { createDatabase, databaseForEachTest } from '../support/databases/test-database.ts';
import {
  committedMigrations,
  migrationNumber,
  numberAfterLast,
} from '../support/packages/committed-files.ts';
import { createMount, createNode } from '../support/rows/nodes.ts';

const database = databaseForEachTest();
const files = committedMigrations();
const [first = ''] = files;
const last = files.at(-1) ?? '';
/** A copy gets three more migrations, so that the middle one always has neighbours. */
const added = ['more', 'middle', 'most'].map((name, index) => `${numberAfterLast(index + 1)}-${name}.sql`);
const [more = '', middle = '', most = ''] = added;
const FAR = `${numberAfterLast(9)}-renumbered.sql`;

let copy: PackageCopy;
let before: Picture;

beforeEach(async () => {
  copy = copyPackage();
  const mount = await createMount(database());
  await createNode(database(), mount, mount.rootId, 'kept.txt');
  before = await takePicture(database());
});
afterEach(() => copy.remove());

const pathOf = (filename: string) => join(copy.folder, 'migrations', 'committed', filename);
const rewrite = (filename: string, change: (text: string) => string) =>
  writeFileSync(pathOf(filename), change(readFileSync(pathOf(filename), 'utf8')));

/** A title, the damage, the code of the error, and parts of its message: the file, the reason and the remedy. */
const DAMAGES: readonly (readonly [string, () => void, string, ...(string | RegExp)[]])[] = [
  [
    'an edited file',
    () => appendFileSync(pathOf(middle), '\nselect 1;\n'),
    'MIGRATION_EDITED',
    `${middle} was edited after it was committed`,
    /Restore it from version control, and write the change as a new migration/,
  ],
  [
    'a missing file in the middle',
    () => rmSync(pathOf(middle)),
    'MIGRATION_FILE_MISSING',
    `Migration ${migrationNumber(middle)} is missing: ${most} follows it, and ${more} comes before it`,
    /Restore the folder from version control, or install the package again/,
  ],
  [
    'a missing file at the start',
    () => rmSync(pathOf(first)),
    'MIGRATION_FILE_MISSING',
    `Migration ${migrationNumber(first)} is missing: ${files[1] ?? more} follows it`,
    /install the package again/,
  ],
  [
    'a missing last file, which the model of the schema names',
    () => rmSync(pathOf(most)),
    'MIGRATION_FILE_MISSING',
    `Migration ${most} is missing`,
    /install the package again/,
  ],
  [
    'a renumbered file',
    () => renameSync(pathOf(middle), pathOf(FAR)),
    'MIGRATION_OUT_OF_CHAIN',
    `Migration ${most} follows ${FAR} by its header, but ${more} by its number`,
    /Restore its number/,
  ],
  [
    'a rewritten file with a valid hash, followed by the old ones',
    () => copy.rewriteMigration(middle, 'select 2;'),
    'MIGRATION_OUT_OF_CHAIN',
    `Migration ${most} does not follow ${middle}: one of them was rewritten`,
    /Restore the folder from version control/,
  ],
  [
    'two files of one number',
    () => copyFileSync(pathOf(middle), pathOf(`${migrationNumber(middle)}-zzz.sql`)),
    'MIGRATION_NUMBER_TAKEN',
    `${middle} and ${migrationNumber(middle)}-zzz.sql have the same number`,
    /give yours the next number: npm run db:uncommit -- --migration/,
  ],
  [
    'a file with CRLF line ends',
    () => rewrite(middle, (text) => text.replaceAll('\n', '\r\n')),
    'MIGRATION_CRLF',
    `${middle} has CRLF line ends`,
    /with LF \(see \.gitattributes\)/,
  ],
  [
    'a file without its hash',
    () => rewrite(middle, (text) => text.replace(/^--! Hash: .*\n/m, '')),
    'MIGRATION_MALFORMED',
    `${middle} has no valid header`,
    /Restore it from version control/,
  ],
  [
    'a file with a byte order mark',
    () => rewrite(middle, (text) => `\ufeff${text}`),
    'MIGRATION_MALFORMED',
    `${middle} has no valid header`,
    /Restore it from version control/,
  ],
  [
    'a folder instead of a file',
    () => {
      rmSync(pathOf(middle));
      mkdirSync(pathOf(middle));
    },
    'MIGRATION_MALFORMED',
    `${middle} cannot be read`,
    /install it again, or restore it from version control/,
  ],
];

describe('every command refuses a package, and does not touch the database, when it has', () => {
  beforeEach(() => {
    for (const filename of added) copy.addMigration(filename.slice(7, -4), 'select 1;');
    copy.modelIsOf(most);
  });

  test.each(DAMAGES.map(([title, damage, code, ...words]) => [title, { damage, code, words }] as const))(
    '%s',
    async (_title, { damage, code, words }) => {
      damage();
      const [answers, migrate] = await Promise.all([
        askFunctionsOf(copy.folder, database().url),
        command(['migrate'], database().url, { folder: copy.folder }),
      ]);
      for (const answer of Object.values(answers)) expect(answer).toMatchObject({ code });
      expect(migrate).toMatchObject({
        exitCode: 4,
        stdout: expect.stringMatching(/^Using .*\n$/),
        stderr: expect.stringContaining(`${code}: `),
      });
      for (const part of words) expect(migrate.stderr).toMatch(part);
      expect(migrate.stderr).not.toMatch(/^\s+at /m);
      expect(await takePicture(database())).toEqual(before);
    },
  );

  test.each([['migrate'], ['migrate', '--dry-run'], ['status'], ['verify']])(
    'an edited file: %s %s prints one document and has exit code 4',
    async (...args) => {
      appendFileSync(pathOf(middle), '\nselect 1;\n');
      expect(await jsonCommand(args, database().url, { folder: copy.folder })).toMatchObject({
        exitCode: 4,
        document: { ok: false, command: args[0], error: { code: 'MIGRATION_EDITED', filename: middle } },
      });
    },
  );
});

describe('nothing is applied to a new database', () => {
  const emptyDatabase = databaseForEachTest('empty');
  const expectUntouched = async () => {
    expect(await takePicture(emptyDatabase())).toEqual({ catalog: [], relations: [], rows: {} });
  };

  test('by a package without any file', async () => {
    for (const filename of files) rmSync(pathOf(filename));
    const answers = await askFunctionsOf(copy.folder, emptyDatabase().url);
    for (const answer of Object.values(answers)) expect(answer).toMatchObject({ code: 'MIGRATIONS_MISSING' });
    expect(await command(['migrate'], emptyDatabase().url, { folder: copy.folder })).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/MIGRATIONS_MISSING: There is no committed migration in .*Install/),
    });
    await expectUntouched();
  });

  test('by a package that has lost its last file', async () => {
    rmSync(pathOf(last));
    expect(await command(['migrate'], emptyDatabase().url, { folder: copy.folder })).toMatchObject({
      exitCode: 4,
      stderr: expect.stringContaining(`MIGRATION_FILE_MISSING: Migration ${last} is missing`),
    });
    await expectUntouched();
  });

  test.each([
    ['missing', () => rmSync(join(copy.folder, MODEL_FILE)), /The model of the schema cannot be read/],
    ['damaged', () => appendFileSync(join(copy.folder, MODEL_FILE), 'x'), /damaged or was edited/],
  ])(
    'by a package whose model of the schema is %s, since the result could not be checked',
    async (_, damage, why) => {
      damage();
      for (const args of [['migrate'], ['migrate', '--dry-run'], ['verify']]) {
        const target = args[0] === 'verify' ? database() : emptyDatabase();
        const { exitCode, stderr } = await command(args, target.url, { folder: copy.folder });
        expect({ args, exitCode, stderr }).toEqual({
          args,
          exitCode: 1,
          stderr: expect.stringMatching(/SCHEMA_MODEL_INVALID: .*(install it again|npm run db:docs)/s),
        });
        expect(stderr).toMatch(why);
      }
      await expectUntouched();
    },
  );
});

test('files with other content than the applied ones are reported as another history, not as damage', async () => {
  copy.removeLastMigration();
  const other = copy.addMigration('another-branch', 'select 1;');
  const { exitCode, document } = await jsonCommand(['migrate'], database().url, { folder: copy.folder });
  expect(exitCode).toBe(4);
  expect(document).toMatchObject({
    ok: false,
    error: {
      code: 'HISTORY_REWRITTEN',
      message: expect.stringContaining(`${other} was applied with other content`),
    },
  });
  expect(await takePicture(database())).toEqual(before);
});

test('files and a model that end earlier are reported as an older version', async () => {
  copy.removeLastMigration();
  expect(await command(['migrate'], database().url, { folder: copy.folder })).toMatchObject({
    exitCode: 4,
    stderr: expect.stringMatching(
      new RegExp(
        `^DATABASE_AHEAD: A later version .*: ${migrationNumber(last)}\\.sql is not among the files.*--allow-ahead`,
      ),
    ),
  });
  expect(await takePicture(database())).toEqual(before);
});

test('a last file with another number is reported as applied under the old number', async () => {
  renameSync(pathOf(last), pathOf(FAR));
  const { exitCode, stderr } = await command(['migrate'], database().url, { folder: copy.folder });
  expect(exitCode).toBe(4);
  expect(stderr).toMatch(`HISTORY_RENUMBERED: `);
  expect(stderr).toMatch(
    new RegExp(`${FAR} was applied under another number, as ${migrationNumber(last)}\\.sql`),
  );
  expect(stderr).toMatch(/Rename the file to that number/);
  expect(await takePicture(database())).toEqual(before);
});

test('a model that is older than the files is accepted, since it is generated after a commit', async () => {
  const fresh = await createDatabase('empty');
  try {
    const added = copy.addMigration('without-model', 'create table filestore.new_one ();');
    const migrate = await jsonCommand(['migrate'], fresh.url, { folder: copy.folder });
    expect(migrate).toMatchObject({
      exitCode: 0,
      stderr: expect.stringMatching(/^Warning: The schema was not checked: .*npm run db:docs/m),
      document: {
        ok: true,
        report: { schema: { state: 'unchecked', reason: expect.stringContaining(added) } },
      },
    });
    expect(await jsonCommand(['verify'], fresh.url, { folder: copy.folder })).toMatchObject({
      exitCode: 1,
      document: { ok: false, state: 'unchecked', reason: expect.stringContaining(added) },
    });
  } finally {
    await fresh.drop();
  }
});
