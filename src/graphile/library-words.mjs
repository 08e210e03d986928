// The words of graphile-migrate that this package recognises. The library does not guarantee them, so its version is
// pinned. If they change, a run reads the history to see what was applied (noteUnreported in src/migrate/apply.ts).

/** @import { ThreadTarget } from './protocol.ts' */

const RUNNING_COMMITTED = /^graphile-migrate(?<shadow>\[shadow\])?: Running migration '(?<name>[^']+)'/;
const RUNNING_CURRENT = /^\[[^\]]+\]: Running current\.sql/;

/** Logged when current.sql was not run, because it is already applied. */
export const CURRENT_UNCHANGED = /^\[[^\]]+\]: current\.sql unchanged/;

/** The name of the query that records a committed migration. */
export const RECORD_QUERY = 'migration-insert';

/** The error when another migrator holds the library's lock. */
export const LOCKED_OUT = 'Failed to get exclusive lock';

/**
 * The target that a line of the log announces; undefined for other lines.
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
 * Whether a query is the SQL of a migration: the library sends it as an object with only a text.
 * @param {unknown} query
 * @returns {query is { text: string }}
 */
export function isMigrationText(query) {
  if (typeof query !== 'object' || query === null || 'name' in query || 'values' in query) return false;
  return 'text' in query && typeof query.text === 'string';
}
