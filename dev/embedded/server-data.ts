import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { codeOf, FilestoreError } from '../../src/errors.ts';
import { makeTemporaryFolder } from '../temporary-folder.ts';
import { type Account, identityOf, makeFolderFor } from './account.ts';
import { DRAFT_PREFIX } from './binaries.ts';

/** Folder of the programs, folder for the server's files, and the account that the server runs as. */
export interface DataOptions {
  readonly binaries: string;
  readonly folder: string;
  readonly account: Account;
}

export const SUPERUSER = 'postgres';
const MOST_PID_FILE_BYTES = 4096;

/** The password of the folder's server; undefined before its first start. */
export function readPassword(folder: string): string | undefined {
  const file = join(folder, 'server', 'password');
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : undefined;
}

/** Process and port of the server on the folder's data, from the server's own file; it may have crashed since. */
export function runningServer(folder: string): { readonly pid: number; readonly port: number } | undefined {
  // Lines 1 and 4 (PostgreSQL source, utils/pidfile.h).
  const lines = readPidFile(folder);
  const [pid, port] = [Number(lines[0]), Number(lines[3])];
  return port > 0 ? { pid, port } : undefined;
}

/** Whether a server runs on the folder's data, including while it starts or stops. */
export function serverIsAlive(folder: string): boolean {
  const pid = Number(readPidFile(folder)[0]);
  if (!(pid > 0)) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it runs, under another account.
    return codeOf(error) === 'EPERM';
  }
}

function readPidFile(folder: string): readonly string[] {
  try {
    // The account that owns the folder can put a link or a pipe there. Root reads no other file in it.
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    const file = openSync(join(dataFolder(folder), 'postmaster.pid'), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    try {
      const text = Buffer.alloc(MOST_PID_FILE_BYTES);
      return text.toString('utf8', 0, readSync(file, text)).split('\n');
    } finally {
      closeSync(file);
    }
  } catch {
    return [];
  }
}

export function dataFolder(folder: string): string {
  return join(folder, 'server', 'data');
}

/** Only the locale C is on every machine, and LANG may name a missing one. */
export function environment(): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' };
}

/**
 * Creates data and password in a draft folder and then moves both into place, so that a kill leaves no partial data.
 */
export async function initializeData({ binaries, folder, account }: DataOptions): Promise<string> {
  const known = readPassword(folder);
  if (known !== undefined) return known;

  const draft = await makeTemporaryFolder(folder, DRAFT_PREFIX);
  try {
    const server = join(draft.path, 'server');
    const password = randomBytes(18).toString('base64url');
    mkdirSync(server);
    // The account must be able to pass through both folders, whatever the umask.
    chmodSync(draft.path, 0o711);
    chmodSync(server, 0o755);
    makeFolderFor(account, join(server, 'data'));
    runInitdb(binaries, account, server, password);
    writeFileSync(join(server, 'password'), password, { mode: 0o600 });
    renameSync(server, join(folder, 'server'));
    return password;
  } catch (error) {
    // Another process was faster. Its data is used.
    const theirs = readPassword(folder);
    if (theirs !== undefined) return theirs;
    throw error;
  } finally {
    await draft.remove();
  }
}

function runInitdb(binaries: string, account: Account, draft: string, password: string): void {
  const passwordFile = join(draft, 'initdb-password');
  writeFileSync(passwordFile, password, { mode: 0o600 });
  if (account.kind === 'nobody') chownSync(passwordFile, account.uid, account.gid);
  const initdb = spawnSync(
    join(binaries, 'initdb'),
    [
      ...['-D', join(draft, 'data'), '-U', SUPERUSER, '-A', 'scram-sha-256', `--pwfile=${passwordFile}`],
      ...['-E', 'UTF8', '--locale=C', '--no-instructions'],
    ],
    { ...identityOf(account), cwd: '/', env: environment(), encoding: 'utf8' },
  );
  rmSync(passwordFile);
  if (initdb.status === 0) return;
  const reason = initdb.error?.message ?? initdb.stderr.trim();
  throw new FilestoreError(
    'EMBEDDED_POSTGRES_FAILED',
    `The embedded Postgres could not create its data in ${draft}: ${reason}`,
    {
      cause: initdb.error,
    },
  );
}
