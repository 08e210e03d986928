import { setTimeout as delay } from 'node:timers/promises';
import { serverAccount } from '../../dev/embedded/account.ts';
import { freePort, type Listen, type Server, serverUrl, startServer } from '../../dev/embedded/server.ts';
import { makeServerFolder, type ServerFolder } from '../../dev/embedded/server-folder.ts';
import { findBinaries, SERVER_FOLDER_PREFIX } from './test-server.ts';

/** A server of one test's own, which it may shut down, kill and start again on the same data and address. */
export interface OwnServer {
  /** URL of the database `postgres`, as the superuser. */
  readonly url: string;
  /** 127.0.0.1, or the folder of the socket. */
  readonly host: string;
  readonly port: number;
  /** Of the postmaster; undefined while it is down. */
  readonly pid: number | undefined;
  /** Where its files are, among them postgres.log, which begins anew with each start. */
  readonly folder: string;
  readonly settings: readonly string[];
  shutDown(how: Shutdown): Promise<void>;
  start(): Promise<void>;
  restart(how: Shutdown): Promise<void>;
  /** Ends it for good and removes its files. */
  stop(): Promise<void>;
}

/** `fast` ends it in order; after `immediate` and `kill` it recovers from its log, and `kill` orphans its backends. */
export type Shutdown = 'fast' | 'immediate' | 'kill';

export interface OwnServerOptions {
  /** Server settings, such as `max_connections=20`. */
  readonly settings?: readonly string[];
  /** Default: socket. */
  readonly listen?: Listen['kind'];
  /** Called with the server's folder before its first start, which makes the data where this did not. */
  readonly prepare?: (folder: string) => Promise<void>;
}

const SIGNALS = { fast: 'SIGINT', immediate: 'SIGQUIT', kill: 'SIGKILL' } as const;

/** The machine does not crash, so that what was written stays; what was committed is written, unlike with synchronous_commit=off. */
const FAST = ['fsync=off', 'full_page_writes=off'];

const PATIENCE_MS = 60_000;

export async function startOwnServer(options: OwnServerOptions = {}): Promise<OwnServer> {
  const account = serverAccount();
  const folder = await makeServerFolder(account, SERVER_FOLDER_PREFIX);
  const settings = [...FAST, ...(options.settings ?? [])];
  try {
    await options.prepare?.(folder.path);
    const binaries = await findBinaries(folder.path);
    const start = (listen: Listen) =>
      startServer({ binaries, folder: folder.path, account, listen, settings });
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
    if (server === undefined) throw new Error('the server is down already');
    process.kill(server.pid, SIGNALS[how]);
    await untilEnded(server);
    server = undefined;
  };
  const start = async () => {
    if (server !== undefined) throw new Error('the server is up already');
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
  // A free port may be taken before the server uses it.
  return attempt().catch(attempt);
}

/** Keeps this process alive meanwhile, which the server's own process does not. */
async function untilEnded(server: Server): Promise<void> {
  const keepAlive = setInterval(() => undefined, 1000);
  await server.ended;
  clearInterval(keepAlive);
}

/** A server does not start while backends of the one that was killed still hold its shared memory. */
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
