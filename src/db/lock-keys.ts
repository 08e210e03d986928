/** Key of this package's advisory lock: the letters "filestor" as one number. */
export const MIGRATION_LOCK_KEY = '7379548647407775602';
/** Key of graphile-migrate's advisory lock (dist/pgReal.js), which its command line takes too. */
export const GRAPHILE_LOCK_KEY = '4727445306447283';
