import type { QueryResultRow } from 'pg';
import { one, type Sql } from './nodes.ts';

/** Bytes, files and directories below a directory. */
export type Totals = readonly [size: number, files: number, directories: number];

export async function totalsOf(sql: Sql, directoryId: string): Promise<Totals> {
  const row = await one(sql, 'select * from filestore.directory_totals($1)', [directoryId]);
  return [Number(row.size_bytes), Number(row.file_count), Number(row.dir_count)];
}

/**
 * Directories for which the view or one of both functions returns other totals or child counts than a count of the
 * live nodes. One statement, so that it can run during writes.
 */
export async function wrongTotals(sql: Sql): Promise<readonly QueryResultRow[]> {
  const result = await sql.query(
    `select d.id, d.path, to_jsonb(d) as view, to_jsonb(t) as one, to_jsonb(l) as list, counted.*
     from filestore.view_filestore_directories d
     cross join lateral (
       select coalesce(sum(n.size_bytes), 0)               as size,
              count(*) filter (where n.kind = 'file')      as files,
              count(*) filter (where n.kind = 'directory') as directories,
              count(*) filter (where n.parent_id = d.id)   as children
       from filestore.nodes n
       where n.backend_mount_id = d.backend_mount_id
         and n.live
         and n.parent_id is not null
         and (d.path = '' or (n.path >= d.path || '/' and n.path < d.path || '0'))
     ) counted
     cross join lateral filestore.directory_totals(d.id) t
     left join filestore.list_totals(array(select n.id from filestore.nodes n)) l on l.node_id = d.id
     where (d.size_bytes, d.file_count, d.dir_count, d.child_count) is distinct from
           (counted.size, counted.files, counted.directories, counted.children)
        or (t.size_bytes, t.file_count, t.dir_count, t.child_count, t.consistency_state) is distinct from
           (d.size_bytes, d.file_count, d.dir_count, d.child_count, d.consistency_state)
        or (l.size_bytes, l.file_count, l.dir_count, l.child_count, l.consistency_state) is distinct from
           (d.size_bytes, d.file_count, d.dir_count, d.child_count, d.consistency_state)`,
  );
  return 'rows' in result ? result.rows : result;
}
