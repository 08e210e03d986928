import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { type CliResult, collect, runCli, startCli } from '../support/command-line/command-line.ts';
import {
  type Editor,
  editorOf,
  makeWorkflowDatabases,
  query,
  type WorkflowEnv,
} from '../support/command-line/workflow.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';

const ADD_COLUMN = 'alter table filestore.nodes add column if not exists owner_hint text;\n';

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

/** graphile-migrate records a migration by its number only. */
const recordOf = (filename: string) => `${filename.slice(0, 6)}.sql`;

async function recorded(): Promise<readonly string[]> {
  const rows = await query<{ filename: string }>(
    env.DATABASE_URL,
    'select filename from graphile_migrate.migrations order by filename',
  );
  return rows.map(({ filename }) => filename);
}

describe('uncommit, while it runs migrations on the shadow database,', () => {
  const SHADOW_ONLY = "if current_database() like '%shadow' then";

  /** Adds a migration that runs this SQL only on the shadow database, and one after it. */
  async function addMigrations(body: string): Promise<string> {
    copy.addMigration('slow', `do $$ begin\n  ${SHADOW_ONLY}\n    ${body}\n  end if;\nend $$;`);
    const last = copy.addMigration('owner-hints', ADD_COLUMN.trim());
    expect(await run('watch', '--once')).toMatchObject({ exitCode: 0 });
    expect((await recorded()).at(-1)).toBe(recordOf(last));
    return last;
  }

  const slow = () =>
    query<{ pid: number }>(
      env.ROOT_DATABASE_URL,
      `select pid from pg_stat_activity where datname = '${new URL(env.SHADOW_DATABASE_URL).pathname.slice(1)}' and query like '%pg_sleep(600)%' and state = 'active'`,
    );
  const untilSlow = () => vi.waitFor(async () => expect(await slow()).toHaveLength(1), { timeout: 50_000 });

  test('keeps changes that are saved to current.sql during the command', async () => {
    const last = await addMigrations(
      'begin perform pg_sleep(600); exception when query_canceled then null; end;',
    );
    const ended = run('uncommit');
    await untilSlow();
    editor.write('select 1;\n');
    const [{ pid } = { pid: 0 }] = await slow();
    await query(env.ROOT_DATABASE_URL, `select pg_cancel_backend(${pid})`);
    const result = await ended;
    expect(result, result.output).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining(`Uncommitted ${last}`),
      stderr: expect.stringContaining('migrations/current.sql was changed during the command'),
    });
    expect(editor.read()).toBe(`${ADD_COLUMN}\nselect 1;\n`);
    expect(committedMigrations(copy.folder)).not.toContain(last);
  });

  test('and is stopped reports that the record may be lost', async () => {
    const last = await addMigrations('perform pg_sleep(600);');
    const files = committedMigrations(copy.folder);
    const child = startCli(['uncommit'], { folder: copy.folder, env: { ...env } });
    const ended = collect(child);
    await untilSlow();
    child.kill('SIGINT');
    expect(await ended).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining(
        `RUN_ABORTED: Stopped on request. No file was changed. The development database may have lost its record of ${last}`,
      ),
    });
    expect(committedMigrations(copy.folder)).toEqual(files);
    expect(editor.read()).toBe(blank);
    expect(await recorded()).not.toContain(recordOf(last));
  });

  test('and fails reports that the record may be lost', async () => {
    const last = await addMigrations("raise exception 'not here';");
    expect(await run('uncommit')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining(`may have lost its record of ${last}`),
    });
    expect(committedMigrations(copy.folder)).toContain(last);
    expect(editor.read()).toBe(blank);
    expect(await recorded()).not.toContain(recordOf(last));
  });
});
