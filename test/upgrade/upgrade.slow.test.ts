import { expect, test } from 'vitest';
import { copyCheckout } from '../grown/checkout.ts';
import { renderUpgrade } from './render-upgrade.ts';
import { CLASSES } from './statement-classes.ts';
import { upgrade } from './upgrade.ts';
import { growByExamples, WORK_TREE } from './versions.ts';

/** Long enough to copy, commit, pack and upgrade on a busy machine. */
const TIMEOUT_MS = 300_000;

test('a service loses nothing and sees no failure while its database gets a column, a backfill and an index, and then runs on the new version', {
  timeout: TIMEOUT_MS,
}, async ({ signal }) => {
  const checkout = await copyCheckout(signal);
  try {
    const to = await growByExamples(checkout, ['A new column of nodes']);
    const result = await upgrade({
      from: WORK_TREE,
      to,
      nodes: 200,
      turns: 1,
      signal,
      onStep: () => undefined,
    });
    const summary = renderUpgrade(result);
    expect(result.faults, summary).toEqual([]);
    expect(result.applied, summary).toHaveLength(2);
    for (const service of result.services) {
      expect(Object.keys(service.classes).sort(), summary).toEqual(classNames());
      expect(service.served.length, summary).toBeGreaterThan(0);
    }
  } finally {
    await checkout.remove();
  }
});

function classNames(): readonly string[] {
  return Object.values(CLASSES)
    .flatMap((value) => ('name' in value ? [value] : [value.alone, value.inTransaction]))
    .map(({ name }) => name)
    .sort();
}
