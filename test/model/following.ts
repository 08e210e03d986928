import type { Listed } from './backend.ts';
import { CONTENT_COLUMNS, type Content, type Node, type State } from './node.ts';

/** What a scan or sync_nodes makes of a node: its content and state. */
export type Followed = Readonly<{ content: Content; state: State }>;

/** A value that an entry leaves out stays. Of another content, only the values of the entry are known. */
export function followEntry(node: Pick<Node, 'kind' | 'content' | 'state'>, entry: Listed): Followed {
  const old = node.content;
  const given: Partial<Content> = {
    ...(entry.last_modified_at !== undefined && { last_modified_at: entry.last_modified_at }),
    ...(entry.backend_identity !== undefined && { backend_identity: entry.backend_identity }),
    ...(entry.kind === 'file' && {
      size_bytes: `${entry.size_bytes ?? 0}`,
      ...(entry.content_hash !== undefined && { content_hash: entry.content_hash }),
    }),
  };
  // A content with an equal hash is the same, however it came there.
  const isProved = given.content_hash !== undefined && given.content_hash === old.content_hash;
  const isOther =
    entry.kind === 'file' &&
    (given.size_bytes !== old.size_bytes ||
      isAnother(given.content_hash, old.content_hash) ||
      (!isProved &&
        (isAnother(given.last_modified_at, old.last_modified_at) ||
          isAnother(given.backend_identity, old.backend_identity))));
  const forgotten = isOther
    ? {
        last_modified_at: null,
        content_hash: null,
        checksum: null,
        storage_class: null,
        backend_identity: null,
      }
    : {};
  return {
    content: { ...old, ...forgotten, ...given },
    state: node.state === 'missing' || isOther ? 'active' : node.state,
  };
}

/** What one of them lacks is unknown, and not different. */
const isAnother = (given: string | null | undefined, old: string | null): boolean =>
  given !== undefined && given !== null && old !== null && given !== old;

export const isSame = (one: Followed, other: Followed): boolean =>
  one.state === other.state &&
  CONTENT_COLUMNS.every((column) => one.content[column] === other.content[column]);
