/** Codes of all errors of this package. A code stays the same when the message changes. */
export type FilestoreErrorCode =
  | 'SETTINGS_INVALID'
  | 'CONNECTION_FAILED'
  | 'CONNECTION_LOST'
  | 'POOLER_IN_BETWEEN'
  | 'DATABASE_READ_ONLY'
  | 'TRIGGERS_DISABLED'
  | 'OWNER_NOT_TRUSTED'
  | 'MIGRATIONS_MISSING'
  | MigrationsInvalidCode
  | HistoryDivergedCode
  | 'HISTORY_UNREADABLE'
  | 'DATABASE_AHEAD'
  | 'SCHEMA_CONFLICT'
  | 'SCHEMA_DRIFTED'
  | 'SCHEMA_MODEL_INVALID'
  | 'LOCK_NOT_ACQUIRED'
  | 'MIGRATION_CHECK_FAILED'
  | 'MIGRATION_FAILED'
  | 'RUN_ABORTED'
  | 'NOT_MIGRATED'
  | 'MOVE_FAILED'
  | 'TEST_DATABASE_FAILED'
  | 'TRANSACTION_ROLLED_BACK'
  | 'TRANSACTION_ENDED'
  | 'EMBEDDED_POSTGRES_FAILED'
  | 'SCHEMA_CHANGE_REFUSED';

/** What is wrong with a committed migration file. */
export type MigrationsInvalidCode =
  | 'MIGRATION_EDITED'
  | 'MIGRATION_CRLF'
  | 'MIGRATION_MALFORMED'
  | 'MIGRATION_NUMBER_TAKEN'
  | 'MIGRATION_FILE_MISSING'
  | 'MIGRATION_OUT_OF_CHAIN';

/** How a database's history differs from the files. */
export type HistoryDivergedCode =
  | 'HISTORY_REWRITTEN'
  | 'HISTORY_RENUMBERED'
  | 'HISTORY_ROW_MISSING'
  | 'HISTORY_ROW_UNKNOWN'
  | 'HISTORY_FOREIGN';

/**
 * An error of this package. docs/operations.md has each `code` with its cause and remedy. `message` is one
 * paragraph that says what happened, to what, and what to do. It never contains a secret. `cause` is the
 * original error, if there is one. Errors with more fields are the classes below.
 */
export class FilestoreError extends Error {
  override readonly name: string = this.constructor.name;

  constructor(
    readonly code: FilestoreErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** A setting is missing, or its value cannot be used. */
export class SettingsError extends FilestoreError {
  declare readonly code: 'SETTINGS_INVALID';

  /** @param setting Name of the environment variable or option that is wrong. */
  constructor(
    readonly setting: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super('SETTINGS_INVALID', message, options);
  }
}

/** An open connection was lost: the server stopped, the network failed, or someone ended the session. */
export class ConnectionLostError extends FilestoreError {
  declare readonly code: 'CONNECTION_LOST';

  constructor(
    message: string,
    /** Names of the files that the run had applied before. */
    readonly applied: readonly string[],
    options?: ErrorOptions,
  ) {
    super('CONNECTION_LOST', message, options);
  }
}

/** The committed migrations of the package are damaged or edited. */
export class MigrationsInvalidError extends FilestoreError {
  declare readonly code: MigrationsInvalidCode;

  constructor(
    code: MigrationsInvalidCode,
    message: string,
    /** Name of the damaged file, or of the missing one where it is known. */
    readonly filename: string,
    options?: ErrorOptions,
  ) {
    super(code, message, options);
  }
}

/** One difference between a database's history and the files. */
export interface HistoryProblem {
  readonly code: HistoryDivergedCode;
  /** One line that names the file or row. */
  readonly description: string;
  /** What to do about it, in sentences. */
  readonly remedy: string;
}

/** The database was migrated by files other than these. `code` is that of the first problem. */
export class HistoryDivergedError extends FilestoreError {
  declare readonly code: HistoryDivergedCode;

  constructor(
    message: string,
    readonly problems: readonly HistoryProblem[],
  ) {
    super(problems[0]?.code ?? 'HISTORY_FOREIGN', message);
  }
}

/** The database has migrations that this version of the package does not know yet. */
export class DatabaseAheadError extends FilestoreError {
  declare readonly code: 'DATABASE_AHEAD';

  constructor(
    message: string,
    /** Names of the recorded migrations that are not among the files. */
    readonly unknown: readonly string[],
  ) {
    super('DATABASE_AHEAD', message);
  }
}

/** Tables exist without a recorded migration, and differ from what the migrations would create. */
export class SchemaConflictError extends FilestoreError {
  declare readonly code: 'SCHEMA_CONFLICT';

  constructor(
    message: string,
    /** One line for each. */
    readonly conflicts: readonly string[],
  ) {
    super('SCHEMA_CONFLICT', message);
  }
}

/** The schema in the database differs from its migrations. */
export class SchemaDriftedError extends FilestoreError {
  declare readonly code: 'SCHEMA_DRIFTED';

  constructor(
    message: string,
    /** One line for each object that is missing, extra or changed. */
    readonly differences: readonly string[],
    /** Names of the files that this run applied before the comparison. */
    readonly applied: readonly string[],
  ) {
    super('SCHEMA_DRIFTED', message);
  }
}

/** A server process as pg_stat_activity shows it to any role. */
export interface ServerProcess {
  readonly pid: number;
  readonly role: string | null;
  /** A migrator of this package puts the time of its start and its host there. */
  readonly applicationName: string | null;
}

/** The holder of a lock. `remedy` says what to do; it ends with the statement, if there is one. */
export type LockHolder =
  | (ServerProcess & { readonly kind: 'session'; readonly connectedAt: Date; readonly remedy: string })
  /** A session of another role. Only members of pg_read_all_stats see its times. */
  | (ServerProcess & { readonly kind: 'hidden session'; readonly remedy: string })
  /** It has no process, and keeps its locks until it is committed or rolled back by its id. */
  | {
      readonly kind: 'prepared transaction';
      readonly gid: string;
      readonly role: string;
      readonly database: string;
      readonly preparedAt: Date;
      readonly ageMs: number;
      readonly remedy: string;
    }
  /** It ended during the lookup. */
  | { readonly kind: 'unknown'; readonly remedy: string };

/** Another migrator worked on the database for longer than this run may wait. */
export class LockNotAcquiredError extends FilestoreError {
  declare readonly code: 'LOCK_NOT_ACQUIRED';

  constructor(
    message: string,
    /** The holder of the lock. */
    readonly holder: LockHolder,
    /** Names of the files that this run applied before. */
    readonly applied: readonly string[],
  ) {
    super('LOCK_NOT_ACQUIRED', message);
  }
}

/** A check of a pending migration that did not return true. */
export interface FailedCheck {
  readonly filename: string;
  /** Line of its message in the file, from 1. */
  readonly line: number;
  /** What is wrong with the data, and what to do, in the words of the migration. */
  readonly message: string;
  /** Null if the check returned false; otherwise why it could not be evaluated. */
  readonly reason: string | null;
}

/** Checks of pending migrations did not return true. None of those migrations was applied. */
export class MigrationCheckFailedError extends FilestoreError {
  declare readonly code: 'MIGRATION_CHECK_FAILED';

  constructor(
    message: string,
    readonly checks: readonly FailedCheck[],
    /** Names of the files that this run applied before. */
    readonly applied: readonly string[],
  ) {
    super('MIGRATION_CHECK_FAILED', message);
  }
}

/** The position in a migration file at which the server stopped. Lines and columns count from 1. */
export interface MigrationFailurePlace {
  readonly filename: string;
  /** Number of the failing statement in the file, from 1. Null if no statement of the file failed. */
  readonly statement: number | null;
  readonly line: number | null;
  readonly column: number | null;
}

/**
 * A migration failed. It was rolled back, unless it runs without a transaction (`--! no-transaction`); the
 * migrations before it stay applied.
 */
export class MigrationFailedError extends FilestoreError {
  declare readonly code: 'MIGRATION_FAILED';

  /**
   * @param sqlState The server's SQLSTATE, such as `42501`; null if the server reported no error.
   * @param applied  Names of the files that this run applied before the failure.
   */
  constructor(
    message: string,
    readonly place: MigrationFailurePlace | null,
    readonly sqlState: string | null,
    readonly applied: readonly string[],
    options?: ErrorOptions,
  ) {
    super('MIGRATION_FAILED', message, options);
  }
}

/**
 * The run was stopped. Applied migrations stay; the current one was rolled back, unless it runs without a
 * transaction (`--! no-transaction`).
 */
export class RunAbortedError extends FilestoreError {
  declare readonly code: 'RUN_ABORTED';

  constructor(
    message: string,
    /** Names of the files that this run applied before it stopped. */
    readonly applied: readonly string[],
    options?: ErrorOptions,
  ) {
    super('RUN_ABORTED', message, options);
  }
}

/** A service was started on a database that lacks migrations. The message has a command that applies them. */
export class NotMigratedError extends FilestoreError {
  declare readonly code: 'NOT_MIGRATED';

  constructor(
    message: string,
    /** Names of the files that are not applied. */
    readonly pending: readonly string[],
  ) {
    super('NOT_MIGRATED', message);
  }
}

/** Whether an error is one of this package with that code. */
export function hasCode(error: unknown, code: FilestoreErrorCode): error is FilestoreError {
  return error instanceof FilestoreError && error.code === code;
}
