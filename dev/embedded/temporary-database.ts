import { RunAbortedError } from '../../src/errors.ts';
import { findEmbeddedBinaries } from './binaries.ts';
import { serverUrl, startServer } from './server.ts';
import { makeServerFolder } from './server-folder.ts';

/** Nothing remains after the run. */
const FAST = ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off'];

/**
 * Runs `work` with a separate server, so that it touches no other database and behaves the same everywhere.
 * @param work is given the URL of an empty database, as a superuser.
 * @param signal Stops the server during the work.
 * @throws {RunAbortedError} when the signal was aborted.
 */
export async function withTemporaryDatabase<T>(
  work: (url: string) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const folder = makeServerFolder('fs-model-');
  try {
    const server = await startServer({
      binaries: await findEmbeddedBinaries(folder.path),
      folder: folder.path,
      listen: folder.listen,
      temporary: true,
      settings: FAST,
    });
    const stop = () => void server.stop();
    signal?.addEventListener('abort', stop);
    try {
      signal?.throwIfAborted();
      return await work(serverUrl(server.listen, server.password, 'postgres'));
    } catch (error) {
      // Other errors are consequences of the stop.
      throw signal?.aborted ? new RunAbortedError('Stopped on request. Nothing was written.', []) : error;
    } finally {
      signal?.removeEventListener('abort', stop);
      await server.stop();
    }
  } finally {
    await folder.remove();
  }
}
