import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { describe, expect, test } from 'vitest';
import { readArguments } from '../src/cli/arguments.ts';
import { DIVERGED, DONE, EXIT_CODES } from '../src/cli/exit-codes.ts';
import { PACKED_COMMANDS } from '../src/cli/packed-commands.ts';
import { migrationSettings, poolSettings } from '../src/index.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { MIGRATION_LOCK_KEY } from '../src/session/lock-holder.ts';
import { runCli } from './support/command-line/command-line.ts';
import { databaseForEachTest, type TestDatabase } from './support/databases/test-database.ts';
import { createMount, createNode } from './support/rows/nodes.ts';
import { startOwnServer } from './support/servers/own-server.ts';

const runbook = readFileSync(join(PACKAGE_ROOT, 'docs', 'operations.md'), 'utf8');

/** The text below a heading, up to the next one of its level. */
function section(heading: string): string {
  const [, level = '', text = ''] =
    new RegExp(`^(#+) ${heading}\\n([\\s\\S]*?)(?=^\\1 |(?![\\s\\S]))`, 'm').exec(runbook) ??
    expect.fail(`there is no section "${heading}"`);
  expect(level).not.toBe('');
  return text;
}

/** The texts of the code blocks in one language, in order. */
function blocks(text: string, language: string): readonly string[] {
  return [...text.matchAll(new RegExp(`^( *)\`\`\`${language}\\n([\\s\\S]*?)^\\1\`\`\`$`, 'gm'))].map(
    ([, indent = '', block = '']) => block.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  );
}

const statements = (text: string) =>
  blocks(text, 'sql').flatMap((block) => block.split(/(?<=;)\n/).filter((statement) => statement !== ''));

const commands = (text: string) =>
  [...text.matchAll(/filestore-db((?: -{0,2}[a-z][a-z-]*)+)/g)].map(([, words = '']) =>
    words.trim().split(' '),
  );

describe('the runbook has', () => {
  test('each error with its exit code, and nothing else', () => {
    const rows = [...section('Errors').matchAll(/^\| `([A-Z_]+)` +\| (\d) +\| (\S.*?) +\| (\S.*?) +\|$/gm)];
    expect(rows.map(([, code]) => code).sort()).toEqual(Object.keys(EXIT_CODES).sort());
    expect(Object.fromEntries(rows.map(([, code, exitCode]) => [code, Number(exitCode)]))).toEqual(
      EXIT_CODES,
    );
  });

  test('each exit code', () => {
    const rows = [...section('It failed, what now').matchAll(/^ *\| (\d) +\|/gm)].map((match) =>
      Number(match[1]),
    );
    expect(rows).toEqual([...new Set([DONE, ...Object.values(EXIT_CODES)])].sort());
  });

  test('each variable, with its default', () => {
    const rows = [...section('Variables').matchAll(/^\| `(\w+)`.* (\S+) +\|$/gm)];
    const defaults = Object.fromEntries(rows.map(([, variable, value]) => [variable, value]));
    const migration = migrationSettings({});
    const pool = poolSettings({});
    expect(defaults).toMatchObject({
      FILESTORE_MIGRATION_CONNECT_WAIT_MS: String(migration.connectWaitMs),
      FILESTORE_MIGRATION_LOCK_WAIT_MS: String(migration.lockWaitMs),
      FILESTORE_MIGRATION_LOCK_TIMEOUT_MS: String(migration.lockTimeoutMs),
      FILESTORE_MIGRATION_STATEMENT_TIMEOUT_MS: String(migration.statementTimeoutMs),
      FILESTORE_MIGRATION_CHECK_TIMEOUT_MS: String(migration.checkTimeoutMs),
      FILESTORE_MIGRATION_POOLER: migration.pooler,
      FILESTORE_PGPOOL_MAX: String(pool.max),
      FILESTORE_PGPOOL_IDLE_TIMEOUT_MS: String(pool.idleTimeoutMs),
      FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS: String(pool.connectTimeoutMs),
    });
    expect(Object.keys(defaults).sort()).toEqual(variablesOfTheSource());
  });

  test('commands that exist', () => {
    const containers = [...runbook.matchAll(/dist\/cli\.js, ([a-z, -]+)\]/g)].map(([, words = '']) =>
      words.split(', '),
    );
    const all = [...commands(runbook), ...containers];
    expect(containers).toHaveLength(2);
    expect(all.length).toBeGreaterThan(10);
    for (const args of all)
      expect(readArguments(args, PACKED_COMMANDS), args.join(' ')).toMatchObject({ type: 'command' });
  });
});

/** The variables with this package's prefix in its source. */
function variablesOfTheSource(): readonly string[] {
  const folder = join(PACKAGE_ROOT, 'src');
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('.ts'),
  );
  const text = files.map((file) => readFileSync(join(folder, file), 'utf8')).join('\n');
  return [...new Set(text.match(/\bFILESTORE_[A-Z_]+\b/g))].sort();
}

const COMMENT_OF_FUNCTION =
  "select obj_description('filestore.refuse_truncate()'::regprocedure, 'pg_proc') as comment";

// Each test causes a failure, and fixes it only with the commands of the runbook.
describe('an operator with the runbook', () => {
  const migrated = databaseForEachTest();
  const empty = databaseForEachTest('empty');

  const run = (database: TestDatabase, args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
    runCli(args, { env: { ...env, DATABASE_URL: database.url } });

  async function runCommands(database: TestDatabase, text: string): Promise<void> {
    const found = blocks(text, 'sh').flatMap(commands);
    expect(found.length).toBeGreaterThan(0);
    for (const args of found)
      expect(await run(database, args), args.join(' ')).toMatchObject({ exitCode: DONE });
  }

  test('fixes a diverged history, and keeps every row', async () => {
    const database = migrated();
    const mount = await createMount(database);
    await createNode(database, mount, mount.rootId, 'kept.txt');
    await database.query(`update graphile_migrate.migrations set hash = 'sha1:${'0'.repeat(40)}'
      where filename = (select max(filename) from graphile_migrate.migrations)`);
    const failed = await run(database, ['migrate']);
    expect(failed).toMatchObject({
      exitCode: DIVERGED,
      stderr: expect.stringMatching(/^HISTORY_REWRITTEN: /),
    });

    const steps = section('The history diverged');
    for (const statement of statements(steps)) await database.query(statement);
    await runCommands(database, steps);
    expect(await database.query('select path from filestore.nodes order by path')).toEqual([
      { path: '' },
      { path: 'kept.txt' },
    ]);
    expect(await run(database, ['status'])).toMatchObject({ exitCode: DONE });
  });

  test('frees a lock that a dead pod holds', async () => {
    const database = empty();
    const steps = section('The lock is held');
    const [find = '', end = ''] = statements(steps);
    const application =
      /application_name = '(.*)'/.exec(end)?.[1] ?? expect.fail('the runbook names no sessions to end');
    const dead = await database.connect();
    await dead.query(`set application_name = '${application}'`);
    await dead.query(`select pg_advisory_lock(${MIGRATION_LOCK_KEY})`);
    const failed = await run(database, ['migrate'], { FILESTORE_MIGRATION_LOCK_WAIT_MS: '0' });
    expect(failed.exitCode).toBe(EXIT_CODES.LOCK_NOT_ACQUIRED);
    expect(failed.stderr).toContain(application);
    expect((await run(database, ['status'])).stdout).toMatch(new RegExp(`^AT WORK .*${application}`, 'm'));

    expect(await database.query(find)).toMatchObject([{ application_name: application }]);
    expect(await database.query(end)).toMatchObject([{ pg_terminate_backend: true }]);
    expect(await run(database, ['migrate'])).toMatchObject({ exitCode: DONE });
  });

  test('frees locks that a stranger holds, in a session and in a prepared transaction', async () => {
    const steps = section('A stranger holds a lock');
    const [find = '', end = '', rollback = ''] = statements(steps);
    const gid = /'(.*)'/.exec(rollback)?.[1] ?? expect.fail('the runbook names no transaction to roll back');
    const server = await startOwnServer({ settings: ['max_prepared_transactions=1'] });
    const env = { DATABASE_URL: server.url, FILESTORE_MIGRATION_LOCK_WAIT_MS: '0' };
    const [client, stranger] = [new pg.Client(server.url), new pg.Client(server.url)];
    stranger.on('error', () => undefined);
    try {
      expect(await runCli(['migrate'], { env })).toMatchObject({ exitCode: DONE });
      await client.connect();
      await client.query(`insert into filestore.backend_mounts (mount_key, backend_kind, root_path)
        values ('media', 'local', '/media')`);
      await client.query(`begin; select pg_advisory_xact_lock(${MIGRATION_LOCK_KEY})`);
      await client.query(`prepare transaction '${gid}'`);
      await stranger.connect();
      await stranger.query("set application_name = 'stranger'");
      await stranger.query(
        "select pg_advisory_lock(hashtextextended('filestore.tree', id)) from filestore.backend_mounts",
      );
      expect((await runCli(['status'], { env })).stdout).toContain(
        `LOCKED BY  prepared transaction '${gid}'`,
      );

      await stranger.query(
        "select pg_advisory_lock(hashtextextended('filestore.move', id)) from filestore.backend_mounts",
      );
      await stranger.query("select pg_advisory_lock(hashtextextended('filestore_changes', 0))");
      await stranger.query('begin');
      await stranger.query("select filestore.begin_command('x', idempotency_key => 'y')");

      const { rows } = await client.query(find);
      const held = { pid: expect.any(Number), application_name: 'stranger', gid: null };
      expect(rows[0]).toMatchObject({
        locked: 'migrations',
        pid: null,
        role: 'postgres',
        gid,
        prepared: expect.any(Date),
      });
      expect(rows.slice(1).sort((a, b) => a.locked.localeCompare(b.locked))).toMatchObject([
        { locked: 'an idempotency key', ...held },
        { locked: 'media', ...held },
        { locked: 'media', ...held },
        { locked: 'the follower', ...held },
      ]);
      const ended = new Promise((resolve) => stranger.once('end', resolve));
      const { rows: gone } = await client.query(end.replace(/<pid.*>/, String(rows[1].pid)));
      expect(gone).toEqual([{ pg_terminate_backend: true }]);
      await ended;
      await client.query(rollback);
      expect((await client.query(find)).rows).toEqual([]);
    } finally {
      await client.end();
      await server.stop();
    }
  });

  test('migrates, reads and verifies many databases, each with one command', async () => {
    const steps = section('Many databases');
    const [list = ''] = blocks(steps, 'text');
    const folder = mkdtempSync(join(tmpdir(), 'filestore-runbook-'));
    try {
      const here = list.replace(/postgres:\S+/, migrated().url);
      expect(here).not.toBe(list);
      writeFileSync(join(folder, 'databases.txt'), here);
      const env = { BERLIN_DATABASE_URL: empty().url, DATABASES: here };
      for (const args of blocks(steps, 'sh')
        .join('')
        .trim()
        .split('\n')
        .map((line) => line.split(' ').slice(1))) {
        const ran = await runCli(args, { cwd: folder, env });
        expect(ran, args.join(' ')).toMatchObject({ exitCode: DONE });
        expect(ran.stdout).toMatch(/^berlin .*\nparis |"berlin"/);
      }
      expect(await run(empty(), ['status'])).toMatchObject({ exitCode: DONE });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('undoes drift made by hand', async () => {
    const database = migrated();
    await database.query(`
      drop index filestore.nodes_checksum_idx;
      comment on function filestore.refuse_truncate() is null;
      alter table filestore.nodes add column reviewed_by text;
      create or replace function filestore.refuse_truncate() returns trigger language plpgsql security definer
        set search_path = pg_catalog, pg_temp as $$ begin return null; end $$`);
    const steps = section('Drift made by hand');
    const [example = ''] = blocks(steps, 'text');
    const drifted = await run(database, ['verify']);
    expect(drifted.exitCode).toBe(DIVERGED);
    const shown = (text: string) =>
      text
        .match(/^DRIFT .*$/gm)
        ?.map((line) => line.replace(/sha256:[^,\s]+/g, 'sha256:…'))
        .sort();
    expect(shown(drifted.stdout)).toEqual(shown(example));

    for (const statement of statements(steps)) await database.query(statement);
    await database.query(statementAgain());
    expect(await database.query(COMMENT_OF_FUNCTION)).toEqual([{ comment: expect.any(String) }]);
    expect(await run(database, ['verify'])).toMatchObject({ exitCode: DONE });
  });

  /** The SQL file that the runbook's commands write for psql. */
  function statementAgain(): string {
    const [script = ''] = blocks(section('A function, view or trigger again'), 'sh');
    const folder = mkdtempSync(join(tmpdir(), 'filestore-runbook-'));
    try {
      const here = script.replace('node_modules/@apphub/filestore', `'${PACKAGE_ROOT}'`);
      expect(here).toContain('-f again.sql');
      execFileSync('sh', ['-euc', `psql() { :; }\nDATABASE_URL=\n${here}`], { cwd: folder });
      return readFileSync(join(folder, 'again.sql'), 'utf8');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
});
