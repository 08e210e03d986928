import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { type CliResult, collect, runCli, startCli } from '../support/command-line/command-line.ts';
import {
  type Editor,
  editorOf,
  makeWorkflowDatabases,
  query,
  untilNoServer,
  type WorkflowEnv,
} from '../support/command-line/workflow.ts';
import { committedMigrations, lastCommitted, migrationFiles } from '../support/packages/committed-files.ts';
import { until } from '../support/until.ts';

const ADD_COLUMN = 'alter table filestore.nodes add column if not exists owner_hint text;\n';
const WITH_INCLUDE = `${ADD_COLUMN}--!include views/view_filestore_active_nodes.sql\n`;

// These tests run many commands, each of which starts a process and often a server.
vi.setConfig({ testTimeout: 180_000 });

let copy: PackageCopy;
let editor: Editor;
let env: WorkflowEnv;
let blank: string;

beforeEach(async () => {
  copy = copyPackage();
  editor = editorOf(copy);
  blank = editor.read();
  env = await makeWorkflowDatabases();
});
afterEach(() => copy.remove());

const run = (...args: readonly string[]): Promise<CliResult> =>
  runCli(args, { folder: copy.folder, env: { ...env } });

/** Expects this exit code and message, and unchanged files. */
async function expectRefusal(
  args: readonly string[],
  exitCode: number,
  part: string | RegExp,
): Promise<void> {
  const before = migrationFiles(copy.folder);
  const result = await run(...args);
  expect(result, result.output).toMatchObject({ exitCode });
  expect(result.stderr).toMatch(part);
  expect(result.output).not.toMatch(/^\s+at /m);
  expect(migrationFiles(copy.folder)).toEqual(before);
}

describe('commit', () => {
  test('that Ctrl-C stops changes no file', async () => {
    await run('watch', '--once');
    editor.write('select pg_sleep(600);\n');
    const before = migrationFiles(copy.folder);
    const child = startCli(['commit', '-m', 'Sleep'], { folder: copy.folder, env: { ...env } });
    const ended = collect(child);
    const shadow = new URL(env.SHADOW_DATABASE_URL).pathname.slice(1);
    const sleeping = `select from pg_stat_activity where datname = '${shadow}' and query like '%pg_sleep(600)%' and state = 'active'`;
    await vi.waitFor(async () => expect(await query(env.ROOT_DATABASE_URL, sleeping)).toHaveLength(1), {
      timeout: 50_000,
    });
    child.kill('SIGINT');
    const result = await ended;
    expect(result).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('RUN_ABORTED: Stopped on request'),
    });
    expect(result.output).not.toMatch(/^\s+at /m);
    expect(migrationFiles(copy.folder)).toEqual(before);
    await until(async () => (await query(env.ROOT_DATABASE_URL, sleeping)).length === 0);
  });

  test('succeeds even if the shadow database cannot be compared afterwards', async () => {
    editor.write(
      `${ADD_COLUMN}do $$ begin\n  if current_database() not like '%shadow' then\n    execute format('alter database %I allow_connections false', current_database() || '_shadow');\n  end if;\nend $$;\n`,
    );
    const result = await run('commit', '-m', 'Owner hints');
    expect(result, result.output).toMatchObject({ exitCode: 0 });
    expect(result.stdout).toContain(`Committed migrations/committed/${lastCommitted(copy.folder).filename}`);
    expect(result.stderr).toMatch(
      /^Could not check the development database for leftovers\. Cannot connect to/,
    );
    expect(editor.read()).toBe(blank);
  });

  test('does not wait forever for a shadow database in use, and names its sessions', async () => {
    editor.write(ADD_COLUMN);
    expect(await run('commit', '-m', 'Owner hints')).toMatchObject({ exitCode: 0 });
    expect(await run('uncommit')).toMatchObject({ exitCode: 0 });
    const { default: pg } = await import('pg');
    const user = new pg.Client({
      connectionString: env.SHADOW_DATABASE_URL,
      application_name: 'psql of a colleague',
    });
    await user.connect();
    try {
      await expectRefusal(
        ['commit'],
        1,
        /cannot be erased while it has connections.*application "psql of a colleague"/,
      );
    } finally {
      await user.end();
    }
  });

  test('of the first migration works, and so does uncommit', async () => {
    rmSync(join(copy.folder, 'migrations', 'committed'), { recursive: true });
    writeFileSync(join(copy.folder, 'migrations', 'releases.json'), '[]\n');
    editor.write('create schema if not exists filestore;\n');
    expect(await run('commit', '-m', 'The schema')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(lastCommitted(copy.folder)).toMatchObject({ filename: '000001-the-schema.sql', previous: '-' });
    expect(await run('uncommit')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(committedMigrations(copy.folder)).toEqual([]);
    await query(
      env.DATABASE_URL,
      "insert into graphile_migrate.migrations (hash, filename) values ('sha1:00', '000001.sql')",
    );
    await expectRefusal(['watch', '--once'], 4, /DATABASE_AHEAD: .*it has 000001\.sql/);
    await query(env.DATABASE_URL, 'delete from graphile_migrate.migrations');
    editor.write(blank);
    await expectRefusal(['uncommit'], 1, /There is no committed migration/);
  });

  test('and every other step work on the embedded Postgres without any URL, and leave no server behind', async () => {
    const alone = (...args: readonly string[]) => runCli(args, { folder: copy.folder });
    editor.write(WITH_INCLUDE);
    expect(await alone('commit', '-m', 'Owner hints')).toMatchObject({ exitCode: 0, stderr: '' });
    const { hash } = lastCommitted(copy.folder);
    await untilNoServer(copy);
    expect(await alone('uncommit')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await alone('commit')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(lastCommitted(copy.folder).hash).toBe(hash);
    const reset = await alone('reset');
    expect(reset).toMatchObject({ exitCode: 0, stderr: '' });
    expect(reset.stdout).toMatch(
      /Erasing database "filestore" on 127\.0\.0\.1:\d+ with all its data \(\d+ [kM]B\)\./,
    );
    expect(reset.stdout).toContain(`Recreated with ${committedMigrations(copy.folder).length} migrations`);
    await untilNoServer(copy);
  });
});

describe('the three URLs', () => {
  test.each([['DATABASE_URL'], ['SHADOW_DATABASE_URL'], ['ROOT_DATABASE_URL']] as const)(
    'without %s are an error that names it',
    async (missing) => {
      const some = Object.fromEntries(Object.entries(env).filter(([name]) => name !== missing));
      for (const command of ['watch', 'commit', 'uncommit', 'reset']) {
        const result = await runCli([command], { folder: copy.folder, env: some });
        expect(result).toMatchObject({
          exitCode: 2,
          stderr: expect.stringContaining(`and ${missing} is not`),
        });
      }
    },
  );

  test.each([
    ['DATABASE_URL', 'SHADOW_DATABASE_URL', 'localhost'],
    ['DATABASE_URL', 'ROOT_DATABASE_URL', 'localhost'],
    ['SHADOW_DATABASE_URL', 'ROOT_DATABASE_URL', undefined],
  ] as const)('%s and %s must have different names, also with host %s', async (one, other, host) => {
    const url = new URL(env[one]);
    // Another address of the same server: databases are dropped by name.
    if (host !== undefined) url.hostname = host;
    await query(env.DATABASE_URL, 'create table precious (n integer)');
    const alike = { ...env, [other]: url.href };
    editor.write(ADD_COLUMN);
    for (const args of [['reset'], ['commit', '-m', 'Owner hints', '--yes-erase', url.pathname.slice(1)]]) {
      const result = await runCli(args, { folder: copy.folder, env: alike });
      expect(result, result.output).toMatchObject({
        exitCode: 2,
        stderr: expect.stringContaining(`The databases of ${one} and ${other} have the same name`),
      });
    }
    expect(await query(env.DATABASE_URL, 'select from precious')).toEqual([]);
  });

  test('are required with NODE_ENV=production', async () => {
    const result = await runCli(['reset'], { folder: copy.folder, env: { NODE_ENV: 'production' } });
    expect(result).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('production') });
  });
});
