import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { describeStaleness, findStaleFiles, generateFiles } from '../../dev/documents/generated-files.ts';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { readCommittedModel } from '../../src/catalog/committed-model.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseRolledBackAfterEachTest } from '../support/databases/test-database.ts';

const database = databaseRolledBackAfterEachTest();

async function generate() {
  const { migration } = await readCommittedModel();
  return generateFiles(await database().connect(), migration);
}

describe('the generated files', () => {
  test('match the committed ones on every version of the server', async () => {
    for (const { file, text } of await generate()) {
      expect(text, file).toBe(readFileSync(join(PACKAGE_ROOT, file), 'utf8'));
    }
  });

  test('do not depend on the settings of the session', async () => {
    const { migration } = await readCommittedModel();
    const client = await database().connect();
    await client.query(
      `set search_path = filestore, public; set quote_all_identifiers = on; set "DateStyle" = 'SQL, DMY'; set bytea_output = 'escape'`,
    );
    expect(await findStaleFiles(await generateFiles(client, migration))).toEqual([]);
  });
});

describe('a stale file is found', () => {
  let copy: PackageCopy;
  beforeEach(() => {
    copy = copyPackage({ only: ['schema', 'src/sql', 'README.md'] });
  });
  afterEach(() => copy.remove());

  test.each([
    [
      'a column',
      'alter table filestore.nodes add column owner_hint text',
      ['schema/filestore.txt', 'schema/dictionary.md', 'schema/rows.d.ts'],
    ],
    [
      'a comment',
      "comment on column filestore.nodes.name is 'Another word.'",
      ['schema/dictionary.md', 'schema/rows.d.ts'],
    ],
    [
      "a table's comment",
      "comment on table filestore.nodes is 'A < B'",
      ['schema/dictionary.md', 'schema/rows.d.ts'],
    ],
    [
      'a key',
      'alter table filestore.nodes add constraint nodes_name_key unique (parent_id, name)',
      ['schema/filestore.txt', 'schema/dictionary.md', 'src/sql/reasons.ts', 'README.md'],
    ],
    [
      'a function',
      'drop function filestore.check_integrity()',
      ['schema/filestore.txt', 'schema/dictionary.md', 'schema/rows.d.ts', 'src/sql/calls.ts'],
    ],
    [
      "an internal function's comment",
      "comment on function filestore.check_name(text) is 'Internal: Another word.'",
      ['schema/dictionary.md'],
    ],
    ['an index', 'drop index filestore.nodes_checksum_idx', ['schema/filestore.txt', 'schema/dictionary.md']],
    [
      'a value of a domain',
      `alter domain filestore.node_kind drop constraint node_kind_check;
       alter domain filestore.node_kind add constraint node_kind_check check (value in ('file', 'directory', 'link'))`,
      ['schema/filestore.txt', 'schema/dictionary.md', 'schema/rows.d.ts'],
    ],
  ])('when %s changes', async (_what, change, stale) => {
    await database().query(change);
    const problems = await findStaleFiles(await generate(), copy.folder);
    expect(problems.map(({ file }) => file)).toEqual(stale);
  });
});

describe('a stale file is described', () => {
  const text = 'a title\na checksum\n\nfirst\n  second\n';
  const file = { file: 'schema/filestore.txt', text };

  test.each([
    ['by the line that differs', text.replace('second', '2nd'), 5, 'has "2nd"; regenerated, it has "second"'],
    ['by the missing line', text.replace('first\n', ''), 4, 'has "second"; regenerated, it has "first"'],
    ['by where it goes on', `${text}third\n`, 6, 'has "third"; regenerated, it has ""'],
    ['by the first extra line after its end', `${text}\n`, 7, 'has ""; regenerated, it ends'],
    [
      'by its header when nothing else differs',
      text.replace('checksum', 'hash'),
      2,
      'has "a hash"; regenerated, it has "a checksum"',
    ],
  ])('%s', (_how, stale, line, what) => {
    expect(describeStaleness(file, stale)).toEqual([
      {
        file: 'schema/filestore.txt',
        line,
        what: `is out of date: this line ${what}`,
        remedy: 'Regenerate it: npm run db:docs.',
      },
    ]);
  });

  test('by its absence', () => {
    expect(describeStaleness(file, undefined)).toMatchObject([{ line: null, what: 'is missing' }]);
  });

  test('not if it is up to date', () => {
    expect(describeStaleness(file, text)).toEqual([]);
  });
});
