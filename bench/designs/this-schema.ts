import { foldAll } from '../folding.ts';
import { type Design, type Place, query } from './design.ts';
import { checksumOf, FOUND, SUMS } from './table-definitions.ts';

const TOTALS = 't.size_bytes::text, t.file_count::text, t.dir_count::text';

const below = (top: Place) =>
  top.path === ''
    ? { condition: "n.backend_mount_id = $1 and n.live and n.path <> ''", values: [top.mountId] }
    : {
        condition: "n.backend_mount_id = $1 and n.live and n.path >= $2 || '/' and n.path < $2 || '0'",
        values: [top.mountId, top.path],
      };

const deleteFilesWhere = (condition: string) =>
  `update filestore.nodes set state = 'deleted' where ${condition} and live and kind = 'file'`;

/** This schema, with the statements of docs/service.md. The database is migrated before. */
export const thisSchema: Design = {
  key: 'this',
  title: 'this schema',
  color: '#0072b2',
  schema: 'filestore',
  nodes: { table: 'filestore.nodes', mount: 'backend_mount_id', live: 'live' },
  specialities: [],
  setUp: async (client) => {
    await client.query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('bench', 'local', '/srv/bench')",
    );
  },
  async load(client) {
    await client.query(
      `insert into filestore.nodes
         (id, backend_mount_id, parent_id, parent_path, name, kind, size_bytes, checksum, metadata, state, last_modified_at)
       overriding system value
       select id, mount_id, parent_id, parent_path, name, kind, size_bytes, checksum, metadata, state, last_modified_at
       from bench.nodes
       where parent_id is not null
       order by id`,
    );
    await client.query(
      "select setval(pg_get_serial_sequence('filestore.nodes', 'id'), (select max(id) from bench.nodes))",
    );
  },
  settle: foldAll,
  byId: (id) => query(`select ${FOUND} from filestore.nodes n where n.id = $1`, id),
  resolve: (mountId, path) =>
    query(
      `select ${FOUND} from filestore.nodes n where n.backend_mount_id = $1 and n.path = $2 and n.live`,
      mountId,
      path,
    ),
  resolveDeleted: (_mountId, path) =>
    query(`select ${FOUND} from filestore.node_by_path('bench', $1, with_deleted => true) n`, path),
  page: (directory, afterName, limit) =>
    query(
      `select n.name, n.kind, n.size_bytes
       from filestore.nodes n
       where n.parent_id = $1 and n.parent_live and n.name > $2
       order by n.name
       limit $3`,
      directory.id,
      afterName,
      limit,
    ),
  subtreeSum: (top) => {
    const { condition, values } = below(top);
    return query(`select ${SUMS} from filestore.nodes n where ${condition}`, ...values);
  },
  totals: (directory) => query(`select ${TOTALS} from filestore.directory_totals($1) t`, directory.id),
  totalsList: (directories) =>
    query(
      `select t.node_id, ${TOTALS} from filestore.list_totals($1::bigint[]) t order by t.node_id`,
      directories.map(({ id }) => id),
    ),
  byChecksum: (checksum) => query('select n.id from filestore.find_by_checksum($1) n', checksum),
  duplicates: (mountId) =>
    query(
      `select n.checksum, count(*) as copies
       from filestore.nodes n
       where n.backend_mount_id = $1 and n.live and n.size_bytes > 0
       group by n.checksum
       having count(*) > 1
       order by count(*) desc, n.checksum
       limit 20`,
      mountId,
    ),
  byMetadata: (contained) =>
    query(
      'select n.id from filestore.nodes n where n.metadata @> $1::jsonb and n.live order by n.id',
      contained,
    ),
  largest: (mountId) =>
    query(
      `select n.id
       from filestore.nodes n
       where n.backend_mount_id = $1 and n.live and n.kind = 'file'
       order by n.size_bytes desc, n.id
       limit 20`,
      mountId,
    ),
  reconcileQueue: (mountId) =>
    query(
      `select n.id
       from filestore.nodes n
       where n.backend_mount_id = $1 and n.state in ('inconsistent', 'missing')
       order by n.state, n.id
       limit 100`,
      mountId,
    ),
  create: ({ mountId, parentId, name, sizeBytes }) => `
    insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes, checksum, last_modified_at)
    values (${mountId}, ${parentId}, ${name}, 'file', ${sizeBytes}, ${checksumOf(name)}, now())`,
  createDirectory: ({ mountId, parentId, name }) => `
    insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
    values (${mountId}, ${parentId}, ${name}, 'directory')`,
  overwrite: (nodeId, sizeBytes) => `
    update filestore.nodes
    set size_bytes = ${sizeBytes}, checksum = ${checksumOf(sizeBytes)}, last_modified_at = now()
    where id = ${nodeId} and live`,
  createBatch: (files) => query('select count(*) from filestore.create_nodes($1::jsonb)', files),
  bulkInsert: (label) =>
    query(
      `insert into filestore.nodes
         (backend_mount_id, parent_id, parent_path, name, kind, size_bytes, checksum, metadata, last_modified_at)
       select mount_id, parent_id, parent_path, name || $1, 'file', size_bytes, checksum, metadata, last_modified_at
       from bench.more`,
      label,
    ),
  heartbeat: (ids) => query('select filestore.record_sightings($1::bigint[])', ids),
  deleteFile: (nodeId) => deleteFilesWhere(`id = ${nodeId}`),
  deleteFiles: (ids) => query(deleteFilesWhere('id = any ($1::bigint[])'), ids),
  move: (node, newParent, newName) =>
    query('select id from filestore.move_node($1, $2, $3)', node.id, newParent.id, newName),
  deleteTree: (top) => query('select id from filestore.delete_node($1, recursive => true)', top.id),
  restoreTree: (top) => query('select id from filestore.restore_node($1, with_tree => true)', top.id),
  copyTree: (top, newParentId, newName) =>
    query('select id from filestore.copy_tree($1, $2, $3)', top.id, newParentId, newName),
  purge: (limit) =>
    query("select filestore.purge_deleted(older_than => '0 s', batch => $1::integer) as removed", limit),
  async createMount(client, key) {
    const { rows } = await client.query(
      `insert into filestore.backend_mounts (mount_key, backend_kind, root_path)
       values ($1, 'local', '/srv/' || $1)
       returning id`,
      [key],
    );
    const roots = await client.query('select id from filestore.nodes where root_of_mount_id = $1', [
      rows[0].id,
    ]);
    return { mountId: rows[0].id, rootId: roots.rows[0].id };
  },
  async eraseMount(client, { mountId }) {
    const { rows } = await client.query(
      "update filestore.backend_mounts set state = 'inactive' where id = $1 returning mount_key",
      [mountId],
    );
    await client.query('call filestore.erase_mount($1)', [rows[0].mount_key]);
  },
  // What check_integrity() does for all mounts takes minutes in a large catalogue.
  wrongRows: (mountId) =>
    query(
      `select
         (
           select count(*)
           from filestore.backend_mounts m
           cross join lateral filestore.audit_rollups(m.mount_key) a
           where m.id = $1
         )
         + (
           select count(*)
           from filestore.nodes n
           join filestore.nodes p on p.id = n.parent_id
           where n.backend_mount_id = $1 and n.live
             and n.path <> case p.path when '' then '' else p.path || '/' end || n.name
         ) as wrong`,
      mountId,
    ),
};
