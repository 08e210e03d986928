import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseDatabaseUrl } from '../../../src/settings/database-url.ts';
import { giveToServer, serverAccount } from '../../../src/testing/embedded/account.ts';
import { freePort } from '../../../src/testing/embedded/server.ts';
import { makeServerFolder } from '../../../src/testing/embedded/server-folder.ts';
import { withClient } from '../../../src/testing/with-client.ts';
import { SERVER_FOLDER_PREFIX } from './test-server.ts';

/** A PgBouncer in front of a server. */
export interface PgBouncer {
  /** URL of a database of the server, through the pooler. */
  url(database: string): string;
  stop(): Promise<void>;
}

export interface PgBouncerOptions {
  /** URL of the server, with the role and password that the pooler uses for all clients. */
  readonly server: string;
  readonly mode: 'transaction' | 'session';
  /** Maximum number of server connections per database. Default: PgBouncer's default, 20. */
  readonly poolSize?: number;
  /** More lines for pgbouncer.ini, such as `ignore_startup_parameters = options`. */
  readonly settings?: readonly string[];
}

/** Debian installs it in a folder that is not in the PATH of ordinary users. */
export function pgbouncerBinary(env: NodeJS.ProcessEnv = process.env): string | undefined {
  const folders = [...(env.PATH ?? '').split(delimiter), '/usr/sbin'];
  return folders.map((folder) => join(folder, 'pgbouncer')).find((path) => existsSync(path));
}

export async function startPgbouncer(options: PgBouncerOptions): Promise<PgBouncer> {
  const binary = pgbouncerBinary();
  if (binary === undefined) throw new Error('pgbouncer is not installed');
  const files = makeServerFolder(SERVER_FOLDER_PREFIX);
  const folder = files.path;
  const port = await freePort(0);
  writeConfiguration(folder, port, options);
  const child = spawnGuarded(binary, folder);
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const stop = async () => {
    child.ref();
    // The guard kills it: it has no state to save.
    child.stdin?.destroy();
    await ended;
    await files.remove();
  };
  const url = (database: string) => `postgres://anybody@127.0.0.1:${port}/${encodeURIComponent(database)}`;
  try {
    await untilReady(url('pgbouncer'), child, folder);
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, stop };
}

/** Settings that neither this nor a test sets have PgBouncer's defaults, especially ignore_startup_parameters. */
function writeConfiguration(
  folder: string,
  port: number,
  { server, mode, poolSize, settings = [] }: PgBouncerOptions,
): void {
  const { host, port: serverPort, user, password } = parseDatabaseUrl('the server', server);
  const target = Object.entries({ host, port: serverPort, user, password }).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key}='${String(value).replaceAll("'", "''")}'`],
  );
  const file = join(folder, 'pgbouncer.ini');
  writeFileSync(
    file,
    `[databases]
* = ${target.join(' ')}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = ${mode}
${poolSize === undefined ? '' : `default_pool_size = ${poolSize}`}
${settings.join('\n')}
`,
    { mode: 0o600 },
  );
  giveToServer(file);
}

/** Starts it so that it ends with this process: the shell's background process kills it when the pipe closes. */
function spawnGuarded(binary: string, folder: string): ChildProcess {
  const guard = 'exec 3<&0; (read -r _ <&3; kill -KILL $$ 2>/dev/null) & exec "$0" "$@" </dev/null 3<&-';
  const log = openSync(logFile(folder), 'w', 0o600);
  const child = spawn('/bin/sh', ['-c', guard, binary, join(folder, 'pgbouncer.ini')], {
    ...serverAccount(),
    cwd: '/',
    detached: true,
    stdio: ['pipe', log, log],
  });
  closeSync(log);
  child.unref();
  return child;
}

async function untilReady(url: string, child: ChildProcess, folder: string): Promise<void> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    try {
      return await withClient(url, async () => undefined);
    } catch (cause) {
      if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
        throw new Error(`pgbouncer did not start: ${readFileSync(logFile(folder), 'utf8')}`, { cause });
      }
      await delay(20);
    }
  }
}

function logFile(folder: string): string {
  return join(folder, 'pgbouncer.log');
}
