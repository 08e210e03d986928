import { FILES } from './large-tables.ts';

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
