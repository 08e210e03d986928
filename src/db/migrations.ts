import { join } from 'node:path';
import { DatabaseAheadError, HistoryDivergedError } from '../errors.ts';
import { PACKAGE_ROOT } from '../package-root.ts';
import {
  type ConnectionSettings,
  describeConnection,
  type Environment,
  migrationConnection,
  missingUrlError,
} from '../settings.ts';
import { type ApplyEvent, applyMigrations } from './graphile/apply.ts';
import {
  type AppliedMigration,
  type CommittedMigration,
  type MigrationPlan,
  planMigrations,
  readCommittedMigrations,
} from './history.ts';
import { readPreflight } from './preflight.ts';

/** The migrations that ship with the package. */
const MIGRATIONS_FOLDER = join(PACKAGE_ROOT, 'migrations');

export interface MigrationOptions {
  /** Where to; default: {@link migrationConnection} of the environment. */
  readonly connection?: ConnectionSettings;
  /** Default: `process.env`. */
  readonly env?: Environment;
}

export interface RunMigrationsOptions extends MigrationOptions {
  /** Told what happens as it happens. */
  readonly onEvent?: (event: MigrationEvent) => void;
}

/** What a run tells while it works. `plan` comes first, with the files that will be run. */
export type MigrationEvent =
  | {
      readonly type: 'plan';
      readonly database: string;
      readonly serverVersion: string;
      readonly pending: readonly string[];
    }
  | ApplyEvent;

/** What a run did. */
export interface MigrationReport {
  /** The migrations this run applied, in order. */
  readonly applied: readonly {
    readonly filename: string;
    readonly message: string | null;
    readonly hash: string;
    readonly durationMs: number;
  }[];
  /** Number of migrations that were there already. */
  readonly alreadyApplied: number;
  readonly database: string;
  readonly serverVersion: string;
  readonly durationMs: number;
}

/** How a database stands to the migrations of this package. */
export interface MigrationStatus {
  /**
   * `empty`: nothing applied; `pending`: some to apply; `current`: nothing to do; `ahead`: a later version of
   * the package was here; `diverged`: other files were applied.
   */
  readonly state: MigrationPlan['state'];
  readonly applied: readonly AppliedMigration[];
  /** Names of the files that are not applied. */
  readonly pending: readonly string[];
  /** One line each; empty unless `ahead` or `diverged`. */
  readonly problems: readonly string[];
}

/**
 * Applies the committed migrations that the database does not have yet, each in a transaction of its own.
 * @throws {SettingsError} no database URL, or a setting that cannot be used.
 * @throws {ConnectionError} the server cannot be reached or refuses.
 * @throws {MigrationsMissingError | MigrationsInvalidError} the migration files are missing, damaged or edited.
 * @throws {HistoryDivergedError | DatabaseAheadError} the database has a history other than the files'.
 * @throws {LockNotAcquiredError} another migrator is at work.
 * @throws {MigrationFailedError} a migration failed and was rolled back; carries what was applied before it.
 */
export async function runMigrations(options: RunMigrationsOptions = {}): Promise<MigrationReport> {
  const startedAt = performance.now();
  const { connection, committed, preflight, plan } = await survey(options);
  refuseForeignHistory(plan, connection);
  const pending = plan.state === 'empty' || plan.state === 'pending' ? plan.pending : [];
  const { serverVersion } = preflight;
  options.onEvent?.({
    type: 'plan',
    database: describeConnection(connection),
    serverVersion,
    pending: pending.map(({ filename }) => filename),
  });

  const durations = new Map<string, number>();
  if (pending.length > 0) {
    await applyMigrations({
      connection,
      migrationsFolder: MIGRATIONS_FOLDER,
      configFile: join(PACKAGE_ROOT, '.gmrc'),
      pending,
      onEvent: (event) => {
        if (event.type === 'migration-end') durations.set(event.filename, event.durationMs);
        options.onEvent?.(event);
      },
    });
  }
  return {
    applied: pending.flatMap(({ filename, message, hash }) => {
      const durationMs = durations.get(filename);
      // Absent when another migrator applied it between our look and our turn.
      return durationMs === undefined ? [] : [{ filename, message, hash, durationMs }];
    }),
    alreadyApplied: committed.length - durations.size,
    database: connection.database,
    serverVersion,
    durationMs: performance.now() - startedAt,
  };
}

/**
 * Compares the database with the migrations of this package. Reads only.
 * @throws {SettingsError} no database URL, or a setting that cannot be used.
 * @throws {ConnectionError} the server cannot be reached or refuses.
 * @throws {MigrationsMissingError | MigrationsInvalidError} the migration files are missing, damaged or edited.
 */
export async function migrationStatus(options: MigrationOptions = {}): Promise<MigrationStatus> {
  const { preflight, plan } = await survey(options);
  return {
    state: plan.state,
    applied: preflight.applied,
    pending:
      plan.state === 'empty' || plan.state === 'pending' ? plan.pending.map(({ filename }) => filename) : [],
    problems: problemsOf(plan),
  };
}

async function survey(options: MigrationOptions) {
  const connection = options.connection ?? migrationConnection(options.env);
  if (connection === undefined) throw missingUrlError('migrations need a database to go to.');
  const committed: readonly CommittedMigration[] = await readCommittedMigrations(MIGRATIONS_FOLDER);
  const preflight = await readPreflight(connection);
  return { connection, committed, preflight, plan: planMigrations(committed, preflight.applied) };
}

function problemsOf(plan: MigrationPlan): readonly string[] {
  if (plan.state === 'diverged') return plan.problems;
  if (plan.state === 'ahead') return plan.unknown.map(({ filename }) => `${filename} is not among the files`);
  return [];
}

function refuseForeignHistory(plan: MigrationPlan, connection: ConnectionSettings): void {
  const problems = problemsOf(plan);
  const list = problems.join('; ');
  if (plan.state === 'diverged') {
    throw new HistoryDivergedError(
      `The migrations in ${describeConnection(connection)} are not the ones of this package: ${list}. Nothing was changed. Deploy the version of the package that migrated it, or check whether this is the right database.`,
      problems,
    );
  }
  if (plan.state === 'ahead') {
    throw new DatabaseAheadError(
      `A later version of this package has migrated ${describeConnection(connection)}: ${list}. Nothing was changed. Deploy that version.`,
      problems,
    );
  }
}
