import { cpSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { chain } from '../../dev/check/gates/chain.ts';
import { currentEmpty } from '../../dev/check/gates/current-empty.ts';
import { fixtureTexts } from '../../dev/check/gates/fixture-texts.ts';
import { COMMITTED, isSource } from '../../dev/sources/sources.ts';
import {
  committedMigrations,
  migrationNumber,
  numberAfterLast,
} from '../support/packages/committed-files.ts';
import { linesOf, PASSED, packageToSpoil, problemsOf } from '../support/packages/spoiled-package.ts';

const spoil = packageToSpoil();
const last = `migrations/committed/${committedMigrations().at(-1)}`;
const CURRENT = 'migrations/current.sql';
const FIXTURE = 'migrations/fixtures/functions/check_limit.sql';

describe('the chain', () => {
  test('is broken by an edit', async () => {
    const copy = spoil();
    copy.append(last, '\nselect 1;\n');
    expect(await linesOf(chain.evaluate(await copy.sources()))).toEqual([
      expect.stringMatching(new RegExp(`^${last}:2 .*edited after it was committed`)),
    ]);
  });

  test('is broken by a missing file', async () => {
    const copy = spoil();
    copy.addMigration('more', 'select 1;');
    const [first = '', second = ''] = committedMigrations(copy.folder);
    rmSync(join(copy.folder, 'migrations', 'committed', first));
    expect(await linesOf(chain.evaluate(await copy.sources()))).toEqual([
      expect.stringContaining(`${second}:1 Migration ${migrationNumber(first)} is missing`),
    ]);
  });

  test('is broken by a gap in the numbers, which databases would refuse', async () => {
    const copy = spoil();
    const file = copy.addMigration('more', 'select 1;');
    const number = migrationNumber(file);
    const renamed = file.replace(number, numberAfterLast(2));
    const committed = join(copy.folder, 'migrations', 'committed');
    renameSync(join(committed, file), join(committed, renamed));
    expect(await problemsOf(chain.evaluate(await copy.sources()))).toEqual([
      {
        file: `migrations/committed/${renamed}`,
        line: null,
        what: expect.stringContaining(`must have the number ${number}`),
        remedy: `Rename it to ${file}.`,
      },
    ]);
  });

  test('has no file with a name that the migrator ignores', async () => {
    const copy = spoil();
    const names = [`${numberAfterLast(1)}_more.sql`, `more/${numberAfterLast(1)}-more.sql`];
    mkdirSync(join(copy.folder, COMMITTED, 'more'));
    for (const name of names) copy.write(`${COMMITTED}/${name}`, 'select 1;\n');
    expect(await linesOf(chain.evaluate(await copy.sources()))).toEqual(
      names.map(
        (name) => `${COMMITTED}/${name}:null has a name that no migration can have, so no database gets it`,
      ),
    );
  });
});

describe('current.sql', () => {
  test.each([
    ['a statement', '-- Why.\n\nselect 1;\n', 3],
    ['an include', '-- Why.\n--!include functions/check_limit.sql\n', 2],
  ])('with %s is not empty', async (_, text, line) => {
    const copy = spoil();
    copy.write(CURRENT, text);
    expect(await linesOf(currentEmpty.evaluate(await copy.sources()))).toEqual([
      `${CURRENT}:${line} has a migration that is not committed`,
    ]);
  });

  test('with comments is empty', async () => {
    const copy = spoil();
    copy.write(CURRENT, "-- select 1;\n/* select 2; /* it's */ */\n");
    expect(await currentEmpty.evaluate(await copy.sources())).toEqual(PASSED);
  });
});

describe('an include', () => {
  test('is expanded as by graphile-migrate, and its lines are located in their files', async () => {
    const copy = spoil();
    copy.write(
      'migrations/fixtures/functions/nested.sql',
      '\n\n-- Two above.\n--!include functions/check_limit.sql\n',
    );
    const text =
      'select 1;\n--!include functions/nested.sql\n--!  include functions/check_name.sql  \nselect 2;\n';
    const { pending } = await copy.sources(text);
    if (!isSource(pending)) throw new Error(pending?.what);
    const { compileIncludes } = createRequire(import.meta.url)('graphile-migrate/dist/migration.js');
    const settings = { migrationsFolder: join(copy.folder, 'migrations') };
    expect(pending.text).toBe(await compileIncludes(settings, text, new Set([join(copy.folder, CURRENT)])));

    const lines = pending.text.split('\n');
    const placeOf = (line: string) => pending.placeOf(lines.indexOf(line) + 1);
    expect(placeOf('select 2;')).toEqual({ file: CURRENT, line: 4 });
    expect(placeOf('-- Two above.')).toEqual({ file: 'migrations/fixtures/functions/nested.sql', line: 3 });
    expect(placeOf('immutable')).toEqual({ file: FIXTURE, line: 4 });
  });

  test('of a missing file, or of itself, is a problem at its line', async () => {
    const copy = spoil();
    expect((await copy.sources('\n--!include functions/none.sql\n')).pending).toMatchObject({
      file: CURRENT,
      line: 2,
      what: 'includes functions/none.sql, which does not exist',
    });
    copy.append(FIXTURE, '--!include functions/check_limit.sql\n');
    expect((await copy.sources('--!include functions/check_limit.sql\n')).pending).toMatchObject({
      file: FIXTURE,
      what: 'includes itself by functions/check_limit.sql',
    });
  });
});

describe('a fixture', () => {
  test('that was edited is stale until current.sql includes it', async () => {
    const copy = spoil();
    copy.write(FIXTURE, copy.read(FIXTURE).replace('value < 1', 'value < 2'));
    const stale = [
      expect.stringMatching(new RegExp(`^${FIXTURE}:null differs from its text in .*committed`)),
    ];
    expect(await linesOf(fixtureTexts.evaluate(await copy.sources()))).toEqual(stale);
    expect(await linesOf(fixtureTexts.evaluate(await copy.sources('select 1;')))).toEqual(stale);
    const pulledIn = await copy.sources('--!include functions/check_limit.sql\n');
    expect(await fixtureTexts.evaluate(pulledIn)).toEqual(PASSED);
  });

  test('that no migration includes is reported', async () => {
    const copy = spoil();
    const added = 'migrations/fixtures/functions/added.sql';
    cpSync(join(copy.folder, FIXTURE), join(copy.folder, added));
    expect(await linesOf(fixtureTexts.evaluate(await copy.sources()))).toEqual([
      `${added}:null was never part of a migration`,
    ]);
  });
});
