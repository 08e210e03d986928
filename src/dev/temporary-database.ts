import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeFolderFor, serverAccount } from './embedded/account.ts';
import { findEmbeddedBinaries } from './embedded/binaries.ts';
import { serverUrl, startServer } from './embedded/server.ts';

/** Nothing outlives the run. */
const FAST = ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off'];

/**
 * Runs `work` with a server of its own, so that nobody's database is touched, and that it is the same everywhere.
 * @param work is given the URL of an empty database, as a superuser.
 * @param binaries Folder of initdb and postgres; default: the embedded ones.
 */
export async function withTemporaryDatabase<T>(
  work: (url: string) => Promise<T>,
  binaries?: string,
): Promise<T> {
  // Short: the path of a Unix socket has room for about a hundred bytes.
  const folder = mkdtempSync(join(tmpdir(), 'fs-model-'));
  try {
    const account = serverAccount();
    makeFolderFor(account, folder);
    const server = await startServer({
      binaries: binaries ?? (await findEmbeddedBinaries(account, folder)),
      folder,
      account,
      listen: { kind: 'socket', folder, port: 5432 },
      settings: FAST,
    });
    try {
      return await work(serverUrl(server.listen, server.password, 'postgres'));
    } finally {
      await server.stop();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
