import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { isRefusal, type RefusalCode, type RefusalReason } from '../../src/sql/index.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import {
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  type Mount,
  one,
} from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let operator: Client;
let other: Mount;
let mount: Mount;
let directory: string;
let file: string;
let gone: string;

beforeAll(async () => {
  service = await connectAs('service');
  operator = await connectAs('operator');
  other = await createMount(service, 's3');
});

beforeEach(async () => {
  mount = await createMount(service);
  directory = await createDirectory(service, mount, mount.rootId, 'd');
  file = await createNode(service, mount, directory, 'f');
  gone = await createNode(service, mount, directory, 'gone');
  await deleteNode(service, gone);
});

const NO_ID = '9007199254740991';

type Row = [what: string, code: RefusalCode, reason: RefusalReason, sql: string, values?: () => unknown[]];

/** Runs a statement, expects this refusal, and returns the error. */
async function refused(
  client: Client,
  code: RefusalCode,
  reason: RefusalReason,
  sql: string,
  values: unknown[] = [],
): Promise<Error & { readonly hint?: string; readonly detail?: string }> {
  const error = await client.query(sql, values).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toMatchObject({ code, constraint: reason });
  expect(isRefusal(error, reason)).toBe(true);
  if (code.startsWith('FS')) expect(error).toMatchObject({ hint: expect.stringMatching(/\w{3}/) });
  return error as Error;
}

const MOVE = 'select filestore.move_node($1, $2, $3)';
const REVERT = 'select filestore.revert_node($1, $2)';
const BEGIN_WORK = 'select filestore.begin_work($1)';
const DELETE = 'select filestore.delete_node($1)';
const LIST = 'select filestore.list_directory($1)';
const SET = (change: string) => `update filestore.nodes set ${change} where id = $1`;
const CREATE = 'select filestore.create_node($1, $2)';
const RESTORE = 'select filestore.restore_node($1)';
const ENSURE = `select filestore.ensure_directory(m.mount_key, $2) from filestore.backend_mounts m where m.id = $1`;
const SIZE = SET('size_bytes = size_bytes + 1');

describe('a service is refused with a hint for', () => {
  test.each<Row>([
    ['a move of no node', 'FS404', 'nodes_missing', MOVE, () => [NO_ID, null, null]],
    ['a list of no directory', 'FS404', 'nodes_missing', LIST, () => [NO_ID]],
    ['a delete of a tombstone', 'FS404', 'nodes_deleted', DELETE, () => [gone]],
    ['a missing parent', 'FS404', 'nodes_parent_missing', CREATE, () => [NO_ID, 'x']],
    ['no parent', 'FS404', 'nodes_parent_missing', CREATE, () => [null, 'x']],
    ['a file as parent', 'FS404', 'nodes_not_directory', CREATE, () => [file, 'x']],
    ['a list of a file', 'FS404', 'nodes_not_directory', LIST, () => [file]],
    ['a move to another mount', 'FS404', 'nodes_parent_elsewhere', MOVE, () => [file, other.rootId, null]],
    ['a version that is not there', 'FS404', 'snapshots_missing', REVERT, () => [file, 9]],
    ['a create under a taken name', 'FS409', 'nodes_name_taken', CREATE, () => [directory, 'f']],
    ['a move to a taken name', 'FS409', 'nodes_name_taken', MOVE, () => [file, mount.rootId, 'd']],
    ['a lost race', 'FS409', 'nodes_stale', 'select filestore.delete_node($1, 7)', () => [file]],
    ['a delete of a directory that holds something', 'FS409', 'nodes_not_empty', DELETE, () => [directory]],
    ['a restore of a live node', 'FS409', 'nodes_alive', RESTORE, () => [file]],
    ['a file on the way', 'FS409', 'nodes_file_in_the_way', ENSURE, () => [mount.id, 'd/f/e']],
    ['a slash', 'FS422', 'nodes_name_check', CREATE, () => [directory, 'a/b']],
    ['a long local name', 'FS422', 'nodes_local_name_check', CREATE, () => [directory, 'x'.repeat(256)]],
    ['a path with dots', 'FS422', 'nodes_path_check', ENSURE, () => [mount.id, 'a/../b']],
    ['a long path', 'FS422', 'nodes_path_length_check', ENSURE, () => [mount.id, 'a/'.repeat(1400)]],
    ['a cycle', 'FS422', 'nodes_cycle_check', MOVE, () => [directory, directory, null]],
    ['a delete of a root', 'FS422', 'nodes_root_check', DELETE, () => [mount.rootId]],
    [
      'a change of state that is not allowed',
      'FS422',
      'nodes_state_change_check',
      SET("state = 'missing'"),
      () => [gone],
    ],
    ['a new name of a tombstone', 'FS422', 'nodes_tombstone_check', SET("name = 'x'"), () => [gone]],
    [
      'a create in state deleted',
      'FS422',
      'nodes_born_live_check',
      "insert into filestore.nodes (backend_mount_id, parent_id, name, kind, state) values ($1, $2, 'x', 'file', 'deleted')",
      () => [mount.id, mount.rootId],
    ],
    [
      'a mount that does not exist',
      'FS404',
      'backend_mounts_missing',
      "select filestore.ensure_directory('nowhere', 'a')",
    ],
    [
      'a page of 0',
      'FS422',
      'limit_check',
      'select filestore.list_directory($1, page_size => 0)',
      () => [directory],
    ],
    ['a journal entry that is not there', 'FS404', 'journal_entries_missing', BEGIN_WORK, () => [NO_ID]],
  ])('%s: %s %s', async (_what, code, reason, sql, values) => {
    const error = await refused(service, code, reason, sql, values?.());
    expect(error.hint).toMatch(/\w{3}/);
    expect(error.detail).toBeUndefined();
  });

  test('a version in which the node was deleted', async () => {
    await service.query(RESTORE, [gone]);
    await refused(service, 'FS422', 'snapshots_deleted_check', REVERT, [gone, 2]);
  });

  test('a parent that is deleted', async () => {
    await service.query('select filestore.delete_node($1, recursive => true)', [directory]);
    await refused(service, 'FS404', 'nodes_parent_deleted', CREATE, [directory, 'x']);
    await refused(service, 'FS404', 'nodes_parent_deleted', RESTORE, [file]);
  });

  test('an idempotency key that belongs to another request', async () => {
    const begin = "select filestore.begin_command('move', $1, idempotency_key => $2)";
    await service.query(begin, [{ a: 1 }, file]);
    await refused(service, 'FS409', 'journal_entries_key_taken', begin, [{ a: 2 }, file]);
    const insertEntry =
      "insert into filestore.journal_entries (command, idempotency_key, status) values ('move', $1, 'running')";
    await refused(service, '23505', 'journal_entries_idempotency_key', insertEntry, [file]);
  });

  test('a journal entry that is queued, running or ended, with a reason for each', async () => {
    const { id } = await one(service, "select (entry).id from filestore.begin_command('x', queue => true)");
    const start = 'select filestore.start_command($1)';
    const finish = 'select filestore.finish_command($1, $2)';
    await refused(service, 'FS409', 'journal_entries_queued', BEGIN_WORK, [id]);
    await refused(service, 'FS409', 'journal_entries_queued', finish, [id, 'succeeded']);
    await service.query(start, [id]);
    await refused(service, 'FS409', 'journal_entries_running', start, [id]);
    await service.query(finish, [id, 'canceled']);
    await refused(service, 'FS409', 'journal_entries_ended', start, [id]);
    await refused(service, 'FS409', 'journal_entries_ended', BEGIN_WORK, [id]);
    await refused(service, 'FS409', 'journal_entries_ended', finish, [id, 'succeeded']);
  });

  test('a fold in a transaction that has written, or at another isolation level', async () => {
    const fold = 'select filestore.fold_rollups()';
    await service.query('begin');
    await service.query(SIZE, [file]);
    await refused(service, 'FS409', 'first_write_check', fold);
    await service.query('rollback');
    await service.query('begin isolation level repeatable read');
    await refused(service, 'FS409', 'read_committed_check', fold);
    await service.query('rollback');
  });
});

test('a row that breaks a rule of is_sound only, with the name of the check', async () => {
  const explain = 'select filestore.refuse_unsound(n) from filestore.nodes n where n.id = $1';
  const error = await refused(service, '23514', 'nodes_sound_check', explain, [file]);
  expect(error.hint).toContain('filestore.is_sound');
});

test('the owner is refused a version with the same reason for nodes and mounts', async () => {
  const owner = await database().connect();
  const setMount = 'update filestore.backend_mounts set version = 7 where id = $1';
  await refused(owner, 'FS409', 'version_check', SET('version = 7'), [file]);
  await refused(owner, 'FS422', 'version_check', SET('version = version + 1'), [file]);
  await refused(owner, 'FS409', 'version_check', setMount, [mount.id]);
});

test('an operator is refused an invalid age, and the removal of a mount that is not empty', async () => {
  const purge = "select filestore.purge_deleted(interval '-1 day', 10)";
  await refused(operator, 'FS422', 'retention_check', purge);
  const remove = 'select filestore.delete_mount(mount_key) from filestore.backend_mounts where id = $1';
  await refused(operator, 'FS409', 'nodes_not_empty', remove, [mount.id]);
});

test('every reason of FS422 ends in "_check", like those of the tables', async () => {
  const reasons = await database().query<{ reason: string }>(
    String.raw`select distinct found[1] as reason
     from pg_proc p, regexp_matches(p.prosrc, '''FS422'',\s+constraint\s*=\s*''(\w+)''', 'g') found
     where p.pronamespace = 'filestore'::regnamespace`,
  );
  expect(reasons.length).toBeGreaterThan(20);
  expect(reasons.filter(({ reason }) => !reason.endsWith('_check'))).toEqual([]);
});
