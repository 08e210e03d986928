import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FilestoreError } from '../../errors.ts';
import { withClient } from '../with-client.ts';
import { serverAccount } from './account.ts';
import { dataFolder, environment, initializeData, runningServer, SUPERUSER } from './server-data.ts';

/** Where a server listens: on 127.0.0.1, or on a Unix socket in a folder, and nowhere else. */
export type Listen =
  | { readonly kind: 'tcp'; readonly port: number }
  | { readonly kind: 'socket'; readonly folder: string; readonly port: number };

export interface ServerOptions {
  /** Folder with initdb and postgres. */
  readonly binaries: string;
  /** Folder for this server's files: server/data, server/password, postgres.log. */
  readonly folder: string;
  readonly listen: Listen;
  /** Whether the folder is removed if this process is killed. */
  readonly temporary: boolean;
  /** Server settings, such as `fsync=off`. */
  readonly settings?: readonly string[];
}

export interface Server {
  readonly listen: Listen;
  readonly password: string;
  /** Process id of the postmaster. */
  readonly pid: number;
  /** Resolves when the server has ended, for whatever reason. */
  readonly ended: Promise<void>;
  /** Ends it and all connections ("fast shutdown"). */
  stop(): Promise<void>;
}

const START_PATIENCE_MS = 60_000;

/**
 * Ends postgres when this process has ended, even by a kill: the shell starts a guard that waits until the pipe to this
 * process closes, and then becomes postgres. It removes a temporary folder, unless this process has written that it is still
 * there ("kept"). The pipe is descriptor 3: Node closes 0 when postgres ends, and a shell gives its background jobs
 * /dev/null as 0.
 */
const GUARD = `
(
  while read -r word; do said=$word; done <&3
  kill -INT $$ 2>/dev/null
  [ -n "$TEMPORARY" ] && [ "$said" != kept ] || exit
  while [ -e "$TEMPORARY/server/data/postmaster.pid" ] && kill -0 $$ 2>/dev/null; do sleep 0.1; done
  rm -rf "$TEMPORARY"
) &
exec "$0" "$@" 3<&-`;

/** The URL of a database of a server. */
export function serverUrl(listen: Listen, password: string, database: string): string {
  const credentials = `${SUPERUSER}:${encodeURIComponent(password)}`;
  return listen.kind === 'tcp'
    ? `postgres://${credentials}@127.0.0.1:${listen.port}/${database}`
    : `postgres://${credentials}@localhost:${listen.port}/${database}?host=${encodeURIComponent(listen.folder)}`;
}

/**
 * Starts a server on the folder's data, which it creates if needed, and waits until the server answers.
 * @throws {FilestoreError} `EMBEDDED_POSTGRES_FAILED` with the end of its log when it does not start.
 */
export async function startServer(options: ServerOptions): Promise<Server> {
  const password = await initializeData(options.binaries, options.folder);
  const { child, pipe } = spawnGuarded(options);
  const ended = new Promise<void>((resolve) => {
    const end = () => {
      pipe.end('kept\n');
      resolve();
    };
    child.once('exit', end);
    // A process that never started does not exit; untilReady reports the reason.
    child.once('error', end);
  });
  await untilReady(options, password, child);
  return {
    listen: options.listen,
    password,
    // The shell became postgres; without a process, untilReady would have thrown.
    pid: child.pid ?? 0,
    ended,
    async stop() {
      // From here on, Node waits for the process.
      child.ref();
      child.kill('SIGINT');
      await ended;
    },
  };
}

/** A port of 127.0.0.1 that is free: the wanted one, or one that the system chooses. */
export async function freePort(wanted: number): Promise<number> {
  const probe = (port: number) =>
    new Promise<number | undefined>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(undefined));
      server.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
        const address = server.address();
        server.close(() => resolve(typeof address === 'object' ? address?.port : undefined));
      });
    });
  const port = (await probe(wanted)) ?? (await probe(0));
  if (port === undefined) throw failure('No port of 127.0.0.1 is free for the embedded Postgres.');
  return port;
}

interface Guarded {
  readonly child: ChildProcess;
  /** The guard waits until it is closed. */
  readonly pipe: Socket;
}

function spawnGuarded({ binaries, folder, listen, temporary, settings = [] }: ServerOptions): Guarded {
  const all = [
    `port=${listen.port}`,
    `listen_addresses=${listen.kind === 'tcp' ? '127.0.0.1' : ''}`,
    `unix_socket_directories=${listen.kind === 'socket' ? listen.folder : ''}`,
    ...settings,
  ];
  const args = ['-D', dataFolder(folder), ...all.flatMap((setting) => ['-c', setting])];
  // The log quotes rows, so other users may not read it.
  const log = openSync(logFile(folder), 'w', 0o600);
  const child = spawn('/bin/sh', ['-c', GUARD, join(binaries, 'postgres'), ...args], {
    ...serverAccount(),
    cwd: '/',
    // A Ctrl-C on the terminal must not reach postgres before this process.
    detached: true,
    env: { ...environment(), TEMPORARY: temporary ? folder : '' },
    stdio: ['ignore', log, log, 'pipe'],
  });
  closeSync(log);
  // Neither the process nor the pipe keeps this process alive.
  child.unref();
  const pipe = child.stdio[3] as Socket;
  pipe.unref();
  pipe.on('error', () => undefined);
  return { child, pipe };
}

async function untilReady(
  { folder, listen }: ServerOptions,
  password: string,
  child: ChildProcess,
): Promise<void> {
  const deadline = Date.now() + START_PATIENCE_MS;
  let spawnError: Error | undefined;
  child.once('error', (error) => {
    spawnError = error;
  });
  for (;;) {
    try {
      await withClient(serverUrl(listen, password, 'postgres'), async () => undefined);
      // Another process's server on the same data may be what answered.
      if (runningServer(folder)?.pid === child.pid) return;
      throw new Error('another server runs on this data');
    } catch (cause) {
      if (spawnError !== undefined) {
        throw failure(`The embedded Postgres did not start: ${spawnError.message}`, spawnError);
      }
      if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
        child.kill('SIGKILL');
        const lines = readFileSync(logFile(folder), 'utf8').trim().split('\n').slice(-5);
        throw failure(
          `The embedded Postgres did not start. The end of its log, ${logFile(folder)}: ${lines.join(' | ')}`,
          cause,
        );
      }
      await delay(20);
    }
  }
}

function failure(message: string, cause?: unknown): FilestoreError {
  return new FilestoreError('EMBEDDED_POSTGRES_FAILED', message, { cause });
}

function logFile(folder: string): string {
  return join(folder, 'postgres.log');
}
