import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mulberry32 } from '../support/mulberry32.ts';
import { one, type Sql } from '../support/rows/nodes.ts';
import { applyOnce, applyScan, beginScan, type Entry, recordEntries } from '../support/rows/scans.ts';
import { compare, type Pass, readKnown } from './compare-disk.ts';
import { DISK_KINDS, type DiskKind, type Listed, listDisk } from './disk.ts';
import { DiskChanges } from './disk-changes.ts';
import { expectPlaces, type Scope } from './expected.ts';

export interface FollowOptions {
  readonly seed: number;
  readonly rounds: number;
  readonly changes: number;
  readonly mountKey: string;
}

interface Disk {
  readonly sql: Sql;
  readonly mountKey: string;
  readonly root: string;
  readonly kind: DiskKind;
  readonly random: () => number;
  readonly hasTwins: boolean;
}

/** Changes a tree on disk at random, scans it round after round, and compares. @returns what differs; empty if nothing does. */
export async function followDisk(sql: Sql, options: FollowOptions): Promise<readonly string[]> {
  const { seed, rounds, changes, mountKey } = options;
  const folder = mkdtempSync(join(tmpdir(), 'filestore-disk-'));
  const root = join(folder, 'root');
  mkdirSync(root);
  const random = mulberry32(seed);
  const kind = DISK_KINDS[Math.floor(seed / 2) % DISK_KINDS.length] ?? 'births';
  // A new plan may find fewer objects with one identity. So each disk has either hard links, or plans that are thrown away.
  const hasTwins = seed % 2 === 0 || kind === 'bucket';
  const changing = new DiskChanges(root, random, hasTwins);
  const disk = { sql, mountKey, root, kind, random, hasTwins };
  try {
    for (const key of [mountKey, besideOf(mountKey)]) {
      await sql.query(
        `insert into filestore.backend_mounts (mount_key, backend_kind, root_path, bucket)
         values ($1, $2, nullif($3, ''), nullif($4, ''))`,
        kind === 'bucket' ? [key, 's3', '', key] : [key, 'local', join(folder, key), ''],
      );
    }
    for (let round = 0; round < rounds; round += 1) {
      const former = listDisk(root, kind);
      const made = Array.from({ length: changes }, () => changing.change());
      const isLast = round === rounds - 1;
      const faults = await followOnce(disk, round, isLast, former);
      if (faults.length > 0) {
        const last = changes <= 10 ? ` after ${made.join(', ')}` : '';
        return [`seed ${seed} (${kind}), round ${round}${last}`, ...faults];
      }
    }
    return [];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Scans everything, a subtree or one directory, and then the same again. */
async function followOnce(
  disk: Disk,
  round: number,
  isWhole: boolean,
  former: readonly Listed[],
): Promise<readonly string[]> {
  const { sql, mountKey, root, kind, random, hasTwins } = disk;
  const listed = listDisk(root, kind).map((entry) =>
    kind === 'some births' ? withoutSomeIdentities(entry, round) : entry,
  );
  const { id, scope } = await beginAnywhere(disk, isWhole ? '' : anyDirectory(listed, random));
  const entries = listed.filter(({ path }) => isCovered(path, scope));
  const before = await readKnown(sql, mountKey);
  const expected = expectPlaces(before, entries, scope);
  const finishBeside = await beginBeside(disk, former);
  const finished = await scanInParts(disk, id, scope, entries, !hasTwins);
  const pass: Pass = { mountKey, scope, entries, before, expected, finished };
  const faults = [
    ...(await compare(sql, pass)),
    ...(await finishBeside()),
    ...(await compareSecondScan(disk, scope, entries)),
  ];
  if (faults.length === 0) return [];
  return [`scan of "${scope.path}"${scope.isRecursive ? '' : ', not below'}`, ...faults];
}

/** The key of a mount with the objects of the round before. While a disk is scanned, a scan of this one is at work. */
export const besideOf = (mountKey: string): string => `${mountKey}-beside`;

/** Applies a part of a scan of the mount beside. @returns what applies the rest, and says what differs then. */
async function beginBeside(disk: Disk, listed: readonly Listed[]): Promise<() => Promise<readonly string[]>> {
  const { sql } = disk;
  const mountKey = besideOf(disk.mountKey);
  const scope = { path: '', isRecursive: true, pairByContent: disk.kind === 'bucket' };
  const { id } = await beginScan(sql, mountKey, scope);
  await record(disk, id, scope, listed);
  await applyOnce(sql, id, 1, 10);
  return async () => {
    await applyScan(sql, id);
    const paths = (await readKnown(sql, mountKey))
      .filter(({ kind, isMissing }) => kind === 'file' && !isMissing)
      .map(({ path }) => path);
    const expected = listed.filter(({ kind }) => kind === 'file').map(({ path }) => path);
    return JSON.stringify(paths.sort()) === JSON.stringify(expected.sort())
      ? []
      : ['the scan of the mount beside finds other files'];
  };
}

const isCovered = (path: string, { path: top, isRecursive }: Scope): boolean => {
  const below = top === '' ? path : path.startsWith(`${top}/`) ? path.slice(top.length + 1) : '';
  return below !== '' && (isRecursive || !below.includes('/'));
};

/** Mostly the whole mount. */
function anyDirectory(listed: readonly Listed[], random: () => number): string {
  const all = listed.filter((entry) => entry.kind === 'directory').map(({ path }) => path);
  return random() < 0.4 ? '' : (all[Math.floor(random() * all.length)] ?? '');
}

/** A scan of a directory, or of everything if a file of the catalogue is in its way. */
async function beginAnywhere(disk: Disk, path: string): Promise<{ id: string; scope: Scope }> {
  const pairByContent = disk.kind === 'bucket' && disk.random() < 0.8;
  const isRecursive = path === '' || disk.random() < 0.6;
  const scope = { path, isRecursive, pairByContent };
  try {
    const { id } = await beginScan(disk.sql, disk.mountKey, scope);
    return { id, scope };
  } catch (error) {
    if ((error as { constraint?: string }).constraint !== 'nodes_file_in_the_way') throw error;
    return beginAnywhere(disk, '');
  }
}

/** One path in five has no identity, each round another one. */
function withoutSomeIdentities({ backend_identity: identity, ...entry }: Listed, round: number): Listed {
  const sum = [...entry.path].reduce((total, character) => total + character.charCodeAt(0), round);
  return identity === undefined || sum % 5 === 0 ? entry : { ...entry, backend_identity: identity };
}

async function record(disk: Disk, id: string, scope: Scope, entries: readonly Listed[]): Promise<void> {
  // A bucket has no directories, only paths that imply them, and common prefixes in a list of one level.
  const recorded =
    disk.kind === 'bucket' && scope.isRecursive ? entries.filter(({ kind }) => kind === 'file') : entries;
  const start = scope.path === '' ? 0 : scope.path.length + 1;
  const below = recorded.map((entry): Entry => ({ ...entry, path: entry.path.slice(start) }));
  for (let at = 0; at < below.length; at += 5_000) {
    await recordEntries(disk.sql, id, below.slice(at, at + 5_000));
  }
}

/** Scans in batches of random size. Some plans may be thrown away in the middle, which must not change the result. */
async function scanInParts(
  disk: Disk,
  id: string,
  scope: Scope,
  entries: readonly Listed[],
  withNewPlans: boolean,
) {
  await record(disk, id, scope, entries);
  for (;;) {
    const state = await applyOnce(disk.sql, id, 1, 1 + Math.floor(disk.random() * 50));
    if (state.state === 'finished') return state;
    if (withNewPlans && disk.random() < 0.2) {
      await disk.sql.query('update filestore.scans set planned = null where id = $1', [id]);
    }
  }
}

/** Nothing has changed since the last scan, so that another one writes nothing but sightings. */
async function compareSecondScan(disk: Disk, scope: Scope, entries: readonly Listed[]) {
  const { sql } = disk;
  const count = () =>
    one(
      sql,
      'select (select sum(version) from filestore.nodes) as versions, (select count(*) from filestore.snapshots) as history',
    );
  const before = await count();
  const { id } = await beginScan(sql, disk.mountKey, scope);
  const finished = await scanInParts(disk, id, scope, entries, false);
  const after = await count();
  const faults = JSON.stringify(before) === JSON.stringify(after) ? [] : ['a second scan writes'];
  const left = await one(
    sql,
    `select (select count(*) from filestore.scan_entries) + (select count(*) from filestore.scan_changes)
       + (select count(*) from filestore.scan_directories) as rows`,
  );
  if (left.rows !== '0') faults.push(`${left.rows} rows of scans are left`);
  if (Number(finished.seen) !== entries.length) faults.push(`${finished.seen} seen of ${entries.length}`);
  return faults;
}
