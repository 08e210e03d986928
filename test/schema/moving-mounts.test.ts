import type { Client } from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { verifySchema } from '../../src/index.ts';
import { sendAndBlock } from '../support/concurrency.ts';
import {
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  foldAll,
  type Mount,
  one,
} from '../support/nodes.ts';
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

const MOVING = { code: 'FS409', constraint: 'backend_mounts_moving' };
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
  [mount, other] = [await createMount(database()), await createMount(database())];
  key = await keyOf(database(), mount.id);
  directory = await createDirectory(database(), mount, mount.rootId, 'd');
  file = await createNode(database(), mount, directory, 'f');
  tombstone = await createNode(database(), mount, directory, 'gone');
  await deleteNode(database(), tombstone);
  entry = (
    await one(database(), "select (b.entry).id from filestore.begin_command('scan', mount_id => $1) b", [
      mount.id,
    ])
  ).id;
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

describe('on its new server', () => {
  // As the subscription writes it.
  const arrive = (held: number) =>
    query('update filestore.backend_mounts set held_by = $2 where id = $1', [mount.id, held]);
  const receive = () => query("call filestore.receive_mount($1, 'move_here')", [key]);

  beforeEach(async () => {
    await query(
      "create subscription move_here connection 'host=nowhere' publication move_away with (connect = false, slot_name = none)",
    );
    await query('set session_replication_role = replica');
    await query('delete from filestore.rollup_deltas');
    await query('delete from filestore.rollups where node_id = any ($1)', [[mount.rootId, directory]]);
    await query('reset session_replication_role');
  });
  // The database cannot be dropped with one.
  afterEach(() => query('drop subscription move_here'));

  test('a mount is refused while it arrives, and not checked', async () => {
    await arrive(9);
    await expect(query("select filestore.create_node($1, 'new')", [directory])).rejects.toMatchObject(MOVING);
    await expect(query('select filestore.record_sightings(array[$1::bigint])', [file])).rejects.toMatchObject(
      MOVING,
    );
    expect(await one(database(), "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 0 });
    expect(await problems()).toEqual([]);
  });

  test('a mount is written once it is received, and its totals are stale until they are recounted', async () => {
    await arrive(-1);
    await receive();
    await query("select filestore.create_node($1, 'new')", [directory]);
    await foldAll(database());
    const totals =
      'select consistency_state as state, file_count::integer as files from filestore.directory_totals($1)';
    expect(await one(database(), totals, [mount.rootId])).toMatchObject({ state: 'stale' });
    await query('select filestore.recount_rollups($1)', [key]);
    expect(await one(database(), totals, [mount.rootId])).toEqual({ state: 'up_to_date', files: 2 });
    expect(await problems()).toEqual([]);
    await receive();
  });

  /** Calls receive_mount, and returns once it waits. */
  const beginToReceive = async () => {
    const { pid } = await one(service, 'select pg_backend_pid() as pid');
    const received = service.query("call filestore.receive_mount($1, 'move_here')", [key]);
    // Its failure is reported when it is awaited.
    received.catch(() => undefined);
    const waiting = "select from pg_stat_activity where pid = $1 and wait_event = 'PgSleep'";
    await until(async () => (await query(waiting, [pid])).length === 1);
    return { received, pid };
  };

  test('receive_mount waits until the mount is closed', async () => {
    await arrive(9);
    const { received } = await beginToReceive();
    await expect(query('select filestore.writable_mount($1)', [key])).rejects.toMatchObject(MOVING);
    await arrive(-1);
    await received;
    await query('select filestore.writable_mount($1)', [key]);
  });

  test('receive_mount continues when it is called again after its session was ended', async () => {
    await arrive(9);
    const { received, pid } = await beginToReceive();
    await query('select pg_terminate_backend($1)', [pid]);
    await expect(received).rejects.toThrow();
    await arrive(-1);
    await receive();
    expect(await heldBy()).toBeNull();
  });

  test('receive_mount waits until every table is copied', async () => {
    await query('set allow_system_table_mods = on');
    await query(`insert into pg_subscription_rel (srsubid, srrelid, srsubstate)
      select oid, 'filestore.nodes'::regclass, 'd' from pg_subscription where subname = 'move_here'
        and subdbid = (select oid from pg_database where datname = current_database())`);
    await arrive(-1);
    const { received } = await beginToReceive();
    expect(await heldBy()).toBe(-1);
    await query("update pg_subscription_rel set srsubstate = 'r'");
    await received;
    expect(await heldBy()).toBeNull();
  });

  test('receive_mount refuses a server with the same number, and a subscription that is not there', async () => {
    await arrive(0);
    await expect(receive()).rejects.toMatchObject({ code: 'FS409', constraint: 'database_number_check' });
    await expect(query("call filestore.receive_mount($1, 'nothing')", [key])).rejects.toMatchObject({
      code: 'FS404',
      constraint: 'move_subscription_missing',
    });
  });

  test('a mount that arrived in part is erased, with its journal', async () => {
    await arrive(9);
    await query('call filestore.erase_mount($1)', [key]);
    expect(await query('select from filestore.backend_mounts where id = $1', [mount.id])).toEqual([]);
    expect(await query('select from filestore.journal_entries')).toEqual([]);
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
