import type { QueryResultRow } from 'pg';
import { one, type Sql } from './tree.ts';

/** Bytes, files and directories below a directory. */
export type Totals = readonly [size: number, files: number, directories: number];

export async function totalsOf(sql: Sql, directoryId: string): Promise<Totals> {
  const row = await one(sql, 'select * from filestore.directory_totals($1)', [directoryId]);
  return [Number(row.size_bytes), Number(row.file_count), Number(row.dir_count)];
}

/**
 * Directories whose totals, as the view and the function tell them, are not what a count of the live nodes
 * below their path gives. One statement, so that it may run beside writers.
 */
export async function wrongTotals(sql: Sql): Promise<readonly QueryResultRow[]> {
  const result = await sql.query(
    `select d.id, d.path, d.size_bytes, d.file_count, d.dir_count, counted.*
     from filestore.view_filestore_directories d
     cross join lateral (
       select coalesce(sum(n.size_bytes), 0)               as size,
              count(*) filter (where n.kind = 'file')      as files,
              count(*) filter (where n.kind = 'directory') as directories
       from filestore.nodes n
       where n.backend_mount_id = d.backend_mount_id
         and n.live
         and n.parent_id is not null
         and (d.path = '' or (n.path >= d.path || '/' and n.path < d.path || '0'))
     ) counted
     cross join lateral filestore.directory_totals(d.id) t
     where (d.size_bytes, d.file_count, d.dir_count) is distinct from (counted.size, counted.files, counted.directories)
        or (t.size_bytes, t.file_count, t.dir_count) is distinct from (counted.size, counted.files, counted.directories)`,
  );
  return 'rows' in result ? result.rows : result;
}
