import type { Client } from 'pg';
import { withDatabase, withEmptyDatabase } from '../bench-server.ts';
import type { Comparison, Context } from '../context.ts';
import { median, secondsOf, thousands } from '../measure.ts';
import { calibrate } from './calibration.ts';
import { type Design, factsOf, isOwn } from './design.ts';
import { judgeTargets } from './design-targets.ts';
import { measureTotals } from './exact-totals.ts';
import { measureFileWrites } from './file-writes.ts';
import { measureHistoryAndJournal } from './history-and-journal.ts';
import { measureLookups } from './lookups.ts';
import { MeasurementStore, ofRounds } from './measurement-store.ts';
import { runRaces } from './races.ts';
import { DESIGNS } from './read-designs.ts';
import { writeReport } from './report-files.ts';
import { prepareCounting, run, type Scene, walBytesOf } from './sampling.ts';
import { measureSetWrites } from './set-writes.ts';
import { measureSightings } from './sighting-passes.ts';
import { type StagedTree, stageTree } from './staged-tree.ts';
import { measureTreeChanges, tidy } from './tree-changes.ts';

/** Above this, this schema and its twin are loaded, measured and dropped, and then each other design. */
const MOST_NODES_TOGETHER = 2_000_000;
/** Quick loads are repeated: a load of two seconds varies by a tenth. That of this schema is not, since migrations create its tables. */
const QUICK_LOAD_SECONDS = 5;
/** Of a usual server on Linux: (b) is measured in its database's default collation. */
const LINGUISTIC = "locale_provider icu icu_locale 'en-US'";

/** This schema and what people would use in its place, on one generated tree. */
export const compareDesigns: Comparison = async (context) => {
  const chosen = DESIGNS.filter(({ key }) =>
    key === 'twin' ? context.designs.includes('this') : context.designs.includes(key),
  );
  const { locale, collation } = await chooseLocale(context);
  const store = new MeasurementStore(context.output, {
    command: context.command,
    startedAt: new Date().toISOString(),
    rounds: context.rounds,
    seconds: context.seconds,
    environment: { ...context.environment, load: context.load.name, collation },
    designs: chosen.map(factsOf),
  });
  await withDatabase(
    context.server,
    async ({ client, url }) => {
      const say = progress();
      say(`generate ${thousands(context.nodes)} nodes`);
      const tree = await stageTree(client, context.nodes);
      await prepareCounting(client);
      const { small, large, wide } = tree;
      store.set({ nodes: tree.nodes, sizes: { small: small.size, large: large.size, wide: wide.size } });
      for (const batch of batchesOf(context.nodes, chosen)) {
        await measureBatch(context, { client, url, tree, store, say }, batch);
      }
    },
    locale,
  );
  store.set({ finished: true });
  for (const file of writeReport(context.output, store.report, context.previous)) {
    process.stderr.write(`wrote ${file}\n`);
  }
  context.report(...store.report.targets);
};

function batchesOf(nodes: number, chosen: readonly Design[]): readonly (readonly Design[])[] {
  if (nodes <= MOST_NODES_TOGETHER) return [chosen];
  const alternatives = chosen.filter((design) => !isOwn(design));
  return [chosen.filter(isOwn), ...alternatives.map((design) => [design])].filter(({ length }) => length > 0);
}

async function measureBatch(
  { rounds, seconds: duration, load, output, previous }: Context,
  parts: Pick<Scene, 'client' | 'url' | 'tree' | 'store' | 'say'>,
  batch: readonly Design[],
): Promise<void> {
  const { client, url, tree, store, say } = parts;
  const ready: Design[] = [];
  for (const design of batch) {
    const why = (await design.unavailable?.(client)) ?? null;
    if (why !== null) {
      store.set({ unavailable: [...store.report.unavailable, { key: design.key, why }] });
      continue;
    }
    await loadDesign({ ...parts, rounds }, design);
    ready.push(design);
  }
  const [first] = ready;
  if (first === undefined) return;
  const { rows } = await client.query('select clock_timestamp()::text as moment');
  const scene: Scene = {
    ...parts,
    designs: ready,
    rounds,
    seconds: duration,
    load: (statement, connections, length = duration) => load.run(url, statement, connections, length),
    deleted: await chooseDeleted(client, tree),
    loadedAt: rows[0].moment,
  };
  const names = ready.map(({ key }) => key).join(', ');
  store.addCalibration(await calibrate(client, `before ${names}`, first, tree));
  await measureSightings(scene);
  await tidy(client, ready);
  for (const { deleteFiles } of ready) {
    if (deleteFiles) await run(client, deleteFiles(scene.deleted.map(({ id }) => id)));
  }
  await tidy(client, ready);
  for (const measure of [
    measureLookups,
    measureTotals,
    measureFileWrites,
    measureSetWrites,
    measureTreeChanges,
    measureHistoryAndJournal,
    runRaces,
  ]) {
    await measure(scene);
    await tidy(client, ready);
    store.set({ targets: judgeTargets(store.report) });
    writeReport(output, store.report, previous);
  }
  store.addCalibration(await calibrate(client, `after ${names}`, first, tree));
  say('drop the tables');
  for (const { schema } of ready) await client.query(`drop schema ${schema} cascade`);
}

async function loadDesign(
  { client, store, tree, say, rounds }: Pick<Scene, 'client' | 'store' | 'tree' | 'say' | 'rounds'>,
  design: Design,
): Promise<void> {
  say(`load: ${design.title}`);
  const loads = [await setUpAndLoad(client, design)];
  if (design.load !== undefined) {
    while (loads.length < rounds && isQuick(loads) && design.key !== 'this') {
      await client.query(`drop schema ${design.schema} cascade`);
      loads.push(await setUpAndLoad(client, design));
    }
    store.add(
      {
        key: 'load',
        group: 'Writing files',
        title: 'load the whole tree into empty tables, a row',
        unit: 'ms',
      },
      ofRounds(
        design.key,
        loads.map(({ time }) => (time * 1000) / tree.nodes),
        { walBytes: median(loads.map(({ walBytes }) => walBytes)) / tree.nodes },
      ),
    );
  }
  await tidy(client, [design]);
  const { rows } = await client.query(
    `select sum(pg_table_size(c.oid))::float8 as table, sum(pg_indexes_size(c.oid))::float8 as indexes
     from pg_class c
     where c.relnamespace = $1::regnamespace and c.relkind = 'r'`,
    [design.schema],
  );
  for (const [key, title, bytes, isPart] of [
    ['bytesPerNode', 'bytes per node after a load', rows[0].table + rows[0].indexes, false],
    ['bytesTables', 'of these, tables', rows[0].table, true],
    ['bytesIndexes', 'of these, indexes', rows[0].indexes, true],
  ] as const) {
    store.add(
      { key, group: 'Space', title, unit: 'bytes', isPart },
      ofRounds(design.key, [bytes / tree.nodes]),
    );
  }
}

interface Load {
  /** In seconds. */
  readonly time: number;
  readonly walBytes: number;
}

async function setUpAndLoad(client: Client, design: Design): Promise<Load> {
  await design.setUp(client);
  await stopAutovacuum(client, design);
  let time = 0;
  const walBytes = await walBytesOf(client, async () => {
    time = await secondsOf(async () => design.load?.(client));
  });
  return { time, walBytes };
}

const isQuick = (loads: readonly Load[]) =>
  loads.reduce((sum, { time }) => sum + time, 0) < QUICK_LOAD_SECONDS;

/** Autovacuum could run during a measurement; "tidy" vacuums between two. */
async function stopAutovacuum(client: Client, { schema }: Design): Promise<void> {
  const { rows } = await client.query(
    "select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname = $1",
    [schema],
  );
  for (const { name } of rows) {
    await client.query(
      `alter table ${name} set (autovacuum_enabled = false, toast.autovacuum_enabled = false)`,
    );
  }
}

/** Files to delete, none of them among those that are looked up. */
async function chooseDeleted(client: Client, tree: StagedTree): Promise<Scene['deleted']> {
  const { rows } = await client.query(
    `select distinct n.id, '1' as "mountId", n.parent_id as "parentId", n.name, n.path
     from generate_series(1, 200) g
     join bench.nodes n on n.id = $1 + bench.pick(g, 31) % $2
     where n.id <> all ($3)
     order by n.id`,
    [tree.filesFrom, tree.nodes - tree.filesFrom + 1, tree.files.map(({ id }) => id)],
  );
  return rows;
}

async function chooseLocale({ server }: Context): Promise<{ locale: string; collation: string }> {
  try {
    await withEmptyDatabase(server, async () => undefined, LINGUISTIC);
    return { locale: LINGUISTIC, collation: 'en-US of ICU' };
  } catch {
    return { locale: '', collation: "the server's default" };
  }
}

function progress(): (text: string) => void {
  const startedAt = performance.now();
  return (text) => {
    const elapsed = Math.round((performance.now() - startedAt) / 1000);
    process.stderr.write(`${String(elapsed).padStart(5)} s  ${text}\n`);
  };
}
