/** What every error of this package says about itself: a code that stays, whatever the wording does. */
export type FilestoreErrorCode =
  | 'SETTINGS_INVALID'
  | 'CONNECTION_FAILED'
  | 'MIGRATIONS_MISSING'
  | 'MIGRATIONS_INVALID'
  | 'HISTORY_DIVERGED'
  | 'DATABASE_AHEAD'
  | 'LOCK_NOT_ACQUIRED'
  | 'MIGRATION_FAILED'
  | 'EMBEDDED_POSTGRES_FAILED'
  | 'CHECK_FAILED';

/**
 * Base of every error this package throws. `message` is one paragraph that names the thing, says why,
 * and what to do; it never holds a secret. `cause` is the error underneath, where there is one.
 */
export abstract class FilestoreError extends Error {
  abstract readonly code: FilestoreErrorCode;
  override readonly name: string = this.constructor.name;
}

/** A setting is missing, or its value cannot be used. */
export class SettingsError extends FilestoreError {
  readonly code = 'SETTINGS_INVALID';

  /** @param setting Name of the environment variable or option that is at fault. */
  constructor(
    readonly setting: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** No usable connection: the server cannot be reached, or does not let this user in. */
export class ConnectionError extends FilestoreError {
  readonly code = 'CONNECTION_FAILED';
}

/** The package has no committed migrations. */
export class MigrationsMissingError extends FilestoreError {
  readonly code = 'MIGRATIONS_MISSING';
}

/** The committed migrations of the package are damaged or edited. */
export class MigrationsInvalidError extends FilestoreError {
  readonly code = 'MIGRATIONS_INVALID';

  constructor(
    message: string,
    readonly filename: string,
  ) {
    super(message);
  }
}

/** The database was migrated by other files than the ones at hand. */
export class HistoryDivergedError extends FilestoreError {
  readonly code = 'HISTORY_DIVERGED';

  constructor(
    message: string,
    readonly problems: readonly string[],
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The database holds migrations that this version of the package does not know yet. */
export class DatabaseAheadError extends FilestoreError {
  readonly code = 'DATABASE_AHEAD';

  constructor(
    message: string,
    readonly unknown: readonly string[],
  ) {
    super(message);
  }
}

/** Another migrator is at work on the same database. */
export class LockNotAcquiredError extends FilestoreError {
  readonly code = 'LOCK_NOT_ACQUIRED';
}

/** Where in a migration file the server stopped. Lines and columns count from 1. */
export interface MigrationFailurePlace {
  readonly filename: string;
  /** Number of the failing statement in the file, from 1. Null when no statement of the file was at fault. */
  readonly statement: number | null;
  readonly line: number | null;
  readonly column: number | null;
}

/** A migration failed. What it did was rolled back; the migrations before it stay applied. */
export class MigrationFailedError extends FilestoreError {
  readonly code = 'MIGRATION_FAILED';

  /**
   * @param sqlState The server's SQLSTATE, such as `42501`; null when the failure was not the server's.
   * @param applied  Names of the files that this run applied before the failure.
   */
  constructor(
    message: string,
    readonly place: MigrationFailurePlace | null,
    readonly sqlState: string | null,
    readonly applied: readonly string[],
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The embedded Postgres is not installed, or cannot be started here. */
export class EmbeddedPostgresError extends FilestoreError {
  readonly code = 'EMBEDDED_POSTGRES_FAILED';
}

/** The checks on the migrations found something to mend. */
export class CheckFailedError extends FilestoreError {
  readonly code = 'CHECK_FAILED';

  constructor(
    message: string,
    readonly problems: readonly string[],
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
