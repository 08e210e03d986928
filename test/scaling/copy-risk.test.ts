import { expect, test } from 'vitest';
import { copyRisk } from '../../src/move/copy-risk.ts';
import type { SideState } from '../../src/move/side.ts';

const riskOf = (version: number, move?: Pick<NonNullable<SideState['move']>, 'step'>) =>
  copyRisk('media', {
    ask: async <T>() => version as T,
    state: async () => ({ move }) as SideState,
  });

test.each([
  [150019, '15.19. Before 15.20'],
  [160015, '16.15. Before 16.16'],
  [170011, '17.11. Before 17.12'],
  [180006, '18.6. Before 18.7'],
])('a source of version %i is warned of', async (version, text) => {
  expect(await riskOf(version)).toContain(`PostgreSQL ${text}`);
  expect(await riskOf(version, { step: 'finished' })).toContain('WARNING');
});

test.each([150020, 160016, 170012, 180007, 190000])('a source of version %i is not', async (version) => {
  expect(await riskOf(version)).toBeUndefined();
});

test('a copy that has ended is not warned of', async () => {
  expect(await riskOf(180006, { step: 'proved' })).toBeUndefined();
});
