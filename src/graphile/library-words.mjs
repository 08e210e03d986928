// The words of graphile-migrate that this package recognises. They are no interface of the library, so its version is
// pinned. If they change, a run reads from the history what it applied (src/db/note-applied.ts).

/** Logged before a committed migration is run. It names the file. */
export const RUNNING_COMMITTED =
  /^graphile-migrate(?<shadow>\[shadow\])?: Running migration '(?<name>[^']+)'/;

/** Logged before current.sql is run. */
export const RUNNING_CURRENT = /^\[[^\]]+\]: Running current\.sql/;

/** Logged when current.sql was not run, since it is applied. */
export const CURRENT_UNCHANGED = /^\[[^\]]+\]: current\.sql unchanged/;

/** The name of the query that records a committed migration. */
export const RECORD_QUERY = 'migration-insert';

/** The error when another migrator holds the library's lock. */
export const LOCKED_OUT = 'Failed to get exclusive lock';
