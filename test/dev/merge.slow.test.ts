import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { runCli } from '../support/command-line/command-line.ts';
import {
  columnsOf,
  type Editor,
  editorOf,
  makeWorkflowDatabases,
  query,
  type WorkflowEnv,
} from '../support/command-line/workflow.ts';
import { addColumn, addMergedBranches } from '../support/packages/branches.ts';
import { committedMigrations, lastCommitted } from '../support/packages/committed-files.ts';

const VIEW = 'view_filestore_active_nodes';

// These tests run many commands, each of which starts a process.
vi.setConfig({ testTimeout: 180_000 });

let copy: PackageCopy;
let editor: Editor;
let env: WorkflowEnv;

beforeEach(async () => {
  copy = copyPackage();
  editor = editorOf(copy);
  env = await makeWorkflowDatabases();
});
afterEach(() => copy.remove());

async function run(...args: readonly string[]): Promise<string> {
  const result = await runCli(args, { folder: copy.folder, env: { ...env } });
  expect(result, result.output).toMatchObject({ exitCode: 0 });
  return result.output;
}

/** Expects that the files are a chain, and that the database has exactly them. */
async function expectInOrder(): Promise<void> {
  const files = await readCommittedMigrations(join(copy.folder, 'migrations'));
  expect(
    await query(
      env.DATABASE_URL,
      'select filename, hash, previous_hash from graphile_migrate.migrations order by filename',
    ),
  ).toEqual(
    files.map(({ recordedName, hash, previousHash }) => ({
      filename: recordedName,
      hash,
      previous_hash: previousHash,
    })),
  );
}

test('after a merge, an uncommit and a commit put your migration after theirs, and keep the rows of the database', async () => {
  await run('watch', '--once');
  await query(env.DATABASE_URL, 'create table precious as select 1 as n');
  const { theirs, mine } = addMergedBranches(copy, ['their_hint'], ['my_hint']);
  const [their = ''] = theirs;
  const [my = ''] = mine;
  // The development database has yours, as before the merge.
  const aside = join(copy.folder, 'their.sql');
  renameSync(join(copy.folder, 'migrations', 'committed', their), aside);
  await run('watch', '--once');
  renameSync(aside, join(copy.folder, 'migrations', 'committed', their));
  const refused = await runCli(['watch', '--once'], { folder: copy.folder, env: { ...env } });
  expect(refused).toMatchObject({
    exitCode: 4,
    stderr: expect.stringMatching(/^MIGRATION_NUMBER_TAKEN: .*npm run db:uncommit -- --migration <file>/),
  });

  await run('uncommit', '--migration', my);
  expect(editor.read()).toBe(addColumn('my_hint'));
  await run('commit', '-m', 'My hint');
  await expectInOrder();
  expect(committedMigrations(copy.folder)).toContain(their);
  expect(lastCommitted(copy.folder).text).toContain(addColumn('my_hint'));
  expect(await columnsOf(env.DATABASE_URL, 'nodes')).toEqual(
    expect.arrayContaining(['their_hint', 'my_hint']),
  );
  expect(await query(env.DATABASE_URL, 'select n from precious')).toEqual([{ n: 1 }]);
});

test('after a merge, a fixture that both branches change has both changes', async () => {
  const extend = (column: string) =>
    editor.replace(
      `fixtures/views/${VIEW}.sql`,
      '\nfrom filestore.nodes n',
      `,\n  n.metadata ->> '${column}' as ${column}\nfrom filestore.nodes n`,
    );
  extend('my_hint');
  editor.write(`--!include views/${VIEW}.sql\n`);
  await run('commit', '-m', 'My hint');
  const { filename } = lastCommitted(copy.folder);
  const committed = join(copy.folder, 'migrations', 'committed');
  renameSync(join(committed, filename), join(copy.folder, 'mine.sql'));
  copy.addMigration('their-hint', addColumn('owner_hint'));
  renameSync(join(copy.folder, 'mine.sql'), join(committed, filename));
  extend('their_hint');

  await run('uncommit', '--migration', filename);
  await run('commit');
  await expectInOrder();
  expect(lastCommitted(copy.folder)).toMatchObject({ message: 'My hint' });
  expect(await columnsOf(env.DATABASE_URL, VIEW)).toEqual(expect.arrayContaining(['my_hint', 'their_hint']));
});

test('after a merge, several migrations are moved one after the other, from the last', async () => {
  const { theirs, mine } = addMergedBranches(copy, ['their_a', 'their_b'], ['my_a', 'my_b']);
  const [myFirst = '', myLast = ''] = mine;
  const current = join(copy.folder, 'migrations', 'current.sql');
  const aside = join(copy.folder, 'later.sql');
  await run('uncommit', '--migration', myLast);
  renameSync(current, aside);
  await run('uncommit', '--migration', myFirst);
  await run('commit', '-m', 'my a');
  rmSync(current);
  renameSync(aside, current);
  await run('commit', '-m', 'my b');
  await expectInOrder();
  const names = committedMigrations(copy.folder).slice(-4);
  expect(names.slice(0, 2)).toEqual(theirs);
  expect(names.map((name) => name.replace(/^\d+/, ''))).toEqual([
    '-their-a.sql',
    '-their-b.sql',
    '-my-a.sql',
    '-my-b.sql',
  ]);
});

test('after a merge, an uncommit leaves a database of the other branch as it is', async () => {
  const { theirs, mine } = addMergedBranches(copy, ['their_hint'], ['my_hint']);
  const [my = ''] = mine;
  const path = join(copy.folder, 'migrations', 'committed', my);
  renameSync(path, join(copy.folder, 'mine.sql'));
  await run('watch', '--once');
  renameSync(join(copy.folder, 'mine.sql'), path);
  await run('uncommit', '--migration', my);
  await expectInOrder();
  await run('commit', '-m', 'My hint');
  await expectInOrder();
  expect(committedMigrations(copy.folder)).toEqual(expect.arrayContaining([...theirs]));
});
