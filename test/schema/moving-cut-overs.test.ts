import type { Client } from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { asAdmin, databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import {
  closeMount,
  createMovingMount,
  dropPublications,
  holderOf,
  MOVING,
  publishMount,
} from '../support/rows/moving-mount.ts';
import { type Mount, one } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

let service: Client;
let mount: Mount;
let key: string;
let directory: string;
let file: string;
let entry: string;

const query = (text: string, values: unknown[] = []) => database().query(text, values);
const publish = () => publishMount(database(), key);

beforeEach(async () => {
  ({ mount, key, directory, file, entry } = await createMovingMount(database()));
  service = await database().connect();
  await query('call filestore.prepare_moves(true)');
});
afterEach(() => dropPublications(database()));

describe('a cut-over that ran out of time', () => {
  const NEW = "select filestore.create_node($1, 'new')";

  beforeEach(async () => {
    await publish();
    await closeMount(database(), mount);
    await query("update filestore.moves set closed_until = now() - interval '1 second'");
  });

  test('is taken back by the next writer, and the mount is open again', async () => {
    await query('select filestore.writable_mount($1)', [key]);
    await query(NEW, [directory]);
    expect(await holderOf(database(), mount)).toBe(0);
    expect(await one(database(), 'select step from filestore.moves')).toEqual({ step: 'proved' });
  });

  test.each(['commit', 'rollback'])(
    'is taken back by one writer, and others neither wait for it nor need its %s',
    async (end) => {
      await service.query('begin');
      await service.query(NEW, [directory]);
      await query("select filestore.create_node($1, 'late')", [directory]);
      await service.query(end);
      await query("select filestore.create_node($1, 'later')", [directory]);
      expect(await holderOf(database(), mount)).toBe(0);
    },
  );

  test('waits for no transaction that only locks the row of the move', async () => {
    await service.query('begin');
    await service.query('select from filestore.moves for share');
    await query(NEW, [directory]);
  });

  test('lets the mount itself be changed, before any node is written', async () => {
    await query("update filestore.backend_mounts set state = 'offline' where id = $1", [mount.id]);
    expect(
      await one(database(), 'select state from filestore.backend_mounts where id = $1', [mount.id]),
    ).toEqual({
      state: 'offline',
    });
  });

  test('refuses a statement that began before the mark, like an open mount', async () => {
    await query("update filestore.moves set marked_at = clock_timestamp() + interval '1 hour'");
    await expect(query(NEW, [directory])).rejects.toMatchObject(MOVING);
  });

  test.each(['repeatable read', 'serializable'])(
    'makes a %s transaction that does not know of the release repeat itself',
    async (level) => {
      await service.query(`begin isolation level ${level}`);
      await service.query('select from filestore.nodes');
      await query("update filestore.moves set step = 'released'");
      await expect(service.query(NEW, [directory])).rejects.toMatchObject({ code: '40001' });
    },
  );

  test('takes no release any more, also when a writer left no trace in the row of its move', async () => {
    const release =
      "select filestore.release_mount($1, jsonb_build_object('move', m.id, 'mark', 0, 'attempt', 0, 'late', null)) from filestore.moves m";
    await expect(query(release, [key])).rejects.toMatchObject({
      constraint: 'moves_step_check',
      message: `the time of the cut-over of mount "${key}" is over, and this server takes its writes again`,
    });
  });

  test('is also refused on a promoted standby that does not know that it was closed', async () => {
    await query("update filestore.moves set step = 'proved', timeline = 'FFFFFFFF'");
    await query('update filestore.backend_mounts set held_by = 0 where id = $1', [mount.id]);
    await expect(query('select filestore.writable_mount($1)', [key])).rejects.toMatchObject(MOVING);
    await expect(query(NEW, [directory])).rejects.toMatchObject(MOVING);
  });

  test('stays closed on a promoted standby, which does not know whether the target has the mount', async () => {
    await query("update filestore.moves set timeline = 'FFFFFFFF'");
    await expect(query('select filestore.writable_mount($1)', [key])).rejects.toMatchObject(MOVING);
    await expect(query(NEW, [directory])).rejects.toMatchObject(MOVING);
    await expect(query('call filestore.cancel_move($1)', [key])).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'moves_timeline_check',
    });
  });
});

test.each(['repeatable read', 'serializable'])(
  'a %s transaction that does not know of a move repeats its write after it',
  async (level) => {
    await service.query(`begin isolation level ${level}`);
    await service.query('select from filestore.nodes');
    await publish();
    const write = 'update filestore.nodes set size_bytes = 5 where id = $1';
    await expect(service.query(write, [file])).rejects.toMatchObject({ code: '40001' });
    await service.query('rollback');
    await service.query(write, [file]);
  },
);

describe('a move that is being taken back', () => {
  const step = () => one(database(), 'select step from filestore.moves');

  test('stays so when a service writes, which it may', async () => {
    await publish();
    await closeMount(database(), mount);
    await query('select filestore.cancel_step($1, null, 10)', [key]);
    await service.query('begin');
    await service.query("select filestore.create_node($1, 'open')", [directory]);
    await query("select filestore.create_node($1, 'new')", [directory]);
    await query("update filestore.backend_mounts set state = 'offline' where id = $1", [mount.id]);
    expect(await step()).toEqual({ step: 'canceling' });
    await query('call filestore.cancel_move($1)', [key]);
    await service.query('commit');
    expect(await step()).toEqual({ step: 'canceled' });
    expect(await holderOf(database(), mount)).toBeNull();
  });

  test('names the process that holds the row of the mount, and who takes writes', async () => {
    await publish();
    await service.query('begin');
    await service.query('select from filestore.backend_mounts where id = $1 for update', [mount.id]);
    const { pid } = await one(service, 'select pg_backend_pid() as pid');
    await query('select filestore.cancel_step($1, null, 10)', [key]);
    await query('begin');
    await query("set local lock_timeout = '50ms'");
    const lock = 'select filestore.lock_moving_mount(m) from filestore.moves m';
    await expect(query(lock)).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'moves_writers_busy',
      message: `another transaction holds the row of mount "${key}" or of its move: process ${pid}`,
      hint: expect.stringMatching(/nothing has changed\. In the meantime, this server takes the writes/),
    });
    await query('rollback');
    expect(await step()).toEqual({ step: 'canceling' });
  });
});

test('a cut-over that writers hold up names their processes, and none of another database', async () => {
  await publish();
  await service.query('begin');
  await service.query('update filestore.nodes set size_bytes = 5 where id = $1', [file]);
  const { pid } = await one(service, 'select pg_backend_pid() as pid');
  await asAdmin(async (elsewhere) => {
    await elsewhere.query("select pg_advisory_lock_shared(hashtextextended('filestore.move', $1))", [
      mount.id,
    ]);
    await expect(
      query("select filestore.lock_out_writers(m, interval '50 ms') from filestore.moves m"),
    ).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'moves_writers_busy',
      message: expect.stringMatching(new RegExp(`: processes ${pid}$`)),
    });
  });
  await service.query('rollback');
});

test('a cut-over does not begin while no target reads the log, and says so', async () => {
  await publish();
  await expect(query('select filestore.require_reader(m) from filestore.moves m')).rejects.toMatchObject({
    code: 'FS409',
    constraint: 'moves_behind_check',
    message: `the target of mount "${key}" does not read the log`,
  });
});

describe('a mount before its mark', () => {
  test('refuses a statement that began before the mark, and takes the next one', async () => {
    await publish();
    await query(
      "update filestore.moves set step = 'proved', marked_at = clock_timestamp() + interval '1 second'",
    );
    await expect(query("select filestore.create_node($1, 'new')", [directory])).rejects.toMatchObject(MOVING);
    await query("update filestore.moves set marked_at = clock_timestamp() - interval '1 second'");
    await query("select filestore.create_node($1, 'new')", [directory]);
  });

  test.each(['repeatable read', 'serializable'])(
    'makes a %s transaction that began before it repeat itself',
    async (level) => {
      await publish();
      await service.query(`begin isolation level ${level}`);
      await service.query('select from filestore.nodes');
      await query('select filestore.prove_mount($1)', [key]);
      await expect(
        service.query("select filestore.finish_command($1, 'succeeded', '{}')", [entry]),
      ).rejects.toMatchObject({ code: '40001' });
    },
  );

  test('waits for the transactions that wrote before the mark', async () => {
    await publish();
    await service.query('begin');
    await service.query('update filestore.nodes set size_bytes = 5 where id = $1', [file]);
    const prove = async () => (await one(database(), 'select filestore.prove_mount($1) as r', [key])).r;
    expect(await prove()).toMatchObject({ waits_for: 'the mark' });
    expect(await prove()).toMatchObject({ waits_for: '1 transactions that have written to the mount' });
    await query("select filestore.create_node($1, 'new')", [directory]);
    await service.query('commit');
    expect(await prove()).toMatchObject({ mark: 1, early: expect.anything() });
  });
});
