import { readdirSync, statSync } from 'node:fs';
import { join, sep } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf } from '../../src/errors.ts';

/** The SQL files below a folder, by path, each with a text that changes at every write. */
export type Snapshot = ReadonlyMap<string, string>;

export interface Change {
  readonly snapshot: Snapshot;
  /** Paths below the folder that were written, created or removed. */
  readonly paths: readonly string[];
}

/** Reading the times of a hundred files takes less than a millisecond. */
const LOOK_EVERY_MS = 50;
/**
 * Number of polls without a change before a change counts as complete: editors write in several steps, and git writes
 * many files.
 */
const CALM_LOOKS = 2;

/**
 * Polls instead of using the system's notifications: those are lost when editors or git replace a file or folder, and
 * do not reach into containers.
 */
export function takeSnapshot(folder: string): Snapshot {
  const files = new Map<string, string>();
  for (const path of listFiles(folder)) {
    const stats = statSync(join(folder, path), { throwIfNoEntry: false });
    if (stats?.isFile()) files.set(path, `${stats.ino} ${stats.size} ${stats.mtimeMs} ${stats.ctimeMs}`);
  }
  return files;
}

/**
 * Waits until the files differ from the snapshot and no longer change.
 * @returns undefined when they were still the same after `giveUpMs`.
 * @throws the signal's reason when it comes.
 */
export async function nextChange(
  folder: string,
  before: Snapshot,
  signal: AbortSignal,
  giveUpMs = Number.POSITIVE_INFINITY,
): Promise<Change | undefined> {
  const giveUpAt = performance.now() + giveUpMs;
  let last = before;
  let calm = 0;
  for (;;) {
    await delay(LOOK_EVERY_MS, undefined, { signal });
    const now = takeSnapshot(folder);
    const paths = pathsThatDiffer(before, now);
    calm = pathsThatDiffer(last, now).length === 0 ? calm + 1 : 0;
    last = now;
    if (paths.length > 0 && calm >= CALM_LOOKS) return { snapshot: now, paths };
    if (paths.length === 0 && performance.now() >= giveUpAt) return undefined;
  }
}

function listFiles(folder: string): readonly string[] {
  try {
    return readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.sql'))
      .map((path) => path.split(sep).join('/'));
  } catch (error) {
    // Git may be about to recreate the folder.
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}

function pathsThatDiffer(one: Snapshot, other: Snapshot): readonly string[] {
  return [...new Set([...one.keys(), ...other.keys()])].filter((path) => one.get(path) !== other.get(path));
}
