import { spawnSync } from 'node:child_process';
import { lstatSync, readdirSync, rmdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf } from '../src/errors.ts';

const ATTEMPTS = 10;
const PAUSE_MS = 100;

/**
 * Removes everything in a folder of this user. Links are removed, never followed. Root must not use it for a folder of
 * another account, which could replace a file by a link at any moment. That account empties its folder itself.
 * @param except Name of an entry to keep.
 */
export async function removeFolder(folder: string, except: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      for (const name of readdirSync(folder)) if (name !== except) remove(join(folder, name));
      return;
    } catch (error) {
      // Backends of a killed server may still be writing.
      const passes = codeOf(error) === 'ENOTEMPTY' || codeOf(error) === 'EBUSY';
      if (!passes || attempt === ATTEMPTS) throw error;
      await delay(PAUSE_MS);
    }
  }
}

function remove(path: string): void {
  const entry = lstatSync(path, { throwIfNoEntry: false });
  if (entry === undefined) return;
  try {
    if (!entry.isDirectory()) {
      unlinkSync(path);
      return;
    }
    if (process.getuid?.() === 0 && entry.uid !== 0) emptyAs(entry.uid, entry.gid, path);
    else for (const name of readdirSync(path)) remove(join(path, name));
    rmdirSync(path);
  } catch (error) {
    // Another run may remove it at the same time.
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}

/**
 * The folder itself stays, because its parent is closed to that account. So rm fails, and rmdir shows whether the
 * folder is empty.
 */
function emptyAs(uid: number, gid: number, folder: string): void {
  spawnSync('rm', ['-rf', '--', folder], { uid, gid, cwd: '/', stdio: 'ignore' });
}
