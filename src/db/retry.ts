import type { FilestoreError } from '../errors.ts';

/** A temporary failure. It never leaves the package: a caller sees `error`. */
export class PassingFailure extends Error {
  /** @param reason One sentence for people. */
  constructor(
    readonly reason: string,
    readonly error: FilestoreError,
  ) {
    super(reason);
  }
}

/** Counts consecutive failures and decides how long to wait after each, or to give up. */
export interface Backoff {
  /** @returns milliseconds to wait, or undefined when the time is over. */
  next(): number | undefined;
  /** Resets the count after a success. */
  reset(): void;
}

const FIRST_DELAY_MS = 200;
const LONGEST_DELAY_MS = 10_000;

/** Waits that double from 0.2 to 10 s, each varied by half so that many do not try at once; over after `limitMs`. */
export function startBackoff(limitMs: number): Backoff {
  let failures = 0;
  let firstAt = 0;
  return {
    next() {
      if (failures === 0) firstAt = performance.now();
      const delay = Math.min(FIRST_DELAY_MS * 2 ** failures, LONGEST_DELAY_MS) * (0.75 + Math.random() / 2);
      failures += 1;
      return performance.now() + delay - firstAt > limitMs ? undefined : delay;
    },
    reset() {
      failures = 0;
    },
  };
}
