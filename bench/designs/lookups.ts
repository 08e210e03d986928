import { type Place, query } from './design.ts';
import { measureRead, type Scene } from './sampling.ts';

const PAGE = 100;
const GROUP = 'Lookups';

/** Finding one node, a page of a directory, and the rows of a search. */
export async function measureLookups(scene: Scene): Promise<void> {
  const { tree } = scene;
  const onlyThis =
    <T>(value: T) =>
    ({ key }: { readonly key: string }) =>
      key === 'this' ? value : undefined;
  const read = (key: string, title: string, note?: string) => ({
    key,
    title,
    group: GROUP,
    ...(note === undefined ? {} : { note }),
  });

  await measureRead(scene, read('byId', 'key lookup: a node by id'), ({ key, byId }) =>
    key === 'twin' ? undefined : tree.files.map(({ id }) => byId(id)),
  );
  await measureRead(
    scene,
    read('resolve', 'path → node'),
    ({ resolve }) => resolve && tree.files.map(({ mountId, path }) => resolve(mountId, path)),
  );
  await measureRead(
    scene,
    read('nodeByPath', 'path → node as node_by_path()'),
    onlyThis(
      tree.files.map(({ path }) =>
        query(
          "select n.id, n.kind, n.size_bytes, n.version from filestore.node_by_path('bench', $1) n",
          path,
        ),
      ),
    ),
  );
  await measureRead(
    scene,
    read('resolveDeleted', 'path → node or tombstone', 'of files that are deleted'),
    ({ resolveDeleted }) =>
      resolveDeleted && scene.deleted.map(({ mountId, path }) => resolveDeleted(mountId, path)),
  );

  const last = await lastNames(scene, tree.flat);
  await measureRead(
    scene,
    read('firstPage', `first page of ${PAGE} children`, 'of the largest directory'),
    ({ page }) => page && [page(tree.flat, '', PAGE)],
  );
  await measureRead(
    scene,
    read('deepPage', `deep page of ${PAGE} children`, 'the last page of the largest directory'),
    ({ page }) => page && [page(tree.flat, last, PAGE)],
  );
  await measureRead(
    scene,
    read('listDirectory', `deep page of ${PAGE} children as list_directory()`),
    onlyThis([
      query(
        'select n.name, n.kind, n.size_bytes from filestore.list_directory($1, $2, $3) n',
        tree.flat.id,
        last,
        PAGE,
      ),
    ]),
  );

  await measureRead(
    scene,
    read('byChecksum', 'files by checksum'),
    ({ byChecksum }) =>
      byChecksum &&
      tree.files
        .filter(({ checksum }) => !checksum.includes('e3b0c442'))
        .map(({ checksum }) => byChecksum(checksum)),
  );
  await measureRead(
    scene,
    read('byMetadata', 'nodes by metadata @> {…}', 'about 20 rows'),
    ({ byMetadata }) => byMetadata && tree.files.map(({ tag }) => byMetadata(JSON.stringify({ tag }))),
  );
  await measureRead(
    scene,
    read('reconcileQueue', 'the reconcile queue', 'first 100 inconsistent or missing nodes'),
    ({ reconcileQueue }) => reconcileQueue && [reconcileQueue('1')],
  );
  await measureRead(
    scene,
    read('largest', 'the 20 largest files', 'a report that reads every row'),
    ({ largest }) => largest && [largest('1')],
  );
  await measureRead(
    scene,
    read('duplicates', 'the 20 most frequent contents', 'a report that reads every row'),
    ({ duplicates }) => duplicates && [duplicates('1')],
  );
}

/** The name after which the last page of a directory begins. */
async function lastNames({ client }: Scene, { id }: Place): Promise<string> {
  const { rows } = await client.query(
    `select name from bench.nodes where parent_id = $1 order by name collate "C" desc offset ${PAGE} limit 1`,
    [id],
  );
  return rows[0]?.name ?? '';
}
