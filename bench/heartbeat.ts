import type { Client } from 'pg';

/** How a schema takes down that a node was seen. */
export interface Heartbeat {
  /** The table whose rows it writes, in the schema filestore. */
  readonly table: string;
  /** Of one node, by an expression for its id. */
  readonly one: (nodeId: string) => string;
  /** Of the ids in $1. */
  readonly many: string;
}

/** A set-based function where the schema has it, else an update of the nodes' own column. */
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
