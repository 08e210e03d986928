import { expect, test } from 'vitest';
import { sampleOf } from '../support/points.ts';
import { openCrashes } from './crashes.ts';

const seed = Number(process.env.CRASHES_SEED ?? 1);
console.log(`Seed of the crashes: ${seed}`);

test.each([
  ['runs', 0.012],
  ['loops', 0.025],
  ['moves', 0.005],
] as const)(
  'after a crash anywhere in %s, the next call finishes, and leaves what an undisturbed one does',
  { timeout: 300_000 },
  async (part, share) => {
    const crashes = await openCrashes(part);
    try {
      const points = sampleOf(crashes.all, share, seed);
      console.log(`${crashes.summary()}; ${points.length} of ${crashes.all.length} points`);
      for (const { name, play } of points) expect(await play(), name).toEqual([]);
    } finally {
      await crashes.stop();
    }
  },
);
