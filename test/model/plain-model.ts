import type { Command } from './journal.ts';
import {
  type Change,
  CONTENT_COLUMNS,
  type Content,
  isLive,
  isLiveDirectory,
  isRoot,
  type Kind,
  type Mount,
  type Node,
  type Nodes,
  Refused,
  refuseLongName,
  refuseMalformedRow,
  requireParent,
  type State,
  updatedRow,
} from './node.ts';
import type { RunningScan } from './scanned.ts';

export interface NewNode {
  readonly id: number;
  readonly mountId: number;
  readonly parentId: number;
  readonly name: string;
  readonly kind: Kind;
  readonly content: Content;
  /** Default: active. */
  readonly state?: State;
  /** The parent's path as the writer gives it; without it, the parent is looked up. */
  readonly parentPath?: string;
}

/**
 * The expected content of the catalogue, as maps: no keys, no cascades, no deltas. The database chooses ids and
 * moments, and the model takes them over. Methods refuse before they change anything.
 */
export class Model {
  readonly mounts: readonly Mount[];
  nodes: Nodes = new Map();
  /** The running journal entry under which changes are recorded. */
  journalEntry: number | null = null;
  /** All commands, the oldest first. */
  readonly commands: Command[] = [];
  /** The scan that runs, if there is one. */
  scan: RunningScan | null = null;
  #deletions = 0;
  #statements = 0;
  readonly #moments = new Map<number, string>();

  constructor(mounts: readonly Mount[], roots: readonly NewNode[]) {
    this.mounts = mounts;
    const nodes = new Map<number, Node>();
    for (const root of roots) nodes.set(root.id, { ...freshRow(root), parentId: null });
    this.nodes = settled(new Map(), nodes, null, 0);
  }

  /** Several rows of one statement. */
  insert(rows: readonly NewNode[]): void {
    const draft = new Map(this.nodes);
    for (const row of rows) {
      if (row.parentPath === undefined) requireParent(draft, row.parentId, row.mountId);
      refuseLongName(this.#mount(row.mountId), row.name);
      const node = freshRow(row);
      refuseMalformedRow(node);
      if (liveChild(draft, row.parentId, row.name)) throw new Refused('23505');
      draft.set(node.id, node);
    }
    // Keys are checked after all rows are written.
    for (const { parentPath, parentId, mountId } of rows) {
      const parent = draft.get(parentId);
      const stands = parent && isLiveDirectory(parent) && parent.mountId === mountId;
      if (parentPath !== undefined && (!stands || parent.path !== parentPath)) throw new Refused('23503');
    }
    this.#settle(draft);
  }

  /** One statement on nodes, some of which may not exist. */
  update(ids: readonly number[], change: Change, deletion = this.newDeletion()): void {
    const draft = new Map(this.nodes);
    const refusals: string[] = [];
    for (const id of new Set(ids)) {
      const node = draft.get(id);
      if (node === undefined) continue;
      try {
        draft.set(id, updatedRow(draft, this.#mount(node.mountId), node, change, deletion));
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        refusals.push(...error.codes);
      }
    }
    if (hasTakenName(draft)) refusals.push('23505');
    if (leavesOrphans(draft)) refusals.push('FS409');
    // The database chooses which of several rows comes first.
    if (refusals.length > 0) throw new Refused(...(ids.length > 1 ? refusals : refusals.slice(0, 1)));
    this.#settle(draft);
  }

  remove(ids: readonly number[]): void {
    const draft = new Map(this.nodes);
    for (const id of ids) draft.delete(id);
    this.nodes = draft;
  }

  /** Versions that the database chose, because their order or number follows from no rule. */
  takeOver(nodes: readonly Node[]): void {
    this.#statements += 1;
    const draft = new Map(this.nodes);
    for (const node of nodes) draft.set(node.id, { ...node, statement: this.#statements });
    this.nodes = draft;
  }

  /** Forgets the oldest superseded versions of a node. */
  forget(id: number, count: number): void {
    const node = this.nodes.get(id);
    if (node !== undefined)
      this.nodes = new Map(this.nodes).set(id, { ...node, past: node.past.slice(count) });
  }

  newDeletion(): number {
    this.#deletions += 1;
    return this.#deletions;
  }

  /** The moment of a deletion; undefined until the database has returned it. */
  momentOf(deletion: number): string | undefined {
    return this.#moments.get(deletion);
  }

  /** Takes over the moment of a deletion, and returns whether it agrees with a known one. */
  learnMoment(deletion: number, moment: string): boolean {
    const known = this.#moments.get(deletion);
    if (known !== undefined) return known === moment;
    if ([...this.#moments.values()].includes(moment)) return false;
    this.#moments.set(deletion, moment);
    return true;
  }

  /** The deletion at a moment that the database chose. */
  deletionAt(moment: string): number {
    const known = [...this.#moments].find(([, other]) => other === moment);
    if (known !== undefined) return known[0];
    const deletion = this.newDeletion();
    this.#moments.set(deletion, moment);
    return deletion;
  }

  /** Returns all live nodes at and below a live node, in descending order of path. */
  treeOf(top: Node): Node[] {
    return [...this.nodes.values()]
      .filter((node) => isLive(node) && node.mountId === top.mountId)
      .filter(({ path }) => isRoot(top) || path === top.path || path.startsWith(`${top.path}/`))
      .sort((a, b) => (a.path < b.path ? 1 : -1));
  }

  liveChild(directory: Node, name: string): Node | undefined {
    return liveChild(this.nodes, directory.id, name);
  }

  #mount(id: number): Mount | undefined {
    return this.mounts.find((mount) => mount.id === id);
  }

  #settle(draft: ReadonlyMap<number, Node>): void {
    this.#statements += 1;
    this.nodes = settled(this.nodes, draft, this.journalEntry, this.#statements);
  }
}

function freshRow({ id, mountId, parentId, name, kind, content, state = 'active' }: NewNode): Node {
  const row = { id, mountId, parentId, name, kind, content, state };
  return { ...row, path: '', deletion: null, version: 1, statement: 0, past: [] };
}

/** The nodes after a statement: paths follow their parents, and each changed node has a new version. */
function settled(before: Nodes, draft: Nodes, journalEntry: number | null, statement: number): Nodes {
  const paths = new Map<number, string>();
  const pathOf = (node: Node): string => {
    const known = paths.get(node.id) ?? (isLive(node) ? undefined : node.path);
    if (known !== undefined) return known;
    const parent = node.parentId === null ? undefined : draft.get(node.parentId);
    const above = parent === undefined ? '' : pathOf(parent);
    const path = above === '' ? node.name : `${above}/${node.name}`;
    paths.set(node.id, path);
    return path;
  };
  const after = new Map<number, Node>();
  for (const [id, row] of draft) {
    const old = before.get(id);
    const node = { ...row, path: pathOf(row) };
    if (old === undefined || !differs(old, node)) {
      after.set(id, old ?? node);
    } else {
      const past = [...old.past, { version: old, journalEntry }];
      after.set(id, { ...node, version: old.version + 1, statement, past });
    }
  }
  return after;
}

function differs(old: Node, node: Node): boolean {
  return (
    old.parentId !== node.parentId ||
    old.path !== node.path ||
    old.state !== node.state ||
    CONTENT_COLUMNS.some((column) => old.content[column] !== node.content[column])
  );
}

/** Ignores mounts: for a node on another mount than its parent, the database checks the name first. */
function liveChild(nodes: Nodes, parentId: number, name: string): Node | undefined {
  return [...nodes.values()].find((node) => node.parentId === parentId && node.name === name && isLive(node));
}

function hasTakenName(nodes: Nodes): boolean {
  const names = [...nodes.values()]
    .filter((node) => isLive(node) && !isRoot(node))
    .map(({ parentId, name }) => `${parentId}/${name}`);
  return new Set(names).size < names.length;
}

function leavesOrphans(nodes: Nodes): boolean {
  return [...nodes.values()].some((node) => {
    const parent = nodes.get(node.parentId ?? 0);
    return isLive(node) && parent !== undefined && !isLive(parent);
  });
}
