import type { Listed } from './disk.ts';
import type { Expected, Scope } from './expected.ts';
import { contentAfter, contentDifferences } from './expected-content.ts';
import type { PlacedNode } from './known-nodes.ts';

/** A row of scan_differences. */
export interface PlannedChange {
  readonly number: string;
  readonly action: string;
  readonly kind: string;
  readonly path: string;
  readonly from_path: string | null;
  readonly node_id: string | null;
}

/** One thing that a scan does. */
export type Change = Omit<PlannedChange, 'number'>;

interface Pass {
  readonly refused: readonly Listed[];
  readonly scope: Scope;
  readonly entries: readonly Listed[];
  readonly before: readonly PlacedNode[];
  readonly expected: Expected;
}

const parentOf = (path: string) => path.slice(0, Math.max(path.lastIndexOf('/'), 0));
const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1);

/** What a scan has to do with each node and each entry, in no order. */
export function expectChanges({ scope, entries, refused, before, expected }: Pass): readonly Change[] {
  const nodes = new Map(before.map((node) => [node.id, node]));
  const top = before.find(({ path }) => path === scope.path);
  const placed = entries.flatMap((entry): readonly Change[] => {
    const { path, kind } = entry;
    const node = nodes.get(expected.places.get(path) ?? '');
    if (node === undefined) return [{ action: 'create', kind, path, from_path: null, node_id: null }];
    const parent = parentOf(path) === scope.path ? top?.id : expected.places.get(parentOf(path));
    const isThere = node.parentId === parent && nameOf(node.path) === nameOf(path);
    const action = isThere ? changeOf(node, entry) : 'move';
    return action === undefined ? [] : [{ action, kind, path, from_path: node.path, node_id: node.id }];
  });
  const lost = before.flatMap((node): readonly Change[] => {
    const isDeleted = expected.deleted.has(node.id);
    if (!isDeleted && (node.isMissing || !expected.missing.has(node.id))) return [];
    const action = isDeleted ? 'delete' : 'missing';
    const path = expected.lastPaths.get(node.id) ?? node.path;
    return [{ action, kind: node.kind, path, from_path: node.path, node_id: node.id }];
  });
  // Of the scanned directory, only its state is known.
  const found =
    top?.isMissing === true && top.path !== ''
      ? [{ action: 'find', kind: top.kind, path: top.path, from_path: top.path, node_id: top.id }]
      : [];
  const unnameable = refused.map(({ path, kind }) => ({
    action: 'refuse',
    kind,
    path,
    from_path: null,
    node_id: null,
  }));
  return [...placed, ...lost, ...found, ...unnameable];
}

function changeOf(node: PlacedNode, entry: Listed): string | undefined {
  if (node.isMissing) return 'find';
  return contentDifferences(node.row, contentAfter(node.row, entry)).length > 0 ? 'change' : undefined;
}
