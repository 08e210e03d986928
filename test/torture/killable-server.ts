import { setTimeout as delay } from 'node:timers/promises';
import { systemBinaries } from '../../harness/system-binaries.ts';
import { findEmbeddedBinaries } from '../../src/testing/embedded/binaries.ts';
import {
  type Server,
  type ServerOptions,
  serverUrl,
  startServer,
} from '../../src/testing/embedded/server.ts';
import { makeServerFolder } from '../../src/testing/embedded/server-folder.ts';
import { SERVER_FOLDER_PREFIX } from '../support/servers/test-server.ts';

/** A separate server that the run may kill. Unlike the tests' server, it writes durably. */
export interface TortureServer {
  readonly adminUrl: string;
  readonly password: string;
  /** Kills the postmaster with SIGKILL, so that it cannot shut down in order. */
  kill(): Promise<void>;
  /** Starts it again on the same data. It recovers from its log. */
  restart(): Promise<void>;
  /** Stops it and removes its files. */
  remove(): Promise<void>;
}

const SETTINGS = ['max_connections=200', 'deadlock_timeout=200ms', 'statement_timeout=60s'];

export async function startTortureServer(): Promise<TortureServer> {
  const folder = makeServerFolder(SERVER_FOLDER_PREFIX);
  try {
    const options: ServerOptions = {
      binaries: await findBinaries(folder.path),
      folder: folder.path,
      listen: folder.listen,
      temporary: true,
      settings: SETTINGS,
    };
    let server = await startServer(options);
    return {
      adminUrl: serverUrl(server.listen, server.password, 'postgres'),
      password: server.password,
      async kill() {
        process.kill(server.pid, 'SIGKILL');
        await untilEnded(server);
      },
      async restart() {
        server = await untilStarted(() => startServer(options));
      },
      async remove() {
        await server.stop();
        await folder.remove();
      },
    };
  } catch (error) {
    await folder.remove();
    throw error;
  }
}

/** Keeps this process alive while it waits; the server's process does not. */
async function untilEnded(server: Server): Promise<void> {
  const keepAlive = setInterval(() => undefined, 1000);
  await server.ended;
  clearInterval(keepAlive);
}

/** A server does not start while processes of the killed one still use its shared memory. */
async function untilStarted(start: () => Promise<Server>): Promise<Server> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    try {
      return await start();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await delay(100);
    }
  }
}

async function findBinaries(folder: string): Promise<string> {
  return process.env.TEST_POSTGRES === 'system' ? systemBinaries(process.env) : findEmbeddedBinaries(folder);
}
