import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { packageFolder } from '../../harness/compiled.ts';
import { type Proxy as Cable, startProxy } from '../../harness/proxy.ts';
import { assertMigrated, migrationStatus, pendingMigrations, runMigrations } from '../../src/index.ts';
import { collect } from '../support/command-line/command-line.ts';
import { createDatabase, databaseForFile } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';

const database = databaseForFile();

describe('with nothing pending', () => {
  let cable: Cable;
  beforeEach(async () => {
    cable = await startProxy(database().url);
  });
  afterEach(() => cable.stop());

  test.each([
    ['a run', runMigrations],
    ['a dry run', pendingMigrations],
    ['status', migrationStatus],
    ['the check at the start of a service', assertMigrated],
  ])('%s opens one connection, sends one message, and ends', async (_, ask) => {
    await ask({ env: { DATABASE_URL: cable.url } });
    expect(cable.conversations).toEqual([['Q', 'X']]);
  });
});

/** Runs the migrations in a separate process, which then reports the modules it has loaded. */
async function runInProcess(url: string): Promise<unknown> {
  const index = pathToFileURL(join(packageFolder(), 'src', 'index.js')).href;
  const script = `
    import { createRequire } from 'node:module';
    let threads = 0;
    process.on('worker', () => { threads += 1; });
    const { runMigrations } = await import('${index}');
    const { applied } = await runMigrations();
    const { cache } = createRequire('${index}');
    const loaded = (name) => Object.keys(cache).some((path) => path.includes('/node_modules/' + name + '/'));
    console.log(JSON.stringify({ applied: applied.length, threads, pg: loaded('pg'), graphileMigrate: loaded('graphile-migrate') }));
  `;
  const { stdout, stderr } = await collect(
    spawn(process.execPath, ['--input-type=module', '--eval', script], {
      cwd: packageFolder(),
      env: { PATH: process.env.PATH, DATABASE_URL: url },
      stdio: ['ignore', 'pipe', 'pipe'],
    }),
  );
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

test('with nothing pending no thread is started, and graphile-migrate is not loaded', async () => {
  expect(await runInProcess(database().url)).toEqual({
    applied: 0,
    threads: 0,
    pg: true,
    graphileMigrate: false,
  });
});

test('with something pending a thread is started, and graphile-migrate is loaded only in the thread', async () => {
  const empty = await createDatabase('empty');
  try {
    expect(await runInProcess(empty.url)).toEqual({
      applied: committedMigrations().length,
      threads: 1,
      pg: true,
      graphileMigrate: false,
    });
  } finally {
    await empty.drop();
  }
});
