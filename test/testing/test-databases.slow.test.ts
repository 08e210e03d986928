import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { packageFolder, startOf } from '../../harness/compiled.ts';
import { databaseUrl } from '../../harness/connection.ts';
import { verifySchema } from '../../src/index.ts';
import { createMount } from '../../src/sql/index.ts';
import { createTestDatabase, startTestServer } from '../../src/testing/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { IS_THERE } from '../support/databases/service-databases.ts';
import { examplesOf } from '../support/packages/examples.ts';
import { createOwner } from '../support/roles/test-role.ts';
import { one } from '../support/rows/nodes.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';
import { until } from '../support/until.ts';

let server: OwnServer;
/** URL of an ordinary role with CREATEDB and CREATEROLE. */
let url: string;
const workers: Worker[] = [];

beforeAll(async () => {
  server = await startOwnServer({ settings: ['max_connections=200'] });
});
afterAll(() => server.stop());
afterEach(async () => {
  for (const { child } of workers.splice(0)) child.kill('SIGKILL');
});

/** A user without a template. */
async function newUser(name: string): Promise<string> {
  return withClient(server.url, (superuser) => createOwner(superuser, server.url, name));
}

const query = async (text: string, values: readonly unknown[] = []) =>
  withClient(server.url, async (client) => (await client.query(text, [...values])).rows);

interface Worker {
  readonly child: ChildProcess;
  /** The name of its database, once it is there. */
  readonly name: Promise<string>;
  readonly ended: Promise<number | null>;
}

function startWorker(at: string): Worker {
  const child = spawn(
    process.execPath,
    [...startOf(packageFolder(), 'test', 'support', 'processes', 'test-database-process'), at],
    { cwd: packageFolder(), env: { PATH: process.env.PATH }, stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const name = new Promise<string>((resolve, reject) => {
    child.stdout?.setEncoding('utf8').on('data', (text: string) => resolve(text.trim()));
    child.once('exit', (code) => reject(new Error(`the process ended with ${code}`)));
  });
  name.catch(() => undefined);
  const worker = { child, name, ended };
  workers.push(worker);
  return worker;
}

const namesOf = (owner: string) =>
  query('select datname as name from pg_database where pg_get_userbyid(datdba) = $1 order by 1', [owner]);

test('workers that start at once share one template, also from different databases of the server', async () => {
  url = await newUser('fresh');
  await query('create database other');
  const places = [url, databaseUrl(url, 'other')];
  const all = Array.from({ length: 10 }, (_, number) => startWorker(places[number % 2] ?? url));
  const names = await Promise.all(all.map(({ name }) => name));
  expect(new Set(names).size).toBe(all.length);
  for (const { child } of all) child.stdin?.end();
  expect(await Promise.all(all.map(({ ended }) => ended))).toEqual(all.map(() => 0));
  expect(await namesOf('fresh')).toEqual([{ name: expect.stringMatching(/^filestore_template_/) }]);
});

test('the database and the role of a killed run are removed once they are old', async () => {
  url = await newUser('killed');
  const worker = startWorker(url);
  const name = await worker.name;
  worker.child.kill('SIGKILL');
  await worker.ended;
  await until(async () => {
    const [sessions] = await query('select count(*)::int from pg_stat_activity where datname = $1', [name]);
    return sessions.count === 0;
  });
  const old = name.replace(/_\d+_/, '_1700000000_');
  await query(`alter database ${name} rename to ${old}`);
  await query(`alter role ${name} rename to ${old}`);
  const next = await createTestDatabase({ server: url });
  const there = await withClient(server.url, (client) => one(client, IS_THERE, [old]));
  await next.close();
  expect(there).toEqual({ database: false, role: false });
});

test('workers that are killed while they make a template leave none that is not complete', async () => {
  url = await newUser('interrupted');
  for (let round = 0; round < 12; round += 1) {
    const worker = startWorker(url);
    await Promise.race([worker.name, delay(300 + round * 100)]).catch(() => undefined);
    worker.child.kill('SIGKILL');
    await worker.ended;
    if (round % 4 === 3) {
      // Most rounds end before the template is there.
      const templates = await namesOf('interrupted');
      for (const { name } of templates.filter(({ name }) => name.startsWith('filestore_template_'))) {
        await query(`drop database ${name}`);
      }
    }
  }
  const db = await createTestDatabase({ server: url });
  try {
    expect(await verifySchema({ connectionString: db.ownerUrl })).toMatchObject({ state: 'same' });
  } finally {
    await db.close();
  }
});

test('of a server of startTestServer, the log can be followed, and a database is removed with its slot', async () => {
  const logical = await startTestServer();
  try {
    const db = await createTestDatabase({ server: logical });
    await withClient(db.ownerUrl, async (client) => {
      for (const { section, statement } of examplesOf('docs/follow.md')) {
        if (section === 'Prepare') await client.query(statement);
      }
      await createMount(db.pool, {
        mount: { mount_key: 'media', backend_kind: 'local', root_path: '/srv/media' },
      });
      // Commits are not waited for, and only what is on disk can be followed.
      await until(async () => {
        const { rows } = await client.query(
          `select from pg_logical_slot_peek_binary_changes(
             'filestore_changes', null, null, 'proto_version', '1', 'publication_names', 'filestore_changes')`,
        );
        return rows.length > 0;
      });
    });
    await db.close();
    const slots = await withClient(logical.url, (client) => client.query('select from pg_replication_slots'));
    expect(slots.rows).toEqual([]);
  } finally {
    await logical.stop();
  }
});

test('without a server, a database has a separate one, which ends with it', async () => {
  const db = await createTestDatabase();
  const { rows } = await db.pool.query('select count(*)::int from filestore.nodes');
  expect(rows).toEqual([{ count: 0 }]);
  await db.close();
  await expect(new pg.Client(db.ownerUrl).connect()).rejects.toThrow();
});

test('a transaction that the test left open is named when rows cannot be made older', async () => {
  url = await newUser('waiting');
  const db = await createTestDatabase({ server: url });
  const client = await db.pool.connect();
  await client.query('begin');
  await client.query(
    "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('media', 'local', '/srv/media')",
  );
  await expect(db.makeOlder('1 day')).rejects.toMatchObject({
    code: 'TEST_DATABASE_FAILED',
    message: expect.stringContaining('Commit or roll back the transactions of the test first'),
  });
  await db.close();
});
