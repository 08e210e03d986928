import type { SchemaCheck } from '../catalog/drift.ts';
import type { MigrationReport, MigrationStatus } from '../db/migrations.ts';
import type { FilestoreErrorCode } from '../errors.ts';
import type { MigrationEvent } from './events.ts';

/** What happens to a database of a fleet. */
export type FleetEvent<Found> =
  | { readonly type: 'start'; readonly name: string }
  /** An event of its run. */
  | { readonly type: 'run'; readonly name: string; readonly event: MigrationEvent }
  | { readonly type: 'end'; readonly name: string; readonly result: FleetResult<Found> };

/** A migrated database: `current` if nothing was pending, `ahead` as `allowAhead` has it. */
export type FleetMigration =
  | ({ readonly state: 'migrated' | 'current' } & MigrationReport)
  | { readonly state: 'ahead'; readonly ahead: readonly string[]; readonly durationMs: number };
/** The history of a database. */
export type FleetStatus = MigrationStatus & { readonly durationMs: number };
/** The comparison of a database's schema with its model. */
export type FleetVerification = SchemaCheck & { readonly durationMs: number };

/** A database that could not be migrated or read. */
export interface FleetFailure {
  readonly state: 'failed';
  /** `UNEXPECTED` is a bug of this package. */
  readonly code: FilestoreErrorCode | 'UNEXPECTED';
  /** A {@link FilestoreError}, unless `code` is `UNEXPECTED`. */
  readonly error: Error;
  readonly durationMs: number;
}

/** A database that was left alone: `duplicate` has the settings of another one, `not started` is after a stop. */
export interface FleetOmission {
  readonly state: 'duplicate' | 'not started';
}

/** What became of one database. `state` tells the forms apart. */
export type FleetResult<Found> = Found | FleetFailure | FleetOmission;

/** The same with its name. */
export type FleetEntry<Found> = {
  readonly name: string;
  /**
   * Name of an earlier one in the list that is the same database, by its settings or by what the server says. Null:
   * none is known.
   */
  readonly sameAs: string | null;
} & FleetResult<Found>;

/** Answers a question about a result by its form. */
export function matchResult<Found, Answer>(
  result: FleetResult<Found>,
  answers: {
    found(result: Found): Answer;
    failed(result: FleetFailure): Answer;
    omitted(result: FleetOmission): Answer;
  },
): Answer {
  // The states of what was found are none of these.
  const { state } = result as { readonly state: string };
  if (state === 'failed') return answers.failed(result as FleetFailure);
  if (state === 'duplicate' || state === 'not started') return answers.omitted(result as FleetOmission);
  return answers.found(result as Found);
}

export interface FleetReport<Found> {
  /** One for each database, in the order of the list. */
  readonly databases: readonly FleetEntry<Found>[];
  readonly durationMs: number;
}
