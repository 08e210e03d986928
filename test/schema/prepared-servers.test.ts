import { beforeEach, expect, test } from 'vitest';
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
