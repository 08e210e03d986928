import { describe, expect, test } from 'vitest';
import { databaseForEachTest } from '../support/database.ts';
import { createMount, one } from '../support/tree.ts';

const database = databaseForEachTest();

function insertEntry(columns: Record<string, unknown>) {
  const all: Record<string, unknown> = { command: 'create_file', ...columns };
  const names = Object.keys(all);
  return one(
    database(),
    `insert into filestore.journal_entries (${names.join(', ')})
     values (${names.map((_, index) => `$${index + 1}`).join(', ')}) returning *`,
    Object.values(all),
  );
}

const DONE = { started_at: '2024-01-01T00:00:00Z', completed_at: '2024-01-01T00:00:01.5Z' };

describe('a journal entry', () => {
  test.each([
    {},
    { status: 'running', started_at: DONE.started_at },
    { status: 'succeeded', ...DONE, result: { id: 1 } },
    { status: 'failed', ...DONE, error: { message: 'disk full' } },
    { status: 'canceled', completed_at: DONE.completed_at },
    { idempotency_key: 'abc' },
  ])('may be %j', async (columns) => {
    await expect(insertEntry(columns)).resolves.toMatchObject({ status: columns.status ?? 'queued' });
  });

  test.each([
    [{ command: '' }, 'journal_entries_command_check'],
    [{ status: 'paused' }, 'journal_entries_status_check'],
    [{ status: 'running' }, 'journal_entries_started_check'],
    [{ started_at: DONE.started_at }, 'journal_entries_started_check'],
    [{ status: 'succeeded', started_at: DONE.started_at }, 'journal_entries_completed_check'],
    [{ completed_at: DONE.completed_at }, 'journal_entries_completed_check'],
    [
      { status: 'succeeded', started_at: DONE.completed_at, completed_at: DONE.started_at },
      'journal_entries_order_check',
    ],
    [{ status: 'succeeded', ...DONE, error: {} }, 'journal_entries_outcome_check'],
    [{ status: 'failed', ...DONE }, 'journal_entries_outcome_check'],
    [{ status: 'failed', ...DONE, error: {}, result: {} }, 'journal_entries_outcome_check'],
    [{ idempotency_key: '' }, 'journal_entries_idempotency_key_check'],
  ])('may not be %j', async (columns, constraint) => {
    await expect(insertEntry(columns)).rejects.toMatchObject({ code: '23514', constraint });
  });

  test('tells its duration', async () => {
    expect(await insertEntry({ status: 'succeeded', ...DONE })).toMatchObject({ duration_ms: '1500' });
  });

  test('is one for a command and idempotency key', async () => {
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
