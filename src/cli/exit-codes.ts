import type { SchemaCheck } from '../catalog/drift.ts';
import type { FilestoreErrorCode } from '../errors.ts';
import type { MigrationState } from '../migrate/plan.ts';

/** Exit codes of the process, by error code. */
export const EXIT_CODES: Readonly<Record<FilestoreErrorCode, number>> = {
  SETTINGS_INVALID: 2,
  CONNECTION_FAILED: 1,
  CONNECTION_LOST: 1,
  POOLER_IN_BETWEEN: 2,
  DATABASE_READ_ONLY: 1,
  TRIGGERS_DISABLED: 1,
  OWNER_NOT_TRUSTED: 1,
  MIGRATIONS_MISSING: 1,
  MIGRATION_EDITED: 4,
  MIGRATION_CRLF: 4,
  MIGRATION_MALFORMED: 4,
  MIGRATION_NUMBER_TAKEN: 4,
  MIGRATION_FILE_MISSING: 4,
  MIGRATION_OUT_OF_CHAIN: 4,
  HISTORY_REWRITTEN: 4,
  HISTORY_RENUMBERED: 4,
  HISTORY_ROW_MISSING: 4,
  HISTORY_ROW_UNKNOWN: 4,
  HISTORY_FOREIGN: 4,
  HISTORY_UNREADABLE: 1,
  DATABASE_AHEAD: 4,
  SCHEMA_CONFLICT: 4,
  SCHEMA_DRIFTED: 4,
  SCHEMA_MODEL_INVALID: 1,
  LOCK_NOT_ACQUIRED: 5,
  MIGRATION_CHECK_FAILED: 1,
  MIGRATION_FAILED: 1,
  RUN_ABORTED: 1,
  NOT_MIGRATED: 3,
  MOVE_FAILED: 1,
  TEST_DATABASE_FAILED: 1,
  TRANSACTION_ROLLED_BACK: 1,
  TRANSACTION_ENDED: 1,
  EMBEDDED_POSTGRES_FAILED: 1,
  SCHEMA_CHANGE_REFUSED: 1,
};

/**
 * Of several exit codes the first in this order counts: the less a later run can fix on its own, the worse.
 */
const WORST_FIRST = [4, 2, 1, 5, 3, 0];

export const DONE = 0;
export const FAILED = 1;
export const WRONG_USAGE = 2;
export const PENDING = 3;
export const DIVERGED = 4;

export function exitCodeOf(code: FilestoreErrorCode): number {
  return EXIT_CODES[code];
}

/** The exit code of `status`. */
export function exitCodeOfState(state: MigrationState, allowAhead: boolean): number {
  if (state === 'current' || (state === 'ahead' && allowAhead)) return DONE;
  return state === 'empty' || state === 'pending' ? PENDING : DIVERGED;
}

/** The exit code of `verify`. */
export function exitCodeOfCheck(state: SchemaCheck['state']): number {
  return { same: DONE, drifted: DIVERGED, unchecked: FAILED }[state];
}

/** The worst of several exit codes. */
export function worstOf(exitCodes: readonly number[]): number {
  return WORST_FIRST.find((code) => exitCodes.includes(code)) ?? DONE;
}
