import { withDatabase } from './bench-server.ts';
import type { Comparison } from './context.ts';
import { foldAll } from './folding.ts';
import { createFilledTree, type Tree } from './generated-tree.ts';
import { readHeartbeat } from './heartbeat.ts';
import type { Statement } from './load.ts';
import { compare, inTurns, seconds, settle } from './measure.ts';
import { changeTwin, createTwin } from './twin.ts';

const FILES = 100_000;
const CONNECTIONS = 8;

const CONTENT = "size_bytes = :size::bigint, checksum = 'sha256:' || md5(:size), last_modified_at = now()";
/** SQL that does for the twin what the guards do for nodes. */
const COUNTED = ', version = version + 1, updated_at = statement_timestamp()';

/** A write of content to a random file of the tree. Files were loaded right after the directories, so their ids follow. */
export function contentStatement(table: string, tree: Tree, files: number, counted = ''): Statement {
  return {
    text: `update ${table} set ${CONTENT}${counted} where id = :node::bigint`,
    variables: { ...fileVariable(tree, files), size: { kind: 'random', from: 1, to: 1_000_000 } },
  };
}

function fileVariable(tree: Tree, files: number): Statement['variables'] {
  const first = tree.beforeFirst + tree.directories;
  return { node: { kind: 'random', from: first + 1, to: first + files } };
}

/** Updates of one file each. */
export const update: Comparison = (context) =>
  withDatabase(context.server, async ({ client, url }) => {
    const tree = await createFilledTree(client, 1_000, FILES);
    await createTwin(client);
    const heartbeat = await readHeartbeat(client);
    const variables = fileVariable(tree, FILES);
    // Any column of the twin without an index.
    const moment = heartbeat.table === 'nodes' ? 'last_seen_at' : 'last_modified_at';
    const rate = (statement: Statement) => async () => {
      await foldAll(client);
      await settle(client);
      return context.load.run(url, statement, CONNECTIONS, context.seconds);
    };
    for (const [what, here, twin] of [
      [
        'heartbeat',
        { text: heartbeat.one(':node::bigint'), variables },
        {
          text: `update twin.nodes set ${moment} = statement_timestamp() where id = :node::bigint`,
          variables,
        },
      ],
      [
        'content write',
        contentStatement('filestore.nodes', tree, FILES),
        contentStatement('twin.nodes', tree, FILES, COUNTED),
      ],
    ] as const) {
      const rates = await inTurns(context.rounds, { here: rate(here), twin: rate(twin) });
      context.report(compare(`${what}, ${CONNECTIONS} connections`, '/s', rates.here, rates.twin));
    }
  });

/** The move of a directory with everything below it, against a plain update of all these rows. */
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
