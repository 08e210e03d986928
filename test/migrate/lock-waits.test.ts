import { describe, expect, test } from 'vitest';
import { LockWaits } from '../../src/migrate/lock-timeouts.ts';

const LIMIT_MS = 5_000;
const FILE = '000007-more.sql';

/** Lets a migration fail to get a lock again and again, and returns the timeout of each attempt. */
function timeoutsOf(waits: LockWaits, attempts: number, workMs = 0): readonly number[] {
  return Array.from({ length: attempts }, () => {
    const timeoutMs = waits.timeoutOf(FILE, LIMIT_MS);
    waits.noteTimeout(FILE, LIMIT_MS, workMs + timeoutMs);
    return timeoutMs;
  });
}

describe('the lock timeout of a migration', () => {
  test('starts at a tenth of a second and grows by as much, up to the limit', () => {
    const timeouts = timeoutsOf(new LockWaits(), 52);
    expect(timeouts.slice(0, 4)).toEqual([100, 200, 300, 400]);
    expect(timeouts.slice(-3)).toEqual([LIMIT_MS, LIMIT_MS, LIMIT_MS]);
  });

  test('is as long as the work that the migration would otherwise repeat for it', () => {
    expect(timeoutsOf(new LockWaits(), 2, 2_000)).toEqual([100, 2_000]);
    expect(timeoutsOf(new LockWaits(), 2, 60_000)).toEqual([100, LIMIT_MS]);
  });

  test('starts again for another migration', () => {
    const waits = new LockWaits();
    timeoutsOf(waits, 3);
    expect(waits.timeoutOf('000008-other.sql', LIMIT_MS)).toBe(100);
  });

  test('is never above a limit that is lower, and 0 where there is no limit', () => {
    expect(new LockWaits().timeoutOf(FILE, 30)).toBe(30);
    expect(new LockWaits().timeoutOf(FILE, 0)).toBe(0);
  });
});

test('a wait counts for no longer than the migration ran', () => {
  const waits = new LockWaits();
  expect(waits.timeouts).toEqual({ count: 0, totalMs: 0, longestMs: 0 });
  // By "lock table … nowait".
  expect(waits.noteTimeout(FILE, LIMIT_MS, 3)).toBe(3);
  expect(waits.noteTimeout(FILE, LIMIT_MS, 250)).toBe(200);
  // A deadlock, without a limit.
  expect(waits.noteTimeout(FILE, 0, 1_000)).toBe(1_000);
  expect(waits.timeouts).toEqual({ count: 3, totalMs: 1_203, longestMs: 1_000 });
});
