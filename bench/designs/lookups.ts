import { type Design, type Place, type Query, query } from './design.ts';
import { measureReads, type Read, type Scene } from './sampling.ts';

const PAGE = 100;

/** Finding one node, a page of a directory, and the rows of a search. */
export async function measureLookups(scene: Scene): Promise<void> {
  const { files } = scene.tree;
  await measureReads(
    scene,
    read('byId', 'key lookup: a node by id', ({ key, byId }) =>
      key === 'twin' ? undefined : files.map(({ id }) => byId(id)),
    ),
    read(
      'resolve',
      'path → node',
      ({ resolve }) => resolve && files.map(({ mountId, path }) => resolve(mountId, path)),
    ),
    read(
      'nodeByPath',
      'path → node as node_by_path()',
      onlyThis(files.map(({ path }) => query(NODE_BY_PATH, path))),
    ),
    read(
      'emptyFunction',
      'a function that finds nothing',
      onlyThis(files.map(({ path }) => query(FIND_NOTHING, path))),
      'the floor of node_by_path()',
    ),
  );
  await measureReads(
    scene,
    read(
      'resolveDeleted',
      'path → node or tombstone',
      ({ resolveDeleted }) =>
        resolveDeleted && scene.deleted.map(({ mountId, path }) => resolveDeleted(mountId, path)),
      'of files that are deleted',
    ),
  );
  await measurePages(scene);
  await measureSearches(scene);
}

const NODE_BY_PATH =
  "select n.id, n.kind, n.size_bytes, n.version from filestore.node_by_path('bench', $1) n";
const FIND_NOTHING = "select n.id, n.kind, n.size_bytes, n.version from bench.find_nothing('bench', $1) n";
const LIST_DIRECTORY = 'select n.name, n.kind, n.size_bytes from filestore.list_directory($1, $2, $3) n';

async function measurePages(scene: Scene): Promise<void> {
  const { flat } = scene.tree;
  const last = await lastPage(scene, flat);
  await measureReads(
    scene,
    read('firstPage', `first page of ${PAGE} children`, ({ page }) => page && [page(flat, '', PAGE)]),
    read('deepPage', `last page of ${PAGE} children`, ({ page }) => page && [page(flat, last, PAGE)]),
    read(
      'listDirectory',
      `last page of ${PAGE} children as list_directory()`,
      onlyThis([query(LIST_DIRECTORY, flat.id, last, PAGE)]),
    ),
  );
}

async function measureSearches(scene: Scene): Promise<void> {
  const { files } = scene.tree;
  const full = files.filter(({ checksum }) => !checksum.includes(EMPTY));
  const everyRow = 'a report that reads every row';
  for (const search of [
    read(
      'byChecksum',
      'files by checksum',
      ({ byChecksum }) => byChecksum && full.map(({ checksum }) => byChecksum(checksum)),
    ),
    read(
      'byMetadata',
      'nodes by metadata @> {…}',
      ({ byMetadata }) => byMetadata && files.map(({ tag }) => byMetadata(JSON.stringify({ tag }))),
      'about 20 rows',
    ),
    read(
      'reconcileQueue',
      'the reconcile queue',
      ({ reconcileQueue }) => reconcileQueue && [reconcileQueue('1')],
      'the first 100 inconsistent or missing nodes',
    ),
    read('largest', 'the 20 largest files', ({ largest }) => largest && [largest('1')], everyRow),
    read(
      'duplicates',
      'the 20 most frequent contents',
      ({ duplicates }) => duplicates && [duplicates('1')],
      everyRow,
    ),
  ]) {
    await measureReads(scene, search);
  }
}

const EMPTY = 'e3b0c442';

function read(key: string, title: string, queriesOf: Read['queriesOf'], note?: string): Read {
  return { key, title, group: 'Lookups', queriesOf, ...(note === undefined ? {} : { note }) };
}

const onlyThis =
  (queries: readonly Query[]) =>
  ({ key }: Design) =>
    key === 'this' ? queries : undefined;

/** The name after which the last page of a directory begins. */
async function lastPage({ client }: Scene, { id }: Place): Promise<string> {
  const { rows } = await client.query(
    `select name from bench.nodes where parent_id = $1 order by name collate "C" desc offset ${PAGE} limit 1`,
    [id],
  );
  return rows[0]?.name ?? '';
}
