import type { PoolClient } from 'pg';
import { describe, expect, expectTypeOf, test, vi } from 'vitest';
import { type CommandOptions, getPool, runCommand } from '../../src/index.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { addOne, countOf, expireAll, statusesOf } from '../support/rows/counted-commands.ts';
import { counterForEachTest } from '../support/rows/counter.ts';
import { one } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const database = databaseEmptiedAfterEachTest();
const counter = counterForEachTest(database);

const raise = (client: PoolClient, code: string) =>
  client.query(`do $$ begin raise exception 'sample' using errcode = '${code}'; end $$`);

const lastEntry = () =>
  one(database(), 'select * from filestore.journal_entries order by created_at desc, id desc limit 1');

describe('runCommand', () => {
  test('runs its work once, and records result, nodes and versions', async () => {
    const outcome = await addOne(counter());
    expect(outcome).toMatchObject({ state: 'done', isReplay: false, result: { size: '1' } });
    expect(outcome.entry).toEqual(await lastEntry());
    expect(outcome.entry).toMatchObject({
      command: 'add',
      status: 'succeeded',
      principal: 'ada',
      result: { size: '1' },
      primary_node_id: counter().fileId,
    });
    const version = await one(database(), 'select superseded_by_journal_id as id from filestore.snapshots');
    expect(version.id).toBe(outcome.entry.id);
    await addOne(counter());
    expect(await countOf(database(), counter())).toBe(2);
  });

  test('takes the key of a mount, with one connection at a time', async () => {
    vi.stubEnv('FILESTORE_PGPOOL_MAX', '1');
    const { mount_key: mountKey } = await one(database(), 'select mount_key from filestore.backend_mounts');
    const outcome = await runCommand({ command: 'look', mountKey }, async () => ({ result: null }));
    expect(outcome).toMatchObject({ state: 'done', result: null });
    expect(outcome.entry.backend_mount_id).toBe(counter().mountId);
    expect(getPool().totalCount).toBe(1);
  });

  test('returns to a repeat what it returned first, without the work', async () => {
    const first = await addOne(counter(), 'key');
    const second = await addOne(counter(), 'key');
    expect(second).toEqual({ ...first, isReplay: true });
    expect(await countOf(database(), counter())).toBe(1);
  });

  test('returns to the first call too what the journal kept', async () => {
    const work = async () => ({ result: { kept: [1, null], absent: undefined } });
    const first = await runCommand({ command: 'look', idempotencyKey: 'key' }, work);
    expect(first).toMatchObject({ state: 'done', isReplay: false });
    if (first.state !== 'done') return;
    expect(first.result).toEqual({ kept: [1, null] });
    expect('absent' in first.result).toBe(false);
    expectTypeOf(first.result.kept).toEqualTypeOf<(number | null)[]>();
  });

  test('tells a repeat that the first call has not ended', async () => {
    let mayEnd = false;
    const first = addOne(counter(), 'key', { prepare: () => until(() => mayEnd).then(() => undefined) });
    await until(async () => (await statusesOf(database())).running === 1);
    expect(await addOne(counter(), 'key')).toMatchObject({ state: 'running', entry: { status: 'running' } });
    mayEnd = true;
    expect(await first).toMatchObject({ state: 'done', isReplay: false });
    expect(await countOf(database(), counter())).toBe(1);
  });

  test('runs the work once if many calls begin with one key', async () => {
    const outcomes = await Promise.all(Array.from({ length: 20 }, () => addOne(counter(), 'key')));
    expect(outcomes.filter((one) => one.state === 'done' && !one.isReplay)).toHaveLength(1);
    expect(outcomes.filter(({ state }) => state === 'failed')).toEqual([]);
    expect(await countOf(database(), counter())).toBe(1);
    expect(await statusesOf(database())).toEqual({ succeeded: 1 });
  });

  test('repeats its transaction after a deadlock, by default three times', async () => {
    let runs = 0;
    const work = async (client: PoolClient) => {
      runs += 1;
      if (runs <= 3) await raise(client, '40P01');
      return { result: runs };
    };
    expect(await runCommand({ command: 'look' }, work)).toMatchObject({ state: 'done', result: 4 });
    runs = 0;
    await expect(runCommand({ command: 'look' }, work, { retries: 2 })).rejects.toMatchObject({
      code: '40P01',
    });
    expect(await statusesOf(database())).toEqual({ succeeded: 1, failed: 1 });
  });

  test('undoes work that ends after expire_commands has ended the command', async () => {
    const late = addOne(counter(), 'key', { prepare: () => expireAll(database()).then(() => undefined) });
    await expect(late).rejects.toMatchObject({ constraint: 'journal_entries_ended' });
    expect(await countOf(database(), counter())).toBe(0);
    expect(await statusesOf(database())).toEqual({ failed: 1 });
  });
});

describe('prepare', () => {
  test('runs once, when others see that the command runs, and before the transaction', async () => {
    const steps: string[] = [];
    const outcome = await runCommand(
      { command: 'look' },
      async (client, entry) => {
        steps.push(`work on ${entry.id}`);
        if (steps.length < 3) await raise(client, '40001');
        return { result: null };
      },
      {
        prepare: async ({ id }) => {
          const { status } = await one(
            database(),
            'select status from filestore.journal_entries where id = $1',
            [id],
          );
          steps.push(`prepare ${status} ${id}`);
        },
      },
    );
    const { id } = outcome.entry;
    expect(steps).toEqual([`prepare running ${id}`, `work on ${id}`, `work on ${id}`]);
  });

  test('fails the command if it throws, without the work', async () => {
    const prepare = async () => {
      throw Object.assign(new Error('disk full at /srv/secret'), { code: 'ENOSPC' });
    };
    await expect(addOne(counter(), 'key', { prepare })).rejects.toThrow('disk full');
    expect(await countOf(database(), counter())).toBe(0);
    expect(await lastEntry()).toMatchObject({ status: 'failed', error: { name: 'Error', code: 'ENOSPC' } });
  });
});

describe('runCommand refuses, and records nothing,', () => {
  test('a key of another command', async () => {
    await addOne(counter(), 'key');
    const other = runCommand(
      { command: 'add', mountId: counter().mountId, principal: 'eve', idempotencyKey: 'key' },
      async () => expect.fail('ran'),
    );
    await expect(other).rejects.toMatchObject({ constraint: 'journal_entries_key_taken' });
    expect(await statusesOf(database())).toEqual({ succeeded: 1 });
  });

  test.each<[string, () => Promise<unknown>, object]>([
    ['an unknown mount', () => look({ mountKey: 'absent' }), { constraint: 'backend_mounts_missing' }],
    ['half of a surrogate pair', () => look({ mountKey: 'a\ud800' }), { name: 'RangeError' }],
    [
      'a mount that is given twice',
      () => look({ mountKey: 'media', mountId: 1 }),
      { name: 'RangeError', message: 'runCommand got both mountKey and mountId. Give one of them.' },
    ],
    [
      'a number of retries that is none',
      () => look({}, { retries: -1 }),
      {
        setting: 'retries',
        message:
          'retries of runCommand is -1, which is not a whole number from 0. Correct it, or leave it out for the default of 3.',
      },
    ],
    ['an empty command', () => look({ command: '' }), { constraint: 'journal_entries_command_check' }],
  ])('%s', async (_, run, error) => {
    await expect(run()).rejects.toMatchObject(error);
    expect(await statusesOf(database())).toEqual({});
  });

  const look = (command: object, options?: CommandOptions) =>
    runCommand({ command: 'look', ...command }, async () => expect.fail('ran'), options);
});
