import type { ConnectionSettings, MigrationSettings } from '../settings/settings.ts';
import type { Applier } from './applier.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import type { MigrationEvent } from './events.ts';
import type { Preflight } from './preflight.ts';
import type { Session } from './session.ts';

/** The input of a run. */
export interface Run {
  readonly connection: ConnectionSettings;
  readonly settings: MigrationSettings;
  readonly committed: readonly CommittedMigration[];
  readonly migrationsFolder: string;
  readonly configFile: string;
  readonly verifySchema: boolean;
  readonly signal: AbortSignal;
  readonly emit: (event: MigrationEvent) => void;
}

/** What a run has done so far, over all its attempts. */
export interface Progress {
  /** Milliseconds of each migration that this run applied, by file name. */
  readonly durations: Map<string, number>;
  waitedForLockMs: number;
  attempts: number;
  planTold: boolean;
}

/** The pending migrations, and what applying them needs. */
export interface Application {
  readonly run: Run;
  readonly progress: Progress;
  /** The session that has the lock. */
  readonly session: Session;
  readonly applier: Applier;
  readonly preflight: Preflight;
  readonly pending: readonly CommittedMigration[];
}
