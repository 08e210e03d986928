import type { ClientConfig } from 'pg';

/** What the worker is started with. */
export interface WorkerInput {
  /** Connection in pg's form, password included: it takes the place of the URL inside. */
  readonly clientConfig: ClientConfig & { readonly database: string };
  readonly migrationsFolder: string;
  /** Path of the package's .gmrc. */
  readonly configFile: string;
  /** Server settings of the session, by name; times in milliseconds. */
  readonly serverSettings: Readonly<Record<string, string>>;
  /** Whether to take back all of that at the end, for a pooler that gives the session to its next client as it is. */
  readonly clearSession: boolean;
}

/** What the worker is told once it runs. */
export type WorkerCommand =
  | {
      readonly type: 'go';
      /** Whether to make graphile-migrate's own tables, which takes the CREATE right even where they exist. */
      readonly makeBookkeeping: boolean;
      /** Names of the files that run without lock and statement timeout. */
      readonly unlimited: readonly string[];
    }
  /** Begin nothing more. */
  | { readonly type: 'stop' };

/** An error as it survives the way between threads, which strips Postgres errors of their own fields. */
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

/** What the worker tells while it works. */
export type WorkerMessage =
  /** Process id of its session on the server. */
  | { readonly type: 'connected'; readonly pid: number }
  | { readonly type: 'migration-start'; readonly filename: string }
  | { readonly type: 'migration-end'; readonly filename: string; readonly durationMs: number }
  /** The server warned, in its words. */
  | { readonly type: 'warning'; readonly message: string }
  | { readonly type: 'done' }
  | WorkerFailure;

export interface WorkerFailure {
  readonly type: 'failed';
  readonly error: SerializedError;
  /** The migration that was running, if one was. */
  readonly filename: string | null;
  /** Number of the statement at which the server stopped, from 1; null when it was not one of the migration's. */
  readonly statement: number | null;
}
