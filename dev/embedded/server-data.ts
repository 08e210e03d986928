import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Client } from 'pg';
import { FilestoreError } from '../../src/errors.ts';
import { paragraph } from '../../src/text.ts';
import { giveToServer, makeServerOwned, serverAccount } from './account.ts';

export const SUPERUSER = 'postgres';
const DRAFT_PREFIX = 'draft-';
/** A folder with this age was left by a killed process: a draft takes seconds. */
const ABANDONED_MS = 600_000;

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

function readPidFile(folder: string): readonly string[] {
  return readLines(pidFile(folder));
}

/** Empty if the file is missing or closed to this process. */
function readLines(file: string): readonly string[] {
  try {
    return readFileSync(file, 'utf8').split('\n');
  } catch {
    return [];
  }
}

function pidFile(folder: string): string {
  return join(dataFolder(folder), 'postmaster.pid');
}

export function dataFolder(folder: string): string {
  return join(folder, 'server', 'data');
}

/** Only the locale C is on every machine, and LANG may name a missing one. */
export function environment(): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' };
}

/** Creates a folder to fill and then rename within its parent, so that a kill leaves no partial files. */
export async function makeDraft(parent: string): Promise<string> {
  for (const name of readdirSync(parent)) {
    const path = join(parent, name);
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    const isAbandoned = name.startsWith(DRAFT_PREFIX) && age > ABANDONED_MS;
    if (isAbandoned) await rm(path, { recursive: true, force: true });
  }
  const draft = mkdtempSync(join(parent, DRAFT_PREFIX));
  giveToServer(draft);
  return draft;
}

/** Creates the data and the password of the folder's server, if they are missing, and returns the password. */
export async function initializeData(binaries: string, folder: string): Promise<string> {
  const known = readPassword(folder);
  if (known !== undefined) return known;
  const draft = await makeDraft(folder);
  try {
    const password = randomBytes(18).toString('base64url');
    writeFileSync(join(draft, 'password'), password, { mode: 0o600 });
    giveToServer(join(draft, 'password'));
    makeServerOwned(join(draft, 'data'));
    runInitdb(binaries, draft);
    renameSync(draft, join(folder, 'server'));
    return password;
  } catch (error) {
    // Another process was faster. Its data is used.
    const theirs = readPassword(folder);
    if (theirs !== undefined) return theirs;
    throw error;
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

function runInitdb(binaries: string, draft: string): void {
  const initdb = spawnSync(
    join(binaries, 'initdb'),
    [
      ...['-D', join(draft, 'data'), '-U', SUPERUSER, '-A', 'scram-sha-256'],
      ...[`--pwfile=${join(draft, 'password')}`, '-E', 'UTF8', '--locale=C', '--no-instructions'],
    ],
    { ...serverAccount(), cwd: '/', env: environment(), encoding: 'utf8' },
  );
  if (initdb.status === 0) return;
  const reason = initdb.error?.message ?? initdb.stderr.trim();
  throw new FilestoreError(
    'EMBEDDED_POSTGRES_FAILED',
    `The embedded Postgres could not create its data in ${draft}: ${reason}`,
    { cause: initdb.error },
  );
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
