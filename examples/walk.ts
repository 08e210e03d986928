import type { BigIntStats } from 'node:fs';
import { lstat, opendir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { backendIdentity } from './identity.ts';

/** A file or directory, as `record_entries` takes it. A type, because TypeScript takes no interface as a JSON value. */
export type Entry = {
  /** Path below the root, without leading slash. */
  readonly path: string;
  readonly kind: 'file' | 'directory';
  readonly size_bytes?: number;
  readonly last_modified_at?: string;
  readonly link_target?: string;
  readonly backend_identity?: string;
};

export interface WalkOptions {
  readonly root: string;
  /** Whether the file system has birth times. */
  readonly withBirthTimes: boolean;
  /** Aborts the walk; it then throws the reason. */
  readonly signal: AbortSignal;
  /** Is called for each object that is not an entry. */
  readonly onLeftOut: (reason: LeftOut, path: string) => void;
  /** Is called for each folder or file that cannot be read. The walk goes on, so that all of them are reported. */
  readonly onUnreadable: (error: Error) => void;
}

/**
 * Why an object is not an entry: it is neither a file, a directory nor a symbolic link; what is below it is on another device;
 * its name is not UTF-8; or its path is longer than the system takes.
 */
export type LeftOut = 'special' | 'device' | 'encoding' | 'length';

/** A batch has at least this many entries, except the last one, and less than this and CHUNK together. */
const BATCH = 5_000;
const CHUNK = 500;

/**
 * Reads a tree, and yields its entries in batches, without its root. It lists the same objects as `find -xdev`: it does not
 * enter directories of other devices, and follows no symbolic link. It holds one batch, and the paths of the directories that
 * it still has to read.
 */
export async function* walk(options: WalkOptions): AsyncGenerator<readonly Entry[]> {
  const { dev } = await lstat(options.root, { bigint: true });
  const unread = [''];
  let batch: Entry[] = [];
  for (let directory = unread.pop(); directory !== undefined; directory = unread.pop()) {
    for await (const paths of listPaths(directory, options)) {
      options.signal.throwIfAborted();
      for (const found of await Promise.all(paths.map((path) => readEntry(path, dev, options)))) {
        if (found === undefined) continue;
        batch.push(found.entry);
        if (found.isEntered) unread.push(found.entry.path);
      }
      if (batch.length >= BATCH) {
        yield batch;
        batch = [];
      }
    }
  }
  if (batch.length > 0) yield batch;
}

/** The paths of the objects in a directory, in chunks. */
async function* listPaths(directory: string, options: WalkOptions): AsyncGenerator<readonly string[]> {
  let chunk: string[] = [];
  try {
    for await (const { name } of await opendir(join(options.root, directory), { bufferSize: CHUNK })) {
      const path = directory === '' ? name : `${directory}/${name}`;
      // Node.js decodes bytes that are not UTF-8 as U+FFFD, so several names could become one.
      if (name.includes('\ufffd')) options.onLeftOut('encoding', path);
      else chunk.push(path);
      if (chunk.length < CHUNK) continue;
      yield chunk;
      chunk = [];
    }
  } catch (error) {
    if (directory === '') throw error;
    reportFailure(error, directory, options);
  }
  if (chunk.length > 0) yield chunk;
}

interface Found {
  readonly entry: Entry;
  readonly isEntered: boolean;
}

async function readEntry(path: string, rootDevice: bigint, options: WalkOptions): Promise<Found | undefined> {
  try {
    const place = join(options.root, path);
    const stat = await lstat(place, { bigint: true });
    // Another device has its own inodes.
    const isHere = stat.dev === rootDevice;
    const identity = isHere && { backend_identity: backendIdentity(stat, options.withBirthTimes) };
    if (stat.isDirectory()) {
      if (!isHere) options.onLeftOut('device', path);
      // Without its moment, which changes with each file that is created in it.
      return { entry: { path, kind: 'directory', ...identity }, isEntered: isHere };
    }
    if (!stat.isFile() && !stat.isSymbolicLink()) {
      options.onLeftOut('special', path);
      return undefined;
    }
    const target = stat.isSymbolicLink() && { link_target: await readlink(place) };
    return { entry: { path, kind: 'file', ...contentOf(stat), ...target, ...identity }, isEntered: false };
  } catch (error) {
    reportFailure(error, path, options);
    return undefined;
  }
}

function contentOf(stat: BigIntStats) {
  const year = stat.mtime.getUTCFullYear();
  return {
    size_bytes: stat.isSymbolicLink() ? 0 : Number(stat.size),
    // Some file systems store moments that are no dates of a calendar.
    ...(year >= 1 && year <= 9999 && { last_modified_at: stat.mtime.toISOString() }),
  };
}

function reportFailure(error: unknown, path: string, options: WalkOptions): void {
  if (!(error instanceof Error) || !('code' in error)) throw error;
  // It was removed or replaced after its directory was listed. The next scan finds it at its new place.
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return;
  if (error.code === 'ENAMETOOLONG') options.onLeftOut('length', path);
  else options.onUnreadable(error);
}
