import { refuseMissingFile } from '../catalog/committed-model.ts';
import type { SchemaCheck } from '../catalog/drift.ts';
import { sqlStateOf } from '../cause-codes.ts';
import { FilestoreError, MigrationFailedError } from '../errors.ts';
import { type CommittedMigration, readCommittedMigrations } from '../graphile/committed-migrations.ts';
import { CONFIG_FILE, MIGRATIONS_FOLDER } from '../package-root.ts';
import { TemporaryFailure } from '../session/connection-error.ts';
import { type Database, type DatabaseOptions, resolveDatabase } from '../settings/database.ts';
import { type MigrationSettings, migrationSettings } from '../settings/settings.ts';
import { messageOfError } from '../text.ts';
import { describeEvent, type MigrationEvent, type MigrationSpan, type MigrationSpanError } from './events.ts';
import { type LockTimeouts, LockWaits } from './lock-timeouts.ts';

/** Which database: see {@link DatabaseOptions}. */
export type MigrationOptions = DatabaseOptions;

export interface RunMigrationsOptions extends MigrationOptions {
  /** Overrides single settings of the environment ({@link migrationSettings}). */
  readonly settings?: Partial<MigrationSettings>;
  /**
   * Stops the run. Committed migrations stay, the current one is rolled back (unless it runs without a
   * transaction), and the lock is released.
   */
  readonly signal?: AbortSignal;
  /** Called with each event as it happens, including the spans of a trace (`MigrationSpan`). */
  readonly onEvent?: (event: MigrationEvent) => void;
  /** Gets a line of text for each event, except for spans. */
  readonly logger?: MigrationLogger;
  /**
   * Compare the schema with the package's model after applying. Default: true. If false, a missing file of
   * the last migration is not noticed either, because only the model shows it.
   */
  readonly compareSchema?: boolean;
}

/** Where a run logs, such as `console`. */
export interface MigrationLogger {
  info(line: string): void;
  warn(line: string): void;
}

/** The result of a run. */
export interface MigrationReport {
  /** The migrations this run applied, in order. */
  readonly applied: readonly {
    readonly filename: string;
    readonly message: string | null;
    readonly hash: string;
    readonly durationMs: number;
  }[];
  /** Number of migrations that were applied earlier. */
  readonly alreadyApplied: number;
  readonly database: string;
  readonly serverVersion: string;
  /** Milliseconds spent waiting for other migrators. */
  readonly waitedForLockMs: number;
  /** 1 plus the number of retries after temporary failures. */
  readonly attempts: number;
  /** All 0 if no wait for a table's lock timed out. */
  readonly lockTimeouts: LockTimeouts;
  /** Whether the schema matches its model; compared only if something was applied. */
  readonly schema: SchemaCheck;
  readonly durationMs: number;
}

/** A run: what it works with, and its progress over all attempts. */
export interface Run {
  readonly database: Database;
  readonly settings: MigrationSettings;
  readonly committed: readonly CommittedMigration[];
  readonly migrationsFolder: string;
  readonly configFile: string;
  readonly compareSchema: boolean;
  /** Whether to stop after the data checks, without the lock. */
  readonly dryRun: boolean;
  readonly signal: AbortSignal;
  readonly emit: (event: MigrationEvent) => void;
  /** Called with the identity of the database, once the server has answered. */
  readonly onIdentity: ((identity: string) => void) | undefined;
  readonly progress: Progress;
  readonly spans: Spans;
}

/** What the caller of a run in this package has resolved already. */
type Resolved = Partial<
  Pick<Run, 'database' | 'committed' | 'migrationsFolder' | 'configFile' | 'dryRun' | 'onIdentity'>
>;

/** Resolves the options of a run, and begins it. */
export async function openRun(options: RunMigrationsOptions, resolved: Resolved = {}): Promise<Run> {
  const emit = (event: MigrationEvent) => tell(event, options);
  const committed = resolved.committed ?? (await readPackagedMigrations(options));
  const database = resolved.database ?? resolveDatabase(options);
  const progress = new Progress();
  return {
    dryRun: false,
    migrationsFolder: MIGRATIONS_FOLDER,
    configFile: CONFIG_FILE,
    onIdentity: undefined,
    ...resolved,
    database,
    settings: migrationSettings(options.env, options.settings),
    committed,
    compareSchema: options.compareSchema ?? true,
    signal: options.signal ?? new AbortController().signal,
    emit,
    progress,
    spans: new Spans({ database, emit, progress }),
  };
}

/** Reads the migrations of the package. Without `compareSchema`, a missing last file is not noticed. */
export async function readPackagedMigrations(
  options: Pick<RunMigrationsOptions, 'compareSchema'> = {},
): Promise<readonly CommittedMigration[]> {
  const committed = await readCommittedMigrations(MIGRATIONS_FOLDER);
  if (options.compareSchema ?? true) await refuseMissingFile(committed);
  return committed;
}

function tell(event: MigrationEvent, { onEvent, logger }: RunMigrationsOptions): void {
  const isWarning = event.type === 'warning' || event.type === 'retry';
  callListener(() => onEvent?.(event));
  if (event.type !== 'span') callListener(() => logger?.[isWarning ? 'warn' : 'info'](describeEvent(event)));
}

/** A listener that throws or rejects must not stop the run or the process. */
export function callListener(listener: () => unknown): void {
  new Promise((resolve) => resolve(listener())).catch((error: unknown) =>
    process.emitWarning(error instanceof Error ? error : messageOfError(error)),
  );
}

/** The progress of a run, over all its attempts. */
export class Progress {
  readonly startedAt = performance.now();
  /** Milliseconds of each migration that this run applied, by file name. */
  readonly durations = new Map<string, number>();
  /** Milliseconds spent waiting for other migrators. */
  waitedForLockMs = 0;
  readonly lockWaits = new LockWaits();
  attempts = 0;
  /** Server processes of the run's sessions. */
  readonly pids = new Set<number>();
  planTold = false;
  /** Empty until the server has answered. */
  serverVersion = '';

  /** Names of the files that this run applied. */
  get applied(): readonly string[] {
    return [...this.durations.keys()];
  }

  /** The same in a sentence for messages. */
  get appliedAndKept(): string {
    const { applied } = this;
    return `Applied and kept: ${applied.length === 0 ? 'nothing' : applied.join(', ')}.`;
  }
}

export function reportOf({ committed, database, progress }: Run, schema: SchemaCheck): MigrationReport {
  const { durations, serverVersion, waitedForLockMs, attempts, lockWaits, startedAt } = progress;
  return {
    applied: committed.flatMap(({ filename, message, hash }) => {
      const durationMs = durations.get(filename);
      return durationMs === undefined ? [] : [{ filename, message, hash, durationMs }];
    }),
    alreadyApplied: committed.length - durations.size,
    database: database.config.database,
    serverVersion,
    waitedForLockMs,
    attempts,
    lockTimeouts: lockWaits.timeouts,
    schema,
    durationMs: performance.now() - startedAt,
  };
}

type Step = Pick<MigrationSpan, 'name' | 'filename'> & { readonly startedAt: number };

/**
 * Sends the spans of a run, which begins when this object is created. Its steps are taken one after the other. All
 * times are from `performance.now()`, with one origin, so that spans nest even if the clock is set.
 */
export class Spans {
  readonly #epochMs = Date.now() - performance.now();
  #step: Step | undefined;

  constructor(private readonly run: Pick<Run, 'database' | 'emit' | 'progress'>) {}

  begin(name: MigrationSpan['name'], filename: string | null = null): void {
    this.#step = { name, filename, startedAt: performance.now() };
  }

  /** Ends the current step, if there is one. `error`: why it failed. */
  end(error?: unknown): void {
    const step = this.#step;
    this.#step = undefined;
    if (step !== undefined) this.#send(step, error);
  }

  /** Measures a step. If it fails, the attempt ends it, with the error that callers get. */
  async measure<T>(name: MigrationSpan['name'], work: () => Promise<T>): Promise<T> {
    this.begin(name);
    const result = await work();
    this.end();
    return result;
  }

  endRun(error?: unknown): void {
    this.#send({ name: 'run', filename: null, startedAt: this.run.progress.startedAt }, error);
  }

  #send({ startedAt, ...step }: Step, error: unknown): void {
    const { database, emit, progress } = this.run;
    emit({
      type: 'span',
      ...step,
      startedAtMs: this.#epochMs + startedAt,
      durationMs: performance.now() - startedAt,
      attempt: progress.attempts,
      database: database.config.database,
      serverVersion: progress.serverVersion || null,
      error: error === undefined ? null : spanErrorOf(error),
    });
  }
}

function spanErrorOf(thrown: unknown): MigrationSpanError {
  const error = thrown instanceof TemporaryFailure ? thrown.error : thrown;
  const cause = error instanceof FilestoreError ? error.cause : error;
  return {
    code: error instanceof FilestoreError ? error.code : 'UNEXPECTED',
    sqlState: error instanceof MigrationFailedError ? error.sqlState : sqlStateOf(cause),
  };
}
