import { RunAbortedError } from '../../src/errors.ts';
import { startTemporaryServer } from '../../src/testing/embedded/temporary-server.ts';

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
  const server = await startTemporaryServer({ prefix: 'fs-model-' });
  const stop = () => void server.stop();
  signal?.addEventListener('abort', stop);
  try {
    signal?.throwIfAborted();
    return await work(server.url);
  } catch (error) {
    // Other errors are consequences of the stop.
    throw signal?.aborted ? new RunAbortedError('Stopped on request. Nothing was written.', []) : error;
  } finally {
    signal?.removeEventListener('abort', stop);
    await server.stop();
  }
}
