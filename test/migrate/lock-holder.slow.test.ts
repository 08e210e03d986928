import pg, { type Client } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { migrationStatus } from '../../src/index.ts';
import { GRAPHILE_LOCK_KEY, MIGRATION_LOCK_KEY } from '../../src/session/lock-holder.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

/** A role without any rights: every role can take an advisory lock. */
const STRANGER = 'stranger';

let server: OwnServer;
let admin: Client;

beforeAll(async () => {
  server = await startOwnServer({ settings: ['max_prepared_transactions=2'] });
  await reconnect();
  await admin.query(`create role ${STRANGER} login password 'stranger'`);
});
afterAll(async () => {
  await admin?.end();
  await server?.stop();
});
beforeEach(() => admin.query('create database shop'));
afterEach(async () => {
  const shop = await connect('postgres');
  const { rows } = await shop.query<{ gid: string }>('select gid from pg_prepared_xacts');
  for (const { gid } of rows) await shop.query(`rollback prepared ${pg.escapeLiteral(gid)}`);
  await shop.end();
  await admin.query('drop database shop with (force)');
});

async function reconnect(): Promise<void> {
  admin = new pg.Client(server.url);
  admin.on('error', () => undefined);
  await admin.connect();
}

function urlOf(role: 'postgres' | typeof STRANGER): string {
  const url = new URL(server.url);
  url.pathname = '/shop';
  if (role === STRANGER) {
    url.username = role;
    url.password = 'stranger';
  }
  return url.href;
}

async function connect(role: 'postgres' | typeof STRANGER): Promise<Client> {
  const client = new pg.Client(urlOf(role));
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

const run = (args: readonly string[], role: 'postgres' | typeof STRANGER = 'postgres') =>
  runCli(args, { env: { DATABASE_URL: urlOf(role), FILESTORE_MIGRATION_LOCK_WAIT_MS: '300' } });

/** Makes a prepared transaction of another role hold the lock of migrations. */
async function prepare(gid: string): Promise<void> {
  const stranger = await connect(STRANGER);
  await stranger.query(`begin; select pg_advisory_xact_lock(${MIGRATION_LOCK_KEY})`);
  await stranger.query(`prepare transaction ${pg.escapeLiteral(gid)}`);
  await stranger.end();
}

describe('a prepared transaction that holds the lock of migrations', () => {
  const named = `prepared transaction 'it''s mine' of role "${STRANGER}" in database "shop", prepared at `;
  const remedy = `Roll it back in database "shop", as role "${STRANGER}" or a superuser: rollback prepared 'it''s mine'`;

  test('is named by migrate, with the statement that frees the lock', async () => {
    await prepare("it's mine");
    const { exitCode, stderr } = await run(['migrate']);
    expect(exitCode).toBe(5);
    expect(stderr).toMatch(/^Waiting up to 0.3 s for another migrator: prepared transaction 'it''s mine'/m);
    const error = stderr.split('\n').find((line) => line.startsWith('LOCK_NOT_ACQUIRED')) ?? '';
    expect(error).toContain(named);
    expect(error).toContain(`${remedy}.`);
    expect(stderr).not.toContain('null');

    const statement = /rollback prepared '(?:[^']|'')*'/.exec(error)?.[0] ?? '';
    const shop = await connect('postgres');
    await shop.query(statement);
    await shop.end();
    expect(await run(['migrate'])).toMatchObject({ exitCode: 0 });
  });

  test('is named by status, also after a restart of the server', async () => {
    await prepare("it's mine");
    const before = await run(['status']);
    expect(before.stdout).toContain(`LOCKED BY  ${named}`);
    expect(before.stdout).toContain(`ago). ${remedy}\n`);
    await server.restart('fast');
    await reconnect();
    const after = await run(['status']);
    expect(after.stdout).toContain(`LOCKED BY  ${named}`);
    expect(after.stdout).not.toContain('null');
  });

  test('is named in JSON', async () => {
    await prepare("it's mine");
    const holder = {
      kind: 'prepared transaction',
      gid: "it's mine",
      role: STRANGER,
      database: 'shop',
      preparedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      ageMs: expect.any(Number),
      remedy,
    };
    expect(JSON.parse((await run(['migrate', '--json'])).stdout)).toMatchObject({
      error: { code: 'LOCK_NOT_ACQUIRED', holder },
    });
    expect(JSON.parse((await run(['status', '--json'])).stdout).migrators).toEqual([
      { ...holder, lock: 'filestore' },
    ]);
  });

  test('is shown in one line, whatever its id contains', async () => {
    const gid = "a\n\u001b[2J\\'";
    await prepare(gid);
    const { stdout } = await run(['status']);
    const statement = /rollback prepared (.*)$/m.exec(stdout)?.[0] ?? '';
    expect(statement).toBe(String.raw`rollback prepared E'a\U0000000a\U0000001b[2J\\'''`);
    const shop = await connect('postgres');
    await shop.query(statement);
    expect((await shop.query('select from pg_prepared_xacts')).rowCount).toBe(0);
    await shop.end();
  });
});

describe('a session that holds the lock of migrations', () => {
  test('is named once with process, role, application, start time, and how to end it, even if it holds both', async () => {
    const holder = await connect('postgres');
    await holder.query("set application_name = 'a console'");
    await holder.query(
      `select pg_advisory_lock(${MIGRATION_LOCK_KEY}), pg_advisory_lock(${GRAPHILE_LOCK_KEY})`,
    );
    const { rows } = await holder.query<{ pid: number; since: string }>(
      `select pid, to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as since
       from pg_stat_activity where pid = pg_backend_pid()`,
    );
    const who = `server process ${rows[0]?.pid}, role "postgres", application "a console", connected at ${rows[0]?.since}`;
    const { stdout } = await run(['status']);
    expect(stdout).toContain(`AT WORK  ${who}. `);
    expect(stdout).toContain(`select pg_terminate_backend(${rows[0]?.pid})\n`);
    const [refusal = ''] = /^LOCK_NOT_ACQUIRED: .*$/m.exec((await run(['migrate'])).stderr) ?? [];
    expect([stdout, refusal].map((text) => text.split(who).length - 1)).toEqual([1, 1]);
    await holder.end();
  });

  test('is named without its start time to a role that may not see it', async () => {
    const holder = await connect('postgres');
    await holder.query(`select pg_advisory_lock(${MIGRATION_LOCK_KEY})`);
    const { stdout } = await run(['status'], STRANGER);
    expect(stdout).toMatch(
      /^AT WORK {2}server process \d+, role "postgres", connected at a time that only pg_read_all_stats may see/m,
    );
    expect(stdout).not.toContain('null');
    const { migrators } = await migrationStatus({ env: { DATABASE_URL: urlOf(STRANGER) } });
    expect(migrators).toMatchObject([{ kind: 'hidden session', role: 'postgres', lock: 'filestore' }]);
    await holder.end();
  });
});
