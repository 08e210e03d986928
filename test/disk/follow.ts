import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mulberry32 } from '../support/mulberry32.ts';
import { one, type Sql } from '../support/rows/nodes.ts';
import { applyOnce, beginScan, type Entry, recordEntries, scan } from '../support/rows/scans.ts';
import { DiskChanges } from './changes.ts';
import { listDisk } from './disk.ts';
import { type Expected, expectPlaces, type KnownNode } from './expected.ts';

export interface FollowOptions {
  readonly seed: number;
  readonly rounds: number;
  readonly changes: number;
  readonly mountKey: string;
}

const rowsOf = async (sql: Sql, text: string, values: unknown[]) => {
  const result = await sql.query(text, values);
  return 'rows' in result ? result.rows : result;
};

/** Changes a tree on disk at random, scans it round after round, and compares. @returns what differs; empty if nothing does. */
export async function followDisk(sql: Sql, options: FollowOptions): Promise<readonly string[]> {
  const { seed, rounds, changes, mountKey } = options;
  const folder = mkdtempSync(join(tmpdir(), 'filestore-disk-'));
  const root = join(folder, 'root');
  mkdirSync(root);
  const random = mulberry32(seed);
  // A new plan may find fewer objects with one identity. So each disk has either hard links, or plans that are thrown away.
  const hasLinks = seed % 2 === 0;
  const disk = new DiskChanges(root, random, hasLinks);
  try {
    await sql.query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ($1, 'local', $2)",
      [mountKey, root],
    );
    for (let round = 0; round < rounds; round += 1) {
      const made = Array.from({ length: changes }, () => disk.change());
      const entries = listDisk(root).map((entry) => withoutSomeIdentities(entry, round));
      const nodes = await readNodes(sql, mountKey);
      const finished = await scanInParts(sql, mountKey, entries, random, !hasLinks);
      const faults = [
        ...(await compare(sql, mountKey, entries, expectPlaces(nodes, entries), finished.began_at)),
        ...(await compareSecondScan(sql, mountKey, entries)),
      ];
      if (faults.length > 0) {
        const last = changes <= 10 ? ` after ${made.join(', ')}` : '';
        return [`seed ${seed}, round ${round}${last}`, ...faults];
      }
    }
    return [];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** One path in five has no identity, each round another one. */
function withoutSomeIdentities({ backend_identity: identity, ...entry }: Entry, round: number): Entry {
  const sum = [...entry.path].reduce((total, character) => total + character.charCodeAt(0), round);
  return identity === undefined || sum % 5 === 0 ? entry : { ...entry, backend_identity: identity };
}

/** Scans in batches of random size. Some plans may be thrown away in the middle, which must not change the result. */
async function scanInParts(
  sql: Sql,
  mountKey: string,
  entries: readonly Entry[],
  random: () => number,
  withNewPlans: boolean,
) {
  const { id } = await beginScan(sql, mountKey);
  for (let start = 0; start < entries.length; start += 5_000) {
    await recordEntries(sql, id, entries.slice(start, start + 5_000));
  }
  for (;;) {
    const state = await applyOnce(sql, id, 1, 1 + Math.floor(random() * 50));
    if (state.state === 'finished') return state;
    if (withNewPlans && random() < 0.2) {
      await sql.query('update filestore.scans set planned = null where id = $1', [id]);
    }
  }
}

async function readNodes(sql: Sql, mountKey: string): Promise<readonly KnownNode[]> {
  const rows = await rowsOf(
    sql,
    `select n.id, n.path, n.kind, n.backend_identity as identity
     from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id
     where m.mount_key = $1 and n.live`,
    [mountKey],
  );
  return rows as unknown as readonly KnownNode[];
}

async function compare(
  sql: Sql,
  mountKey: string,
  entries: readonly Entry[],
  expected: Expected,
  began: Date,
) {
  const nodes = await rowsOf(
    sql,
    `select n.*, s.last_reconciled_at
     from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id
     left join filestore.node_sightings s on s.node_id = n.id
     where m.mount_key = $1 and n.path <> ''`,
    [mountKey],
  );
  const faults: string[] = [];
  const byId = new Map(nodes.map((node) => [node.id as string, node]));
  const active = new Map(nodes.filter(({ state }) => state === 'active').map((node) => [node.path, node]));
  for (const entry of entries) {
    const node = active.get(entry.path);
    const id = expected.places.get(entry.path);
    if (node === undefined) faults.push(`no node at ${entry.path}, expected ${id}`);
    else if (id !== null && node.id !== id) faults.push(`node ${node.id} at ${entry.path}, expected ${id}`);
    else if (id === null && node.version !== 1) faults.push(`node ${node.id} at ${entry.path} is not new`);
    else if (
      node.kind !== entry.kind ||
      (entry.backend_identity !== undefined && node.backend_identity !== entry.backend_identity) ||
      node.link_target !== (entry.link_target ?? null) ||
      (entry.kind === 'file' && node.size_bytes !== String(entry.size_bytes)) ||
      (entry.kind === 'file' && node.last_modified_at.toISOString() !== entry.last_modified_at)
    ) {
      faults.push(`node ${node.id} at ${entry.path} has other content`);
    } else if (node.last_reconciled_at?.getTime() !== began.getTime()) {
      faults.push(`node ${node.id} at ${entry.path} was seen at ${node.last_reconciled_at}`);
    }
  }
  if (active.size !== entries.length) faults.push(`${active.size} active nodes, ${entries.length} entries`);
  for (const id of expected.missing) {
    if (byId.get(id)?.state !== 'missing') faults.push(`node ${id} is ${byId.get(id)?.state}, not missing`);
  }
  for (const id of expected.deleted) {
    if (byId.get(id)?.state !== 'deleted') faults.push(`node ${id} is ${byId.get(id)?.state}, not deleted`);
  }
  const missing = nodes.filter(({ state }) => state === 'missing').length;
  if (missing !== expected.missing.size)
    faults.push(`${missing} nodes missing, expected ${expected.missing.size}`);
  const problems = await rowsOf(sql, 'select * from filestore.check_integrity()', []);
  return [...faults, ...problems.map((problem) => JSON.stringify(problem))];
}

/** Nothing has changed since the last scan, so that another one writes nothing but sightings. */
async function compareSecondScan(sql: Sql, mountKey: string, entries: readonly Entry[]) {
  const count = () =>
    one(
      sql,
      'select (select sum(version) from filestore.nodes) as versions, (select count(*) from filestore.snapshots) as history',
    );
  const before = await count();
  const finished = await scan(sql, mountKey, entries);
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
