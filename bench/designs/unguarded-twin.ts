import { createTwin } from '../twin.ts';
import { type Design, query } from './design.ts';
import { checksumOf, FOUND } from './table-definitions.ts';

const TREE = "backend_mount_id = $1 and path >= $2 and path < $2 || '0' and (path = $2 or path >= $2 || '/')";
const COUNTED = 'version = version + 1, updated_at = statement_timestamp()';
const DELETED = `state = 'deleted', deleted_at = statement_timestamp(), live = false, parent_live = null, ${COUNTED}`;

/** This schema's columns and indexes without keys, checks and triggers: what Postgres takes for the rows alone. */
export const unguardedTwin: Design = {
  key: 'twin',
  title: 'unguarded twin',
  color: '#999999',
  schema: 'twin',
  nodes: { table: 'twin.nodes', mount: 'backend_mount_id', live: 'live' },
  specialities: [],
  setUp: createTwin,
  byId: (id) => query(`select ${FOUND} from twin.nodes n where n.id = $1`, id),
  create: ({ mountId, parentId, parentPath, name, sizeBytes }) => `
    insert into twin.nodes
      (backend_mount_id, parent_id, parent_path, parent_live, path, depth, name, kind, size_bytes, checksum, last_modified_at)
    values (${mountId}, ${parentId}, ${parentPath}, true, ${parentPath} || '/' || ${name}, 3, ${name}, 'file', ${sizeBytes},
      ${checksumOf(name)}, now())`,
  createDirectory: ({ mountId, parentId, parentPath, name }) => `
    insert into twin.nodes
      (backend_mount_id, parent_id, parent_path, parent_live, path, directory_path, depth, name, kind)
    values (${mountId}, ${parentId}, ${parentPath}, true, ${parentPath} || '/' || ${name}, ${parentPath} || '/' || ${name}, 3,
      ${name}, 'directory')`,
  overwrite: (nodeId, sizeBytes) => `
    update twin.nodes
    set size_bytes = ${sizeBytes}, checksum = ${checksumOf(sizeBytes)}, last_modified_at = now(), ${COUNTED}
    where id = ${nodeId} and live`,
  deleteFile: (nodeId) => `update twin.nodes set ${DELETED} where id = ${nodeId} and live and kind = 'file'`,
  move: (node, newParent, newName) => {
    const path = newParent.path === '' ? newName : `${newParent.path}/${newName}`;
    return query(
      `update twin.nodes
       set path           = $3 || substr(path, length($2) + 1),
           name           = case path when $2 then $4 else name end,
           parent_id      = case path when $2 then $5 else parent_id end,
           parent_path    = case path when $2 then $6 else $3 || substr(parent_path, length($2) + 1) end,
           directory_path = $3 || substr(directory_path, length($2) + 1),
           ${COUNTED}
       where ${TREE} and live`,
      node.mountId,
      node.path,
      path,
      newName,
      newParent.id,
      newParent.path,
    );
  },
  deleteTree: (top) =>
    query(`update twin.nodes set ${DELETED} where ${TREE} and live`, top.mountId, top.path),
  restoreTree: (top) =>
    query(
      `update twin.nodes
       set state = 'active', deleted_at = null, live = true, parent_live = true, ${COUNTED}
       where ${TREE} and not live and deleted_at = (select t.deleted_at from twin.nodes t where t.id = $3)`,
      top.mountId,
      top.path,
      top.id,
    ),
};
