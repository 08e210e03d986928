import type { Scope } from '../disk/expected.ts';
import type { Entry } from '../support/rows/scans.ts';
import type { Choice } from './model-operation.ts';
import { isLive, isRoot, type Mount, type Node } from './node.ts';
import type { Random } from './random-choices.ts';

export type Listed = Entry & Required<Pick<Entry, 'path' | 'kind'>>;

const NAMES = ['a', 'b', 'c', 'a0', 'a.', 'a!b', '~1'] as const;
const parentOf = (path: string) => path.slice(0, Math.max(path.lastIndexOf('/'), 0));
const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1);

/** What a scan lists: the catalogue, as if others had changed the backend a few times. Paths begin at the root of the mount. */
export function listBackend({ model, random }: Choice, mount: Mount, scope: Scope): readonly Listed[] {
  const live = [...model.nodes.values()].filter(
    (node) => node.mountId === mount.id && isLive(node) && !isRoot(node),
  );
  const covered = live.filter((node) => isCovered(node, scope));
  const missing = live.filter(({ state }) => state === 'missing');
  // What another scan did not find may be here.
  const elsewhere = missing
    .filter((node) => !covered.includes(node))
    .map((node) => model.treeOf(node).map((below) => entryOf(random, mount, below)));
  const backend = new Backend(
    random,
    scope,
    covered.map((node) => entryOf(random, mount, node)),
    elsewhere,
  );
  for (const { path } of missing) if (random.chance(0.6)) backend.remove(path);
  for (let changes = random.below(7); changes > 0; changes -= 1) backend.change();
  return backend.list();
}

function isCovered({ path }: Node, { path: top, isRecursive }: Scope): boolean {
  const isBelow = top === '' || path.startsWith(`${top}/`);
  return isBelow && (isRecursive || parentOf(path) === top);
}

function entryOf(random: Random, mount: Mount, { id, path, kind, content }: Node): Listed {
  const knowsIdentity = mount.kind === 'local' && random.chance(0.9);
  const identity = content.backend_identity ?? `node-${id}`;
  if (kind === 'directory') return { path, kind, ...(knowsIdentity && { backend_identity: identity }) };
  return {
    path,
    kind,
    size_bytes: Number(content.size_bytes),
    ...(content.last_modified_at !== null &&
      random.chance(0.9) && { last_modified_at: content.last_modified_at }),
    ...(random.chance(0.8) && { content_hash: content.content_hash ?? `"etag-of-${id}"` }),
    ...(knowsIdentity && { backend_identity: identity }),
  };
}

class Backend {
  readonly #entries: Map<string, Listed>;
  #made = 0;

  constructor(
    readonly random: Random,
    readonly scope: Scope,
    entries: readonly Listed[],
    readonly elsewhere: readonly (readonly Listed[])[],
  ) {
    this.#entries = new Map(entries.map((entry) => [entry.path, entry]));
  }

  list(): readonly Listed[] {
    return [...this.#entries.values()];
  }

  change(): void {
    const path = this.#any();
    if (path === undefined) {
      this.#put(this.#newPath(), 'file');
      return;
    }
    this.random.weighted<() => void>([
      [4, () => this.#move(path, this.#newPath())],
      [2, () => this.#swap(path, this.#any() ?? path)],
      [2, () => this.remove(path)],
      [
        this.elsewhere.length > 0 ? 3 : 0,
        () => this.#find(this.random.pick(this.elsewhere), this.#newPath()),
      ],
      [1, () => this.#put(this.#newPath(), this.random.pick(['file', 'directory']))],
      [1, () => this.#replace(path, this.random.pick(['file', 'directory']))],
      [1, () => this.#move(path, this.#any() ?? path)],
      [1, () => this.#link(path, this.#newPath())],
      [2, () => this.#write(path)],
    ])();
  }

  #any(): string | undefined {
    return this.#entries.size === 0 ? undefined : this.random.pick([...this.#entries.keys()]);
  }

  #newPath(): string {
    const directories = this.list().filter(({ kind }) => kind === 'directory' && this.scope.isRecursive);
    const parent = this.random.pick([this.scope.path, ...directories.map(({ path }) => path)]);
    return parent === '' ? this.random.pick(NAMES) : `${parent}/${this.random.pick(NAMES)}`;
  }

  #put(path: string, kind: Listed['kind']): void {
    if (this.#entries.has(path)) return;
    this.#made += 1;
    const identity = this.random.chance(0.9)
      ? { backend_identity: `made-${this.#made}-${this.random.next()}` }
      : {};
    const size = kind === 'file' ? { size_bytes: this.random.below(50) } : {};
    this.#entries.set(path, { path, kind, ...size, ...identity });
  }

  /** Also over another object, which is gone then. */
  #move(from: string, to: string): void {
    if (`${to}/`.startsWith(`${from}/`) || `${from}/`.startsWith(`${to}/`)) return;
    this.remove(to);
    for (const entry of this.#take(from)) {
      const path = `${to}${entry.path.slice(from.length)}`;
      this.#entries.set(path, { ...entry, path });
    }
  }

  #swap(one: string, other: string): void {
    const aside = `${parentOf(one) === '' ? '' : `${parentOf(one)}/`}${nameOf(one)}-aside`;
    if (`${other}/`.startsWith(`${one}/`) || `${one}/`.startsWith(`${other}/`)) return;
    this.#move(one, aside);
    this.#move(other, one);
    this.#move(aside, other);
  }

  remove(path: string): void {
    this.#take(path);
  }

  #take(path: string): readonly Listed[] {
    const taken = this.list().filter((entry) => `${entry.path}/`.startsWith(`${path}/`));
    for (const entry of taken) this.#entries.delete(entry.path);
    return taken;
  }

  #replace(path: string, kind: Listed['kind']): void {
    this.remove(path);
    this.#put(path, kind);
  }

  /** Some of a tree that was elsewhere, from the top down. */
  #find(tree: readonly Listed[], to: string): void {
    const [top, ...below] = [...tree].reverse();
    if (top === undefined || this.#entries.has(to)) return;
    this.#entries.set(to, { ...top, path: to });
    for (const entry of this.scope.isRecursive ? below : []) {
      const path = `${to}${entry.path.slice(top.path.length)}`;
      if (this.#entries.has(parentOf(path)) && this.random.chance(0.6))
        this.#entries.set(path, { ...entry, path });
    }
  }

  #link(path: string, to: string): void {
    const entry = this.#entries.get(path);
    if (entry?.kind === 'file' && !this.#entries.has(to)) this.#entries.set(to, { ...entry, path: to });
  }

  #write(path: string): void {
    const entry = this.#entries.get(path);
    if (entry?.kind === 'file') this.#entries.set(path, { ...entry, size_bytes: this.random.below(50) });
  }
}
