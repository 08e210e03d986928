import type { FilestoreError } from '../errors.ts';

/** A failure that may be gone in a moment. Never leaves the package: `error` is what a caller sees. */
export class PassingFailure extends Error {
  /** @param reason One sentence for people. */
  constructor(
    readonly reason: string,
    readonly error: FilestoreError,
  ) {
    super(reason);
  }
}
