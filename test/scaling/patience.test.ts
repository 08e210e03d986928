import { expect, test } from 'vitest';
import { type Seen, watchWait } from '../../src/move/patience.ts';

/** Watches a wait of 60 s, second by second. @returns its end: after how many seconds, and why. */
function endOf(seenAt: (second: number) => Partial<Seen>): string | undefined {
  let second = 0;
  const watch = watchWait(60_000, () => second * 1000);
  for (; second < 600; second += 1) {
    const why = watch({ step: 'copying', progress: '', errors: 0, ...seenAt(second) });
    if (why !== undefined) return `${why} at ${second}`;
  }
  return undefined;
}

test('a copy that advances is waited for', () => {
  expect(endOf((second) => ({ progress: `${second} rows` }))).toBeUndefined();
});

test('a copy that does not advance is not waited for', () => {
  expect(endOf(() => ({}))).toBe('has stood still at 61');
});

test('a copy that fails again and again is not waited for, although it writes rows each time', () => {
  expect(endOf((second) => ({ progress: `${second} rows`, errors: Math.floor(second / 5) }))).toBe(
    'has failed at 61',
  );
});

test('a copy that goes on after errors is waited for', () => {
  expect(endOf((second) => ({ progress: `${second} rows`, errors: Math.min(second, 20) }))).toBeUndefined();
});

test('a step that ends begins the time again', () => {
  const step = (second: number) => ({ step: `${Math.floor(second / 50)}`, errors: second });
  expect(endOf(step)).toBeUndefined();
});
