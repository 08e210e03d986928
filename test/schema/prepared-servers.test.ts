import { beforeEach, describe, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { verifySchema } from '../../src/index.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { rolesForEachTest } from '../support/roles/roles.ts';
import { createMount, one } from '../support/rows/nodes.ts';
import { keyOf } from '../support/rows/writer-functions.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();
const createRole = rolesForEachTest(database);
let key: string;

const query = <Row extends Record<string, unknown>>(text: string, values: unknown[] = []) =>
  database().query<Row>(text, values);
/** The number 7 is that of another server. */
const publish = () => query('select filestore.start_move($1, 7)', [key]);

/** Runs a statement in another session. @returns its end, and whether it waits for a lock. */
async function start(text: string, values: unknown[] = []) {
  const client = await database().connect();
  const { pid } = await one(client, 'select pg_backend_pid() as pid');
  const end = client.query(text, values).then(
    () => 'done',
    (error) => error.constraint ?? error.message,
  );
  const waits = async () =>
    (await one(database(), 'select pg_blocking_pids($1) as pids', [pid])).pids.length > 0;
  return { end, waits };
}

beforeEach(async () => {
  key = await keyOf(database(), (await createMount(database())).id);
});

test('a server that is not prepared for moves publishes, closes and receives nothing', async () => {
  const off = { code: 'FS409', constraint: 'move_guards_off' };
  await expect(publish()).rejects.toMatchObject(off);
  for (const call of ["accept_move('{}')", 'prove_mount($1)', 'close_mount($1, null)', 'finish_move($1)']) {
    await expect(query(`select filestore.${call}`, call.includes('$1') ? [key] : [])).rejects.toMatchObject(
      off,
    );
  }
});

test('a server is prepared although a table is locked for a while', async () => {
  const service = await database().connect();
  await service.query('begin');
  await service.query('lock table filestore.journal_entries in access share mode');
  const preparing = database()
    .connect()
    .then((client) => client.query('call filestore.prepare_moves(true)'));
  const { pid } = await one(service, 'select pg_backend_pid() as pid');
  const blockedBy = async () =>
    (await query('select from pg_stat_activity where $1 = any (pg_blocking_pids(pid))', [pid])).length;
  await until(async () => (await blockedBy()) > 0);
  await until(async () => (await blockedBy()) === 0);
  await service.query('commit');
  await preparing;
  await publish();
});

describe('calls that prepare a server at the same time', () => {
  const identities = async () =>
    (
      await query<{ relname: string }>(
        `select relname from pg_class where relreplident = 'f' and relnamespace = 'filestore'::regnamespace order by relname`,
      )
    ).map(({ relname }) => relname);
  const enabled = () =>
    query(
      "select from pg_trigger where tgfoid = 'filestore.guard_move()'::regprocedure and tgenabled <> 'D'",
    );

  test('with a move that begins: the server stays prepared', async () => {
    await query('call filestore.prepare_moves(true)');
    const vacuum = await database().connect();
    await vacuum.query('begin');
    await vacuum.query('lock table filestore.nodes in share update exclusive mode');
    const moving = await start('select filestore.start_move($1, 7)', [key]);
    await until(moving.waits);
    const undoing = await start('call filestore.prepare_moves(false)');
    await until(undoing.waits);
    await vacuum.query('commit');
    expect(await moving.end).toBe('done');
    expect(await undoing.end).toBe('backend_mounts_moving');
    expect(await identities()).toEqual(['journal_entries', 'nodes', 'snapshots']);
    expect(await enabled()).toHaveLength(4);
    await query('call filestore.cancel_move($1)', [key]);
  });

  test('with opposite wishes: the server ends prepared, completely', async () => {
    await query('call filestore.prepare_moves(true)');
    const reader = await database().connect();
    await reader.query('begin');
    await reader.query('select from filestore.snapshots');
    const undoing = await start('call filestore.prepare_moves(false)');
    await until(async () => (await enabled()).length === 0);
    const doing = await start('call filestore.prepare_moves(true)');
    await until(async () => (await enabled()).length === 4);
    await reader.query('commit');
    expect(await undoing.end).toBe('moves_preparing');
    expect(await doing.end).toBe('done');
    expect(await identities()).toEqual(['journal_entries', 'nodes', 'snapshots']);
    expect(await enabled()).toHaveLength(4);
  });
});

test('a server whose log has no whole rows is not prepared, and says so while a mount moves', async () => {
  await query('call filestore.prepare_moves(true)');
  await publish();
  await query('alter table filestore.nodes replica identity default');
  await expect(query('select filestore.prove_mount($1)', [key])).rejects.toMatchObject({
    constraint: 'move_guards_off',
  });
  expect(await query('select problem from filestore.view_filestore_mount_moves')).toEqual([
    { problem: 'this server is not prepared for moves: call filestore.prepare_moves(true)' },
  ]);
  await query('call filestore.prepare_moves(true)');
  await query('call filestore.cancel_move($1)', [key]);
});

test('a publication that a canceled move left is dropped when the slot of the move is gone, whatever other slots there are', async () => {
  const superuser = await database().connectAsSuperuser();
  await query('call filestore.prepare_moves(true)');
  await publish();
  await query('call filestore.cancel_move($1)', [key]);
  const { move } = await one(database(), 'select id as move from filestore.moves');
  const publications = () => query('select pubname from pg_publication');
  const slots = [`${database().name}_stranger`, `filestore.move_slot(${move})`];
  const [stranger, own] = slots.map((name) => (name.includes('(') ? name : `'${name}'`));
  for (const slot of [stranger, own])
    await superuser.query(`select pg_create_physical_replication_slot(${slot})`);
  try {
    await query('call filestore.prepare_moves(false)');
    expect(await publications()).toHaveLength(1);
    await superuser.query(`select pg_drop_replication_slot(${own})`);
    await query('call filestore.prepare_moves(false)');
    expect(await publications()).toEqual([]);
  } finally {
    await superuser.query(`select pg_drop_replication_slot(${stranger})`);
  }
});

test('a reader sees a move on its source at each step', async () => {
  await query('call filestore.prepare_moves(true)');
  await publish();
  const role = await createRole();
  await query("select filestore.grant_access($1, 'reader')", [role.name]);
  const reader = await role.connect();
  for (const step of ['copying', 'marking', 'proved', 'closed', 'released', 'canceling']) {
    await query('update filestore.moves set step = $1', [step]);
    const { rows } = await reader.query('select step, problem from filestore.view_filestore_mount_moves');
    expect(rows).toEqual([{ step, problem: null }]);
  }
  await query('call filestore.cancel_move($1)', [key]);
});

test('a server that is prepared has the same schema, and whole rows in its log', async () => {
  await query('call filestore.prepare_moves(true)');
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

test.each(['nodes', 'journal_entries'])(
  'a server whose %s got the ids of another number moves no mount, since the proof finds new rows by their ids',
  async (table) => {
    await query('call filestore.prepare_moves(true)');
    await query(`alter table filestore.${table} alter column id
      set minvalue 9006099743113217 set maxvalue 9007199254740991 set start with 9006099743113217 restart`);
    await expect(publish()).rejects.toMatchObject({ code: 'FS409', constraint: 'database_number_check' });
  },
);

test('a server lets no service say who holds a mount', async () => {
  const role = await createRole();
  await query("select filestore.grant_access($1, 'service')", [role.name]);
  const client = await role.connect();
  await expect(client.query('update filestore.backend_mounts set held_by = null')).rejects.toMatchObject({
    code: '42501',
  });
});
