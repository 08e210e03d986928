import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile, withoutTriggers } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import {
  BEGIN,
  begin,
  type CommandRequest,
  emptyJournal,
  finish,
  valuesOf,
} from '../support/rows/journal-entries.ts';
import { createMountsWithIds, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let first: Client;
let second: Client;

beforeAll(() => createMountsWithIds(database(), 7));
beforeEach(async () => {
  await emptyJournal(database());
  [first, second] = [await database().connect(), await database().connect()];
});

const MOVE = {
  command: 'move',
  parameters: { to: 'a', by: [1, 2] },
  mount: 7,
  principal: 'ada',
  key: 'k',
} as const;

const read = (id: string) => one(database(), 'select * from filestore.journal_entries where id = $1', [id]);
const count = async () =>
  (await one(database(), 'select count(*)::int as entries from filestore.journal_entries')).entries;

describe('begin_command', () => {
  test('records the request, and that it is running', async () => {
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

  test('without a key creates a new entry every time', async () => {
    const [one, two] = [await begin(first), await begin(first)];
    expect([one.is_new, two.is_new, one.id === two.id]).toEqual([true, true, false]);
  });

  test.each(['running', 'succeeded', 'failed', 'canceled'])(
    'returns the existing entry for a repeated request, when it is %s',
    async (status) => {
      const { is_new: _, ...entry } = await begin(first, MOVE);
      const outcome =
        status === 'running'
          ? entry
          : await finish(first, entry.id, status, null, status === 'failed' ? {} : null);
      // The same parameters in another order.
      const again = await begin(second, { ...MOVE, parameters: { by: [1, 2], to: 'a' } });
      expect(again).toEqual({ is_new: false, ...outcome });
      expect(await count()).toBe(1);
    },
  );

  test.each<CommandRequest>([
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

  test.each(["''", 'null', "null, idempotency_key => 'k'", "'move', idempotency_key => ''"])(
    'refuses (%s)',
    async (given) => {
      await expect(first.query(`select filestore.begin_command(${given})`)).rejects.toMatchObject({
        code: 'FS422',
        hint: expect.stringMatching(/\w/),
      });
      expect(await count()).toBe(0);
    },
  );

  test('accepts null for arguments that can be left out', async () => {
    expect(
      await one(
        first,
        `select (b.entry).status, (b.entry).parameters
         from filestore.begin_command('move', null, queue => null, retry_failed => null) b`,
      ),
    ).toEqual({ status: 'running', parameters: {} });
  });

  test('begins a command at REPEATABLE READ without a key, and refuses one with a key', async () => {
    const beginAt = async (key: string | null) => {
      await first.query('begin isolation level repeatable read');
      return begin(first, { ...MOVE, key }).finally(() => first.query('commit'));
    };
    expect(await beginAt(null)).toMatchObject({ is_new: true });
    await expect(beginAt('k')).rejects.toMatchObject({ constraint: 'read_committed_check' });
  });

  test('returns the entry that holds the key, not one that failed later', async () => {
    const { id } = await begin(first, MOVE);
    await withoutTriggers(database(), (client) =>
      client.query(
        `insert into filestore.journal_entries (command, idempotency_key, backend_mount_id, principal, parameters, status, error, completed_at)
         select command, idempotency_key, backend_mount_id, principal, parameters, 'failed', '{}', now()
         from filestore.journal_entries where id = $1`,
        [id],
      ),
    );
    expect(await begin(first, { ...MOVE, retryFailed: true })).toMatchObject({ is_new: false, id });
  });
});

describe('an entry of a mount that does not exist', () => {
  const MISSING = { ...refusal('FS404', 'mount 404 does not exist'), constraint: 'backend_mounts_missing' };
  const eraseMount = () =>
    database()
      .query("update filestore.backend_mounts set state = 'inactive' where id = 404")
      .then(() => database().query("call filestore.erase_mount('number-404')"));

  test.each([
    ['a command', "select filestore.begin_command('scan', mount_id => 404)"],
    [
      'a queued command with a key',
      "select filestore.begin_command('scan', mount_id => 404, idempotency_key => 'k', queue => true)",
    ],
    [
      'an insert of a service',
      "insert into filestore.journal_entries (command, backend_mount_id) values ('scan', 404)",
    ],
  ])('is refused, as %s', async (_what, statement) => {
    const service = await connectAs('service');
    await expect(service.query(statement)).rejects.toMatchObject(MISSING);
    expect(await count()).toBe(0);
  });

  test('is returned under its key, retried no more, and ended, once the mount is erased', async () => {
    await createMountsWithIds(database(), 404);
    const request = { ...MOVE, mount: 404 };
    const { id } = await begin(first, request);
    await eraseMount();
    expect(await begin(first, request)).toMatchObject({ is_new: false, id, status: 'running' });
    expect(await finish(first, id, 'failed', null, {})).toMatchObject({ status: 'failed' });
    expect(await begin(first, request)).toMatchObject({ is_new: false, id, status: 'failed' });
    await expect(begin(first, { ...request, retryFailed: true })).rejects.toMatchObject(MISSING);
    await expect(begin(first, { ...request, key: 'other' })).rejects.toMatchObject(MISSING);
  });
});

test('begin_command returns the latest failure under a key, also when a mount brought one with a higher id', async () => {
  await withoutTriggers(database(), (client) =>
    client.query(
      `insert into filestore.journal_entries (id, command, idempotency_key, backend_mount_id, principal, parameters, status, error, created_at, completed_at)
       overriding system value
       values (5::bigint << 40, $1, $2, $3, $4, $5, 'failed', '"on the old server"', now() - interval '1 hour', now())`,
      [MOVE.command, MOVE.key, MOVE.mount, MOVE.principal, MOVE.parameters],
    ),
  );
  const retry = await begin(first, { ...MOVE, retryFailed: true });
  await finish(first, retry.id, 'failed', null, {});
  expect(await begin(first, MOVE)).toMatchObject({ is_new: false, id: retry.id });
});

describe('of callers with one key', () => {
  test.each([
    ['begin', false],
    ['retry what failed', true],
  ])('twenty that %s at once, one gets is_new and all get its entry', async (_, retryFailed) => {
    if (retryFailed) await finish(first, (await begin(first, MOVE)).id, 'failed', null, {});
    const clients = await Promise.all(Array.from({ length: 20 }, () => database().connect()));
    // All wait for a transaction that rolls back, and then race.
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
    'retries a command that is %s as a new entry, which later callers get',
    async (status) => {
      const { id } = await begin(first, MOVE);
      await finish(first, id, status, null, { code: 'x' });
      const retry = await begin(first, { ...MOVE, retryFailed: true });
      expect(retry).toMatchObject({ is_new: true, status: 'running', error: null });
      expect(await read(id)).toMatchObject({ status, error: { code: 'x' } });
      expect(await begin(first, MOVE)).toMatchObject({ is_new: false, id: retry.id });
    },
  );

  test.each(['queued', 'running', 'succeeded'])('does not retry a command that is %s', async (status) => {
    const { id } = await one(
      first,
      `select (entry).id from filestore.begin_command('move', '{"to": "a", "by": [1, 2]}', 7, 'ada', 'k', queue => $1)`,
      [status === 'queued'],
    );
    if (status === 'succeeded') await finish(first, id, status);
    expect(await begin(first, { ...MOVE, retryFailed: true })).toMatchObject({ is_new: false, id, status });
  });
});
