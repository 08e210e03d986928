import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { begin, emptyJournal, FINISH, finish, queueCommand, START } from '../support/rows/journal-entries.ts';
import { createMount, createNode, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';

const database = databaseForFile();

let first: Client;
let second: Client;

beforeEach(async () => {
  await emptyJournal(database());
  [first, second] = [await database().connect(), await database().connect()];
});

const read = (id: string) => one(database(), 'select * from filestore.journal_entries where id = $1', [id]);

describe('start_command', () => {
  test('refuses a running or ended entry, and an unknown one', async () => {
    const { id } = await begin(first);
    await expect(one(first, START, [id])).rejects.toMatchObject({ code: 'FS409' });
    await finish(first, id, 'canceled');
    await expect(one(first, START, [id])).rejects.toMatchObject({ code: 'FS409' });
    for (const nothing of ['0', null]) {
      await expect(one(first, START, [nothing])).rejects.toMatchObject({ code: 'FS404' });
    }
  });
});

describe('finish_command', () => {
  test('records success and the affected nodes in the transaction of the work', async () => {
    const { id } = await begin(first);
    await one(
      first,
      "select filestore.finish_command($1, 'succeeded', '{\"ok\": true}', null, array[1, 2], 3, 4)",
      [id],
    );
    expect(await read(id)).toMatchObject({
      ...{ status: 'succeeded', result: { ok: true }, error: null, affected_node_ids: ['1', '2'] },
      ...{
        primary_node_id: '3',
        secondary_node_id: '4',
        completed_at: expect.any(Date),
        duration_ms: expect.any(String),
      },
    });
  });

  test('records a failure although its work rolled back', async () => {
    const mount = await createMount(database());
    const { id } = await begin(first, { mount: Number(mount.id) });
    await first.query('begin');
    await createNode(first, mount, mount.rootId, 'f');
    await expect(createNode(first, mount, mount.rootId, 'f')).rejects.toMatchObject({ code: '23505' });
    await first.query('rollback');
    await finish(first, id, 'failed', null, { code: '23505' });
    expect(await read(id)).toMatchObject({ status: 'failed', error: { code: '23505' }, result: null });
  });

  test('leaves the entry running when its transaction rolls back', async () => {
    const { id } = await begin(first);
    await first.query('begin');
    await finish(first, id, 'succeeded');
    await first.query('rollback');
    expect(await read(id)).toMatchObject({ status: 'running' });
  });

  test.each([
    ['succeeded', { a: 1 }, null],
    ['failed', null, { code: 'x' }],
    ['canceled', null, null],
  ])(
    'called twice with %s changes nothing, and with another outcome is refused',
    async (status, result, error) => {
      const { id } = await begin(first);
      const entry = await finish(first, id, status, result, error);
      expect(await finish(second, id, status, result, error)).toEqual(entry);
      for (const [otherStatus, otherResult, otherError] of [
        ['succeeded', { a: 2 }, null],
        ['failed', null, { code: 'y' }],
        ['canceled', null, { code: 'z' }],
      ] as const) {
        await expect(finish(second, id, otherStatus, otherResult, otherError)).rejects.toMatchObject({
          code: 'FS409',
        });
      }
      expect(await read(id)).toEqual(entry);
    },
  );

  test('ends a queued entry as canceled or failed, but not as succeeded', async () => {
    const id = await queueCommand(first);
    await expect(finish(first, id, 'succeeded')).rejects.toMatchObject({
      code: 'FS409',
      message: expect.stringContaining('is queued'),
    });
    expect(await finish(first, id, 'canceled')).toMatchObject({
      status: 'canceled',
      started_at: null,
      duration_ms: null,
    });
  });

  test.each([
    [
      'queued',
      { ...refusal('FS422', 'cannot finish as queued'), constraint: 'journal_entries_status_change_check' },
    ],
    [
      'running',
      { ...refusal('FS422', 'cannot finish as running'), constraint: 'journal_entries_status_change_check' },
    ],
    [
      null,
      { ...refusal('FS422', 'cannot finish as null'), constraint: 'journal_entries_status_change_check' },
    ],
    ['done', { code: '23514', constraint: 'command_status_check' }],
  ])('refuses to end a command as %s', async (status, refused) => {
    const { id } = await begin(first);
    await expect(first.query(FINISH, [id, status, null, null])).rejects.toMatchObject(refused);
    expect(await read(id)).toMatchObject({ status: 'running' });
  });

  test('refuses an unknown entry', async () => {
    await expect(finish(first, '0', 'canceled')).rejects.toMatchObject({ code: 'FS404' });
  });
});
