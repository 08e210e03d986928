import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCode } from '../../src/errors.ts';
import { type CommittedMigration, readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';

/** Names of the files of migrations/committed, in order. */
export async function committedFiles(migrationsFolder: string): Promise<readonly string[]> {
  return (await readdir(join(migrationsFolder, 'committed')).catch(() => [])).sort();
}

/**
 * The committed migrations. In development there may be none, since the first one can be uncommitted.
 * @throws {MigrationsInvalidError} with the name of the invalid file.
 */
export async function readMigrations(): Promise<readonly CommittedMigration[]> {
  return readCommittedMigrations(MIGRATIONS_FOLDER).catch((error) => {
    if (hasCode(error, 'MIGRATIONS_MISSING')) return [];
    throw error;
  });
}
