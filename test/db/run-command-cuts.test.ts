import { afterEach, describe, expect, test } from 'vitest';
import { type Proxy as Cable, type Moment, startProxy } from '../../harness/proxy.ts';
import { runCommand } from '../../src/index.ts';
import { isUnavailable } from '../../src/sql/index.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { addOne, COMMAND_STEPS, countOf, expireAll, statusesOf } from '../support/rows/counted-commands.ts';
import { counterForEachTest } from '../support/rows/counter.ts';
import { until } from '../support/until.ts';

const database = databaseEmptiedAfterEachTest();
let proxy: Cable;
const counter = counterForEachTest(database, async (url) => {
  proxy = await startProxy(url);
  return proxy.url;
});
afterEach(() => proxy.stop());

const MOMENTS: readonly Moment[] = ['before', 'during', 'after'];

/** What the first call does when the connection is cut there. */
function outcomeAt(step: string, moment: Moment): 'done' | 'running' | 'failed' {
  if (step === 'the begin of the command') return moment === 'before' ? 'failed' : 'running';
  return step === 'the commit' && moment !== 'before' ? 'done' : 'failed';
}

describe.each(Object.entries(COMMAND_STEPS))('a connection that is cut at %s', (step, text) => {
  test.each(MOMENTS)('%s it: the command is done once, and every answer is true', async (moment) => {
    const cut = proxy.cutAt(text, moment);
    const first = await addOne(counter(), 'key').catch((error: unknown) => ({ state: 'failed', error }));
    await cut;
    const expected = outcomeAt(step, moment);
    if (expected === 'done')
      expect(first).toMatchObject({ state: 'done', isReplay: false, result: { size: '1' } });
    else expect(isUnavailable(Object(first).error), String(Object(first).error)).toBe(true);
    expect(await countOf(database(), counter())).toBe(expected === 'done' ? 1 : 0);

    if (expected === 'running') {
      // The server may still be at it: a call that overtakes it would do the command.
      await until(async () => (await statusesOf(database())).running === 1);
      expect(await addOne(counter(), 'key')).toMatchObject({ state: 'running' });
      await expireAll(database());
    }
    const second = await addOne(counter(), 'key');
    expect(second).toMatchObject({ state: 'done', isReplay: expected === 'done', result: { size: '1' } });
    expect(await countOf(database(), counter())).toBe(1);
    const { succeeded, running } = await statusesOf(database());
    expect({ succeeded, running }).toEqual({ succeeded: 1, running: undefined });
  });
});

describe('a connection that is cut at the record of a failure', () => {
  test.each(MOMENTS)('%s it: the failure is recorded once, and thrown', async (moment) => {
    const cut = proxy.cutAt('"error" =>', moment);
    const failing = () =>
      runCommand({ command: 'fail', idempotencyKey: 'key' }, async () => {
        throw Object.assign(new Error('sample'), { code: 'FS409', constraint: 'nodes_name_taken' });
      });
    await expect(failing()).rejects.toThrow('sample');
    await cut;
    expect(await statusesOf(database())).toEqual({ failed: 1 });
    expect(await failing()).toMatchObject({ state: 'failed', error: { constraint: 'nodes_name_taken' } });
  });
});

test('a database that cannot be reached for the record leaves the command running, until it expires', async () => {
  const failing = addOne(counter(), 'key', {
    prepare: async () => {
      proxy.refuse();
      proxy.cut();
    },
  });
  expect(isUnavailable(await failing.catch((error: unknown) => error))).toBe(true);
  proxy.accept();
  expect(await addOne(counter(), 'key')).toMatchObject({ state: 'running' });
  await expireAll(database());
  expect(await addOne(counter(), 'key')).toMatchObject({ state: 'done', isReplay: false });
  expect(await countOf(database(), counter())).toBe(1);
});
