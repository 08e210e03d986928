import { FilestoreError, MigrationFailedError, sqlStateOf } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { PassingFailure } from '../session/connection-error.ts';
import type { Session } from '../session/session.ts';
import type { Database } from '../settings/database.ts';
import type { MigrationSettings } from '../settings/settings.ts';
import type { MigrationEvent, MigrationSpan, MigrationSpanError } from './events.ts';
import { LockWaits } from './lock-timeouts.ts';
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

/** A run that has begun. */
export interface RunUnderWay extends Run {
  readonly spans: Spans;
}

/** The progress of a run, over all its attempts. */
export class Progress {
  /** Milliseconds of each migration that this run applied, by file name. */
  readonly durations = new Map<string, number>();
  /** Milliseconds spent waiting for other migrators. */
  waitedForLockMs = 0;
  readonly lockWaits = new LockWaits();
  attempts = 0;
  /** Server processes of the run's sessions. */
  readonly pids = new Set<number>();
  planTold = false;
  /** Null until the server has answered. */
  serverVersion: string | null = null;

  /** Names of the files that this run applied. */
  get applied(): readonly string[] {
    return [...this.durations.keys()];
  }
}

/** The pending migrations of a database, and the session that read it. */
export interface Surveyed {
  readonly run: RunUnderWay;
  readonly session: Session;
  readonly found: Survey;
  readonly pending: readonly CommittedMigration[];
}

type Part = Pick<MigrationSpan, 'name' | 'filename'>;

/**
 * Sends the spans of a run, which begins when this object is created. Its parts run one after the other. All times are
 * from `performance.now()`, with one origin, so that spans nest even if the clock is set.
 */
export class Spans {
  readonly #epochMs = Date.now() - performance.now();
  readonly #runStartedAt = performance.now();
  #part: (Part & { readonly startedAt: number }) | undefined;

  constructor(private readonly run: Run) {}

  begin(name: MigrationSpan['name'], filename: string | null = null): void {
    this.#part = { name, filename, startedAt: performance.now() };
  }

  /** Ends the current part, if there is one. `error`: why it failed. */
  end(error?: unknown): void {
    if (this.#part === undefined) return;
    const { startedAt, ...part } = this.#part;
    this.#part = undefined;
    this.#send(part, startedAt, performance.now() - startedAt, error);
  }

  /** Sends the span of a migration that is not the current part. Times are from `performance.now()`. */
  endMigration(filename: string, startedAt: number, durationMs: number): void {
    if (this.#part?.filename === filename) this.#part = undefined;
    this.#send({ name: 'migration', filename }, startedAt, durationMs);
  }

  endRun(error?: unknown): void {
    const durationMs = performance.now() - this.#runStartedAt;
    this.#send({ name: 'run', filename: null }, this.#runStartedAt, durationMs, error);
  }

  #send(part: Part, startedAt: number, durationMs: number, error?: unknown): void {
    const { emit, database, progress } = this.run;
    emit({
      type: 'span',
      ...part,
      startedAtMs: this.#epochMs + startedAt,
      durationMs,
      attempt: progress.attempts,
      database: database.config.database,
      serverVersion: progress.serverVersion,
      error: error === undefined ? null : spanErrorOf(error),
    });
  }
}

function spanErrorOf(thrown: unknown): MigrationSpanError {
  const error = thrown instanceof PassingFailure ? thrown.error : thrown;
  const cause = error instanceof FilestoreError ? error.cause : error;
  return {
    code: error instanceof FilestoreError ? error.code : 'UNEXPECTED',
    sqlState: error instanceof MigrationFailedError ? error.sqlState : sqlStateOf(cause),
  };
}
