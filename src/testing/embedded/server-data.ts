import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { FilestoreError } from '../../errors.ts';
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

/** The lines of the server's own file; empty if it is missing or closed to this process. */
export function readPidFile(folder: string): readonly string[] {
  return readLines(pidFile(folder));
}

/** Empty if the file is missing or closed to this process. */
export function readLines(file: string): readonly string[] {
  try {
    return readFileSync(file, 'utf8').split('\n');
  } catch {
    return [];
  }
}

export function pidFile(folder: string): string {
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
