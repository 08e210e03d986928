import type { QueryResultRow } from 'pg';
import type { Sql } from '../support/rows/nodes.ts';
import type { Listed } from './disk.ts';
import { contentOf, type Expected, type KnownNode, type Scope } from './expected.ts';

/** A scan that has finished. */
export interface Pass {
  readonly mountKey: string;
  readonly scope: Scope;
  /** With paths from the root of the mount on. */
  readonly entries: readonly Listed[];
  readonly before: readonly PlacedNode[];
  readonly expected: Expected;
  /** Its row after the end. */
  readonly finished: QueryResultRow;
}

export interface PlacedNode extends KnownNode {
  readonly place: string;
  readonly state: string;
}

const placeOf = (row: QueryResultRow): string => `${row.parent_id}/${row.name}`;

const rowsOf = async (sql: Sql, text: string, values: unknown[]): Promise<readonly QueryResultRow[]> => {
  const result = await sql.query(text, values);
  return 'rows' in result ? result.rows : result;
};

/** The live nodes of a mount, before a scan. */
export async function readKnown(sql: Sql, mountKey: string): Promise<readonly PlacedNode[]> {
  const rows = await rowsOf(
    sql,
    `select n.* from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id
     where m.mount_key = $1 and n.live`,
    [mountKey],
  );
  return rows.map((row) => ({
    id: row.id,
    path: row.path,
    kind: row.kind,
    identity: row.backend_identity,
    isMissing: row.state === 'missing',
    content: contentOf(row.size_bytes, row.content_hash),
    place: placeOf(row),
    state: row.state,
  }));
}

/** @returns the differences between the catalogue and what must come out. */
export async function compare(sql: Sql, pass: Pass): Promise<readonly string[]> {
  const rows = await rowsOf(
    sql,
    `select n.*, s.last_reconciled_at
     from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id
     left join filestore.node_sightings s on s.node_id = n.id
     where m.mount_key = $1 and n.path <> ''`,
    [pass.mountKey],
  );
  const problems = await rowsOf(sql, 'select * from filestore.check_integrity()', []);
  // All versions since then belong to the scan.
  const strange = await rowsOf(
    sql,
    `select s.id, s.version, s.superseded_by_journal_id from filestore.snapshots s
     where s.backend_mount_id = $1 and s.valid_to >= $2 and (s.superseded_by_journal_id = any ($3)) is not true`,
    [pass.finished.backend_mount_id, pass.finished.started_at, pass.finished.journal_entry_ids],
  );
  return [
    ...strange.map((version) => `not of the scan: ${JSON.stringify(version)}`),
    ...compareCounts(pass),
    ...compareEntries(pass, rows),
    ...compareStates(pass, rows),
    ...compareWithTruth(pass, rows),
    ...problems.map((problem) => JSON.stringify(problem)),
  ];
}

function compareCounts({ before, expected, finished }: Pass) {
  const created = [...expected.places.values()].filter((id) => id === null).length;
  const missing = before.filter(({ id, isMissing }) => !isMissing && expected.missing.has(id)).length;
  const counts = { created, missing, deleted: expected.deleted.size, skipped: 0 };
  return Object.entries(counts).flatMap(([name, count]) =>
    Number(finished[name]) === count ? [] : [`${finished[name]} ${name}, expected ${count}`],
  );
}

function compareEntries({ entries, expected, finished }: Pass, rows: readonly QueryResultRow[]) {
  const active = new Map(rows.filter(({ state }) => state === 'active').map((node) => [node.path, node]));
  return entries.flatMap((entry) => {
    const node = active.get(entry.path);
    const id = expected.places.get(entry.path);
    if (node === undefined) return [`no node at ${entry.path}, expected ${id}`];
    const found = `node ${node.id} at ${entry.path}`;
    if (id !== null && node.id !== id) return [`${found}, expected ${id}`];
    if (id === null && node.version !== 1) return [`${found} is not new`];
    if (node.kind !== entry.kind || !hasContent(node, entry)) return [`${found} has other content`];
    if (node.last_reconciled_at?.getTime() !== finished.started_at.getTime()) {
      return [`${found} was seen at ${node.last_reconciled_at}`];
    }
    return [];
  });
}

function hasContent(node: QueryResultRow, entry: Listed): boolean {
  if (entry.backend_identity !== undefined && node.backend_identity !== entry.backend_identity) return false;
  if (entry.kind === 'directory') return true;
  return (
    node.link_target === (entry.link_target ?? null) &&
    node.size_bytes === String(entry.size_bytes) &&
    node.last_modified_at.toISOString() === entry.last_modified_at &&
    (entry.content_hash === undefined || node.content_hash === entry.content_hash)
  );
}

/** Nodes that the scan covers and did not find are missing or deleted; those that it does not cover stay. */
function compareStates({ before, entries, expected, scope }: Pass, rows: readonly QueryResultRow[]) {
  const states = new Map(rows.map(({ id, state }) => [id as string, state as string]));
  const placed = new Set(expected.places.values());
  const faults = before.flatMap((node) => {
    if (node.path === '' || placed.has(node.id)) return [];
    const wanted = expected.missing.has(node.id)
      ? 'missing'
      : expected.deleted.has(node.id)
        ? 'deleted'
        : node.path === scope.path
          ? 'active'
          : node.state;
    const state = states.get(node.id);
    return state === wanted ? [] : [`node ${node.id} ("${node.path}") is ${state}, expected ${wanted}`];
  });
  const known = new Set(before.map(({ id }) => id));
  const created = rows.filter(({ id, state }) => state !== 'deleted' && !known.has(id)).length;
  const wanted = entries.filter(({ path }) => expected.places.get(path) === null).length;
  return created === wanted ? faults : [...faults, `${created} nodes created, expected ${wanted}`];
}

/**
 * What holds whatever the rules in detail: a node moves only with its object. And in a scan of everything in which all
 * identities are known, the only node of an object stays its node, unless a node whose object is gone keeps its place.
 */
function compareWithTruth(
  { before, entries, scope }: Pass,
  rows: readonly QueryResultRow[],
): readonly string[] {
  const after = new Map(rows.map((row) => [row.id as string, row]));
  const live = new Map(rows.filter((row) => row.live).map((row) => [row.path as string, row]));
  const entryAt = new Map(entries.map((entry) => [entry.path, entry]));
  const wrong = before.flatMap((node) => {
    const now = after.get(node.id);
    const entry = entryAt.get(now?.path);
    if (now === undefined || entry === undefined || placeOf(now) === node.place) return [];
    const isSame = node.identity !== null && node.identity === entry.backend_identity;
    const isTwin = scope.pairByContent && node.content === contentOf(now.size_bytes, now.content_hash);
    return isSame || isTwin ? [] : [`node ${node.id} moved to ${now.path}, which is another object`];
  });
  const isKnown =
    entries.every((entry) => entry.backend_identity) &&
    before.every(({ path, identity }) => path === '' || identity);
  if (scope.path !== '' || !scope.isRecursive || !isKnown) return wrong;

  const keyOf = (kind: string, identity: string | null | undefined) => identity && `${kind} ${identity}`;
  const nodesOf = groupBy(before, (node) => keyOf(node.kind, node.identity));
  const entriesOf = groupBy(entries, (entry) => keyOf(entry.kind, entry.backend_identity));
  const lost = [...entriesOf].flatMap(([key, [entry, ...twins]]) => {
    const [node, ...others] = nodesOf.get(key) ?? [];
    if (entry === undefined || node === undefined || twins.length + others.length > 0) return [];
    const now = live.get(entry.path);
    if (now?.id === node.id) return [];
    const occupant = before.find(({ id }) => id === now?.id);
    const own = keyOf(occupant?.kind ?? '', occupant?.identity);
    const isLeaving = own && entriesOf.get(own)?.length === 1 && nodesOf.get(own)?.length === 1;
    return occupant?.place === placeOf(now ?? {}) && !isLeaving
      ? []
      : [`node ${node.id} lost its object at ${entry.path} to node ${now?.id}`];
  });
  return [...wrong, ...lost];
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string | null | undefined) {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    if (!key) continue;
    const group = groups.get(key) ?? [];
    group.push(item);
    groups.set(key, group);
  }
  return groups;
}
