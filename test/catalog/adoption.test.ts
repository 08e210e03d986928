import { expect, test } from 'vitest';
import { adoptionConflicts } from '../../src/catalog/adoption.ts';
import { readCommittedModel } from '../../src/catalog/committed-model.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { databaseRolledBackAfterEachTest } from '../support/databases/test-database.ts';

const migrated = databaseRolledBackAfterEachTest();
const empty = databaseRolledBackAfterEachTest('empty');

/** @param sql Statements of the migrations that do more than create missing objects. */
async function conflicts(database: ReturnType<typeof migrated>, sql = ''): Promise<readonly string[]> {
  const { model } = await readCommittedModel();
  return adoptionConflicts(model, await readCatalog(await database.connect()), sql);
}

test('an empty database has no conflicts', async () => {
  expect(await conflicts(empty())).toEqual([]);
});

test('a migrated database has no conflicts', async () => {
  expect(await conflicts(migrated())).toEqual([]);
});

test('missing objects, and objects that migrations recreate, are no conflicts', async () => {
  await migrated().query(`
    drop view filestore.view_filestore_directories;
    drop function filestore.check_integrity();
    drop trigger nodes_guard_removal on filestore.nodes;
    drop index filestore.nodes_checksum_idx;
    drop table filestore.rollup_deltas;
    alter table filestore.journal_entries alter column status set default 'running';
    create table filestore.of_somebody_else (id bigint);
  `);
  expect(await conflicts(migrated())).toEqual([]);
});

test.each([
  [
    'a column of another type',
    'alter table filestore.journal_entries alter column duration_ms type integer',
    'column filestore.journal_entries.duration_ms is integer, should be bigint',
  ],
  [
    'a column that is missing',
    'alter table filestore.journal_entries drop column result',
    'column filestore.journal_entries.result is missing: jsonb',
  ],
  [
    'a constraint that is missing',
    'alter table filestore.snapshots drop constraint snapshots_valid_check',
    'constraint filestore.snapshots.snapshots_valid_check is missing: CHECK ((valid_from < valid_to))',
  ],
  [
    'a constraint with another definition',
    `alter table filestore.snapshots
       drop constraint snapshots_valid_check,
       add constraint snapshots_valid_check check (valid_from <= valid_to)`,
    'constraint filestore.snapshots.snapshots_valid_check is CHECK ((valid_from <= valid_to)), should be CHECK ((valid_from < valid_to))',
  ],
  [
    'a column that may be null',
    'alter table filestore.journal_entries alter column status drop not null',
    'column filestore.journal_entries.status is filestore.command_status, should be filestore.command_status not null',
  ],
  [
    'an identity that is none',
    'alter table filestore.journal_entries alter column id drop identity',
    'column filestore.journal_entries.id is bigint not null, should be bigint not null generated always as identity',
  ],
  [
    'a generated column instead of a plain one',
    `alter table filestore.journal_entries drop column duration_ms,
       add column duration_ms bigint generated always as (id + 1) stored`,
    'column filestore.journal_entries.duration_ms is bigint generated always as ((id + 1)) stored, should be bigint',
  ],
  [
    'a column that is not in the model',
    "alter table filestore.journal_entries add column owner text not null default 'nobody'",
    'column filestore.journal_entries.owner is not in the model: text not null',
  ],
  [
    'a view instead of a table',
    'drop table filestore.snapshots cascade; create view filestore.snapshots as select 1 as node_id',
    'filestore.snapshots is a view, should be a table',
  ],
  [
    'a table instead of a view',
    'drop view filestore.view_filestore_active_nodes; create table filestore.view_filestore_active_nodes (id bigint)',
    'filestore.view_filestore_active_nodes is a table, should be a view',
  ],
])('%s is a conflict', async (_what, change, ...lines) => {
  await migrated().query(change);
  expect(await conflicts(migrated())).toEqual(lines);
});

test('a missing column or constraint that a migration adds later is no conflict', async () => {
  await migrated().query(`
    alter table filestore.journal_entries drop column result;
    alter table filestore.snapshots drop constraint snapshots_valid_check;
  `);
  const adding = `
    alter table filestore.journal_entries add column if not exists result jsonb;
    alter table filestore.snapshots add constraint snapshots_valid_check check (true);`;
  expect(await conflicts(migrated(), adding)).toEqual([]);
  expect(await conflicts(migrated(), adding.replace('result', 'results'))).toEqual([
    'column filestore.journal_entries.result is missing: jsonb',
  ]);
});

test('a domain over another type is a conflict, and so is one without its check', async () => {
  await empty().query('create schema filestore; create domain filestore.node_kind as varchar');
  expect(await conflicts(empty())).toEqual([
    'domain filestore.node_kind is character varying, should be text collate "C"',
    "constraint filestore.node_kind.node_kind_check is missing: CHECK ((VALUE = ANY (ARRAY['file'::text, 'directory'::text])))",
  ]);
});
