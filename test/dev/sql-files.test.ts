import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { sqlFiles } from '../../dev/check/gates/sql-files.ts';
import { linesOf, packageToSpoil } from '../support/packages/spoiled-package.ts';

const spoil = packageToSpoil();
const FUNCTION = 'migrations/fixtures/functions/check_limit.sql';
const PROCEDURE = 'migrations/fixtures/functions/backfill.sql';
const TRIGGER = 'migrations/fixtures/triggers/nodes_guard_removal.sql';
const VIEW = 'migrations/fixtures/views/view_filestore_active_nodes.sql';

/** The problems that the gate reports when one file is changed. */
async function complaints(file: string, change: (text: string) => string): Promise<readonly string[]> {
  const copy = spoil();
  const text = copy.read(file);
  expect(change(text)).not.toBe(text);
  copy.write(file, change(text));
  return linesOf(sqlFiles.evaluate(await copy.sources()));
}

describe('a file is reported', () => {
  const replace = (from: string, to: string) => (text: string) => text.replace(from, to);

  test.each<[string, string, (text: string) => string, string]>([
    ['for a single CR', VIEW, (text) => `-- Why.\r${text}`, `${VIEW}:1 has a carriage return (CR)`],
    ['for CR LF', VIEW, (text) => text.replaceAll('\n', '\r\n'), `${VIEW}:1 has a carriage return (CR)`],
    [
      'for a character that another encoding may lack',
      VIEW,
      (text) => `-- Größe\n${text}`,
      `${VIEW}:1 has the character "ö"`,
    ],
    [
      'for a second object',
      FUNCTION,
      (text) => `${text}\ncreate view filestore.other as\nselect 1;\n`,
      ' creates a second object',
    ],
    [
      'for a name that is not that of its object',
      VIEW,
      replace('create view filestore.view_filestore_active_nodes', 'create view filestore.others'),
      ' has no statement "create view filestore.view_filestore_active_nodes as…"',
    ],
    [
      'for a view that is not dropped before it is created',
      VIEW,
      replace('drop view if exists', 'drop view'),
      ' has no statement "drop view if exists filestore.view_filestore_active_nodes;…"',
    ],
    [
      'for a trigger with another name',
      TRIGGER,
      replace('create trigger nodes_guard_removal', 'create trigger nodes_guard'),
      ' has no statement "create trigger nodes_guard_removal…"',
    ],
    [
      'for a function that is not created with "or replace"',
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
      'for CR LF in current.sql',
      'migrations/current.sql',
      (text) => `${text}select 1;\r\n`,
      'migrations/current.sql:2 has a carriage return (CR)',
    ],
  ])('%s', async (_why, file, change, complaint) => {
    expect(await complaints(file, change)).toContainEqual(expect.stringContaining(complaint));
  });

  test('for being in the wrong folder', async () => {
    const copy = spoil();
    renameSync(join(copy.folder, FUNCTION), join(copy.folder, 'migrations/fixtures/check_limit.sql'));
    expect(await linesOf(sqlFiles.evaluate(await copy.sources()))).toEqual([
      'migrations/fixtures/check_limit.sql:null is not in a folder of migrations/fixtures',
    ]);
  });
});
