/**
 * Waits for a table's lock that ended without it. Everything else that uses the table may have waited behind each of
 * them.
 */
export interface LockTimeouts {
  readonly count: number;
  /** Milliseconds of all of them together. */
  readonly totalMs: number;
  readonly longestMs: number;
}

/** The first wait, and by how much each one is longer than the one before. */
const STEP_MS = 100;

/** How long the statements of each migration of a run wait for a table's lock, and the waits that were for nothing. */
export class LockWaits {
  readonly #timeouts: number[] = [];
  /** The migration that last did not get a lock, and its next wait. */
  #next: { readonly filename: string; readonly waitMs: number } | undefined;

  /**
   * The lock timeout of a migration's statements. It starts at a tenth of a second, and grows by as much each time that
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
    // A migration that works for long before it needs the lock would otherwise repeat that work for a short wait.
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
