import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { measureLocks, type TableImpact } from '../../dev/check/measure-locks.ts';
import { populate } from '../../dev/check/populate.ts';
import { sourceOf } from '../../dev/sources/sources.ts';
import { databaseForFile } from '../support/databases/test-database.ts';

const database = databaseForFile();
let client: Client;
beforeAll(async () => {
  client = await database().connect();
  if ((await populate(client)) !== undefined) throw new Error('the sample rows do not fit the schema');
});

async function impactsOf(sql: string): Promise<readonly TableImpact[]> {
  const report = await measureLocks(client, sourceOf('migrations/current.sql', sql));
  if (report.state !== 'measured') throw new Error(report.reason);
  return report.impacts;
}

const QUIET = { rewrites: false, scans: false, drops: false, rowsWritten: 0 };
const EXCLUSIVE = { lock: 'AccessExclusiveLock', blocks: 'reads and writes' };
const NODES = { table: 'filestore.nodes', file: 'migrations/current.sql', line: 1 };

describe('a statement is reported if it affects an existing table', () => {
  test.each([
    ['a column is added', 'alter table filestore.nodes add column hint text', { ...EXCLUSIVE }],
    [
      'a column with a constant default is added',
      "alter table filestore.nodes add column hint text not null default 'none'",
      { ...EXCLUSIVE },
    ],
    [
      'a column with a volatile default is added',
      'alter table filestore.nodes add column hint uuid default gen_random_uuid()',
      { ...EXCLUSIVE, rewrites: true, scans: true },
    ],
    [
      'a check is added',
      'alter table filestore.nodes add constraint nodes_hint_check check (size_bytes >= 0)',
      { ...EXCLUSIVE, scans: true },
    ],
    [
      'a check is added that is not validated',
      'alter table filestore.nodes add constraint nodes_hint_check check (size_bytes >= 0) not valid',
      { ...EXCLUSIVE },
    ],
    [
      'an index is built',
      'create index nodes_hint_idx on filestore.nodes (size_bytes)',
      { lock: 'ShareLock', blocks: 'writes', scans: true },
    ],
    [
      'the type of a column changes',
      'alter table filestore.journal_entries alter column result type text using result::text',
      { ...EXCLUSIVE, table: 'filestore.journal_entries', rewrites: true, scans: true },
    ],
    [
      'a comment changes',
      "comment on table filestore.nodes is 'x'",
      { lock: 'ShareUpdateExclusiveLock', blocks: 'schema changes' },
    ],
    [
      'a row of a small table is written',
      "update filestore.backend_mounts set state = 'inactive' where mount_key = 'sample-disk'",
      { table: 'filestore.backend_mounts', lock: null, blocks: 'nothing', rowsWritten: 1 },
    ],
    [
      'rows are written that a key finds',
      'update filestore.node_sightings set last_seen_at = now() where node_id = 1',
      { table: 'filestore.node_sightings', lock: null, blocks: 'nothing', rowsWritten: 1 },
    ],
    [
      'a view is dropped',
      'drop view filestore.view_filestore_directories',
      { ...EXCLUSIVE, table: 'filestore.view_filestore_directories', drops: true },
    ],
  ])('%s', async (_, sql, expected) => {
    expect(await impactsOf(sql)).toEqual([{ ...NODES, statement: sql, ...QUIET, ...expected }]);
  });

  test('rows are written that only a scan finds', async () => {
    const [impact, ...others] = await impactsOf(
      'update filestore.node_sightings set last_seen_at = now() where last_seen_at < now()',
    );
    expect(others).toEqual([]);
    expect(impact).toMatchObject({ ...NODES, table: 'filestore.node_sightings', scans: true, lock: null });
    expect(impact?.rowsWritten).toBeGreaterThan(10);
  });

  test('a foreign key is added: to both tables', async () => {
    const impacts = await impactsOf(
      'alter table filestore.rollup_deltas add constraint x foreign key (directory_id) references filestore.nodes (id)',
    );
    expect(impacts).toHaveLength(2);
    expect(impacts).toEqual(
      expect.arrayContaining([
        expect.objectContaining({
          table: 'filestore.nodes',
          lock: 'ShareRowExclusiveLock',
          blocks: 'writes',
        }),
        expect.objectContaining({
          table: 'filestore.rollup_deltas',
          lock: 'ShareRowExclusiveLock',
          scans: true,
        }),
      ]),
    );
  });

  test('the effects of a "do" block are reported too', async () => {
    expect(
      await impactsOf('do $$ begin alter table filestore.nodes add check (size_bytes >= 0); end $$'),
    ).toMatchObject([{ ...NODES, ...EXCLUSIVE, scans: true }]);
  });
});

test('a lock is reported once, for the statement that takes it, and a stronger one again', async () => {
  const impacts = await impactsOf(
    `create index a on filestore.nodes (size_bytes);
     create table filestore.added (id int);
     alter table filestore.added add column b int;

     alter table filestore.nodes add column hint text;
     comment on column filestore.nodes.hint is 'x';
     alter table filestore.nodes add constraint c check (hint <> '');`,
  );
  expect(impacts.map(({ line, lock, scans }) => [line, lock, scans])).toEqual([
    [1, 'ShareLock', true],
    [5, 'AccessExclusiveLock', false],
    [7, null, true],
  ]);
});

test('a measurement leaves nothing behind', async () => {
  await impactsOf('drop view filestore.view_filestore_directories; delete from filestore.rollup_deltas');
  expect(await database().query('select from filestore.view_filestore_directories limit 1')).toHaveLength(1);
  expect(await database().query('select from filestore.rollup_deltas limit 1')).toHaveLength(1);
});

test('a failed measurement is reported with its reason', async () => {
  const measure = (sql: string) => measureLocks(client, sourceOf('migrations/current.sql', sql));
  expect(
    await measure('--! no-transaction\ncreate index concurrently if not exists a on filestore.nodes (path)'),
  ).toEqual({
    state: 'not measured',
    reason: expect.stringContaining('without a transaction'),
  });
  expect(await measure('select 1;\nselect 1/0;')).toEqual({
    state: 'not measured',
    reason: expect.stringContaining('migrations/current.sql:2 fails: division by zero'),
  });
});
