import type { QueryResultRow } from 'pg';
import type { Sql } from '../support/rows/nodes.ts';
import { contentOf, type KnownNode } from './expected.ts';
import type { NodeContent } from './expected-content.ts';

/** A row of a node, with the moment at which it was last compared with its backend. */
export interface NodeRow extends NodeContent {
  readonly id: string;
  readonly path: string;
  readonly kind: 'file' | 'directory';
  readonly parent_id: string | null;
  readonly name: string;
  readonly version: number;
  readonly live: boolean;
  readonly last_seen_at: Date | null;
  readonly last_reconciled_at: Date | null;
}

export interface PlacedNode extends KnownNode {
  readonly parentId: string | null;
  readonly state: string;
  readonly row: NodeRow;
}

export const rowsOf = async <T = QueryResultRow>(
  sql: Sql,
  text: string,
  values: unknown[] = [],
): Promise<readonly T[]> => {
  const result = await sql.query(text, values);
  return ('rows' in result ? result.rows : result) as readonly T[];
};

/** All nodes of a mount, deleted ones too. */
export const readNodes = (sql: Sql, mountKey: string): Promise<readonly NodeRow[]> =>
  rowsOf(
    sql,
    `select n.*, s.last_seen_at, s.last_reconciled_at
     from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id
     left join filestore.node_sightings s on s.node_id = n.id
     where m.mount_key = $1`,
    [mountKey],
  );

/** The live nodes of a mount, before a scan. */
export async function readKnown(sql: Sql, mountKey: string): Promise<readonly PlacedNode[]> {
  const rows = await readNodes(sql, mountKey);
  return rows
    .filter(({ live }) => live)
    .map((row) => ({
      id: row.id,
      path: row.path,
      kind: row.kind,
      identity: row.backend_identity,
      isMissing: row.state === 'missing',
      content: contentOf(row.size_bytes, row.content_hash),
      parentId: row.parent_id,
      state: row.state,
      row,
    }));
}
