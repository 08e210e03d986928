import type { QueryResultRow } from 'pg';
import { one, type Sql } from '../support/rows/nodes.ts';
import { applyOnce, type Entry, recordEntries } from '../support/rows/scans.ts';
import type { DiskKind, Listed } from './disk.ts';
import type { Scope } from './expected.ts';
import type { PlannedChange } from './expected-changes.ts';
import { rowsOf } from './known-nodes.ts';

/** A directory tree with the mount that scans it. */
export interface Disk {
  readonly sql: Sql;
  readonly mountKey: string;
  readonly root: string;
  readonly kind: DiskKind;
  readonly random: () => number;
  readonly hasTwins: boolean;
}

/** Of a bucket, a scan of everything below a path lists only files: they imply the directories. */
export const isImplying = ({ kind }: Disk, { isRecursive }: Scope): boolean =>
  kind === 'bucket' && isRecursive;

/** A name with a control character is no name of a node. */
export const isNameable = ({ path }: Listed): boolean => !/\p{Cc}/u.test(path);

/** Records entries in parts; late ones were all listed after the beginning. @returns when each path counts as listed: a directory no later than what is in it. */
export async function record(
  disk: Disk,
  id: string,
  scope: Scope,
  entries: readonly Listed[],
  isLate = false,
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
    const isFirst = part === 0 && !isLate;
    const moment: Date = isFirst ? began : now;
    await recordEntries(disk.sql, id, below, '', isFirst ? null : moment.toISOString());
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
export async function listDifferences({ sql, random }: Disk, id: string): Promise<readonly PlannedChange[]> {
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

/** A scan of a random disk has a few hundred changes. */
const MOST_CALLS = 300;

/** Applies in batches of random size, or of one node, and lets others work between two of them. @returns the finished scan. */
export async function applyInParts(
  { sql, random }: Disk,
  id: string,
  between: (scan: QueryResultRow) => Promise<unknown> = async () => undefined,
): Promise<QueryResultRow> {
  const largest = random() < 0.3 ? 1 : 50;
  for (let calls = 0; calls < MOST_CALLS; calls += 1) {
    const state = await applyOnce(sql, id, 1, 1 + Math.floor(random() * largest));
    if (state.state === 'finished') return state;
    await between(state);
  }
  throw new Error('The scan does not end.');
}
