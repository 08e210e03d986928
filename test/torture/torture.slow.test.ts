import { describe, expect, test } from 'vitest';
import { total } from './counts.ts';
import { renderResult } from './render-result.ts';
import { torture } from './torture.ts';

const QUIET = { seed: 31, workers: 8, kills: 0, backendsPerMinute: 0 };

describe('under many writers at once', () => {
  test('nothing is lost, duplicated or wrong when the server is killed', { timeout: 120_000 }, async () => {
    const result = await torture({ ...QUIET, seconds: 12, kills: 1, backendsPerMinute: 30 });
    const summary = renderResult(result);
    expect(result.tally.serverKills, summary).toBe(1);
    expect(result.recorder.endings.size, summary).toBeGreaterThan(0);
    expect(result.recorder.created.size, summary).toBeGreaterThan(0);
    expect(result.tally.readings, summary).toBeGreaterThan(0);
    expect(summary).toContain('Nothing was lost.');
  });

  test('wrong totals or deadlocks are found without the tree lock', { timeout: 120_000 }, async () => {
    const result = await torture({
      ...QUIET,
      seconds: 40,
      withoutTreeLock: true,
      stopAtFirstCollision: true,
    });
    expect(total(result.tally.operations)).toBeGreaterThan(0);
    expect(result.tally.wrongReadings + result.tally.deadlocks, renderResult(result)).toBeGreaterThan(0);
  });
});
