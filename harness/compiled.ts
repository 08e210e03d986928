import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../src/package-root.ts';

/** Where the run's compiled package is; processes that the tests start inherit the variable. */
const VARIABLE = 'FILESTORE_TEST_COMPILED';

/** What the package is next to its code. */
const FILES = ['migrations', 'schema', 'src/sql', '.gmrc', '.squawk.toml', 'README.md', 'package.json'];

/**
 * Compiles the package once for a run of the tests. They start hundreds of processes, and Node.js starts JavaScript
 * in a third of the time that it takes through tsx.
 */
export async function compilePackage(): Promise<{ remove(): void }> {
  const parent = realpathSync(mkdtempSync(join(tmpdir(), 'filestore-compiled-')));
  // A server that runs as another account reads its binaries through this folder.
  await chmod(parent, 0o755);
  const folder = join(parent, 'package');
  const compiler = join(PACKAGE_ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  // `npm run typecheck` checks the types.
  const options = ['--noEmit', 'false', '--noCheck', '--rootDir', PACKAGE_ROOT, '--outDir', folder];
  // The compiler prints what it cannot parse to stdout.
  execFileSync(process.execPath, [compiler, '-p', join(PACKAGE_ROOT, 'tsconfig.json'), ...options], {
    stdio: ['ignore', process.stderr, process.stderr],
  });
  for (const file of FILES) cpSync(join(PACKAGE_ROOT, file), join(folder, file), { recursive: true });
  symlinkSync(join(PACKAGE_ROOT, 'node_modules'), join(folder, 'node_modules'));
  process.env[VARIABLE] = folder;
  return { remove: () => rmSync(parent, { recursive: true, force: true }) };
}

/** Folder of the package that tests run and copy: the compiled one, and outside a run of the tests the checkout. */
export function packageFolder(): string {
  return process.env[VARIABLE] ?? PACKAGE_ROOT;
}

/** Arguments for Node.js that start a module of a package's folder, whichever of its two forms is there. */
export function startOf(folder: string, ...path: readonly string[]): readonly string[] {
  const module = join(folder, ...path);
  return existsSync(`${module}.js`) ? [`${module}.js`] : ['--import', 'tsx', `${module}.ts`];
}
