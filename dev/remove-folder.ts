import { spawnSync } from 'node:child_process';
import { lstatSync, readdirSync, rmdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf } from '../src/errors.ts';

const ATTEMPTS = 10;
const PAUSE_MS = 100;

/**
 * Removes everything in a folder of this user; links are removed, never followed. Root does not enter a folder of
 * another account, where a name may become a link between two looks: that account empties it.
 * @param except Name in the folder of what stays.
 */
export async function removeFolder(folder: string, except: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      for (const name of readdirSync(folder)) if (name !== except) remove(join(folder, name));
      return;
    } catch (error) {
      // Backends of a killed server may be at their last write.
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
    // Another run may remove the same.
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}

/** The folder itself stays, since its parent is closed to that account: so rm fails, and rmdir tells what is left. */
function emptyAs(uid: number, gid: number, folder: string): void {
  spawnSync('rm', ['-rf', '--', folder], { uid, gid, cwd: '/', stdio: 'ignore' });
}
