import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { foldAll } from '../generated-tree.ts';
import type { Statement } from '../load.ts';
import { figuresInTurns, inTurns, median, settle } from '../measure.ts';
import { type Design, type NewFile, query } from './design.ts';
import { ofRounds } from './measurement-store.ts';
import { countBuffers, percentile, run, type Scene, walBytesOf } from './sampling.ts';

export const GROUP = 'Writing files';
const CONNECTIONS = [1, 8, 32] as const;
const FOLD_EVERY_MS = 1_000;
const CALLS = 200;

/** Creates and overwrites of one file each. */
export async function measureFileWrites(scene: Scene): Promise<void> {
  await measureSingleCreates(scene);
  for (const connections of CONNECTIONS) {
    for (const where of ['spread', 'oneDirectory'] as const) await measureCreates(scene, connections, where);
  }
  await measureBesideFolds(scene);
  await measureOverwrites(scene);
}

export const label = () => randomBytes(5).toString('hex');

/** A create for pgbench, into directories chosen at random or into the first. */
function createStatement({ tree }: Scene, design: Design, directories: number): Statement {
  const file: NewFile = {
    mountId: '1',
    parentId: `(${tree.batchesFrom - 1} + :directory::bigint)`,
    parentPath: `('${tree.incoming.path}/batch-' || :directory)`,
    name: `('report-${label()}-' || :client_id || '-' || :counter || '.dat')`,
    sizeBytes: ':size::bigint',
  };
  return {
    text: design.create?.(file) ?? '',
    variables: {
      counter: { kind: 'counter' },
      directory: { kind: 'random', from: 1, to: directories },
      size: { kind: 'random', from: 1, to: 1_000_000 },
    },
  };
}

/** The latency of one create after the other, its pages and its WAL. */
async function measureSingleCreates(scene: Scene): Promise<void> {
  const { client, store, rounds, tree, say } = scene;
  const able = scene.designs.filter(({ create }) => create !== undefined);
  say('create, one after the other');
  const text = (design: Design) =>
    design.create?.({
      mountId: '1',
      parentId: '$1::bigint',
      parentPath: `('${tree.incoming.path}/batch-' || $2::text)`,
      name: '$3::text',
      sizeBytes: '$4::bigint',
    }) ?? '';
  const creates = (design: Design) => {
    const run = label();
    return Array.from({ length: CALLS }, (_, index) => {
      const batch = 1 + ((index * 7) % tree.batches);
      const values = [tree.batchesFrom - 1 + batch, batch, `report-${run}-${index}.dat`, 1000 + index];
      return used(text(design), values);
    });
  };
  const sampled = await figuresInTurns(
    rounds,
    Object.fromEntries(
      able.map((design) => [
        design.key,
        async () => {
          const times: number[] = [];
          const walBytes = await walBytesOf(client, async () => {
            for (const one of creates(design)) {
              const startedAt = performance.now();
              await run(client, one);
              times.push(performance.now() - startedAt);
            }
          });
          return { times, walBytes: walBytes / CALLS };
        },
      ]),
    ),
  );
  for (const design of able) {
    const figures = sampled[design.key] ?? [];
    const medians = figures.map(({ times }) => median(times));
    store.add(
      { key: 'createOne', group: GROUP, title: 'create a file, 1 connection, time of a call', unit: 'ms' },
      {
        design: design.key,
        rounds: medians,
        p50: median(medians),
        p99: percentile(
          figures.flatMap(({ times }) => times),
          0.99,
        ),
        calls: CALLS * rounds,
        buffers: await countBuffers(client, creates(design)[0] ?? query('select')),
        // The later rounds write few whole pages.
        walBytes: figures.at(-1)?.walBytes ?? null,
      },
    );
  }
}

/** Only the parameters that occur in the text, renumbered: a design need not use all. */
function used(text: string, values: readonly unknown[]) {
  const places: number[] = [];
  const renumbered = text.replaceAll(/\$(\d+)/g, (_, place: string) => {
    if (!places.includes(Number(place))) places.push(Number(place));
    return `$${places.indexOf(Number(place)) + 1}`;
  });
  return query(renumbered, ...places.map((place) => values[place - 1]));
}

async function measureCreates(
  scene: Scene,
  connections: number,
  where: 'spread' | 'oneDirectory',
): Promise<void> {
  const { store, rounds, tree, say } = scene;
  const able = scene.designs.filter(({ create }) => create !== undefined);
  const title = `create, ${connections} connection${connections === 1 ? '' : 's'}, ${where === 'spread' ? `${tree.batches} directories` : 'one directory'}`;
  say(title);
  const rates = await inTurns(
    rounds,
    Object.fromEntries(
      able.map((design) => [
        design.key,
        () =>
          loadRate(
            scene,
            design,
            createStatement(scene, design, where === 'spread' ? tree.batches : 1),
            connections,
          ),
      ]),
    ),
  );
  for (const { key } of able) {
    store.add(
      { key: `create${connections}${where}`, group: GROUP, title, unit: '/s' },
      ofRounds(key, rates[key] ?? []),
    );
  }
}

async function loadRate({ client, load }: Scene, design: Design, statement: Statement, connections: number) {
  await design.settle?.(client);
  await settle(client);
  return load(statement, connections);
}

async function measureBesideFolds(scene: Scene): Promise<void> {
  const { store, rounds, tree, say } = scene;
  const design = scene.designs.find(({ key }) => key === 'this');
  if (design === undefined) return;
  say('create beside folds');
  const create = () => loadRate(scene, design, createStatement(scene, design, tree.batches), 8);
  const rates = await inTurns(rounds, { beside: () => whileFolding(scene.url, create), alone: create });
  for (const [key, title] of [
    ['beside', `create, 8 connections, beside a fold every ${FOLD_EVERY_MS / 1000} s`],
    ['alone', 'create, 8 connections, without folds'],
  ] as const) {
    store.add({ key: `createFolds${key}`, group: GROUP, title, unit: '/s' }, ofRounds('this', rates[key]));
  }
}

async function whileFolding(url: string, work: () => Promise<number>): Promise<number> {
  const client = new pg.Client(url);
  await client.connect();
  const stop = new AbortController();
  const folding = (async () => {
    while (!stop.signal.aborted) {
      await foldAll(client);
      await delay(FOLD_EVERY_MS, undefined, { signal: stop.signal }).catch(() => undefined);
    }
  })();
  try {
    return await work();
  } finally {
    stop.abort();
    await folding;
    await client.end();
  }
}

async function measureOverwrites(scene: Scene): Promise<void> {
  const { client, store, rounds, tree, say } = scene;
  const able = scene.designs.filter(({ overwrite }) => overwrite !== undefined);
  for (const connections of [1, 8] as const) {
    const title = `overwrite a file, ${connections} connection${connections === 1 ? '' : 's'}`;
    say(title);
    const statement = (design: Design): Statement => ({
      text: design.overwrite?.(':node::bigint', ':size::bigint') ?? '',
      variables: {
        node: { kind: 'random', from: tree.filesFrom, to: tree.nodes },
        size: { kind: 'random', from: 1, to: 1_000_000 },
      },
    });
    const rates = await inTurns(
      rounds,
      Object.fromEntries(
        able.map((design) => [design.key, () => loadRate(scene, design, statement(design), connections)]),
      ),
    );
    for (const design of able) {
      const one = query(design.overwrite?.('$1::bigint', '$2::bigint') ?? '', tree.files[0]?.id, 4096);
      store.add(
        { key: `overwrite${connections}`, group: GROUP, title, unit: '/s' },
        ofRounds(design.key, rates[design.key] ?? [], { buffers: await countBuffers(client, one) }),
      );
    }
  }
}
