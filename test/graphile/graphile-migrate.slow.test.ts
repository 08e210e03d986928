import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { type Proxy as Cable, startProxy } from '../../harness/proxy.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { command, jsonCommand } from '../support/command-line/answers.ts';
import { collect } from '../support/command-line/command-line.ts';
import { takePicture } from '../support/databases/picture.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { startRun } from '../support/processes/run-copy.ts';

const database = databaseForEachTest('empty');
const files = committedMigrations();
const verify = () => command(['verify'], database().url);

/** Runs graphile-migrate's own command line in the package's folder, with its environment variables. */
function graphileMigrate(name: 'status' | 'migrate', folder = PACKAGE_ROOT) {
  const url = database().url;
  const program = join(PACKAGE_ROOT, 'node_modules', '.bin', 'graphile-migrate');
  return collect(
    spawn(process.execPath, [program, name], {
      cwd: folder,
      env: {
        PATH: process.env.PATH,
        HOME: process.env.HOME,
        DATABASE_URL: url,
        // "status" requires this variable, but does not use it.
        ...(name === 'status' && { SHADOW_DATABASE_URL: `${url}_shadow` }),
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    }),
  );
}

let copy: PackageCopy | undefined;
afterEach(() => {
  copy?.remove();
  copy = undefined;
});

describe("graphile-migrate's own command line, on a database that this package migrated", () => {
  test('finds everything applied, and applies nothing', async () => {
    expect(await command(['migrate'], database().url)).toMatchObject({ exitCode: 0 });
    const before = await takePicture(database());
    expect(await graphileMigrate('status')).toMatchObject({ exitCode: 0, stdout: 'Up to date.\n' });
    expect(await graphileMigrate('migrate')).toMatchObject({
      exitCode: 0,
      output: expect.stringContaining('Already up to date'),
    });
    expect(await takePicture(database())).toEqual(before);
  });

  test('continues where this package stopped', async () => {
    expect(await command(['migrate'], database().url)).toMatchObject({ exitCode: 0 });
    copy = copyPackage();
    const added = copy.addMigration('later', 'create table public.later ();');
    expect(await graphileMigrate('status', copy.folder)).toMatchObject({
      exitCode: 1,
      stdout: expect.stringContaining('There are 1 committed migrations pending'),
    });
    expect(await graphileMigrate('migrate', copy.folder)).toMatchObject({
      exitCode: 0,
      output: expect.stringContaining('1 committed migrations executed'),
    });
    expect((await jsonCommand(['status'], database().url, { folder: copy.folder })).document).toMatchObject({
      state: 'current',
      pending: [],
    });
    expect(added).toMatch(/-later\.sql$/);
  });
});

describe("this package, on a database that graphile-migrate's own command line migrated", () => {
  test('finds everything applied and no drift, and applies nothing', async () => {
    expect(await graphileMigrate('migrate')).toMatchObject({
      exitCode: 0,
      output: expect.stringContaining(`${files.length} committed migrations executed`),
    });
    const before = await takePicture(database());
    expect((await jsonCommand(['status'], database().url)).document).toMatchObject({
      state: 'current',
      problems: [],
    });
    expect(await command(['migrate'], database().url)).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining(`Up to date: ${files.length} migrations applied earlier`),
    });
    expect(await verify()).toMatchObject({ exitCode: 0 });
    expect(await takePicture(database())).toEqual(before);
  });

  test('continues where the other stopped', async () => {
    copy = copyPackage();
    copy.removeLastMigration();
    expect(await graphileMigrate('migrate', copy.folder)).toMatchObject({ exitCode: 0 });
    expect((await jsonCommand(['migrate'], database().url)).document).toMatchObject({
      ok: true,
      report: {
        applied: [{ filename: files.at(-1) }],
        alreadyApplied: files.length - 1,
        schema: { state: 'same' },
      },
    });
    expect(await graphileMigrate('status')).toMatchObject({ exitCode: 0, stdout: 'Up to date.\n' });
  });

  test('accepts the history of the other, row by row', async () => {
    await graphileMigrate('migrate');
    const rows = () =>
      database().query(
        'select filename, hash, previous_hash from graphile_migrate.migrations order by filename',
      );
    const theirs = await rows();
    await database().query('drop schema filestore, graphile_migrate cascade');
    await command(['migrate'], database().url);
    expect(await rows()).toEqual(theirs);
  });
});

describe('beside a run, which does not wait for it', () => {
  const DRAFTS = `--check: Some items are drafts. Finish them first.
--  select not exists (select from public.items where is_draft)
alter table public.items drop column is_draft;`;
  const UNFIT =
    '--check: There are no items.\n--  select exists (select from public.items)\n\ncreate table public.unfit ();';

  let proxy: Cable;
  beforeEach(async () => {
    expect(await command(['migrate'], database().url)).toMatchObject({ exitCode: 0 });
    proxy = await startProxy(database().url);
    copy = copyPackage();
  });
  afterEach(() => proxy.stop());

  test('it applies a migration whose check the run evaluates later: the run looks again, and succeeds', async () => {
    await database().query('create table public.items (is_draft boolean)');
    copy?.addMigration('drafts', DRAFTS);
    const check = proxy.holdAt('where is_draft');
    const run = startRun(copy as PackageCopy, proxy.url);
    const release = await check;
    expect(await graphileMigrate('migrate', copy?.folder)).toMatchObject({ exitCode: 0 });
    release();
    expect(await run.ended).toMatchObject({ applied: [], attempts: 2 });
  });

  test('it applies those of an older version: the run evaluates the checks of the next ones', async () => {
    const older = copyPackage();
    try {
      for (const each of [older, copy as PackageCopy]) {
        each.addMigration('items', 'create table public.items (is_draft boolean);');
        each.addMigration('drafts', DRAFTS);
      }
      const unfit = copy?.addMigration('unfit', UNFIT);
      const thread = proxy.holdAt('select pg_catalog.pg_backend_pid() as pid');
      const run = startRun(copy as PackageCopy, proxy.url);
      const release = await thread;
      expect(await graphileMigrate('migrate', older.folder)).toMatchObject({ exitCode: 0 });
      release();
      await expect(run.ended).rejects.toMatchObject({
        code: 'MIGRATION_CHECK_FAILED',
        checks: [{ filename: unfit }],
        applied: [],
      });
      expect(await database().query("select to_regclass('public.unfit') as unfit")).toEqual([
        { unfit: null },
      ]);
    } finally {
      older.remove();
    }
  });
});
