import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mulberry32 } from '../support/mulberry32.ts';
import { one, type Sql } from '../support/rows/nodes.ts';
import { applyOnce, applyScan, beginScan, untilOlder } from '../support/rows/scans.ts';
import { compare, type Pass } from './compare-disk.ts';
import { compareDisturbed } from './compare-disturbed.ts';
import { DISK_KINDS, type Listed, listDisk } from './disk.ts';
import { DiskChanges } from './disk-changes.ts';
import { Disturbances } from './disturbances.ts';
import { type Expected, expectPlaces, type Scope } from './expected.ts';
import { type PlacedNode, readKnown, rowsOf } from './known-nodes.ts';
import { applyInParts, type Disk, isImplying, isNameable, listDifferences, record } from './scan-disk.ts';

export interface FollowOptions {
  readonly seed: number;
  readonly rounds: number;
  readonly changes: number;
  readonly mountKey: string;
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
  changing.grow(30);
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

/** Scans everything, a subtree or one directory, and compares. Planning takes most of the time, so that each round does one thing more. */
async function followOnce(
  disk: Disk,
  round: number,
  isLast: boolean,
  former: readonly Listed[],
): Promise<readonly string[]> {
  const { sql, mountKey, root, kind, random, hasTwins } = disk;
  // A scan that others disturb is planned again, which not each disk allows.
  const isDisturbed = round % 2 === 1 && !hasTwins && !isLast;
  const isThorough = round % 4 === 2 || isLast;
  const all = listDisk(root, kind).map((entry) => withoutSomeValues(entry, disk, round));
  await changeCatalogue(disk, await readKnown(sql, mountKey));
  const isWhole = isDisturbed || isLast;
  const { id, scope } = await beginAnywhere(
    disk,
    isWhole ? '' : anyDirectory(all.filter(isNameable), random),
  );
  const covered = all.filter(({ path }) => isCovered(path, scope));
  const entries = withImplied(disk, scope, covered.filter(isNameable));
  if (isThorough) await changePlaced(disk, expectPlaces(await readKnown(sql, mountKey), entries, scope));
  const { now: since } = await one(sql, "select date_trunc('milliseconds', clock_timestamp()) as now");
  const before = await readKnown(sql, mountKey);
  const expected = expectPlaces(before, entries, scope);
  const finishBeside = isThorough ? await beginBeside(disk, former.filter(isNameable)) : async () => [];
  const moments = await record(disk, id, scope, covered, isThorough);
  const others = new Disturbances(sql, mountKey, random);
  for (let writes = isDisturbed ? 2 : 0; writes > 0; writes -= 1) await others.write();
  const planned = isDisturbed ? undefined : await listDifferences(disk, id);
  const finished = await applyInParts(disk, id, async ({ settled }) => {
    if (isDisturbed && random() < 0.3) await others.write();
    else if (!hasTwins && settled === null && random() < 0.1) await throwPlanAway(disk, id);
  });
  const refused = covered.filter(
    (entry) => !isNameable(entry) && (entry.kind === 'file' || !isImplying(disk, scope)),
  );
  const pass: Pass = {
    ...{ mountKey, scope, entries, refused, moments, before, since, expected, planned, finished },
  };
  const faults = [
    ...(isDisturbed ? await compareDisturbed(sql, pass, others) : await compare(sql, pass)),
    ...(await finishBeside()),
    ...(isThorough ? await compareSecondScan(disk, scope, covered, entries.length) : []),
  ];
  if (faults.length === 0) return [];
  const how = `${scope.isRecursive ? '' : ', not below'}${isDisturbed ? ', disturbed' : ''}`;
  return [`scan of "${scope.path}"${how}`, ...faults];
}

/** The next call of apply_scan plans again, as after writes of others: not when it records sightings. That must not change the result. */
const throwPlanAway = ({ sql }: Disk, id: string) =>
  sql.query('update filestore.scans set planned = null where id = $1', [id]);

/**
 * Writes to nodes that are found, between the beginning of the scan and the listing: the entries are newer. Not to what leaves
 * a directory that is deleted: that directory stays when something in it was written since the beginning.
 */
async function changePlaced(disk: Disk, { places, deleted }: Expected): Promise<void> {
  const placed = new Set(places.values());
  const known = await readKnown(disk.sql, disk.mountKey);
  const doomed = known.filter(({ id }) => deleted.has(id)).map(({ path }) => `${path}/`);
  const chosen = known.filter(
    ({ id, path }) => placed.has(id) && !doomed.some((above) => path.startsWith(above)),
  );
  await changeCatalogue(disk, chosen);
  await untilOlder(disk.sql);
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
  const { backend_identity: identity, last_modified_at: moment, checksum, ...rest } = entry;
  const isUnknown = kind === 'some births' && sum % 5 === 0;
  return {
    ...rest,
    ...(identity !== undefined && !isUnknown && { backend_identity: identity }),
    ...(moment !== undefined && sum % (kind === 'no births' ? 7 : 2) !== 0 && { last_modified_at: moment }),
    ...(checksum !== undefined && sum % 3 !== 0 && { checksum }),
    ...(entry.kind === 'file' && sum % 11 === 0 && { storage_class: `CLASS ${sum % 3}` }),
  };
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
  const finished = await applyInParts(disk, id);
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
