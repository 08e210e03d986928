import type { QueryResultRow } from 'pg';
import { expect } from 'vitest';
import { until } from '../until.ts';
import { one, type Sql } from './nodes.ts';

/** What a service records of one object. Moments are ISO texts. */
export interface Entry {
  readonly path: string;
  readonly kind?: 'file' | 'directory';
  readonly size_bytes?: number;
  readonly last_modified_at?: string;
  readonly backend_identity?: string;
  readonly content_hash?: string;
  readonly checksum?: string;
  readonly storage_class?: string;
  readonly link_target?: string;
}

export interface ScanOptions {
  readonly path?: string;
  readonly isRecursive?: boolean;
  readonly pairByContent?: boolean;
  readonly expireAfter?: string;
}

/** Begins a scan when all nodes are older: it leaves alone what was written in the millisecond in which it begins. */
export async function beginScan(
  sql: Sql,
  mountKey: string,
  options: ScanOptions = {},
): Promise<QueryResultRow> {
  const { path = '', isRecursive = true, pairByContent = false, expireAfter = '1 hour' } = options;
  await untilOlder(sql);
  return one(sql, "select * from filestore.begin_scan($1, $2, $3, $4, 'ada', $5)", [
    mountKey,
    path,
    isRecursive,
    pairByContent,
    expireAfter,
  ]);
}

/** Waits until the clock of the database is past the moments of all nodes. */
export async function untilOlder(sql: Sql): Promise<void> {
  const older = `
    select not exists (
      select from filestore.nodes where updated_at >= date_trunc('milliseconds', clock_timestamp())
    ) as older`;
  await until(async () => (await one(sql, older)).older);
}

export async function recordEntries(
  sql: Sql,
  scanId: string,
  entries: readonly unknown[],
  directory = '',
  listedAt: string | null = null,
): Promise<number> {
  const row = await one(sql, 'select filestore.record_entries($1, $2, $3, $4) as recorded', [
    scanId,
    JSON.stringify(entries),
    directory,
    listedAt,
  ]);
  return row.recorded;
}

/** Begins a scan, and records all that it finds. @returns its id. */
export async function recordScan(sql: Sql, mountKey: string, entries: readonly Entry[]): Promise<string> {
  const { id } = await beginScan(sql, mountKey);
  await recordEntries(sql, id, entries);
  return id;
}

/** One call of apply_scan. */
export const applyOnce = (sql: Sql, scanId: string, share = 1, maxNodes = 10_000) =>
  one(sql, 'select * from filestore.apply_scan($1, $2, $3)', [scanId, share, maxNodes]);

/** Calls apply_scan until the scan has finished. */
export async function applyScan(
  sql: Sql,
  scanId: string,
  share = 1,
  maxNodes = 10_000,
): Promise<QueryResultRow> {
  for (;;) {
    const scan = await applyOnce(sql, scanId, share, maxNodes);
    if (scan.state === 'finished') return scan;
  }
}

/** A whole scan. @returns its row. */
export async function scan(
  sql: Sql,
  mountKey: string,
  entries: readonly Entry[],
  options: ScanOptions = {},
  maxNodes = 10_000,
): Promise<QueryResultRow> {
  const { id } = await beginScan(sql, mountKey, options);
  for (let start = 0; start < entries.length; start += 5_000) {
    await recordEntries(sql, id, entries.slice(start, start + 5_000));
  }
  return applyScan(sql, id, 1, maxNodes);
}

/** Scans twice: the second time, nothing changes. @returns the row of the first scan. */
export async function scanTwice(
  sql: Sql,
  mountKey: string,
  entries: readonly Entry[],
): Promise<QueryResultRow> {
  const first = await scan(sql, mountKey, entries);
  const second = await scan(sql, mountKey, entries);
  for (const count of ['created', 'moved', 'changed', 'found', 'missing', 'deleted', 'skipped']) {
    expect({ [count]: second[count] }).toEqual({ [count]: '0' });
  }
  return first;
}

/** What a scan would do, without doing it: lines such as `move a -> b`. */
export async function differences(sql: Sql, scanId: string): Promise<readonly string[]> {
  const result = await sql.query('select * from filestore.scan_differences($1)', [scanId]);
  const rows = 'rows' in result ? result.rows : result;
  return rows.map(({ action, path, from_path: from }) =>
    from === null || from === path ? `${action} ${path}` : `${action} ${from} -> ${path}`,
  );
}

export const file = (path: string, identity?: string, sizeBytes = 1, more: Partial<Entry> = {}): Entry => ({
  path,
  kind: 'file',
  size_bytes: sizeBytes,
  ...(identity !== undefined && { backend_identity: identity }),
  ...more,
});

export const manyFiles = (count: number): readonly Entry[] =>
  Array.from({ length: count }, (_, index) => file(`f${index}`, `i${index}`));

export const directory = (path: string, identity?: string): Entry => ({
  path,
  kind: 'directory',
  ...(identity !== undefined && { backend_identity: identity }),
});

/** The ids of the live nodes of a mount by their paths, without the root. */
export async function readIds(sql: Sql, mountKey: string): Promise<Readonly<Record<string, string>>> {
  const result = await sql.query(
    `select n.path, n.id from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id
     where m.mount_key = $1 and n.live and n.path <> ''`,
    [mountKey],
  );
  const rows = 'rows' in result ? result.rows : result;
  return Object.fromEntries(rows.map(({ path, id }) => [path, id]));
}

/** Lines such as `a/x missing` for all nodes of a mount, deleted ones too, in the order of their paths. */
export async function readStates(sql: Sql, mountKey: string): Promise<readonly string[]> {
  const result = await sql.query(
    `select n.path || ' ' || n.state as line from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id
     where m.mount_key = $1 and n.path <> '' order by n.path, n.id`,
    [mountKey],
  );
  const rows = 'rows' in result ? result.rows : result;
  return rows.map(({ line }) => line);
}
