import type { Comparison } from './context.ts';
import type { Statement } from './load.ts';
import { compare, inTurns, seconds, settle } from './measure.ts';
import { withDatabase } from './server.ts';
import { createFilledTree, foldAll } from './tree.ts';
import { changeTwin, createTwin } from './twin.ts';

const FILES = 100_000;
const CONNECTIONS = 8;

const HEARTBEAT = 'last_seen_at = statement_timestamp()';
const CONTENT = "size_bytes = :size::bigint, checksum = 'sha256:' || md5(:size), last_modified_at = now()";
/** What the guards see to by themselves. */
const COUNTED = ', version = version + 1, updated_at = statement_timestamp()';

/** Updates of one file each. */
export const update: Comparison = (context) =>
  withDatabase(context.server, async ({ client, url }) => {
    const tree = await createFilledTree(client, 1_000, FILES);
    await createTwin(client);
    const first = tree.beforeFirst + tree.directories;
    const statement = (table: string, change: string): Statement => ({
      text: `update ${table} set ${change} where id = :node::bigint`,
      variables: {
        node: { kind: 'random', from: first + 1, to: first + FILES },
        ...(change.includes(':size') && { size: { kind: 'random', from: 1, to: 1_000_000 } as const }),
      },
    });
    const rate = (table: string, change: string) => async () => {
      await foldAll(client);
      await settle(client);
      return context.load.run(url, statement(table, change), CONNECTIONS, context.seconds);
    };
    for (const [what, change, counted] of [
      ['heartbeat', HEARTBEAT, ''],
      ['content write', CONTENT, COUNTED],
    ] as const) {
      const rates = await inTurns(context.rounds, {
        here: rate('filestore.nodes', change),
        twin: rate('twin.nodes', change + counted),
      });
      context.report(compare(`${what}, ${CONNECTIONS} connections`, '/s', rates.here, rates.twin));
    }
  });

/** A directory that moves with everything below it, against an update of all these rows. */
export const move: Comparison = async (context) => {
  for (const nodes of [20_000, 100_000]) {
    const directories = nodes / 100;
    await withDatabase(context.server, async ({ client }) => {
      const tree = await createFilledTree(client, directories, nodes - directories);
      await createTwin(client);
      const timed = async (work: () => Promise<unknown>) => {
        await foldAll(client);
        await settle(client);
        return seconds(work);
      };
      const parent = tree.topPath.slice(0, tree.topPath.lastIndexOf('/'));
      const names = { here: 'data', twin: 'data' };
      const nextName = (side: keyof typeof names) => {
        const [from, to] = names[side] === 'data' ? ['data', 'moved'] : ['moved', 'data'];
        names[side] = to;
        return { from, to };
      };
      const times = await inTurns(context.rounds, {
        here: () => {
          const { to } = nextName('here');
          return timed(() =>
            client.query('update filestore.nodes set name = $2 where id = $1', [tree.topId, to]),
          );
        },
        twin: () => {
          const { from, to } = nextName('twin');
          const values = [tree.mountId, `${parent}/${from}`, `${parent}/${to}`];
          return timed(() => changeTwin(client, nodes + 1, MOVE_TWIN, values));
        },
      });
      context.report(compare(`move a directory of ${nodes} nodes`, 's', times.here, times.twin));
    });
  }
};

const MOVE_TWIN = `
  update twin.nodes
  set path           = $3 || substr(path, length($2) + 1),
      name           = case path when $2 then substring($3 from '[^/]+$') else name end,
      parent_path    = case path when $2 then parent_path else $3 || substr(parent_path, length($2) + 1) end,
      directory_path = $3 || substr(directory_path, length($2) + 1),
      version        = version + 1,
      updated_at     = statement_timestamp()
  where backend_mount_id = $1
    and live
    and (path = $2 or (path >= $2 || '/' and path < $2 || '0'))`;
