import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
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
  type WorkflowEnv,
} from '../support/command-line/workflow.ts';
import { lastCommitted, numberAfterLast } from '../support/packages/committed-files.ts';

// These tests run many commands, each of which starts a process and often a server.
vi.setConfig({ testTimeout: 180_000 });

/** The number of the migration that each branch commits. */
const NEXT = numberAfterLast(1);

let copy: PackageCopy;
let editor: Editor;
let env: WorkflowEnv;
let watching: RunningCommand | undefined;

beforeEach(async () => {
  copy = copyPackage();
  editor = editorOf(copy);
  env = await makeWorkflowDatabases();
  git('init', '--quiet', '--initial-branch', 'base');
  commitAll('Base');
});
afterEach(() => {
  watching?.child.kill('SIGKILL');
  watching = undefined;
  copy.remove();
});

function git(...args: readonly string[]): void {
  const identity = ['-c', 'user.name=Developer', '-c', 'user.email=developer@example.com'];
  execFileSync('git', [...identity, ...args], { cwd: copy.folder, stdio: 'pipe' });
}

function commitAll(message: string): void {
  git('add', 'migrations', 'schema');
  git('commit', '--quiet', '--message', message);
}

const run = (...args: readonly string[]) => runCli(args, { folder: copy.folder, env: { ...env } });
const addColumn = (name: string) => `alter table filestore.nodes add column if not exists ${name} text;\n`;

/** A branch "mine" with a committed migration, and a branch "other" with one in current.sql. */
async function makeBranches(): Promise<void> {
  git('checkout', '--quiet', '-b', 'other');
  editor.write(addColumn('other_hint'));
  commitAll('Other');
  git('checkout', '--quiet', '-b', 'mine', 'base');
  editor.write(addColumn('owner_hint'));
  expect(await run('commit', '-m', 'Owner hints')).toMatchObject({ exitCode: 0 });
  commitAll('Mine');
}

test('a switch to a branch with other migrations is reported and applies nothing; switching back or a reset continues', async () => {
  await makeBranches();
  watching = startWatch(copy, { ...env });
  await watching.untilSays(/Up to date/);

  git('checkout', '--quiet', 'other');
  await watching.untilSays(
    new RegExp(
      `REFUSED .*it has ${NEXT}\\.sql, which is not among the files.*Switch back.*npm run db:reset\n`,
    ),
  );
  expect(await columnsOf(env.DATABASE_URL, 'nodes')).not.toContain('other_hint');
  const once = await run('watch', '--once');
  expect(once).toMatchObject({
    exitCode: 4,
    stderr: expect.stringMatching(/DATABASE_AHEAD.*npm run db:reset/),
  });

  git('checkout', '--quiet', 'mine');
  await watching.untilSays(/Up to date/);

  git('checkout', '--quiet', 'other');
  await watching.untilSays(/REFUSED/);
  expect(await run('reset')).toMatchObject({ exitCode: 0 });
  await untilColumn(env.DATABASE_URL, 'nodes', 'other_hint');
  expect(await columnsOf(env.DATABASE_URL, 'nodes')).not.toContain('owner_hint');
  expect((await watching.interrupt()).exitCode).toBe(0);
});

test('a commit on a branch with other migrations keeps the rows of the development database, which does not get it', async () => {
  await makeBranches();
  await query(env.DATABASE_URL, 'create table precious (n integer)');
  git('checkout', '--quiet', 'other');
  const committed = await run('commit', '-m', 'Other hints');
  expect(committed, committed.output).toMatchObject({ exitCode: 0 });
  expect(committed.stdout).toContain(`Committed migrations/committed/${NEXT}-other-hints.sql`);
  expect(committed.stderr).toMatch(
    /^The development database did not get it\. .*Switch back to that branch, or recreate .*npm run db:reset\n$/,
  );
  expect(lastCommitted(copy.folder)).toMatchObject({ filename: `${NEXT}-other-hints.sql` });
  expect(await columnsOf(env.SHADOW_DATABASE_URL, 'nodes')).toContain('other_hint');
  expect(await columnsOf(env.DATABASE_URL, 'nodes')).toContain('owner_hint');
  expect(await columnsOf(env.DATABASE_URL, 'nodes')).not.toContain('other_hint');
  expect(await query(env.DATABASE_URL, 'select from precious')).toEqual([]);
});

test('a merge that brings a fixture with its migration asks for no include', async () => {
  await makeBranches();
  git('checkout', '--quiet', 'base');
  watching = startWatch(copy, { ...env });
  await watching.untilSays(/REFUSED/);
  expect(await run('reset')).toMatchObject({ exitCode: 0 });
  await watching.untilSays(/Up to date/);
  git('checkout', '--quiet', '-b', 'view', 'base');
  const view = 'fixtures/views/view_filestore_active_nodes.sql';
  editor.replace(
    view,
    '\nfrom filestore.nodes n',
    ",\n  n.metadata ->> 'hint' as hint\nfrom filestore.nodes n",
  );
  await watching.untilSays(`Not applied: ${view} differs from the migrations`);
  editor.write('--!include views/view_filestore_active_nodes.sql\n');
  await watching.untilSays(/Applied current\.sql/);
  expect(await run('commit', '-m', 'Hints in the view')).toMatchObject({ exitCode: 0 });
  commitAll('View');
  await watching.untilSays(/Up to date/);

  git('checkout', '--quiet', 'base');
  await watching.untilSays(/REFUSED/);
  git('merge', '--quiet', '--ff-only', 'view');
  const said = await watching.untilSays(/Up to date/);
  expect(said).not.toContain('Not applied');
  editor.write('select 1;\n');
  expect(await watching.untilSays(/Applied current\.sql/)).not.toContain('Not applied');
  expect((await watching.interrupt()).exitCode).toBe(0);
});

test('a branch that rewrote a migration is reported too', async () => {
  await makeBranches();
  git('checkout', '--quiet', '-b', 'rewritten', 'base');
  await run('reset');
  editor.write(addColumn('another_hint'));
  expect(await run('commit', '-m', 'Another hint')).toMatchObject({ exitCode: 0 });
  commitAll('Rewritten');

  git('checkout', '--quiet', 'mine');
  watching = startWatch(copy, { ...env });
  await watching.untilSays(
    new RegExp(`REFUSED .*${NEXT}-owner-hints\\.sql was applied with other content.*npm run db:reset\n`),
  );
  expect((await watching.interrupt()).exitCode).toBe(0);
});

test('the next commit lists leftovers of another branch', async () => {
  await makeBranches();
  git('checkout', '--quiet', 'other');
  await run('reset');
  watching = startWatch(copy, { ...env });
  await watching.untilSays(/Applied current\.sql/);

  git('checkout', '--quiet', 'base');
  await watching.untilSays(/DRIFT [\s\S]*column filestore\.nodes\.other_hint is not in the model/);
  editor.write(addColumn('third_hint'));
  await watching.untilSays(/Applied current\.sql/);
  const committed = await run('commit', '-m', 'Third hint');
  expect(committed.exitCode).toBe(0);
  expect(committed.stderr).toMatch(
    /^DRIFT .*\n {2}column filestore\.nodes\.other_hint is not in the model: text\n.*npm run db:reset\n$/,
  );
});
