import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf } from '../../src/cause-codes.ts';

/** Reading the times of a hundred files takes less than a millisecond. */
const LOOK_EVERY_MS = 50;
/**
 * Number of polls without a change before a change counts as complete: editors write in several steps, and git writes
 * many files.
 */
const CALM_LOOKS = 2;

/**
 * The SQL files below a folder, as a text that changes at every write. Polls instead of using the system's notifications:
 * those are lost when editors or git replace a file or folder, and do not reach into containers.
 */
export function takeSnapshot(folder: string): string {
  try {
    return readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.sql'))
      .map((path) => {
        const stats = statSync(join(folder, path), { throwIfNoEntry: false });
        return `${path} ${stats?.ino} ${stats?.size} ${stats?.mtimeMs} ${stats?.ctimeMs}`;
      })
      .join('\n');
  } catch (error) {
    // Git may be about to recreate a folder.
    if (codeOf(error) === 'ENOENT') return '';
    throw error;
  }
}

/**
 * Waits until the files differ from the snapshot and no longer change.
 * @returns the new snapshot; the given one when they were still the same after `giveUpMs`, or the signal came.
 */
export async function nextChange(
  folder: string,
  before: string,
  signal: AbortSignal,
  giveUpMs: number,
): Promise<string> {
  const giveUpAt = performance.now() + giveUpMs;
  let last = before;
  let calm = 0;
  for (;;) {
    await delay(LOOK_EVERY_MS, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return before;
    const now = takeSnapshot(folder);
    calm = now === last ? calm + 1 : 0;
    last = now;
    if (now !== before && calm >= CALM_LOOKS) return now;
    if (now === before && performance.now() >= giveUpAt) return before;
  }
}
