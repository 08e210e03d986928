import type { Client } from 'pg';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { historyColumns } from '../../dev/check/gates/history-columns.ts';
import { readSources, type Sources } from '../../dev/sources/sources.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { problemsOf } from '../support/packages/spoiled-package.ts';

const database = databaseForFile();
let client: Client;
let sources: Sources;
beforeAll(async () => {
  client = await database().connect();
  sources = await readSources(PACKAGE_ROOT, false);
});
// The changes of a test are rolled back with its transaction.
beforeEach(async () => {
  await client.query('begin');
});
afterEach(async () => {
  await client.query('rollback');
});
const subject = () => ({ sources, client });

describe('a column of nodes', () => {
  const VERSIONS = 'view_filestore_node_versions';
  const check = () => problemsOf(historyColumns.evaluate(subject()));
  const viewAgain = () =>
    client.query(sources.fixtures.find(({ file }) => file.endsWith(`/${VERSIONS}.sql`))?.text ?? '');

  test('that is new must be added to snapshots and the view, and the report has the statement', async () => {
    await client.query('alter table filestore.nodes add column hint text collate "C"');
    expect(await check()).toEqual([
      {
        file: `migrations/committed/${committedMigrations().at(-1)}`,
        line: null,
        what: 'filestore.snapshots has no column where nodes has hint text collate "C"',
        remedy:
          'Add the same columns to both tables in the same order, as in: alter table filestore.snapshots add column if not exists hint text collate "C";',
      },
      expect.objectContaining({
        what: `filestore.${VERSIONS} has no column where nodes has hint text collate "C"`,
        remedy: expect.stringContaining(`--!include views/${VERSIONS}.sql`),
      }),
    ]);
    await client.query('alter table filestore.snapshots add column hint text collate "C"');
    expect(await check()).toMatchObject([{ what: expect.stringContaining(VERSIONS) }]);
    await viewAgain();
    expect(await check()).toEqual([]);
  });

  test.each([
    [
      'of another type in snapshots',
      'alter table filestore.nodes add hint bigint; alter table filestore.snapshots add hint integer',
      'filestore.snapshots has hint integer where nodes has hint bigint',
      'hint bigint;',
    ],
    [
      'of another collation in snapshots',
      'alter table filestore.nodes add hint text collate "C"; alter table filestore.snapshots add hint text',
      'filestore.snapshots has hint text where nodes has hint text collate "C"',
      'hint text collate "C";',
    ],
    [
      'of snapshots alone',
      'alter table filestore.snapshots add hint text',
      'filestore.snapshots has hint text where nodes has none',
      'the same columns',
    ],
    [
      'in another order in snapshots',
      `alter table filestore.nodes add hint text, add clue text;
       alter table filestore.snapshots add clue text, add hint text`,
      'filestore.snapshots has clue text where nodes has hint text',
      'in the same order',
    ],
  ])('is reported %s', async (_, sql, what, remedy) => {
    await client.query(`drop view filestore.${VERSIONS}; ${sql}`);
    expect((await check())[0]).toMatchObject({ what, remedy: expect.stringContaining(remedy) });
  });
});
