import type { ClientConfig } from 'pg';
import type { SerializedError } from '../../src/db/graphile/messages.ts';
import type { DatabaseKind } from './databases.ts';

/** What the thread is started with. */
export interface WorkflowInput {
  /** Connections in pg's form, passwords included. */
  readonly connections: Readonly<Record<DatabaseKind, ClientConfig & { readonly database: string }>>;
  /** Role that owns a database made anew. */
  readonly owner: string;
  /** Path of the package's .gmrc. */
  readonly configFile: string;
  /** Server settings of the sessions, by name; times in milliseconds. */
  readonly serverSettings: Readonly<Record<string, string>>;
}

/** What graphile-migrate is asked to do, one thing after the other, on the migrations of a folder. */
export type WorkflowCommand = { readonly migrationsFolder: string } & (
  | { readonly type: 'apply' }
  /** The committed migrations alone, without current.sql. */
  | { readonly type: 'migrate' }
  | { readonly type: 'commit'; readonly message: string }
  | { readonly type: 'uncommit' }
  | { readonly type: 'reset' }
);

/** What was being run: a committed migration by its file, or current.sql. */
export interface WorkflowTarget {
  /** Null for current.sql. */
  readonly committed: string | null;
  readonly database: 'main' | 'shadow';
}

/** The text that the server was at when it failed. */
export interface FailedText {
  readonly text: string;
  /** Number of the statement in it, from 1. */
  readonly statement: number;
}

export interface WorkflowFailure {
  readonly type: 'failed';
  readonly error: SerializedError;
  /** Null when the failure came before anything was run. */
  readonly target: WorkflowTarget | null;
  /** Null when the failure is not of a statement of the migration. */
  readonly failed: FailedText | null;
}

export type WorkflowMessage =
  | { readonly type: 'connected'; readonly database: DatabaseKind; readonly pid: number }
  | { readonly type: 'disconnected'; readonly database: DatabaseKind; readonly pid: number }
  /** A connection broke; why the command then fails, or the thread ends. */
  | { readonly type: 'lost'; readonly error: SerializedError }
  | { readonly type: 'running'; readonly target: WorkflowTarget }
  /** `unchanged`: current.sql was the same as at its last run, but for comments, and was passed over. */
  | { readonly type: 'done'; readonly unchanged: boolean }
  | WorkflowFailure;
