import { randomBytes } from 'node:crypto';
import type { BenchDatabase } from './bench-server.ts';
import type { Context } from './context.ts';
import { foldAll } from './folding.ts';
import type { Tree } from './generated-tree.ts';
import type { Statement } from './load.ts';
import { settle } from './measure.ts';

/** A statement that inserts one file into a random directory of the tree, as plain SQL or by the function. */
export function createStatement(tree: Tree, by: 'insert' | 'function'): Statement {
  // Names that no other statement uses.
  const run = randomBytes(4).toString('hex');
  const columns = [
    ['parent_id', `${tree.beforeFirst} + :directory::bigint`],
    ['name', `'report-${run}-' || :client_id || '-' || :counter || '.dat'`],
    ['kind', "'file'"],
    ['size_bytes', ':size::bigint'],
    ['checksum', `'sha256:' || md5('${run}' || :client_id) || md5('${run}' || :counter)`],
    ['last_modified_at', 'now()'],
  ] as const;
  return {
    text:
      by === 'function'
        ? `select from filestore.create_node(${columns.map(([column, value]) => `${column} => ${value}`).join(', ')})`
        : `insert into filestore.nodes (backend_mount_id, ${columns.map(([column]) => column).join(', ')})
           values (${tree.mountId}, ${columns.map(([, value]) => value).join(', ')})`,
    variables: {
      counter: { kind: 'counter' },
      directory: { kind: 'random', from: 1, to: tree.directories },
      size: { kind: 'random', from: 1, to: 1_000_000 },
    },
  };
}

/** A write of content to a random file of the tree. Files were loaded right after the directories, so their ids follow. */
export function contentStatement(tree: Tree, files: number): Statement {
  const first = tree.beforeFirst + tree.directories;
  return {
    text: `update filestore.nodes
           set size_bytes = :size::bigint, checksum = 'sha256:' || md5(:size), last_modified_at = now()
           where id = :node::bigint`,
    variables: {
      node: { kind: 'random', from: first + 1, to: first + files },
      size: { kind: 'random', from: 1, to: 1_000_000 },
    },
  };
}

/** Writes per second, on a database without pending deltas. */
export async function writeRate(
  { load, seconds }: Context,
  { client, url }: BenchDatabase,
  statement: Statement,
  connections: number,
): Promise<number> {
  await foldAll(client);
  await settle(client);
  return load.run(url, statement, connections, seconds);
}
