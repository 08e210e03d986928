import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

/** File names of the migrations that a folder of the package holds, in their order. */
export function committedMigrations(folder: string = PACKAGE_ROOT): readonly string[] {
  return readdirSync(join(folder, 'migrations', 'committed')).sort();
}

/** The number that a migration's file name begins with, as it is written there. */
export function migrationNumber(filename: string): string {
  return filename.slice(0, 6);
}
