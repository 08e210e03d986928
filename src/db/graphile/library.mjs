// What every thread that runs graphile-migrate needs of its internals. A plain .mjs file like the threads themselves.
import { createRequire } from 'node:module';

/**
 * @import { ClientConfig, PoolClient } from 'pg'
 * @import { EventEmitter } from 'node:events'
 * @import { SerializedError } from './messages.ts'
 */

export const requireHere = createRequire(import.meta.url);
export const requireAsGraphile = createRequire(requireHere.resolve('graphile-migrate'));

/**
 * The library takes URLs only; pools that stand in for its own have the whole configuration, and their clients are
 * observed from the start.
 * @param {(connectionString: string) => ClientConfig} configOf
 * @param {(client: PoolClient & { connection: EventEmitter, processID: number }, connectionString: string) => void} observe
 */
export function replacePool(configOf, observe) {
  // As src/cli/navigator.ts has it, for this thread.
  if (!('navigator' in globalThis)) Object.assign(globalThis, { navigator: { userAgent: 'Node.js' } });
  const pg = requireAsGraphile('pg');
  const Pool = pg.Pool;
  pg.Pool = class extends Pool {
    /** @param {{ connectionString: string }} options */
    constructor({ connectionString }) {
      super(configOf(connectionString));
      this.on('connect', (/** @type {any} */ client) => observe(client, connectionString));
    }
  };
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
