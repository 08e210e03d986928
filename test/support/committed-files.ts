import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

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

/** The first committed migration whose text holds a pattern. */
export function migrationWith(pattern: RegExp): string {
  const found = committedMigrations().find((filename) => pattern.test(migrationText(filename)));
  if (found === undefined) throw new Error(`no committed migration holds ${pattern}`);
  return found;
}
