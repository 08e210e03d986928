import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MODEL_FILE } from '../src/catalog/committed-model.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { packageFolder } from './compiled.ts';

/** A copy of this package that a test may damage. */
export interface PackageCopy {
  readonly folder: string;
  /** Adds a committed migration with a valid hash, and returns its file name. */
  addMigration(name: string, sql: string): string;
  /** Replaces the SQL of a committed migration, and updates its hash. */
  rewriteMigration(filename: string, sql: string): void;
  /** Removes the last committed migration, and sets the model's header to the one before: the previous version. */
  removeLastMigration(): void;
  /** Sets the header of the model to a committed migration, for one that does not change the model. */
  modelIsOf(filename: string): void;
  remove(): void;
}

export interface CopyOptions {
  /** Top entries of node_modules to leave out. */
  readonly without?: readonly string[];
  /** Copy only these entries, and no node_modules: for code that reads the files without running them. */
  readonly only?: readonly string[];
  /** Copy the TypeScript of the checkout, for tests that compile or run it. */
  readonly sources?: boolean;
}

const COPIED = [
  'src',
  'dev',
  'migrations',
  'schema',
  '.gmrc',
  '.squawk.toml',
  'README.md',
  'CHANGELOG.md',
  'package.json',
];
const COMPILED = ['src', 'dev'];
const COMPILED_FROM = ['examples', 'tsconfig.json', 'tsconfig.build.json'];

/** Copies the package, with links to `node_modules`. The name of the folder contains a space. */
export function copyPackage({ without = [], only, sources = false }: CopyOptions = {}): PackageCopy {
  const parent = realpathSync(mkdtempSync(join(tmpdir(), 'filestore ')));
  // mkdtemp makes it private. Like a checkout it must be readable, so that `nobody` can run the server in it.
  chmodSync(parent, 0o755);
  const folder = join(parent, 'the package');
  mkdirSync(folder);
  const from = sources ? PACKAGE_ROOT : packageFolder();
  for (const entry of only ?? (sources ? [...COPIED, ...COMPILED_FROM] : COPIED)) {
    if (!sources && COMPILED.includes(entry)) linkFolder(join(from, entry), join(folder, entry));
    else cpSync(join(from, entry), join(folder, entry), { recursive: true });
  }
  if (only === undefined) linkModules(folder, without);
  const committed = join(folder, 'migrations', 'committed');
  const headerOf = (filename: string, name: 'Hash' | 'Previous') =>
    new RegExp(`^--! ${name}: (.*)$`, 'm').exec(readFileSync(join(committed, filename), 'utf8'))?.[1] ?? '-';
  const write = (filename: string, previous: string, sql: string) => {
    const hash = createHash('sha1').update(`${previous}\n${sql.trim()}\n`).digest('hex');
    writeFileSync(
      join(committed, filename),
      `--! Previous: ${previous}\n--! Hash: sha1:${hash}\n\n${sql.trim()}\n`,
    );
  };
  const modelIsOf = (filename: string) => {
    const model = join(folder, MODEL_FILE);
    const text = readFileSync(model, 'utf8');
    writeFileSync(
      model,
      text.replace(
        /^# After migration: .*$/m,
        `# After migration: ${filename} ${headerOf(filename, 'Hash')}`,
      ),
    );
  };
  return {
    folder,
    addMigration(name, sql) {
      const files = readdirSync(committed).sort();
      const filename = `${String(files.length + 1).padStart(6, '0')}-${name}.sql`;
      write(filename, headerOf(files.at(-1) ?? '', 'Hash'), sql);
      return filename;
    },
    rewriteMigration(filename, sql) {
      write(filename, headerOf(filename, 'Previous'), sql);
    },
    removeLastMigration() {
      const [before = '', last = ''] = readdirSync(committed).sort().slice(-2);
      rmSync(join(committed, last));
      modelIsOf(before);
    },
    modelIsOf,
    remove: () => rmSync(parent, { recursive: true, force: true }),
  };
}

/** Links compiled code, which takes a third of the time and is not changed in a copy, and copies other files. */
function linkFolder(from: string, to: string): void {
  mkdirSync(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) linkFolder(source, target);
    else if (/\.m?js$/.test(entry.name)) linkSync(source, target);
    else copyFileSync(source, target);
  }
}

function linkModules(folder: string, without: readonly string[]): void {
  if (without.length === 0) {
    symlinkSync(join(PACKAGE_ROOT, 'node_modules'), join(folder, 'node_modules'));
    return;
  }
  mkdirSync(join(folder, 'node_modules'));
  for (const entry of readdirSync(join(PACKAGE_ROOT, 'node_modules'))) {
    if (without.includes(entry)) continue;
    symlinkSync(join(PACKAGE_ROOT, 'node_modules', entry), join(folder, 'node_modules', entry));
  }
}
