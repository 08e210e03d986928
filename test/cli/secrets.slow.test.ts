import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { copyPackage } from '../../harness/package-copy.ts';
import { type CliOptions, collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { ENCODED_SECRET, leaksIn, mistypedUrls, SECRET } from '../support/command-line/secret.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

let server: OwnServer;
/** The server's database `app` as the role `app`, whose password is the secret. */
let url: string;

beforeAll(async () => {
  server = await startOwnServer({ listen: 'tcp' });
  const client = new pg.Client(server.url);
  await client.connect();
  await client.query(`create role app login password ${pg.escapeLiteral(SECRET)}`);
  await client.query("create role other login password 'another'");
  await client.query('create database app owner app');
  await client.end();
  url = databaseUrl(server.url, 'app').replace(/\/\/[^@]*@/, `//app:${ENCODED_SECRET}@`);
});
afterAll(() => server?.stop());

const IMPATIENT = { FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0', FILESTORE_MIGRATION_LOCK_WAIT_MS: '0' };

/** Runs a command with the URL. The output must match, and have no piece of the password. */
async function expectSecrecy(
  args: readonly string[],
  from: string,
  said: RegExp,
  options: CliOptions = {},
): Promise<void> {
  const env = { ...IMPATIENT, DATABASE_URL: from, ...options.env };
  const { output } = await runCli(args, { ...options, env });
  expect(output).toMatch(said);
  expect(leaksIn(output)).toEqual([]);
}

const COMMANDS = [['migrate', '--dry-run'], ['migrate'], ['migrate'], ['status'], ['verify']] as const;

test('no successful command prints the password, as text or JSON', async () => {
  for (const command of COMMANDS) {
    await expectSecrecy(command, url, /app/);
    await expectSecrecy([...command, '--json'], url, /"ok": true/);
  }
  await expectSecrecy(['migrate', '--events'], url, /"type":"result","ok":true/);
});

test('no command that is refused or cannot connect prints it', async () => {
  const refusals: readonly [string, RegExp][] = [
    [url.replace('//app:', '//other:'), /password for user "other" is wrong/],
    [url.replace(/:\d+\/app$/, ':1/app'), /no server listens/],
    [databaseUrl(url, 'nowhere'), /the database does not exist/],
    [`${url}?sslmode=verify-full`, /does not support it/],
  ];
  for (const [from, said] of refusals) {
    // A document on stdout, and text on stderr.
    await expectSecrecy(['migrate', '--json'], from, said);
    await expectSecrecy(['migrate', '--events'], from, /"type":"span","name":"run".*"CONNECTION_FAILED"/);
    await expectSecrecy(['status'], from, said);
  }
});

test('no failed migration prints it', async () => {
  const broken = copyPackage();
  broken.addMigration('broken', 'select 1 / 0;');
  try {
    for (const args of [['migrate'], ['migrate', '--json']]) {
      await expectSecrecy(args, url, /division by zero/, { folder: broken.folder });
    }
  } finally {
    broken.remove();
  }
});

test('no run that is stopped while it waits prints it', async () => {
  const holder = new pg.Client(url);
  await holder.connect();
  await holder.query('select pg_advisory_lock(7379548647407775602)');
  await holder.query('delete from graphile_migrate.migrations');
  const child = startCli(['migrate', '--json'], { env: { DATABASE_URL: url } });
  const result = collect(child);
  child.stderr?.on('data', (chunk: string) => {
    if (chunk.includes('Waiting')) child.kill('SIGTERM');
  });
  const { output } = await result;
  await holder.end();
  expect(output).toMatch(/RUN_ABORTED/);
  expect(leaksIn(output)).toEqual([]);
});

test('the password in other variables is not printed either', async () => {
  const bad = `postgres://app:${SECRET}@127.0.0.1:1/app`;
  await expectSecrecy(['migrate'], url.replace(`:${ENCODED_SECRET}@`, '@'), /migrations? /, {
    env: { PGPASSWORD: SECRET, SHADOW_DATABASE_URL: bad, ROOT_DATABASE_URL: bad },
  });
  await expectSecrecy(['migrate'], url, /FILESTORE_MIGRATION_POOLER/, {
    env: { FILESTORE_MIGRATION_POOLER: bad },
  });
  await expectSecrecy(['migrate'], url.replace(`:${ENCODED_SECRET}@`, '@'), /asks user "app" for a password/);
});

test('no command prints a mistyped URL', async () => {
  // Other tests try all of them with the package; a process for each would take long.
  const some = mistypedUrls().filter((_, index) => index % 15 === 0);
  for (const mistyped of some) {
    for (const args of [['migrate', '--json'], ['status']]) {
      await expectSecrecy(args, mistyped, /SETTINGS_INVALID|CONNECTION_FAILED/);
    }
  }
});
