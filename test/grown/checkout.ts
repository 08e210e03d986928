import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, symlinkSync } from 'node:fs';
import { lstat, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { serverIsAlive } from '../../dev/embedded/kept-data.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { runCommand } from './commands.ts';

/** A copy of the checkout with a separate git repository. */
export interface Checkout {
  readonly folder: string;
  readonly files: number;
  /** Runs a command in the copy. */
  run(command: readonly string[], options?: { readonly shown?: boolean }): Promise<string>;
  /** Commits all changes in the copy to its repository. */
  record(message: string): Promise<void>;
  /** Waits until no server runs in the copy, and removes it. */
  remove(): Promise<void>;
}

/** How long a server may take to shut down. */
const PATIENCE_MS = 30_000;

/** Variables that point to other databases or repositories. TEST_POSTGRES and similar ones are passed on. */
const NOT_PASSED_ON = /^(?:(?:SHADOW_|ROOT_)?DATABASE_URL|FILESTORE_.*|GIT_.*|npm_.*|NODE_ENV)$/i;

/** Copies the work tree, with uncommitted changes and new files, and without the files that git ignores. */
export async function copyCheckout(signal: AbortSignal): Promise<Checkout> {
  const files = await listFiles(signal);
  const parent = realpathSync(mkdtempSync(join(tmpdir(), 'fs-grown-')));
  try {
    const folder = join(parent, 'checkout');
    // Temporary files go here, so that a killed command leaves none behind. The name is short for the sockets of servers.
    const temporary = join(parent, 't');
    for (const made of [folder, temporary]) mkdirSync(made);
    // The account that runs the servers has to reach them.
    chmodSync(parent, 0o755);
    chmodSync(temporary, 0o1777);
    for (const file of files) {
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      cpSync(join(PACKAGE_ROOT, file), join(folder, file), { verbatimSymlinks: true });
    }
    linkModules(folder);
    const env = { ...environment(), TMPDIR: temporary };
    const run: Checkout['run'] = (command, options) =>
      runCommand(command, { cwd: folder, env, signal, ...options });
    const record = async (message: string) => {
      await run(['git', 'add', '--all']);
      await run(['git', 'commit', '--quiet', '--message', message]);
    };
    await run(['git', 'init', '--quiet']);
    await record('The checkout');
    return { folder, files: files.length, run, record, remove: () => remove(parent) };
  } catch (error) {
    await remove(parent);
    throw error;
  }
}

async function listFiles(signal: AbortSignal): Promise<readonly string[]> {
  const list = async (...which: readonly string[]) => {
    const command = ['git', 'ls-files', '-z', ...which];
    const output = await runCommand(command, { cwd: PACKAGE_ROOT, env: environment(), signal });
    return output.split('\0').filter((file) => file !== '');
  };
  const deleted = new Set(await list('--deleted'));
  return (await list('--cached', '--others', '--exclude-standard')).filter((file) => !deleted.has(file));
}

function environment(): NodeJS.ProcessEnv {
  const person = (role: string) => ({
    [`GIT_${role}_NAME`]: 'Grown',
    [`GIT_${role}_EMAIL`]: 'grown@example.com',
  });
  return {
    ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !NOT_PASSED_ON.test(name))),
    // Without the user's git hooks and signatures.
    GIT_CONFIG_GLOBAL: '/dev/null',
    ...person('AUTHOR'),
    ...person('COMMITTER'),
  };
}

/** One link per entry, since node_modules itself must be a folder for .gitignore and for the caches of tools. */
function linkModules(folder: string): void {
  mkdirSync(join(folder, 'node_modules'));
  for (const entry of readdirSync(join(PACKAGE_ROOT, 'node_modules'))) {
    if (entry.startsWith('.vite')) continue;
    symlinkSync(join(PACKAGE_ROOT, 'node_modules', entry), join(folder, 'node_modules', entry));
  }
}

async function remove(parent: string): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  const servers = await findServers(parent);
  while (servers.some(serverIsAlive)) {
    if (Date.now() > deadline)
      throw new Error(`A server still runs in ${parent}. Stop it and remove the folder.`);
    await delay(50);
  }
  await rm(parent, { recursive: true, force: true, maxRetries: 10 });
}

/** The folders below this one with files of a server. */
async function findServers(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const below = entries.filter((entry) => entry.isDirectory() && entry.name !== 'node_modules');
  const found = await Promise.all(below.map(({ name }) => findServers(join(folder, name))));
  const here = await lstat(join(folder, 'server', 'data')).catch(() => undefined);
  return [...(here === undefined ? [] : [folder]), ...found.flat()];
}
