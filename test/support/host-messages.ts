import type { MigrationEvent, MigrationReport, RunMigrationsOptions } from '../../src/index.ts';

/** What a host process is told. */
export type HostCommand =
  | {
      readonly type: 'run';
      readonly run: number;
      /** Of the package whose runMigrations is called. */
      readonly folder: string;
      readonly env: Readonly<Record<string, string>>;
      readonly settings: NonNullable<RunMigrationsOptions['settings']>;
    }
  | { readonly type: 'abort'; readonly run: number }
  /** Let go of everything, and end when nothing is left to wait for. */
  | { readonly type: 'end' };

/** What a host process tells. */
export type HostMessage =
  | { readonly type: 'event'; readonly run: number; readonly event: MigrationEvent }
  | { readonly type: 'outcome'; readonly run: number; readonly outcome: HostOutcome }
  /** Something that would have ended the process: an uncaught error, an unhandled rejection, process.exit. */
  | { readonly type: 'fault'; readonly description: string };

/** How a run ended, as it survives the way between processes. */
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
