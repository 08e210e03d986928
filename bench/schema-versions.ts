import { join } from 'node:path';
import type { Client } from 'pg';
import { readCommittedMigrations } from '../src/graphile/committed-migrations.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { type BenchDatabase, withDatabase } from './bench-server.ts';
import type { Comparison, Context } from './context.ts';
import { foldAll } from './folding.ts';
import { createFilledTree, createTree, loadFiles, stageFiles, type Tree } from './generated-tree.ts';
import type { Statement } from './load.ts';
import { callTime, compare, figuresInTurns, inTurns, type Result, secondsOf, settle } from './measure.ts';
import { withOtherSchema } from './other-checkout.ts';
import { changeTwin, createTwin } from './twin.ts';
import { contentStatement, createStatement, writeRate } from './write-rates.ts';

const DIRECTORIES = 1_000;
const FILES = 100_000;
const CONNECTIONS = [1, 8, 32] as const;
/** Number of nodes of the tree that is moved, deleted, restored and purged. */
const NODES = 20_000;
/** Number of nodes per statement of sightings and per call of purge_deleted(). */
const BATCH = 10_000;
const SIGHTINGS = 'node_sightings';

/** Runs `work` with a database of one of the two schemas. */
type Open = <T>(work: (database: BenchDatabase) => Promise<T>) => Promise<T>;

/** Compares the schema of this checkout with that of another one, on the same server. */
export const versions: Comparison = async (context) => {
  const { server, against } = context;
  if (against === undefined) throw new Error('versions needs another checkout');
  const [here, other] = await Promise.all([PACKAGE_ROOT, against].map(describe));
  process.stderr.write(`here:  ${here}\nother: ${other}\n`);
  const schemas: Readonly<Record<'here' | 'other', Open>> = {
    here: (work) => withDatabase(server, work),
    other: (work) => withOtherSchema(server, against, work),
  };
  await schemas.here((one) => schemas.other((two) => rates(context, { here: one, other: two })));
  await inFreshDatabases(context, schemas, loads, LOADS);
  await inFreshDatabases(context, schemas, trees, TREES);
};

async function describe(checkout: string): Promise<string> {
  const migrations = await readCommittedMigrations(join(checkout, 'migrations'));
  const last = migrations.at(-1);
  return `${checkout}, ${migrations.length} migrations, the last ${last?.filename} (${last?.hash.slice(0, 13)})`;
}

/** Single statements on many connections, in databases that are kept for all of them. */
async function rates(
  context: Context,
  databases: Readonly<Record<'here' | 'other', BenchDatabase>>,
): Promise<void> {
  const trees = {
    here: await createFilledTree(databases.here.client, DIRECTORIES, FILES),
    other: await createFilledTree(databases.other.client, DIRECTORIES, FILES),
  };
  const measure = async (what: string, connections: number, statement: (tree: Tree) => Statement) => {
    const rate = (side: 'here' | 'other') => () =>
      writeRate(context, databases[side], statement(trees[side]), connections);
    const { here, other } = await inTurns(context.rounds, { here: rate('here'), other: rate('other') });
    const where = `${connections} connection${connections === 1 ? '' : 's'}`;
    context.report(compare(`${what}, ${where}`, '/s', here, other));
  };
  for (const connections of CONNECTIONS) {
    await measure('create_node()', connections, (tree) => createStatement(tree, 'function'));
    await measure('insert a file', connections, (tree) => createStatement(tree, 'insert'));
    await measure('content write', connections, (tree) => contentStatement(tree, FILES));
    await measure('begin_command() and finish_command()', connections, () => COMMAND);
  }
}

const COMMAND: Statement = {
  text: `select from filestore.begin_command('measured') begun
         cross join lateral filestore.finish_command((begun.entry).id, 'succeeded')`,
  variables: {},
};

/** The figures of one run in a new database, by name. */
type Figures<Name extends string> = Readonly<Record<Name, number>>;
type Described<Name extends string> = Readonly<Record<Name, readonly [what: string, unit: Result['unit']]>>;

/** Runs `work` in turns in new databases of the two schemas, and reports its figures. */
async function inFreshDatabases<Name extends string>(
  { rounds, report }: Context,
  schemas: Readonly<Record<'here' | 'other', Open>>,
  work: (client: Client) => Promise<Figures<Name>>,
  described: Described<Name>,
): Promise<void> {
  const run = (open: Open) => () => open(({ client }) => work(client));
  const samples = await figuresInTurns(rounds, { here: run(schemas.here), other: run(schemas.other) });
  for (const [name, [what, unit]] of Object.entries(described) as [Name, Described<Name>[Name]][]) {
    const of = (side: 'here' | 'other') => samples[side].map((figures) => figures[name]);
    report(compare(what, unit, of('here'), of('other')));
    if (name === 'restore') {
      // The same update without guards differs between the schemas too, by their columns and indexes.
      for (const side of ['here', 'other'] as const) {
        const bare = samples[side].map((figures) => figures['bare' as Name]);
        report(compare(`${what}, ${side} against a bare update there`, unit, of(side), bare));
      }
    }
  }
}

const LOADS = {
  load: [`insert … select of ${FILES} files`, 's'],
  totals: [`directory_totals() of the root, ${FILES} deltas pending`, 'ms'],
  fold: [`fold ${FILES} deltas`, 's'],
  first: [`first heartbeats of ${FILES} files`, 's'],
  firstWal: [`first heartbeats of ${FILES} files, WAL`, 'MB'],
  later: [`later heartbeats of ${FILES} files`, 's'],
  laterWal: [`later heartbeats of ${FILES} files, WAL`, 'MB'],
  laterHot: [`later heartbeats of ${FILES} files, HOT share`, '%'],
} satisfies Described<string>;

/** Loads files in bulk, reads and folds totals, and records two rounds of sightings. */
async function loads(client: Client): Promise<Figures<keyof typeof LOADS>> {
  const tree = await createTree(client, DIRECTORIES);
  await stageFiles(client, tree, FILES);
  await settle(client);
  const load = await secondsOf(() => loadFiles(client, ''));
  await client.query('vacuum analyze');
  const totals = await callTime(client, 'select * from filestore.directory_totals($1)', [tree.rootId], 1);
  await settle(client);
  const fold = await secondsOf(() => foldAll(client));
  await client.query('vacuum analyze');

  const { rows } = await client.query("select id from filestore.nodes where kind = 'file' order by id");
  const ids: readonly string[] = rows.map(({ id }) => id);
  const pass = async () => {
    await settle(client);
    const before = await readWritten(client, SIGHTINGS);
    const time = await secondsOf(async () => {
      for (let from = 0; from < ids.length; from += BATCH) {
        await client.query({
          name: 'heartbeats',
          text: 'select filestore.record_sightings($1::bigint[])',
          values: [ids.slice(from, from + BATCH)],
        });
      }
    });
    const after = await readWritten(client, SIGHTINGS);
    return {
      time,
      megabytes: (after.bytes - before.bytes) / 1e6,
      hotShare: (100 * (after.hot - before.hot)) / (after.updates - before.updates),
    };
  };
  const first = await pass();
  await client.query(`vacuum analyze filestore.${SIGHTINGS}`);
  const later = await pass();
  return {
    load,
    totals,
    fold,
    first: first.time,
    firstWal: first.megabytes,
    later: later.time,
    laterWal: later.megabytes,
    laterHot: later.hotShare,
  };
}

/** Bytes of WAL and updated rows of a table so far. */
async function readWritten(
  client: Client,
  table: string,
): Promise<{ readonly bytes: number; readonly updates: number; readonly hot: number }> {
  // Without this, a session reports its counts only once a second or later.
  await client.query('select pg_stat_force_next_flush()');
  const { rows } = await client.query(
    `select
       pg_current_wal_insert_lsn() - '0/0'::pg_lsn as bytes,
       n_tup_upd                                   as updates,
       n_tup_hot_upd                               as hot
     from pg_stat_user_tables
     where schemaname = 'filestore' and relname = $1`,
    [table],
  );
  return { bytes: Number(rows[0].bytes), updates: Number(rows[0].updates), hot: Number(rows[0].hot) };
}

const TREES = {
  move: [`move a directory of ${NODES} nodes`, 's'],
  delete: [`delete_node(recursive) of ${NODES} nodes`, 's'],
  restore: [`restore_node(with_tree) of ${NODES} nodes`, 's'],
  bare: [`a bare update that restores ${NODES} nodes`, 's'],
  purge: [`purge_deleted() of ${NODES} nodes`, 's'],
} satisfies Described<string>;

/** Moves a directory, deletes it, restores it, deletes it again and purges it. */
async function trees(client: Client): Promise<Figures<keyof typeof TREES>> {
  const directories = NODES / 100;
  const tree = await createFilledTree(client, directories, NODES - directories);
  await createTwin(client);
  const timed = async (work: () => Promise<unknown>) => {
    await foldAll(client);
    await client.query('vacuum analyze');
    await settle(client);
    return secondsOf(work);
  };
  const remove = () => client.query('select filestore.delete_node($1, null, true)', [tree.topId]);
  const twin = (text: string) => changeTwin(client, NODES + 1, text, [tree.mountId, tree.topPath]);

  const move = await timed(() =>
    client.query("update filestore.nodes set name = 'moved' where id = $1", [tree.topId]),
  );
  const deleted = await timed(remove);
  const restore = await timed(() =>
    client.query('select filestore.restore_node($1, null, true)', [tree.topId]),
  );
  await twin(DELETE_TWIN);
  const bare = await timed(() => twin(RESTORE_TWIN));
  await remove();
  const purge = await timed(() =>
    untilZero(client, `select filestore.purge_deleted('0 s', ${BATCH}) as done`),
  );
  return { move, delete: deleted, restore, bare, purge };
}

/** Each call is a separate transaction. */
async function untilZero(client: Client, text: string): Promise<void> {
  for (;;) {
    const { rows } = await client.query(text);
    if (rows[0].done === 0) return;
  }
}

const BELOW = "backend_mount_id = $1 and (path = $2 or (path >= $2 || '/' and path < $2 || '0'))";
const COUNTED = 'version = version + 1, updated_at = statement_timestamp()';

const DELETE_TWIN = `
  update twin.nodes
  set state = 'deleted', deleted_at = statement_timestamp(), live = false, parent_live = null, ${COUNTED}
  where ${BELOW} and live`;

const RESTORE_TWIN = `
  update twin.nodes
  set state = 'active', deleted_at = null, live = true, parent_live = true, ${COUNTED}
  where ${BELOW} and deleted_at is not null`;
