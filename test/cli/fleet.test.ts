import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageFolder, startOf } from '../../harness/compiled.ts';
import { migrationStatus } from '../../src/index.ts';
import { collect, runCli, startCli } from '../support/command-line/command-line.ts';
import {
  argumentsOf,
  documentOn,
  environmentOf,
  fleetForFile,
  listOf,
  runOn,
} from '../support/command-line/fleet-commands.ts';
import { ERASE_LINE, pretendTerminal, screenOf } from '../support/command-line/terminal.ts';
import { forgetLast, lockOut } from '../support/databases/fleet-databases.ts';
import { databaseForEachTest, databaseForFile } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';

const files = committedMigrations();
const { current, urlOf } = fleetForFile();
const MILLISECONDS = expect.any(Number);

describe('migrate --databases', () => {
  const empty = databaseForEachTest('empty');
  const behind = databaseForFile();

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

  test.each([
    ['--first', '1'],
    ['--stop-on-failure', '--concurrency', '1'],
  ])('%s after a failure starts no other database, and says so', async (...args) => {
    const urls = { nowhere: urlOf('unreachable'), rome: current().url, paris: empty().url };
    const { exitCode, stdout, stderr } = await runOn('migrate', urls, { args });
    expect(exitCode).toBe(1);
    expect(stdout.split('\n')).toEqual([
      expect.stringMatching(/^nowhere {2}failed {7}.* CONNECTION_FAILED$/),
      'rome     not started',
      'paris    not started',
      expect.stringMatching(/^3 databases: 1 failed, 2 not started /),
      '',
    ]);
    expect(stderr).toMatch(
      /^Stopped after a failure: 2 databases not started\. Fix the cause, and run this again\.$/m,
    );
    const { document } = await documentOn('migrate', urls, { args });
    expect(document).toMatchObject({ ok: false, databases: [{ state: 'failed' }, {}, {}] });
    expect(document.databases.slice(1)).toEqual(
      ['rome', 'paris'].map((name) => ({ name, sameAs: null, state: 'not started' })),
    );
    expect(await migrationStatus({ connectionString: empty().url })).toMatchObject({ state: 'empty' });
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
      expect(stderr).not.toContain('Stopped after a failure');
      expect(await migrationStatus({ connectionString: empty().url })).toMatchObject({ migrators: [] });
    },
  );

  test('on a terminal shows in one line which databases are done and which are at work', async () => {
    await forgetLast(behind());
    const { release } = await lockOut(behind());
    const urls = { rome: current().url, paris: behind().url };
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
