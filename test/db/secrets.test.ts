import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { startProxy } from '../../harness/proxy.ts';
import {
  closePool,
  FilestoreError,
  getClient,
  getPool,
  migrationStatus,
  type RunMigrationsOptions,
  runMigrations,
  verifySchema,
  withTransaction,
} from '../../src/index.ts';
import {
  ENCODED_SECRET,
  everythingIn,
  leaksIn,
  mistypedUrls,
  SECRET,
  withPassword,
} from '../support/command-line/secret.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

let server: OwnServer;
/** The server's database `app` as the role `app`, whose password is the secret. */
let url: string;
const warnings: Error[] = [];
const noteWarning = (warning: Error) => warnings.push(warning);

beforeAll(async () => {
  process.on('warning', noteWarning);
  server = await startOwnServer({
    listen: 'tcp',
    settings: ['log_connections=on', 'log_min_messages=debug1', 'log_error_verbosity=verbose'],
  });
  await asSuperuser(async (client) => {
    await client.query(`create role app login password ${pg.escapeLiteral(SECRET)}`);
    await client.query("create role other login password 'another'");
    await client.query('create database app owner app');
    await client.query("alter system set log_statement = 'all'");
    await client.query('select pg_reload_conf()');
  });
  const own = new URL(databaseUrl(server.url, 'app'));
  own.username = 'app';
  own.password = ENCODED_SECRET;
  url = own.href;
});
afterEach(async () => {
  await closePool();
  vi.unstubAllEnvs();
});
afterAll(async () => {
  process.off('warning', noteWarning);
  await server?.stop();
});

async function asSuperuser<T>(work: (client: pg.Client) => Promise<T>, database = 'postgres'): Promise<T> {
  const client = new pg.Client(databaseUrl(server.url, database));
  await client.connect();
  return work(client).finally(() => client.end());
}

const IMPATIENT = {
  FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0',
  FILESTORE_MIGRATION_LOCK_WAIT_MS: '0',
  FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS: '1000',
};

const PATIENT = { settings: { lockWaitMs: 60_000 } };

/** Runs the migrations and returns all output: report, events, log and error. */
async function see(from: string, options: RunMigrationsOptions = {}): Promise<string> {
  const seen: unknown[] = [];
  const note = (value: unknown) => seen.push(value);
  await runMigrations({
    env: { ...IMPATIENT, DATABASE_URL: from },
    ...options,
    logger: { info: note, warn: note },
    onEvent(event) {
      note(event);
      options.onEvent?.(event);
    },
  }).then(note, note);
  return seen.map(everythingIn).join('\n');
}

function expectSecrecy(text: string, said: RegExp): void {
  expect(text).toMatch(said);
  expect(leaksIn(text)).toEqual([]);
}

test('the check of these tests finds a piece of the password', () => {
  const cause = new Error(`as it is: ${SECRET.slice(3, 7)}`);
  expect(leaksIn(everythingIn(new Error('outside', { cause })))).toEqual([SECRET.slice(3, 7)]);
  expect(leaksIn(`postgres://${ENCODED_SECRET.slice(8, 12)}`)).toEqual([ENCODED_SECRET.slice(8, 12)]);
  expect(leaksIn(inspect(new URL(url)))).not.toEqual([]);
});

describe('a run never shows the password', () => {
  test('when it succeeds, also not in its sessions', async () => {
    const sessions = await asSuperuser(async (client) => {
      // On one connection: a run has more events than a server has connections.
      const seen: unknown[] = [];
      let looking = Promise.resolve();
      const look = () => {
        looking = looking.then(async () => {
          seen.push((await client.query('select * from pg_stat_activity')).rows);
        });
      };
      expectSecrecy(await see(url, { onEvent: look }), /migration-end/);
      await looking;
      return seen;
    });
    expectSecrecy(inspect(sessions, { depth: 9 }), /filestore migrate/);
    expectSecrecy(await see(url), /applied: \[\]/);
    const env = { DATABASE_URL: url };
    expectSecrecy(inspect([await migrationStatus({ env }), await verifySchema({ env })]), /current.*same/s);
  });

  test.each([
    ['the password is of another role', () => url.replace('//app:', '//other:'), /password for user "other"/],
    ['the role is not known', () => url.replace('//app:', '//nobody:'), /password for user "nobody"/],
    ['there is no such database', () => databaseUrl(url, 'nowhere'), /the database does not exist/],
    ['no server listens', () => url.replace(/:\d+\/app$/, ':1/app'), /no server listens/],
    ['there is no such host', () => url.replace('127.0.0.1', 'db.invalid'), /db\.invalid/],
    ['the server has no TLS', () => `${url}?sslmode=verify-full`, /does not support it/],
    ['a certificate is missing', () => `${url}?sslrootcert=/no/such.pem`, /sslrootcert/],
    ['an option is wrong', () => `${url}?options=-c%20no_such=1`, /no_such/],
    ['a "%" of the password is not encoded', () => withPassword(url, SECRET), /hexadecimal/],
  ])('when %s', async (_, from, said) => {
    expectSecrecy(await see(from()), said);
  });

  test('when the server does not answer', async () => {
    const cable = await startProxy(url);
    cable.pause();
    expectSecrecy(await see(cable.url), /CONNECTION_FAILED/);
    await cable.stop();
  });

  test('when it is stopped, and when its connections are cut', async () => {
    await asSuperuser((client) => client.query('drop schema filestore, graphile_migrate cascade'), 'app');
    const stop = new AbortController();
    expectSecrecy(
      await see(url, {
        signal: stop.signal,
        onEvent: ({ type }) => type === 'migration-start' && stop.abort(),
      }),
      /RUN_ABORTED/,
    );
    const cable = await startProxy(url);
    const cut = cable.cutAt('create table', 'during');
    expectSecrecy(await see(cable.url), /CONNECTION_LOST|MIGRATION_FAILED|lost/);
    await cut;
    await cable.stop();
    // The server process of the cut connection may still be running.
    expectSecrecy(await see(url, PATIENT), /migration-end|applied: \[\]/);
  });

  test('when another migrator is running', async () => {
    await asSuperuser((client) => client.query('truncate graphile_migrate.migrations'), 'app');
    const holder = new pg.Client(url);
    await holder.connect();
    await holder.query('select pg_advisory_lock(7379548647407775602)');
    expectSecrecy(await see(url), /LOCK_NOT_ACQUIRED/);
    await holder.end();
    expectSecrecy(await see(url, PATIENT), /migration-end/);
  });

  test('when the URL is mistyped in any way', async () => {
    for (const mistyped of mistypedUrls()) {
      const text = await see(mistyped);
      expect({ mistyped, leaks: leaksIn(text) }).toEqual({ mistyped, leaks: [] });
      expect(text, mistyped).toMatch(/SETTINGS_INVALID|CONNECTION_FAILED/);
    }
  });
});

describe('the pool never shows the password', () => {
  const seen = async (work: Promise<unknown>) => everythingIn(await work.catch((error: unknown) => error));

  test('in its own fields, in its connections and in their errors when they are lost', async () => {
    vi.stubEnv('FILESTORE_DATABASE_URL', url);
    const lost = new Promise<unknown[]>((resolve) => {
      getPool().once('error', (...all) => resolve(all));
    });
    const client = await getClient();
    const { rows } = await client.query('select pg_backend_pid() as pid');
    const used = everythingIn(client);
    client.release();
    expectSecrecy(used, /127\.0\.0\.1/);
    await asSuperuser((admin) => admin.query('select pg_terminate_backend($1, 5000)', [rows[0].pid]));
    expectSecrecy(everythingIn(await lost), /terminating connection/);
    expectSecrecy(everythingIn(getPool()), /idleTimeoutMillis/);
    const work = withTransaction((session) => session.query('select nothing'));
    expectSecrecy(await seen(work), /"nothing" does not exist/);
  });

  test.each([
    ['is refused by the server', () => url.replace('//app:', '//other:'), /password for user "other"/],
    ['finds no server', () => url.replace(/:\d+\/app$/, ':1/app'), /no server listens/],
    ['is asked for TLS', () => `${url}?sslmode=require`, /does not support it/],
  ])('when it %s', async (_, from, said) => {
    vi.stubEnv('FILESTORE_DATABASE_URL', from());
    expectSecrecy(await seen(getClient()), said);
    expectSecrecy(await seen(getPool().query('select 1')), said);
  });

  test('when its URL is mistyped', async () => {
    for (const mistyped of mistypedUrls()) {
      vi.stubEnv('FILESTORE_DATABASE_URL', mistyped);
      const error = await getClient().catch((cause: unknown) => cause);
      expect(error).toBeInstanceOf(FilestoreError);
      expect({ mistyped, leaks: leaksIn(everythingIn(error)) }).toEqual({ mistyped, leaks: [] });
      await closePool();
    }
  });
});

test("no piece of it is in the server's log or in a warning of this process", () => {
  expectSecrecy(readFileSync(join(server.folder, 'postgres.log'), 'utf8'), /create table/);
  expect(leaksIn(warnings.map(everythingIn).join('\n'))).toEqual([]);
});
