import type { Client } from 'pg';
import { startBenchServer, withDatabase } from './bench-server.ts';
import type { Comparison } from './context.ts';
import { createFilledTree } from './generated-tree.ts';
import { compare } from './measure.ts';

const FILES = 5000;

/** Of pages that are written whole after a checkpoint, nothing is counted. */
const SETTINGS = ['wal_level=logical', 'fsync=off', 'full_page_writes=off'];

/** What a server writes to its log while it is prepared for moves, against the same server when it is not. */
export const preparedForMoves: Comparison = async ({ report }) => {
  const server = await startBenchServer(SETTINGS, process.env);
  try {
    await withDatabase(server, async ({ client }) => {
      const tree = await createFilledTree(client, FILES / 100, FILES);
      const changes: Readonly<Record<string, string>> = {
        'a write of size and ETag': `update filestore.nodes set size_bytes = size_bytes + 1, content_hash = md5(id::text) where kind = 'file'`,
        'a move, for each node below': `select filestore.move_node(${tree.topId}, new_name => 'top-' || clock_timestamp())`,
      };
      for (const [what, statement] of Object.entries(changes)) {
        const bytes: number[] = [];
        for (const wanted of [true, false]) {
          await client.query(`call filestore.prepare_moves(${wanted})`);
          bytes.push((await logOf(client, statement)) / FILES);
        }
        report(compare(`log of ${what}, prepared for moves`, 'bytes', bytes.slice(0, 1), bytes.slice(1)));
      }
    });
  } finally {
    await server.stop();
  }
};

async function logOf(client: Client, statement: string): Promise<number> {
  const { rows: before } = await client.query('select pg_current_wal_insert_lsn() as lsn');
  await client.query(statement);
  const { rows } = await client.query('select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1) as bytes', [
    before[0].lsn,
  ]);
  return Number(rows[0].bytes);
}
