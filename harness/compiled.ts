import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../src/package-root.ts';

/** The variable with the folder of the compiled package. Processes that tests start inherit it. */
const VARIABLE = 'FILESTORE_TEST_COMPILED';

/** The files of the package besides its code. */
const FILES = [
  'migrations',
  'schema',
  'src/sql',
  '.gmrc',
  '.squawk.toml',
  'README.md',
  'CHANGELOG.md',
  'package.json',
];

/**
 * Compiles the package once per run of the tests. They start hundreds of processes, and JavaScript starts in a third of
 * the time that tsx takes.
 */
export async function compilePackage(): Promise<{ remove(): void }> {
  const parent = realpathSync(mkdtempSync(join(tmpdir(), 'filestore-compiled-')));
  // A server that runs as another account reads its binaries in this folder.
  await chmod(parent, 0o755);
  const folder = join(parent, 'package');
  const compiler = join(PACKAGE_ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  // `npm run typecheck` checks the types.
  const options = ['--noEmit', 'false', '--noCheck', '--rootDir', PACKAGE_ROOT, '--outDir', folder];
  // The compiler prints its errors to stdout.
  execFileSync(process.execPath, [compiler, '-p', join(PACKAGE_ROOT, 'tsconfig.json'), ...options], {
    stdio: ['ignore', process.stderr, process.stderr],
  });
  for (const file of FILES) cpSync(join(PACKAGE_ROOT, file), join(folder, file), { recursive: true });
  symlinkSync(join(PACKAGE_ROOT, 'node_modules'), join(folder, 'node_modules'));
  process.env[VARIABLE] = folder;
  return { remove: () => rmSync(parent, { recursive: true, force: true }) };
}

/** The folder of the package that tests run and copy: the compiled one, or outside a run of the tests the checkout. */
export function packageFolder(): string {
  return process.env[VARIABLE] ?? PACKAGE_ROOT;
}

/** Arguments for Node.js that start a module in a package's folder, compiled or as TypeScript. */
export function startOf(folder: string, ...path: readonly string[]): readonly string[] {
  const module = join(folder, ...path);
  return existsSync(`${module}.js`) ? [`${module}.js`] : ['--import', 'tsx', `${module}.ts`];
}
