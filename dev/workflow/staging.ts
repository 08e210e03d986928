import { cp, mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';

/**
 * A copy of migrations/ in which graphile-migrate commits. In the folder itself, it would write a file
 * before running it: a watch would apply that file, and a failure or a kill would leave current.sql with expanded
 * includes.
 */
export interface Staging {
  /** Folder of the copy; it does not exist before the first refresh. */
  readonly folder: string;
  /** Recreates the copy. */
  refresh(): Promise<void>;
}

export async function withStaging<T>(work: (staging: Staging) => Promise<T>): Promise<T> {
  const parent = await realpath(await mkdtemp(join(tmpdir(), 'filestore-migrations-')));
  const folder = join(parent, 'migrations');
  try {
    return await work({
      folder,
      async refresh() {
        await rm(folder, { recursive: true, force: true });
        // Otherwise graphile-migrate would write to the originals through links.
        await cp(MIGRATIONS_FOLDER, folder, { recursive: true, dereference: true });
      },
    });
  } finally {
    await rm(parent, { recursive: true, force: true });
  }
}
