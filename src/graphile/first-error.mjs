/** @import { SerializedError } from './protocol.ts' */

/**
 * Returns the error that says why a command failed. The library may throw that the connection was lost,
 * without the reason, or the first error with more text around it.
 * @param {unknown} firstError The first one of a connection, if there was one.
 * @param {unknown} thrown
 */
export function causeAmong(firstError, thrown) {
  if (!(firstError instanceof Error)) return thrown;
  const saysMore = thrown instanceof Error && thrown.message.includes(firstError.message);
  return saysMore ? thrown : firstError;
}

/**
 * An error in a form that can be sent between threads.
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
