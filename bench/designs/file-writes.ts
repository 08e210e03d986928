import { randomBytes } from 'node:crypto';
import { whileFolding } from '../folding.ts';
import type { Statement } from '../load.ts';
import { inTurns, settle } from '../measure.ts';
import { type Design, type NewFile, query } from './design.ts';
import { ofRounds } from './measurement-store.ts';
import { measureCalls, type Scene } from './sampling.ts';

export const GROUP = 'Writing files';
const CONNECTIONS = [1, 8, 32] as const;
/** Rates of more connections vary more, so their loads are twice as long. */
const MOST_FOR_ONE_LENGTH = 8;
/** So that a load meets several folds, and the pauses between them. */
const LEAST_SECONDS_BESIDE_FOLDS = 4;

/** Creates and overwrites of one file each. */
export async function measureFileWrites(scene: Scene): Promise<void> {
  await measureSingleWrites(scene);
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

/** Files that are written one after the other on one connection: the time of a call, its pages and its WAL. */
async function measureSingleWrites(scene: Scene): Promise<void> {
  const { tree } = scene;
  const names = label();
  await measureCalls(scene, { key: 'createOne', group: GROUP, title: 'create, time of a call' }, (design) => {
    const text = design.create?.({
      mountId: '1',
      parentId: '$1::bigint',
      parentPath: `('${tree.incoming.path}/batch-' || $2::text)`,
      name: '$3::text',
      sizeBytes: '$4::bigint',
    });
    if (text === undefined) return undefined;
    return (round, call) => {
      const batch = 1 + ((call * 7) % tree.batches);
      const name = `report-${names}-${round}-${call}.dat`;
      return used(text, [tree.batchesFrom - 1 + batch, batch, name, 1000 + call]);
    };
  });
  await measureCalls(
    scene,
    { key: 'overwriteOne', group: GROUP, title: 'overwrite, time of a call' },
    (design) => {
      const text = design.overwrite?.('$1::bigint', '$2::bigint');
      if (text === undefined) return undefined;
      return (round, call) => query(text, tree.files[call % tree.files.length]?.id, 5000 + call + round);
    },
  );
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
            connections > MOST_FOR_ONE_LENGTH ? 2 * scene.seconds : scene.seconds,
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

async function loadRate(
  { client, load }: Scene,
  design: Design,
  statement: Statement,
  connections: number,
  length?: number,
) {
  await design.settle?.(client);
  await settle(client);
  return load(statement, connections, length);
}

async function measureBesideFolds(scene: Scene): Promise<void> {
  const { store, rounds, tree, say } = scene;
  const design = scene.designs.find(({ key }) => key === 'this');
  if (design === undefined) return;
  say('create beside folds');
  const length = Math.max(scene.seconds, LEAST_SECONDS_BESIDE_FOLDS);
  const create = () => loadRate(scene, design, createStatement(scene, design, tree.batches), 8, length);
  const rates = await inTurns(rounds, { beside: () => whileFolding(scene.url, create), alone: create });
  for (const [key, title] of [
    ['beside', 'create, 8 connections, beside a fold every second'],
    ['alone', 'create, 8 connections, without folds'],
  ] as const) {
    store.add({ key: `createFolds${key}`, group: GROUP, title, unit: '/s' }, ofRounds('this', rates[key]));
  }
}

async function measureOverwrites(scene: Scene): Promise<void> {
  const { store, rounds, tree, say } = scene;
  const able = scene.designs.filter(({ overwrite }) => overwrite !== undefined);
  const title = 'overwrite, 8 connections';
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
      able.map((design) => [design.key, () => loadRate(scene, design, statement(design), 8)]),
    ),
  );
  for (const { key } of able) {
    store.add({ key: 'overwrite8', group: GROUP, title, unit: '/s' }, ofRounds(key, rates[key] ?? []));
  }
}
