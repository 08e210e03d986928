export type { SchemaCheck } from './catalog/drift.ts';
export {
  closePool,
  getClient,
  getPool,
  POSTGRES_SCHEMA,
  withConnection,
} from './db/client.ts';
export {
  assertMigrated,
  migrationStatus,
  pendingMigrations,
  runMigrations,
  verifySchema,
} from './db/migrations.ts';
export type { ErrorDescription, RecordedError } from './db/recorded-error.ts';
export {
  type Command,
  type CommandOptions,
  type CommandOutcome,
  type CommandResult,
  runCommand,
  type StoredResult,
} from './db/run-command.ts';
export { type TransactionOptions, withSavepoint, withTransaction } from './db/transactions.ts';
export {
  ConnectionLostError,
  DatabaseAheadError,
  type FailedCheck,
  FilestoreError,
  type FilestoreErrorCode,
  type HistoryDivergedCode,
  HistoryDivergedError,
  type HistoryProblem,
  type LockHolder,
  LockNotAcquiredError,
  MigrationCheckFailedError,
  MigrationFailedError,
  type MigrationFailurePlace,
  type MigrationsInvalidCode,
  MigrationsInvalidError,
  NotMigratedError,
  RunAbortedError,
  SchemaConflictError,
  SchemaDriftedError,
  type ServerProcess,
  SettingsError,
} from './errors.ts';
export type { EvaluatedCheck, PendingMigration } from './migrate/evaluate-data-checks.ts';
export {
  describeEvent,
  type IndexBuild,
  type MigrationEvent,
  type MigrationSpan,
  type MigrationSpanError,
} from './migrate/events.ts';
export type {
  FleetEntry,
  FleetEvent,
  FleetFailure,
  FleetMigration,
  FleetOmission,
  FleetReport,
  FleetResult,
  FleetStatus,
  FleetVerification,
} from './migrate/fleet.ts';
export {
  type FleetOptions,
  fleetStatus,
  type MigrateFleetOptions,
  migrateFleet,
  verifyFleet,
} from './migrate/fleet.ts';
export type { LockTimeouts } from './migrate/lock-timeouts.ts';
export type { AppliedMigration, MigrationState } from './migrate/plan.ts';
export type {
  MigrationLogger,
  MigrationOptions,
  MigrationReport,
  RunMigrationsOptions,
} from './migrate/run-state.ts';
export type { MigrationStatus, Migrator } from './migrate/survey.ts';
export { type DatabaseOptions, poolConfig } from './settings/database.ts';
export type { DatabaseUrl, TlsSettings } from './settings/database-url.ts';
export { readFleet } from './settings/fleet-file.ts';
export type { FleetDatabase } from './settings/fleet-members.ts';
export {
  type ConnectionSettings,
  type Environment,
  type MigrationSettings,
  migrationConnection,
  migrationSettings,
  type PoolSettings,
  poolSettings,
  serviceConnection,
} from './settings/settings.ts';
