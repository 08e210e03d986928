import { randomBytes } from 'node:crypto';
import { foldAll } from '../folding.ts';
import { thousands } from '../measure.ts';
import { type Query, query } from './design.ts';
import { measureCalls, measureReads, run, type Scene } from './sampling.ts';

const GROUP = 'History, journal and upkeep';

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
  where s.backend_mount_id = 1 and s.valid_to >= statement_timestamp() - interval '1 second'`;

async function measureJournal(scene: Scene): Promise<void> {
  const label = randomBytes(4).toString('hex');
  const begin = (round: number, call: number) => query(BEGIN, `request-${label}-${round}-${call}`);
  const of = (key: string, title: string) => ({ key, title, group: GROUP });
  await measureCalls(scene, of('journalBegin', 'begin a command'), () => begin);
  await measureCalls(scene, of('journalReplay', 'replay a command: begin it again'), () => begin);
  // One more than the calls: its pages are counted.
  await run(scene.client, begin(scene.rounds, 1));
  const { rows } = await scene.client.query<{ readonly id: string }>(
    "select id from filestore.journal_entries where status = 'running' order by id",
  );
  const ids = rows.map(({ id }) => id);
  await measureCalls(scene, of('journalFinish', 'finish a command'), () => () => query(FINISH, ids.pop()));
  await measureReads(scene, {
    ...of('journalList', 'list_commands(): the last 20 of a mount'),
    queriesOf: () => [query(LIST)],
  });
  await measureCalls(
    { ...scene, rounds: 1 },
    of('journalPrune', 'remove 100 entries of the journal'),
    () => () => query("select filestore.prune_journal(older_than => '0 s', batch => 100)"),
    4,
  );
}

const BEGIN = `
  select (entry).id
  from filestore.begin_command('upload', '{"path": "incoming/report.dat"}', mount_id => 1, principal => 'ada',
    idempotency_key => $1)`;
const FINISH = `select status from filestore.finish_command($1, 'succeeded', result => '{"bytes": 4096}')`;
const LIST = 'select id, status from filestore.list_commands(mount_id => 1, page_size => 20)';
