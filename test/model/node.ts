export type Kind = 'file' | 'directory';
export type State = 'active' | 'inconsistent' | 'missing' | 'deleted';

/** The columns that describe a file's content, in the order in which lines show them. */
export const CONTENT_COLUMNS = [
  'size_bytes',
  'checksum',
  'content_hash',
  'storage_class',
  'metadata',
  'last_modified_at',
  'backend_identity',
] as const;

export type ContentColumn = (typeof CONTENT_COLUMNS)[number];
export type Content = Readonly<Record<ContentColumn, string | null>>;

export const NO_CONTENT: Content = {
  size_bytes: '0',
  checksum: null,
  content_hash: null,
  storage_class: null,
  metadata: '{}',
  last_modified_at: null,
  backend_identity: null,
};

export interface Mount {
  readonly id: number;
  readonly key: string;
  readonly kind: 'local' | 's3';
}

/** One version of a node. */
export interface Version {
  readonly id: number;
  readonly mountId: number;
  readonly kind: Kind;
  readonly parentId: number | null;
  readonly name: string;
  /** For a tombstone: its path when it was deleted. */
  readonly path: string;
  readonly state: State;
  /** The moment of the deletion; nodes that were deleted together share it. */
  readonly deletion: number | null;
  readonly content: Content;
  readonly version: number;
}

export interface Superseded {
  readonly version: Version;
  readonly journalEntry: number | null;
}

export interface Node extends Version {
  /** The number of the statement that made this version. */
  readonly statement: number;
  readonly past: readonly Superseded[];
}

export type Nodes = ReadonlyMap<number, Node>;

/** The values that an update sets in a row. */
export interface Change {
  readonly parentId?: number;
  readonly name?: string;
  readonly state?: State;
  readonly content?: Partial<Content>;
}

/** Says that a statement fails, and with which SQLSTATE. There are several when the order of rows decides. */
export class Refused extends Error {
  readonly codes: readonly string[];

  constructor(...codes: readonly string[]) {
    super(codes.join(' or '));
    this.codes = codes;
  }
}

export const isLive = (node: Version): boolean => node.deletion === null;
export const isRoot = (node: Version): boolean => node.parentId === null;
export const isLiveDirectory = (node: Version): boolean => isLive(node) && node.kind === 'directory';

/** Names that are never valid. The empty name is not one of them: a root has it. */
export const isMalformed = (name: string): boolean =>
  name === '.' || name === '..' || name.includes('/') || name.includes('\t') || name.length > 1024;

const LEGAL_STATES: Readonly<Record<State, readonly State[]>> = {
  active: ['active', 'inconsistent', 'missing', 'deleted'],
  inconsistent: ['active', 'inconsistent', 'missing', 'deleted'],
  missing: ['active', 'missing', 'deleted'],
  deleted: ['active', 'deleted'],
};

/** Names are ASCII here, so a character is a byte. */
export function refuseLongName(mount: Mount | undefined, name: string): void {
  if (name.length > 255 && mount?.kind === 'local') throw new Refused('FS422');
}

export function requireParent(nodes: Nodes, parentId: number | null, mountId: number): void {
  const parent = nodes.get(parentId ?? 0);
  if (parent === undefined || !isLiveDirectory(parent) || parent.mountId !== mountId) {
    throw new Refused('FS404');
  }
}

export function refuseMalformedRow(node: Version): void {
  if ((node.name === '') !== isRoot(node) || isMalformed(node.name)) throw new Refused('23514');
  if (node.kind === 'directory' && node.content.size_bytes !== '0') throw new Refused('23514');
}

/** The row after an update, or its refusal. Effects on other rows are handled elsewhere. */
export function updatedRow(
  nodes: Nodes,
  mount: Mount | undefined,
  old: Node,
  change: Change,
  deletion: number,
) {
  const state = change.state ?? old.state;
  const row: Node = {
    ...old,
    parentId: change.parentId ?? old.parentId,
    name: change.name ?? old.name,
    content: { ...old.content, ...change.content },
    state,
    deletion: state === 'deleted' ? (old.deletion ?? deletion) : null,
  };
  if (isRoot(row) !== isRoot(old)) throw new Refused('FS422');
  if (row.name !== old.name) refuseLongName(mount, row.name);
  if (!LEGAL_STATES[old.state].includes(state) || (isRoot(row) && state === 'deleted')) {
    throw new Refused('FS422');
  }
  const moves = row.parentId !== old.parentId;
  if (!isLive(row) && (moves || row.name !== old.name)) throw new Refused('FS422');
  if (moves || (isLive(row) && !isLive(old))) requireParent(nodes, row.parentId, row.mountId);
  if (moves && isLiveDirectory(old) && isWithin(nodes, row.parentId, old.id)) throw new Refused('FS422');
  refuseMalformedRow(row);
  return row;
}

function isWithin(nodes: Nodes, id: number | null, directoryId: number): boolean {
  for (let at = id; at !== null; at = nodes.get(at)?.parentId ?? null) {
    if (at === directoryId) return true;
  }
  return false;
}
