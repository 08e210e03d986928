import { readCommittedModel, refuseMissingFile } from '../catalog/committed-model.ts';
import type { SchemaCheck } from '../catalog/drift.ts';
import { NotMigratedError } from '../errors.ts';
import { type CommittedMigration, readCommittedMigrations } from '../graphile/committed-migrations.ts';
import type { PendingMigration } from '../migrate/data-checks.ts';
import { describeEvent, type MigrationEvent } from '../migrate/events.ts';
import type { LockTimeouts } from '../migrate/lock-timeouts.ts';
import {
  type AppliedMigration,
  type MigrationState,
  pendingIn,
  problemsOf,
  refuseDiverged,
  whyNotComparable,
} from '../migrate/plan.ts';
import { run } from '../migrate/run.ts';
import { Progress, type Run } from '../migrate/run-state.ts';
import { type Migrator, type Survey, survey } from '../migrate/survey.ts';
import { CONFIG_FILE, MIGRATIONS_FOLDER } from '../package-root.ts';
import { type Session, withSession } from '../session/session.ts';
import { type Database, type DatabaseOptions, resolveDatabase } from '../settings/database.ts';
import { type MigrationSettings, migrationSettings } from '../settings/settings.ts';
import { capitalized, count } from '../text.ts';

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
  /** Waits for a table's lock that timed out; other sessions may have waited behind them. All 0 if there were none. */
  readonly lockTimeouts: LockTimeouts;
  /** Whether the schema matches its model; compared only if something was applied. */
  readonly schema: SchemaCheck;
  readonly durationMs: number;
}

/** How the history of a database compares with the migrations of this package. */
export interface MigrationStatus {
  readonly state: MigrationState;
  readonly applied: readonly AppliedMigration[];
  /** Names of the files that a run would apply. Empty if `ahead` or `diverged`, which a run refuses. */
  readonly pending: readonly string[];
  /** One line for each problem, with its remedy. Empty unless `ahead` or `diverged`. */
  readonly problems: readonly string[];
  readonly serverVersion: string;
  /** True on a hot standby, which gets its migrations by replication. */
  readonly standby: boolean;
  /** The present holders of the locks of migrations. */
  readonly migrators: readonly Migrator[];
}

/**
 * Applies the committed migrations that the database does not have yet, each in a separate transaction. If several
 * runs start at once, one migrates and the others wait. Safe to run at every deploy: without pending migrations, it
 * takes one connection and one message.
 * @example
 * const report = await runMigrations({ connectionString, logger: console });
 * console.log(report.applied.map(({ filename }) => filename), report.alreadyApplied);
 * @throws {FilestoreError} docs/operations.md has each `code` with its remedy. Migrations that the run applied
 * before stay: {@link MigrationFailedError}, {@link SchemaDriftedError}, {@link LockNotAcquiredError},
 * {@link ConnectionLostError} and {@link RunAbortedError} list them as `applied`.
 */
export async function runMigrations(options: RunMigrationsOptions = {}): Promise<MigrationReport> {
  const startedAt = performance.now();
  const database = resolveDatabase(options);
  const settings = { ...migrationSettings(options.env), ...options.settings };
  const prepared = await prepareRun(database, settings, options);
  return migrate(prepared, startedAt);
}

/**
 * Carries a run out.
 * @param startedAt By `performance.now()`, for the report.
 */
export async function migrate(prepared: Run, startedAt: number): Promise<MigrationReport> {
  const { progress, serverVersion, schema } = await run(prepared);
  const { database, committed } = prepared;
  const { durations, waitedForLockMs, attempts, lockWaits } = progress;
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

/**
 * Compares the history of a database with the migrations of this package. Reads only: works on a hot standby, and for
 * a role that can only read the history (`grant usage on schema graphile_migrate`, `grant select on
 * graphile_migrate.migrations`).
 * @example
 * const { state, pending } = await migrationStatus({ connectionString });
 * if (state === 'pending') console.log(`To apply: ${pending.join(', ')}`);
 * @throws {FilestoreError} as {@link runMigrations} does for the settings, the connection, the migration files, and a
 * history that the role may not read.
 */
export async function migrationStatus(options: MigrationOptions = {}): Promise<MigrationStatus> {
  return statusOf(await surveyOnce(options));
}

/** The status that a survey shows. */
export function statusOf({ plan, applied, serverVersion, standby, migrators }: Survey): MigrationStatus {
  return {
    state: plan.state,
    applied,
    pending:
      plan.state === 'empty' || plan.state === 'pending' ? plan.pending.map(({ filename }) => filename) : [],
    problems: problemsOf(plan),
    serverVersion,
    standby,
    migrators,
  };
}

/**
 * Returns the migrations that {@link runMigrations} would apply, with SQL and the results of their checks. Reads only.
 * Throws as a run would after reading the package, the history, and tables without a history. A run also throws if a
 * check `failed`.
 * @example
 * for (const { filename, sql, checks } of await pendingMigrations({ connectionString })) {
 *   console.log(filename, sql, checks.filter(({ state }) => state === 'failed'));
 * }
 */
export async function pendingMigrations(
  options: MigrationOptions = {},
): Promise<readonly PendingMigration[]> {
  return withSurvey(options, async (found, session, committed) => {
    const pending = pendingIn(found.plan, found.where);
    if (pending.length > 0) await readCommittedModel();
    const { refuseConflicts } = await import('../catalog/drift.ts');
    if (found.adopting) await refuseConflicts(session, committed);
    const { describePending } = await import('../migrate/data-checks.ts');
    return describePending(session, pending, migrationSettings(options.env).checkTimeoutMs);
  });
}

/**
 * For a service's start: throws unless the database has every migration of this package. A database that is ahead
 * passes too: in a rolling deploy, the old version runs with the new schema, which supports both.
 * @example
 * await assertMigrated({ connectionString });
 * @throws {NotMigratedError} whose message has the command that applies the pending migrations.
 * @throws {HistoryDivergedError} other files were applied. Also throws as {@link migrationStatus} does.
 */
export async function assertMigrated(options: MigrationOptions = {}): Promise<void> {
  const found = await surveyOnce(options);
  if (found.plan.state === 'current' || found.plan.state === 'ahead') return;
  const pending = pendingIn(found.plan, found.where).map(({ filename }) => filename);
  throw new NotMigratedError(
    `${capitalized(found.where)} lacks ${count(pending.length, 'migration')} (${pending.join(', ')}). Apply them: npm run db:migrate:filestore, or node node_modules/@apphub/filestore/dist/cli.js migrate`,
    pending,
  );
}

/**
 * Compares the live schema with the model that ships with the package, object by object, and the rights of roles with
 * the levels that `filestore.grant_access` recorded. Reads only. The rights need a role that has a level, or the owner.
 * If the database lacks migrations or is ahead, nothing is compared, and `reason` says what to do.
 * @example
 * const check = await verifySchema({ connectionString });
 * if (check.state === 'drifted') console.log(check.differences.join('\n'));
 * @throws {FilestoreError} as {@link migrationStatus} does; {HistoryDivergedError} if other files were applied;
 * `SCHEMA_MODEL_INVALID` if the model is missing or damaged.
 */
export async function verifySchema(options: MigrationOptions = {}): Promise<SchemaCheck> {
  return withSurvey(options, checkSurveyed);
}

/** Compares the schema of a database that was surveyed in the same session. */
export async function checkSurveyed(
  { plan, where }: Survey,
  session: Session,
  committed: readonly CommittedMigration[],
): Promise<SchemaCheck> {
  refuseDiverged(plan, where);
  const reason = whyNotComparable(plan);
  if (reason !== undefined) return { state: 'unchecked', reason };
  const { checkSchemaAndRights } = await import('../catalog/drift.ts');
  return checkSchemaAndRights(session, committed);
}

/** Reads the package's migrations, and refuses a missing file. */
export async function readPackage(): Promise<readonly CommittedMigration[]> {
  const committed = await readCommittedMigrations(MIGRATIONS_FOLDER);
  await refuseMissingFile(committed);
  return committed;
}

/** Reads the migration files. Without `compareSchema`, a missing last file is not noticed: only the model names it. */
export function readFiles({
  compareSchema = true,
}: Pick<RunMigrationsOptions, 'compareSchema'>): Promise<readonly CommittedMigration[]> {
  return compareSchema ? readPackage() : readCommittedMigrations(MIGRATIONS_FOLDER);
}

/** @param committed What {@link readFiles} returned; default: it is called. */
export async function prepareRun(
  database: Database,
  settings: MigrationSettings,
  options: Omit<RunMigrationsOptions, 'settings'>,
  committed?: readonly CommittedMigration[],
): Promise<Run> {
  return {
    settings,
    database,
    compareSchema: options.compareSchema ?? true,
    committed: committed ?? (await readFiles(options)),
    migrationsFolder: MIGRATIONS_FOLDER,
    configFile: CONFIG_FILE,
    signal: options.signal ?? new AbortController().signal,
    emit: (event) => tell(event, options),
    progress: new Progress(),
  };
}

/** Surveys a database and uses the session and the files for `work`. */
async function withSurvey<T>(
  options: MigrationOptions,
  work: (found: Survey, session: Session, committed: readonly CommittedMigration[]) => Promise<T>,
): Promise<T> {
  const committed = await readPackage();
  return withSession(resolveDatabase(options), async (session) =>
    work(await survey(session, committed), session, committed),
  );
}

function surveyOnce(options: MigrationOptions): Promise<Survey> {
  return withSurvey(options, async (found) => found);
}

function tell(event: MigrationEvent, { onEvent, logger }: RunMigrationsOptions): void {
  const isWarning = event.type === 'warning' || event.type === 'retry';
  listen(() => onEvent?.(event));
  if (event.type !== 'span') listen(() => logger?.[isWarning ? 'warn' : 'info'](describeEvent(event)));
}

/** A listener that throws or rejects must not stop the run or the process. */
export function listen(listener: () => unknown): void {
  new Promise((resolve) => resolve(listener())).catch((error: unknown) =>
    process.emitWarning(error instanceof Error ? error : String(error)),
  );
}
