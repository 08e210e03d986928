import { randomBytes } from 'node:crypto';
import { whileFolding } from '../folding.ts';
import { type Statement, WARM_UP_SECONDS } from '../load.ts';
import { inTurns, settle } from '../measure.ts';
import { type Design, type NewFile, query } from './design.ts';
import { type Operation, ofRounds } from './measurement-store.ts';
import { measureCalls, type Scene } from './sampling.ts';

export const GROUP = 'Writing files';
/** The processes of JuiceFS's published figures. */
const AS_PUBLISHED = 12;
const CONNECTIONS = [1, 8, AS_PUBLISHED, 32] as const;
/** Rates of more connections vary more, so their loads are twice as long. */
const MOST_FOR_ONE_LENGTH = AS_PUBLISHED;
/** So that a load meets several folds, and the pauses between them. */
const LEAST_SECONDS_BESIDE_FOLDS = 4;
/** Fewer than the creates of a round, whose files they delete. */
const DELETES = 100;
const SHARE_OF_IDS = 0.99;

/** Creates, overwrites and deletes of one file each, and creates of one directory each. */
export async function measureFileWrites(scene: Scene): Promise<void> {
  await measureSingleWrites(scene);
  for (const connections of CONNECTIONS) {
    await measureCreates(scene, connections, 'spread');
    if (connections !== AS_PUBLISHED) await measureCreates(scene, connections, 'oneDirectory');
  }
  await measureDeletes(scene);
  await measureDirectoryCreates(scene);
  await measureBesideFolds(scene);
  await measureOverwrites(scene);
}

export const label = () => randomBytes(5).toString('hex');

/** The text of an insert of one file or one directory. */
type Insert = (design: Design, file: NewFile) => string | undefined;
const insertFile: Insert = ({ create }, file) => create?.(file);
const insertDirectory: Insert = ({ createDirectory }, directory) => createDirectory?.(directory);

/** An insert for pgbench, into directories chosen at random or into the first. */
function insertStatement({ tree }: Scene, design: Design, insert: Insert, directories: number): Statement {
  const file: NewFile = {
    mountId: '1',
    parentId: `(${tree.batchesFrom - 1} + :directory::bigint)`,
    parentPath: `('${tree.incoming.path}/batch-' || :directory)`,
    name: `('report-${label()}-' || :client_id || '-' || :counter || '.dat')`,
    sizeBytes: ':size::bigint',
  };
  return {
    text: insert(design, file) ?? '',
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
  const time = (key: string, write: string) => ({ key, group: GROUP, title: `${write}, time of a call` });
  await measureCalls(
    scene,
    time('createDirectoryOne', 'create a directory'),
    callsOf(scene, insertDirectory),
  );
  await measureCalls(scene, time('createOne', 'create'), callsOf(scene, insertFile));
  await measureCalls(scene, time('overwriteOne', 'overwrite'), (design) => {
    const text = design.overwrite?.('$1::bigint', '$2::bigint');
    if (text === undefined) return undefined;
    return (round, call) => query(text, tree.files[call % tree.files.length]?.id, 5000 + call + round);
  });
  const from = new Map<string, number>();
  for (const design of scene.designs) from.set(design.key, (await undeletedFiles(scene, design)).from);
  await measureCalls(
    scene,
    time('deleteFileOne', 'delete a file'),
    (design) => {
      const text = design.deleteFile?.('$1::bigint');
      if (text === undefined) return undefined;
      return (round, call) => query(text, (from.get(design.key) ?? 0) + round * DELETES + call);
    },
    DELETES,
  );
}

function callsOf({ tree }: Scene, insert: Insert) {
  const names = label();
  return (design: Design) => {
    const text = insert(design, {
      mountId: '1',
      parentId: '$1::bigint',
      parentPath: `('${tree.incoming.path}/batch-' || $2::text)`,
      name: '$3::text',
      sizeBytes: '$4::bigint',
    });
    if (text === undefined) return undefined;
    return (round: number, call: number) => {
      const batch = 1 + ((call * 7) % tree.batches);
      const name = `report-${names}-${round}-${call}.dat`;
      return used(text, [tree.batchesFrom - 1 + batch, batch, name, 1000 + call]);
    };
  };
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

interface LoadedWrite extends Pick<Operation, 'key' | 'title'> {
  /** What a design must have to be measured. */
  readonly needs: 'create' | 'createDirectory' | 'overwrite' | 'deleteFile';
  readonly rateOf: (design: Design) => Promise<number>;
}

async function measureRates(scene: Scene, { key, title, needs, rateOf }: LoadedWrite): Promise<void> {
  const able = scene.designs.filter((design) => design[needs] !== undefined);
  scene.say(title);
  const rates = await inTurns(
    scene.rounds,
    Object.fromEntries(able.map((design) => [design.key, () => rateOf(design)])),
  );
  for (const design of able) {
    scene.store.add({ key, group: GROUP, title, unit: '/s' }, ofRounds(design.key, rates[design.key] ?? []));
  }
}

async function measureCreates(
  scene: Scene,
  connections: number,
  where: 'spread' | 'oneDirectory',
): Promise<void> {
  const { batches } = scene.tree;
  await measureRates(scene, {
    key: `create${connections}${where}`,
    title: `create, ${connections} connection${connections === 1 ? '' : 's'}, ${where === 'spread' ? `${batches} directories` : 'one directory'}`,
    needs: 'create',
    rateOf: (design) =>
      loadRate(
        scene,
        design,
        insertStatement(scene, design, insertFile, where === 'spread' ? batches : 1),
        connections,
        connections > MOST_FOR_ONE_LENGTH ? 2 * scene.seconds : scene.seconds,
      ),
  });
}

async function measureDirectoryCreates(scene: Scene): Promise<void> {
  const { batches } = scene.tree;
  await measureRates(scene, {
    key: `createDirectory${AS_PUBLISHED}`,
    title: `create directories, ${AS_PUBLISHED} connections, in ${batches} directories`,
    needs: 'createDirectory',
    rateOf: (design) =>
      loadRate(scene, design, insertStatement(scene, design, insertDirectory, batches), AS_PUBLISHED),
  });
}

/** Each file is deleted once: the loads of creates have left many more than a load of deletes takes. */
async function measureDeletes(scene: Scene): Promise<void> {
  await measureRates(scene, {
    key: `deleteFile${AS_PUBLISHED}`,
    title: `delete files, ${AS_PUBLISHED} connections`,
    needs: 'deleteFile',
    rateOf: async (design) => {
      const { from, files } = await undeletedFiles(scene, design);
      const rate = await loadRate(scene, design, deleteStatement(design, from, AS_PUBLISHED), AS_PUBLISHED);
      if (rate * (scene.seconds + WARM_UP_SECONDS) > files) {
        throw new Error(
          `${design.title}: a load of deletes needs more than the ${files} files that the loads of creates have left. Its last calls deleted nothing, so its rate is wrong. Create more files before it.`,
        );
      }
      return rate;
    },
  });
}

/** Files with ids that follow one another: they were created after the load, and no measurement has deleted them. */
async function undeletedFiles(
  { client, tree }: Scene,
  { title, nodes: { table, live } }: Design,
): Promise<{ readonly from: number; readonly files: number }> {
  const { rows } = await client.query(
    `select min(id)::float8 as from, max(id)::float8 as to, count(*)::float8 as files
     from ${table}
     where kind = 'file'
       and id > (select coalesce(max(id), $1) from ${table} where id > $1 and not (${live}))`,
    [tree.nodes],
  );
  const { from, to, files } = rows[0];
  // Creates that were rolled back have left a few gaps.
  if (files < SHARE_OF_IDS * (to - from + 1)) {
    throw new Error(
      `${title}: only ${files} ids from ${from} to ${to} are files. Deletes of the others would count too.`,
    );
  }
  return { from, files };
}

/** A delete for pgbench: each connection takes its own files, whose ids follow one another. */
export function deleteStatement(design: Design, from: number, connections: number): Statement {
  return {
    text:
      design.deleteFile?.(`(${from} + (:counter::bigint - 1) * ${connections} + :client_id::bigint)`) ?? '',
    variables: { counter: { kind: 'counter' } },
  };
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
  const create = () =>
    loadRate(scene, design, insertStatement(scene, design, insertFile, tree.batches), 8, length);
  const rates = await inTurns(rounds, { beside: () => whileFolding(scene.url, create), alone: create });
  for (const [key, title] of [
    ['beside', 'create, 8 connections, beside a fold every second'],
    ['alone', 'create, 8 connections, without folds'],
  ] as const) {
    store.add({ key: `createFolds${key}`, group: GROUP, title, unit: '/s' }, ofRounds('this', rates[key]));
  }
}

async function measureOverwrites(scene: Scene): Promise<void> {
  const { tree } = scene;
  const statement = (design: Design): Statement => ({
    text: design.overwrite?.(':node::bigint', ':size::bigint') ?? '',
    variables: {
      node: { kind: 'random', from: tree.filesFrom, to: tree.nodes },
      size: { kind: 'random', from: 1, to: 1_000_000 },
    },
  });
  await measureRates(scene, {
    key: 'overwrite8',
    title: 'overwrite, 8 connections',
    needs: 'overwrite',
    rateOf: (design) => loadRate(scene, design, statement(design), 8),
  });
}
