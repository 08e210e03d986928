import type { Client } from 'pg';
import { beforeEach, expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { wrongTotals } from '../support/rows/directory-totals.ts';
import {
  createChain,
  createDirectory,
  createMount,
  createNode,
  foldAll,
  type Mount,
} from '../support/rows/nodes.ts';
import { seededRandom } from '../torture/seeded-random.ts';

const database = databaseForEachTest();

const FOLD = 'select filestore.fold_rollups() as folded';
const MOVE = 'select filestore.move_node($1, $2)';

let mount: Mount;
/** Creates the directories a and a/b, with one file in a/b. Nothing is folded. */
let a: string;
let b: string;
let target: string;
/** The connection that begins first and keeps its transaction open. */
let first: Client;
let second: Client;

beforeEach(async () => {
  mount = await createMount(database());
  [a, b] = (await createChain(database(), mount, 'a', 'b')) as [string, string];
  target = await createDirectory(database(), mount, mount.rootId, 'target');
  await createNode(database(), mount, b, 'f');
  [first, second] = [await database().connect(), await database().connect()];
  await first.query('begin');
});

/** Ends the open transaction, folds all deltas, and compares all totals with a count. */
async function expectExactInTheEnd(): Promise<void> {
  expect(await wrongTotals(database())).toEqual([]);
  await foldAll(database());
  expect(await wrongTotals(database())).toEqual([]);
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
}

test('lists, child counts and totals are exact in every reading during moves, deletes, restores and folds', async () => {
  await first.query('commit');
  const random = seededRandom(7);
  const directories = [a, b, target, ...(await createChain(database(), mount, 'x', 'y'))];
  const files: string[] = [];
  for (const name of ['g', 'h', 'i']) files.push(await createNode(database(), mount, target, name));
  const aDirectory = () => random.pick(directories);
  const anything = () => random.pick([...directories, ...files]);
  const works: Readonly<Record<string, () => unknown[]>> = {
    [MOVE]: () => [anything(), random.pick([mount.rootId, ...directories])],
    'select filestore.delete_node($1, recursive => true)': () => [anything()],
    'select filestore.restore_node($1, with_tree => true)': () => [anything()],
    'select filestore.create_node($1, $2)': () => [aDirectory(), `n${random.between(0, 50)}`],
    'select filestore.fold_rollups(3)': () => [],
  };
  const done = new Set<string>();
  const until = performance.now() + 4000;
  const writers = Array.from({ length: 4 }, async () => {
    const client = await database().connect();
    while (performance.now() < until) {
      const [text, values] = random.pick(Object.entries(works)) ?? [FOLD, () => []];
      const outcome = await client.query(text, values()).catch((error) => error);
      if (!(outcome instanceof Error)) done.add(text);
      // Expected refusals: a move into itself, a node that is deleted or live, a taken name.
      else expect(outcome).toMatchObject({ code: expect.stringMatching(/^FS4/) });
    }
  });
  const readings: unknown[] = [];
  const reader = (async () => {
    while (performance.now() < until) readings.push(await wrongTotals(second));
  })();
  await Promise.all([...writers, reader]);
  expect([...done].sort()).toEqual(Object.keys(works).sort());
  expect(readings.length).toBeGreaterThan(10);
  expect(readings.flat()).toEqual([]);
  await expectExactInTheEnd();
}, 30_000);
