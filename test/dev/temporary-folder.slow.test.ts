import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { identityOf, makeFolderFor, serverAccount } from '../../dev/embedded/account.ts';
import { serverIsAlive } from '../../dev/embedded/server-data.ts';
import { makeTemporaryFolder } from '../../dev/temporary-folder.ts';
import { packageFolder, startOf } from '../../harness/compiled.ts';
import { abandonFolder } from '../support/abandoned-folder.ts';
import { until } from '../support/until.ts';

const asRoot = process.getuid?.() === 0;
if (!asRoot) console.warn('Not root: the tests of what another account can do to root are skipped.');

const SECRET = 'readable and writable by root only';

/** The test's replacement for the system's temporary folder. */
let temporary: string;
/** A folder that belongs to root, with one file. */
let closed: string;
let running: ChildProcess[];

beforeEach(() => {
  // A short name, since the path of a Unix socket has at most about a hundred bytes.
  temporary = mkdtempSync(join(tmpdir(), 'fst-'));
  chmodSync(temporary, 0o1777);
  closed = mkdtempSync(join(tmpdir(), 'fsc-'));
  writeFileSync(join(closed, 'file'), SECRET, { mode: 0o600 });
  running = [];
});
afterEach(async () => {
  for (const child of running) child.kill('SIGKILL');
  await until(() => serverFolders().every((folder) => !serverIsAlive(folder)));
  for (const folder of [temporary, closed]) rmSync(folder, { recursive: true, force: true });
});

const asServer = { ...identityOf(serverAccount()), cwd: '/' };

const serverFolders = () =>
  readdirSync(temporary)
    .filter((name) => name.startsWith('fs-model-'))
    .map((name) => join(temporary, name));

/** Opens a temporary database in a separate process. */
async function open() {
  const child = spawn(
    process.execPath,
    startOf(packageFolder(), 'test', 'support', 'temporary-database-process'),
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
  const folder = dirname(new URL(url).searchParams.get('host') ?? '');
  return {
    folder,
    answers: () => answers(url),
    async close() {
      child.stdin.end();
      await ended;
    },
    async kill() {
      child.kill('SIGKILL');
      await ended;
      await until(() => !serverIsAlive(folder));
    },
  };
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client(url);
  await client.connect();
  await client.end();
  return true;
}

describe('the folder of a temporary server', () => {
  test('is removed with everything in it', async () => {
    const database = await open();
    expect(await database.answers()).toBe(true);
    await database.close();
    expect(existsSync(database.folder)).toBe(false);
  });

  test('is removed by the next run after kill -9, and the folder of an active run stays', async () => {
    const [killed, atWork] = await Promise.all([open(), open()]);
    await killed.kill();
    expect(existsSync(killed.folder)).toBe(true);
    const next = await open();
    expect(existsSync(killed.folder)).toBe(false);
    for (const one of [atWork, next]) expect(await one.answers()).toBe(true);
    await Promise.all([atWork.close(), next.close()]);
    expect(serverFolders()).toEqual([]);
  });

  test('stays when nothing proves that its owner has ended, whatever its name', async () => {
    const folder = join(temporary, 'fs-model-notes');
    mkdirSync(folder);
    writeFileSync(join(folder, 'owner'), 'not a socket');
    await makeAnother();
    expect(readdirSync(folder)).toEqual(['owner']);
  });

  test('is not removed through a link', async () => {
    await abandonFolder(join(closed, 'abandoned'));
    symlinkSync(join(closed, 'abandoned'), join(temporary, 'fs-model-link'));
    await makeAnother();
    expect(readdirSync(join(closed, 'abandoned'))).toEqual(['owner']);
    expect(readdirSync(temporary)).toEqual(['fs-model-link']);
  });

  test('is removed without following links in it', async () => {
    const folder = join(temporary, 'fs-model-abandoned');
    await abandonFolder(folder);
    symlinkSync(closed, join(folder, 'link'));
    makeFolderFor(serverAccount(), join(folder, 'data'));
    execFileSync('ln', ['-s', closed, join(folder, 'data', 'link')], asServer);
    await makeAnother();
    expect(readdirSync(temporary)).toEqual([]);
    expect(readFileSync(join(closed, 'file'), 'utf8')).toBe(SECRET);
  });

  async function makeAnother(): Promise<void> {
    await (await makeTemporaryFolder(temporary, 'fs-model-')).remove();
  }
});

describe.runIf(asRoot)('as root', () => {
  /** As `nobody`, creates links to root's file wherever possible in the folder of each new server. */
  function attack(): () => Promise<readonly string[]> {
    const script = `
      while sleep 0.01; do
        for server in "$0"/fs-model-*; do
          for folder in "$server" "$server/socket" "$server/server" "$server/server/data"; do
            [ -w "$folder" ] && [ ! -L "$folder/postgres.log" ] && ln -s "$1" "$folder/postgres.log" && echo "$folder"
          done
        done
      done`;
    const child = spawn('sh', ['-c', script, temporary, join(closed, 'file')], {
      ...asServer,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    running.push(child);
    let planted = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      planted += text;
    });
    return async () => {
      await until(() => planted.includes('data\n'));
      child.kill('SIGKILL');
      return planted.trim().split('\n');
    };
  }

  test('a link that another account plants is not followed', async () => {
    const stop = attack();
    const database = await open();
    const planted = await stop();
    expect(readFileSync(join(closed, 'file'), 'utf8')).toBe(SECRET);
    // The links could be created in the folders that the server itself writes to, and in no other.
    expect(planted).toEqual([join(database.folder, 'socket'), join(database.folder, 'server', 'data')]);
    await database.close();
    expect(existsSync(database.folder)).toBe(false);
    expect(readFileSync(join(closed, 'file'), 'utf8')).toBe(SECRET);
  });

  test('only the owner can read the log', async () => {
    const database = await open();
    const log = lstatSync(join(database.folder, 'postgres.log'));
    expect({ mode: log.mode & 0o777, uid: log.uid }).toEqual({ mode: 0o600, uid: 0 });
    await database.close();
  });

  test('no server is started in a folder that others can write to', async () => {
    const { startServer } = await import('../../dev/embedded/server.ts');
    const folder = join(temporary, 'open');
    mkdirSync(folder);
    chmodSync(folder, 0o777);
    await expect(
      startServer({
        binaries: '/none',
        folder,
        account: serverAccount(),
        listen: { kind: 'socket', folder, port: 5432 },
      }),
    ).rejects.toMatchObject({ code: 'EMBEDDED_POSTGRES_FAILED', message: expect.stringContaining(folder) });
    expect(readdirSync(folder)).toEqual([]);
  });
});
