import type { SchemaCheck } from '../catalog/drift.ts';
import type { FilestoreErrorCode } from '../errors.ts';
import type { PendingMigration } from '../migrate/evaluate-data-checks.ts';
import type { MigrationReport } from '../migrate/run-state.ts';
import type { MigrationStatus } from '../migrate/survey.ts';
import type { ReadinessReport } from '../move/check-readiness.ts';
import type { MoveReport } from '../move/move-mount.ts';
import type { TakeBackReport } from '../move/take-back.ts';

// The documents of `--json`. A command always prints exactly one on stdout. `ok` is false if the command
// failed (`error` says why) or if `verify` found or could not exclude a difference. If a database is used,
// `variable` is the environment variable with its URL, null for the embedded one. Times are in ISO 8601,
// durations in milliseconds. `--events` prints the same document on one line, with `type: "result"` and the
// time (`atMs`).

/** `migrate`: the result of the run. */
export type MigrateDocument = {
  readonly ok: true;
  readonly command: 'migrate';
  readonly report: MigrationReport;
};

/** `migrate --dry-run`: the pending migrations with their SQL. `error` says which checks failed. */
export type DryRunDocument = {
  readonly command: 'migrate';
  readonly dryRun: true;
  readonly pending: readonly PendingMigration[];
} & ({ readonly ok: true } | Pick<FailureDocument, 'ok' | 'error'>);

/** `migrate --allow-ahead`, with or without `--dry-run`, if a later version has migrated the database. */
export type AheadDocument = {
  readonly ok: true;
  readonly command: 'migrate';
  /** Names of the recorded migrations that are not among the files. */
  readonly ahead: readonly string[];
};

/** `status`: `ok` for every `state`; the exit code shows the state too. */
export type StatusDocument = {
  readonly ok: true;
  readonly command: 'status';
  readonly database: string;
} & MigrationStatus;

/** `verify`: `ok` only if `state` is `same`. */
export type VerifyDocument = {
  readonly ok: boolean;
  readonly command: 'verify';
  readonly database: string;
} & SchemaCheck;

/** `move`, and `move --back`. */
export type MoveDocument = { readonly ok: true; readonly command: 'move' } & (MoveReport | TakeBackReport);

/** `move --dry-run`: `ok` only if each check is. */
export type ReadinessDocument = {
  readonly ok: boolean;
  readonly command: 'move';
  readonly dryRun: true;
  readonly error?: FailureDocument['error'];
} & ReadinessReport;

/** A command with `--databases`: `ok` only if it is `ok` for each database. */
export type FleetDocument = {
  readonly ok: boolean;
  readonly command: 'migrate' | 'status' | 'verify';
  readonly databases: readonly FleetEntryDocument[];
  readonly durationMs: number;
};

/** One database: also with the fields of the single command's report, or with `error`, or with neither. */
export type FleetEntryDocument = {
  readonly name: string;
  readonly state: string;
  /** Name of another entry that is the same database, or null. */
  readonly sameAs: string | null;
  readonly durationMs?: number;
  readonly error?: FailureDocument['error'];
};

/** A failure of any command. */
export type FailureDocument = {
  readonly ok: false;
  /** Null if the command line was wrong. */
  readonly command: string | null;
  readonly error: {
    /** `UNEXPECTED` is a bug of this package. */
    readonly code: FilestoreErrorCode | 'WRONG_USAGE' | 'UNEXPECTED';
    readonly message: string;
    /** Other fields of the error, such as `applied`, `place`, `problems`, `differences`, `holder`. */
    readonly [field: string]: unknown;
  };
};
