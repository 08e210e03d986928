import type { Entry } from '../support/rows/scans.ts';

export interface KnownNode {
  readonly id: string;
  readonly path: string;
  readonly kind: 'file' | 'directory';
  readonly identity: string | null;
}

export interface Expected {
  /** The node at each path; null for a new one. */
  readonly places: ReadonlyMap<string, string | null>;
  /** Nodes that are nowhere, but whose path is free. */
  readonly missing: ReadonlySet<string>;
  /** Nodes that are nowhere, and whose path something else has. */
  readonly deleted: ReadonlySet<string>;
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

/** Which node each entry of a scan of the whole mount is: the rules of docs/service.md, one entry after the other. */
export function expectPlaces(nodes: readonly KnownNode[], entries: readonly Entry[]): Expected {
  const finder = new Places(nodes, entries);
  finder.placeDirectories('', finder.root);
  finder.placeFiles();
  return finder.result();
}

class Places {
  readonly places = new Map<string, string | null>();
  readonly #finalPaths = new Map<string, string>();
  readonly #children = new Map<string, Map<string, KnownNode>>();
  readonly #entriesBelow = new Map<string, Entry[]>();
  readonly #byPath = new Map<string, KnownNode>();
  readonly root: string;

  constructor(
    readonly nodes: readonly KnownNode[],
    readonly entries: readonly Entry[],
  ) {
    for (const node of nodes) this.#byPath.set(node.path, node);
    for (const node of nodes) {
      if (node.path === '') continue;
      const parent = this.#byPath.get(parentOf(node.path))?.id ?? '';
      const siblings = this.#children.get(parent) ?? new Map();
      this.#children.set(parent, siblings.set(nameOf(node.path), node));
    }
    for (const entry of entries) {
      const below = this.#entriesBelow.get(parentOf(entry.path)) ?? [];
      this.#entriesBelow.set(parentOf(entry.path), [...below, entry]);
    }
    this.root = this.#byPath.get('')?.id ?? '';
    this.#finalPaths.set(this.root, '');
  }

  placeDirectories(path: string, nodeId: string | null): void {
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
    place(path, nodeId);
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
      const entry = entryAt.get(node.path);
      return entry === undefined || differs(node.identity, identityOf(entry));
    });
    return pair(wanted, strays);
  }

  placeFiles(): void {
    const files = this.nodes
      .filter(({ kind, path }) => kind === 'file' && path !== '')
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
    const strays = files
      .filter(({ node, path }) => {
        const entry = path === undefined ? undefined : entryAt.get(path);
        return entry === undefined || differs(node.identity, identityOf(entry));
      })
      .map(({ node }) => node);
    const { entryPartners, nodePartners } = pair(wanted, strays);
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

  result(): Expected {
    const missing = new Set<string>();
    const deleted = new Set<string>();
    const taken = new Set(this.entries.map(({ path }) => path));
    // From the top down: what is below a deleted directory is deleted too.
    const lastPaths = new Map<string, string>();
    for (const node of [...this.nodes].sort((a, b) => a.path.length - b.path.length)) {
      if (node.path === '' || this.#finalPaths.has(node.id)) continue;
      const parent = this.#byPath.get(parentOf(node.path))?.id ?? '';
      const above = this.#finalPaths.get(parent) ?? lastPaths.get(parent) ?? '';
      const path = above === '' ? nameOf(node.path) : `${above}/${nameOf(node.path)}`;
      lastPaths.set(node.id, path);
      (deleted.has(parent) || taken.has(path) ? deleted : missing).add(node.id);
    }
    return { places: this.places, missing, deleted };
  }
}

const differs = (a: string | null, b: string | null) => a !== null && b !== null && a !== b;

function pair(wanted: readonly Entry[], strays: readonly KnownNode[]) {
  const uniqueEntries = unique(wanted, identityOf);
  const uniqueNodes = unique(strays, ({ identity }) => identity);
  const pairs = [...uniqueEntries].flatMap(([identity, entry]) => {
    const node = uniqueNodes.get(identity);
    return node === undefined ? [] : [{ entry, node }];
  });
  return {
    entryPartners: new Map(pairs.map(({ entry, node }) => [entry.path, node])),
    nodePartners: new Set(pairs.map(({ node }) => node.id)),
  };
}
