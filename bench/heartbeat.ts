import type { Client } from 'pg';

/** How a schema records that a node was seen. */
export interface Heartbeat {
  /** The table that is written, in schema filestore. */
  readonly table: string;
  /** The statement for one node, whose id is an SQL expression. */
  readonly one: (nodeId: string) => string;
  /** The statement for the ids in $1. */
  readonly many: string;
}

/** Finds out which form the schema has: a function for a set of nodes, or a column of nodes. */
export async function readHeartbeat(client: Client): Promise<Heartbeat> {
  const { rows } = await client.query<{ readonly found: boolean }>(
    "select to_regprocedure('filestore.record_sightings(bigint[], timestamptz, timestamptz)') is not null as found",
  );
  return rows[0]?.found
    ? {
        table: 'node_sightings',
        one: (nodeId) => `select filestore.record_sightings(array[${nodeId}])`,
        many: 'select filestore.record_sightings($1::bigint[])',
      }
    : {
        table: 'nodes',
        one: (nodeId) => `${UPDATE} where id = ${nodeId}`,
        many: `${UPDATE} where id = any ($1::bigint[])`,
      };
}

const UPDATE = 'update filestore.nodes set last_seen_at = statement_timestamp()';
