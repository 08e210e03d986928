import { lstatSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Entry } from '../support/rows/scans.ts';

/** Lists a directory with everything below it, as docs/service.md shows it. */
export function listDisk(root: string, directory = ''): readonly Required<Pick<Entry, 'path' | 'kind'>>[] {
  const listed: Required<Pick<Entry, 'path' | 'kind'>>[] = [];
  for (const name of readdirSync(join(root, directory))) {
    const path = directory === '' ? name : `${directory}/${name}`;
    const found = describe(root, path);
    listed.push(found);
    if (found.kind === 'directory') listed.push(...listDisk(root, path));
  }
  return listed;
}

function describe(root: string, path: string): Entry & Required<Pick<Entry, 'path' | 'kind'>> {
  const stat = lstatSync(join(root, path), { bigint: true });
  const identity = `${stat.ino.toString(36)}-${stat.birthtimeNs.toString(36)}`;
  if (stat.isDirectory()) return { path, kind: 'directory', backend_identity: identity };
  return {
    path,
    kind: 'file',
    size_bytes: Number(stat.size),
    last_modified_at: stat.mtime.toISOString(),
    backend_identity: identity,
    ...(stat.isSymbolicLink() && { link_target: readlinkSync(join(root, path)) }),
  };
}
