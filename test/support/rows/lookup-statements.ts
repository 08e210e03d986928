import type { TestDatabase } from '../databases/test-database.ts';
import { FILES, idOf, loadLargeTree } from './large-tables.ts';
import { foldAll, type Mount, one } from './nodes.ts';

/** The id of a live file. */
export const NODE = 501;

/** Ids of rows of {@link loadLargeTree}. */
export interface KnownIds {
  readonly mount: string;
  /** A mount that has only its root. */
  readonly bare: string;
  readonly d5: string;
  readonly d1: string;
  readonly empty: string;
  readonly gone: string;
}

/** Loads the large tree as mount `m`, with an empty mount `bare`, and a few changes since the last poll. */
export async function loadKnownTree(database: TestDatabase): Promise<{ mount: Mount; known: KnownIds }> {
  const mount = await loadLargeTree(database);
  await database.query("update filestore.backend_mounts set mount_key = 'm'");
  const { id: bare } = await one(
    database,
    `insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('bare', 'local', '/bare')
     returning id`,
  );
  // The few changes since the last poll, with the deletion of "gone".
  await database.query(
    `update filestore.nodes set storage_class = 'COLD'
     where id in (select id from filestore.nodes where live and kind = 'file' order by id limit 20)`,
  );
  await foldAll(database);
  const idFor = (path: string) => idOf(database, path);
  const known = {
    mount: mount.id,
    bare,
    d5: await idFor('d5'),
    d1: await idFor('d1'),
    empty: await idFor('empty'),
    gone: await idFor('gone'),
  };
  return { mount, known };
}

const ACTIVE = 'select id, path, location from filestore.view_filestore_active_nodes';
const CHANGED = 'select id, version + 1 as version from filestore.snapshots where backend_mount_id =';

/** A description, the statement, its index, and the number of rows. */
export const LOOKUPS: readonly (readonly [string, (known: KnownIds) => string, string, number])[] = [
  ['a node', () => `${ACTIVE} where id = ${NODE}`, 'nodes_pkey', 1],
  ['a node that is not there', () => `${ACTIVE} where id = 99999999`, 'nodes_pkey', 0],
  [
    'a path of a mount by key',
    () => `${ACTIVE} where mount_key = 'm' and path = 'd5/f9'`,
    'nodes_live_path_idx',
    1,
  ],
  [
    'a path of a mount by id',
    (known) => `${ACTIVE} where backend_mount_id = ${known.mount} and path = 'd5/f9'`,
    'nodes_live_path_idx',
    1,
  ],
  [
    'the tombstones at a path',
    (known) =>
      `select id from filestore.nodes where backend_mount_id = ${known.mount} and path = 'd5/f7' and not live`,
    'nodes_dead_path_idx',
    1,
  ],
  [
    'the last of many tombstones at a path',
    (known) =>
      `select id from filestore.nodes where backend_mount_id = ${known.mount} and path = 'd1/lock' and not live
       order by deleted_at desc, id desc limit 1`,
    'nodes_dead_path_idx',
    1,
  ],
  [
    'tombstones at a path that has none',
    (known) =>
      `select id from filestore.nodes where backend_mount_id = ${known.mount} and path = 'd5/f9' and not live`,
    'nodes_dead_path_idx',
    0,
  ],
  [
    'everything below a path',
    (known) => `${ACTIVE} where backend_mount_id = ${known.mount} and path >= 'd5/' and path < 'd50'`,
    'nodes_live_path_idx',
    900,
  ],
  [
    'the first page of a directory',
    (known) =>
      `select id from filestore.nodes where parent_id = ${known.d5} and parent_live order by name limit 50`,
    'nodes_live_child_key',
    50,
  ],
  [
    'the next page of a directory, and its mount',
    (known) =>
      `select id from filestore.nodes where backend_mount_id = ${known.mount} and parent_id = ${known.d5} and parent_live
         and name > 'f5' order by name limit 50`,
    'nodes_live_child_key',
    50,
  ],
  [
    'all children of a directory',
    (known) => `select id from filestore.nodes where parent_id = ${known.d5} and parent_live`,
    'nodes_live_child_key',
    900,
  ],
  [
    'the children of an empty directory',
    (known) => `select id from filestore.nodes where parent_id = ${known.empty} and parent_live`,
    'nodes_live_child_key',
    0,
  ],
  [
    'the children of an unknown directory',
    () => 'select id from filestore.nodes where parent_id = 99999999 and parent_live order by name limit 50',
    'nodes_live_child_key',
    0,
  ],
  [
    'the number of children of a directory',
    (known) =>
      `select count(*) from filestore.nodes where parent_id = ${known.d5} and parent_live is not null`,
    'nodes_live_child_key',
    1,
  ],
  [
    'the tombstones below a directory',
    (known) => `select id from filestore.nodes where parent_id = ${known.d5} and not live`,
    'nodes_tombstone_parent_idx',
    100,
  ],
  [
    'the tombstones below a directory that has none',
    (known) => `select id from filestore.nodes where parent_id = ${known.empty} and not live`,
    'nodes_tombstone_parent_idx',
    0,
  ],
  [
    'a checksum',
    () =>
      `${ACTIVE} where hashtextextended(checksum, 0) = hashtextextended('md5:abc', 0) and checksum = 'md5:abc'`,
    'nodes_checksum_idx',
    0,
  ],
  [
    'the missing nodes of a mount',
    (known) =>
      `select id from filestore.nodes where backend_mount_id = ${known.mount} and state = 'missing' order by id limit 100`,
    'nodes_unsettled_idx',
    100,
  ],
  ['rare metadata', () => `${ACTIVE} where metadata @> '{"tag": "d5"}'`, 'nodes_metadata_idx', 10],
  [
    'metadata of many',
    () => `select id from filestore.nodes where metadata @> '{"kind": "photo"}'`,
    'nodes_metadata_idx',
    3000,
  ],
  ['metadata that no node has', () => `${ACTIVE} where metadata @> '{"tag": "x"}'`, 'nodes_metadata_idx', 0],
  [
    'changes since the last poll',
    (known) => `${CHANGED} ${known.mount} and valid_to >= now() - interval '10 minutes'`,
    'snapshots_changed_idx',
    21,
  ],
  [
    'changes since a moment with no changes after it',
    (known) => `${CHANGED} ${known.mount} and valid_to >= now() + interval '10 minutes'`,
    'snapshots_changed_idx',
    0,
  ],
  [
    'nodes created since the last poll',
    (known) =>
      `select id from filestore.nodes where backend_mount_id = ${known.mount} and id > ${FILES} order by id limit 50`,
    'nodes_pkey',
    50,
  ],
  [
    'an earlier version',
    () => `select * from filestore.view_filestore_node_versions where id = ${NODE} and version = 1`,
    'snapshots_pkey',
    1,
  ],
  [
    'all nodes below a path, live and deleted',
    (known) =>
      `select id from filestore.nodes where backend_mount_id = ${known.mount} and live and path >= 'd5/' and path < 'd50'
       union all
       select id from filestore.nodes where backend_mount_id = ${known.mount} and not live and path >= 'd5/' and path < 'd50'`,
    'nodes_dead_path_idx',
    1000,
  ],
  [
    'all nodes of a mount that has few, live and deleted',
    (known) =>
      `select id from filestore.nodes where backend_mount_id = ${known.bare} and live
       union all
       select id from filestore.nodes where backend_mount_id = ${known.bare} and not live`,
    'nodes_live_path_idx',
    1,
  ],
  [
    'the root of a mount',
    (known) => `select id from filestore.nodes where root_of_mount_id = ${known.mount}`,
    'nodes_root_key',
    1,
  ],
];

/** A description, the call of a function, and the number of rows. */
export const READS: readonly (readonly [string, (known: KnownIds) => string, number])[] = [
  ['a path', () => "node_by_path('m', 'd5/f9')", 1],
  ['a path, or what was there', () => "node_by_path('m', 'd5/f7', true)", 1],
  ['a path that is used again all day', () => "node_by_path('m', 'd1/lock', true)", 1],
  ['a path where nothing was', () => "node_by_path('m', 'd5/none', true)", 0],
  ['an id', () => `node_by_id(${NODE})`, 1],
  ['ids', () => `nodes_by_id(array[${NODE}, 1, 99999999])`, 2],
  ['paths', () => "nodes_by_path('m', '{d5/f9,d5/none}')", 1],
  ['the versions of a node', () => `node_versions(${NODE}, page_size => 1)`, 1],
  ['a location', () => `node_location(${NODE})`, 1],
  ['a page', (known) => `list_directory(${known.d5}, 'f5', 50)`, 50],
  ['the page of an empty directory', (known) => `list_directory(${known.empty})`, 0],
  ['a page with what is deleted', (known) => `list_directory(${known.d5}, 'f5', 50, true)`, 50],
  [
    'a page amid equal names',
    (known) => `list_directory(${known.d1}, 'lock', 50, true, ${FILES} + 1000)`,
    50,
  ],
  ['what was in a deleted directory', (known) => `list_directory(${known.gone}, '', 50, true)`, 50],
  ['an empty directory with what is deleted', (known) => `list_directory(${known.empty}, '', 50, true)`, 0],
  ['a checksum', () => "find_by_checksum('md5:' || md5('d5f9'))", 1],
  ['a version', () => `node_at(${NODE}, now())`, 1],
  [
    'a part of a mount in which all nodes were seen',
    () => "list_unseen('m', now() - interval '1 hour', 'd2', 20)",
    1,
  ],
  ['a part of a mount of which nothing is seen', () => "list_unseen('m', now(), 'd2', 20)", 1],
  ['the end of a mount', () => "list_unseen('m', now(), 'x', 1000)", 1],
  ['a mount without nodes', () => "list_unseen('bare', now())", 1],
];

/** A call, and indexes that it uses. */
export const INDEXED_CALLS: readonly (readonly [string, readonly string[]])[] = [
  ["node_by_path('m', 'd5/f9')", ['nodes_live_path_idx']],
  ["node_by_path('m', 'd5/f7', true)", ['nodes_dead_path_idx']],
  ["list_directory(60, 'f5', 50)", ['nodes_live_child_key']],
  ["list_directory(60, 'f5', 50, true)", ['nodes_live_child_key', 'nodes_tombstone_parent_idx']],
  ["list_unseen('m', now(), 'd2', 100)", ['nodes_live_path_idx', 'node_sightings_pkey']],
  ["find_by_checksum('md5:' || md5('d5f9'))", ['nodes_checksum_idx']],
  [`node_at(${NODE}, now())`, ['snapshots_pkey', 'nodes_pkey']],
  ["tree_at('m', 'd5', now())", ['snapshots_path_idx', 'nodes_live_path_idx']],
  ["create_node(60, 'new')", ['nodes_live_child_key']],
  ["upsert_file('m', 'd5/f9', 7)", ['nodes_live_path_idx']],
  ["upsert_file('m', 'd5/x/new')", ['nodes_live_path_idx', 'nodes_live_child_key']],
  ['merge_metadata(501, \'{"tag": "x"}\')', ['nodes_pkey']],
  [`create_nodes('[{"parent_id": 60, "name": "new"}, {"parent_id": 61, "name": "new"}]')`, ['nodes_pkey']],
  ["copy_tree(60, 61, 'copy')", ['nodes_pkey', 'nodes_live_path_idx']],
  ["ensure_directory('m', 'd5/x/y')", ['nodes_live_path_idx', 'nodes_live_child_key']],
  ["move_node(60, null, 'renamed')", ['nodes_live_child_key']],
  ['delete_node(60, null, true)', ['nodes_live_path_idx']],
  ['delete_batch(60, 10)', ['nodes_live_path_idx']],
  [`revert_node(${NODE}, 1)`, ['snapshots_pkey']],
  [`set_states(array[${NODE}, ${NODE} + 1], 'inconsistent')`, ['nodes_pkey']],
  [`record_sightings(array[${NODE}, ${NODE} + 1])`, ['nodes_pkey', 'node_sightings_pkey']],
  ["purge_deleted('0', 10)", ['nodes_purge_idx', 'nodes_tombstone_parent_idx']],
];
