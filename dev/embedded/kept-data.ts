import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { FilestoreError } from '../../src/errors.ts';
import { serverCanUse } from '../../src/testing/embedded/account.ts';
import { dataFolder, pidFile, readLines, readPidFile } from '../../src/testing/embedded/server-data.ts';
import { paragraph } from '../../src/text.ts';

/**
 * The folder for an embedded server's files: `wanted` or, if the account of servers cannot reach it, one in the
 * system's folder for temporary files that survive a restart.
 */
export function reachableFolder(wanted: string): string {
  mkdirSync(wanted, { recursive: true, mode: 0o755 });
  if (serverCanUse(wanted)) return wanted;
  const name = `filestore-postgres-${createHash('sha256').update(wanted).digest('hex').slice(0, 12)}`;
  const folder = join('/var/tmp', name);
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  return folder;
}

/** Whether a server runs on the folder's data, including while it starts or stops. */
export function serverIsAlive(folder: string): boolean {
  const pid = Number(readPidFile(folder)[0]);
  return isRunning(pid) && worksIn(pid, dataFolder(folder)) !== false;
}

/**
 * Refuses data that was copied while its server ran. A moved folder is no copy: its old path is empty, and its server
 * works in it or has ended.
 * @throws {FilestoreError} `EMBEDDED_POSTGRES_FAILED`
 */
export function refuseCopiedData(folder: string): void {
  const origin = readPidFile(folder)[1];
  if (origin === undefined || isSameFolder(origin, dataFolder(folder))) return;
  if (!existsSync(origin) && !serverWorksElsewhere(folder)) return;
  throw new FilestoreError(
    'EMBEDDED_POSTGRES_FAILED',
    paragraph(
      `The data of the embedded Postgres in ${folder} was copied from ${origin} while a server ran on it,`,
      'so it may be damaged. No database was changed.',
      `Remove ${join(folder, 'server')} and run this again, which creates an empty database.`,
    ),
  );
}

/**
 * Removes the file of a server that ended without removing it, if another process has its number since. Postgres
 * would refuse to start.
 */
export function removeStalePidFile(folder: string): void {
  if (isTaken(Number(readPidFile(folder)[0]), dataFolder(folder))) rmSync(pidFile(folder), { force: true });
}

/** Whether the server that wrote the folder's file works in other data, which then has the same file. */
function serverWorksElsewhere(folder: string): boolean {
  // Process, path of the data, and time of the start. The last line changes.
  const startOf = (lines: readonly string[]) => lines.slice(0, 3).join('\n');
  const lines = readPidFile(folder);
  const pid = Number(lines[0]);
  const theirs = readLines(`/proc/${pid}/cwd/postmaster.pid`);
  return isTaken(pid, dataFolder(folder)) && startOf(theirs) === startOf(lines);
}

/** Whether the number that a server had is that of a process that does not work in its data. */
function isTaken(pid: number, data: string): boolean {
  return isRunning(pid) && worksIn(pid, data) === false;
}

function isRunning(pid: number): boolean {
  if (!(pid > 0)) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    // EPERM: a process of another account, which cannot be the server.
    return false;
  }
}

/** Whether a process works in a folder, as a server does in its data; undefined if the system does not tell. */
function worksIn(pid: number, folder: string): boolean | undefined {
  const link = `/proc/${pid}/cwd`;
  try {
    statSync(link);
  } catch {
    return undefined;
  }
  return isSameFolder(link, folder);
}

/** Compares the folders themselves, since links and mounts give one folder several paths. */
function isSameFolder(path: string, other: string): boolean {
  const [one, two] = [path, other].map((each) => statSync(each, { throwIfNoEntry: false }));
  return one !== undefined && two !== undefined && one.dev === two.dev && one.ino === two.ino;
}

/** Whether a server works on the folder's data: only then it sees a file that is created there. */
export async function servesFolder(server: Client, folder: string): Promise<boolean> {
  const name = `filestore-${randomBytes(8).toString('hex')}`;
  const file = join(dataFolder(folder), name);
  writeFileSync(file, '');
  try {
    const { rows } = await server.query('select from pg_stat_file($1, true) where size is not null', [name]);
    return rows.length > 0;
  } finally {
    rmSync(file, { force: true });
  }
}
