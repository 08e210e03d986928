import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Client } from 'pg';
import { afterEach, describe, expect, test } from 'vitest';
import { packageFolder, startOf } from '../../harness/compiled.ts';
import { type Proxy as Cable, startProxy } from '../../harness/proxy.ts';
import { isRefusal, isUnavailable } from '../../src/sql/index.ts';
import { asSuperuser, databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { addOne, COMMAND_STEPS, countOf, expireAll, statusesOf } from '../support/rows/counted-commands.ts';
import { counterForEachTest } from '../support/rows/counter.ts';
import { until } from '../support/until.ts';

const database = databaseEmptiedAfterEachTest();
let proxy: Cable;
let serviceUrl: string;
const counter = counterForEachTest(database, async (url) => {
  serviceUrl = url;
  proxy = await startProxy(url);
  return url;
});
afterEach(() => proxy.stop());

function startWorker(): ChildProcess {
  const { mountId, fileId } = counter();
  return spawn(
    process.execPath,
    [...startOf(packageFolder(), 'test', 'support', 'processes', 'command-process'), mountId, fileId, 'key'],
    { stdio: 'inherit', env: { PATH: process.env.PATH, FILESTORE_DATABASE_URL: proxy.url } },
  );
}

async function kill(worker: ChildProcess): Promise<void> {
  const ended = once(worker, 'exit');
  worker.kill('SIGKILL');
  await ended;
}

/** The sessions of killed workers have ended, so that none still commits. */
const untilNoOthers = () =>
  asSuperuser((superuser) =>
    until(async () => {
      const sql = 'select from pg_stat_activity where datname = $1 and usename = $2';
      return (await superuser.query(sql, sessions())).rowCount === 0;
    }),
  );

describe.each([
  ['before', 'holdAt'],
  ['after', 'holdReadyAt'],
] as const)('a worker that is killed %s a statement has done its command once or not at all', (_, hold) => {
  test.each(Object.entries(COMMAND_STEPS))('%s', async (_step, text) => {
    const held = proxy[hold](text);
    const worker = startWorker();
    const release = await held;
    await kill(worker);
    release();
    await untilNoOthers();
    const done = await countOf(database(), counter());
    const { succeeded = 0, running = 0 } = await statusesOf(database());
    expect(succeeded).toBe(done);
    expect(running + succeeded).toBeLessThanOrEqual(1);

    await expireAll(database());
    const second = await addOne(counter(), 'key');
    expect(second).toMatchObject({ state: 'done', isReplay: done === 1, result: { size: '1' } });
    expect(await countOf(database(), counter())).toBe(1);
  });
});

test('commands that are repeated until they are done take effect once each, while sessions are killed', async () => {
  const keys = Array.from({ length: 200 }, (_, number) => `key ${number}`);
  const pending = [...keys, ...keys];
  let lost = 0;
  const worker = async (superuser: Client) => {
    for (let key = pending.pop(); key !== undefined; key = pending.pop()) {
      for (;;) {
        const outcome = await addOne(counter(), key).catch((error: unknown) => error);
        if (outcome instanceof Error) {
          expect(isUnavailable(outcome) || isRefusal(outcome, 'journal_entries_ended'), outcome.message).toBe(
            true,
          );
          lost += 1;
          continue;
        }
        const { state } = outcome as Awaited<ReturnType<typeof addOne>>;
        if (state === 'done') break;
        // The answer of begin_command was lost, or another worker runs it.
        if (state === 'running') await expireAll(database());
      }
      await killOne(superuser);
    }
  };
  await Promise.all(Array.from({ length: 5 }, () => asSuperuser(worker)));
  expect(lost).toBeGreaterThan(50);
  expect(await countOf(database(), counter())).toBe(keys.length);
  const { succeeded, running } = await statusesOf(database());
  expect({ succeeded, running }).toEqual({ succeeded: keys.length, running: undefined });
});

/** Kills a session of the service, if possible in a command. */
const killOne = (superuser: Client) =>
  superuser.query(
    `select pg_terminate_backend(pid)
     from pg_stat_activity
     where datname = $1 and usename = $2
     order by state = 'idle', random()
     limit 1`,
    sessions(),
  );

const sessions = () => [database().name, decodeURIComponent(new URL(serviceUrl).username)];

test('a transaction that is lost, and of whose loss the server does not know, is waited for 5 s only', async () => {
  const other = await database().connect();
  const lost = addOne(counter(), 'key', {
    prepare: async ({ id }) => {
      // As the server would still hold the lock of a lost transaction.
      await other.query('begin');
      await other.query('select filestore.begin_work($1)', [id]);
      throw Object.assign(new Error('sample'), { code: 'CONNECTION_LOST' });
    },
  });
  await expect(lost).rejects.toThrow('sample');
  await other.query('rollback');
  expect(await addOne(counter(), 'key')).toMatchObject({ state: 'running' });
});
