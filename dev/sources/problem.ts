/** A place in a file of the package. */
export interface Place {
  readonly file: string;
  /** From 1; null for the whole file, or a missing one. */
  readonly line: number | null;
}

/** A problem to fix. */
export interface Problem extends Place {
  readonly what: string;
  /** What to do about it. */
  readonly remedy: string;
}
