import { setTimeout as delay } from 'node:timers/promises';
import {
  freePort,
  type Listen,
  type Server,
  serverUrl,
  startServer,
} from '../../../src/testing/embedded/server.ts';
import { makeServerFolder, type ServerFolder } from '../../../src/testing/embedded/server-folder.ts';
import { findBinaries, SERVER_FOLDER_PREFIX } from './test-server.ts';

/** A separate server of one test, which it may shut down, kill and restart with the same data and address. */
export interface OwnServer {
  /** URL of the database `postgres`, as the superuser. */
  readonly url: string;
  /** 127.0.0.1, or the folder of the socket. */
  readonly host: string;
  readonly port: number;
  /** The process id of the postmaster; undefined while it is down. */
  readonly pid: number | undefined;
  /** The folder of its files. Its postgres.log is overwritten at each start. */
  readonly folder: string;
  readonly settings: readonly string[];
  shutDown(how: Shutdown): Promise<void>;
  start(): Promise<void>;
  restart(how: Shutdown): Promise<void>;
  /** Stops it and removes its files. */
  stop(): Promise<void>;
}

/** `fast` shuts it down in order. After `immediate` and `kill` it recovers from its log. `kill` leaves its backends running. */
export type Shutdown = 'fast' | 'immediate' | 'kill';

export interface OwnServerOptions {
  /** Server settings, such as `max_connections=20`. */
  readonly settings?: readonly string[];
  /** Default: socket. */
  readonly listen?: Listen['kind'];
  /** Called with the server's folder before its first start, which creates the data directory if it is missing. */
  readonly prepare?: (folder: string) => Promise<void>;
}

const SIGNALS = { fast: 'SIGINT', immediate: 'SIGQUIT', kill: 'SIGKILL' } as const;

/** Without fsync, since the machine does not crash. Commits are still written, unlike with synchronous_commit=off. */
const FAST = ['fsync=off', 'full_page_writes=off'];

const PATIENCE_MS = 60_000;

export async function startOwnServer(options: OwnServerOptions = {}): Promise<OwnServer> {
  const folder = makeServerFolder(SERVER_FOLDER_PREFIX);
  const settings = [...FAST, ...(options.settings ?? [])];
  try {
    await options.prepare?.(folder.path);
    const binaries = await findBinaries(folder.path);
    const start = (listen: Listen) =>
      startServer({ binaries, folder: folder.path, listen, temporary: true, settings });
    const server = await startSomewhere(options.listen ?? 'socket', folder, start);
    return ownServer(folder, settings, server, () => start(server.listen));
  } catch (error) {
    await folder.remove();
    throw error;
  }
}

function ownServer(
  folder: ServerFolder,
  settings: readonly string[],
  first: Server,
  startAgain: () => Promise<Server>,
): OwnServer {
  const { listen } = first;
  let server: Server | undefined = first;

  const shutDown = async (how: Shutdown) => {
    if (server === undefined) throw new Error('the server is already down');
    process.kill(server.pid, SIGNALS[how]);
    await untilEnded(server);
    server = undefined;
  };
  const start = async () => {
    if (server !== undefined) throw new Error('the server is already up');
    server = await patiently(startAgain);
  };
  return {
    url: serverUrl(listen, first.password, 'postgres'),
    host: listen.kind === 'tcp' ? '127.0.0.1' : listen.folder,
    port: listen.port,
    get pid() {
      return server?.pid;
    },
    folder: folder.path,
    settings,
    shutDown,
    start,
    async restart(how) {
      await shutDown(how);
      await start();
    },
    async stop() {
      await server?.stop();
      server = undefined;
      await folder.remove();
    },
  };
}

async function startSomewhere(
  kind: Listen['kind'],
  folder: ServerFolder,
  start: (listen: Listen) => Promise<Server>,
): Promise<Server> {
  if (kind === 'socket') return start(folder.listen);
  const attempt = async () => start({ kind, port: await freePort(0) });
  // Another process may take a free port before the server uses it.
  return attempt().catch(attempt);
}

/** Keeps this process alive while it waits; the server's process does not. */
async function untilEnded(server: Server): Promise<void> {
  const keepAlive = setInterval(() => undefined, 1000);
  await server.ended;
  clearInterval(keepAlive);
}

/** A server does not start while backends of the killed one still use its shared memory. */
async function patiently(start: () => Promise<Server>): Promise<Server> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await start();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await delay(50);
    }
  }
}
