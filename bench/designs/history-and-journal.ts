import { randomBytes } from 'node:crypto';
import { foldAll } from '../generated-tree.ts';
import { median } from '../measure.ts';
import { type Query, query } from './design.ts';
import { thousands } from './exact-totals.ts';
import { measureReads, percentile, run, type Scene, walBytesOf } from './sampling.ts';

const GROUP = 'History, journal and upkeep';
const CALLS = 200;

/** What the other designs have no counterpart for. The key lookup of the same run is the ruler. */
export async function measureHistoryAndJournal(scene: Scene): Promise<void> {
  const here = { ...scene, designs: scene.designs.filter(({ key }) => key === 'this') };
  if (here.designs.length === 0) return;
  const { tree, loadedAt } = scene;
  await foldAll(scene.client);
  const read = (key: string, title: string, queries: readonly Query[]) =>
    measureReads(here, { key, title, group: GROUP, queriesOf: () => queries });
  await read(
    'nodeAt',
    'node_at(): a node at a moment',
    tree.files.map(({ id }) => query('select n.id, n.path from filestore.node_at($1, $2) n', id, loadedAt)),
  );
  for (const [key, top] of [
    ['treeAt', tree.small],
    ['treeAtLarge', tree.large],
  ] as const) {
    await read(key, `tree_at(): a tree of ${thousands(top.size)} before the changes above`, [
      query("select count(*) from filestore.tree_at('bench', $1, $2)", top.path, loadedAt),
    ]);
  }
  await read('poll', 'poll: what changed in the last second', [query(CHANGED)]);
  await measureJournal(here);
}

const CHANGED = `
  select count(*)
  from filestore.snapshots s
  where s.backend_mount_id = 1 and s.valid_to >= clock_timestamp() - interval '1 second'`;

async function measureJournal(scene: Scene): Promise<void> {
  const keyOf = (round: string, call: number) => `request-${round}-${call}`;
  const begin = (key: string) =>
    query(
      `select (entry).id from filestore.begin_command('upload', '{"path": "incoming/report.dat"}',
         mount_id => 1, principal => 'ada', idempotency_key => $1)`,
      key,
    );
  const ids: string[] = [];
  const { client } = scene;
  const rounds = Array.from({ length: scene.rounds }, () => randomBytes(4).toString('hex'));
  await measureCalls(scene, 'journalBegin', 'begin a command', rounds, (round, call) =>
    begin(keyOf(round, call)),
  );
  await measureCalls(scene, 'journalReplay', 'replay a command: begin it again', rounds, (round, call) =>
    begin(keyOf(round, call)),
  );
  const { rows } = await client.query(
    "select id from filestore.journal_entries where status = 'running' order by id",
  );
  ids.push(...rows.map(({ id }) => id));
  await measureCalls(scene, 'journalFinish', 'finish a command', rounds, () =>
    query(
      `select status from filestore.finish_command($1, 'succeeded', result => '{"bytes": 4096}')`,
      ids.pop(),
    ),
  );
  await measureReads(scene, {
    key: 'journalList',
    group: GROUP,
    title: 'list_commands(): the last 20 of a mount',
    queriesOf: () => [
      query('select id, status from filestore.list_commands(mount_id => 1, page_size => 20)'),
    ],
  });
  await measureCalls(
    scene,
    'journalPrune',
    'remove 100 entries of the journal',
    rounds.slice(0, 1),
    () => query("select filestore.prune_journal(older_than => '0 s', batch => 100)"),
    4,
  );
}

/** Calls that can be made once each. */
async function measureCalls(
  { client, store, say }: Scene,
  key: string,
  title: string,
  rounds: readonly string[],
  queryOf: (round: string, call: number) => Query,
  calls = CALLS,
): Promise<void> {
  say(title);
  const samples: number[][] = [];
  let walBytes = 0;
  for (const round of rounds) {
    const times: number[] = [];
    walBytes = await walBytesOf(client, async () => {
      for (let call = 0; call < calls; call += 1) {
        const one = queryOf(round, call);
        const startedAt = performance.now();
        await run(client, one);
        times.push(performance.now() - startedAt);
      }
    });
    samples.push(times);
  }
  const medians = samples.map(median);
  store.add(
    { key, title, group: GROUP, unit: 'ms' },
    {
      design: 'this',
      rounds: medians,
      p50: median(medians),
      p99: percentile(samples.flat(), 0.99),
      calls: samples.flat().length,
      buffers: null,
      walBytes: walBytes / calls,
    },
  );
}
