import { expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { sampleOf } from '../support/points.ts';
import { openRuns } from './runs.ts';

const database = databaseForEachTest();

const seed = Number(process.env.ORDERS_SEED ?? 1);
console.log(`Seed of the runs: ${seed}`);

test('a run and what works beside it end well, at whichever message the first one is held', {
  timeout: 180_000,
}, async () => {
  const runs = await openRuns(database().superuserUrl, seed);
  try {
    const points = sampleOf(runs.all, 0.01, seed);
    for (const { name, play } of points) expect(await play(), name).toEqual([]);
    console.log(`${runs.summary()}; ${points.length} of ${runs.all.length} points`);
  } finally {
    await runs.stop();
  }
});
