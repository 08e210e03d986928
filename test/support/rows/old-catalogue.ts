import type { Row } from './staged.ts';

/** What a node had during one of its versions. Moments are milliseconds. */
export interface State {
  readonly version: number;
  readonly updatedAt: number;
  readonly parent: number | null;
  readonly name: string;
  readonly path: string;
  readonly state: string;
  readonly deletedAt: number | null;
  readonly endedBy: number | null;
  readonly content: Row;
}

export interface OldNode {
  readonly id: number;
  readonly kind: 'file' | 'directory';
  readonly createdAt: number;
  now: State;
  /** Its earlier versions, each with the path that it had last. */
  readonly history: State[];
}

// The names sort just beside a slash, so that paths beside a directory differ from those in it.
const NAMES = ['a', 'a0', 'a-', 'a.', 'b', 'ü', 'c c', '~'];
const DAY = 86_400_000;
const FIRST_ID = 10;

/** The content that an import without any column of content gives a node. */
export const NO_CONTENT: Row = {
  size_bytes: '0',
  checksum: null,
  content_hash: null,
  storage_class: null,
  link_target: null,
  metadata: {},
  last_modified_at: null,
  backend_identity: null,
};

export function directoryOf(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf('/'), 0));
}

/** A catalogue in memory, which changes at random as its service would change it. */
export class OldCatalogue {
  readonly nodes: OldNode[] = [];
  private readonly random: () => number;
  private readonly movesDirectories: boolean;
  private now = Date.UTC(2024, 0, 1);

  constructor(random: () => number, { movesDirectories = true } = {}) {
    this.random = random;
    this.movesDirectories = movesDirectories;
  }

  pick<Value>(values: readonly Value[]): Value | undefined {
    return values[Math.floor(this.random() * values.length)];
  }

  chance(share: number): boolean {
    return this.random() < share;
  }

  shuffle<Value>(values: readonly Value[]): readonly Value[] {
    return values
      .map((value) => ({ value, place: this.random() }))
      .sort((a, b) => a.place - b.place)
      .map(({ value }) => value);
  }

  isLive(node: OldNode): boolean {
    return node.now.state !== 'deleted';
  }

  find(id: number | null): OldNode | undefined {
    return this.nodes.find((node) => node.id === id);
  }

  /** The path of a live node, or that at which another one was deleted. */
  pathOf(node: OldNode): string {
    if (!this.isLive(node)) return node.now.path;
    const parent = this.find(node.now.parent);
    return parent === undefined ? node.now.name : `${this.pathOf(parent)}/${node.now.name}`;
  }

  /** The live directory at a path, or else the one that was deleted last. */
  directoryAt(path: string): OldNode | undefined {
    const [first] = this.nodes
      .filter((node) => node.kind === 'directory' && this.pathOf(node) === path)
      .sort(
        (a, b) =>
          Number(this.isLive(b)) - Number(this.isLive(a)) || (b.now.deletedAt ?? 0) - (a.now.deletedAt ?? 0),
      );
    return first;
  }

  /** Makes one change at random, or none if the choice cannot be made. */
  change(isPinned: (node: OldNode) => boolean = () => false): void {
    this.now += 1 + Math.floor(this.random() * DAY);
    const choice = this.random();
    const node = this.pick(this.nodes.filter((other) => this.isLive(other)));
    if (choice < 0.35 || node === undefined) this.create();
    else if (choice < 0.55) this.advance(node, { content: this.content(node.kind) });
    else if (choice < 0.62)
      this.advance(node, { state: this.pick(['active', 'missing', 'inconsistent']) ?? '' });
    else if (choice < 0.8) this.move(this.chance(0.5) ? node : (this.pick(this.liveDirectories()) ?? node));
    else if (choice < 0.9) this.delete(node, isPinned);
    else this.restore();
  }

  liveDirectories(): readonly OldNode[] {
    return this.nodes.filter((node) => node.kind === 'directory' && this.isLive(node));
  }

  private create(): void {
    const [parent, name] = this.freePlace();
    if (name === undefined) return;
    const id = FIRST_ID + this.nodes.length;
    const path = parent === undefined ? name : `${this.pathOf(parent)}/${name}`;
    // By its path alone, a tombstone does not say in which of several directories it was.
    const isAmbiguous = !this.movesDirectories && this.directoryAt(path) !== undefined;
    const kind = isAmbiguous || this.chance(0.5) ? 'file' : 'directory';
    const now: State = {
      ...{ version: 1, updatedAt: this.now, parent: parent?.id ?? null, name, path },
      ...{ state: 'active', deletedAt: null, endedBy: null, content: this.content(kind) },
    };
    this.nodes.push({ id, kind, createdAt: this.now, now, history: [] });
  }

  private content(kind: OldNode['kind']): Row {
    if (kind === 'directory')
      return this.chance(0.5) ? NO_CONTENT : { ...NO_CONTENT, metadata: { shelf: this.digits() } };
    return {
      size_bytes: this.digits(),
      checksum: this.chance(0.5) ? `md5:${this.digits()}` : null,
      content_hash: this.chance(0.3) ? `"${this.digits()}"` : null,
      storage_class: this.chance(0.3) ? 'COLD' : null,
      link_target: this.chance(0.2) ? `../${this.digits()}` : null,
      metadata: this.chance(0.5) ? { tag: this.digits() } : {},
      last_modified_at: this.chance(0.5) ? this.now - 1000 : null,
      backend_identity: this.chance(0.3) ? `inode ${this.digits()}` : null,
    };
  }

  private digits(): string {
    return `${1 + Math.floor(this.random() * 1_000_000)}`;
  }

  /** A live directory, or the root, and a name that no live node has there. */
  private freePlace(node?: OldNode): [parent: OldNode | undefined, name: string | undefined] {
    const parent = this.chance(0.25)
      ? undefined
      : this.pick(this.liveDirectories().filter((other) => !this.holds(node, other)));
    const taken = this.nodes
      .filter((other) => this.isLive(other) && other.now.parent === (parent?.id ?? null))
      .map(({ now }) => now.name);
    return [parent, this.pick(NAMES.filter((name) => !taken.includes(name)))];
  }

  private holds(node: OldNode | undefined, other: OldNode | undefined): boolean {
    if (node === undefined || other === undefined) return false;
    return node === other || this.holds(node, this.find(other.now.parent));
  }

  /** Ends the version of a node with its path at this moment, and begins the next one. */
  private advance(node: OldNode, change: Partial<State>): void {
    const ended = { ...node.now, path: this.pathOf(node), endedBy: this.chance(0.3) ? 1 + node.id : null };
    node.history.push(ended);
    node.now = { ...node.now, version: ended.version + 1, updatedAt: this.now, ...change };
    node.now = { ...node.now, path: change.path ?? this.pathOf(node) };
  }

  private move(node: OldNode): void {
    if (node.kind === 'directory' && !this.movesDirectories) return;
    const [parent, name] = this.freePlace(node);
    if (name !== undefined) this.advance(node, { parent: parent?.id ?? null, name });
  }

  private delete(node: OldNode, isPinned: (node: OldNode) => boolean): void {
    const tree = this.nodes.filter((other) => this.isLive(other) && this.holds(node, other));
    if (tree.some(isPinned)) return;
    const paths = tree.map((other) => this.pathOf(other));
    for (const [index, other] of tree.entries())
      this.advance(other, { state: 'deleted', deletedAt: this.now, path: paths[index] ?? '' });
  }

  private restore(): void {
    const node = this.pick(this.nodes.filter((other) => !this.isLive(other)));
    if (node === undefined) return;
    const parent = this.find(node.now.parent);
    const place = parent === undefined ? node.now.name : `${this.pathOf(parent)}/${node.now.name}`;
    const taken = this.nodes.some((other) => this.isLive(other) && this.pathOf(other) === place);
    // A service restores a node at the path that it had.
    if (
      taken ||
      (parent !== undefined && !this.isLive(parent)) ||
      (!this.movesDirectories && place !== node.now.path)
    )
      return;
    this.advance(node, { state: 'active', deletedAt: null });
  }
}
