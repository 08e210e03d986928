import type { Entry } from '../support/rows/scans.ts';

/** What a node says about its object: the columns that a scan may change. */
export interface NodeContent {
  readonly state: string;
  readonly size_bytes: string;
  readonly last_modified_at: Date | null;
  readonly link_target: string | null;
  readonly backend_identity: string | null;
  readonly content_hash: string | null;
  readonly checksum: string | null;
  readonly storage_class: string | null;
}

/** A column of a row as a text: dates have no equality. */
const textOf = (value: Date | string | null): string | null =>
  value instanceof Date ? value.toISOString() : value;

/** The columns in which a node differs from what is expected. */
export function contentDifferences(node: NodeContent, expected: NodeContent): readonly string[] {
  const columns = Object.keys(expected) as (keyof NodeContent)[];
  return columns
    .filter((column) => textOf(node[column]) !== textOf(expected[column]))
    .map((column) => `${column} ${textOf(node[column])}, expected ${textOf(expected[column])}`);
}

/** What a row of a node says about its object. */
export const contentOfNode = (node: NodeContent): NodeContent => ({
  state: node.state,
  size_bytes: node.size_bytes,
  last_modified_at: node.last_modified_at,
  link_target: node.link_target,
  backend_identity: node.backend_identity,
  content_hash: node.content_hash,
  checksum: node.checksum,
  storage_class: node.storage_class,
});

/** What a new node says about the object of an entry. */
export const contentOfNew = (entry: Entry): NodeContent => ({
  state: 'active',
  size_bytes: `${entry.size_bytes ?? 0}`,
  last_modified_at: momentOf(entry),
  link_target: entry.link_target ?? null,
  backend_identity: entry.backend_identity ?? null,
  content_hash: entry.content_hash ?? null,
  checksum: entry.checksum ?? null,
  storage_class: entry.storage_class ?? null,
});

/** What a node says when an entry has told about its object: a value that is left out stays, or is gone with the old content. */
export function contentAfter(node: NodeContent, entry: Entry): NodeContent {
  const given = contentOfNew(entry);
  const isMissing = node.state === 'missing';
  if (entry.kind === 'directory') {
    return {
      ...contentOfNode(node),
      state: isMissing ? 'active' : node.state,
      last_modified_at: given.last_modified_at ?? node.last_modified_at,
      backend_identity: given.backend_identity ?? node.backend_identity,
    };
  }
  const differs = (names: readonly (keyof NodeContent)[]) =>
    names.some((name) => differ(given[name], node[name]));
  const isProved = (['content_hash', 'checksum'] as const).some(
    (name) => given[name] !== null && given[name] === node[name],
  );
  const isOther =
    given.link_target !== node.link_target ||
    differs(['size_bytes', 'content_hash', 'checksum']) ||
    (!isProved && differs(['last_modified_at', 'backend_identity']));
  const kept = isOther
    ? {
        last_modified_at: null,
        content_hash: null,
        checksum: null,
        storage_class: null,
        backend_identity: null,
      }
    : node;
  return {
    state: isMissing || isOther ? 'active' : node.state,
    size_bytes: given.size_bytes,
    last_modified_at: given.last_modified_at ?? kept.last_modified_at,
    link_target: given.link_target,
    backend_identity: given.backend_identity ?? kept.backend_identity,
    content_hash: given.content_hash ?? kept.content_hash,
    checksum: given.checksum ?? kept.checksum,
    storage_class: given.storage_class ?? kept.storage_class,
  };
}

const momentOf = ({ last_modified_at: moment }: Entry): Date | null =>
  moment === undefined ? null : new Date(moment);

/** What the node or the entry lacks is unknown, and not different. */
const differ = (given: Date | string | null, old: Date | string | null): boolean =>
  given !== null && old !== null && textOf(given) !== textOf(old);
