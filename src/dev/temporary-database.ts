import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RunAbortedError } from '../errors.ts';
import { makeFolderFor, serverAccount } from './embedded/account.ts';
import { findEmbeddedBinaries } from './embedded/binaries.ts';
import { serverUrl, startServer } from './embedded/server.ts';

/** Nothing outlives the run. */
const FAST = ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off'];

/**
 * Runs `work` with a server of its own, so that nobody's database is touched, and that it is the same everywhere.
 * @param work is given the URL of an empty database, as a superuser.
 * @param binaries Folder of initdb and postgres; default: the embedded ones.
 * @param signal Takes the server from under the work.
 * @throws {RunAbortedError} when the signal came.
 */
export async function withTemporaryDatabase<T>(
  work: (url: string) => Promise<T>,
  binaries?: string,
  signal?: AbortSignal,
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
    const stop = () => void server.stop();
    signal?.addEventListener('abort', stop);
    try {
      signal?.throwIfAborted();
      return await work(serverUrl(server.listen, server.password, 'postgres'));
    } catch (error) {
      // Whatever else went wrong is a consequence.
      throw signal?.aborted ? new RunAbortedError('Stopped on request. Nothing was written.', []) : error;
    } finally {
      signal?.removeEventListener('abort', stop);
      await server.stop();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
