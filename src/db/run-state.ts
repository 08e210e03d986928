import type { ConnectionSettings, MigrationSettings } from '../settings/settings.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import type { MigrationEvent } from './events.ts';
import type { Session } from './session.ts';
import type { Survey } from './survey.ts';

/** What a run goes by, resolved before it begins. */
export interface RunInput {
  readonly connection: ConnectionSettings;
  readonly settings: MigrationSettings;
  readonly committed: readonly CommittedMigration[];
  readonly migrationsFolder: string;
  readonly configFile: string;
  readonly comparesSchema: boolean;
  readonly signal: AbortSignal;
  readonly emit: (event: MigrationEvent) => void;
}

/** A run under way, and what it has done over all its attempts. */
export interface Run extends RunInput {
  /** Milliseconds of each migration that this run applied, by file name. */
  readonly durations: Map<string, number>;
  waitedForLockMs: number;
  attempts: number;
  planTold: boolean;
}

/** A database that lacks migrations, on the session that looked at it. */
export interface Surveyed {
  readonly run: Run;
  readonly session: Session;
  readonly found: Survey;
  readonly pending: readonly CommittedMigration[];
}

/** Names of the files that a run has applied. */
export function appliedBy({ durations }: Run): readonly string[] {
  return [...durations.keys()];
}
