import { lstat, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';

/** A file or directory below the root of a walk. */
export interface Entry {
  readonly name: string;
  /** Path below the root, without leading slash. */
  readonly path: string;
  /** Path of its directory; '' for the root. */
  readonly parentPath: string;
  /** Number of segments in path. */
  readonly depth: number;
  /** Bytes; 0 for a directory. */
  readonly size: number;
  readonly modified: Date;
  /** The target of a symbolic link; null for all other entries. */
  readonly linkTarget: string | null;
}

export interface Walked {
  readonly directories: readonly Entry[];
  readonly files: readonly Entry[];
  /** The number of skipped entries, by reason. */
  readonly skipped: ReadonlyMap<string, number>;
}

/** Reads a tree, level by level. Entries that cannot be nodes are counted and skipped. */
export async function walk(root: string): Promise<Walked> {
  const directories: Entry[] = [];
  const files: Entry[] = [];
  const skipped = new Map<string, number>();
  let level: readonly string[] = [''];
  for (let depth = 1; level.length > 0; depth += 1) {
    const next: string[] = [];
    for (const parentPath of level) {
      const children = await readDirectory(root, parentPath, depth);
      for (const { entry, kind } of children) {
        if (kind === 'directory') {
          directories.push(entry);
          next.push(entry.path);
        } else if (kind === 'file' || kind === 'symbolic link') {
          files.push(entry);
        } else {
          skipped.set(kind, (skipped.get(kind) ?? 0) + 1);
        }
      }
    }
    level = next;
  }
  return { directories, files, skipped };
}

type Kind = 'directory' | 'file' | 'symbolic link' | 'special file' | 'name or path that has no node';

async function readDirectory(root: string, parentPath: string, depth: number) {
  const found = await readdir(join(root, parentPath), { withFileTypes: true });
  return Promise.all(
    found.map(async (item) => {
      const path = parentPath === '' ? item.name : `${parentPath}/${item.name}`;
      const { size, mtime } = await lstat(join(root, path));
      const kind: Kind = !hasNode(item.name, path)
        ? 'name or path that has no node'
        : item.isDirectory()
          ? 'directory'
          : item.isFile()
            ? 'file'
            : item.isSymbolicLink()
              ? 'symbolic link'
              : 'special file';
      const entry: Entry = {
        name: item.name,
        path,
        parentPath,
        depth,
        size: kind === 'file' ? size : 0,
        modified: mtime,
        linkTarget: kind === 'symbolic link' ? await readlink(join(root, path)) : null,
      };
      return { entry, kind };
    }),
  );
}

/** The catalogue's rules for names and paths. A replacement character means bytes that are not UTF-8. */
function hasNode(name: string, path: string): boolean {
  return !/\p{Cc}|\ufffd/u.test(name) && Buffer.byteLength(path) <= 2600;
}
