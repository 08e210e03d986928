import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { collect, runCli, startCli } from '../support/command-line/command-line.ts';
import {
  editorOf,
  makeWorkflowDatabases,
  query,
  type WorkflowEnv,
  workflowEnv,
} from '../support/command-line/workflow.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

const SECRET = 'hunter2-sesame';
let copy: PackageCopy;

beforeEach(() => {
  copy = copyPackage();
});
afterEach(() => copy.remove());

const run = (env: WorkflowEnv, ...args: readonly string[]) =>
  runCli(args, { folder: copy.folder, env: { ...env } });

async function tablesOf(url: string): Promise<readonly unknown[]> {
  return query(url, "select relname from pg_class where relname in ('precious', 'nodes') and relkind = 'r'");
}

describe('reset', () => {
  test('erases and recreates the database, and reports it', async () => {
    const env = await makeWorkflowDatabases();
    await query(env.DATABASE_URL, 'create table precious (n integer)');
    const result = await run(env, 'reset');
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
    expect(result.stdout).toMatch(/^Erasing database "\w+" on .* with all its data \(\d+ kB\)\.\n/);
    expect(result.stdout).toContain(`Recreated with ${committedMigrations().length} migrations`);
    expect(await tablesOf(env.DATABASE_URL)).toEqual([{ relname: 'nodes' }]);
  });

  test('creates a missing database', async () => {
    const there = await makeWorkflowDatabases();
    const env = workflowEnv(there.ROOT_DATABASE_URL, `${new URL(there.DATABASE_URL).pathname.slice(1)}_new`);
    const result = await run(env, 'reset');
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
    expect(result.stdout).toMatch(/^Creating database ".*_new" on .*, which does not exist yet\.\n/);
    expect(await tablesOf(env.DATABASE_URL)).toEqual([{ relname: 'nodes' }]);
  });

  test('erases nothing when the migrations cannot be applied', async () => {
    const env = await makeWorkflowDatabases();
    await query(env.DATABASE_URL, 'create table precious (n integer)');
    const last = committedMigrations(copy.folder).at(-1) ?? '';
    appendFileSync(join(copy.folder, 'migrations', 'committed', last), '\nselect 1;\n');
    expect(await run(env, 'reset')).toMatchObject({
      exitCode: 4,
      stderr: expect.stringContaining('was edited after it was committed'),
    });
    expect(await tablesOf(env.DATABASE_URL)).toEqual([{ relname: 'precious' }]);
  });

  test('that Ctrl-C stops midway reports that the database may be erased', async () => {
    const env = await makeWorkflowDatabases();
    await query(env.DATABASE_URL, 'create table precious (n integer)');
    copy.addMigration('slow', 'select pg_sleep(600);');
    const child = startCli(['reset'], { folder: copy.folder, env: { ...env } });
    const ended = collect(child);
    const sleeping = `select from pg_stat_activity where datname = '${new URL(env.DATABASE_URL).pathname.slice(1)}' and query like '%pg_sleep(600)%' and state = 'active'`;
    await vi.waitFor(async () => expect(await query(env.ROOT_DATABASE_URL, sleeping)).toHaveLength(1), {
      timeout: 50_000,
    });
    child.kill('SIGINT');
    expect(await ended).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(
        /RUN_ABORTED: Stopped on request\. The database may be erased or incomplete\. Run npm run db:reset again\./,
      ),
    });
    expect(await tablesOf(env.DATABASE_URL)).not.toContainEqual({ relname: 'precious' });
  });

  test('erases nothing while other sessions are connected, and names them', async () => {
    const env = await makeWorkflowDatabases();
    const { default: pg } = await import('pg');
    const user = new pg.Client({ connectionString: env.DATABASE_URL, application_name: 'a service' });
    await user.connect();
    try {
      await user.query('create table precious (n integer)');
      expect(await run(env, 'reset')).toMatchObject({
        exitCode: 1,
        stderr: expect.stringMatching(/SCHEMA_CHANGE_REFUSED: .*has connections: .*application "a service"/),
      });
      expect(await tablesOf(env.DATABASE_URL)).toEqual([{ relname: 'precious' }]);
    } finally {
      await user.end();
    }
  });
});

describe('a database that is not on this machine', () => {
  const remote = workflowEnv(`postgres://app:${SECRET}@db.invalid/postgres`, 'app');

  test.each([
    ['reset', [], 'DATABASE_URL', '--yes-erase app\n'],
    [
      'reset',
      ['--yes-erase', `postgres://app:${SECRET}@db.invalid/app`],
      'DATABASE_URL',
      'names another database',
    ],
    ['commit', ['-m', 'Owner hints'], 'SHADOW_DATABASE_URL', '--yes-erase app_shadow\n'],
    ['commit', ['-m', 'Owner hints', '--yes-erase', 'app'], 'SHADOW_DATABASE_URL', 'names another database'],
  ])('is not erased by %s %j', async (command, options, variable, part) => {
    if (command === 'commit') editorOf(copy).write('select 1;\n');
    const result = await run(remote, command, ...options);
    expect(result).toMatchObject({ exitCode: 2, stdout: '' });
    expect(result.stderr).toContain(part);
    expect(result.stderr).toContain(`(${variable})`);
    expect(result.output).not.toContain(SECRET);
  });

  test('is not erased when the root URL is on another machine', async () => {
    const env = { ...remote, DATABASE_URL: 'postgres://app@127.0.0.1/app' };
    expect(await run(env, 'reset')).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining('--yes-erase app'),
    });
  });

  test('is connected to when its name is given', async () => {
    expect(await run(remote, 'reset', '--yes-erase', 'app')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('Cannot connect to database "postgres" on db.invalid:5432'),
    });
  });

  describe('but can be reached', () => {
    let server: OwnServer;
    beforeEach(async () => {
      server = await startOwnServer({ listen: 'tcp' });
    });
    afterEach(() => server.stop());

    test('is erased when its name is given, and only then', async () => {
      // An address of this machine that is not recognized as local.
      const url = new URL(server.url);
      url.hostname = '0.0.0.0';
      const env = workflowEnv(url.href, 'app');
      await query(env.ROOT_DATABASE_URL, 'create database app');
      await query(env.DATABASE_URL, 'create table precious (n integer)');
      expect(await run(env, 'reset')).toMatchObject({ exitCode: 2 });
      expect(await tablesOf(env.DATABASE_URL)).toEqual([{ relname: 'precious' }]);
      expect(await run(env, 'reset', '--yes-erase', 'app')).toMatchObject({ exitCode: 0 });
      expect(await tablesOf(env.DATABASE_URL)).toEqual([{ relname: 'nodes' }]);
    });
  });
});
