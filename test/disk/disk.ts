import { createHash } from 'node:crypto';
import { type BigIntStats, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Entry } from '../support/rows/scans.ts';

/** A listed object. */
export type Listed = Entry & Required<Pick<Entry, 'path' | 'kind'>>;

/** What identifies objects: birth times, of some objects only, or none, or the hashes of a bucket. */
export const DISK_KINDS = ['births', 'some births', 'no births', 'bucket'] as const;
export type DiskKind = (typeof DISK_KINDS)[number];

/** Lists a directory with everything below it, as docs/service.md shows it. A bucket has no empty directories. */
export function listDisk(root: string, kind: DiskKind = 'births', directory = ''): readonly Listed[] {
  return readdirSync(join(root, directory)).flatMap((name) => {
    const path = directory === '' ? name : `${directory}/${name}`;
    const found = describe(root, path, kind);
    if (found.kind === 'file') return [found];
    const below = listDisk(root, kind, path);
    return kind === 'bucket' && below.length === 0 ? [] : [found, ...below];
  });
}

function describe(root: string, path: string, kind: DiskKind): Listed {
  const stat = lstatSync(join(root, path), { bigint: true });
  const identity = kind === 'bucket' ? {} : { backend_identity: identityOf(stat, kind) };
  if (stat.isDirectory()) return { path, kind: 'directory', ...identity };
  return {
    path,
    kind: 'file',
    size_bytes: Number(stat.size),
    last_modified_at: stat.mtime.toISOString(),
    ...identity,
    ...(stat.isSymbolicLink() && { link_target: readlinkSync(join(root, path)) }),
    ...(kind === 'bucket' && { content_hash: digestOf('md5', root, path) }),
    ...(kind === 'births' && { checksum: `sha256:${digestOf('sha256', root, path)}` }),
  };
}

const digestOf = (algorithm: string, root: string, path: string): string =>
  createHash(algorithm)
    .update(readFileSync(join(root, path)))
    .digest('hex');

function identityOf(stat: BigIntStats, kind: DiskKind): string {
  const text = (value: bigint) => value.toString(36);
  if (kind !== 'no births') return `${text(stat.ino)}-${text(stat.birthtimeNs)}`;
  const size = stat.isDirectory() ? '' : `${text(stat.size)}-`;
  return `${text(stat.ino)}--${size}${text(stat.mtimeNs)}`;
}
