import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants, existsSync, fchmodSync, lstatSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { FilestoreError } from '../../src/errors.ts';
import { type Account, identityOf } from './account.ts';
import { dataFolder, environment, initializeData, runningServer, SUPERUSER } from './server-data.ts';

/** Where a server listens: on 127.0.0.1, or on a Unix socket in a folder, and nowhere else. */
export type Listen =
  | { readonly kind: 'tcp'; readonly port: number }
  | { readonly kind: 'socket'; readonly folder: string; readonly port: number };

export interface ServerOptions {
  /** Folder with initdb and postgres. */
  readonly binaries: string;
  /** Folder for this server's files: server/data, server/password, postgres.log. No other user can write to it. */
  readonly folder: string;
  readonly account: Account;
  readonly listen: Listen;
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

/** Connection for a database of the server, in pg's form. */
export function serverConnection(listen: Listen, password: string, database: string) {
  const host = listen.kind === 'tcp' ? '127.0.0.1' : listen.folder;
  return { host, port: listen.port, user: SUPERUSER, password, database };
}

/** The same as a URL. */
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
  refuseSharedFolder(options);
  const password = await initializeData(options);
  const child = spawnGuarded(options);
  const exit = new Promise<void>((resolve) => {
    const end = () => {
      // Ends the guard as well, which waits for this pipe to close.
      child.stdin?.destroy();
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
    ended: exit,
    async stop() {
      // From here on, Node waits for the process.
      child.ref();
      child.kill('SIGINT');
      await exit;
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
  if (port === undefined)
    throw new FilestoreError(
      'EMBEDDED_POSTGRES_FAILED',
      'No port of 127.0.0.1 is free for the embedded Postgres.',
    );
  return port;
}

/**
 * Starts postgres so that it ends with this process, even when this process is killed: the shell starts a guard that
 * waits until the pipe to this process closes, and then becomes postgres. A separate session prevents a Ctrl-C on the
 * terminal from reaching postgres before this process.
 */
function spawnGuarded({ binaries, folder, account, listen, settings = [] }: ServerOptions): ChildProcess {
  // Uses descriptor 3, because a shell gives its background jobs /dev/null as 0.
  const guard =
    'exec 3<&0; (while read -r _; do :; done <&3; kill -INT $$ 2>/dev/null) & exec "$0" "$@" </dev/null 3<&-';
  const all = [
    `port=${listen.port}`,
    `listen_addresses=${listen.kind === 'tcp' ? '127.0.0.1' : ''}`,
    `unix_socket_directories=${listen.kind === 'socket' ? listen.folder : ''}`,
    ...settings,
  ];
  const log = openLog(logFile(folder));
  const child = spawn(
    '/bin/sh',
    [
      '-c',
      guard,
      join(binaries, 'postgres'),
      '-D',
      dataFolder(folder),
      ...all.flatMap((setting) => ['-c', setting]),
    ],
    { ...identityOf(account), cwd: '/', detached: true, env: environment(), stdio: ['pipe', log, log] },
  );
  closeSync(log);
  // Neither the process nor the pipe keeps this process alive.
  child.unref();
  return child;
}

async function untilReady(
  { folder, listen }: ServerOptions,
  password: string,
  child: ChildProcess,
): Promise<void> {
  const deadline = Date.now() + 60_000;
  let spawnError: Error | undefined;
  child.once('error', (error) => {
    spawnError = error;
  });
  for (;;) {
    const client = new pg.Client(serverConnection(listen, password, 'postgres'));
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.end();
      // Another process's server on the same data may be what answered.
      if (runningServer(folder)?.pid === child.pid) return;
      throw new Error('another server runs on this data');
    } catch (cause) {
      if (spawnError !== undefined) {
        throw new FilestoreError(
          'EMBEDDED_POSTGRES_FAILED',
          `The embedded Postgres did not start: ${spawnError.message}`,
          {
            cause: spawnError,
          },
        );
      }
      if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
        child.kill('SIGKILL');
        const log = existsSync(logFile(folder)) ? readFileSync(logFile(folder), 'utf8').trim() : '';
        throw new FilestoreError(
          'EMBEDDED_POSTGRES_FAILED',
          `The embedded Postgres did not start. The end of its log, ${logFile(folder)}: ${log.split('\n').slice(-5).join(' | ')}`,
          { cause },
        );
      }
      await delay(20);
    }
  }
}

/** The log quotes rows, so other users may not read it. An earlier version created it readable. */
export function openLog(path: string): number {
  const { O_WRONLY, O_CREAT, O_TRUNC, O_APPEND, O_NOFOLLOW } = constants;
  const log = openSync(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW, 0o600);
  fchmodSync(log, 0o600);
  return log;
}

/** If another user can write to the folder, that user can choose which files root writes. */
function refuseSharedFolder({ folder, account }: ServerOptions): void {
  if (account.kind === 'self') return;
  const entry = lstatSync(folder);
  if (entry.isDirectory() && entry.uid === 0 && (entry.mode & 0o022) === 0) return;
  throw new FilestoreError(
    'EMBEDDED_POSTGRES_FAILED',
    `Other users can write to ${folder}, so root starts no Postgres there. Remove the folder, or make it writable for root only (chown root, chmod go-w).`,
  );
}

function logFile(folder: string): string {
  return join(folder, 'postgres.log');
}
