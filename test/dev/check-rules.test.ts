import { describe, expect, test } from 'vitest';
import { concurrently } from '../../dev/check/gates/concurrently.ts';
import { dataChecks } from '../../dev/check/gates/data-checks.ts';
import { lint } from '../../dev/check/gates/lint.ts';
import { placeholders } from '../../dev/check/gates/placeholders.ts';
import { sessionSettings } from '../../dev/check/gates/session-settings.ts';
import {
  checkoutWith,
  linesOf,
  PASSED,
  packageToSpoil,
  problemsOf,
} from '../support/packages/spoiled-package.ts';

const spoil = packageToSpoil();
const CURRENT = 'migrations/current.sql';
const FIXTURE = 'migrations/fixtures/functions/check_limit.sql';

describe('squawk', () => {
  test('reports the line in a committed migration', async () => {
    const copy = spoil();
    const file = copy.addMigration(
      'more',
      '-- Why.\n\nalter table filestore.nodes drop column if exists metadata;',
    );
    expect(await linesOf(lint.evaluate(await copy.sources()))).toEqual([
      expect.stringContaining(`migrations/committed/${file}:6 ban-drop-column: `),
    ]);
  });

  test('reports the line in a fixture that current.sql includes', async () => {
    const copy = spoil();
    copy.append(FIXTURE, '\nalter table filestore.nodes drop column if exists metadata;\n');
    const lines = copy.read(FIXTURE).split('\n').length - 1;
    const found = await linesOf(
      lint.evaluate(await copy.sources('select 1;\n--!include functions/check_limit.sql\n')),
    );
    expect(found).toEqual([expect.stringContaining(`${FIXTURE}:${lines} ban-drop-column: `)]);
  });

  test('reports nothing for an index that is built concurrently in a separate migration', async () => {
    const index = 'create index concurrently if not exists nodes_size_idx on filestore.nodes (size_bytes);\n';
    expect(await lint.evaluate(await checkoutWith(`--! no-transaction\n${index}`))).toEqual(PASSED);
  });

  test('reports a syntax error once, without what follows from it', async () => {
    const text =
      'select 1;\nalter tabel filestore.nodes add column if not exists owner_hint text;\nselect 2;\n';
    const found = await problemsOf(lint.evaluate(await checkoutWith(text)));
    expect(found).toMatchObject([
      {
        file: CURRENT,
        line: 2,
        what: expect.stringContaining('syntax-error: '),
        remedy: 'Correct the statement.',
      },
    ]);
  });

  test('fails when its settings cannot be read', async () => {
    const copy = spoil();
    copy.write('.squawk.toml', 'excluded_rules = 3\n');
    expect((await problemsOf(lint.evaluate(await copy.sources()))).map(({ remedy }) => remedy)).toEqual(
      expect.arrayContaining([expect.stringContaining('.squawk.toml')]),
    );
  });
});

describe('an index that is built concurrently', () => {
  const INDEX = 'create index concurrently if not exists nodes_size_idx on filestore.nodes (size_bytes);\n';

  test.each([
    ['is the only statement', `--! no-transaction\n-- Why.\n${INDEX}`],
    ['may be unique', `--! no-transaction\n${INDEX.replace('index', 'unique index')}`],
    ['may be dropped', '--! no-transaction\ndrop index concurrently if exists filestore.nodes_size_idx;\n'],
    ['is not one in a comment or a string', "select 'concurrently'; -- concurrently\n"],
    ['is not a view that is refreshed', 'refresh materialized view concurrently filestore.some_view;\n'],
  ])('%s', async (_, text) => {
    expect(await concurrently.evaluate(await checkoutWith(text))).toEqual(PASSED);
  });

  test.each([
    ['is in a transaction', `select 1;\n${INDEX}`, 2, 'runs concurrently, which the server refuses'],
    ['is next to another statement', `--! no-transaction\n${INDEX}select 1;\n`, 3, 'is the second statement'],
    [
      'is not concurrent',
      '--! no-transaction\nselect 1;\n',
      2,
      'runs without a transaction, but not concurrently',
    ],
    [
      'cannot be run again',
      `--! no-transaction\n${INDEX.replace(' if not exists', '')}`,
      2,
      'cannot be run again',
    ],
    [
      'names its table without a schema',
      `--! no-transaction\n${INDEX.replace('filestore.', '')}`,
      2,
      'cannot be run again',
    ],
  ])('is reported if it %s', async (_, text, line, what) => {
    expect(await linesOf(concurrently.evaluate(await checkoutWith(text)))).toEqual([
      expect.stringContaining(`${CURRENT}:${line} ${what}`),
    ]);
  });

  test('is checked in committed migrations', async () => {
    const copy = spoil();
    const file = copy.addMigration('more', INDEX);
    expect(await linesOf(concurrently.evaluate(await copy.sources()))).toEqual([
      expect.stringContaining(`migrations/committed/${file}:4 `),
    ]);
  });
});

describe('a check of a migration', () => {
  test('that is one select with a message is let through', async () => {
    const text = '--check: Why.\n--  select true\n\nselect 1;\n';
    expect(await dataChecks.evaluate(await checkoutWith(text))).toEqual(PASSED);
  });

  test('is refused at its line, in current.sql and in committed migrations', async () => {
    const copy = spoil();
    const file = copy.addMigration('more', '--check: Why.\n--  select true;\n\nselect 1;');
    expect(
      await linesOf(dataChecks.evaluate(await copy.sources('-- Why.\n--check: Why.\nselect 1;\n'))),
    ).toEqual([
      `migrations/committed/${file}:4 is a check with a semicolon`,
      `${CURRENT}:2 is a check without a query`,
    ]);
  });

  test('is refused in a fixture that is included', async () => {
    const copy = spoil();
    copy.append(FIXTURE, '\n--check: Why.\n--  select true\n');
    const lines = copy.read(FIXTURE).split('\n').length - 2;
    expect(
      await linesOf(dataChecks.evaluate(await copy.sources('--!include functions/check_limit.sql\n'))),
    ).toEqual([`${FIXTURE}:${lines} is a check below the first statement or include`]);
  });
});

describe('a setting', () => {
  test.each([
    ['set local', "set local statement_timeout = '1s';"],
    ['set constraints', 'set constraints all deferred;'],
    ['set_config for the transaction', "select set_config('a.b', coalesce('x', 'y'), true);"],
    ['set of an update', "update filestore.nodes\nset metadata = '{}'\nwhere false;"],
    [
      'set of a function',
      'alter function filestore.check_limit(text, bigint, bigint)\nset search_path = pg_catalog, pg_temp;',
    ],
    ['words in a string', "select 'set x = 1; set_config(a, b, false)';"],
  ])('%s is accepted', async (_, text) => {
    expect(await sessionSettings.evaluate(await checkoutWith(text))).toEqual(PASSED);
  });

  test.each([
    ['set', "select 1;\nset statement_timeout = '1s';", 2, '"set statement_timeout'],
    ['SET SESSION', "SET SESSION lock_timeout = '1s';", 1, '"SET SESSION lock_timeout"'],
    ['set role', 'set role app;', 1, '"set role app"'],
    ['reset', 'reset all;', 1, '"reset all"'],
    [
      'set in a block',
      "select 1;\ndo $$\nbegin\n  set lock_timeout = '1s';\nend\n$$;",
      4,
      '"set lock_timeout',
    ],
    ['set_config for the session', "select set_config('a.b', 'x', false);", 1, '"set_config"'],
    ['"set_config" in quotes', `select pg_catalog."set_config"('a.b', 'x', false);`, 1, '"set_config"'],
    [
      'set_config with "is_local" as a named argument',
      "do $$\nbegin\n  perform set_config('a.b',\n    'x', is_local => false);\nend\n$$;",
      3,
      '"set_config"',
    ],
  ])('%s is reported', async (_, text, line, what) => {
    expect(await linesOf(sessionSettings.evaluate(await checkoutWith(text)))).toEqual([
      expect.stringContaining(`${CURRENT}:${line} ${what}`),
    ]);
  });

  test('is checked in fixtures', async () => {
    const copy = spoil();
    copy.append(FIXTURE, "\nset lock_timeout = '1s';\n");
    expect(await linesOf(sessionSettings.evaluate(await copy.sources()))).toEqual([
      expect.stringContaining(`${FIXTURE}:${copy.read(FIXTURE).split('\n').length - 1} `),
    ]);
  });
});

describe('a placeholder', () => {
  test.each([
    ['a cast', 'select 1::INT, 2 :: INT;'],
    ['a time', "select to_char(now(), 'HH24:MI:SS'); -- 12:NN"],
    ['a slice', 'select (array[1, 2])[1 : LAST] from x;'],
    ['an assignment', 'do $$ declare x int; begin x:=1; end $$;'],
  ])('is accepted %s', async (_, text) => {
    expect(await placeholders.evaluate(await checkoutWith(text))).toEqual(PASSED);
  });

  test.each([
    ['in a string', "select 1;\nselect ':DATABASE_NAME';", ':DATABASE_NAME'],
    ['in a comment', 'select 1;\n-- grant to :DATABASE_OWNER', ':DATABASE_OWNER'],
    ['once', 'select 1;\ngrant all on schema filestore to :DATABASE_OWNER;', ':DATABASE_OWNER'],
  ])('is reported %s', async (_, text, name) => {
    expect(await linesOf(placeholders.evaluate(await checkoutWith(text)))).toEqual([
      `${CURRENT}:2 has the placeholder ${name}`,
    ]);
  });
});
