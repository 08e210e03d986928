import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { rolesForFile } from '../support/roles/roles.ts';
import { begin, emptyJournal, finish, queueCommand } from '../support/rows/journal-entries.ts';
import { createMount, createNode, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';

const database = databaseForFile();
const createRole = rolesForFile(database);

/** A connection as a service, which may write nodes and the journal. */
let service: Client;
let other: Client;
let file: string;
let entry: string;

beforeAll(async () => {
  const role = await createRole();
  await database().query("select filestore.grant_access($1, 'service')", [role.name]);
  [service, other] = [await role.connect(), await role.connect()];
});

beforeEach(async () => {
  await service.query('rollback');
  await service.query('reset all');
  await emptyJournal(database());
  const mount = await createMount(database());
  file = await createNode(database(), mount, mount.rootId, 'f');
  entry = (await begin(service)).id;
});

const change = (client: Client = service) =>
  client.query('update filestore.nodes set size_bytes = size_bytes + 1 where id = $1', [file]);
const beginWork = (id: string = entry, client: Client = service) =>
  client.query('select filestore.begin_work($1)', [id]);
/** The entries that superseded the versions of the file. */
const links = async () =>
  (
    await database().query(
      'select superseded_by_journal_id as id from filestore.snapshots where id = $1 order by version',
      [file],
    )
  ).map(({ id }) => id);
const unlinked = { ...refusal('FS422', 'filestore.journal_entry_id'), constraint: 'journal_entry_id_check' };

describe('begin_work', () => {
  test('records the changes of its transaction, and no others, under the entry', async () => {
    await change();
    await service.query('begin');
    await beginWork();
    await change();
    await change();
    await finish(service, entry, 'succeeded');
    await service.query('commit');
    await change();
    expect(await links()).toEqual([null, entry, entry, null]);
  });

  test('that is rolled back to a savepoint leaves the earlier entry set', async () => {
    const { id: second } = await begin(service);
    await service.query('begin');
    await beginWork();
    await service.query('savepoint s');
    await beginWork(second);
    await change();
    await service.query('rollback to s');
    await change();
    await service.query('commit');
    expect(await links()).toEqual([entry]);
  });

  test('records the changes of a whole tree', async () => {
    const { rows } = await service.query(
      "select id from filestore.ensure_directory((select mount_key from filestore.backend_mounts b join filestore.nodes n on n.backend_mount_id = b.id where n.id = $1), 'a/b/c')",
      [file],
    );
    await service.query('begin');
    await beginWork();
    await service.query(
      "select filestore.move_node(parent_id, new_name => 'z') from filestore.nodes where id = $1",
      [rows[0].id],
    );
    await service.query('commit');
    expect(
      await one(database(), 'select superseded_by_journal_id as id from filestore.snapshots where id = $1', [
        rows[0].id,
      ]),
    ).toEqual({ id: entry });
  });

  test('is refused for an entry that is queued', async () => {
    await expect(beginWork(await queueCommand(service))).rejects.toMatchObject(refusal('FS409', 'is queued'));
  });

  test('keeps expire_commands from ending its entry until the transaction ends', async () => {
    await service.query('begin');
    await beginWork();
    const { id: idle } = await begin(other);
    const expired = await database().query("select id from filestore.expire_commands('0')");
    expect(expired).toEqual([{ id: idle }]);
    await change();
    await finish(service, entry, 'succeeded');
    await service.query('commit');
    expect(await links()).toEqual([entry]);
  });

  test('by setting filestore.journal_entry_id by hand also keeps another worker from finishing the entry', async () => {
    await service.query('begin');
    await service.query(
      "select set_config('filestore.journal_entry_id', $1 || '/' || pg_current_xact_id(), true)",
      [entry],
    );
    await change();
    const late = await sendAndBlock(other, "select filestore.finish_command($1, 'succeeded')", [entry]);
    expect(late.waits).toBe(true);
    await service.query('commit');
    expect(await late.outcome).toMatchObject({ ok: true });
    expect(await links()).toEqual([entry]);
  });
});

describe('a change of a node is refused', () => {
  const forge = (setting: string, isLocal: boolean) =>
    service.query("select set_config('filestore.journal_entry_id', $1, $2)", [setting, isLocal]);

  test.each([
    'x',
    '-1',
    '1.5',
    ' 1',
    '1e3',
    '9'.repeat(19),
    '0x1',
    '/',
    '1/',
    '/1',
    '1/1/1',
    '1/x',
    "'; select 1",
  ])('when filestore.journal_entry_id is "%s"', async (setting) => {
    await forge(setting, false);
    await expect(change()).rejects.toMatchObject(unlinked);
    expect(await links()).toEqual([]);
  });

  test.each([
    ['its number alone', (id: string) => id],
    ['its number and another transaction', (id: string) => `${id}/1`],
  ])(
    'when the setting names the running entry by %s, for the session or the transaction',
    async (_, text) => {
      await forge(text(entry), false);
      await expect(change()).rejects.toMatchObject(unlinked);
      await service.query('begin');
      await forge(text(entry), true);
      await expect(change()).rejects.toMatchObject(unlinked);
    },
  );

  test.each([
    ['does not exist', async () => '999999'],
    [
      'has ended',
      async () => {
        await finish(service, entry, 'succeeded');
        return entry;
      },
    ],
    ['is queued', () => queueCommand(service)],
  ])('when the setting has the right transaction and an entry that %s', async (_, idOf) => {
    const id = await idOf();
    await service.query('begin');
    await service.query(
      "select set_config('filestore.journal_entry_id', format('%s/%s', $1::text, pg_current_xact_id()), true)",
      [id],
    );
    await expect(change()).rejects.toMatchObject(unlinked);
  });

  test('when the setting is left over from an earlier transaction', async () => {
    await service.query('begin');
    await beginWork();
    const { rows } = await service.query("select current_setting('filestore.journal_entry_id') as setting");
    await service.query('commit');
    await forge(rows[0].setting, false);
    await expect(change()).rejects.toMatchObject(unlinked);
    expect(await links()).toEqual([]);
  });

  test.each(['succeeded', 'failed', 'canceled'])(
    'after finish_command ended its entry as %s in the same transaction',
    async (status) => {
      await service.query('begin');
      await beginWork();
      await change();
      await finish(service, entry, status, null, status === 'failed' ? {} : null);
      await expect(change()).rejects.toMatchObject(unlinked);
      await service.query('rollback');
      expect(await links()).toEqual([]);
    },
  );
});

describe('a service cannot forge the journal:', () => {
  test.each(['succeeded', 'failed', 'canceled'])('it cannot insert an entry that is %s', async (status) => {
    await expect(
      service.query('insert into filestore.journal_entries (command, status) values ($1, $2)', ['x', status]),
    ).rejects.toMatchObject({ ...refusal('FS422', status), constraint: 'journal_entries_born_open_check' });
  });

  test.each([
    ['created_at', 'now()'],
    ['started_at', 'now()'],
    ['completed_at', 'now()'],
    ['duration_ms', '1'],
    ['result', "'{}'"],
    ['error', "'{}'"],
    ['id', 'default'],
  ])('it cannot insert %s', async (column, value) => {
    await expect(
      service.query(`insert into filestore.journal_entries (command, ${column}) values ('x', ${value})`),
    ).rejects.toMatchObject({ code: '42501' });
  });

  test.each([
    ...['created_at', 'started_at', 'completed_at', 'duration_ms', 'backend_mount_id', 'command'],
    ...['executor_kind', 'principal', 'request_id', 'correlation_id', 'idempotency_key', 'parameters'],
  ])('it cannot update %s', async (column) => {
    await expect(
      service.query(
        `update filestore.journal_entries set status = 'canceled', ${column} = ${column} where id = $1`,
        [entry],
      ),
    ).rejects.toMatchObject({ code: '42501' });
  });

  test.each(["status = 'running'", "result = '{}'", "status = 'failed'", 'affected_node_ids = array[1]'])(
    'it cannot set %s once an entry has ended',
    async (assignment) => {
      await finish(service, entry, 'succeeded');
      await expect(
        service.query(`update filestore.journal_entries set ${assignment} where id = $1`, [entry]),
      ).rejects.toMatchObject(refusal('FS409', entry));
    },
  );

  test.each([
    "'{{1,2}}'",
    "'{1,null}'",
    "'[2147483645:2147483645]={1}'",
    'array(select g from generate_series(1, 100001) g)',
  ])('it cannot set affected_node_ids to %s', async (ids) => {
    await expect(
      service.query(`select filestore.finish_command($1, 'succeeded', affected_node_ids => ${ids})`, [entry]),
    ).rejects.toMatchObject({ code: '23514', constraint: 'journal_entries_affected_check' });
  });

  test('it cannot set failed without an error', async () => {
    await expect(
      service.query("select filestore.finish_command($1, 'failed', error => 'null')", [entry]),
    ).rejects.toMatchObject({ code: '23514', constraint: 'journal_entries_outcome_check' });
  });

  test('it cannot write history', async () => {
    await change();
    for (const statement of [
      'insert into filestore.snapshots select * from filestore.snapshots',
      'update filestore.snapshots set superseded_by_journal_id = 1',
      'delete from filestore.snapshots',
    ]) {
      await expect(service.query(statement)).rejects.toMatchObject({ code: '42501' });
    }
  });
});
