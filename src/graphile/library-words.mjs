// The words of graphile-migrate that this package recognises. They are no interface of the library, so its version is
// pinned. If they change, a run reads from the history what it applied (src/db/note-applied.ts).

/** @import { ThreadTarget } from './protocol.ts' */

const RUNNING_COMMITTED = /^graphile-migrate(?<shadow>\[shadow\])?: Running migration '(?<name>[^']+)'/;
const RUNNING_CURRENT = /^\[[^\]]+\]: Running current\.sql/;

/** Logged when current.sql was not run, since it is applied. */
export const CURRENT_UNCHANGED = /^\[[^\]]+\]: current\.sql unchanged/;

/** The name of the query that records a committed migration. */
export const RECORD_QUERY = 'migration-insert';

/** The error when another migrator holds the library's lock. */
export const LOCKED_OUT = 'Failed to get exclusive lock';

/**
 * What is run next, by a line of the log; undefined for every other line.
 * @param {string} line
 * @returns {ThreadTarget | undefined}
 */
export function targetIn(line) {
  const committed = RUNNING_COMMITTED.exec(line)?.groups;
  if (committed?.name !== undefined) {
    return { committed: committed.name, database: committed.shadow === undefined ? 'main' : 'shadow' };
  }
  return RUNNING_CURRENT.test(line) ? { committed: null, database: 'main' } : undefined;
}

/**
 * The SQL of a migration is what the library sends as an object with nothing but a text.
 * @param {unknown} query
 * @returns {query is { text: string }}
 */
export function isMigrationText(query) {
  if (typeof query !== 'object' || query === null || 'name' in query || 'values' in query) return false;
  return 'text' in query && typeof query.text === 'string';
}
