import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { packageFolder, startOf } from '../../harness/compiled.ts';
import { startProxy } from '../../harness/proxy.ts';
import { worstOf } from '../../src/cli/exit-codes.ts';
import { migrationStatus } from '../../src/index.ts';
import { type CliResult, collect, runCli, startCli } from '../support/command-line.ts';
import { committedMigrations } from '../support/committed-files.ts';
import { diverge, drift, forgetLast, lockOut, putAhead } from '../support/fleet-databases.ts';
import { ENCODED_SECRET, leaksIn } from '../support/secret.ts';
import { ERASE_LINE, pretendTerminal, screenOf } from '../support/terminal.ts';
import {
  createDatabase,
  databaseForEachTest,
  databaseForFile,
  type TestDatabase,
} from '../support/test-database.ts';

const files = committedMigrations();
/** Only read. */
const current = databaseForFile();
/** One in each state; only read. */
const stateful: Record<'pending' | 'ahead' | 'diverged' | 'drifted', TestDatabase | undefined> = {
  pending: undefined,
  ahead: undefined,
  diverged: undefined,
  drifted: undefined,
};

beforeAll(async () => {
  const prepare = { pending: forgetLast, ahead: putAhead, diverged: diverge, drifted: drift };
  for (const name of ['pending', 'ahead', 'diverged', 'drifted'] as const) {
    const database = await createDatabase();
    await prepare[name](database);
    stateful[name] = database;
  }
});
afterAll(async () => {
  for (const database of Object.values(stateful)) await database?.drop();
});

const urlOf = (name: string): string => {
  if (name === 'current') return current().url;
  if (name === 'unreachable') return 'postgres://app@127.0.0.1:1/app';
  return stateful[name as keyof typeof stateful]?.url ?? expect.fail(`there is no database ${name}`);
};

/** Without patience: no wait would fix what these tests break. */
const IMPATIENT = { FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0', FILESTORE_MIGRATION_LOCK_WAIT_MS: '0' };

type Lists = Readonly<Record<string, string>>;
const listOf = (urls: Lists) =>
  Object.entries(urls)
    .map(([name, url]) => `${name} ${url}`)
    .join('\n');

interface Options {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

const environmentOf = (urls: Lists, { env }: Options) => ({ ...IMPATIENT, LIST: listOf(urls), ...env });
const argumentsOf = (command: string, { args = [] }: Options) => [
  command,
  '--databases',
  'env:LIST',
  ...args,
];

/** Runs a command on databases by name and URL. */
const runOn = (command: string, urls: Lists, options: Options = {}): Promise<CliResult> =>
  runCli(argumentsOf(command, options), { env: environmentOf(urls, options) });

/** The same with --json. */
async function documentOn(command: string, urls: Lists, options: Options = {}) {
  const args = [...(options.args ?? []), '--json'];
  const result = await runOn(command, urls, { ...options, args });
  return { ...result, document: JSON.parse(result.stdout) };
}

/** A URL with a secret password that the server refuses or does not ask for. */
function secretUrl(url: string): string {
  const other = new URL(url);
  other.password = ENCODED_SECRET;
  return other.href;
}

const MILLISECONDS = expect.any(Number);

describe('migrate --databases', () => {
  const empty = databaseForEachTest('empty');

  test('reads a file, migrates each database, and ends with a table in the order of the list', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'filestore-fleet-'));
    try {
      const file = join(folder, 'databases.txt');
      writeFileSync(file, `# name  URL or variable\nrome ${current().url}\n\nparis PARIS_URL\n`);
      const { exitCode, stdout, stderr } = await runCli(['migrate', '--databases', file], {
        env: { PARIS_URL: empty().url },
      });
      expect(exitCode).toBe(0);
      expect(stdout.split('\n')).toEqual([
        expect.stringMatching(/^rome {3}current {2,}[\d.]+ m?s$/),
        expect.stringMatching(
          new RegExp(`^paris {2}migrated {2,}[\\d.]+ m?s {2}${files.length} migrations? applied$`),
        ),
        expect.stringMatching(/^2 databases: 1 current, 1 migrated \([\d.]+ m?s\)$/),
        '',
      ]);
      expect(stderr).toMatch(new RegExp(`^paris: OK {2}${files[0]} {2}\\(\\d+ ms\\)$`, 'm'));
      expect(stderr).toMatch(/^rome: current \(.*\); \d of 2 done$/m);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('with --json is one document, with an entry for each database', async () => {
    const urls = {
      paris: empty().url,
      rome: current().url,
      again: current().url,
      nowhere: urlOf('unreachable'),
    };
    const { exitCode, document } = await documentOn('migrate', urls);
    expect({ exitCode, document }).toEqual({
      exitCode: 1,
      document: {
        ok: false,
        command: 'migrate',
        databases: [
          expect.objectContaining({
            name: 'paris',
            sameAs: null,
            state: 'migrated',
            applied: files.map((filename) => expect.objectContaining({ filename, durationMs: MILLISECONDS })),
            durationMs: MILLISECONDS,
          }),
          expect.objectContaining({
            name: 'rome',
            sameAs: null,
            state: 'current',
            applied: [],
            durationMs: MILLISECONDS,
          }),
          { name: 'again', sameAs: 'rome', state: 'duplicate' },
          {
            name: 'nowhere',
            sameAs: null,
            state: 'failed',
            durationMs: MILLISECONDS,
            error: {
              name: 'FilestoreError',
              code: 'CONNECTION_FAILED',
              message: expect.stringMatching(/^Cannot connect to database "app" on 127\.0\.0\.1:1/),
              cause: expect.any(String),
            },
          },
        ],
        durationMs: MILLISECONDS,
      },
    });
  });

  test('with --events prints the events of each run with the name of its database, and last the document', async () => {
    const urls = { rome: current().url, nowhere: urlOf('unreachable') };
    const { stdout } = await runOn('migrate', urls, { args: ['--events', '--concurrency', '1'] });
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const kinds = lines.filter(({ event }) => event?.type !== 'span').map(({ type, name }) => [type, name]);
    expect(kinds).toEqual([
      ['start', 'rome'],
      ['run', 'rome'],
      ['end', 'rome'],
      ['start', 'nowhere'],
      ['end', 'nowhere'],
      ['result', undefined],
    ]);
    const ends = lines.filter(({ type }) => type === 'end');
    expect(ends).toEqual([
      { atMs: MILLISECONDS, type: 'end', name: 'rome', state: 'current', durationMs: MILLISECONDS },
      {
        atMs: MILLISECONDS,
        type: 'end',
        name: 'nowhere',
        state: 'failed',
        durationMs: MILLISECONDS,
        code: 'CONNECTION_FAILED',
      },
    ]);
    expect(lines.find(({ event }) => event?.type === 'plan')).toMatchObject({ event: { pending: [] } });
    expect(lines.at(-1)).toMatchObject({ ok: false, command: 'migrate', databases: [{}, {}] });
  });

  test('is a command of the packed command line too', async () => {
    const folder = packageFolder();
    const child = spawn(
      process.execPath,
      [...startOf(folder, 'src', 'cli'), 'migrate', '--databases', 'env:LIST'],
      { cwd: folder, env: { LIST: listOf({ rome: current().url }) }, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    expect(await collect(child)).toMatchObject({
      exitCode: 0,
      stdout: expect.stringMatching(/^rome {2}current /),
    });
  });

  test.each(['SIGINT', 'SIGTERM'] as const)(
    '%s stops the run at work, and reports the others as not started',
    async (signal) => {
      const { release } = await lockOut(empty());
      const urls = { waits: empty().url, next: current().url, last: urlOf('unreachable') };
      const options = { args: ['--concurrency', '1', '--json'] };
      const env = { ...environmentOf(urls, options), FILESTORE_MIGRATION_LOCK_WAIT_MS: '60000' };
      const child = startCli(argumentsOf('migrate', options), { env });
      child.stderr?.on('data', (chunk) => {
        if (String(chunk).includes('waits: Waiting')) child.kill(signal);
      });
      const { exitCode, stdout, stderr } = await collect(child);
      await release();
      expect(exitCode).toBe(1);
      expect(JSON.parse(stdout)).toMatchObject({
        ok: false,
        databases: [
          { name: 'waits', state: 'failed', error: { code: 'RUN_ABORTED', applied: [] } },
          { name: 'next', sameAs: null, state: 'not started' },
          { name: 'last', state: 'not started' },
        ],
      });
      expect(stderr).toMatch(new RegExp(`^waits: RUN_ABORTED: Stopped on request \\(${signal}\\)`, 'm'));
      expect(stderr).toMatch(/^next +not started$/m);
      expect(await migrationStatus({ connectionString: empty().url })).toMatchObject({ migrators: [] });
    },
  );

  test('on a terminal shows in one line which databases are done and which are at work', async () => {
    const { release } = await lockOut(empty());
    const urls = { rome: current().url, paris: empty().url };
    const options = {
      args: ['--concurrency', '1'],
      env: { ...pretendTerminal(80), FILESTORE_MIGRATION_LOCK_WAIT_MS: '60000' },
    };
    const child = startCli(argumentsOf('migrate', options), { env: environmentOf(urls, options) });
    child.stderr?.on('data', (chunk) => {
      if (String(chunk).includes('paris (waits for another migrator)')) void release();
    });
    const { exitCode, stdout, stderr } = await collect(child);
    expect(exitCode).toBe(0);
    const states = stderr.split(ERASE_LINE);
    expect(states).toContain('0 of 2 done; at work: rome');
    expect(states).toContain('1 of 2 done; at work: paris (waits for another migrator)');
    expect(screenOf(stderr).join('\n')).not.toContain('at work');
    expect(stdout).toMatch(/^rome {3}current .*\nparis {2}migrated /);
  });
});

describe('status --databases', () => {
  test('counts what is pending, and names what is wrong', async () => {
    const urls = { rome: current().url, behind: urlOf('pending'), other: urlOf('diverged') };
    const { exitCode, stdout, stderr } = await runOn('status', urls);
    expect(exitCode).toBe(4);
    expect(stdout).toMatch(new RegExp(`^rome +current +.* ${files.length} applied, 0 pending$`, 'm'));
    expect(stdout).toMatch(new RegExp(`^behind +pending +.* ${files.length - 1} applied, 1 pending$`, 'm'));
    expect(stdout).toMatch(/^other +diverged /m);
    expect(stderr).toMatch(
      new RegExp(`^other: PROBLEM {2}${files.at(-1)} was applied with other content`, 'm'),
    );
  });

  test('with --json has what status has, for each database', async () => {
    const { document } = await documentOn('status', { behind: urlOf('pending') });
    expect(document).toMatchObject({
      ok: true,
      command: 'status',
      databases: [
        {
          name: 'behind',
          state: 'pending',
          pending: files.slice(-1),
          problems: [],
          durationMs: MILLISECONDS,
        },
      ],
    });
  });
});

describe('verify --databases', () => {
  test('lists what has drifted', async () => {
    const { exitCode, stdout, stderr } = await runOn('verify', {
      rome: current().url,
      paris: urlOf('drifted'),
    });
    expect(exitCode).toBe(4);
    expect(stdout).toMatch(/^rome +same /m);
    expect(stdout).toMatch(/^paris +drifted +.* 1 difference$/m);
    expect(stderr).toMatch(/^paris: DRIFT {2}column filestore\.nodes\.drifted_here is not in the model/m);
  });

  test('with --json has what verify has, for each database', async () => {
    const { document } = await documentOn('verify', { rome: current().url, behind: urlOf('pending') });
    expect(document).toMatchObject({
      ok: false,
      databases: [
        { name: 'rome', state: 'same', notes: expect.any(Array) },
        { name: 'behind', state: 'unchecked', reason: expect.stringContaining('lacks 1 migration') },
      ],
    });
  });
});

describe('the exit code is the worst one of', () => {
  test.each<[command: string, names: readonly string[], exitCode: number]>([
    ['status', ['current'], 0],
    ['status', ['current', 'pending'], 3],
    ['status', ['pending', 'unreachable'], 1],
    ['status', ['unreachable', 'diverged', 'pending'], 4],
    ['status --allow-ahead', ['ahead', 'current'], 0],
    ['migrate', ['unreachable', 'ahead'], 4],
    ['migrate --allow-ahead', ['ahead'], 0],
    ['verify', ['current', 'pending'], 1],
  ])('%s of %j', async (command, names, exitCode) => {
    const [name = '', ...args] = command.split(' ');
    const urls = Object.fromEntries(names.map((one) => [one, urlOf(one)]));
    expect(await runOn(name, urls, { args })).toMatchObject({ exitCode });
  });

  test('several: first what a later run cannot fix, last a pending migration', () => {
    const order = [4, 2, 1, 5, 3, 0];
    for (const [index, worst] of order.entries()) expect(worstOf(order.slice(index).reverse())).toBe(worst);
  });

  test('migrate: a pooler, which is wrong settings, is worse than a lock', async () => {
    const cable = await startProxy(current().url, { rewriteProcessId: true });
    const { release } = await lockOut(stateful.pending ?? expect.fail());
    try {
      const urls = { pooled: cable.url, locked: urlOf('pending') };
      const { exitCode, document } = await documentOn('migrate', urls);
      expect(exitCode).toBe(2);
      expect(document.databases).toMatchObject([
        { name: 'pooled', error: { code: 'POOLER_IN_BETWEEN' } },
        { name: 'locked', error: { code: 'LOCK_NOT_ACQUIRED' } },
      ]);
      expect(await runOn('migrate', { locked: urls.locked })).toMatchObject({ exitCode: 5 });
    } finally {
      await release();
      await cable.stop();
    }
  });
});

describe('no output has a URL or a password', () => {
  test('of databases that work, fail or cannot be reached', async () => {
    const { password } = new URL(current().url);
    const urls = {
      works: current().url,
      refused: secretUrl(current().url),
      other: urlOf('diverged'),
      nowhere: secretUrl(urlOf('unreachable')),
      unknown: secretUrl(urlOf('unreachable')).replace('127.0.0.1:1', 'db.invalid'),
    };
    for (const command of ['migrate', 'status', 'verify']) {
      for (const args of [[], ['--json']]) {
        const { output } = await runOn(command, urls, { args });
        expect(output).toContain('nowhere');
        expect(leaksIn(output)).toEqual([]);
        expect(output).not.toContain('postgres:');
        if (password !== '') expect(output).not.toContain(password);
      }
    }
  });

  test.each([
    ['a URL that cannot be read', { bad: `postgres://app:${ENCODED_SECRET}#@host/app` }],
    [
      'a URL in the place of the name',
      { [`postgres://app:${ENCODED_SECRET}@host/app`]: urlOf('unreachable') },
    ],
    ['no scheme', { bad: `app:${ENCODED_SECRET}@host/app` }],
  ])('of a list with %s', async (_, urls) => {
    const { exitCode, output } = await runOn('migrate', urls, { args: ['--json'] });
    expect(exitCode).toBe(2);
    expect(output).toMatch(/[Ll]ine 1 of LIST/);
    expect(leaksIn(output)).toEqual([]);
  });
});

describe('wrong usage is refused, and says what to do:', () => {
  const LIST = { rome: 'postgres://app@127.0.0.1:1/app' };
  test.each<[args: readonly string[], message: RegExp]>([
    [
      ['migrate', '--databases', 'env:LIST', '--dry-run'],
      /--dry-run prints the SQL of one database\. Use status/,
    ],
    [
      ['migrate', '--concurrency', '2'],
      /--concurrency is for many databases\. Give their list with --databases/,
    ],
    [['status', '--databases', 'env:LIST', '--concurrency', 'all'], /--concurrency is "all".*from 1 to 1000/],
    [['verify', '--databases', ''], /the value is empty\. Give the path of a file/],
    [['verify', '--databases'], /--databases/],
  ])('%j', async (args, message) => {
    const { exitCode, stderr } = await runCli(args, { env: { LIST: listOf(LIST) } });
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(message);
  });
});
