import type { ClientConfig } from 'pg';

/** `main`: the database that is migrated. `shadow`: where a commit is tried. `root`: where databases are made from. */
export type DatabaseKind = 'main' | 'shadow' | 'root';

/** graphile-migrate's commands, by the names of their modules. */
export type CommandName = 'migrate' | 'watch' | 'commit' | 'uncommit' | 'reset';

/** What the thread is started with. */
export interface ThreadInput {
  /**
   * Connections in pg's form, passwords included: they take the place of the URLs inside. Migrating needs none but
   * `main`.
   */
  readonly connections: Readonly<Partial<Record<DatabaseKind, ClientConfig & { readonly database: string }>>>;
  /** Role that owns a database that is made. */
  readonly owner: string;
  /** Path of the package's .gmrc. */
  readonly configFile: string;
  /** Server settings of the sessions, by name; times in milliseconds. */
  readonly serverSettings: Readonly<Record<string, string>>;
  /** Whether to take back all of that at the end, for a pooler that gives the session to its next client as it is. */
  readonly clearSession: boolean;
  /** What to load at the start. */
  readonly preload: readonly CommandName[];
  /** Whether the thread ends after its first command. */
  readonly single: boolean;
}

/** Server settings under which the SQL of one migration runs. */
export interface MigrationLimits {
  readonly settings: Readonly<Record<string, string>>;
  /** Whether it runs in a transaction, and the settings end with that. */
  readonly transaction: boolean;
}

/** What graphile-migrate is asked to do on the migrations of a folder. */
export type ThreadCommand = { readonly migrationsFolder: string } & (
  | {
      /** Applies the committed migrations, without current.sql. */
      readonly type: 'migrate';
      /** Whether to make graphile-migrate's own tables, which takes the CREATE right even where they exist. */
      readonly makeBookkeeping: boolean;
      /** Time limits of single migrations, by the name of the file. Without an entry, those of the session apply. */
      readonly limits: Readonly<Record<string, MigrationLimits>>;
      /** Name of the file before which to stop; null to apply all. */
      readonly before: string | null;
    }
  /** Applies the committed migrations, and then current.sql, once. */
  | { readonly type: 'apply' }
  | { readonly type: 'commit'; readonly message: string }
  | { readonly type: 'uncommit' }
  | { readonly type: 'reset' }
);

/** Tells the thread to begin nothing more. */
export type StopRequest = { readonly type: 'stop' };

/** What is being run: a committed migration by its file, or current.sql. */
export interface ThreadTarget {
  /** Null for current.sql. */
  readonly committed: string | null;
  readonly database: 'main' | 'shadow';
}

/** An error as it survives the way between threads, which strips the fields of Postgres errors. */
export interface SerializedError {
  readonly message: string;
  /** SQLSTATE or Node's code. */
  readonly code: string | null;
  readonly detail: string | null;
  readonly hint: string | null;
  readonly where: string | null;
  /** Characters into the text that was sent, from 1. */
  readonly position: number | null;
}

/** The SQL that the server was at when it failed. */
export interface FailedText {
  readonly text: string;
  /** Number of the statement in it at which the server stopped, from 1. */
  readonly statement: number;
}

export interface ThreadFailure {
  readonly type: 'failed';
  readonly error: SerializedError;
  /** What was running; null between two migrations, and before anything was run. */
  readonly target: ThreadTarget | null;
  /** Milliseconds since that began; 0 without a target. */
  readonly ranMs: number;
  /** Null when the server did not stop at a statement of the migration. */
  readonly failed: FailedText | null;
}

/** What the thread tells while a command runs. */
export type ThreadEvent =
  /** A session on the server, and its process id there. */
  | { readonly type: 'connected'; readonly database: DatabaseKind; readonly pid: number }
  | { readonly type: 'disconnected'; readonly database: DatabaseKind; readonly pid: number }
  | { readonly type: 'start'; readonly target: ThreadTarget }
  /** The SQL of a migration was sent to the server. It also comes if the library's log lines have other words. */
  | { readonly type: 'sent' }
  /** A committed migration is applied and recorded. */
  | { readonly type: 'end'; readonly target: ThreadTarget; readonly durationMs: number }
  /** The server warned, in its words. */
  | { readonly type: 'warning'; readonly message: string };

/** How a command ended. */
export type ThreadOutcome =
  /** `unchanged`: current.sql was the same as at its last run, but for comments, and was not run. */
  { readonly type: 'done'; readonly unchanged: boolean } | ThreadFailure;

export type ThreadMessage =
  | ThreadEvent
  | ThreadOutcome
  /** A connection broke. The command then fails, or the thread ends without another message. */
  | { readonly type: 'lost'; readonly failure: ThreadFailure };

/** The server's error with its fields, as an Error of this thread. */
export function causeOf(error: SerializedError): Error {
  return Object.assign(new Error(error.message), error);
}
