import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/concurrency.ts';
import { databaseForFile } from '../support/database.ts';
import { createMount, createNode, one, type Sql } from '../support/tree.ts';

const database = databaseForFile();

let first: Client;
let second: Client;

beforeEach(async () => {
  // As an operator empties it: what has not ended is ended first.
  await database().query(
    `update filestore.journal_entries set status = 'canceled', completed_at = now() where completed_at is null`,
  );
  await database().query('delete from filestore.journal_entries');
  [first, second] = [await database().connect(), await database().connect()];
});

const BEGIN =
  'select b.is_new, (b.entry).* from filestore.begin_command($1, $2, $3, $4, $5, retry_failed => $6) b';
const START = 'select * from filestore.start_command($1)';
const FINISH = 'select * from filestore.finish_command($1, $2, $3, $4)';

interface Request {
  readonly command?: string;
  readonly parameters?: object;
  readonly mount?: number | null;
  readonly principal?: string | null;
  readonly key?: string | null;
  readonly retryFailed?: boolean;
}

const MOVE = {
  command: 'move',
  parameters: { to: 'a', by: [1, 2] },
  mount: 7,
  principal: 'ada',
  key: 'k',
} as const;

function valuesOf(request: Request): unknown[] {
  const {
    command = 'move',
    parameters = {},
    mount = null,
    principal = null,
    key = null,
    retryFailed = false,
  } = request;
  return [command, parameters, mount, principal, key, retryFailed];
}

const begin = (sql: Sql, request: Request = {}) => one(sql, BEGIN, valuesOf(request));
const finish = (
  sql: Sql,
  id: string,
  status: string,
  result: object | null = null,
  error: object | null = null,
) => one(sql, FINISH, [id, status, result, error]);
const queueCommand = async (sql: Sql) =>
  (await one(sql, "select (entry).id from filestore.begin_command('move', queue => true)")).id as string;
const read = (id: string) => one(database(), 'select * from filestore.journal_entries where id = $1', [id]);
const count = async () =>
  (await one(database(), 'select count(*)::int as entries from filestore.journal_entries')).entries;

describe('begin_command', () => {
  test('writes down what was asked for, and that it runs', async () => {
    const entry = await one(
      database(),
      `select b.is_new, (b.entry).* from filestore.begin_command('move', '{"to": "a"}', 7, 'ada', 'k', 'request', 'correlation', 's3', 8, 9) b`,
    );
    expect(entry).toMatchObject({
      ...{
        is_new: true,
        status: 'running',
        command: 'move',
        parameters: { to: 'a' },
        backend_mount_id: '7',
        principal: 'ada',
      },
      ...{ idempotency_key: 'k', request_id: 'request', correlation_id: 'correlation', executor_kind: 's3' },
      ...{ primary_node_id: '8', secondary_node_id: '9', started_at: expect.any(Date), completed_at: null },
    });
    const { is_new: _, ...row } = entry;
    expect(await read(entry.id)).toEqual(row);
  });

  test('without a key is new every time', async () => {
    const [one, two] = [await begin(first), await begin(first)];
    expect([one.is_new, two.is_new, one.id === two.id]).toEqual([true, true, false]);
  });

  test.each(['running', 'succeeded', 'failed', 'canceled'])(
    'answers a repeated request with its entry that is %s',
    async (status) => {
      const { is_new: _, ...entry } = await begin(first, MOVE);
      const outcome =
        status === 'running'
          ? entry
          : await finish(first, entry.id, status, null, status === 'failed' ? {} : null);
      // The same parameters, spelled otherwise.
      const again = await begin(second, { ...MOVE, parameters: { by: [1, 2], to: 'a' } });
      expect(again).toEqual({ is_new: false, ...outcome });
      expect(await count()).toBe(1);
    },
  );

  test.each<Request>([
    { mount: 8 },
    { mount: null },
    { principal: 'bob' },
    { principal: null },
    { parameters: { to: 'b', by: [1, 2] } },
    { parameters: {} },
    { principal: 'bob', retryFailed: true },
  ])('refuses the key for another request: %j', async (difference) => {
    const { id } = await begin(first, MOVE);
    if (difference.retryFailed) await finish(first, id, 'failed', null, {});
    await expect(begin(second, { ...MOVE, ...difference })).rejects.toMatchObject({ code: 'FS409' });
    expect(await count()).toBe(1);
  });

  test('keeps the keys of two commands apart', async () => {
    await begin(first, MOVE);
    expect(await begin(first, { ...MOVE, command: 'delete', principal: 'bob' })).toMatchObject({
      is_new: true,
    });
  });

  test.each([
    [{ command: '' }, '23514'],
    [{ key: '' }, '23514'],
  ])('refuses %j', async (request, code) => {
    await expect(begin(first, request)).rejects.toMatchObject({ code });
  });

  test.each(['null', "'move', null", "null, idempotency_key => 'k'"])('refuses (%s)', async (given) => {
    await expect(first.query(`select filestore.begin_command(${given})`)).rejects.toMatchObject({
      code: '23502',
    });
  });
});

describe('of callers with one key', () => {
  test.each([
    ['commit', false],
    ['rollback', true],
  ])('the second waits for the first, and after its %s is new: %s', async (ending, isNew) => {
    await first.query('begin');
    const { id } = await begin(first, MOVE);
    const other = await sendAndBlock(second, BEGIN, valuesOf(MOVE));
    expect(other.waits).toBe(true);
    await first.query(ending);
    const outcome = await other.outcome;
    expect(outcome).toMatchObject({ ok: true, result: { rows: [{ is_new: isNew }] } });
    expect(outcome.ok && outcome.result.rows[0].id === id).toBe(!isNew);
    expect(await count()).toBe(1);
  });

  test.each([
    ['begin', false],
    ['retry what failed', true],
  ])('twenty that %s at once, one is new and all have its entry', async (_, retryFailed) => {
    if (retryFailed) await finish(first, (await begin(first, MOVE)).id, 'failed', null, {});
    const clients = await Promise.all(Array.from({ length: 20 }, () => database().connect()));
    // All wait for one that gives up: then they race.
    await first.query('begin');
    await begin(first, { ...MOVE, retryFailed });
    const calls = await Promise.all(
      clients.map((client) => sendAndBlock(client, BEGIN, valuesOf({ ...MOVE, retryFailed }))),
    );
    expect(calls.every(({ waits }) => waits)).toBe(true);
    await first.query('rollback');
    const answers = (await Promise.all(calls.map(({ outcome }) => outcome))).map((outcome) =>
      outcome.ok ? outcome.result.rows[0] : outcome.error,
    );
    await Promise.all(clients.map((client) => client.end()));
    expect(answers.filter((answer) => answer.is_new)).toHaveLength(1);
    expect(new Set(answers.map(({ id }) => id)).size).toBe(1);
    expect(await count()).toBe(retryFailed ? 2 : 1);
  });

  test('one with another key, or none, does not wait', async () => {
    await first.query('begin');
    await begin(first, MOVE);
    for (const key of ['other', null]) {
      expect((await sendAndBlock(second, BEGIN, valuesOf({ ...MOVE, key }))).waits).toBe(false);
    }
    await first.query('rollback');
  });
});

describe('retry_failed', () => {
  test.each(['failed', 'canceled'])(
    'runs again what is %s, as a new entry, which later callers get',
    async (status) => {
      const { id } = await begin(first, MOVE);
      await finish(first, id, status, null, { code: 'x' });
      const retry = await begin(first, { ...MOVE, retryFailed: true });
      expect(retry).toMatchObject({ is_new: true, status: 'running', error: null });
      expect(await read(id)).toMatchObject({ status, error: { code: 'x' } });
      expect(await begin(first, MOVE)).toMatchObject({ is_new: false, id: retry.id });
    },
  );

  test.each(['queued', 'running', 'succeeded'])('does not run again what is %s', async (status) => {
    const { id } = await one(
      first,
      `select (entry).id from filestore.begin_command('move', '{"to": "a", "by": [1, 2]}', 7, 'ada', 'k', queue => $1)`,
      [status === 'queued'],
    );
    if (status === 'succeeded') await finish(first, id, status);
    expect(await begin(first, { ...MOVE, retryFailed: true })).toMatchObject({ is_new: false, id, status });
  });
});

describe('start_command', () => {
  test('gives a queued command to one of many callers', async () => {
    const id = await queueCommand(first);
    const clients = await Promise.all(Array.from({ length: 10 }, () => database().connect()));
    const answers = await Promise.allSettled(clients.map((client) => one(client, START, [id])));
    await Promise.all(clients.map((client) => client.end()));
    expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const answer of answers) {
      if (answer.status === 'rejected') expect(answer.reason).toMatchObject({ code: 'FS409' });
    }
    expect(await read(id)).toMatchObject({ status: 'running', started_at: expect.any(Date) });
  });

  test('gives it to the next one when the first rolls back', async () => {
    const id = await queueCommand(first);
    await first.query('begin');
    await one(first, START, [id]);
    const other = await sendAndBlock(second, START, [id]);
    expect(other.waits).toBe(true);
    await first.query('rollback');
    expect(await other.outcome).toMatchObject({ ok: true });
  });

  test('refuses what runs or ended, and what is not there', async () => {
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
  test('records success in the transaction of the work, and what it changed', async () => {
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

  test('goes back to running when the work rolls back with it', async () => {
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
  ])('said twice as %s changes nothing, and said otherwise is refused', async (status, result, error) => {
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
  });

  test.each([
    ['failed', { ok: false, error: { code: 'FS409' } }],
    ['succeeded', { ok: true }],
  ])('of two at once that say succeeded and %s, the first counts', async (status, expected) => {
    const { id } = await begin(first);
    await first.query('begin');
    const entry = await finish(first, id, 'succeeded');
    const other = await sendAndBlock(second, FINISH, [id, status, null, status === 'failed' ? {} : null]);
    expect(other.waits).toBe(true);
    await first.query('commit');
    expect(await other.outcome).toMatchObject(expected);
    expect(await read(id)).toEqual(entry);
  });

  test('ends what is queued as canceled or failed, but not as succeeded: it never ran', async () => {
    const id = await queueCommand(first);
    await expect(finish(first, id, 'succeeded')).rejects.toMatchObject({
      constraint: 'journal_entries_started_check',
    });
    expect(await finish(first, id, 'canceled')).toMatchObject({
      status: 'canceled',
      started_at: null,
      duration_ms: null,
    });
  });

  test.each(['queued', 'running', 'done', null])('refuses to end a command as %s', async (status) => {
    const { id } = await begin(first);
    await expect(first.query(FINISH, [id, status, null, null])).rejects.toMatchObject({ code: 'FS422' });
    expect(await read(id)).toMatchObject({ status: 'running' });
  });

  test('refuses what is not there', async () => {
    await expect(finish(first, '0', 'canceled')).rejects.toMatchObject({ code: 'FS404' });
  });
});
