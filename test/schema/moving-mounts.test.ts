import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { verifySchema } from '../../src/index.ts';
import { sendAndBlock } from '../support/concurrency.ts';
import { createMovingMount, MOVING } from '../support/moving-mount.ts';
import { createMount, createNode, deleteNode, foldAll, type Mount, one } from '../support/nodes.ts';
import { rolesForEachTest } from '../support/roles.ts';
import { databaseForEachTest } from '../support/test-database.ts';
import { until } from '../support/until.ts';
import { keyOf } from '../support/writer-functions.ts';

const database = databaseForEachTest();
const createRole = rolesForEachTest(database);

let service: Client;
let mount: Mount;
let other: Mount;
let key: string;
let directory: string;
let file: string;
let tombstone: string;
let entry: string;

const PUBLICATION = 'move_away';

const query = (text: string, values: unknown[] = []) => database().query(text, values);
const publish = () => query('select filestore.publish_mount($1, $2)', [key, PUBLICATION]);
const close = () => query('select filestore.close_mount($1)', [key]);
const heldBy = async () =>
  (await one(database(), 'select held_by from filestore.backend_mounts where id = $1', [mount.id])).held_by;
const problems = () => query('select problem, detail from filestore.check_integrity()');

const blockedBy = async (pid: number) => {
  const waiting = 'select from pg_stat_activity where $1 = any (pg_blocking_pids(pid))';
  return (await query(waiting, [pid])).length;
};

beforeEach(async () => {
  ({ mount, key, directory, file, tombstone, entry } = await createMovingMount(database()));
  other = await createMount(database());
  service = await database().connect();
  await query('call filestore.prepare_moves(true)');
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
    expect(await one(database(), "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 1 });
    expect(await problems()).toEqual([]);
  });

  test('publishes its own rows alone', async () => {
    const rows = await query(
      'select tablename, rowfilter from pg_publication_tables where pubname = $1 order by tablename',
      [PUBLICATION],
    );
    expect(rows).toEqual([
      { tablename: 'backend_mounts', rowfilter: `(id = ${mount.id})` },
      ...['journal_entries', 'nodes', 'snapshots'].map((tablename) => ({
        tablename,
        rowfilter: `(backend_mount_id = ${mount.id})`,
      })),
    ]);
  });

  test('cannot be published again', async () => {
    await expect(query("select filestore.publish_mount($1, 'another')", [key])).rejects.toMatchObject(MOVING);
  });

  test('cannot be erased, which would erase it on its new server too', async () => {
    await query("update filestore.backend_mounts set state = 'inactive' where id = $1", [mount.id]);
    await expect(query('call filestore.erase_mount($1)', [key])).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'backend_mounts_published',
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
    await close();
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
      message: expect.stringContaining('is moving to another server'),
      hint: expect.stringContaining('the server that holds the mount'),
    });
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
    await query('select filestore.withdraw_mount($1, $2)', [key, PUBLICATION]);
    await query("select filestore.create_node($1, 'new')", [directory]);
    expect(await heldBy()).toBeNull();
    await query('call filestore.prepare_moves(false)');
    expect(await problems()).toEqual([]);
    expect(await verifySchema({ connection: connectionTo(database().url) })).toMatchObject({ state: 'same' });
  });

  test('says that it is moving also while it is erased here', async () => {
    await query(`drop publication ${PUBLICATION}`);
    await query('update filestore.backend_mounts set erasing_since = now() where id = $1', [mount.id]);
    await expect(query('select filestore.writable_mount($1)', [key])).rejects.toMatchObject(MOVING);
  });

  test('is erased with its journal, once it is not published any more', async () => {
    await query(`drop publication ${PUBLICATION}`);
    await query('call filestore.erase_mount($1, 1)', [key]);
    expect(await query('select distinct backend_mount_id as id from filestore.nodes')).toEqual([
      { id: other.id },
    ]);
    expect(await query('select * from filestore.journal_entries')).toEqual([]);
    await query('call filestore.prepare_moves(false)');
    expect(await problems()).toEqual([]);
  });
});

describe('close_mount', () => {
  beforeEach(publish);

  test('waits for a transaction that has written, and refuses others in the meantime', async () => {
    const closer = await database().connect();
    await service.query('begin');
    await service.query('update filestore.nodes set size_bytes = 5 where id = $1', [file]);
    const closing = await sendAndBlock(closer, 'select filestore.close_mount($1)', [key]);
    expect(closing.waits).toBe(true);
    await expect(query("select filestore.create_node($1, 'late')", [directory])).rejects.toMatchObject(
      MOVING,
    );
    await service.query("select filestore.create_node($1, 'early')", [directory]);
    await service.query('commit');
    expect(await closing.outcome).toMatchObject({ ok: true });
    expect(await heldBy()).toBe(-1);
    expect(await query("select name from filestore.nodes where name in ('early', 'late')")).toEqual([
      { name: 'early' },
    ]);
  });

  test.each(['repeatable read', 'serializable'])(
    'makes a %s transaction that began before repeat itself',
    async (level) => {
      await service.query(`begin isolation level ${level}`);
      await service.query('select from filestore.nodes');
      await close();
      await expect(
        service.query(
          "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values ($1, $2, 'n', 'file')",
          [mount.id, directory],
        ),
      ).rejects.toMatchObject({ code: '40001' });
    },
  );

  test('refuses a mount that is not published, or closed already', async () => {
    const unpublished = { code: 'FS409', constraint: 'backend_mounts_unpublished' };
    const otherKey = await keyOf(database(), other.id);
    await expect(query('select filestore.close_mount($1)', [otherKey])).rejects.toMatchObject(unpublished);
    await close();
    await expect(close()).rejects.toMatchObject(unpublished);
  });
});

describe('a server', () => {
  test('that is not prepared for moves publishes, closes and receives nothing', async () => {
    await query('call filestore.prepare_moves(false)');
    const off = { code: 'FS409', constraint: 'move_guards_off' };
    await expect(publish()).rejects.toMatchObject(off);
    await expect(close()).rejects.toMatchObject(off);
    await expect(query("call filestore.receive_mount($1, 'x')", [key])).rejects.toMatchObject(off);
  });

  test('is prepared although a table is locked for a while', async () => {
    await query('call filestore.prepare_moves(false)');
    await service.query('begin');
    await service.query('lock table filestore.journal_entries in access share mode');
    const preparing = database()
      .connect()
      .then((client) => client.query('call filestore.prepare_moves(true)'));
    const { pid } = await one(service, 'select pg_backend_pid() as pid');
    await until(async () => (await blockedBy(pid)) > 0);
    await until(async () => (await blockedBy(pid)) === 0);
    await service.query('commit');
    await preparing;
    await publish();
  });

  test('that is prepared has the same schema, and whole rows in its log', async () => {
    expect(await verifySchema({ connection: connectionTo(database().url) })).toMatchObject({ state: 'same' });
    const identities = () =>
      query(
        `select relname, relreplident from pg_class where relreplident <> 'd' and relkind = 'r' and relnamespace = 'filestore'::regnamespace order by relname`,
      );
    expect(await identities()).toEqual(
      ['journal_entries', 'nodes', 'snapshots'].map((relname) => ({ relname, relreplident: 'f' })),
    );
    await query('call filestore.prepare_moves(false)');
    expect(await identities()).toEqual([]);
  });

  test('lets no service say who holds a mount', async () => {
    const role = await createRole();
    await query("select filestore.grant_access($1, 'service')", [role.name]);
    const client = await role.connect();
    await expect(client.query('update filestore.backend_mounts set held_by = null')).rejects.toMatchObject({
      code: '42501',
    });
  });
});
