import type { Database } from '../settings/database.ts';
import type { MigrationSettings } from '../settings/settings.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import type { MigrationEvent } from './events.ts';
import { LockWaits } from './lock-waits.ts';
import type { Session } from './session.ts';
import type { Survey } from './survey.ts';

/** A run: its input, resolved before it begins, and its progress. */
export interface Run {
  readonly database: Database;
  readonly settings: MigrationSettings;
  readonly committed: readonly CommittedMigration[];
  readonly migrationsFolder: string;
  readonly configFile: string;
  readonly compareSchema: boolean;
  readonly signal: AbortSignal;
  readonly emit: (event: MigrationEvent) => void;
  /** Called with what each survey found. */
  readonly onSurvey?: (found: Survey) => void;
  readonly progress: Progress;
}

/** What a run has done so far, over all its attempts. */
export class Progress {
  /** Milliseconds of each migration that this run applied, by file name. */
  readonly durations = new Map<string, number>();
  /** Milliseconds spent waiting for other migrators. */
  waitedForLockMs = 0;
  readonly lockWaits = new LockWaits();
  attempts = 0;
  planTold = false;

  /** Names of the files that this run applied. */
  get applied(): readonly string[] {
    return [...this.durations.keys()];
  }
}

/** The pending migrations of a database, and the session that read it. */
export interface Surveyed {
  readonly run: Run;
  readonly session: Session;
  readonly found: Survey;
  readonly pending: readonly CommittedMigration[];
}
