import type { Expected, KnownNode, Scope } from '../disk/expected.ts';
import { contentOf } from '../disk/expected.ts';
import type { Listed } from './backend.ts';
import { followEntry, isSame } from './following.ts';
import { isLive, type Mount, NO_CONTENT, type Node, type Nodes, type State } from './node.ts';
import type { Model } from './plain-model.ts';

/** A scan between its beginning and its end. */
export interface RunningScan {
  readonly id: number;
  readonly mount: Mount;
  readonly top: Node;
  readonly scope: Scope;
  readonly entries: readonly Listed[];
  /** The nodes when it began. */
  readonly before: Nodes;
  /** What must come out if others write nothing in the meantime. */
  readonly expected: Expected;
  readonly isUndisturbed: boolean;
  /** The nodes after its last step. */
  last: Nodes;
  /** The nodes that others wrote since it began. */
  readonly written: Set<number>;
  /** Its entries in the journal. */
  readonly commands: number[];
}

/** The live nodes of a mount, for {@link expectPlaces}. */
export function knownNodes(model: Model, mount: Mount): readonly KnownNode[] {
  return [...model.nodes.values()]
    .filter((node) => node.mountId === mount.id && isLive(node))
    .map(({ id, path, kind, state, content }) => ({
      id: `${id}`,
      path,
      kind,
      identity: content.backend_identity,
      isMissing: state === 'missing',
      content: kind === 'file' ? contentOf(content.size_bytes ?? 0, content.content_hash) : null,
    }));
}

/** Notes what others wrote since the last step of a scan. */
export function noteWrites(scan: RunningScan, nodes: Nodes): void {
  for (const [id, node] of nodes) {
    if (scan.last.get(id)?.version !== node.version) scan.written.add(id);
  }
}

/** What a step of a scan must not do, whatever others write between its steps. */
export function stepFaults(scan: RunningScan, old: Nodes, nodes: Nodes): string[] {
  const names = new Set(scan.entries.map(({ path }) => path.slice(path.lastIndexOf('/') + 1)));
  return [...nodes.values()].flatMap((node) => {
    const known = old.get(node.id);
    if (known === node) return [];
    if (node.mountId !== scan.mount.id) return [`node ${node.id} of another mount was changed`];
    if (known === undefined) return node.past.length === 0 ? [] : [`node ${node.id} was created and changed`];
    const added = node.past.slice(known.past.length).map(({ version }) => version);
    const between = added.slice(1);
    return [
      ...(scan.written.has(node.id) && !isSameNode(known, node) ? [`node ${node.id} belongs to others`] : []),
      ...(between.every((version) => [known, node].some((end) => isSame(end, version)))
        ? []
        : [`node ${node.id} had another content in between`]),
      // Temporary names end with their transaction.
      ...(node.name === known.name || names.has(node.name)
        ? []
        : [`node ${node.id} has the name ${node.name}`]),
    ];
  });
}

/** What is wrong after a scan during which others wrote nothing. */
export function resultFaults({ mount, entries, before, expected, top }: RunningScan, nodes: Nodes): string[] {
  const faults: string[] = [];
  const own = [...nodes.values()].filter((node) => node.mountId === mount.id);
  const live = new Map(own.filter(isLive).map((node) => [node.path, node]));
  const placed = new Set<number>();
  for (const entry of entries) {
    const node = live.get(entry.path);
    const id = expected.places.get(entry.path);
    if (node === undefined || (id === null ? before.has(node.id) : `${node.id}` !== id)) {
      faults.push(`node ${node?.id} is at "${entry.path}", expected ${id}`);
      continue;
    }
    placed.add(node.id);
    const known = before.get(node.id) ?? { kind: entry.kind, content: NO_CONTENT, state: 'active' as State };
    if (!isSame(followEntry(known, entry), node) || node.kind !== entry.kind) {
      faults.push(`node ${node.id} at "${entry.path}" has other content`);
    }
  }
  for (const node of own) {
    const known = before.get(node.id);
    if (known === undefined) {
      if (!placed.has(node.id)) faults.push(`node ${node.id} at "${node.path}" was created`);
      continue;
    }
    if (isSameNode(known, node) && known.path === node.path && known.version !== node.version) {
      faults.push(`node ${node.id} ("${node.path}") has versions without a change`);
    }
    if (placed.has(node.id)) continue;
    const state = expected.missing.has(`${node.id}`)
      ? 'missing'
      : expected.deleted.has(`${node.id}`)
        ? 'deleted'
        : node.id === top.id && known.state === 'missing'
          ? 'active'
          : known.state;
    if (!isSame({ ...known, state }, node)) {
      faults.push(
        `node ${node.id} ("${node.path}") is ${node.state}, expected ${state}, or has other content`,
      );
    }
    if (state !== 'deleted' && (known.parentId !== node.parentId || known.name !== node.name)) {
      faults.push(`node ${node.id} ("${known.path}") moved to "${node.path}"`);
    }
  }
  return faults;
}

const isSameNode = (one: Node, other: Node): boolean =>
  one.parentId === other.parentId && one.name === other.name && isSame(one, other);
