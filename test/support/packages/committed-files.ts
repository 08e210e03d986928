import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../../src/package-root.ts';

/** File names of the migrations in a package's folder, in order. */
export function committedMigrations(folder: string = PACKAGE_ROOT): readonly string[] {
  return readdirSync(join(folder, 'migrations', 'committed')).sort();
}

/** The number at the beginning of a migration's file name, with its zeros. */
export function migrationNumber(filename: string): string {
  return filename.slice(0, 6);
}

/** The number of a migration after the last one. Offset 1 is the next one. */
export function numberAfterLast(distance: number): string {
  const last = Number(migrationNumber(committedMigrations().at(-1) ?? ''));
  return String(last + distance).padStart(6, '0');
}

/** The text of a committed migration. */
export function migrationText(filename: string): string {
  return readFileSync(join(PACKAGE_ROOT, 'migrations', 'committed', filename), 'utf8');
}

/** Whether a committed migration runs in a transaction. */
export function isTransactional(filename: string): boolean {
  return !/^--! no-transaction$/m.test(migrationText(filename));
}

/** The first committed migration whose text matches a pattern. */
export function migrationWith(pattern: RegExp): string {
  const found = committedMigrations().find((filename) => pattern.test(migrationText(filename)));
  if (found === undefined) throw new Error(`no committed migration matches ${pattern}`);
  return found;
}

/** The last committed migration of a package's folder: its file name, text and header. */
export function lastCommitted(folder: string) {
  const filename = committedMigrations(folder).at(-1) ?? '';
  const text = readFileSync(join(folder, 'migrations', 'committed', filename), 'utf8');
  const header = (name: string) => new RegExp(`^--! ${name}: (.*)$`, 'm').exec(text)?.[1];
  return { filename, text, hash: header('Hash'), previous: header('Previous'), message: header('Message') };
}

/** The texts of all SQL files in migrations/ of a package's folder, by their paths in it. */
export function migrationFiles(folder: string): Readonly<Record<string, string>> {
  const migrations = join(folder, 'migrations');
  const files = readdirSync(migrations, { recursive: true, encoding: 'utf8' }).filter((path) =>
    path.endsWith('.sql'),
  );
  return Object.fromEntries(files.map((path) => [path, readFileSync(join(migrations, path), 'utf8')]));
}
