import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readCommittedMigrations } from '../src/graphile/committed-migrations.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { placeAt, splitStatements, tokenize } from '../src/sql-text.ts';
import { databaseForFile } from './support/databases/test-database.ts';

const database = databaseForFile('empty');
const textsOf = (sql: string) => splitStatements(sql).map(({ text }) => text);

describe('SQL is split into the statements that the server sees', () => {
  // The server must complete all of them, and complete as many statements as the split returns.
  const tricky = [
    "select ';', 'it''s; --', e'\\';', U&'d\\0061t;', b'1'; select 1",
    'select 1 as ";", 2 as "a"";"; select 2;',
    'select 1 -- ; not here\n; /* ; /* nested ; */ ; */ select 2;',
    "select $$;$$, $tag$ $$ ; $tag$, $ö$;$ö$; select 1 as a$b, 2 as c$; select '$$' as d; select '$$;'",
    "do $$ begin perform 1; perform ';'; end $$; select 1;",
    'create table t (a int); create rule r as on insert to t do also (select 1; select 2); drop table t;',
    `create function f(x int) returns int begin atomic
       select case when x > 0 then 1 else (select case x when 0 then 2 end) end; select x; end;
     create function g() returns int language sql return 1; select f(1), g();`,
    'begin; select 1; end; begin; commit',
    ';;select 1;; ;',
    "select 1\n\n/* at the end */ -- that's all",
    '-- nothing\n/* at all */',
    '-- nothing\rselect 1; select 2 -- two\r\n; select 3 as \u00a0',
  ];

  test.each(tricky)('%j', async (sql) => {
    const client = await database().connect();
    const result: unknown = await client.query(sql);
    const completed = (Array.isArray(result) ? result : [result]).filter(({ command }) => command !== null);
    expect(splitStatements(sql)).toHaveLength(completed.length);
    for (const text of textsOf(sql)) expect(text).not.toMatch(/;$/);
  });

  test('and every committed migration is split the same way', async () => {
    const client = await database().connect();
    for (const { filename, body } of await readCommittedMigrations(join(PACKAGE_ROOT, 'migrations'))) {
      const result: unknown = await client.query(body);
      // A single statement has no array around its result.
      expect([result].flat(), filename).toHaveLength(splitStatements(body).length);
    }
  });
});

test('a statement is returned with its place', () => {
  const sql = '-- first\n\n  select 1 ;\nselect\n2 -- two\n;';
  expect(splitStatements(sql).map(({ text, line, start, end }) => [text, line, start, end])).toEqual([
    ['select 1', 3, 12, 20],
    ['select\n2', 4, 23, 31],
  ]);
});

test.each(['nothing', 'select *\n  from nothing', "select '🗂\n🗂', 🗂.a from nothing 🗂;\nselect 1"])(
  'a position that the server reports is the place of that character: %j',
  async (sql) => {
    const client = await database().connect();
    const position = await client.query(sql).then(
      () => undefined,
      (error: { readonly position: string }) => Number(error.position),
    );
    const { offset, line, column } = placeAt(sql, position ?? 0);
    expect(sql.slice(offset)).toMatch(/^nothing/);
    const lastLine = sql.slice(0, offset).split('\n').at(-1) ?? '';
    expect({ line, column }).toEqual({
      line: sql.slice(0, offset).split('\n').length,
      column: [...lastLine].length + 1,
    });
  },
);

test('an unclosed token goes to the end, and nothing is lost', () => {
  expect(textsOf('select $$ ; select 1')).toEqual(['select $$ ; select 1']);
  expect(textsOf("select 'a; select 1")).toEqual(["select 'a", 'select 1']);
  expect(textsOf('select 1 /* ; ')).toEqual(['select 1']);
});

test('a token has its kind and value', () => {
  expect(
    tokenize(`Set "A ""b""" = 'it''s' $x$ body $x$ 1.5::INT`).map(({ kind, value }) => [kind, value]),
  ).toEqual([
    ['word', 'set'],
    ['name', 'A "b"'],
    ['symbol', '='],
    ['string', "it's"],
    ['body', ' body '],
    ['number', '1.5'],
    ['symbol', '::'],
    ['word', 'int'],
  ]);
});
