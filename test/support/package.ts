import { createHash } from 'node:crypto';
import {
  cpSync,
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
import { PACKAGE_ROOT } from '../../src/package-root.ts';

/** A copy of this package that a test may spoil. */
export interface PackageCopy {
  readonly folder: string;
  /** Adds a committed migration with a true hash, and returns its file name. */
  addMigration(name: string, sql: string): string;
  remove(): void;
}

/** Copies the package; `node_modules` is shared by a link. The folder's name holds a space. */
export function copyPackage(): PackageCopy {
  const parent = realpathSync(mkdtempSync(join(tmpdir(), 'filestore ')));
  const folder = join(parent, 'the package');
  mkdirSync(folder);
  for (const entry of ['src', 'migrations', '.gmrc', '.squawk.toml', 'package.json', 'tsconfig.json']) {
    cpSync(join(PACKAGE_ROOT, entry), join(folder, entry), { recursive: true });
  }
  symlinkSync(join(PACKAGE_ROOT, 'node_modules'), join(folder, 'node_modules'));
  const committed = join(folder, 'migrations', 'committed');
  return {
    folder,
    addMigration(name, sql) {
      const files = readdirSync(committed).sort();
      const previous =
        /^--! Hash: (.*)$/m.exec(readFileSync(join(committed, files.at(-1) ?? ''), 'utf8'))?.[1] ?? '-';
      const hash = createHash('sha1').update(`${previous}\n${sql.trim()}\n`).digest('hex');
      const filename = `${String(files.length + 1).padStart(6, '0')}-${name}.sql`;
      writeFileSync(
        join(committed, filename),
        `--! Previous: ${previous}\n--! Hash: sha1:${hash}\n\n${sql.trim()}\n`,
      );
      return filename;
    },
    remove: () => rmSync(parent, { recursive: true, force: true }),
  };
}
