import type { Entry, ScanOptions } from '../support/rows/scans.ts';

export interface KnownNode {
  readonly id: string;
  readonly path: string;
  readonly kind: 'file' | 'directory';
  readonly identity: string | null;
  readonly isMissing: boolean;
  /** Size and content hash; null for directories, empty files and unknown hashes. */
  readonly content: string | null;
}

/** What a scan covers, and how it pairs. */
export type Scope = Required<Omit<ScanOptions, 'expireAfter'>>;

export interface Expected {
  /** The node of each entry, by path; null for a new one. */
  readonly places: ReadonlyMap<string, string | null>;
  /** Covered nodes that are nowhere, but whose path is free. */
  readonly missing: ReadonlySet<string>;
  /** Covered nodes that are nowhere, and whose path something else has. */
  readonly deleted: ReadonlySet<string>;
  /** Where those are when the directories above them have moved. */
  readonly lastPaths: ReadonlyMap<string, string>;
}

const parentOf = (path: string) => path.slice(0, Math.max(path.lastIndexOf('/'), 0));
const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1);

/** The values that exactly one item has. */
function unique<T>(items: readonly T[], keyOf: (item: T) => string | null): ReadonlyMap<string, T> {
  const all = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    if (key !== null) all.set(key, [...(all.get(key) ?? []), item]);
  }
  return new Map(
    [...all].flatMap(([key, [item, ...others]]) => (others.length === 0 ? [[key, item as T]] : [])),
  );
}

const identityOf = (entry: Entry) => entry.backend_identity ?? null;

/** The key by which files without an identity are paired. */
export const contentOf = (sizeBytes: number | string, hash: string | null | undefined): string | null =>
  hash && Number(sizeBytes) > 0 ? `${sizeBytes} ${hash}` : null;

/**
 * Which node each entry of a scan is: the rules of docs/service.md, one entry after the other. Paths of entries begin at the
 * root of the mount, and the entries contain all directories that paths imply. The nodes are all live ones of the mount.
 */
export function expectPlaces(
  nodes: readonly KnownNode[],
  entries: readonly Entry[],
  scope: Scope = { path: '', isRecursive: true, pairByContent: false },
): Expected {
  const finder = new Places(nodes, entries, scope);
  finder.placeDirectories();
  finder.placeFiles();
  return finder.result();
}

class Places {
  readonly places = new Map<string, string | null>();
  readonly #finalPaths = new Map<string, string>();
  readonly #children = new Map<string, Map<string, KnownNode>>();
  readonly #entriesBelow = new Map<string, Entry[]>();
  readonly #byPath = new Map<string, KnownNode>();

  constructor(
    readonly nodes: readonly KnownNode[],
    readonly entries: readonly Entry[],
    readonly scope: Scope,
  ) {
    for (const node of nodes) this.#byPath.set(node.path, node);
    for (const node of nodes) {
      if (node.path === '') continue;
      const parent = this.#parentIdOf(node);
      const siblings = this.#children.get(parent) ?? new Map();
      this.#children.set(parent, siblings.set(nameOf(node.path), node));
    }
    for (const entry of entries) {
      const below = this.#entriesBelow.get(parentOf(entry.path)) ?? [];
      below.push(entry);
      this.#entriesBelow.set(parentOf(entry.path), below);
    }
  }

  #parentIdOf(node: KnownNode): string {
    return this.#byPath.get(parentOf(node.path))?.id ?? '';
  }

  #isInScope({ path }: KnownNode): boolean {
    const { path: top, isRecursive } = this.scope;
    if (path === '') return false;
    return isRecursive ? top === '' || path.startsWith(`${top}/`) : parentOf(path) === top;
  }

  placeDirectories(): void {
    const top = this.#byPath.get(this.scope.path)?.id ?? '';
    this.#finalPaths.set(top, this.scope.path);
    const { entryPartners, nodePartners } = this.#directoryPartners();
    const place = (above: string, parent: string | null) => {
      for (const entry of this.#entriesBelow.get(above) ?? []) {
        if (entry.kind !== 'directory') continue;
        const there = parent === null ? undefined : this.#children.get(parent)?.get(nameOf(entry.path));
        const occupant = there?.kind === 'directory' ? there : undefined;
        const partner = entryPartners.get(entry.path);
        const stays =
          occupant !== undefined && (occupant.id === partner?.id || !nodePartners.has(occupant.id));
        const chosen = (stays ? occupant : partner)?.id ?? null;
        this.places.set(entry.path, chosen);
        if (chosen !== null) this.#finalPaths.set(chosen, entry.path);
        place(entry.path, chosen);
      }
    };
    place(this.scope.path, top);
  }

  #directoryPartners() {
    const entries = this.entries.filter(({ kind }) => kind === 'directory');
    const entryAt = new Map(entries.map((entry) => [entry.path, entry]));
    const nodes = this.nodes.filter(({ kind }) => kind === 'directory');
    const wanted = entries.filter((entry) => {
      const node = this.#byPath.get(entry.path);
      return node?.kind !== 'directory' || differs(node.identity, identityOf(entry));
    });
    const strays = nodes.filter((node) => {
      // Outside of the scope, an object that another scan saw may have several paths.
      if (!this.#isInScope(node)) return node.isMissing && !`${this.scope.path}/`.startsWith(`${node.path}/`);
      const entry = entryAt.get(node.path);
      return entry === undefined || differs(node.identity, identityOf(entry));
    });
    return pair(wanted, strays, identityOf, ({ identity }) => identity);
  }

  placeFiles(): void {
    const all = this.nodes.filter(({ kind }) => kind === 'file');
    const files = all
      .filter((node) => this.#isInScope(node) || this.#comesAlong(node))
      .map((node) => ({ node, path: this.#finalPathOf(node) }));
    const at = new Map(
      files.flatMap(({ node, path }) => (path === undefined ? [] : [[path, node] as const])),
    );
    const entries = this.entries.filter(({ kind }) => kind === 'file');
    const entryAt = new Map(entries.map((entry) => [entry.path, entry]));
    const wanted = entries.filter((entry) => {
      const node = at.get(entry.path);
      return node === undefined || differs(node.identity, identityOf(entry));
    });
    const vanished = new Set<KnownNode>();
    const strays = files
      .filter(({ node, path }) => {
        const entry = path === undefined ? undefined : entryAt.get(path);
        if (entry === undefined) vanished.add(node);
        return entry === undefined || differs(node.identity, identityOf(entry));
      })
      .map(({ node }) => node);
    const known = new Set(files.map(({ node }) => node));
    const outside = all.filter((node) => node.isMissing && !known.has(node));
    const { entryPartners, nodePartners } = pair(
      wanted,
      [...strays, ...outside],
      (entry) =>
        identityOf(entry) ??
        (this.scope.pairByContent && !at.has(entry.path)
          ? contentOf(entry.size_bytes ?? 0, entry.content_hash)
          : null),
      (node) => node.identity ?? (this.scope.pairByContent && vanished.has(node) ? node.content : null),
    );
    for (const entry of entries) {
      const occupant = at.get(entry.path);
      const stays = occupant !== undefined && !nodePartners.has(occupant.id);
      const chosen = (stays ? occupant : entryPartners.get(entry.path))?.id ?? null;
      this.places.set(entry.path, chosen);
      if (chosen !== null) this.#finalPaths.set(chosen, entry.path);
    }
  }

  /** The path of a node when the directories have moved; undefined below one that is gone. */
  #finalPathOf(node: KnownNode): string | undefined {
    const parent = this.#byPath.get(parentOf(node.path))?.id ?? '';
    const above = this.#finalPaths.get(parent);
    return above === undefined
      ? undefined
      : above === ''
        ? nameOf(node.path)
        : `${above}/${nameOf(node.path)}`;
  }

  /** Whether a node is below a directory that the scan moves in from outside. */
  #comesAlong(node: KnownNode): boolean {
    if (!this.scope.isRecursive || node.path === '') return false;
    const parent = this.#byPath.get(parentOf(node.path));
    if (parent === undefined || this.#isInScope(parent)) return false;
    if (parent.path === this.scope.path) return false;
    return this.#finalPaths.has(parent.id) || this.#comesAlong(parent);
  }

  result(): Expected {
    const missing = new Set<string>();
    const deleted = new Set<string>();
    const taken = new Set(this.entries.map(({ path }) => path));
    // From the top down: what is below a deleted directory is deleted too.
    const lastPaths = new Map<string, string>();
    for (const node of [...this.nodes].sort((a, b) => a.path.length - b.path.length)) {
      if (node.path === '' || this.#finalPaths.has(node.id)) continue;
      const parent = this.#parentIdOf(node);
      const isLost = missing.has(parent) || deleted.has(parent);
      if (!this.#isInScope(node) && !this.#comesAlong(node) && !isLost) continue;
      const above = this.#finalPaths.get(parent) ?? lastPaths.get(parent) ?? '';
      const path = above === '' ? nameOf(node.path) : `${above}/${nameOf(node.path)}`;
      lastPaths.set(node.id, path);
      (deleted.has(parent) || taken.has(path) ? deleted : missing).add(node.id);
    }
    return { places: this.places, missing, deleted, lastPaths };
  }
}

const differs = (a: string | null, b: string | null) => a !== null && b !== null && a !== b;

function pair(
  wanted: readonly Entry[],
  strays: readonly KnownNode[],
  entryKey: (entry: Entry) => string | null,
  nodeKey: (node: KnownNode) => string | null,
) {
  const uniqueEntries = unique(wanted, entryKey);
  const uniqueNodes = unique(strays, nodeKey);
  const pairs = [...uniqueEntries].flatMap(([key, entry]) => {
    const node = uniqueNodes.get(key);
    return node === undefined ? [] : [{ entry, node }];
  });
  return {
    entryPartners: new Map(pairs.map(({ entry, node }) => [entry.path, node])),
    nodePartners: new Set(pairs.map(({ node }) => node.id)),
  };
}
