import type { Client } from 'pg';
import { withDatabase } from './bench-server.ts';
import type { Comparison } from './context.ts';
import { foldAll } from './folding.ts';
import { createFilledTree } from './generated-tree.ts';
import { secondsOf, settle, single } from './measure.ts';

/** One version, one sighting and one command for so many nodes. */
const NODES_PER_COMMAND = 10;

/** What a node, a version, a sighting and a command take on disk, and how long the upkeep of all of them takes. */
export const growth: Comparison = ({ server, nodes, report }) =>
  withDatabase(server, async ({ client }) => {
    const directories = Math.ceil(nodes / 100);
    await createFilledTree(client, directories, nodes - directories);
    const perRow = async (what: string, table: string, rows: number) => {
      const { heap, indexes } = await sizeOf(client, table);
      report(
        single(`${table}: table, per ${what}`, 'bytes', [heap / rows]),
        single(`${table}: indexes, per ${what}`, 'bytes', [indexes / rows]),
      );
    };
    await perRow('node', 'nodes', nodes);
    await perRow('directory', 'rollups', directories);
    await client.query(
      'select filestore.record_sightings(array(select id from filestore.nodes), now(), now())',
    );
    await perRow('node', 'node_sightings', nodes);
    await client.query(
      "update filestore.nodes set size_bytes = size_bytes + 1, content_hash = md5(id::text) where kind = 'file'",
    );
    await foldAll(client);
    await perRow('version', 'snapshots', nodes - directories);
    await runCommands(client);
    await perRow('command', 'journal_entries', Math.floor(nodes / NODES_PER_COMMAND));

    const timed = async (what: string, ...statements: readonly string[]) => {
      await settle(client);
      const time = await secondsOf(async () => {
        for (const statement of statements) await client.query(statement);
      });
      report(single(`${what}, ${nodes} nodes`, 's', [time]));
    };
    await timed('vacuum of nodes, after a change of every file', 'vacuum filestore.nodes');
    await timed('analyze of all tables', 'analyze');
    await timed('reindex concurrently of nodes, all indexes', 'reindex table concurrently filestore.nodes');
    await timed('recount_rollups()', "select filestore.recount_rollups('bench')");
    await timed('check_integrity()', 'select * from filestore.check_integrity()');
  });

async function sizeOf(
  client: Client,
  table: string,
): Promise<{ readonly heap: number; readonly indexes: number }> {
  const { rows } = await client.query<{ heap: string; indexes: string }>(
    `select pg_table_size($1::regclass) as heap, pg_indexes_size($1::regclass) as indexes`,
    [`filestore.${table}`],
  );
  return { heap: Number(rows[0]?.heap), indexes: Number(rows[0]?.indexes) };
}

async function runCommands(client: Client): Promise<void> {
  await client.query(
    `insert into filestore.journal_entries (backend_mount_id, command, status, principal, idempotency_key, primary_node_id, parameters)
     select n.backend_mount_id, 'overwrite', 'running', 'user-' || n.id % 100, md5(n.id::text), n.id,
            jsonb_build_object('path', n.path, 'size_bytes', n.size_bytes)
     from filestore.nodes n
     where n.id % ${NODES_PER_COMMAND} = 0`,
  );
  await client.query(
    `update filestore.journal_entries set status = 'succeeded', result = jsonb_build_object('version', 2)`,
  );
  await client.query('vacuum filestore.journal_entries');
}
