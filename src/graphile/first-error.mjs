/** @import { SerializedError } from './protocol.ts' */

/**
 * Which of two errors says why a command failed. What the library throws in the end may be that the connection is gone,
 * and not why; or the first error with words of the library around it, which say more.
 * @param {unknown} firstError The first one of a connection, if there was one.
 * @param {unknown} thrown
 */
export function causeAmong(firstError, thrown) {
  if (!(firstError instanceof Error)) return thrown;
  const saysMore = thrown instanceof Error && thrown.message.includes(firstError.message);
  return saysMore ? thrown : firstError;
}

/**
 * An error as it survives the way between threads.
 * @param {unknown} error
 * @returns {SerializedError}
 */
export function serialize(error) {
  const fields = /** @type {Record<string, unknown>} */ (error instanceof Error ? error : {});
  const text = (/** @type {string} */ field) => (typeof fields[field] === 'string' ? fields[field] : null);
  return {
    message: error instanceof Error ? error.message : String(error),
    code: text('code'),
    detail: text('detail'),
    hint: text('hint'),
    where: text('where'),
    position: text('position') === null ? null : Number(text('position')),
  };
}
