import { randomBytes } from 'node:crypto';
import { type BenchDatabase, withDatabase } from './bench-server.ts';
import type { Comparison, Context } from './context.ts';
import { foldAll } from './folding.ts';
import { createTree, loadFiles, stageFiles, type Tree } from './generated-tree.ts';
import type { Statement } from './load.ts';
import { atLeast, atMost, compare, inTurns, seconds, settle } from './measure.ts';
import { createTwin } from './twin.ts';

const DIRECTORIES = 1_000;
const BULK = 100_000;

export type Writer = 'service' | 'function' | 'loader' | 'twin';

/** A statement that inserts one file into a random directory among the first so many. */
export function createStatement(tree: Tree, writer: Writer, directories: number): Statement {
  // Names that no other statement uses.
  const run = randomBytes(4).toString('hex');
  const name = `'report-${run}-' || :client_id || '-' || :counter || '.dat'`;
  const parentPath = `'${tree.topPath}/d' || :directory`;
  const extra: Readonly<Record<Writer, readonly (readonly [string, string])[]>> = {
    service: [],
    function: [],
    loader: [
      ['parent_path', parentPath],
      ['parent_live', 'true'],
    ],
    // The twin has no triggers, so the writer sets these columns.
    twin: [
      ['parent_path', parentPath],
      ['parent_live', 'true'],
      ['path', `${parentPath} || '/' || ${name}`],
      ['depth', '6'],
    ],
  };
  const columns = [
    ['backend_mount_id', tree.mountId],
    ['parent_id', `${tree.beforeFirst} + :directory::bigint`],
    ['name', name],
    ['kind', "'file'"],
    ['size_bytes', ':size::bigint'],
    ['checksum', `'sha256:' || md5('${run}' || :client_id) || md5('${run}' || :counter)`],
    ['last_modified_at', 'now()'],
    ...extra[writer],
  ] as const;
  // The function finds the mount itself.
  const [, ...values] = columns.map(([column, value]) => `${column} => ${value}`);
  return {
    text:
      writer === 'function'
        ? `select from filestore.create_node(${values.join(', ')})`
        : `insert into ${writer === 'twin' ? 'twin' : 'filestore'}.nodes (${columns.map(([column]) => column).join(', ')})
           values (${columns.map(([, value]) => value).join(', ')})`,
    variables: {
      counter: { kind: 'counter' },
      directory: { kind: 'random', from: 1, to: directories },
      size: { kind: 'random', from: 1, to: 1_000_000 },
    },
  };
}

/** Creates per second, on a database without pending deltas. */
export async function createRate(
  { load, seconds: duration }: Context,
  { client, url }: BenchDatabase,
  statement: Statement,
  connections: number,
): Promise<number> {
  await foldAll(client);
  await settle(client);
  return load.run(url, statement, connections, duration);
}

/** Creates by a service, and by a loader that gives the parent's path, against the same table without guards. */
export const create: Comparison = (context) =>
  withDatabase(context.server, async (database) => {
    const tree = await createTree(database.client, DIRECTORIES);
    await createTwin(database.client);
    for (const connections of [1, 8, 32]) {
      const by = (writer: Writer) => () =>
        createRate(context, database, createStatement(tree, writer, DIRECTORIES), connections);
      const rates = await inTurns(context.rounds, {
        service: by('service'),
        loader: by('loader'),
        twin: by('twin'),
      });
      const where = `${connections} connection${connections === 1 ? '' : 's'}`;
      context.report(
        compare(`create a file, ${where}`, '/s', rates.service, rates.twin, atLeast(0.6)),
        compare(`create a file, filled, ${where}`, '/s', rates.loader, rates.twin, atLeast(0.6)),
      );
    }
  });

/** All creates in one directory, against creates in a thousand directories. */
export const hot: Comparison = (context) =>
  withDatabase(context.server, async (database) => {
    const tree = await createTree(database.client, DIRECTORIES);
    for (const connections of [8, 32]) {
      const over = (directories: number) => () =>
        createRate(context, database, createStatement(tree, 'service', directories), connections);
      const rates = await inTurns(context.rounds, { one: over(1), spread: over(DIRECTORIES) });
      context.report(
        compare(
          `create in one directory against spread, ${connections} connections`,
          '/s',
          rates.one,
          rates.spread,
          atLeast(0.9),
        ),
      );
    }
  });

/** A statement that inserts many files. */
export const bulk: Comparison = (context) =>
  withDatabase(context.server, async ({ client }) => {
    const tree = await createTree(client, DIRECTORIES);
    await createTwin(client);
    await stageFiles(client, tree, BULK);
    const into = (table: 'filestore.nodes' | 'twin.nodes') => async () => {
      await foldAll(client);
      await settle(client);
      return seconds(() => loadFiles(client, table, `-${randomBytes(4).toString('hex')}`));
    };
    const times = await inTurns(context.rounds, { here: into('filestore.nodes'), twin: into('twin.nodes') });
    context.report(
      compare(`insert … select of ${BULK} files, filled`, 's', times.here, times.twin, atMost(2)),
    );
  });
