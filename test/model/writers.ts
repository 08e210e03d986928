/** The writer functions of the schema, on the model. */

import {
  type Change,
  type Content,
  isLive,
  isLiveDirectory,
  isMalformed,
  isRoot,
  type Mount,
  NO_CONTENT,
  type Node,
  Refused,
  requireParent,
} from './node.ts';
import type { Model, NewNode } from './plain-model.ts';

export function createNode(model: Model, row: NewNode): void {
  refuseName(row.name);
  takenIsConflict(() => model.insert([row]));
}

export function createNodes(model: Model, rows: readonly NewNode[]): void {
  for (const { parentId, mountId } of rows) requireParent(model.nodes, parentId, mountId);
  const refusals: string[] = [];
  for (const row of rows) {
    try {
      createNode(model, row);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      refusals.push(...error.codes);
    }
  }
  // The database chooses which of several comes first.
  if (refusals.length > 0) throw new Refused(...refusals);
}

/** Returns the id of the copy of a path, since the database chooses it. */
export type IdOf = (path: string) => number;

export function copyTree(
  model: Model,
  id: number,
  parentId: number,
  name: string | null,
  expected: number | null,
  idOf: IdOf,
): void {
  if (name !== null) refuseName(name);
  const source = model.nodes.get(id);
  if (source === undefined || !matches(source, expected)) refuseStale(model, id, expected);
  if (isRoot(source) && name === null) throw new Refused('FS422');
  const parent = model.nodes.get(parentId);
  if (parent === undefined || !isLiveDirectory(parent)) throw new Refused('FS404');
  const tree = model.treeOf(source).reverse();
  if (tree.includes(parent)) throw new Refused('FS422');

  const copies = new Map<number | null, { readonly id: number; readonly path: string }>();
  const rows = tree.map((node): NewNode => {
    const above = copies.get(node.parentId) ?? parent;
    const own = node === source ? (name ?? node.name) : node.name;
    const path = above.path === '' ? own : `${above.path}/${own}`;
    copies.set(node.id, { id: idOf(path), path });
    const { kind, state } = node;
    // A copy is another object of the backend.
    const content = { ...node.content, backend_identity: null };
    return { id: idOf(path), mountId: parent.mountId, parentId: above.id, name: own, kind, content, state };
  });
  takenIsConflict(() => model.insert(rows));
}

/** The ids of created directories are consecutive, and the last one is that of the path itself. */
export function ensureDirectory(model: Model, mount: Mount | undefined, path: string, lastId: number): void {
  if (mount === undefined) throw new Refused('FS404');
  const segments = segmentsOf(path);
  const root = [...model.nodes.values()].find((node) => isRoot(node) && node.mountId === mount.id);
  let directory = root as Node;
  let missing = 0;
  for (const [index, segment] of segments.entries()) {
    const child = model.liveChild(directory, segment);
    if (child?.kind === 'file') throw new Refused('FS409');
    if (child === undefined) {
      missing = segments.length - index;
      break;
    }
    directory = child;
  }
  let parentId = directory.id;
  const created = segments.slice(segments.length - missing);
  const rows = created.map((name, index): NewNode => {
    const id = lastId - (created.length - 1 - index);
    const row = { id, mountId: mount.id, parentId, name, kind: 'directory', content: NO_CONTENT } as const;
    parentId = id;
    return row;
  });
  model.insert(rows);
}

/** The ids of created nodes are consecutive, and the last one is the file's. Metadata of null keeps the present value. */
export function upsertFile(
  model: Model,
  mount: Mount | undefined,
  path: string,
  { metadata, ...content }: Content,
  expected: number | null,
  lastId: number,
): number {
  if (mount === undefined) throw new Refused('FS404');
  const segments = segmentsOf(path);
  const name = segments.at(-1);
  if (name === undefined) throw new Refused('FS422');
  const known = liveNodeAt(model, mount, segments);
  if (known?.kind === 'directory') throw new Refused('FS409');
  if ((known?.version ?? 0) !== (expected ?? known?.version ?? 0)) throw new Refused('FS409');
  if (known !== undefined) {
    const change = { ...content, ...(metadata !== null && { metadata }) };
    model.update([known.id], { state: 'active', content: change });
    return known.id;
  }
  const before = model.nodes;
  try {
    const above = segments.slice(0, -1);
    ensureDirectory(model, mount, above.join('/'), lastId - 1);
    const parentId = liveNodeAt(model, mount, above)?.id ?? 0;
    const row = { id: lastId, mountId: mount.id, parentId, name, kind: 'file' } as const;
    createNode(model, { ...row, content: { ...content, metadata: metadata ?? '{}' } });
  } catch (error) {
    model.nodes = before;
    throw error;
  }
  return lastId;
}

export function mergeMetadata(
  model: Model,
  id: number,
  set: Readonly<Record<string, number>> | number,
  unset: readonly string[],
  expected: number | null,
): void {
  if (typeof set === 'number') throw new Refused('FS422');
  const node = model.nodes.get(id);
  if (node === undefined || !matches(node, expected)) refuseStale(model, id, expected);
  const old: Readonly<Record<string, number>> = JSON.parse(node.content.metadata ?? '{}');
  const kept = Object.entries(old).filter(([key]) => !unset.includes(key));
  // jsonb sorts shorter keys first.
  const merged = Object.entries({ ...Object.fromEntries(kept), ...set }).sort(
    ([one], [other]) => one.length - other.length || (one < other ? -1 : 1),
  );
  const metadata = `{${merged.map(([key, value]) => `"${key}": ${value}`).join(', ')}}`;
  model.update([id], { content: { metadata } });
}

export function moveNode(
  model: Model,
  id: number,
  parentId: number | null,
  name: string | null,
  expected: number | null,
): void {
  if (name !== null) refuseName(name);
  const node = model.nodes.get(id);
  if (node !== undefined && isRoot(node)) throw new Refused('FS422');
  if (!matches(node, expected)) refuseStale(model, id, expected);
  const change: Change = { ...(parentId !== null && { parentId }), ...(name !== null && { name }) };
  takenIsConflict(() => model.update([id], change));
}

export function deleteNode(model: Model, id: number, expected: number | null, recursive: boolean): void {
  const node = model.nodes.get(id);
  if (node === undefined || !matches(node, expected)) refuseStale(model, id, expected);
  const whole = recursive && !isRoot(node) && node.kind === 'directory';
  model.update(whole ? model.treeOf(node).map((below) => below.id) : [id], { state: 'deleted' });
}

/** Returns how many nodes it deletes. */
export function deleteBatch(model: Model, id: number, max: number, deletion: number): number {
  const node = model.nodes.get(id);
  if (node === undefined || !isLive(node)) return 0;
  if (isRoot(node)) throw new Refused('FS422');
  const batch = model.treeOf(node).slice(0, max);
  model.update(
    batch.map((below) => below.id),
    { state: 'deleted' },
    deletion,
  );
  return batch.length;
}

export function restoreNode(model: Model, id: number, expected: number | null, withTree: boolean): void {
  const tomb = model.nodes.get(id);
  if (tomb === undefined) throw new Refused('FS404');
  if (tomb.version !== (expected ?? tomb.version) || isLive(tomb)) throw new Refused('FS409');
  takenIsConflict(() => {
    model.update([id], { state: 'active' });
    if (withTree) model.update(deletedTogether(model, tomb), { state: 'active' });
  });
}

export function revertNode(model: Model, id: number, version: number, expected: number | null): void {
  const node = model.nodes.get(id);
  const past = node?.past.find((superseded) => superseded.version.version === version)?.version;
  if (node === undefined || past === undefined) throw new Refused('FS404');
  if (!isLive(past)) throw new Refused('FS422');
  if (node.version !== (expected ?? node.version)) throw new Refused('FS409');
  takenIsConflict(() =>
    model.update([id], {
      ...(past.parentId !== null && { parentId: past.parentId }),
      name: past.name,
      content: past.content,
      ...(!isLive(node) && { state: 'active' }),
    }),
  );
}

function segmentsOf(path: string): readonly string[] {
  const segments = path.split('/').filter((segment) => segment !== '' && segment !== '.');
  for (const segment of segments) refuseName(segment);
  return segments;
}

function liveNodeAt(model: Model, mount: Mount, segments: readonly string[]): Node | undefined {
  const path = segments.join('/');
  return [...model.nodes.values()].find(
    (node) => isLive(node) && node.mountId === mount.id && node.path === path,
  );
}

/** The nodes that can be purged: without pending deltas, and without children that stay. */
export function purgeable(model: Model, pending: ReadonlySet<number>): Set<number> {
  const chosen = new Set<number>();
  const tombs = [...model.nodes.values()].filter((node) => !isLive(node));
  for (let before = -1; chosen.size > before; ) {
    before = chosen.size;
    for (const { id } of tombs) {
      const holds = tombs.some((below) => below.parentId === id && !chosen.has(below.id));
      if (!pending.has(id) && !holds) chosen.add(id);
    }
  }
  return chosen;
}

/** The number of live nodes below a directory and directly in it, and their size. */
export function totalsOf(model: Model, directory: Node) {
  const below = isLiveDirectory(directory)
    ? model.treeOf(directory).filter((node) => node !== directory && !isRoot(node))
    : [];
  const files = below.filter((node) => node.kind === 'file');
  return {
    bytes: files.reduce((sum, file) => sum + Number(file.content.size_bytes), 0),
    files: files.length,
    directories: below.length - files.length,
    children: below.filter((node) => node.parentId === directory.id).length,
  };
}

/** When batches of one deletion left several tombstones with one name, only the last one. */
function deletedTogether(model: Model, tomb: Node): number[] {
  const found = [tomb.id];
  for (const id of found) {
    const last = new Map<string, Node>();
    for (const node of model.nodes.values()) {
      if (node.parentId !== id || node.deletion !== tomb.deletion) continue;
      const other = last.get(node.name);
      if (other === undefined || other.statement < node.statement) last.set(node.name, node);
    }
    found.push(...[...last.values()].map((node) => node.id));
  }
  return found.slice(1);
}

const matches = (node: Node | undefined, expected: number | null): boolean =>
  node !== undefined && isLive(node) && node.version === (expected ?? node.version);

function refuseStale(model: Model, id: number, expected: number | null): never {
  const node = model.nodes.get(id);
  const another = node !== undefined && node.version !== (expected ?? node.version);
  throw new Refused(another ? 'FS409' : 'FS404');
}

function refuseName(name: string): void {
  if (name === '' || isMalformed(name)) throw new Refused('FS422');
}

/** Writer functions report a taken name as FS409. */
function takenIsConflict(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    throw new Refused(...error.codes.map((code) => (code === '23505' ? 'FS409' : code)));
  }
}
