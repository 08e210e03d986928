import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mulberry32 } from '../support/mulberry32.ts';
import { one, type Sql } from '../support/rows/nodes.ts';
import { applyOnce, applyScan, beginScan, type Entry, recordEntries } from '../support/rows/scans.ts';
import { compare, type Pass } from './compare-disk.ts';
import { DISK_KINDS, type DiskKind, type Listed, listDisk } from './disk.ts';
import { DiskChanges } from './disk-changes.ts';
import { expectPlaces, type Scope } from './expected.ts';
import type { PlannedChange } from './expected-changes.ts';
import { type PlacedNode, readKnown, rowsOf } from './known-nodes.ts';

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
  const kind = DISK_KINDS[seed % DISK_KINDS.length] ?? 'births';
  // A new plan may find fewer objects with one identity. So each disk has either hard links, or plans that are thrown away.
  const hasTwins = Math.floor(seed / DISK_KINDS.length) % 2 === 0 || kind === 'bucket';
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
  const all = listDisk(root, kind).map((entry) => withoutSomeValues(entry, disk, round));
  const good = all.filter(isNameable);
  await changeCatalogue(disk, await readKnown(sql, mountKey));
  const { id, scope } = await beginAnywhere(disk, isWhole ? '' : anyDirectory(good, random));
  const covered = all.filter(({ path }) => isCovered(path, scope));
  const entries = withImplied(disk, scope, covered.filter(isNameable));
  const before = await readKnown(sql, mountKey);
  const expected = expectPlaces(before, entries, scope);
  // Planning takes most of the time, so that not each round has all.
  const isThorough = isWhole || round % 3 === 1;
  const finishBeside = isThorough ? await beginBeside(disk, former.filter(isNameable)) : async () => [];
  const moments = await record(disk, id, scope, covered);
  const planned = round % 3 === 2 ? undefined : await listDifferences(disk, id);
  const finished = await applyInParts(disk, id, !hasTwins);
  const refused = covered.filter(
    (entry) => !isNameable(entry) && (entry.kind === 'file' || !isImplying(disk, scope)),
  );
  const pass: Pass = { mountKey, scope, entries, refused, moments, before, expected, planned, finished };
  const faults = [
    ...(await compare(sql, pass)),
    ...(await finishBeside()),
    ...(isThorough ? await compareSecondScan(disk, scope, covered, entries.length) : []),
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

/** Of a bucket, a scan of everything below a path lists only files: they imply the directories. */
const isImplying = ({ kind }: Disk, { isRecursive }: Scope): boolean => kind === 'bucket' && isRecursive;

/** A name with a control character is no name of a node. */
const isNameable = ({ path }: Listed): boolean => !/\p{Cc}/u.test(path);

/** Without directories of a bucket that have only files that are refused. */
const withImplied = (disk: Disk, scope: Scope, entries: readonly Listed[]): readonly Listed[] =>
  entries.filter(
    ({ path, kind }) =>
      kind === 'file' ||
      !isImplying(disk, scope) ||
      entries.some((other) => other.kind === 'file' && other.path.startsWith(`${path}/`)),
  );

/** What a service and others say about files before a scan: it must keep or forget that. */
async function changeCatalogue({ sql, random }: Disk, known: readonly PlacedNode[]): Promise<void> {
  const chosen = known.filter(({ kind, isMissing }) => kind === 'file' && !isMissing && random() < 0.2);
  const changes = chosen.map(({ id }) => ({
    id,
    ...(random() < 0.5 ? { state: 'inconsistent' } : { checksum: `sha256:${'0'.repeat(64)}` }),
  }));
  await sql.query('select filestore.update_nodes($1)', [JSON.stringify(changes)]);
}

/** Leaves out some values of some entries, each round of others. */
function withoutSomeValues(entry: Listed, { kind }: Disk, round: number): Listed {
  const sum = [...entry.path].reduce((total, character) => total + character.charCodeAt(0), round);
  const { backend_identity: identity, last_modified_at: moment, ...rest } = entry;
  const isUnknown = kind === 'some births' && sum % 5 === 0;
  return {
    ...rest,
    ...(identity !== undefined && !isUnknown && { backend_identity: identity }),
    ...(moment !== undefined && sum % 7 !== 0 && { last_modified_at: moment }),
    ...(entry.kind === 'file' && sum % 11 === 0 && { storage_class: `CLASS ${sum % 3}` }),
  };
}

/** Records entries in parts. @returns when each path counts as listed: a directory no later than what is in it. */
async function record(
  disk: Disk,
  id: string,
  scope: Scope,
  entries: readonly Listed[],
): Promise<ReadonlyMap<string, Date>> {
  // A bucket has no directories, only paths that imply them, and common prefixes in a list of one level.
  const recorded = isImplying(disk, scope) ? entries.filter(({ kind }) => kind === 'file') : entries;
  const start = scope.path === '' ? 0 : scope.path.length + 1;
  const { started_at: began } = await one(disk.sql, 'select started_at from filestore.scans where id = $1', [
    id,
  ]);
  const moments = new Map<string, Date>();
  const parts = 1 + Math.floor(disk.random() * 3);
  for (let part = 0; part < parts; part += 1) {
    const { now } = await one(disk.sql, "select date_trunc('milliseconds', clock_timestamp()) as now");
    const own = recorded.filter((_, at) => at % parts === part);
    const below = own.map((entry): Entry => ({ ...entry, path: entry.path.slice(start) }));
    const moment: Date = part === 0 ? began : now;
    await recordEntries(disk.sql, id, below, '', part === 0 ? null : moment.toISOString());
    for (const { path } of own) moments.set(path, moment);
  }
  for (const { path } of recorded.filter(isNameable)) {
    const own = moments.get(path) as Date;
    for (let above = parentOf(path); above !== ''; above = parentOf(above)) {
      const known = moments.get(above);
      if (known === undefined || known > own) moments.set(above, own);
    }
  }
  return moments;
}

const parentOf = (path: string) => path.slice(0, Math.max(path.lastIndexOf('/'), 0));

/** What the scan would do, in pages of random size. */
async function listDifferences({ sql, random }: Disk, id: string): Promise<readonly PlannedChange[]> {
  const all: PlannedChange[] = [];
  for (;;) {
    const size = 1 + Math.floor(random() * 100);
    const page = await rowsOf<PlannedChange>(sql, 'select * from filestore.scan_differences($1, $2, $3)', [
      id,
      all.at(-1)?.number ?? 0,
      size,
    ]);
    all.push(...page);
    if (page.length < size) return all;
  }
}

/** Applies in batches of random size. Some plans may be thrown away in the middle, which must not change the result. */
async function applyInParts(disk: Disk, id: string, withNewPlans: boolean) {
  for (;;) {
    const state = await applyOnce(disk.sql, id, 1, 1 + Math.floor(disk.random() * 50));
    if (state.state === 'finished') return state;
    if (withNewPlans && disk.random() < 0.2) {
      await disk.sql.query('update filestore.scans set planned = null where id = $1', [id]);
    }
  }
}

/** Nothing has changed since the last scan, so that another one writes nothing but sightings. */
async function compareSecondScan(disk: Disk, scope: Scope, covered: readonly Listed[], seen: number) {
  const { sql } = disk;
  const count = () =>
    one(
      sql,
      'select (select sum(version) from filestore.nodes) as versions, (select count(*) from filestore.snapshots) as history',
    );
  const before = await count();
  const { id } = await beginScan(sql, disk.mountKey, scope);
  await record(disk, id, scope, covered);
  const finished = await applyInParts(disk, id, false);
  const after = await count();
  const problems = await rowsOf(sql, 'select * from filestore.check_integrity()');
  const faults = problems.map((problem) => JSON.stringify(problem));
  if (JSON.stringify(before) !== JSON.stringify(after)) faults.push('a second scan writes');
  const left = await one(
    sql,
    `select (select count(*) from filestore.scan_entries) + (select count(*) from filestore.scan_changes)
       + (select count(*) from filestore.scan_directories) as rows`,
  );
  if (left.rows !== '0') faults.push(`${left.rows} rows of scans are left`);
  if (Number(finished.seen) !== seen) faults.push(`${finished.seen} seen of ${seen}`);
  return faults;
}
