import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { startProxy } from '../../harness/proxy.ts';
import { type CliResult, collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { drift, forgetLast, lockOut, putAhead } from '../support/databases/fleet-databases.ts';
import { createDatabase, type TestDatabase } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

const files = committedMigrations();

/** Names and URLs. */
type Lists = Readonly<Record<string, string>>;
const environmentOf = (urls: Lists) => ({
  LIST: Object.entries(urls)
    .map(([name, url]) => `${name} ${url}`)
    .join('\n'),
  FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0',
  FILESTORE_MIGRATION_LOCK_WAIT_MS: '1000',
});
const COMMAND = (command: string) => [command, '--databases', 'env:LIST', '--json'];

interface Entry {
  readonly name: string;
  readonly state: string;
  readonly error?: { readonly code: string; readonly message: string };
}
interface Outcome extends CliResult {
  readonly entries: readonly Entry[];
}
const withEntries = (result: CliResult): Outcome => ({
  ...result,
  entries: JSON.parse(result.stdout).databases,
});
const run = async (command: string, urls: Lists, env: Readonly<Record<string, string>> = {}) =>
  withEntries(await runCli(COMMAND(command), { env: { ...environmentOf(urls), ...env } }));

/** The word that says how each database fared. */
const fates = ({ entries }: Outcome) =>
  Object.fromEntries(entries.map(({ name, state, error }) => [name, error?.code ?? state]));
const all = (names: readonly string[], fate: string) => Object.fromEntries(names.map((name) => [name, fate]));

let other: OwnServer;
let created: TestDatabase[] = [];

beforeAll(async () => {
  other = await startOwnServer({ listen: 'tcp' });
});
afterAll(() => other?.stop());
afterEach(async () => {
  for (const database of created) await database.drop();
  created = [];
});

async function create(kind?: 'empty'): Promise<TestDatabase> {
  const database = await createDatabase(kind);
  created.push(database);
  return database;
}

/** Empty databases on the other server. */
async function createThere(prefix: string, number: number): Promise<Lists> {
  const client = new pg.Client(other.url);
  await client.connect();
  const urls: Record<string, string> = {};
  for (let index = 1; index <= number; index += 1) {
    const name = `${prefix}${index}`;
    await client.query(`create database ${name} encoding 'UTF8' template template0`);
    urls[name] = databaseUrl(other.url, name);
  }
  await client.end();
  return urls;
}

test('twenty databases on two servers: four that cannot be migrated do not stop the others', async () => {
  const there = await createThere('there', 10);
  const here: Record<string, string> = {};
  for (let index = 1; index <= 5; index += 1) here[`here${index}`] = (await create('empty')).url;
  const [current, drifted, ahead, locked] = [await create(), await create(), await create(), await create()];
  await forgetLast(drifted);
  await drift(drifted);
  await putAhead(ahead);
  await forgetLast(locked);
  const { release } = await lockOut(locked);
  const urls = {
    ...here,
    unreachable: 'postgres://app@127.0.0.1:1/app',
    drifted: drifted.url,
    ahead: ahead.url,
    locked: locked.url,
    current: current.url,
    ...there,
  };
  expect(Object.keys(urls)).toHaveLength(20);
  const empty = [...Object.keys(here), ...Object.keys(there)];

  const first = await run('migrate', urls);
  expect(first.exitCode).toBe(4);
  expect(first.entries.map(({ name }) => name)).toEqual(Object.keys(urls));
  expect(fates(first)).toEqual({
    ...all(empty, 'migrated'),
    unreachable: 'CONNECTION_FAILED',
    drifted: 'SCHEMA_DRIFTED',
    ahead: 'DATABASE_AHEAD',
    locked: 'LOCK_NOT_ACQUIRED',
    current: 'current',
  });

  await release();
  expect(fates(await run('migrate', urls))).toEqual({
    ...all(empty, 'current'),
    unreachable: 'CONNECTION_FAILED',
    // Nothing is pending there any more, and so nothing is compared.
    drifted: 'current',
    ahead: 'DATABASE_AHEAD',
    locked: 'migrated',
    current: 'current',
  });
  expect(fates(await run('verify', urls))).toEqual({
    ...all([...empty, 'locked', 'current'], 'same'),
    unreachable: 'CONNECTION_FAILED',
    drifted: 'drifted',
    ahead: 'unchecked',
  });
}, 180_000);

describe.each(['SIGINT', 'SIGTERM'] as const)('%s in the middle of twenty', (signal) => {
  test('keeps what is committed, leaves no lock, and the next run finishes', async () => {
    const urls = await createThere(`middle_${signal.toLowerCase()}_`, 20);
    const child = startCli(COMMAND('migrate'), { env: environmentOf(urls) });
    let said = '';
    child.stderr?.on('data', (chunk) => {
      const before = said.includes(files[0] ?? '');
      said += chunk;
      if (!before && said.includes(files[0] ?? '')) child.kill(signal);
    });
    const stopped = withEntries(await collect(child));
    expect(stopped.exitCode).toBe(1);
    expect(stopped.entries).toHaveLength(20);
    const seen = new Set(Object.values(fates(stopped)));
    expect(seen).toContain('RUN_ABORTED');
    expect(seen).toContain('not started');
    for (const fate of seen) expect(['migrated', 'RUN_ABORTED', 'not started']).toContain(fate);

    const between = await run('status', urls);
    for (const { state, migrators } of between.entries as readonly (Entry & { migrators: unknown[] })[]) {
      expect(['empty', 'pending', 'current']).toContain(state);
      expect(migrators).toEqual([]);
    }
    expect(await run('migrate', urls)).toMatchObject({ exitCode: 0 });
    expect(fates(await run('verify', urls))).toEqual(all(Object.keys(urls), 'same'));
  }, 180_000);
});

test.each(['migrate', 'status'])(
  'a server that accepts a connection and never answers ends after a time: %s',
  async (command) => {
    const [silent, next] = [await create(), await create()];
    const cable = await startProxy(silent.url);
    try {
      const held = cable.holdAt('filestore.preflight');
      const outcome = await run(
        command,
        { silent: cable.url, next: next.url },
        { FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS: '1000' },
      );
      await held;
      expect(fates(outcome)).toEqual({ silent: 'CONNECTION_FAILED', next: 'current' });
      expect(outcome.entries[0]?.error?.message).toMatch(
        /^Cannot use database ".*" on .*: it accepted the connection, and did not answer within 4 s\. .*Check the server/,
      );
    } finally {
      await cable.stop();
    }
  },
);
