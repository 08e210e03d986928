import type { MigrationEvent, MigrationReport, RunMigrationsOptions } from '../../../src/index.ts';

/** Messages to a host process. */
export type HostCommand =
  | {
      readonly type: 'run';
      readonly run: number;
      /** The folder of the package whose runMigrations is called. */
      readonly folder: string;
      readonly env: Readonly<Record<string, string>>;
      readonly settings: NonNullable<RunMigrationsOptions['settings']>;
    }
  | { readonly type: 'abort'; readonly run: number }
  /** Close everything, and end when nothing is pending. */
  | { readonly type: 'end' };

/** Messages from a host process. */
export type HostMessage =
  | { readonly type: 'event'; readonly run: number; readonly event: MigrationEvent }
  | { readonly type: 'outcome'; readonly run: number; readonly outcome: HostOutcome }
  /** An event that would have ended the process: an uncaught error, an unhandled rejection, process.exit. */
  | { readonly type: 'fault'; readonly description: string };

/** How a run ended, in a form that can be sent between processes. */
export type HostOutcome =
  | { readonly ok: true; readonly report: MigrationReport }
  | { readonly ok: false; readonly error: HostError };

export interface HostError {
  readonly isFilestoreError: boolean;
  readonly name: string;
  readonly code: string | null;
  readonly message: string;
  readonly applied: readonly string[] | null;
  /** SQLSTATE of a migration that failed. */
  readonly sqlState: string | null;
  /** Null when the error names none. */
  readonly cause: { readonly name: string; readonly code: string | null; readonly message: string } | null;
}
