import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { PACKAGE_ROOT } from '../../../src/package-root.ts';

const execute = promisify(execFile);
const COMPILER = join(PACKAGE_ROOT, 'node_modules', 'typescript');

/** A service in whose folder the packed package is installed. */
export class PackedService {
  constructor(
    readonly folder: string,
    /** Paths of the packed files. */
    readonly contents: readonly string[],
  ) {}

  get packageFolder(): string {
    return join(this.folder, 'node_modules', '@apphub', 'filestore');
  }

  /** Runs a module of the service and returns what it printed. */
  async run(code: string, env: Readonly<Record<string, string>>): Promise<string> {
    writeFileSync(join(this.folder, 'service.js'), code);
    return this.runCompiled(env);
  }

  /** Runs the module that was compiled last. */
  async runCompiled(env: Readonly<Record<string, string>>): Promise<string> {
    const { stdout } = await this.runNode(['service.js'], env);
    return stdout.trim();
  }

  /** Runs Node.js in the folder of the service, with only these variables and PATH. */
  runNode(
    args: readonly string[],
    env: Readonly<Record<string, string>>,
  ): Promise<{ stdout: string; stderr: string }> {
    return execute(process.execPath, [...args], {
      cwd: this.folder,
      env: { PATH: process.env.PATH, ...env },
    });
  }

  /**
   * Compiles a module with the package's declarations, writes service.js, and returns the compiler's output.
   * @param flags Such as `--skipLibCheck`, for a library whose declarations have errors.
   */
  compile(code: string, flags = ''): Promise<string> {
    return this.#compileIn(
      this.folder,
      code,
      COMPILER,
      `--module nodenext --exactOptionalPropertyTypes ${flags}`,
    );
  }

  /**
   * The same for a module of a folder that is a CommonJS package. It writes commonjs/service.js.
   * @param compiler The folder of TypeScript. Default: that of this checkout.
   */
  compileCommonJs(code: string, flags: string, compiler = COMPILER): Promise<string> {
    const folder = join(this.folder, 'commonjs');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'package.json'), '{ "type": "commonjs" }');
    return this.#compileIn(folder, code, compiler, flags);
  }

  /** Installs a version of a library from the registry. */
  async useLibrary(name: string, version: string): Promise<void> {
    symlinkSync(await this.installLibrary(name, version), join(this.folder, 'node_modules', name));
  }

  /** Installs a version of a package from the registry next to the service, and returns its folder. */
  async installLibrary(name: string, version: string): Promise<string> {
    const prefix = join(this.folder, 'libraries', name);
    const flags = '--prefer-offline --ignore-scripts --legacy-peer-deps --no-audit --no-fund --silent'.split(
      ' ',
    );
    await execute('npm', ['install', '--prefix', prefix, ...flags, `${name}@${version}`]);
    return join(prefix, 'node_modules', name);
  }

  async #compileIn(folder: string, code: string, compiler: string, flags: string): Promise<string> {
    writeFileSync(join(folder, 'service.ts'), code);
    const all = `--strict --skipLibCheck false --target es2022 --types node ${flags} service.ts`;
    const { stdout } = await execute(process.execPath, [join(compiler, 'bin', 'tsc'), ...all.split(/ +/)], {
      cwd: folder,
    }).catch((error) => ({ stdout: `${error.stdout}${error.stderr}` }));
    return stdout;
  }
}

/**
 * Builds and packs the package of a checkout, and installs it in an empty folder without a network.
 * @param checkout Default: this one. It is not changed.
 */
export async function installPackage(
  folder: string,
  checkout: string = PACKAGE_ROOT,
): Promise<PackedService> {
  // Builds a copy, so that the checkout is not changed.
  const source = join(folder, 'source');
  cpSync(checkout, source, {
    recursive: true,
    filter: (path) => !/\/(node_modules|dist|\.git|\.postgres)$/.test(path),
  });
  symlinkSync(join(PACKAGE_ROOT, 'node_modules'), join(source, 'node_modules'));
  const { stdout } = await execute('npm', ['pack', '--json', '--silent', '--pack-destination', folder], {
    cwd: source,
  });
  const report = JSON.parse(
    stdout.slice(stdout.indexOf('[') === -1 ? stdout.indexOf('{') : stdout.indexOf('[')),
  );
  const [packed] = Object.values(report) as [{ filename: string; files: readonly { path: string }[] }];

  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, '@apphub'), { recursive: true });
  const tarball = readdirSync(folder).find((entry) => entry.endsWith('.tgz')) ?? '';
  await execute('tar', ['-xzf', join(folder, tarball), '-C', modules]);
  await execute('mv', [join(modules, 'package'), join(modules, '@apphub', 'filestore')]);
  // The dependencies that npm would install next to it, and the compiler for the tests.
  for (const name of ['graphile-migrate', 'pg', '@types', 'typescript']) {
    symlinkSync(join(PACKAGE_ROOT, 'node_modules', name), join(modules, name));
  }
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  return new PackedService(
    folder,
    packed.files.map(({ path }) => path),
  );
}
