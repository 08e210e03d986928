import { execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { runCli } from '../support/command-line/command-line.ts';
import {
  columnsOf,
  type Editor,
  editorOf,
  follow,
  makeWorkflowDatabases,
  query,
  untilColumn,
  type WorkflowEnv,
} from '../support/command-line/workflow.ts';
import { HOSTILE_SCHEMA } from '../support/databases/database-settings.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';

/** What npx starts, without the time that npm takes. */
const PROGRAM = 'node_modules/.bin/graphile-migrate';

let copy: PackageCopy;
let editor: Editor;
let env: WorkflowEnv;

beforeEach(async () => {
  copy = copyPackage();
  editor = editorOf(copy);
  env = await makeWorkflowDatabases();
});
afterEach(() => copy.remove());

function options() {
  return { cwd: copy.folder, env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env } };
}

/** Runs graphile-migrate's own command line in the package's folder, and returns its exit code and output. */
function graphile(
  ...args: readonly string[]
): Promise<{ readonly exitCode: number; readonly output: string }> {
  return new Promise((resolve) => {
    execFile(PROGRAM, args, options(), (error, stdout, stderr) => {
      resolve({ exitCode: typeof error?.code === 'number' ? error.code : 0, output: stdout + stderr });
    });
  });
}

const last = () => {
  const filename = committedMigrations(copy.folder).at(-1) ?? '';
  const path = join(copy.folder, 'migrations', 'committed', filename);
  return { filename, text: readFileSync(path, 'utf8') };
};

test('graphile-migrate does every step alone, and in turns with the commands of this package', async () => {
  const blank = editor.read();
  const before = last();
  expect(await graphile('migrate')).toMatchObject({ exitCode: 0 });
  expect(await graphile('status')).toMatchObject({ exitCode: 0 });
  editor.write(
    'alter table filestore.nodes add column if not exists owner_hint text;\n--!include views/view_filestore_active_nodes.sql\n',
  );
  expect(await graphile('watch', '--once')).toMatchObject({ exitCode: 0 });
  expect(await columnsOf(env.DATABASE_URL, 'nodes')).toContain('owner_hint');
  expect(await graphile('status')).toMatchObject({ exitCode: 2 });
  expect(await graphile('commit', '--message', 'Owner hints')).toMatchObject({ exitCode: 0 });
  const committed = last();
  expect(committed.filename).toMatch(/-owner-hints\.sql$/);
  expect(editor.read()).toBe(blank);
  expect(await graphile('uncommit')).toMatchObject({ exitCode: 0 });
  expect(last()).toEqual(before);

  const run = (...args: readonly string[]) => runCli(args, { folder: copy.folder, env: { ...env } });
  expect(await run('watch', '--once')).toMatchObject({
    exitCode: 0,
    stdout: expect.stringContaining('Unchanged'),
  });
  expect(await run('commit')).toMatchObject({ exitCode: 0, stderr: '' });
  expect(last()).toEqual(committed);
  expect(await graphile('uncommit')).toMatchObject({ exitCode: 0 });
  expect(await graphile('commit')).toMatchObject({ exitCode: 0 });
  expect(last()).toEqual(committed);
  expect(await run('uncommit')).toMatchObject({ exitCode: 0, stderr: '' });
  expect(await graphile('reset', '--erase')).toMatchObject({ exitCode: 0 });
  expect(await columnsOf(env.DATABASE_URL, 'nodes')).not.toContain('owner_hint');
});

test('graphile-migrate keeps the checks of a migration as comments, and does not evaluate them', async () => {
  const text = `--check: Some mounts have no contact. Set backend_mounts.contact first.
--  select false

alter table filestore.nodes add column if not exists owner_hint text;
`;
  editor.write(text);
  for (const args of [
    ['watch', '--once'],
    ['commit', '--message', 'Owner hints'],
  ]) {
    expect(await graphile(...args), args[0]).toMatchObject({ exitCode: 0 });
  }
  expect(last().text.endsWith(`\n\n${text}`)).toBe(true);
  expect(await graphile('uncommit')).toMatchObject({ exitCode: 0 });
  expect(editor.read()).toContain(text);
  expect(await graphile('commit')).toMatchObject({ exitCode: 0 });
  expect(await graphile('reset', '--erase')).toMatchObject({ exitCode: 0 });
  expect(await graphile('migrate')).toMatchObject({ exitCode: 0 });
  expect(await columnsOf(env.DATABASE_URL, 'nodes')).toContain('owner_hint');
});

test('graphile-migrate makes the same schema on a database whose settings change what SQL means', async () => {
  const name = new URL(env.DATABASE_URL).pathname.slice(1);
  await query(env.DATABASE_URL, HOSTILE_SCHEMA);
  await query(env.DATABASE_URL, `alter database ${name} set search_path = before, pg_catalog`);
  await query(
    env.DATABASE_URL,
    `do $$ begin
       if current_setting('server_version_num')::integer < 190000 then -- always on since
         alter database ${name} set standard_conforming_strings = off;
       end if;
     end $$`,
  );
  await query(env.DATABASE_URL, `alter database ${name} set transform_null_equals = on`);
  await query(env.DATABASE_URL, `alter database ${name} set statement_timeout = 1`);
  expect(await graphile('migrate')).toMatchObject({
    exitCode: 1,
    output: expect.stringContaining('statement timeout'),
  });
  // As docs/operations.md says.
  Object.assign(env, { PGOPTIONS: '-c statement_timeout=0' });
  expect(await graphile('migrate')).toMatchObject({ exitCode: 0 });
  expect(await runCli(['verify'], { folder: copy.folder, env: { ...env } })).toMatchObject({ exitCode: 0 });
});

test('graphile-migrate watch applies a save', async () => {
  const child = spawn(PROGRAM, ['watch'], options());
  const watching = follow(child, () => child.kill('SIGINT'));
  try {
    await watching.untilSays(/Finished/);
    editor.write('alter table filestore.nodes add column if not exists owner_hint text;\n');
    await untilColumn(env.DATABASE_URL, 'nodes', 'owner_hint');
  } finally {
    await watching.interrupt();
  }
});
