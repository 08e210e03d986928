import type { Row } from './staged.ts';

/** A row of a table of full paths without ids and versions. Moments are milliseconds. */
interface PathRow {
  readonly path: string;
  readonly kind: 'file' | 'directory';
  created: number;
  updated: number;
  deleted: number | null;
  size: number;
  /** The service forgets it, and the mount keeps its node. */
  isGone: boolean;
}

/** What the mount has of a node, by the rules of docs/import.md for rows without ids. */
export interface PathNode {
  readonly path: string;
  readonly kind: 'file' | 'directory';
  readonly created: number;
  updated: number;
  deleted: number | null;
  size: number;
  version: number;
  readonly history: { readonly version: number; readonly size: number; readonly deleted: number | null }[];
}

const DAY = 86_400_000;

const idOf = (node: PathNode | undefined, ids: ReadonlyMap<PathNode, string>) =>
  node === undefined ? null : (ids.get(node) ?? null);

/** A table of paths that changes at random, and the nodes that imports of it make. */
export class PathTable {
  readonly nodes: PathNode[] = [];
  private readonly rows: PathRow[] = [];
  /** Since the last import. Deleted again before the next one, a directory would be another tombstone than the one with its nodes. */
  private readonly restored = new Set<PathRow>();
  private readonly random: () => number;
  private now = Date.UTC(2024, 0, 1);

  constructor(random: () => number) {
    this.random = random;
  }

  private pick<Value>(values: readonly Value[]): Value | undefined {
    return values[Math.floor(this.random() * values.length)];
  }

  private isTaken(path: string): boolean {
    return (
      this.rows.some((row) => row.path === path && row.deleted === null) ||
      this.nodes.some((node) => node.path === path && node.deleted === null && this.isForgotten(node))
    );
  }

  /** A live node that no row deletes any more. */
  private isForgotten(node: PathNode): boolean {
    return this.rows.every(({ path, isGone }) => path !== node.path || isGone);
  }

  change(): void {
    this.now += 1 + Math.floor(this.random() * DAY);
    const rows = this.rows.filter(({ isGone }) => !isGone);
    const live = rows.filter(({ deleted }) => deleted === null);
    const choice = this.random();
    const row = this.pick(live);
    if (choice < 0.45 || row === undefined) this.create(live);
    else if (choice < 0.65) this.write(row);
    else if (choice < 0.85) this.delete(row, live);
    else if (choice < 0.97) this.restore(rows);
    else if (row.kind === 'file' && !row.path.includes('/')) row.isGone = true;
  }

  private create(live: readonly PathRow[]): void {
    const above =
      this.pick(['', ...live.filter(({ kind }) => kind === 'directory').map(({ path }) => `${path}/`)]) ?? '';
    const kind = this.random() < 0.3 ? 'directory' : 'file';
    const path = `${above}${kind[0]}${Math.floor(this.random() * 4)}`;
    if (this.isTaken(path)) return;
    const moments = { created: this.now, updated: this.now, deleted: null };
    this.rows.push({ path, kind, ...moments, size: 0, isGone: false });
  }

  private write(row: PathRow): void {
    if (row.kind === 'directory') return;
    row.size += 1 + Math.floor(this.random() * 1000);
    row.updated = this.now;
  }

  private delete(row: PathRow, live: readonly PathRow[]): void {
    const tree = live.filter(({ path }) => path === row.path || path.startsWith(`${row.path}/`));
    if (tree.some((other) => other.kind === 'directory' && this.restored.has(other))) return;
    for (const other of tree) {
      Object.assign(other, { updated: this.now, deleted: this.now });
    }
  }

  private restore(rows: readonly PathRow[]): void {
    const row = this.pick(rows.filter(({ deleted, path }) => deleted !== null && !this.isTaken(path)));
    const above = row?.path.slice(0, Math.max(row.path.lastIndexOf('/'), 0));
    if (
      row === undefined ||
      (above !== '' && !rows.some(({ path, deleted }) => path === above && deleted === null))
    )
      return;
    Object.assign(row, { updated: this.now, deleted: null });
    this.restored.add(row);
  }

  /** The rows, in any order. Some have the id of their node, if it is known. */
  staged(ids: ReadonlyMap<PathNode, string>): readonly Row[] {
    const found = this.find();
    const toText = (at: number | null) => (at === null ? null : new Date(at).toISOString());
    return this.rows
      .filter(({ isGone }) => !isGone)
      .map((row) => ({
        ...{ path: row.path, kind: row.kind, size_bytes: row.size, created_at: toText(row.created) },
        ...{ updated_at: toText(row.updated), deleted_at: toText(row.deleted) },
        id: this.random() < 0.3 ? idOf(found.get(row), ids) : null,
        place: this.random(),
      }))
      .sort((a, b) => a.place - b.place)
      .map(({ place: _, ...row }) => row);
  }

  /** The node of each row that is not a new one. */
  private find(): ReadonlyMap<PathRow, PathNode> {
    const rows = this.rows.filter(({ isGone }) => !isGone);
    const lastCreated = Math.max(0, ...this.nodes.map(({ created }) => created));
    const found = new Map<PathRow, PathNode>();
    const isFree = (node: PathNode) => ![...found.values()].includes(node);
    const match = (row: PathRow, fits: (node: PathNode) => boolean) => {
      const [node] = this.nodes
        .filter((other) => other.path === row.path && other.kind === row.kind && isFree(other) && fits(other))
        .sort((a, b) => (b.deleted ?? 0) - (a.deleted ?? 0));
      if (node !== undefined && !found.has(row)) found.set(row, node);
    };
    const live = rows.filter(({ deleted }) => deleted === null);
    const dead = rows
      .filter(({ deleted }) => deleted !== null)
      .sort((a, b) => Number(a.deleted) - Number(b.deleted));
    for (const row of live) match(row, ({ deleted }) => deleted === null);
    for (const row of dead) match(row, ({ deleted }) => deleted === row.deleted);
    for (const row of dead) {
      if (live.some(({ path }) => path === row.path)) continue;
      match(
        row,
        ({ deleted, created }) =>
          deleted === null && created <= Number(row.deleted) && created <= lastCreated,
      );
    }
    for (const row of live) match(row, ({ deleted, created }) => deleted !== null && created === row.created);
    return found;
  }

  /** Imports the rows into the model, and returns how many nodes are new or changed. */
  import(): number {
    const found = this.find();
    this.restored.clear();
    return this.rows.filter((row) => !row.isGone && this.take(row, found.get(row))).length;
  }

  /** Whether the row is a new node, or changes its node. */
  private take(
    { path, kind, created, updated, deleted, size }: PathRow,
    node: PathNode | undefined,
  ): boolean {
    if (node === undefined) {
      this.nodes.push({ path, kind, created, updated, deleted, size, version: 1, history: [] });
      return true;
    }
    if (node.updated === updated && node.deleted === deleted && node.size === size) return false;
    node.history.push({ version: node.version, size: node.size, deleted: node.deleted });
    Object.assign(node, { updated, deleted, size, version: node.version + 1 });
    return true;
  }
}
