export type { DatabaseUrl, TlsSettings } from './database-url.ts';
export {
  closePool,
  getClient,
  getPool,
  POSTGRES_SCHEMA,
  withConnection,
  withTransaction,
} from './db/client.ts';
export type { AppliedMigration } from './db/history.ts';
export {
  type MigrationEvent,
  type MigrationOptions,
  type MigrationReport,
  type MigrationStatus,
  migrationStatus,
  type RunMigrationsOptions,
  runMigrations,
} from './db/migrations.ts';
export {
  CheckFailedError,
  ConnectionError,
  DatabaseAheadError,
  EmbeddedPostgresError,
  FilestoreError,
  type FilestoreErrorCode,
  HistoryDivergedError,
  LockNotAcquiredError,
  MigrationFailedError,
  type MigrationFailurePlace,
  MigrationsInvalidError,
  MigrationsMissingError,
  SettingsError,
} from './errors.ts';
export {
  type ConnectionSettings,
  type Environment,
  migrationConnection,
  type PoolSettings,
  poolConfig,
  poolSettings,
  serviceConnection,
} from './settings.ts';
