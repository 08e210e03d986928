import type { QueryResultRow } from 'pg';
import { one, type Sql } from './nodes.ts';

/** The writer functions of the schema as calls on a connection. Each returns the node. */
export interface Writers {
  create(parentId: string | null, name: string | null, kind?: string): Promise<QueryResultRow>;
  ensure(mountKey: string, path: string): Promise<QueryResultRow>;
  move(
    id: string,
    to: { readonly parent?: string; readonly name?: string },
    expectedVersion?: number,
  ): Promise<QueryResultRow>;
  remove(
    id: string,
    options?: { readonly version?: number; readonly recursive?: boolean },
  ): Promise<QueryResultRow>;
  restore(
    id: string,
    options?: { readonly version?: number; readonly withTree?: boolean },
  ): Promise<QueryResultRow>;
}

export function writersOn(sql: Sql): Writers {
  return {
    create: (parentId, name, kind = 'file') =>
      one(sql, 'select * from filestore.create_node($1, $2, $3)', [parentId, name, kind]),
    ensure: (mountKey, path) =>
      one(sql, 'select * from filestore.ensure_directory($1, $2)', [mountKey, path]),
    move: (id, { parent, name }, expectedVersion) =>
      one(sql, 'select * from filestore.move_node($1, $2, $3, $4)', [id, parent, name, expectedVersion]),
    remove: (id, { version, recursive = false } = {}) =>
      one(sql, 'select * from filestore.delete_node($1, $2, $3)', [id, version, recursive]),
    restore: (id, { version, withTree = false } = {}) =>
      one(sql, 'select * from filestore.restore_node($1, $2, $3)', [id, version, withTree]),
  };
}

export async function keyOf(sql: Sql, mountId: string): Promise<string> {
  return (await one(sql, 'select mount_key from filestore.backend_mounts where id = $1', [mountId]))
    .mount_key;
}

/** Paths of all live nodes of a mount except its root. */
export async function livePaths(sql: Sql, mountId: string): Promise<readonly string[]> {
  const { paths } = await one(
    sql,
    `select coalesce(array_agg(path order by path), '{}') as paths
     from filestore.nodes where backend_mount_id = $1 and live and parent_id is not null`,
    [mountId],
  );
  return paths;
}
