import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { type CliResult, collect, startCli } from '../support/command-line/command-line.ts';
import {
  type Editor,
  editorOf,
  makeWorkflowDatabases,
  query,
  type WorkflowEnv,
} from '../support/command-line/workflow.ts';
import { lastCommitted, migrationFiles, numberAfterLast } from '../support/packages/committed-files.ts';
import { until } from '../support/until.ts';

const HELD = 4711;
/** The development database is migrated after the shadow database, where no session holds the lock. */
const WAITS_IN_MAIN = `select pg_advisory_xact_lock(${HELD});\n`;

vi.setConfig({ testTimeout: 180_000 });

let copy: PackageCopy;
let editor: Editor;
let env: WorkflowEnv;
let blank: string;
let holder: pg.Client;

const start = (...args: readonly string[]): Promise<CliResult> =>
  collect(startCli(args, { folder: copy.folder, env: { ...env } }));

beforeEach(async () => {
  copy = copyPackage();
  editor = editorOf(copy);
  blank = editor.read();
  env = await makeWorkflowDatabases();
  holder = new pg.Client(env.DATABASE_URL);
  await holder.connect();
  await holder.query(`select pg_advisory_lock(${HELD})`);
});
afterEach(async () => {
  await holder.end();
  copy.remove();
});

/** Starts a commit that waits until the holder has ended. */
async function startCommit(): Promise<{ readonly ended: Promise<CliResult> }> {
  editor.write(WAITS_IN_MAIN);
  const ended = start('commit', '-m', 'One');
  const waiting = `select from pg_locks where locktype = 'advisory' and objid = ${HELD} and not granted`;
  await until(async () => (await query(env.ROOT_DATABASE_URL, waiting)).length > 0);
  return { ended };
}

describe('during a commit', () => {
  test.each<[string, readonly string[], number, RegExp]>([
    ['another commit waits, and finds', ['commit', '-m', 'Two'], 1, /There is nothing to commit/],
    ['an uncommit waits, and moves it back:', ['uncommit'], 0, /^Uncommitted \d+-one\.sql/],
    ['a reset waits, and applies it:', ['reset'], 0, /^Recreated with \d+ migrations/m],
  ])('%s %j', async (_, args, exitCode, part) => {
    const before = lastCommitted(copy.folder);
    const first = await startCommit();
    const second = start(...args);
    const name = new URL(env.DATABASE_URL).pathname.slice(1);
    // The session that has the lock may have run another statement since then.
    const asking = `
      select from pg_stat_activity
      where query like '%pg_try_advisory_lock(%${name}%' and pid <> pg_backend_pid()
        and pid not in (select pid from pg_locks where locktype = 'advisory' and granted)`;
    await until(async () => (await query(env.ROOT_DATABASE_URL, asking)).length === 1);
    await holder.end();
    expect(await first.ended).toMatchObject({ exitCode: 0, stderr: '' });
    const result = await second;
    expect(result, result.output).toMatchObject({ exitCode, output: expect.stringMatching(part) });
    const undone = args[0] === 'uncommit';
    expect(lastCommitted(copy.folder)).toMatchObject(
      undone ? before : { message: 'One', previous: before.hash },
    );
    expect(editor.read()).toBe(undone ? `--! Message: One\n\n${WAITS_IN_MAIN}` : blank);
  });

  test.each(['theirs', 'one'])(
    'a file with its number and the name %s, as git brings it, is kept, and the commit is refused',
    async (name) => {
      const running = await startCommit();
      const theirs = `${numberAfterLast(1)}-${name}.sql`;
      writeFileSync(join(copy.folder, 'migrations', 'committed', theirs), 'select 1;\n');
      const before = migrationFiles(copy.folder);
      await holder.end();
      const result = await running.ended;
      expect(result).toMatchObject({
        exitCode: 1,
        stderr: expect.stringContaining(
          `SCHEMA_CHANGE_REFUSED: migrations/committed/${theirs} was added during the command, and has the number of the new migration.`,
        ),
      });
      expect(migrationFiles(copy.folder)).toEqual(before);
    },
  );
});
