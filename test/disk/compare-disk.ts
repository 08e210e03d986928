import type { QueryResultRow } from 'pg';
import type { Sql } from '../support/rows/nodes.ts';
import { compareOrder } from './compare-order.ts';
import type { Listed } from './disk.ts';
import { contentOf, type Expected, type Scope } from './expected.ts';
import { type Change, expectChanges, type PlannedChange } from './expected-changes.ts';
import { contentAfter, contentDifferences, contentOfNew, contentOfNode } from './expected-content.ts';
import { type NodeRow, type PlacedNode, readNodes, rowsOf } from './known-nodes.ts';

/** A scan that has finished. */
export interface Pass {
  readonly mountKey: string;
  readonly scope: Scope;
  /** With paths from the root of the mount on. */
  readonly entries: readonly Listed[];
  /** Those that no node can be. */
  readonly refused: readonly Listed[];
  /** When each entry was listed, by its path. */
  readonly moments: ReadonlyMap<string, Date>;
  readonly before: readonly PlacedNode[];
  /** When those were read. */
  readonly since: Date;
  readonly expected: Expected;
  /** What it was about to do, if that was listed. */
  readonly planned: readonly PlannedChange[] | undefined;
  /** Its row after the end. */
  readonly finished: QueryResultRow;
}

const parentOf = (path: string) => path.slice(0, Math.max(path.lastIndexOf('/'), 0));
const placeOf = (row: NodeRow): string => `${row.parent_id}/${row.name}`;

/** @returns the differences between the catalogue and what must come out. */
export async function compare(sql: Sql, pass: Pass): Promise<readonly string[]> {
  const rows = (await readNodes(sql, pass.mountKey)).filter(({ path }) => path !== '');
  const changes = expectChanges(pass);
  // All versions since then belong to the scan.
  const strange = await rowsOf(
    sql,
    `select s.id, s.version, s.superseded_by_journal_id from filestore.snapshots s
     where s.backend_mount_id = $1 and s.valid_to >= $2 and (s.superseded_by_journal_id = any ($3)) is not true`,
    [pass.finished.backend_mount_id, pass.since, pass.finished.journal_entry_ids],
  );
  return [
    ...strange.map((version) => `not of the scan: ${JSON.stringify(version)}`),
    ...comparePlan(pass, changes),
    ...compareCounts(pass, changes),
    ...comparePlaces(pass, rows),
    ...(await compareJournal(sql, pass, changes, rows)),
    ...compareWithTruth(pass, rows),
  ];
}

/** Of the given rows of nodes, which are those of the pass. */
export const comparePlaces = (pass: Pass, rows: readonly NodeRow[]): readonly string[] => [
  ...compareEntries(pass, rows),
  ...compareStates(pass, rows),
  ...compareVersions(pass, expectChanges(pass), rows),
];

/** What the scan listed before it was applied is what it had to do. */
function comparePlan({ planned }: Pass, changes: readonly Change[]): readonly string[] {
  if (planned === undefined) return [];
  const lineOf = (change: Change) =>
    [change.action, change.kind, change.path, change.from_path, change.node_id].join(' ');
  const listed = new Set(planned.map(lineOf));
  const wanted = new Set(changes.map(lineOf));
  return [
    ...[...listed].filter((line) => !wanted.has(line)).map((line) => `lists "${line}"`),
    ...[...wanted].filter((line) => !listed.has(line)).map((line) => `does not list "${line}"`),
    ...(planned.length === listed.size ? [] : ['lists a change twice']),
    ...compareOrder(planned),
  ];
}

function compareCounts(pass: Pass, changes: readonly Change[]): readonly string[] {
  const { entries, finished } = pass;
  const numberOf = (action: string) => changes.filter((change) => change.action === action).length;
  const counts = {
    created: numberOf('create'),
    moved: numberOf('move'),
    changed: numberOf('change'),
    found: numberOf('find'),
    missing: numberOf('missing'),
    deleted: numberOf('delete'),
    skipped: 0,
    refused: numberOf('refuse'),
    seen: entries.length + (isTopFound(pass) ? 1 : 0),
  };
  return Object.entries(counts).flatMap(([name, count]) =>
    Number(finished[name]) === count ? [] : [`${finished[name]} ${name}, expected ${count}`],
  );
}

const isTopFound = ({ before, scope }: Pass): boolean =>
  scope.path !== '' && before.some(({ path, isMissing }) => path === scope.path && isMissing);

/** Each entry is at its place, with what it says, and was seen when it was listed. */
function compareEntries({ entries, expected, before, moments }: Pass, rows: readonly NodeRow[]) {
  const live = new Map(rows.filter((row) => row.live).map((row) => [row.path, row]));
  const known = new Map(before.map((node) => [node.id, node.row]));
  return entries.flatMap((entry) => {
    const node = live.get(entry.path);
    const id = expected.places.get(entry.path);
    if (node === undefined) return [`no node at ${entry.path}, expected ${id}`];
    const found = `node ${node.id} at ${entry.path}`;
    if (id !== null && node.id !== id) return [`${found}, expected ${id}`];
    if (id === null && node.version !== 1) return [`${found} is not new`];
    if (node.kind !== entry.kind) return [`${found} is of another kind`];
    const old = known.get(node.id);
    const content = old === undefined ? contentOfNew(entry) : contentAfter(old, entry);
    const moment = latest(moments.get(entry.path), old?.last_reconciled_at).getTime();
    const faults = contentDifferences(node, content);
    if (node.last_seen_at?.getTime() !== moment || node.last_reconciled_at?.getTime() !== moment) {
      return [`${found} was seen at ${node.last_seen_at?.toISOString()}, not ${moment}`, ...faults];
    }
    return faults.map((fault) => `${found}: ${fault}`);
  });
}

const latest = (...moments: readonly (Date | null | undefined)[]): Date =>
  new Date(Math.max(...moments.map((moment) => moment?.getTime() ?? 0)));

/** Nodes that the scan covers and did not find are missing or deleted; those that it does not cover stay. */
function compareStates({ before, entries, expected, scope }: Pass, rows: readonly NodeRow[]) {
  const after = new Map(rows.map((row) => [row.id, row]));
  const placed = new Set(expected.places.values());
  const faults = before.flatMap((node) => {
    if (node.path === '' || placed.has(node.id)) return [];
    const wanted = expected.missing.has(node.id)
      ? 'missing'
      : expected.deleted.has(node.id)
        ? 'deleted'
        : node.path === scope.path && node.isMissing
          ? 'active'
          : node.state;
    const row = after.get(node.id);
    const found = `node ${node.id} ("${node.path}")`;
    const changes =
      row === undefined
        ? ['is gone']
        : contentDifferences(row, { ...contentOfNode(node.row), state: wanted });
    const isSeen = row?.last_reconciled_at?.getTime() !== node.row.last_reconciled_at?.getTime();
    return [
      ...changes.map((change) => `${found}: ${change}`),
      ...(isSeen && node.path !== scope.path ? [`${found} was seen`] : []),
    ];
  });
  const known = new Set(before.map(({ id }) => id));
  const created = rows.filter(({ id, live }) => live && !known.has(id)).length;
  const wanted = entries.filter(({ path }) => expected.places.get(path) === null).length;
  return created === wanted ? faults : [...faults, `${created} nodes created, expected ${wanted}`];
}

/**
 * A node gets one version for all that is listed of it, and none for nothing. Not compared: what is in moved directories, moves
 * of directories, and nodes that move out of the way twice, since a directory comes to their place, or since they are in a circle.
 */
function compareVersions(
  { before }: Pass,
  changes: readonly Change[],
  rows: readonly NodeRow[],
): readonly string[] {
  const changeOf = new Map(changes.map((change) => [change.node_id, change]));
  const moves = changes.filter(({ action }) => action === 'move');
  const moveFrom = new Map(moves.map((change) => [change.from_path, change]));
  const moved = new Set(moves.flatMap(({ kind, from_path: from }) => (kind === 'directory' ? [from] : [])));
  const taken = new Set(
    changes.flatMap(({ action, kind, path }) => (action !== 'find' && kind === 'directory' ? [path] : [])),
  );
  const isInCircle = (change: Change): boolean => {
    let next = moveFrom.get(change.path);
    while (next !== undefined && next !== change) next = moveFrom.get(next.path);
    return next === change;
  };
  const isAmong = (paths: ReadonlySet<string | null>, path: string): boolean =>
    path !== '' && (paths.has(path) || isAmong(paths, parentOf(path)));
  const after = new Map(rows.map((row) => [row.id, row]));
  return before.flatMap((node) => {
    const row = after.get(node.id);
    const change = changeOf.get(node.id);
    if (row === undefined || isAmong(moved, parentOf(node.path))) return [];
    if (change?.action === 'move') {
      if (node.kind === 'directory' || isAmong(taken, node.path) || isAmong(taken, change.path)) return [];
      if (isInCircle(change)) return [];
    }
    const version = node.row.version + (change === undefined ? 0 : 1);
    return row.version === version
      ? []
      : [`node ${node.id} (${node.path}) is at version ${row.version}, expected ${version}`];
  });
}

/** The command of the scan succeeded with its counts, and names the nodes that it changed. */
async function compareJournal(
  sql: Sql,
  pass: Pass,
  changes: readonly Change[],
  rows: readonly NodeRow[],
): Promise<readonly string[]> {
  const commands = await rowsOf<{
    status: string;
    result: Record<string, number>;
    affected_node_ids: string[];
  }>(sql, 'select status, result, affected_node_ids from filestore.journal_entries where id = any ($1)', [
    pass.finished.journal_entry_ids,
  ]);
  const [command] = commands;
  if (command === undefined || commands.length > 1) return [`has ${commands.length} commands`];
  const known = new Set(pass.before.map(({ id }) => id));
  const changed = changes.flatMap(({ node_id: id }) => (id === null ? [] : [id]));
  const created = rows.filter(({ id, live }) => live && !known.has(id)).map(({ id }) => id);
  const lists = (ids: readonly string[]) => [...ids].sort().join();
  const named = lists(command.affected_node_ids);
  const affected = lists([...changed, ...created]);
  const wrong = Object.entries(command.result).filter(
    ([name, count]) => Number(pass.finished[name]) !== count,
  );
  return [
    ...(command.status === 'succeeded' ? [] : [`its command ${command.status}`]),
    ...wrong.map(([name, count]) => `its command counts ${count} ${name}`),
    ...(named === affected ? [] : [`its command names ${named}, expected ${affected}`]),
  ];
}

/**
 * What holds whatever the rules in detail: a node moves only with its object. And in a scan of everything in which all
 * identities are known, the only node of an object stays its node, unless a node whose object is gone keeps its place.
 */
function compareWithTruth({ before, entries, scope }: Pass, rows: readonly NodeRow[]): readonly string[] {
  const after = new Map(rows.map((row) => [row.id, row]));
  const live = new Map(rows.filter((row) => row.live).map((row) => [row.path, row]));
  const entryAt = new Map(entries.map((entry) => [entry.path, entry]));
  const wrong = before.flatMap((node) => {
    const now = after.get(node.id);
    const entry = entryAt.get(now?.path ?? '');
    if (now === undefined || entry === undefined || placeOf(now) === placeOf(node.row)) return [];
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
    return occupant !== undefined && now !== undefined && placeOf(occupant.row) === placeOf(now) && !isLeaving
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
