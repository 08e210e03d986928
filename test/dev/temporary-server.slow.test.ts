import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { serverIsAlive } from '../../dev/embedded/kept-data.ts';
import { packageFolder, startOf } from '../../harness/compiled.ts';
import { serverAccount } from '../../src/testing/embedded/account.ts';
import { until } from '../support/until.ts';

/** The test's replacement for the system's temporary folder. */
let temporary: string;
let running: ChildProcess[];

beforeEach(() => {
  // A short name, since the path of a Unix socket has at most about a hundred bytes.
  temporary = mkdtempSync(join(tmpdir(), 'fst-'));
  chmodSync(temporary, 0o1777);
  running = [];
});
afterEach(async () => {
  for (const child of running) child.kill('SIGKILL');
  await until(() => serverFolders().every((folder) => !serverIsAlive(folder)));
  rmSync(temporary, { recursive: true, force: true, maxRetries: 10 });
});

const serverFolders = () => readdirSync(temporary).map((name) => join(temporary, name));

/** Opens a temporary database in a separate process. */
async function open() {
  const child = spawn(
    process.execPath,
    startOf(packageFolder(), 'test', 'support', 'processes', 'temporary-database-process'),
    {
      cwd: packageFolder(),
      env: { PATH: process.env.PATH, HOME: process.env.HOME, TMPDIR: temporary },
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  running.push(child);
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => resolve(text.trim()));
    child.once('exit', (code) => reject(new Error(`the process ended with ${code}`)));
  });
  return {
    folder: new URL(url).searchParams.get('host') ?? '',
    answers: () => answers(url),
    async close() {
      child.stdin.end();
      await ended;
    },
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client(url);
  await client.connect();
  await client.end();
  return true;
}

test('the folder of a temporary server is removed with everything in it', async () => {
  const database = await open();
  expect(await database.answers()).toBe(true);
  const log = lstatSync(join(database.folder, 'postgres.log'));
  expect(log.mode & 0o777, 'only the owner can read the log').toBe(0o600);
  await database.close();
  expect(serverFolders()).toEqual([]);
});

test('a temporary server and its folder end with a process that is killed, and others go on', async () => {
  const [killed, atWork] = await Promise.all([open(), open()]);
  await killed.kill();
  await until(() => !existsSync(killed.folder));
  expect(await atWork.answers()).toBe(true);
  await atWork.close();
  expect(serverFolders()).toEqual([]);
});

test('a link in the folder of a temporary server is removed without what it leads to', async () => {
  const kept = mkdtempSync(join(tmpdir(), 'fsk-'));
  try {
    writeFileSync(join(kept, 'file'), 'kept');
    chmodSync(kept, 0o777);
    const [killed, closed] = await Promise.all([open(), open()]);
    for (const { folder } of [killed, closed]) {
      execFileSync('ln', ['-s', kept, join(folder, 'server', 'data', 'link')], {
        ...serverAccount(),
        cwd: '/',
      });
    }
    await Promise.all([killed.kill(), closed.close()]);
    await until(() => serverFolders().length === 0);
    expect(readFileSync(join(kept, 'file'), 'utf8')).toBe('kept');
  } finally {
    rmSync(kept, { recursive: true });
  }
});
