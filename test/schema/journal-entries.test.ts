import { describe, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest, withoutTriggers } from '../support/databases/test-database.ts';
import { createMount, one, type Sql } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';

const database = databaseEmptiedAfterEachTest();

async function insertEntry(columns: Readonly<Record<string, unknown>>, sql: Sql = database()) {
  const all: Readonly<Record<string, unknown>> = { command: 'create_file', ...columns };
  const names = Object.keys(all);
  return one(
    sql,
    `insert into filestore.journal_entries (${names.join(', ')})
     values (${names.map((_, index) => `$${index + 1}`).join(', ')}) returning *`,
    Object.values(all),
  );
}

/** Writes an entry as a restore does: without the trigger that sets times and refuses ended entries. */
async function restoreEntry(columns: Readonly<Record<string, unknown>>) {
  return withoutTriggers(database(), (client) => insertEntry(columns, client));
}

const LARGE = { a: 'x'.repeat(2 ** 20) };
const DONE = { started_at: '2024-01-01T00:00:00Z', completed_at: '2024-01-01T00:00:01.5Z' };

/** The columns that an update may set, and those that the database sets. */
const OUTCOME: readonly string[] = [
  ...['status', 'result', 'error', 'affected_node_ids', 'primary_node_id', 'secondary_node_id'],
  ...['started_at', 'completed_at', 'duration_ms'],
];

/** A value of each type that no entry of these tests has. In JSON, 1.0 is equal to 1, but is written differently. */
const OTHER_VALUES: Readonly<Record<string, string>> = {
  bigint: '7',
  text: "'other'",
  jsonb: `'{"a": 1.0}'`,
  'timestamp with time zone': "'2020-01-01'",
};

describe('a journal entry', () => {
  test.each([{}, { status: 'running' }, { idempotency_key: 'abc' }])('may begin as %j', async (columns) => {
    await expect(insertEntry(columns)).resolves.toMatchObject({ status: columns.status ?? 'queued' });
  });

  test.each(['succeeded', 'failed', 'canceled'])('may not begin as %s', async (status) => {
    await expect(insertEntry({ status, ...DONE, error: {} })).rejects.toMatchObject({
      ...refusal('FS422', `cannot be inserted as ${status}`),
      constraint: 'journal_entries_born_open_check',
    });
  });

  test('gets its times from the database, whatever the writer gives', async () => {
    const entry = await insertEntry({
      status: 'running',
      ...DONE,
      duration_ms: 7,
      created_at: DONE.started_at,
    });
    expect(entry).toMatchObject({ completed_at: null, duration_ms: null, started_at: entry.created_at });
    for (const given of [{ completed_at: DONE.completed_at }, { duration_ms: 7 }])
      expect(await insertEntry(given)).toMatchObject({ completed_at: null, duration_ms: null });
    expect(Date.now() - entry.created_at.getTime()).toBeLessThan(3_600_000);
    expect(await insertEntry({ started_at: DONE.started_at })).toMatchObject({ started_at: null });
  });

  test.each([
    { status: 'succeeded', ...DONE, result: { id: 1 } },
    { status: 'failed', ...DONE, error: { message: 'disk full' } },
    { status: 'canceled', completed_at: DONE.completed_at },
  ])('may be restored as %j', async (columns) => {
    await expect(restoreEntry(columns)).resolves.toMatchObject({ status: columns.status });
  });

  test.each([
    [{ command: '' }, 'journal_entries_command_check'],
    [{ status: 'paused' }, 'command_status_check'],
    [{ status: 'running' }, 'journal_entries_started_check'],
    [{ started_at: DONE.started_at }, 'journal_entries_started_check'],
    [{ status: 'succeeded', completed_at: DONE.completed_at }, 'journal_entries_started_check'],
    [{ status: 'succeeded', started_at: DONE.started_at }, 'journal_entries_completed_check'],
    [{ completed_at: DONE.completed_at }, 'journal_entries_completed_check'],
    [
      { status: 'succeeded', started_at: DONE.completed_at, completed_at: DONE.started_at },
      'journal_entries_completed_check',
    ],
    [{ status: 'succeeded', ...DONE, error: {} }, 'journal_entries_outcome_check'],
    [{ status: 'failed', ...DONE }, 'journal_entries_outcome_check'],
    [{ status: 'failed', ...DONE, error: {}, result: {} }, 'journal_entries_outcome_check'],
    [{ idempotency_key: '' }, 'journal_entries_idempotency_key_check'],
  ] as [Record<string, unknown>, string][])(
    'may not be %j, not even in a restore',
    async (columns, constraint) => {
      await expect(restoreEntry(columns)).rejects.toMatchObject({ code: '23514', constraint });
    },
  );

  test.each([
    [
      'idempotency_key',
      'x'.repeat(1025),
      'idempotency_key_check',
      'an idempotency key that is empty or too long',
    ],
    ['parameters', LARGE, 'size_check', 'parameters of more than 1048576 bytes'],
    ['result', LARGE, 'size_check', 'a result of more than 1048576 bytes'],
    ['error', LARGE, 'size_check', 'an error of more than 1048576 bytes'],
    ['principal', 'x'.repeat(4097), 'size_check', 'texts of more than 4096 bytes together'],
    ['correlation_id', 'x'.repeat(1025), 'size_check', 'a correlation_id of more than 1024 bytes'],
  ])('has a limit on its %s, which a refusal names', async (column, value, rule, complaint) => {
    const status = { result: 'succeeded', error: 'failed' }[column];
    await expect(
      restoreEntry({ ...(status !== undefined && { status, ...DONE }), [column]: value }),
    ).rejects.toMatchObject({
      code: '23514',
      constraint: `journal_entries_${rule}`,
      message: expect.stringContaining(` has ${complaint}`),
    });
  });

  test('changes only together with its status', async () => {
    const { id } = await insertEntry({ status: 'running' });
    await expect(
      database().query("update filestore.journal_entries set result = '{}' where id = $1", [id]),
    ).rejects.toMatchObject({
      code: 'FS422',
      message: expect.stringMatching(/is running, and changes only together with its status$/),
    });
  });

  test('has its duration', async () => {
    const { id } = await insertEntry({ status: 'running' });
    await database().query("update filestore.journal_entries set status = 'succeeded' where id = $1", [id]);
    const entry = await one(database(), 'select * from filestore.journal_entries where id = $1', [id]);
    expect(Number(entry.duration_ms)).toBe(entry.completed_at.getTime() - entry.started_at.getTime());
  });

  test('keeps every column of its request in updates of every role', async () => {
    const { id } = await insertEntry({ parameters: { a: 1 } });
    const columns = await database().query<{ name: string; type: string }>(
      `select attname as name, format_type(atttypid, null) as type from pg_attribute
       where attrelid = 'filestore.journal_entries'::regclass and attnum > 0 and not attisdropped`,
    );
    const kept: string[] = [];
    for (const { name, type } of columns) {
      if (OUTCOME.includes(name)) continue;
      kept.push(name);
      const value = name === 'id' ? 'default' : OTHER_VALUES[type];
      await expect(
        database().query(
          `update filestore.journal_entries set status = 'canceled', ${name} = ${value} where id = $1`,
          [id],
        ),
        name,
      ).rejects.toMatchObject({ code: 'FS422', constraint: 'journal_entries_fixed_check' });
    }
    expect(kept).toHaveLength(columns.length - OUTCOME.length);
  });

  test('is unique for a command and idempotency key', async () => {
    await insertEntry({ idempotency_key: 'abc' });
    await insertEntry({ idempotency_key: 'abc', command: 'delete_node' });
    await insertEntry({});
    await insertEntry({});
    await expect(insertEntry({ idempotency_key: 'abc' })).rejects.toMatchObject({
      constraint: 'journal_entries_idempotency_key',
    });
  });

  test('outlives the mount it names', async () => {
    const mount = await createMount(database());
    await insertEntry({ backend_mount_id: mount.id, primary_node_id: mount.rootId });
    await database().query('delete from filestore.backend_mounts');
    expect(await database().query('select from filestore.journal_entries')).toHaveLength(1);
  });
});
