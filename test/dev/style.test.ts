import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { style } from '../../dev/check/gates/style.ts';
import { linesOf, PASSED, packageToSpoil } from '../support/check.ts';

const spoil = packageToSpoil();
const FUNCTION = 'migrations/fixtures/functions/check_limit.sql';
const PROCEDURE = 'migrations/fixtures/functions/backfill.sql';
const TRIGGER = 'migrations/fixtures/triggers/nodes_guard_removal.sql';
const VIEW = 'migrations/fixtures/views/view_filestore_active_nodes.sql';

/** What the gate says when one file is changed. */
async function complaints(file: string, change: (text: string) => string): Promise<readonly string[]> {
  const copy = spoil();
  const text = copy.read(file);
  expect(change(text)).not.toBe(text);
  copy.write(file, change(text));
  return linesOf(style.look(await copy.sources()));
}

test('the SQL of the checkout is written as it should be', async () => {
  expect(await style.look(await spoil().sources())).toEqual(PASSED);
});

describe('a file is not written as it should be', () => {
  const replace = (from: string, to: string) => (text: string) => text.replace(from, to);

  test.each<[string, string, (text: string) => string, string]>([
    [
      'for a keyword in capitals',
      TRIGGER,
      replace('for each statement', 'FOR each statement'),
      `${TRIGGER}:6 has FOR in capitals`,
    ],
    ['for a keyword in capitals in a body', FUNCTION, replace('  if ', '  IF '), ' has IF in capitals'],
    ['for a tab', FUNCTION, replace('  if ', '\tif '), ' has a tab'],
    ['for spaces at the end of a line', FUNCTION, replace('as $$\n', 'as $$  \n'), ' ends in spaces'],
    ['for CR LF', VIEW, (text) => text.replaceAll('\n', '\r\n'), ' ends in CR LF'],
    ['for an odd indentation', FUNCTION, replace('  if ', '   if '), ' is indented by 3 spaces'],
    ['for a long line', VIEW, replace('  n.*,', `  n.id as ${'i'.repeat(150)},`), ' is 161 characters long'],
    ['for no line break at its end', VIEW, (text) => text.trimEnd(), ' does not end in one line break'],
    ['for an empty line at its end', VIEW, (text) => `${text}\n`, ' does not end in one line break'],
    [
      'for a second object',
      FUNCTION,
      (text) => `${text}\ncreate view filestore.other as\nselect 1;\n`,
      ' creates a second object',
    ],
    [
      'for another name than that of its object',
      VIEW,
      replace('create view filestore.view_filestore_active_nodes', 'create view filestore.others'),
      ' has no statement "create view filestore.view_filestore_active_nodes as…"',
    ],
    [
      'for a view that is not dropped before it is made',
      VIEW,
      replace('drop view if exists', 'drop view'),
      ' has no statement "drop view if exists filestore.view_filestore_active_nodes;…"',
    ],
    [
      'for a trigger of another name',
      TRIGGER,
      replace('create trigger nodes_guard_removal', 'create trigger nodes_guard'),
      ' has no statement "create trigger nodes_guard_removal…"',
    ],
    [
      'for a function that cannot be made again',
      FUNCTION,
      replace('create or replace', 'create'),
      ' has no statement "create or replace function filestore.check_limit(…"',
    ],
    [
      'for a function without a comment',
      FUNCTION,
      replace('comment on function', '-- comment on function'),
      ' has no statement "comment on function…"',
    ],
    [
      'for a function that PUBLIC may call',
      FUNCTION,
      replace('revoke all', '-- revoke all'),
      ' has no statement "revoke all on function filestore.check_limit(…"',
    ],
    [
      'for a procedure that PUBLIC may call',
      PROCEDURE,
      replace('revoke all', '-- revoke all'),
      ' has no statement "revoke all on procedure filestore.backfill(…"',
    ],
    [
      'for current.sql too',
      'migrations/current.sql',
      (text) => `${text}SELECT 1;\n`,
      'migrations/current.sql:2 has SELECT in capitals',
    ],
  ])('%s', async (_why, file, change, complaint) => {
    expect(await complaints(file, change)).toContainEqual(expect.stringContaining(complaint));
  });

  test('for its folder', async () => {
    const copy = spoil();
    renameSync(join(copy.folder, FUNCTION), join(copy.folder, 'migrations/fixtures/check_limit.sql'));
    expect(await linesOf(style.look(await copy.sources()))).toEqual([
      'migrations/fixtures/check_limit.sql:null is not in a folder of migrations/fixtures',
    ]);
  });
});

describe('no problem is reported', () => {
  test.each<[string, (text: string) => string]>([
    [
      'capitals in strings, comments and quoted names',
      (text) => `${text}-- NOT code\n/* NOR this */\nselect 'FS404', U&'\\+10FFFF', "Q";\n`,
    ],
    ['what a string holds, however long', (text) => `${text}select '${'long '.repeat(60)}';\n`],
    ['a string over several lines', (text) => `${text}select 'one\n   two\n';\n`],
    ['what is aligned in parentheses', (text) => `${text}select concat(1,\n              2);\n`],
    ['what goes on with an expression', (text) => `${text}select\n  where true\n     and true;\n`],
  ])('for %s', async (_what, change) => {
    expect(await complaints('migrations/current.sql', change)).toEqual([]);
  });
});
