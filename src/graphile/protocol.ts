import type { ClientConfig } from 'pg';

/**
 * `main`: the database to migrate. `shadow`: where a commit is tried. `root`: from which databases are
 * created.
 */
export type DatabaseKind = 'main' | 'shadow' | 'root';

/** graphile-migrate's commands, by the names of their modules. */
export type CommandName = 'migrate' | 'watch' | 'commit' | 'reset';

/** The input of the thread. */
export interface ThreadInput {
  /**
   * Connections in pg's form, with passwords. The library uses them instead of URLs. Migrating needs only
   * `main`.
   */
  readonly connections: Readonly<Partial<Record<DatabaseKind, ClientConfig & { readonly database: string }>>>;
  /** Owner of the databases that are created. */
  readonly owner: string;
  /** Path of the package's .gmrc. */
  readonly configFile: string;
  /** Server settings of the sessions, by name; times in milliseconds. */
  readonly serverSettings: Readonly<Record<string, string>>;
  /** Whether to reset the session at the end, for a pooler that gives it to its next client unchanged. */
  readonly clearSession: boolean;
  /** The commands to load at the start. */
  readonly preload: readonly CommandName[];
  /** Whether the thread ends after its first command. */
  readonly single: boolean;
}

/** Server settings under which the SQL of one migration runs. */
export interface MigrationLimits {
  readonly settings: Readonly<Record<string, string>>;
  /** Whether it runs in a transaction, with which the settings end. */
  readonly transaction: boolean;
}

/** A command of graphile-migrate on the migrations of a folder. */
export type ThreadCommand = { readonly migrationsFolder: string } & (
  | {
      /** Applies the committed migrations, without current.sql. */
      readonly type: 'migrate';
      /** Whether to create graphile-migrate's own tables, which needs the CREATE right even if they exist. */
      readonly makeBookkeeping: boolean;
      /**
       * The migrations to apply, by the name of the file, with their time limits. The thread stops before any other one:
       * its data checks are not evaluated yet.
       */
      readonly limits: Readonly<Record<string, MigrationLimits>>;
    }
  /** Applies the committed migrations, and then current.sql, once. */
  | { readonly type: 'apply' }
  | { readonly type: 'commit'; readonly message: string }
  | { readonly type: 'reset' }
);

/** The thread starts no further command or migration. */
export type StopRequest = { readonly type: 'stop' };

/** A committed migration, or current.sql. */
export interface ThreadTarget {
  /** Null for current.sql. */
  readonly committed: string | null;
  readonly database: 'main' | 'shadow';
}

/** An error in a form that can be sent between threads, which would remove the fields of Postgres errors. */
export interface SerializedError {
  readonly message: string;
  /** SQLSTATE or Node's code. */
  readonly code: string | null;
  readonly detail: string | null;
  readonly hint: string | null;
  readonly where: string | null;
  /** In characters of the text that was sent, from 1. */
  readonly position: number | null;
}

/** The SQL in which the server reported an error. */
export interface FailedText {
  readonly text: string;
  /** Number of the failed statement in it, from 1. */
  readonly statement: number;
}

export interface ThreadFailure {
  readonly type: 'failed';
  readonly error: SerializedError;
  /** The running migration; null between two migrations, and before the first. */
  readonly target: ThreadTarget | null;
  /** Milliseconds since that began; 0 without a target. */
  readonly ranMs: number;
  /** Null if no statement of the migration failed. */
  readonly failed: FailedText | null;
}

/** A message of the thread while a command runs. */
export type ThreadEvent =
  /** A session on the server, and its process id there. */
  | { readonly type: 'connected'; readonly database: DatabaseKind; readonly pid: number }
  | { readonly type: 'start'; readonly target: ThreadTarget }
  /** A committed migration is applied and recorded. */
  | { readonly type: 'end'; readonly target: ThreadTarget; readonly durationMs: number }
  /** A warning of the server. */
  | { readonly type: 'warning'; readonly message: string };

/** How a command ended. */
export type ThreadOutcome =
  /** `unchanged`: current.sql was not run, because it is the same as at its last run, except for comments. */
  { readonly type: 'done'; readonly unchanged: boolean } | ThreadFailure;

export type ThreadMessage =
  | ThreadEvent
  | ThreadOutcome
  /** A connection was lost. The command then fails, or the thread ends without another message. */
  | { readonly type: 'lost'; readonly failure: ThreadFailure };

/** The server's error with its fields, as an Error of this thread. */
export function causeOf(error: SerializedError): Error {
  return Object.assign(new Error(error.message), error);
}
