import type { Client } from 'pg';
import { figuresInTurns, median, settle, thousands } from '../measure.ts';
import { type Design, isOwn, type Place, type Query } from './design.ts';
import { ofRounds } from './measurement-store.ts';
import { countBuffers, run, type Scene, walBytesOf } from './sampling.ts';
import type { Subtree } from './staged-tree.ts';

const GROUP = 'Trees';
const PURGED = 1_000;
/** A quicker move is repeated: one call of a millisecond says little. */
const QUICK_SECONDS = 0.01;
const QUICK_MOVES = 50;

/** Moves, deletes, restores and copies of whole trees, and what removes rows for good. */
export async function measureTreeChanges(scene: Scene): Promise<void> {
  const { small, large, wide } = scene.tree;
  const own = { ...scene, designs: scene.designs.filter(isOwn) };
  for (const [scope, top, suffix] of [
    [scene, small, ''],
    [scene, large, 'Large'],
    [own, wide, 'Wide'],
  ] as const) {
    const part = { ...scope, rounds: roundsFor(top, scope.rounds) };
    await measureMoves(part, top, suffix);
    await measureDeletions(part, top, suffix);
    if (top !== wide) await measureCopies(part, top, suffix);
  }
  await measurePurges(scene);
}

/** A change of many rows varies less, and takes most of the time of a run. */
function roundsFor({ size }: Subtree, rounds: number): number {
  if (size < 3_000) return rounds * 3;
  return size < 50_000 ? rounds : Math.ceil(rounds / 2);
}

interface Timed {
  readonly seconds: number;
  readonly walBytes: number;
}

async function timed({ client }: Scene, design: Design, queries: readonly Query[]): Promise<Timed> {
  await design.settle?.(client);
  await settle(client);
  let seconds = 0;
  const walBytes = await walBytesOf(client, async () => {
    const startedAt = performance.now();
    for (const query of queries) await run(client, query);
    seconds = (performance.now() - startedAt) / 1000;
  });
  return { seconds: seconds / queries.length, walBytes: walBytes / queries.length };
}

const mean = (one: Timed, other: Timed): Timed => ({
  seconds: (one.seconds + other.seconds) / 2,
  walBytes: (one.walBytes + other.walBytes) / 2,
});

/** Space and statistics as they are some time after the changes; autovacuum is off. */
export async function tidy(client: Client, designs: readonly Design[]): Promise<void> {
  for (const design of designs) {
    await design.settle?.(client);
    const { rows } = await client.query(
      `select string_agg(format('%I.%I', schemaname, tablename), ', ') as tables from pg_tables where schemaname = $1`,
      [design.schema],
    );
    await client.query(`vacuum (analyze, skip_locked) ${rows[0].tables}`);
  }
}

interface Step {
  readonly key: string;
  readonly title: string;
}

/** Measures steps that follow one another, in turns over the designs. */
async function measureSteps(
  scene: Scene,
  steps: readonly Step[],
  workOf: (design: Design) => (() => Promise<readonly Timed[]>) | undefined,
  buffersOf?: (design: Design) => Query | undefined,
): Promise<void> {
  const { client, store, rounds, say } = scene;
  const able = scene.designs.flatMap((design) => {
    const work = workOf(design);
    return work === undefined ? [] : [{ design, work }];
  });
  if (able.length === 0) return;
  say(steps.map(({ title }) => title).join('; '));
  const figures = await figuresInTurns(
    rounds,
    Object.fromEntries(able.map(({ design, work }) => [design.key, work])),
  );
  for (const { design } of able) {
    for (const [place, { key, title }] of steps.entries()) {
      const found = (figures[design.key] ?? []).flatMap((round) => round[place] ?? []);
      const counted = buffersOf?.(design);
      store.add(
        { key, title, group: GROUP, unit: 's' },
        ofRounds(
          design.key,
          found.map(({ seconds }) => seconds),
          {
            walBytes: median(found.map(({ walBytes }) => walBytes)),
            buffers: counted === undefined || place > 0 ? null : await countBuffers(client, counted),
          },
        ),
      );
    }
  }
  await tidy(
    client,
    able.map(({ design }) => design),
  );
}

async function measureMoves(scene: Scene, top: Subtree, suffix: string): Promise<void> {
  const { tree } = scene;
  const home = top === tree.wide ? tree.archive : tree.projects;
  const away = top === tree.wide ? tree.projects : tree.archive;
  const moved: Place = { ...top, path: `${away.path}/${top.name}` };
  await measureSteps(
    scene,
    [{ key: `move${suffix}`, title: `move a tree of ${thousands(top.size)}` }],
    ({ move, ...rest }) =>
      move &&
      (async () => {
        const design = { ...rest, move };
        const [there, back] = [move(top, away, top.name), move(moved, home, top.name)];
        const once = mean(await timed(scene, design, [there]), await timed(scene, design, [back]));
        if (once.seconds > QUICK_SECONDS) return [once];
        return [await timed(scene, design, Array.from({ length: QUICK_MOVES }, () => [there, back]).flat())];
      }),
    ({ move }) => (top === tree.small ? move?.(top, away, top.name) : undefined),
  );
}

async function measureDeletions(scene: Scene, top: Subtree, suffix: string): Promise<void> {
  await measureSteps(
    scene,
    [
      { key: `delete${suffix}`, title: `delete a tree of ${thousands(top.size)}` },
      { key: `restore${suffix}`, title: `restore a tree of ${thousands(top.size)}` },
    ],
    (design) => {
      const { deleteTree, restoreTree } = design;
      return (
        deleteTree &&
        restoreTree &&
        (async () => [
          await timed(scene, design, [deleteTree(top)]),
          await timed(scene, design, [restoreTree(top)]),
        ])
      );
    },
    ({ deleteTree }) => (top === scene.tree.small ? deleteTree?.(top) : undefined),
  );
}

/** Each copy goes to a new mount, which is erased. */
async function measureCopies(scene: Scene, top: Subtree, suffix: string): Promise<void> {
  const { client } = scene;
  let count = 0;
  await measureSteps(
    scene,
    [
      { key: `copy${suffix}`, title: `copy a tree of ${thousands(top.size)}` },
      { key: `erase${suffix}`, title: `erase a mount of ${thousands(top.size)}` },
    ],
    (design) => {
      const { copyTree, createMount, eraseMount } = design;
      return (
        copyTree &&
        createMount &&
        eraseMount &&
        (async () => {
          count += 1;
          const mount = await createMount(client, `copy-${suffix.toLowerCase()}-${count}`);
          const copied = await timed(scene, design, [copyTree(top, mount.rootId, 'copy')]);
          await settle(client);
          let seconds = 0;
          const walBytes = await walBytesOf(client, async () => {
            const startedAt = performance.now();
            await eraseMount(client, mount);
            seconds = (performance.now() - startedAt) / 1000;
          });
          return [copied, { seconds, walBytes }];
        })
      );
    },
  );
}

async function measurePurges(scene: Scene): Promise<void> {
  const { client } = scene;
  await measureSteps(scene, [{ key: 'purge', title: `remove ${thousands(PURGED)} tombstones` }], (design) => {
    const { deleteFiles, purge } = design;
    return (
      deleteFiles &&
      purge &&
      (async () => {
        const { table, live } = design.nodes;
        const { rows } = await client.query(
          `select id from ${table} where ${live} and name like 'extra-%' order by id desc limit ${PURGED}`,
        );
        await run(client, deleteFiles(rows.map(({ id }) => id)));
        return [await timed(scene, design, [purge(PURGED)])];
      })
    );
  });
}
