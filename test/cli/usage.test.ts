import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { packageFolder, startOf } from '../../harness/compiled.ts';
import { jsonCommand } from '../support/command-line/answers.ts';
import { type CliResult, collect, runCli } from '../support/command-line/command-line.ts';

const SECRET = 'hunter2-sesame';
const NOWHERE = 'postgres://app@127.0.0.1:1/app';

const migrate = (env: Record<string, string>) => runCli(['migrate'], { env });

/** Expects the exit code of wrong usage, a message with all these parts, no stack trace and no secret. */
function expectFailure(result: CliResult, exitCode: number, ...parts: readonly (string | RegExp)[]): void {
  expect(result).toMatchObject({ exitCode });
  for (const part of parts) expect(result.stderr).toMatch(part);
  expect(result.output).not.toMatch(/^\s+at /m);
  expect(result.output).not.toContain(SECRET);
}

describe('a setting', () => {
  test('a database URL that cannot be read is refused and never quoted', async () => {
    expectFailure(
      await migrate({ FILESTORE_MIGRATION_DATABASE_URL: `postgres://app:${SECRET}@#@host/app` }),
      2,
      'FILESTORE_MIGRATION_DATABASE_URL',
    );
  });

  test('a missing URL is an error in production', async () => {
    expectFailure(await migrate({ NODE_ENV: 'production' }), 2, /FILESTORE_DATABASE_URL/, /production/);
  });
});

describe('the variable that names the database', () => {
  const OTHER = 'postgres://app@other.invalid/other';

  test.each([
    ['migrate', { DATABASE_URL: NOWHERE }, 'from DATABASE_URL.'],
    [
      'status',
      { DATABASE_URL: OTHER, FILESTORE_DATABASE_URL: NOWHERE },
      'from FILESTORE_DATABASE_URL; DATABASE_URL is also set, and not used.',
    ],
    [
      'verify',
      { DATABASE_URL: OTHER, FILESTORE_DATABASE_URL: OTHER, FILESTORE_MIGRATION_DATABASE_URL: NOWHERE },
      'from FILESTORE_MIGRATION_DATABASE_URL; FILESTORE_DATABASE_URL and DATABASE_URL are also set, and not used.',
    ],
  ])('is said before anything is done: %s with %j', async (command, env, source) => {
    const result = await runCli([command], { env: { FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0', ...env } });
    expect(result).toMatchObject({
      exitCode: 1,
      stdout: `Using database "app" on 127.0.0.1:1 ${source}\n`,
    });
  });

  test('is in the document too, and in one of a failure', async () => {
    const env = { FILESTORE_DATABASE_URL: NOWHERE };
    for (const args of [['migrate'], ['migrate', '--dry-run'], ['status'], ['verify']]) {
      expect(await jsonCommand(args, OTHER, { env })).toMatchObject({ variable: 'FILESTORE_DATABASE_URL' });
    }
    expect(await jsonCommand(['migrate', 'now'], OTHER)).toMatchObject({ variable: undefined });
  });
});

describe('arguments', () => {
  test.each([
    [['migrate', SECRET], 'migrate takes no other word'],
    [['constructor'], '"constructor"'],
  ])('%j are refused with the usage', async (args, part) => {
    expectFailure(await runCli(args), 2, part, 'Usage:');
  });

  test('that npm took are refused, because the command would do something else', async () => {
    const npm = {
      npm_config_dry_run: 'true',
      DATABASE_URL: NOWHERE,
      FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0',
    };
    expectFailure(
      await runCli(['migrate'], { env: npm }),
      2,
      /npm took --dry-run.*npm run <script> -- --dry-run/,
    );
    expectFailure(await runCli(['migrate', '--dry-run'], { env: npm }), 1, 'CONNECTION_FAILED');
    expectFailure(await runCli(['status'], { env: npm }), 1, 'CONNECTION_FAILED');
  });

  test.each(['constructor', '__proto__'])(
    'the name of a variable is not that of a property: %s',
    async (name) => {
      const result = await runCli(['move', 'media', '--to', name], { env: { DATABASE_URL: NOWHERE } });
      expectFailure(result, 2, `SETTINGS_INVALID: ${name} is not set.`);
    },
  );

  test('--help is not an error', async () => {
    expect(await runCli(['--help'])).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining('Exit codes'),
    });
  });
});

test.skipIf(!existsSync('/dev/full'))('an answer that cannot be written is no success', async () => {
  const full = openSync('/dev/full', 'w');
  const [node = '', ...start] = [process.execPath, ...startOf(packageFolder(), 'dev', 'cli')];
  const child = spawn(node, [...start, '--help'], { stdio: ['ignore', full, 'pipe'] });
  expect(await collect(child)).toMatchObject({
    exitCode: 1,
    stderr: 'The output could not be written (ENOSPC).\n',
  });
  closeSync(full);
});

test('a list of databases that is not a file is not quoted', async () => {
  const result = await runCli(['status', '--databases', `host=db password=${SECRET}`, '--json']);
  expectFailure(
    result,
    2,
    'The list of databases cannot be read: its path, which is not shown here (ENOENT).',
  );
});

describe('with --json, stdout is one document:', () => {
  test.each([['migrate'], ['migrate', '--dry-run'], ['status'], ['verify']])(
    'the error of a failed %s %s',
    async (...args) => {
      const { exitCode, document, stderr } = await jsonCommand(args, NOWHERE);
      expect({ exitCode, document }).toEqual({
        exitCode: 1,
        document: {
          ok: false,
          command: args[0],
          error: {
            name: 'FilestoreError',
            code: 'CONNECTION_FAILED',
            message: expect.stringMatching(/^Cannot connect to database "app" on 127\.0\.0\.1:1/),
            cause: expect.any(String),
          },
        },
      });
      expect(stderr).toMatch(/^CONNECTION_FAILED: /m);
    },
  );

  test('the name of an invalid setting', async () => {
    const env = { FILESTORE_MIGRATION_LOCK_WAIT_MS: 'long' };
    expect(await jsonCommand(['migrate'], NOWHERE, { env })).toMatchObject({
      exitCode: 2,
      document: {
        ok: false,
        error: { code: 'SETTINGS_INVALID', setting: 'FILESTORE_MIGRATION_LOCK_WAIT_MS' },
      },
    });
  });

  test.each([
    [['mgirate'], 'There is no command "mgirate".'],
    [['migrate', 'now'], 'migrate takes no other word. The given one is not shown here.'],
    [[NOWHERE], 'There is no command of that name, which is not shown here.'],
    [['migrate', NOWHERE], 'migrate takes no other word. The given one is not shown here.'],
    [['migrate', `--${NOWHERE}`], 'An option is unknown. It is not shown here.'],
    [[], 'No command was given.'],
    [
      ['migrate', '--databases', 'eu.txt', '--databases=us.txt'],
      '--databases was given twice. Give it once.',
    ],
    [['status', '--dry-run'], 'status has no option --dry-run.'],
    [['verify', '--allow-ahead'], 'verify has no option --allow-ahead.'],
    [['docs'], 'docs has no option --json.'],
    [['migrate', '--force'], expect.stringContaining("'--force'")],
  ])('the reason why %j is not valid', async (args, message) => {
    const { exitCode, document, stderr } = await jsonCommand(args, NOWHERE);
    expect({ exitCode, document }).toEqual({
      exitCode: 2,
      document: { ok: false, command: null, error: { code: 'WRONG_USAGE', message } },
    });
    expect(stderr).toContain('Usage: filestore-db');
  });
});
