import { createHash } from 'node:crypto';
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { CURRENT } from '../../dev/sources/sources.ts';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { type CliResult, runCli } from '../support/command-line/command-line.ts';
import {
  columnsOf,
  type Editor,
  editorOf,
  makeWorkflowDatabases,
  query,
  type WorkflowEnv,
} from '../support/command-line/workflow.ts';
import { lastCommitted, migrationFiles } from '../support/packages/committed-files.ts';

const ADD_COLUMN = 'alter table filestore.nodes add column if not exists owner_hint text;\n';
const WITH_INCLUDE = `${ADD_COLUMN}--!include views/view_filestore_active_nodes.sql\n`;
const VIEW = 'fixtures/views/view_filestore_active_nodes.sql';

// These tests run many commands, each of which starts a process and often a server.
vi.setConfig({ testTimeout: 180_000 });

let copy: PackageCopy;
let editor: Editor;
let env: WorkflowEnv;
let blank: string;

async function prepare(): Promise<void> {
  copy = copyPackage();
  editor = editorOf(copy);
  blank = editor.read();
  env = await makeWorkflowDatabases();
}

const run = (...args: readonly string[]): Promise<CliResult> =>
  runCli(args, { folder: copy.folder, env: { ...env } });

async function recorded(): Promise<readonly string[]> {
  const rows = await query<{ hash: string }>(
    env.DATABASE_URL,
    'select hash from graphile_migrate.migrations order by filename',
  );
  return rows.map(({ hash }) => hash);
}

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
  beforeEach(prepare);
  afterEach(() => copy.remove());

  test('writes a hashed migration, records it and empties current.sql; after uncommit, a second commit has the same hash', async () => {
    const before = lastCommitted(copy.folder);
    editor.write(WITH_INCLUDE);
    const first = await run('commit', '-m', 'Owner hints');
    expect(first).toMatchObject({ exitCode: 0, stderr: '' });
    const committed = lastCommitted(copy.folder);
    expect(committed).toMatchObject({ message: 'Owner hints', previous: before.hash });
    expect(committed.filename).toMatch(/^\d{6}-owner-hints\.sql$/);
    expect(first.stdout).toContain(
      `Committed migrations/committed/${committed.filename} (${committed.hash}, `,
    );
    const body = committed.text.slice(committed.text.indexOf('\n\n') + 2);
    expect(committed.hash).toBe(
      `sha1:${createHash('sha1').update(`${before.hash}\n${body.trim()}\n`).digest('hex')}`,
    );
    expect(body).toContain('create view filestore.view_filestore_active_nodes');
    expect(editor.read()).toBe(blank);
    expect((await recorded()).at(-1)).toBe(committed.hash);
    expect(await columnsOf(env.SHADOW_DATABASE_URL, 'nodes')).toContain('owner_hint');

    expect(await run('uncommit')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(lastCommitted(copy.folder)).toEqual(before);
    expect(editor.read()).toBe(`--! Message: Owner hints\n\n${WITH_INCLUDE}`);
    expect((await recorded()).at(-1)).toBe(before.hash);

    // The message is kept.
    expect(await run('commit')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(lastCommitted(copy.folder)).toEqual(committed);
    expect((await recorded()).at(-1)).toBe(committed.hash);
  });

  test('keeps the only text of each fixture: uncommit restores those that are missing, and names the changed one', async () => {
    const [outer, inner] = ['fixtures/views/later/my_view.sql', 'fixtures/functions/my_part.sql'];
    const view = 'create or replace view filestore.my_view as\nselect 1 as mine;\n';
    const folder = join(copy.folder, 'migrations');
    mkdirSync(join(folder, 'fixtures', 'views', 'later'));
    writeFileSync(join(folder, inner), "comment on schema filestore is 'mine';\n");
    writeFileSync(join(folder, outer), `${view}--!include functions/my_part.sql\n`);
    editor.write(`${WITH_INCLUDE}--!include views/later/my_view.sql\n`);
    expect(await run('commit', '-m', 'My work')).toMatchObject({ exitCode: 0, stderr: '' });
    const committed = lastCommitted(copy.folder);

    rmSync(join(folder, 'fixtures', 'views', 'later'), { recursive: true });
    rmSync(join(folder, inner));
    const uncommitted = await run('uncommit');
    expect(uncommitted).toMatchObject({ exitCode: 0, stderr: '' });
    for (const path of [outer, inner]) {
      expect(uncommitted.stdout).toContain(
        `migrations/${path} was missing: it has the committed text again.\n`,
      );
    }
    expect(uncommitted.stdout).not.toContain('differs');
    expect(await run('commit')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(lastCommitted(copy.folder)).toEqual(committed);

    editor.replace(outer, 'as mine', 'as other');
    const again = await run('uncommit');
    expect(again.stdout).toContain(
      `migrations/${outer} differs from the committed text: a commit takes the file as it is.\n`,
    );
    expect(again.stdout).not.toMatch(/was missing|active_nodes|my_part/);
  });

  test('of SQL that fails changes no file, and reports where it failed', async () => {
    await run('watch', '--once');
    const before = await recorded();
    editor.write(`--! Message: Owner hints\n\n${WITH_INCLUDE}`);
    const { line, column } = editor.replace(VIEW, 'filestore.nodes n', 'filestore.noodles n');
    await expectRefusal(
      ['commit'],
      1,
      `FAILED  migrations/${VIEW}:${line}:${column}: relation "filestore.noodles" does not exist (SQLSTATE 42P01), on the shadow database\n`,
    );
    editor.write(`--! Message: Owner hints\n\n\n${ADD_COLUMN}select nothing;\n`);
    await expectRefusal(['commit'], 1, 'FAILED  migrations/current.sql:5:8: column "nothing" does not exist');
    expect(await recorded()).toEqual(before);
    expect(await columnsOf(env.DATABASE_URL, 'nodes')).not.toContain('owner_hint');
  });

  test('of a fixture with CR LF changes no file and no database, and names the line', async () => {
    await run('watch', '--once');
    const before = await recorded();
    editor.write(WITH_INCLUDE);
    const { line } = editor.replace(VIEW, 'filestore.nodes n\n', 'filestore.nodes n\r\n');
    const refusal = `migrations/${VIEW}:${line} has a carriage return (CR) or a byte order mark. Save the file with LF line ends, as UTF-8`;
    await expectRefusal(['commit', '-m', 'Owner hints'], 1, refusal);
    // Watch would apply other SQL than a commit: an include that ends in CR is a comment.
    await expectRefusal(['watch', '--once'], 1, refusal);
    expect(await recorded()).toEqual(before);
    expect(await columnsOf(env.DATABASE_URL, 'nodes')).not.toContain('owner_hint');
  });

  test('writes into migrations/committed also if that is a symbolic link', async () => {
    const committed = join(copy.folder, 'migrations', 'committed');
    const elsewhere = join(copy.folder, 'elsewhere');
    renameSync(committed, elsewhere);
    symlinkSync(elsewhere, committed);
    editor.write(ADD_COLUMN);
    expect(await run('commit', '-m', 'Owner hints')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(lastCommitted(copy.folder).message).toBe('Owner hints');
    expect(editor.read()).toBe(blank);
  });

  test('and every other step refuse current.sql as a symbolic link', async () => {
    const [current, elsewhere] = [join(copy.folder, CURRENT), join(copy.folder, 'elsewhere.sql')];
    writeFileSync(elsewhere, WITH_INCLUDE);
    rmSync(current);
    symlinkSync(elsewhere, current);
    for (const args of [['commit', '-m', 'Owner hints'], ['uncommit'], ['watch', '--once']]) {
      await expectRefusal(args, 1, 'current.sql is a folder or a symbolic link. Replace it with a file.');
    }
  });
});

describe('a command that is refused', () => {
  // It changes nothing.
  beforeAll(prepare);
  afterAll(() => copy.remove());

  test.each([
    [['commit', '-m', 'Nothing'], 1, /SCHEMA_CHANGE_REFUSED: There is nothing to commit/, ''],
    [['commit', '-m', 'Nothing'], 1, /There is nothing to commit/, '-- only /* words\n'],
    [['commit'], 2, /A commit needs a message in one line/, ADD_COLUMN],
    [['commit', '-m', 'one\u2028two'], 2, /A commit needs a message in one line/, ADD_COLUMN],
    [
      ['commit', '-m', 'Owner hints'],
      1,
      /SCHEMA_CHANGE_REFUSED: migrations\/current\.sql:2 has a carriage return/,
      `-- Why.\n${ADD_COLUMN.replace('\n', '\r\n')}`,
    ],
    [
      ['commit', '-m', 'Owner hints'],
      1,
      /migrations\/current\.sql:2 has a carriage return/,
      WITH_INCLUDE.replace('.sql\n', '.sql\r\n'),
    ],
    [
      ['commit', '-m', 'Comment'],
      1,
      /migrations\/current\.sql:1 has a carriage return/,
      '-- Harmless.\rset work_mem = 77777;\n',
    ],
    [['watch', '--once'], 1, /migrations\/current\.sql:1 has a carriage return/, '-- Why.\rselect 1;\n'],
    [['watch', '--once'], 1, /current\.sql:1 has .* or a byte order mark/, `\ufeff${ADD_COLUMN}`],
    [
      ['commit', '-m', 'x'.repeat(513)],
      1,
      /FAILED {2}Invalid commit message: message is too long/,
      ADD_COLUMN,
    ],
    [
      ['commit', '-m', 'Owner hints'],
      1,
      /SCHEMA_CHANGE_REFUSED: migrations\/current\.sql:1 is a check without a query\. Write one select/,
      `--check: Some nodes have no owner.\n${ADD_COLUMN}`,
    ],
    [
      ['uncommit'],
      1,
      /cannot be moved back, because migrations\/current\.sql has another change/,
      ADD_COLUMN,
    ],
  ])('%j reports why', async (args, exitCode, part, current) => {
    editor.write(current);
    await expectRefusal(args, exitCode, part);
  });
});
