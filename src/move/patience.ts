/** What a wait sees at one moment. */
export interface Seen {
  /** Changes when a part of the work is done for good. */
  readonly step: string;
  /** Changes while work goes on, even if it is undone later. */
  readonly progress: string;
  /** Errors of workers so far. */
  readonly errors: number;
}

/** Errors of one step that can pass, such as those of a server that restarts. */
const PASSING_ERRORS = 3;

/**
 * Watches a wait. A copy that fails starts again and reads the same rows, which looks like progress. So a
 * wait has failed if errors go on and no step ends within the time.
 * @returns why not to wait longer, or undefined.
 */
export function watchWait(patienceMs: number, now: () => number = () => performance.now()) {
  let last: Seen | undefined;
  let errorsBefore = 0;
  let stepAt = now();
  let progressAt = stepAt;
  let errorAt = Number.NEGATIVE_INFINITY;
  return (seen: Seen): 'has stood still' | 'has failed' | undefined => {
    const at = now();
    if (seen.step !== last?.step) {
      stepAt = at;
      progressAt = at;
      errorsBefore = seen.errors;
    }
    if (seen.progress !== last?.progress) progressAt = at;
    if (seen.errors !== last?.errors) errorAt = at;
    last = seen;
    const isFailing = seen.errors - errorsBefore >= PASSING_ERRORS && at - errorAt < patienceMs / 2;
    if (isFailing && at - stepAt > patienceMs) return 'has failed';
    return at - progressAt > patienceMs ? 'has stood still' : undefined;
  };
}
