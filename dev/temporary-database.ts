import { RunAbortedError } from '../src/errors.ts';
import { serverAccount } from './embedded/account.ts';
import { findEmbeddedBinaries } from './embedded/binaries.ts';
import { serverUrl, startServer } from './embedded/server.ts';
import { makeServerFolder } from './embedded/server-folder.ts';

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
  const account = serverAccount();
  const folder = await makeServerFolder(account, 'fs-model-');
  try {
    const server = await startServer({
      binaries: binaries ?? (await findEmbeddedBinaries(account, folder.path)),
      folder: folder.path,
      account,
      listen: folder.listen,
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
    await folder.remove();
  }
}
