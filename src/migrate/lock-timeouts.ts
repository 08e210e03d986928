/** Waits for a table's lock that timed out. Other sessions may have waited behind each of them. */
export interface LockTimeouts {
  readonly count: number;
  /** Sum in milliseconds. */
  readonly totalMs: number;
  readonly longestMs: number;
}

/** Length of the first wait, and the increase from one wait to the next. */
const STEP_MS = 100;

/** The lock timeouts of a run's migrations, and the waits that timed out. */
export class LockWaits {
  readonly #timeouts: number[] = [];
  /** The migration that last did not get a lock, and its next wait. */
  #next: { readonly filename: string; readonly waitMs: number } | undefined;

  /**
   * The lock timeout of a migration's statements. It starts at 0.1 s, and grows by 0.1 s each time that
   * the migration did not get a lock.
   * @param limitMs 0: no limit.
   * @returns milliseconds; 0 for no limit.
   */
  timeoutOf(filename: string, limitMs: number): number {
    const waitMs = this.#next?.filename === filename ? this.#next.waitMs : STEP_MS;
    return limitMs === 0 ? 0 : Math.min(waitMs, limitMs);
  }

  /**
   * Notes that a migration did not get a lock.
   * @param ranMs How long it had been running.
   * @returns how long it may have waited for the lock, in milliseconds.
   */
  noteTimeout(filename: string, limitMs: number, ranMs: number): number {
    const timeoutMs = this.timeoutOf(filename, limitMs);
    const waitedMs = timeoutMs === 0 ? ranMs : Math.min(timeoutMs, ranMs);
    this.#timeouts.push(waitedMs);
    // A migration that works for long before it needs the lock repeats that work, so its next wait is as long.
    this.#next = { filename, waitMs: Math.max(timeoutMs + STEP_MS, ranMs - timeoutMs) };
    return waitedMs;
  }

  get timeouts(): LockTimeouts {
    return {
      count: this.#timeouts.length,
      totalMs: this.#timeouts.reduce((sum, waitedMs) => sum + waitedMs, 0),
      longestMs: Math.max(0, ...this.#timeouts),
    };
  }
}
