import { foldAll } from '../folding.ts';
import { secondsOf, thousands } from '../measure.ts';
import { ofRounds } from './measurement-store.ts';
import { measureReads, type Scene } from './sampling.ts';

const PENDING = [0, 1_000, 20_000] as const;
const GROUP = 'Totals';

/** Sums of subtrees, counted, and totals as each design keeps them. */
export async function measureTotals(scene: Scene): Promise<void> {
  const { client, tree } = scene;
  const { small, large, wide } = tree;
  for (const [key, top] of [
    ['subtreeSum', small],
    ['subtreeSumLarge', large],
    ['subtreeSumWide', wide],
  ] as const) {
    await measureReads(scene, {
      key,
      group: GROUP,
      title: `sum of a subtree of ${thousands(top.size)}`,
      note: 'counted from its nodes',
      queriesOf: ({ subtreeSum }) => subtreeSum && [subtreeSum(top)],
    });
  }
  for (const pending of PENDING) {
    if (pending > 0) await addPending(scene, pending);
    // Only this schema has something pending: the others are measured once.
    const measured =
      pending === 0 ? scene : { ...scene, designs: scene.designs.filter(({ key }) => key === 'this') };
    const when = pending === 0 ? '' : `, ${thousands(pending)} deltas pending`;
    const key = pending === 0 ? '' : `Pending${pending}`;
    await measureReads(
      measured,
      {
        key: `rootTotals${key}`,
        group: GROUP,
        title: `exact totals of the root${when}`,
        queriesOf: ({ totals }) => totals && [totals(tree.root)],
      },
      {
        key: `totalsList${key}`,
        group: GROUP,
        title: `exact totals of ${tree.page.length} directories${when}`,
        queriesOf: ({ totalsList }) => totalsList && [totalsList(tree.page)],
      },
    );
    if (pending === 20_000 && measured.designs.length > 0) await measureFold(scene, pending);
    if (measured.designs.some(({ key }) => key === 'this')) await foldAll(client);
  }
}

/** What writers of that many files leave behind; it adds nothing, so that the totals stay those of the tree. */
async function addPending({ client, designs, tree }: Scene, deltas: number): Promise<void> {
  if (!designs.some(({ key }) => key === 'this')) return;
  await client.query(
    `insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
     select 1, 2 + bench.pick(g, 40) % $2, 0, 0, 0, 0
     from generate_series(1, $1) g`,
    [deltas, tree.filesFrom - 2],
  );
}

async function measureFold(scene: Scene, deltas: number): Promise<void> {
  const { client, store, rounds, say } = scene;
  say('fold');
  const rates: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await foldAll(client);
    await addPending(scene, deltas);
    rates.push(deltas / (await secondsOf(() => foldAll(client))));
  }
  store.add(
    {
      key: 'fold',
      group: 'History, journal and upkeep',
      title: `fold ${thousands(deltas)} deltas, a second`,
      unit: '/s',
    },
    ofRounds('this', rates),
  );
}
