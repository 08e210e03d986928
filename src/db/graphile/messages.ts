import type { PoolConfig } from 'pg';

/** What the worker is started with. */
export interface WorkerInput {
  /** Connection in pg's form, password included: it takes the place of the URL inside. */
  readonly poolConfig: PoolConfig & { readonly database: string };
  readonly migrationsFolder: string;
  /** Path of the package's .gmrc. */
  readonly configFile: string;
}

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
  | { readonly type: 'migration-start'; readonly filename: string }
  | { readonly type: 'migration-end'; readonly filename: string; readonly durationMs: number }
  | { readonly type: 'done' }
  | {
      readonly type: 'failed';
      readonly error: SerializedError;
      /** The migration that was running, if one was. */
      readonly filename: string | null;
      /** Number of the statement at which the server stopped, from 1; null when it was not one of the migration's. */
      readonly statement: number | null;
    };
