import { describe, expect, test } from 'vitest';
import { readDataChecks } from '../../src/graphile/data-check-text.ts';

describe('the text of a check', () => {
  test('is read with its message, and with lines and columns as in the file', () => {
    const text =
      '--! Message: x\n\n-- Why.\n--check: Some items have no owner.\n--  select not exists (\n--    select from items)\nselect 1;';
    expect(readDataChecks(text, 10)).toEqual({
      checks: [
        {
          message: 'Some items have no owner.',
          sql: '    select not exists (\n      select from items)',
          line: 14,
        },
      ],
      problems: [],
    });
  });

  test('ends where another comment begins, and another check may follow', () => {
    const { checks, problems } = readDataChecks(
      '--! no-transaction\n-- check: One.\n--  select true\n-- Why.\n--check: Two.\n--\tselect false\n--  or true\n',
    );
    expect(problems).toEqual([]);
    expect(checks.map(({ message, sql }) => [message, sql.replaceAll(/\s+/g, ' ').trim()])).toEqual([
      ['One.', 'select true'],
      ['Two.', 'select false or true'],
    ]);
  });

  test.each([
    ['without a message', '--check:\n--  select true', 1],
    ['without a query', '--check: Why.\n-- select true', 1],
    ['without a query', '-- Why.\n\n--check: Why.\n\n--  select true', 3],
    ['whose query is not a select', '--check: Why.\n--  delete from public.items', 1],
    ['with a semicolon', '--check: Why.\n--  select true;', 1],
    ['with a semicolon', '--check: Why.\n--  select true; drop table public.items', 1],
    ['below the first statement or include', 'select 1;\n--check: Why.\n--  select true', 2],
    ['below the first statement or include', '--!include a.sql\n--check: Why.\n--  select true', 2],
  ])('is refused %s', (what, text, line) => {
    expect(readDataChecks(text)).toEqual({
      checks: [],
      problems: [{ line, what: `is a check ${what}`, remedy: expect.stringMatching(/^[A-Z].*\.$/) }],
    });
  });

  test('may hold semicolons and other checks in strings and comments', () => {
    const text = "--check: Why; why?\n--  select 'a;b' <> 'c' -- d;\n\nselect '--check: x';\n  --check: y\n";
    expect(readDataChecks(text)).toMatchObject({ checks: [{ message: 'Why; why?' }], problems: [] });
  });
});
