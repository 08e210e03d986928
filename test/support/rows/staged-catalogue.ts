import { directoryOf, type OldCatalogue, type OldNode, type State } from './old-catalogue.ts';
import type { Row } from './staged.ts';

/** The old service's id of the root, which is not that of the mount's root. */
const OLD_ROOT = 1;

/** A moment, sometimes with microseconds, which an import cuts off. */
const toMoment = (at: unknown) =>
  typeof at !== 'number' ? null : new Date(at).toISOString().replace('Z', at % 2 === 0 ? 'Z' : '999Z');

const contentOf = ({ content }: State): Row => ({
  ...content,
  last_modified_at: toMoment(content.last_modified_at),
});

/** The state and the moments of a row, some of them left out when the others say the same. */
function stageLife(catalogue: OldCatalogue, { state, updatedAt, deletedAt }: State): Row {
  const isDead = state === 'deleted';
  const isLeftOut = catalogue.chance(0.4);
  return {
    state: (state === 'active' || isDead) && catalogue.chance(0.3) && !isLeftOut ? null : state,
    deleted_at: isDead && deletedAt === updatedAt && isLeftOut ? null : toMoment(deletedAt),
    updated_at: isDead && deletedAt === updatedAt && !isLeftOut ? null : toMoment(updatedAt),
  };
}

/** Rows of nodes with their ids, and with full paths or with those of their parents. */
export function stageNodes(catalogue: OldCatalogue, way: 'paths' | 'parents'): readonly Row[] {
  const rows = catalogue.nodes.map((node): Row => {
    const { now } = node;
    const path = catalogue.pathOf(node);
    const place =
      way === 'paths'
        ? { path }
        : {
            parent_id: now.parent ?? (catalogue.chance(0.5) ? OLD_ROOT : null),
            name: now.name,
            // A tombstone's path is the one that it had, a live node's follows from its parents.
            path: catalogue.isLive(node) && catalogue.chance(0.5) ? null : path,
          };
    const isNew = node.createdAt === now.updatedAt;
    return {
      ...{ ...place, id: node.id, kind: node.kind, version: now.version },
      ...{ created_at: toMoment(node.createdAt), ...stageLife(catalogue, now), ...contentOf(now) },
      ...(isNew && catalogue.chance(0.5) ? { updated_at: null } : {}),
    };
  });
  const root = {
    id: OLD_ROOT,
    kind: 'directory',
    ...(way === 'paths' ? { path: '' } : { parent_id: null, name: '' }),
  };
  return catalogue.shuffle([{ ...root, state: 'active', version: 1, size_bytes: 0, metadata: {} }, ...rows]);
}

/** Rows of the earlier versions from the first one that is known of each node. Some leave out what follows from the rest. */
export function stageVersions(catalogue: OldCatalogue, first = new Map<number, number>()): readonly Row[] {
  const rows = catalogue.nodes.flatMap((node) =>
    node.history
      .filter(({ version }) => version >= (first.get(node.id) ?? 1))
      .map((state): Row => {
        const above = directoryOf(state.path);
        const isDerived =
          catalogue.directoryAt(above)?.id === state.parent && above !== directoryOf(catalogue.pathOf(node));
        return {
          id: node.id,
          version: state.version,
          path: state.path,
          parent_id: isDerived && catalogue.chance(0.5) ? null : (state.parent ?? OLD_ROOT),
          ...stageLife(catalogue, state),
          updated_at: toMoment(state.updatedAt),
          superseded_by_journal_id: state.endedBy,
          ...contentOf(state),
        };
      }),
  );
  return catalogue.shuffle(rows);
}

/** The columns of both tables that are compared. */
export const COLUMNS = [
  ...[
    'id',
    'kind',
    'parent_id',
    'parent_path',
    'parent_live',
    'name',
    'path',
    'directory_path',
    'depth',
    'live',
  ],
  ...['state', 'version', 'created_at', 'updated_at', 'deleted_at', 'size_bytes', 'checksum', 'content_hash'],
  ...['storage_class', 'link_target', 'metadata', 'last_modified_at', 'backend_identity'],
];

const toDate = (at: unknown) => (typeof at === 'number' ? new Date(at) : null);

/** The row that a node or version has in the mount whose root has this id, as the driver reads it. */
function inMount(node: OldNode, state: State, path: string, root: string): Row {
  const live = state.state !== 'deleted';
  return {
    ...{ id: `${node.id}`, kind: node.kind, parent_id: state.parent === null ? root : `${state.parent}` },
    ...{ parent_path: directoryOf(path), parent_live: live ? true : null },
    ...{
      name: path.slice(path.lastIndexOf('/') + 1),
      path,
      directory_path: node.kind === 'directory' ? path : null,
    },
    ...{ depth: path.split('/').length, live, state: state.state, version: state.version },
    ...{
      created_at: toDate(node.createdAt),
      updated_at: toDate(state.updatedAt),
      deleted_at: toDate(state.deletedAt),
    },
    ...{ ...state.content, last_modified_at: toDate(state.content.last_modified_at) },
  };
}

export function expectNodes(catalogue: OldCatalogue, root: string): readonly Row[] {
  return catalogue.nodes.map((node) => inMount(node, node.now, catalogue.pathOf(node), root));
}

/** Each version ends when the next one begins. */
export function expectVersions(
  catalogue: OldCatalogue,
  root: string,
  first = new Map<number, number>(),
): readonly Row[] {
  return catalogue.nodes.flatMap((node) =>
    node.history
      .map((state, index) => ({
        ...inMount(node, state, state.path, root),
        version: state.version,
        valid_from: toDate(state.updatedAt),
        valid_to: toDate((node.history[index + 1] ?? node.now).updatedAt),
        superseded_by_journal_id: state.endedBy === null ? null : `${state.endedBy}`,
      }))
      .filter(({ version }) => version >= (first.get(node.id) ?? 1)),
  );
}

/** The last moment at which the known history of a node begins, of those whose beginning is not known. */
export function expectHorizon(catalogue: OldCatalogue, first: ReadonlyMap<number, number>): Date | null {
  const begins = catalogue.nodes
    .filter(({ id }) => (first.get(id) ?? 1) > 1)
    .map(({ id, history, now }) => (history[(first.get(id) ?? 1) - 1] ?? now).updatedAt);
  return begins.length === 0 ? null : new Date(Math.max(...begins));
}

/** A live node that is not of the catalogue, without content. */
export interface Place {
  readonly path: string;
  readonly kind: 'file' | 'directory';
}

/** Bytes, files, directories and children of each live directory, by the live nodes below it. */
export function expectTotals(catalogue: OldCatalogue, others: readonly Place[] = []): readonly Row[] {
  const own = catalogue.nodes
    .filter((node) => catalogue.isLive(node))
    .map((node) => ({
      ...{ path: catalogue.pathOf(node), kind: node.kind },
      size: Number(node.now.content.size_bytes),
    }));
  const live = [...own, ...others.map((other) => ({ ...other, size: 0 }))];
  const directories = live.filter(({ kind }) => kind === 'directory').map(({ path }) => path);
  return ['', ...directories].sort(compare).map((path) => {
    const below = live.filter((node) => path === '' || node.path.startsWith(`${path}/`));
    return {
      path,
      size: below.reduce((sum, { size }) => sum + size, 0),
      files: below.filter(({ kind }) => kind === 'file').length,
      directories: below.filter(({ kind }) => kind === 'directory').length,
      children: below.filter((node) => directoryOf(node.path) === path).length,
    };
  });
}

/** The order of the collation "C". */
export function compare(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
