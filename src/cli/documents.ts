import type { SchemaCheck } from '../catalog/drift.ts';
import type { FilestoreErrorCode } from '../errors.ts';
import type { PendingMigration } from '../migrate/data-checks.ts';
import type { MigrationReport } from '../migrate/run-state.ts';
import type { MigrationStatus } from '../migrate/survey.ts';
