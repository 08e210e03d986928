import type { PoolClient } from 'pg';
import { describe, expect, test } from 'vitest';
import { type CommandOptions, getPool, runCommand, withSavepoint } from '../../src/index.ts';
import { createNode, finishCommand, isRefusal, isUnavailable } from '../../src/sql/index.ts';
import { asSuperuser, databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { addOne, countOf, expireAll } from '../support/rows/counted-commands.ts';
import { counterForEachTest } from '../support/rows/counter.ts';
import { one } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const database = databaseEmptiedAfterEachTest();
const counter = counterForEachTest(database);

/** Runs a command under a key with work that fails. */
const fail = (error: unknown, options?: CommandOptions) =>
  runCommand(
    { command: 'fail', idempotencyKey: 'key' },
    async () => {
      throw error;
    },
    options,
  );

/** Repeats that command with work that succeeds. */
const repeat = (options?: CommandOptions) =>
  runCommand({ command: 'fail', idempotencyKey: 'key' }, async () => ({ result: 'done' }), options);

const lastEntry = () =>
  one(database(), 'select * from filestore.journal_entries order by created_at desc, id desc limit 1');

/** The refusal of a name that is taken. */
const createTaken = (client: PoolClient) =>
  client.query(
    `select n.* from filestore.nodes f, filestore.create_node(f.parent_id, f.name) n where f.id = $1`,
    [counter().fileId],
  );

const createTakenAsWork = async (client: PoolClient) => {
  await createTaken(client);
  return { result: null };
};

describe('a failure', () => {
  test('of a refusal is thrown, recorded, and recognised again in a repeat', async () => {
    const run = () =>
      runCommand({ command: 'create', idempotencyKey: 'key' }, async (client) => {
        await createNode(client, { parentId: await rootId(), name: 'undone' });
        await createTaken(client);
        return { result: null };
      });
    const refusal = await run().catch((error: unknown) => error);
    expect(isRefusal(refusal, 'nodes_name_taken')).toBe(true);
    const repeated = await run();
    expect(repeated.state).toBe('failed');
    if (repeated.state !== 'failed') return;
    expect(isRefusal(repeated.error, 'nodes_name_taken')).toBe(true);
    const { message, code, constraint, hint } = refusal as Error & Record<string, unknown>;
    expect(repeated.error).toMatchObject({ message, code, constraint, hint });
    const nodes = await database().query("select from filestore.nodes where name = 'undone'");
    expect(nodes).toEqual([]);
  });

  test.each<[string, unknown, object, RegExp]>([
    [
      'an error of the server',
      Object.assign(new Error('invalid input: "secret"'), { code: '22P02' }),
      { code: '22P02' },
      /^command fail failed with 22P02 \(journal entry \d+\)$/,
    ],
    [
      'a code that is a text',
      Object.assign(new Error('a'), { code: 'the secret is b' }),
      { name: 'Error' },
      /^command fail failed \(journal entry/,
    ],
    [
      'a name that the journal cannot store',
      Object.assign(new Error('a'), { name: 'the secret\0' }),
      { name: 'Error' },
      /^command fail failed \(journal entry/,
    ],
    ['a text', 'secret', { name: 'string' }, /^command fail failed \(/],
  ])('of %s is recorded without its text', async (_, error, recorded, message) => {
    await expect(fail(error)).rejects.toBe(error);
    const entry = await lastEntry();
    expect(entry.error).toMatchObject(recorded);
    expect(JSON.stringify(entry)).not.toContain('secret');
    const repeated = await repeat();
    expect(repeated).toMatchObject({ state: 'failed', error: { message: expect.stringMatching(message) } });
  });

  test('is recorded as the caller describes it', async () => {
    const options: CommandOptions = {
      describeError: () => ({ code: 'QUOTA', message: 'the quota is used up' }),
    };
    await expect(fail(new Error('quota'), options)).rejects.toThrow('quota');
    expect(await repeat()).toMatchObject({
      state: 'failed',
      error: { code: 'QUOTA', message: 'the quota is used up' },
    });
  });

  test.each<[string, CommandOptions['describeError'], object]>([
    ['returns undefined', () => undefined, {}],
    ['returns nothing to keep', () => ({}), {}],
    ['returns texts that are undefined', () => ({ code: undefined, message: undefined }), {}],
    ['returns a text', () => ({ name: 'NameTaken' }), { name: 'NameTaken' }],
  ])('of a refusal keeps what describes it if describeError %s', async (_, describeError, added) => {
    const run = () =>
      runCommand({ command: 'create', idempotencyKey: 'key' }, createTakenAsWork, { describeError });
    const refusal: unknown = await run().catch((error: unknown) => error);
    const repeated = await run();
    if (repeated.state !== 'failed') throw new Error(`The repeat is ${repeated.state}.`);
    expect(isRefusal(repeated.error, 'nodes_name_taken')).toBe(true);
    const { message, code, constraint, hint } = refusal as Error & Record<string, unknown>;
    expect(repeated.error).toMatchObject({ message, code, constraint, hint, ...added });
  });

  test('that may be over runs again in a repeat if describeError adds nothing', async () => {
    const lost = Object.assign(new Error('lost'), { code: 'CONNECTION_LOST' });
    await expect(fail(lost, { describeError: () => ({}) })).rejects.toBe(lost);
    expect(await repeat()).toMatchObject({ state: 'done', isReplay: false });
  });

  test.each<[string, () => never]>([
    ['throws', () => expect.fail('no description')],
    ['is too large for the journal', () => ({ message: 'x'.repeat(2 ** 20) }) as never],
    ['is a text', () => 'full' as never],
  ])('is recorded by name and code if the description %s', async (_, describeError) => {
    const error = Object.assign(new Error('full'), { code: 'ENOSPC' });
    await expect(fail(error, { describeError })).rejects.toBe(error);
    expect(await lastEntry()).toMatchObject({ status: 'failed', error: { name: 'Error', code: 'ENOSPC' } });
  });

  test('of a refusal that a library wrapped is recorded as the refusal', async () => {
    const work = async (client: PoolClient) => {
      const cause: unknown = await createTaken(client).catch((error: unknown) => error);
      throw new Error('the query failed', { cause });
    };
    await expect(runCommand({ command: 'create' }, work)).rejects.toThrow('the query failed');
    expect(await lastEntry()).toMatchObject({ error: { code: 'FS409', constraint: 'nodes_name_taken' } });
  });

  test('of a result that the journal cannot take undoes the work', async () => {
    const work = async (client: PoolClient) => {
      await client.query('update filestore.nodes set size_bytes = 9 where id = $1', [counter().fileId]);
      return { result: 'x'.repeat(2 ** 20) };
    };
    await expect(runCommand({ command: 'look' }, work)).rejects.toMatchObject({
      constraint: 'journal_entries_size_check',
    });
    expect(await countOf(database(), counter())).toBe(0);
    expect(await lastEntry()).toMatchObject({ error: { constraint: 'journal_entries_size_check' } });
  });

  test.each<[string, (client: PoolClient) => unknown]>([
    ['rolls back', (client) => client.query('rollback')],
    ['rolls back, and does not wait for it,', (client) => void client.query('rollback')],
    ['rolls back and begins', (client) => client.query('rollback; begin')],
  ])('of work that %s is recorded, and no success', async (_, end) => {
    const work = async (client: PoolClient) => {
      await client.query('update filestore.nodes set size_bytes = 9 where id = $1', [counter().fileId]);
      await end(client);
      return { result: null };
    };
    await expect(runCommand({ command: 'look' }, work)).rejects.toMatchObject({ code: 'TRANSACTION_ENDED' });
    expect(await countOf(database(), counter())).toBe(0);
    expect(await lastEntry()).toMatchObject({ status: 'failed', error: { code: 'TRANSACTION_ENDED' } });
  });

  test.each<[string, (client: PoolClient) => unknown]>([
    ['caught', (client) => createTaken(client).catch(() => undefined)],
    ['did not wait for', (client) => void createTaken(client).catch(() => undefined)],
  ])('of a statement that the work %s is TRANSACTION_ROLLED_BACK, and no success', async (_, ignore) => {
    const work = async (client: PoolClient) => {
      await ignore(client);
      return { result: null };
    };
    await expect(runCommand({ command: 'look' }, work)).rejects.toMatchObject({
      code: 'TRANSACTION_ROLLED_BACK',
      message: expect.stringMatching(
        /^The callback of runCommand returned after .*"counter".* Nothing was committed/,
      ),
      cause: { constraint: 'nodes_name_taken' },
    });
    expect(await lastEntry()).toMatchObject({ status: 'failed', error: { code: 'TRANSACTION_ROLLED_BACK' } });
  });

  test('of a statement that the work caught is recorded without the text of the server, which may quote a secret', async () => {
    const work = async (client: PoolClient) => {
      await client.query("select 'password=hunter2'::integer").catch(() => undefined);
      return { result: null };
    };
    await expect(runCommand({ command: 'look' }, work)).rejects.toMatchObject({
      code: 'TRANSACTION_ROLLED_BACK',
    });
    expect(JSON.stringify(await lastEntry())).not.toContain('hunter2');
  });

  test('of work whose session is ended between two statements is a loss, after which a repeat runs', async () => {
    const killed = runCommand({ command: 'fail', idempotencyKey: 'key' }, async (client) => {
      const { rows } = await client.query('select pg_backend_pid() as pid');
      await asSuperuser((superuser) => superuser.query('select pg_terminate_backend($1)', [rows[0].pid]));
      await until(() => client.connection.stream.destroyed);
      return { result: null };
    });
    expect(isUnavailable(await killed.catch((error: unknown) => error))).toBe(true);
    expect(await lastEntry()).toMatchObject({ status: 'failed' });
    expect(await repeat()).toMatchObject({ state: 'done', isReplay: false });
  });

  test('of work whose session is ended before a savepoint can undo a refusal is a loss, after which a repeat runs', async () => {
    const killed = runCommand({ command: 'fail', idempotencyKey: 'key' }, async (client) => {
      const { rows } = await client.query('select pg_backend_pid() as pid');
      const create = withSavepoint(client, async () => {
        const refusal = await createTaken(client).catch((error: unknown) => error);
        await asSuperuser((superuser) =>
          superuser.query('select pg_terminate_backend($1, 5000)', [rows[0].pid]),
        );
        throw refusal;
      });
      await create.catch((error: unknown) => {
        if (!isRefusal(error, 'nodes_name_taken')) throw error;
      });
      return { result: null };
    });
    expect(isUnavailable(await killed.catch((error: unknown) => error))).toBe(true);
    expect(await lastEntry()).toMatchObject({ status: 'failed' });
    expect(await repeat()).toMatchObject({ state: 'done', isReplay: false });
  });
});

describe('a repeat of a command that failed', () => {
  const errorOf = (code: string, constraint?: string) =>
    Object.assign(new Error(code), { code, ...(constraint !== undefined && { constraint }) });
  const REFUSED = errorOf('FS409', 'nodes_name_taken');

  test.each<[string, 'done' | 'failed', unknown]>([
    ['by a refusal', 'failed', REFUSED],
    ['by an error of the program', 'failed', new TypeError('a')],
    ['by a refusal of a mount that moves', 'done', errorOf('FS409', 'backend_mounts_moving')],
    ['by a deadlock', 'done', errorOf('40P01')],
    ['by a lost connection', 'done', errorOf('CONNECTION_LOST')],
    ['by a wrapped lock timeout', 'done', new Error('a', { cause: errorOf('55P03') })],
  ])('%s has the outcome: %s', async (_, state, error) => {
    await expect(fail(error)).rejects.toBe(error);
    expect(await repeat()).toMatchObject({ state });
    expect(await repeat()).toMatchObject({ state });
  });

  test('runs it again in any case with retryFailed always, and never with never', async () => {
    await expect(fail(errorOf('40P01'))).rejects.toThrow();
    expect(await repeat({ retryFailed: 'never' })).toMatchObject({
      state: 'failed',
      error: { code: '40P01' },
    });
    await expect(fail(REFUSED)).rejects.toBe(REFUSED);
    expect(await repeat({ retryFailed: 'always' })).toMatchObject({ state: 'done', isReplay: false });
    expect(await repeat({ retryFailed: 'always' })).toMatchObject({ state: 'done', isReplay: true });
  });

  test('runs it again if its worker crashed and expire_commands ended it', async () => {
    await database().query("select filestore.begin_command('add', $1, $2, 'ada', 'key')", [
      { fileId: counter().fileId },
      counter().mountId,
    ]);
    expect(await addOne(counter(), 'key')).toMatchObject({ state: 'running' });
    await expireAll(database());
    expect(await addOne(counter(), 'key', { retryFailed: 'never' })).toMatchObject({
      state: 'failed',
      error: { code: 'expired' },
    });
    expect(await addOne(counter(), 'key')).toMatchObject({ state: 'done', isReplay: false });
    expect(await countOf(database(), counter())).toBe(1);
  });

  test('does not run it again if it was canceled', async () => {
    const { entry } = await one(
      database(),
      "select (entry).id as entry from filestore.begin_command('fail', idempotency_key => 'key', queue => true)",
    );
    expect(await repeat()).toMatchObject({ state: 'running', entry: { status: 'queued' } });
    await finishCommand(getPool(), { entryId: entry, status: 'canceled' });
    expect(await repeat()).toMatchObject({
      state: 'failed',
      error: { message: `command fail was canceled (journal entry ${entry})` },
    });
  });
});

async function rootId(): Promise<string> {
  return (await one(database(), 'select id from filestore.nodes where parent_id is null')).id;
}
