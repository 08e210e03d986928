import { directoryOf, type OldCatalogue, type OldNode, type State } from './old-catalogue.ts';
import type { Row } from './staged.ts';

/** The old service's id of the root, which is not that of the mount's root. */
const OLD_ROOT = 1;

const toMoment = (at: unknown) => (typeof at === 'number' ? new Date(at).toISOString() : null);

const contentOf = ({ content }: State): Row => ({
  ...content,
  last_modified_at: toMoment(content.last_modified_at),
});

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
    return {
      ...place,
      ...{ id: node.id, kind: node.kind, state: now.state, version: now.version },
      ...{ created_at: toMoment(node.createdAt), updated_at: toMoment(now.updatedAt) },
      ...{ deleted_at: toMoment(now.deletedAt), ...contentOf(now) },
    };
  });
  const root = {
    id: OLD_ROOT,
    kind: 'directory',
    ...(way === 'paths' ? { path: '' } : { parent_id: null, name: '' }),
  };
  return catalogue.shuffle([{ ...root, state: 'active', version: 1, size_bytes: 0, metadata: {} }, ...rows]);
}

/** Rows of all earlier versions. Some leave out what follows from the rest. */
export function stageVersions(catalogue: OldCatalogue): readonly Row[] {
  const rows = catalogue.nodes.flatMap((node) =>
    node.history.map((state): Row => {
      const above = directoryOf(state.path);
      const isDerived =
        catalogue.directoryAt(above)?.id === state.parent && above !== directoryOf(catalogue.pathOf(node));
      return {
        id: node.id,
        version: state.version,
        updated_at: toMoment(state.updatedAt),
        path: state.path,
        parent_id: isDerived && catalogue.chance(0.5) ? null : (state.parent ?? OLD_ROOT),
        state: state.state === 'active' && catalogue.chance(0.3) ? null : state.state,
        deleted_at: toMoment(state.deletedAt),
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
export function expectVersions(catalogue: OldCatalogue, root: string): readonly Row[] {
  return catalogue.nodes.flatMap((node) =>
    node.history.map((state, index) => ({
      ...inMount(node, state, state.path, root),
      valid_from: toDate(state.updatedAt),
      valid_to: toDate((node.history[index + 1] ?? node.now).updatedAt),
      superseded_by_journal_id: state.endedBy === null ? null : `${state.endedBy}`,
    })),
  );
}

/** Bytes, files, directories and children of each live directory, by the live nodes below it. */
export function expectTotals(catalogue: OldCatalogue): readonly Row[] {
  const live = catalogue.nodes.filter((node) => catalogue.isLive(node));
  const directories = live.filter(({ kind }) => kind === 'directory').map((node) => catalogue.pathOf(node));
  return ['', ...directories].sort(compare).map((path) => {
    const below = live.filter((node) => path === '' || catalogue.pathOf(node).startsWith(`${path}/`));
    return {
      path,
      size: below.reduce((sum, { now }) => sum + Number(now.content.size_bytes), 0),
      files: below.filter(({ kind }) => kind === 'file').length,
      directories: below.filter(({ kind }) => kind === 'directory').length,
      children: below.filter((node) => directoryOf(catalogue.pathOf(node)) === path).length,
    };
  });
}

/** The order of the collation "C". */
export function compare(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
