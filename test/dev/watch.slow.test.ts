import type { ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { RELEASES } from '../../dev/sources/releases.ts';
import { databaseUrl } from '../../harness/connection.ts';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { runCli } from '../support/command-line/command-line.ts';
import {
  columnsOf,
  type Editor,
  editorOf,
  makeWorkflowDatabases,
  query,
  type RunningCommand,
  startWatch,
  untilColumn,
  untilNoServer,
  type WorkflowEnv,
  workflowEnv,
} from '../support/command-line/workflow.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';
import { until } from '../support/until.ts';

const VIEW = 'fixtures/views/view_filestore_active_nodes.sql';
/** The text after the columns of the view. */
const FROM = '\nfrom filestore.nodes n\n';

// These tests run many commands, each of which starts a process and often a server.
vi.setConfig({ testTimeout: 180_000 });

let copy: PackageCopy;
let editor: Editor;
let running: ChildProcess[];

beforeEach(() => {
  copy = copyPackage();
  editor = editorOf(copy);
  running = [];
});
afterEach(async () => {
  for (const child of running) child.kill('SIGKILL');
  await untilNoServer(copy);
  copy.remove();
});

async function watch(env: Readonly<Record<string, string>> = {}): Promise<RunningCommand> {
  const command = startWatch(copy, env);
  running.push(command.child);
  await command.untilSays(/Watching .*\n/);
  return command;
}

/** Starts watch on a database that has all committed migrations. */
async function watchOn(env: WorkflowEnv): Promise<RunningCommand> {
  const command = await watch({ ...env });
  await command.untilSays(/Up to date: current\.sql is empty .*\n/);
  return command;
}

describe('on a machine without any database', () => {
  test('starts the embedded Postgres, applies each save with its time, shows failures, and continues', async () => {
    const watching = await watch();
    const url = /To open it: (.*)\n/.exec(await watching.untilSays(/To open it: .*\n/))?.[1] ?? '';
    for (const filename of committedMigrations()) await watching.untilSays(`Applied ${filename}\n`);
    await watching.untilSays(/Up to date: current\.sql is empty \(\d+ ms\)\n/);

    editor.write('alter table filestore.nodes add column if not exists owner_hint text;\n');
    await untilColumn(url, 'nodes', 'owner_hint');
    await watching.untilSays(/\d\d:\d\d:\d\d {2}Applied current\.sql \(\d+ ms\)\n/);

    editor.write('select 1;\n\nalter table filestore.nodes\n  add column other_hint txt;\n');
    await watching.untilSays(
      /FAILED {2}migrations\/current\.sql:4:25: type "txt" does not exist .*\n {2}3 \| alter table filestore\.nodes\n {2}4 \| {3}add column other_hint txt;\n {4}\| {25}\^\n/,
    );
    expect(await columnsOf(url, 'nodes')).not.toContain('other_hint');

    editor.write('alter table filestore.nodes add column if not exists other_hint text;\n');
    await untilColumn(url, 'nodes', 'other_hint');

    const { exitCode, stdout, output } = await watching.interrupt();
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/Stopped\.\n$/);
    expect(output).not.toMatch(/^\s+at /m);
    await untilNoServer(copy);
    await expect(query(url, 'select 1')).rejects.toThrow();
  });

  test('--once applies it and ends', async () => {
    editor.write('alter table filestore.nodes add column if not exists owner_hint text;\n');
    const first = await runCli(['watch', '--once'], { folder: copy.folder });
    expect(first).toMatchObject({ exitCode: 0, stderr: '' });
    expect(first.stdout).toContain('Applied current.sql');
    await untilNoServer(copy);

    const second = await runCli(['watch', '--once'], { folder: copy.folder });
    expect(second.stdout).toContain('Unchanged: current.sql is already applied');
    editor.write('select nothing;\n');
    const third = await runCli(['watch', '--once'], { folder: copy.folder });
    expect(third).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('current.sql:1:8') });
  });

  test('a server of another command is used, and its end is reported', async () => {
    const host = await watch();
    const url = /To open it: (.*)\n/.exec(await host.untilSays(/To open it: .*\n/))?.[1] ?? '';
    await host.untilSays(/Up to date/);
    const guest = await watch();
    await guest.untilSays(/Up to date/);
    // Both watch the same files, and one of them applies the save first.
    editor.write('alter table filestore.nodes add column if not exists owner_hint text;\n');
    await guest.untilSays(/(Applied|Unchanged:) current\.sql/);
    await host.untilSays(/(Applied|Unchanged:) current\.sql/);
    // A session in another database of the server does not count as connected to this one.
    expect(await runCli(['reset'], { folder: copy.folder })).toMatchObject({ exitCode: 0, stderr: '' });
    // A commit ends on its own, so the server waits for it.
    const committing = runCli(['commit', '-m', 'Owner hints'], { folder: copy.folder });
    const guests = "select from pg_locks where locktype = 'advisory' and mode = 'ShareLock'";
    await vi.waitFor(async () => expect(await query(databaseUrl(url, 'postgres'), guests)).toHaveLength(1), {
      timeout: 50_000,
    });
    const stopped = host.interrupt();
    expect(await committing).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await stopped).toMatchObject({ exitCode: 0 });
    await guest.untilSays(
      'EMBEDDED_POSTGRES_FAILED: The embedded Postgres was stopped by the command that ran it',
    );
    expect(await guest.ended).toMatchObject({ exitCode: 1 });
  });
});

describe('on a database of the developer', () => {
  let env: WorkflowEnv;
  beforeEach(async () => {
    env = await makeWorkflowDatabases();
  });

  test('a change of a view that others depend on is applied by including its fixtures', async () => {
    const watching = await watchOn(env);
    writeFileSync(
      join(copy.folder, 'migrations', 'fixtures', 'views', 'big_nodes.sql'),
      'create view filestore.big_nodes as\nselect * from filestore.view_filestore_active_nodes where size_bytes > 1000;\n',
    );
    editor.write('drop view if exists filestore.big_nodes;\n--!include views/big_nodes.sql\n');
    await untilColumn(env.DATABASE_URL, 'big_nodes', 'path');
    await watching.untilSays(/Applied current\.sql/);

    editor.replace(VIEW, FROM, `,\n  n.metadata ->> 'owner' as owner_hint${FROM}`);
    await watching.untilSays(
      `Not applied: ${VIEW} differs from the migrations, and current.sql does not include it. Add: --!include views/view_filestore_active_nodes.sql\n`,
    );
    editor.write('--!include views/view_filestore_active_nodes.sql\n');
    await watching.untilSays(`FAILED  migrations/${VIEW}:1: cannot drop view`);
    await watching.untilSays(/Detail: view filestore\.big_nodes depends on/);
    await watching.untilSays(/Advice: Drop the objects that depend on it first, by name/);

    editor.write(
      'drop view if exists filestore.big_nodes;\n--!include views/view_filestore_active_nodes.sql\n--!include views/big_nodes.sql\n',
    );
    await untilColumn(env.DATABASE_URL, 'big_nodes', 'owner_hint');
    await watching.untilSays(/Applied current\.sql/);
    await watching.interrupt();
  });

  test('an error in a fixture is shown with its file, line, statement and hint', async () => {
    const watching = await watchOn(env);
    editor.write('select 1;\n--!include views/view_filestore_active_nodes.sql\nselect 2;\n');
    await watching.untilSays(/Applied current\.sql/);
    const before = editor.replace(VIEW, FROM, `,\n  n.verzion as odd${FROM}`);
    const said = await watching.untilSays(
      / {2}Hint: Perhaps you meant to reference the column "n\.version"\.\n/,
    );
    const line = String(before.line + 1);
    expect(said).toContain(
      `FAILED  migrations/${VIEW}:${line}:3: column n.verzion does not exist (SQLSTATE 42703)\n`,
    );
    expect(said).toContain(`\n  ${line} |   n.verzion as odd\n  ${line.replace(/./g, ' ')} |   ^\n`);
    await watching.interrupt();
  });

  test('an error without a position is located by its statement', async () => {
    const watching = await watchOn(env);
    editor.write(
      "create or replace function filestore.half(n integer) returns integer language sql\nbegin atomic;\n  select case when n > 0 then n / 2 end;\nend;\n\nselect '; no end' as \"not; either\" /* ; */;\ninsert into filestore.backend_mounts (mount_key, backend_kind)\nvalues ('x', 'local');\nselect 1;\n",
    );
    const said = await watching.untilSays(/FAILED [\s\S]*? {2}Detail: .*\n/);
    expect(said).toContain(
      'FAILED  migrations/current.sql:7: new row for relation "backend_mounts" violates check',
    );
    expect(said).toContain(
      "\n  7 | insert into filestore.backend_mounts (mount_key, backend_kind)\n  8 | values ('x', 'local');\n  Detail",
    );
    await watching.interrupt();
  });

  test('an include of a missing file is an error that names it', async () => {
    const watching = await watchOn(env);
    editor.write('--!include views/no_such_view.sql\n');
    await watching.untilSays(
      "FAILED  Include of 'views/no_such_view.sql' failed because 'migrations/fixtures/views/no_such_view.sql'",
    );
    editor.write('select 1;\n');
    await watching.untilSays(/Applied current\.sql/);
    await watching.interrupt();
  });

  test('leftovers of an earlier save are listed when current.sql is empty again', async () => {
    const watching = await watchOn(env);
    const blank = editor.read();
    editor.write('alter table filestore.nodes add column if not exists owner_hint text;\n');
    await watching.untilSays(/Applied current\.sql/);
    editor.write(blank);
    await watching.untilSays(
      /DRIFT .* differs from the committed migrations:\n {2}column filestore\.nodes\.owner_hint is not in the model.*\n.*npm run db:reset\n/,
    );
    await watching.interrupt();
  });

  test('a commit in another terminal is recognized', async () => {
    const watching = await watchOn(env);
    editor.write('alter table filestore.nodes add column if not exists owner_hint text;\n');
    await watching.untilSays(/Applied current\.sql/);
    const committed = await runCli(['commit', '-m', 'Owner hints'], { folder: copy.folder, env: { ...env } });
    expect(committed).toMatchObject({ exitCode: 0, stderr: '' });
    await watching.untilSays(/Up to date: current\.sql is empty/);
    const uncommitted = await runCli(['uncommit'], { folder: copy.folder, env: { ...env } });
    expect(uncommitted).toMatchObject({ exitCode: 0, stderr: '' });
    await watching.untilSays(/(Applied|Unchanged:?) current\.sql/);
    const { output } = await watching.interrupt();
    expect(output).not.toMatch(/FAILED|REFUSED|DRIFT/);
  });

  test('an empty current.sql after an uncommit is applied, although the model still has the migration', async () => {
    // A released migration stays where it is.
    writeFileSync(join(copy.folder, RELEASES), '[]');
    const watching = await watchOn(env);
    const blank = editor.read();
    const uncommitted = await runCli(['uncommit'], { folder: copy.folder, env: { ...env } });
    expect(uncommitted).toMatchObject({ exitCode: 0, stderr: '' });
    await watching.untilSays(/(Applied|Unchanged:|FAILED) /);
    editor.write(blank);
    await watching.untilSays(/Up to date: current\.sql is empty/);
    const { output } = await watching.interrupt();
    expect(output).not.toContain('REFUSED');
  });

  test('a database that does not exist at the start is an error', async () => {
    const result = await runCli(['watch'], {
      folder: copy.folder,
      env: { ...env, DATABASE_URL: databaseUrl(env.ROOT_DATABASE_URL, 'no_such_database') },
    });
    expect(result).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('the database does not exist'),
    });
  });
});

describe('while a statement runs', () => {
  let server: OwnServer;
  let env: WorkflowEnv;
  let watching: RunningCommand;
  beforeEach(async () => {
    server = await startOwnServer();
    await query(server.url, 'create database app');
    env = workflowEnv(server.url, 'app');
    watching = await watchOn(env);
    editor.write('select pg_sleep(600);\n');
    await vi.waitFor(async () => expect(await sleeping()).toHaveLength(1), { timeout: 30_000 });
  });
  afterEach(() => server.stop());

  const sleeping = () =>
    query(
      server.url,
      "select from pg_stat_activity where datname = 'app' and query like '%pg_sleep(600)%' and state = 'active'",
    );

  test('Ctrl-C ends it on the server', async () => {
    const { exitCode, stdout, stderr } = await watching.interrupt();
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    expect(stdout).toMatch(/Stopped\.\n$/);
    await until(async () => (await sleeping()).length === 0);
  });

  test('a lost server is reported, and used again when it is up', async () => {
    await server.shutDown('immediate');
    await watching.untilSays(/(FAILED|REFUSED) .*(terminat|lost|connection).*\n/i);
    editor.write('alter table filestore.nodes add column if not exists owner_hint text;\n');
    await watching.untilSays(/REFUSED .*Cannot connect to database "app".*\n/);
    await server.start();
    await untilColumn(env.DATABASE_URL, 'nodes', 'owner_hint');
    const { exitCode, output } = await watching.interrupt();
    expect(exitCode).toBe(0);
    expect(output).not.toMatch(/^\s+at /m);
  });
});
