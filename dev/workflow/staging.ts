import { cp, readdir, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { makeTemporaryFolder } from '../temporary-folder.ts';

/**
 * A copy of migrations/ for graphile-migrate to commit and uncommit in. In the folder itself it writes a file first and
 * tries it afterwards: watching would apply it meanwhile, and a failure or a kill would leave current.sql with its
 * includes written out.
 */
export interface Staging {
  /** Where the copy is; there is none before the first refresh. */
  readonly folder: string;
  /** Makes the copy anew. */
  refresh(): Promise<void>;
}

export async function withStaging<T>(work: (staging: Staging) => Promise<T>): Promise<T> {
  const parent = await makeTemporaryFolder(tmpdir(), 'filestore-migrations-');
  const folder = join(await realpath(parent.path), 'migrations');
  try {
    return await work({
      folder,
      async refresh() {
        await rm(folder, { recursive: true, force: true });
        await cp(MIGRATIONS_FOLDER, folder, { recursive: true });
      },
    });
  } finally {
    await parent.remove();
  }
}

export async function committedFiles(migrationsFolder: string): Promise<readonly string[]> {
  return (await readdir(join(migrationsFolder, 'committed')).catch(() => [])).sort();
}
