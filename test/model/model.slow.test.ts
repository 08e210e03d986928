import { expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { runSequence, type Tally } from './sequence.ts';

const database = databaseForEachTest();

const steps = Number(process.env.MODEL_STEPS ?? 400);
// Fixed seeds, so that a failure comes from the change under test. For new seeds, run `npm run model`.
const seeds =
  process.env.MODEL_SEED === undefined ? [1, 2, 3, 4, 5, 6, 7, 8] : [Number(process.env.MODEL_SEED)];
console.log(`Seeds of the model test: ${seeds.join(', ')}`);

test.each(seeds)('the database behaves like a plain model: seed %i', async (seed) => {
  const tally = await runSequence(await database().connect(), { seed, steps });
  if (steps < 400) return;
  // A sequence in which every step fails, or none, would prove little.
  expect(share(tally, 'done')).toBeGreaterThan(0.5);
  for (const code of ['FS404', 'FS409', 'FS422', '23505']) expect(share(tally, code)).toBeGreaterThan(0);
});

/** The share of operations with an outcome. */
function share(tally: Tally, outcome: string): number {
  const all = [...tally.values()].flatMap((outcomes) => [...outcomes]);
  const total = all.reduce((sum, [, times]) => sum + times, 0);
  return all.filter(([code]) => code === outcome).reduce((sum, [, times]) => sum + times, 0) / total;
}
