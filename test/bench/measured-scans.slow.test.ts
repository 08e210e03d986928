import { expect, inject, test } from 'vitest';
import type { Result } from '../../bench/measure.ts';
import { measureScans } from '../../bench/scans/measure-scans.ts';

test('scans of a generated disk keep every id, pair nothing else, and then find nothing to change', async () => {
  const results: Result[] = [];
  await measureScans({
    server: { adminUrl: inject('adminUrl'), stop: async () => undefined },
    nodes: 2_000,
    report: (...found) => results.push(...found),
  });
  const judged = results.filter(({ reached }) => reached !== null);
  expect(judged.map(({ what, here, reached }) => [what, here, reached])).toEqual([
    ['scan after it: changes', 0, true],
    ['ids that a scan with 1 % changed keeps', 100, true],
    ['nodes that it pairs with another object', 0, true],
  ]);
  const changes = results.find(({ what }) => what === 'scan with 1 % changed: changes');
  expect(changes?.here).toBeGreaterThan(10);
});
