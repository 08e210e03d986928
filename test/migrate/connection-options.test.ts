import pg from 'pg';
import { describe, expect, inject, test } from 'vitest';
import { assertMigrated, migrationStatus, runMigrations, verifySchema } from '../../src/index.ts';
import { withSession } from '../../src/session/session.ts';
import { resolveDatabase } from '../../src/settings/database.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { FORGET_LAST, forgetLast } from '../support/databases/fleet-databases.ts';
import { asAdmin, databaseForFile } from '../support/databases/test-database.ts';
import { until } from '../support/until.ts';

const database = databaseForFile();
const NO_DATABASE_HERE = { DATABASE_URL: 'postgres://nowhere.invalid/app' };

function parts() {
  const url = new URL(database().url);
  const host = url.searchParams.get('host') ?? url.hostname;
  return {
    host,
    port: Number(url.port || (url.searchParams.get('port') ?? 5432)),
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database: url.pathname.slice(1),
  };
}

describe('the database can be given', () => {
  test('as a URL, which has precedence over the environment', async () => {
    const options = { connectionString: database().url, env: NO_DATABASE_HERE };
    expect(await runMigrations(options)).toMatchObject({ database: parts().database, applied: [] });
    expect(await migrationStatus(options)).toMatchObject({ state: 'current' });
    expect(await verifySchema(options)).toMatchObject({ state: 'same' });
    await assertMigrated(options);
  });

  test("as pg's options", async () => {
    const options = { connection: { ...parts(), application_name: 'deploy' }, env: NO_DATABASE_HERE };
    expect(await runMigrations(options)).toMatchObject({ database: parts().database });
  });

  test("as pg's options, and a port that is none does not end the process", async () => {
    const connection = { ...parts(), host: '127.0.0.1', port: 99_999 };
    await expect(runMigrations({ connection, settings: { connectWaitMs: 0 } })).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
    });
  });

  test("as pg's options, with a longer time to connect than timers take", async () => {
    const connection = { ...parts(), connectionTimeoutMillis: 2 ** 31 };
    expect(await runMigrations({ connection })).toMatchObject({ database: parts().database });
  });

  test("as pg's options with a URL, which has precedence over the other members", async () => {
    const connection = { connectionString: database().url, host: 'nowhere.invalid', ssl: false };
    expect(await runMigrations({ connection })).toMatchObject({ database: parts().database });
  });
});

test.each(['.', '..'])('a database named %s can be migrated', async (name) => {
  const connectionString = database().url.replace(parts().database, name);
  await asAdmin((admin) => admin.query(`create database "${name}" template ${inject('template')}`));
  try {
    await withClient({ ...parts(), database: name }, (client) => client.query(FORGET_LAST));
    expect(await runMigrations({ connectionString })).toMatchObject({
      database: name,
      schema: { state: 'same' },
    });
  } finally {
    await asAdmin((admin) => admin.query(`drop database "${name}"`));
  }
});

describe('refused is', () => {
  const refusal = (setting: string, message: RegExp) => ({
    code: 'SETTINGS_INVALID',
    setting,
    message: expect.stringMatching(message),
  });

  test('a URL that cannot be read, without quoting it', async () => {
    const run = runMigrations({ connectionString: 'postgres://app:se/cret@host/app' });
    await expect(run).rejects.toMatchObject(refusal('connectionString', /^(?!.*cret)connectionString /));
  });

  test('an empty URL, even when the environment has one', async () => {
    const run = runMigrations({ connectionString: '', env: { DATABASE_URL: database().url } });
    await expect(run).rejects.toMatchObject({ code: 'SETTINGS_INVALID' });
  });

  test('a connection without a database', async () => {
    const run = runMigrations({ connection: { host: 'db.example' } });
    await expect(run).rejects.toMatchObject(refusal('connection', /names no database/));
  });

  test('a name that the server would shorten to that of another database', async () => {
    const tooLong = 'é'.repeat(32);
    const message = /names a database with more than 63 bytes/;
    const url = runMigrations({ connectionString: `postgres://nowhere.invalid/${tooLong}` });
    await expect(url).rejects.toMatchObject(refusal('connectionString', message));
    const connection = { host: 'nowhere.invalid', database: tooLong };
    await expect(runMigrations({ connection })).rejects.toMatchObject(refusal('connection', message));
    const longest = { ...connection, database: tooLong.slice(1) };
    await expect(migrationStatus({ connection: longest })).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
    });
  });

  test('a function, which cannot be passed to a thread', async () => {
    const password = runMigrations({ connection: { database: 'app', password: () => 'secret' } });
    await expect(password).rejects.toMatchObject(refusal('connection', /password is a function/));
    const ssl = { checkServerIdentity: () => undefined };
    const run = runMigrations({ connection: { database: 'app', ssl } });
    await expect(run).rejects.toMatchObject(refusal('connection', /ssl contains a function/));
  });
});

test.for([
  ['transaction_timeout', 'begin'],
  ['idle_in_transaction_session_timeout', 'begin'],
  ['idle_session_timeout', ''],
])(
  'a session that %s of the role ends is lost, and the error names the setting',
  async ([name, begin], { skip }) => {
    const [known] = await database().query(`select current_setting('${name}', true) as value`);
    skip(known?.value === null, `this server has no ${name}`);
    const ask = withSession(resolveDatabase({ connectionString: database().url }), async (session) => {
      await session.query(`${begin}; set ${name} = '1ms'`);
      const process = `select from pg_stat_activity where pid = ${session.announcedPid}`;
      await until(async () => (await database().query(process)).length === 0);
      await session.query('select');
    });
    await expect(ask).rejects.toMatchObject({
      code: 'CONNECTION_LOST',
      message: expect.stringContaining(`Set ${name} of the role or database to 0.`),
    });
  },
);

/** By the type's id: what programs do to keep numbers exact, or text unchanged. */
const PARSERS: readonly (readonly [string, number, (text: string) => unknown])[] = [
  ['json as text', 114, String],
  ['bigint as a number', 20, Number],
  ['integer as a bigint', 23, BigInt],
  ['integer as text', 23, String],
  ['boolean as text', 16, String],
];

test.each(PARSERS)('a program that reads %s gets the same answers', async (_, oid, parse) => {
  const before = pg.types.getTypeParser(oid);
  const connectionString = database().url;
  try {
    pg.types.setTypeParser(oid, parse);
    pg.defaults.binary = true;
    await assertMigrated({ connectionString });
    expect(await verifySchema({ connectionString })).toMatchObject({ state: 'same' });
    await forgetLast(database());
    expect(await runMigrations({ connectionString })).toMatchObject({ schema: { state: 'same' } });
  } finally {
    pg.defaults.binary = false;
    pg.types.setTypeParser(oid, before);
  }
});
