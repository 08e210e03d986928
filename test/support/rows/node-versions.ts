import type { Sql } from './nodes.ts';

/**
 * Versions of nodes of a mount that do not begin where the version before ends. Only the last version may have no end.
 */
export function brokenVersions(sql: Sql, mountId: string) {
  return sql.query(
    `select id, version, valid_from, valid_to
     from (
       select v.*, n.version as last_version,
              lag(v.version) over one_node as previous, lag(v.valid_to) over one_node as previous_valid_to
       from filestore.view_filestore_node_versions v join filestore.nodes n on n.id = v.id
       where v.backend_mount_id = $1
       window one_node as (partition by v.id order by v.version)
     ) v
     where version <> coalesce(previous, 0) + 1
        or valid_from <> coalesce(previous_valid_to, created_at)
        or (valid_to is null) <> (version = last_version)`,
    [mountId],
  );
}
