import type { SerializedError } from './messages.ts';

/** What graphile-migrate says when its lock is taken (dist/pgReal.js). */
const LOCKED_OUT = 'Failed to get exclusive lock';

/** Whether graphile-migrate ended with this error because another one is at work, and did nothing. */
export function isLockedOut({ message }: SerializedError): boolean {
  return message === LOCKED_OUT;
}

/** The error of a thread that ended without having told how. */
export function endedWithoutAWord(exitCode: number): SerializedError {
  return withoutFields(`graphile-migrate ended its thread with exit code ${exitCode}`);
}

/** An error that is not the server's. */
export function withoutFields(message: string): SerializedError {
  return { message, code: null, detail: null, hint: null, where: null, position: null };
}
