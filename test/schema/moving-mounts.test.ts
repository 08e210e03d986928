import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { verifySchema } from '../../src/index.ts';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { SWITCH_OFF_CONFORMING_STRINGS } from '../support/databases/database-settings.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import {
  closeMount,
  createMovingMount,
  dropPublications,
  holderOf,
  MOVING,
  publishMount,
} from '../support/rows/moving-mount.ts';
import { createMount, createNode, deleteNode, foldAll, type Mount, one } from '../support/rows/nodes.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseEmptiedAfterEachTest();

let mount: Mount;
let other: Mount;
let key: string;
let directory: string;
let file: string;
let tombstone: string;
let entry: string;

const WRONG_STEP = { code: 'FS409', constraint: 'moves_step_check' };

const query = <Row extends Record<string, unknown>>(text: string, values: unknown[] = []) =>
  database().query<Row>(text, values);
const publish = () => publishMount(database(), key);
/** As finish_move does it, which needs a target. */
const finish = () => query("update filestore.moves set step = 'finished', finished_at = now()");
const problems = () => query('select problem, detail from filestore.check_integrity()');

beforeEach(async () => {
  ({ mount, key, directory, file, tombstone, entry } = await createMovingMount(database()));
  other = await createMount(database());
  await query('call filestore.prepare_moves(true)');
});
afterEach(() => dropPublications(database()));

test.each(['repeatable read', 'serializable'])(
  'the journal of a mount is kept from a transaction with isolation level %s, which may be older than the move',
  async (level) => {
    const pruner = await database().connect();
    await query("select filestore.finish_command($1, 'succeeded', '{}')", [entry]);
    await pruner.query(`begin isolation level ${level}`);
    await pruner.query('select 1');
    await publish();
    await expect(pruner.query("select filestore.prune_journal('0')")).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'read_committed_check',
    });
  },
);

test('a write to a mount that is not here names the mount by its id', async () => {
  const insert =
    "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values (404, $1, 'f', 'file')";
  await expect(query(insert, [directory])).rejects.toMatchObject({
    ...MOVING,
    message: 'mount 404 is moving, and this server does not take this write',
  });
});

describe('a published mount', () => {
  beforeEach(publish);

  test('is written as before', async () => {
    await query("select filestore.create_node($1, 'new')", [directory]);
    await query('update filestore.nodes set size_bytes = 5 where id = $1', [file]);
    await query("select filestore.move_node($1, new_name => 'e')", [directory]);
    await query('select filestore.record_sightings(array[$1::bigint])', [file]);
    await query("select filestore.finish_command($1, 'succeeded', '{}')", [entry]);
    await foldAll(database());
    expect(await problems()).toEqual([]);
  });

  test('is written while another session changes its row', async () => {
    const [owner, service] = [await database().connect(), await database().connect()];
    await owner.query('begin');
    await owner.query("update filestore.backend_mounts set state = 'offline' where id = $1", [mount.id]);
    const write = await sendAndBlock(service, 'update filestore.nodes set size_bytes = 5 where id = $1', [
      file,
    ]);
    expect(write.waits).toBe(false);
    await owner.query('commit');
  });

  test('publishes its own rows alone', async () => {
    const rows = await query<{ tablename: string; rowfilter: string }>(
      'select tablename, rowfilter from pg_publication_tables order by tablename',
    );
    expect(rows).toEqual([
      { tablename: 'backend_mounts', rowfilter: `(id = ${mount.id})` },
      { tablename: 'journal_entries', rowfilter: `(backend_mount_id = ${mount.id})` },
      { tablename: 'moves', rowfilter: expect.stringMatching(/^\(\(id = \d+\) AND \(written_by = 0\)\)$/) },
      { tablename: 'nodes', rowfilter: `(backend_mount_id = ${mount.id})` },
      { tablename: 'snapshots', rowfilter: `(backend_mount_id = ${mount.id})` },
    ]);
  });

  test('moves to one server only', async () => {
    await publish();
    await expect(query('select filestore.start_move($1, 8)', [key])).rejects.toMatchObject(WRONG_STEP);
    await expect(query('select filestore.start_move($1, 0)', [key])).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'database_number_check',
    });
  });

  test('has a ticket that is read again by its number, and not once it was taken back', async () => {
    const ticket =
      'select filestore.start_move($1, 7, m.id) as ticket from filestore.moves m where m.mount_key = $1';
    expect(await query(ticket, [key])).toEqual([{ ticket: expect.objectContaining({ target: 7 }) }]);
    await query('call filestore.cancel_move($1)', [key]);
    await expect(query(ticket, [key])).rejects.toMatchObject(WRONG_STEP);
    expect(await query('select step from filestore.moves where mount_key = $1', [key])).toEqual([
      { step: 'canceled' },
    ]);
  });

  test('cannot be erased, which would erase it on its new server too, whatever the settings of the session', async () => {
    await query("update filestore.backend_mounts set state = 'inactive' where id = $1", [mount.id]);
    await expect(query('call filestore.erase_mount($1)', [key])).rejects.toMatchObject(MOVING);
    await query(SWITCH_OFF_CONFORMING_STRINGS);
    await expect(query('call filestore.erase_mount($1)', [key])).rejects.toMatchObject(MOVING);
  });

  test.each<[string, string]>([
    ['key', "mount_key = 'other-key'"],
    ['place', "root_path = '/elsewhere'"],
  ])('keeps its %s, by which its steps and its target find it', async (_, change) => {
    const rename = `update filestore.backend_mounts set ${change} where id = $1`;
    await expect(query(rename, [mount.id])).rejects.toMatchObject({
      ...MOVING,
      message: expect.stringContaining('keeps its key and place'),
    });
    await query('call filestore.cancel_move($1)', [key]);
    await query(rename, [mount.id]);
  });

  test('keeps its tombstones and its journal, also when the owner deletes a row', async () => {
    await query("select filestore.finish_command($1, 'succeeded', '{}')", [entry]);
    expect(await one(database(), "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 0 });
    expect(await one(database(), "select filestore.prune_journal('0') as pruned")).toEqual({ pruned: 0 });
    await expect(query('delete from filestore.nodes where id = $1', [tombstone])).rejects.toMatchObject(
      MOVING,
    );
  });

  test('is not filled by a backfill, which adds no versions, and does not move while one is unfinished', async () => {
    const backfill = "call filestore.backfill('nodes', 'storage_class', $$'x'$$, pause => '0')";
    await expect(query(backfill)).rejects.toMatchObject(MOVING);
    const otherKey = await keyOf(database(), other.id);
    await expect(query('select filestore.start_move($1, 7)', [otherKey])).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'moves_backfill_check',
      message: expect.stringMatching(/^backfill \d+ of filestore\.nodes\.storage_class is unfinished,/),
    });
  });

  test('keeps the guards on', async () => {
    await expect(query('call filestore.prepare_moves(false)')).rejects.toMatchObject(MOVING);
    await query('alter table filestore.nodes disable trigger nodes_guard_move');
    expect(await problems()).toEqual([
      { problem: 'guard switched off', detail: 'trigger nodes_guard_move on filestore.nodes' },
    ]);
  });
});

describe('a closed mount', () => {
  beforeEach(async () => {
    await publish();
    await closeMount(database(), mount);
  });

  test.each<[string, string, () => unknown[]]>([
    ['writable_mount', 'select filestore.writable_mount($1)', () => [key]],
    ['create_node', "select filestore.create_node($1, 'new')", () => [directory]],
    [
      'create_nodes',
      "select filestore.create_nodes(jsonb_build_array(jsonb_build_object('parent_id', $1::bigint, 'name', 'new')))",
      () => [directory],
    ],
    ['ensure_directory', "select filestore.ensure_directory($1, 'd/e')", () => [key]],
    ['upsert_file', "select filestore.upsert_file($1, 'd/f', 7)", () => [key]],
    ['merge_metadata', `select filestore.merge_metadata($1, '{"a": 1}')`, () => [file]],
    ['move_node', "select filestore.move_node($1, new_name => 'g')", () => [file]],
    ['move_node of a directory', "select filestore.move_node($1, new_name => 'g')", () => [directory]],
    ['copy_tree', "select filestore.copy_tree($1, $2, 'copy')", () => [file, mount.rootId]],
    ['delete_node', 'select filestore.delete_node($1)', () => [file]],
    ['delete_batch', 'select filestore.delete_batch($1, 10, now())', () => [directory]],
    ['restore_node', 'select filestore.restore_node($1)', () => [tombstone]],
    ['record_sightings', 'select filestore.record_sightings(array[$1::bigint])', () => [file]],
    ['begin_command', "select filestore.begin_command('move', mount_id => $1)", () => [mount.id]],
    ['finish_command', "select filestore.finish_command($1, 'succeeded', '{}')", () => [entry]],
    [
      'an insert',
      "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values ($1, $2, 'new', 'file')",
      () => [mount.id, directory],
    ],
    [
      'an insert as a loader writes it',
      "insert into filestore.nodes (backend_mount_id, parent_id, parent_path, name, kind) values ($1, $2, 'd', 'new', 'file')",
      () => [mount.id, directory],
    ],
    ['an update', 'update filestore.nodes set size_bytes = 5 where id = $1', () => [file]],
    ['a delete', 'delete from filestore.nodes where id = $1', () => [tombstone]],
    [
      'an insert into the journal',
      "insert into filestore.journal_entries (backend_mount_id, command) values ($1, 'move')",
      () => [mount.id],
    ],
    [
      'an update of the mount',
      "update filestore.backend_mounts set state = 'offline' where id = $1",
      () => [mount.id],
    ],
  ])('refuses %s', async (_what, text, values) => {
    await expect(query(text, values())).rejects.toMatchObject({
      ...MOVING,
      message: expect.stringMatching(
        /^mount ".*" is moving, and this server does not take (its writes|this write)$/,
      ),
      hint: expect.stringContaining('the server that holds the mount'),
    });
  });

  test('is the only one that refuses writes of a repeatable read transaction', async () => {
    const service = await database().connect();
    await service.query('begin isolation level repeatable read');
    await createNode(service, other, other.rootId, 'f');
    await expect(
      service.query('update filestore.nodes set size_bytes = 5 where id = $1', [file]),
    ).rejects.toMatchObject(MOVING);
    await service.query('rollback');
  });

  test('is read as before', async () => {
    expect(await one(database(), "select path from filestore.node_by_path($1, 'd/f')", [key])).toEqual({
      path: 'd/f',
    });
    expect(
      await one(database(), 'select file_count::integer from filestore.directory_totals($1)', [mount.rootId]),
    ).toEqual({ file_count: 1 });
  });

  test('leaves other mounts, folds, purges and pruning alone', async () => {
    const node = await createNode(database(), other, other.rootId, 'f');
    await deleteNode(database(), node);
    await foldAll(database());
    expect(await one(database(), "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 1 });
    expect(await query("select * from filestore.expire_commands('0')")).toEqual([]);
    await query("select filestore.begin_command('scan')");
    expect(await problems()).toEqual([]);
  });

  test('takes writes again when the move is taken back', async () => {
    await query('call filestore.cancel_move($1)', [key]);
    await query('call filestore.cancel_move($1)', [key]);
    await query("select filestore.create_node($1, 'new')", [directory]);
    expect(await holderOf(database(), mount)).toBeNull();
    await query('call filestore.prepare_moves(false)');
    expect(await problems()).toEqual([]);
    expect(await verifySchema({ connection: connectionTo(database().url) })).toMatchObject({ state: 'same' });
  });

  test('says that it is moving also while it is erased here', async () => {
    await finish();
    await query('update filestore.backend_mounts set erasing_since = now() where id = $1', [mount.id]);
    await expect(query('select filestore.writable_mount($1)', [key])).rejects.toMatchObject(MOVING);
  });

  test('is erased with its journal, once its move is finished', async () => {
    await expect(query('call filestore.erase_mount($1, 1)', [key])).rejects.toMatchObject(MOVING);
    await finish();
    // As after a call that was killed.
    await query('update filestore.backend_mounts set erasing_since = now() where id = $1', [mount.id]);
    await query("select filestore.begin_command('scan', mount_id => $1)", [other.id]);
    const removal = 'delete from filestore.journal_entries where backend_mount_id = $1';
    await expect(query(removal, [other.id])).rejects.toMatchObject({ constraint: 'journal_entries_open' });
    await query('call filestore.erase_mount($1, 1)', [key]);
    expect(await query('select distinct backend_mount_id as id from filestore.nodes')).toEqual([
      { id: other.id },
    ]);
    expect(await query('select backend_mount_id from filestore.journal_entries')).toEqual([
      { backend_mount_id: other.id },
    ]);
    await query('call filestore.prepare_moves(false)');
    expect(await problems()).toEqual([]);
  });

  test('keeps the guards on when its move is finished, until it is erased', async () => {
    await finish();
    await query(
      `insert into filestore.moves (id, written_by, mount_id, mount_key, source_number, target_number, step, timeline, finished_at)
       overriding system value values (987654, 0, 404, 'a-mount-that-is-gone', 0, 7, 'finished', '1', now())`,
    );
    await expect(query('call filestore.prepare_moves(false)')).rejects.toMatchObject({
      ...MOVING,
      message: `mount "${key}" is moving between servers`,
    });
  });
});
