import type { SchemaCheck } from '../catalog/drift.ts';
import { DatabaseAheadError, FilestoreError, type FilestoreErrorCode, RunAbortedError } from '../errors.ts';
import { type FleetDatabase, type FleetMember, resolveFleet } from '../settings/fleet-members.ts';
import {
  type Environment,
  LONGEST_TIMEOUT_MS,
  migrationSettings,
  wholeNumber,
} from '../settings/settings.ts';
import { describeStop, messageOfError, paragraph, seconds } from '../text.ts';
import { compareSurveyed } from './compare-surveyed.ts';
import type { MigrationEvent } from './events.ts';
import { migrateDatabase } from './run.ts';
import {
  callListener,
  type MigrationReport,
  openRun,
  type Run,
  type RunMigrationsOptions,
  readPackagedMigrations,
} from './run-state.ts';
import { type MigrationStatus, type SurveyWork, statusOf, withSurvey } from './survey.ts';

/** Hides the waits for slow servers. A run that applies something takes a thread and two connections. */
const DEFAULT_CONCURRENCY = 8;

export interface FleetOptions<Found> {
  /** At least one; {@link readFleet} reads them from a file. */
  readonly databases: readonly FleetDatabase[];
  /** Most databases at once, from 1 to 1000. Default: 8. */
  readonly concurrency?: number;
  /** Stops the runs at work, as that of {@link runMigrations} does, and starts no others. */
  readonly signal?: AbortSignal;
  /** Told what happens as it happens, with the name of the database. */
  readonly onEvent?: (event: FleetEvent<Found>) => void;
  /** Settings for all databases. Default: `process.env`. */
  readonly env?: Environment;
}

export interface MigrateFleetOptions
  extends FleetOptions<FleetMigration>,
    Pick<RunMigrationsOptions, 'settings' | 'compareSchema'> {
  /** A database that a later version has migrated is `ahead` and has not failed. Default: false. */
  readonly allowAhead?: boolean;
  /**
   * How many databases of the list are the first wave, from 1 to all. The others are started after all of
   * these, and only if none of them failed. Default: all.
   */
  readonly first?: number;
  /** Starts no other database after one failed. Those at work go on. Default: false. */
  readonly stopOnFailure?: boolean;
}

/** What happens to a database of a fleet. */
export type FleetEvent<Found> =
  | { readonly type: 'start'; readonly name: string }
  /** An event of its run. */
  | { readonly type: 'run'; readonly name: string; readonly event: MigrationEvent }
  | { readonly type: 'end'; readonly name: string; readonly result: FleetResult<Found> };

/** A migrated database: `current` if nothing was pending, `ahead` as `allowAhead` has it. */
export type FleetMigration =
  | ({ readonly state: 'migrated' | 'current' } & MigrationReport)
  | { readonly state: 'ahead'; readonly ahead: readonly string[]; readonly durationMs: number };
/** The history of a database. */
export type FleetStatus = MigrationStatus & { readonly durationMs: number };
/** The comparison of a database's schema with its model. */
export type FleetVerification = SchemaCheck & { readonly durationMs: number };

/** A database that could not be migrated or read. */
export interface FleetFailure {
  readonly state: 'failed';
  /** `UNEXPECTED` is a bug of this package. */
  readonly code: FilestoreErrorCode | 'UNEXPECTED';
  /** A {@link FilestoreError}, unless `code` is `UNEXPECTED`. */
  readonly error: Error;
  readonly durationMs: number;
}

/** A `duplicate` has the settings of another one. After a stop or a failure, the rest is `not started`. */
export interface FleetOmission {
  readonly state: 'duplicate' | 'not started';
}

/** What became of one database. `state` tells the forms apart. */
export type FleetResult<Found> = Found | FleetFailure | FleetOmission;

/** The same with its name. */
export type FleetEntry<Found> = {
  readonly name: string;
  /**
   * Name of an earlier one in the list that is the same database, by its settings or by what the server says.
   * Null: none is known.
   */
  readonly sameAs: string | null;
} & FleetResult<Found>;

export interface FleetReport<Found> {
  /** One for each database, in the order of the list. */
  readonly databases: readonly FleetEntry<Found>[];
  readonly durationMs: number;
}

/**
 * Migrates many databases, some at a time. One that fails stops the others only with `first` or
 * `stopOnFailure`; a later call goes on. Two names of one database are no error: with the same settings only
 * the first is run, and otherwise one run waits for the other.
 * @example
 * const { databases } = await migrateFleet({
 *   databases: [
 *     { name: 'berlin', connectionString: berlinUrl },
 *     { name: 'paris', connectionString: parisUrl },
 *   ],
 *   first: 1,
 *   onEvent: (event) => console.log(event.name, event.type),
 * });
 * for (const one of databases) if (one.state === 'failed') console.error(one.name, one.error.message);
 * @throws {SettingsError} before anything runs: the list cannot be used. It names each database at fault.
 * @throws {FilestoreError} before anything runs: the migrations of the package cannot be used.
 */
export async function migrateFleet(options: MigrateFleetOptions): Promise<FleetReport<FleetMigration>> {
  const { connectWaitMs } = migrationSettings(options.env, options.settings);
  const committed = await readPackagedMigrations(options);
  return runFleet(options, connectWaitMs, async ({ signal, onEvent, ...task }) => {
    try {
      const run = await openRun({ ...options, signal, onEvent }, { ...task, committed });
      const report = await migrateDatabase(run);
      return { ...report, state: report.applied.length === 0 ? 'current' : 'migrated' };
    } catch (error) {
      if (!(error instanceof DatabaseAheadError && options.allowAhead)) throw error;
      return { state: 'ahead', ahead: error.unknown };
    }
  });
}

/**
 * Compares many histories with the package's migrations, as {@link migrationStatus} does. Reads only.
 * @example
 * const { databases } = await fleetStatus({ databases: await readFleet('databases.txt') });
 * console.log(databases.filter(({ state }) => state === 'pending').map(({ name }) => name));
 * @throws what {@link migrateFleet} does.
 */
export async function fleetStatus(options: FleetOptions<FleetStatus>): Promise<FleetReport<FleetStatus>> {
  return readEach(options, statusOf);
}

/**
 * Compares the schema of many databases with the package's model, as {@link verifySchema} does. Reads only.
 * @example
 * const { databases } = await verifyFleet({ databases: await readFleet('env:DATABASES') });
 * for (const one of databases) if (one.state === 'drifted') console.log(one.name, one.differences);
 * @throws what {@link migrateFleet} does.
 */
export async function verifyFleet(
  options: FleetOptions<FleetVerification>,
): Promise<FleetReport<FleetVerification>> {
  return readEach(options, compareSurveyed);
}

type Timed<Answer> = Answer & { readonly durationMs: number };

async function readEach<Answer>(
  options: FleetOptions<Timed<Answer>>,
  read: SurveyWork<Answer>,
): Promise<FleetReport<Timed<Answer>>> {
  const committed = await readPackagedMigrations();
  return runFleet(options, 0, (task) => withSurvey({}, read, { ...task, committed }));
}

/** What is asked about one database. */
interface Task extends Pick<Run, 'database' | 'signal'> {
  /** Called once the server has answered. */
  readonly onIdentity: (identity: string) => void;
  readonly onEvent: (event: MigrationEvent) => void;
}

/** @param waitMs How long a task waits for a server that is starting. */
async function runFleet<Answer>(
  options: FleetOptions<Timed<Answer>> & Pick<MigrateFleetOptions, 'first' | 'stopOnFailure'>,
  waitMs: number,
  perform: (task: Task) => Promise<Answer>,
): Promise<FleetReport<Timed<Answer>>> {
  const startedAt = performance.now();
  const members = resolveFleet(options.databases, options.env);
  const concurrency = readConcurrency('concurrency', options.concurrency?.toString());
  const first = readFirst('first', options.first?.toString(), members.length);
  const { signal = new AbortController().signal, stopOnFailure = false } = options;
  let hasFailed = false;
  const emit = (event: FleetEvent<Timed<Answer>>) => callListener(() => options.onEvent?.(event));
  const results = new Map<FleetMember, FleetResult<Timed<Answer>>>();
  const identities = new Map<FleetMember, string>();
  const identityOf = (member: FleetMember) => identities.get(member) ?? member;
  const end = (member: FleetMember, result: FleetResult<Timed<Answer>>) => {
    results.set(member, result);
    hasFailed ||= 'state' in result && result.state === 'failed';
    emit({ type: 'end', name: member.name, result });
  };
  for (const member of members) if (member.twin !== undefined) end(member, { state: 'duplicate' });
  const workThrough = async (waiting: Iterable<FleetMember>) => {
    for (const member of waiting) {
      if (signal.aborted || (stopOnFailure && hasFailed)) return;
      const { name, database } = member;
      emit({ type: 'start', name });
      const onIdentity = (identity: string) => identities.set(member, identity);
      const onEvent = (event: MigrationEvent) => emit({ type: 'run', name, event });
      end(member, await performPatiently({ database, signal, onIdentity, onEvent }, waitMs, perform));
    }
  };
  for (const wave of [members.slice(0, first), members.slice(first)]) {
    if (hasFailed) break;
    const waiting = wave.filter(({ twin }) => twin === undefined).values();
    await Promise.all(Array.from({ length: concurrency }, () => workThrough(waiting)));
  }
  const entries = members.map((member) => {
    const first = members.find((one) => identityOf(one) === identityOf(member));
    const sameAs = member.twin ?? (first === undefined || first === member ? null : first.name);
    return { name: member.name, sameAs, ...(results.get(member) ?? { state: 'not started' as const }) };
  });
  return { databases: entries, durationMs: performance.now() - startedAt };
}

/** Performs a task, and ends it if the server does not answer. A run then watches its own connections. */
async function performPatiently<Answer>(
  task: Task,
  waitMs: number,
  perform: (task: Task) => Promise<Answer>,
): Promise<Timed<Answer> | FleetFailure> {
  const startedAt = performance.now();
  // Time to connect, and for the three answers of a pooler that is asked how it works.
  const limitMs = Math.min(waitMs + 4 * task.database.config.connectionTimeoutMillis, LONGEST_TIMEOUT_MS);
  const silence = new AbortController();
  const signal = AbortSignal.any([task.signal, silence.signal]);
  const timer = setTimeout(() => silence.abort(), limitMs);
  const onIdentity = (identity: string) => {
    clearTimeout(timer);
    task.onIdentity(identity);
  };
  try {
    const answer = await perform({ ...task, signal, onIdentity });
    return { ...answer, durationMs: performance.now() - startedAt };
  } catch (cause) {
    const error = errorOfTask(task, cause, silence.signal.aborted ? limitMs : undefined);
    const code = error instanceof FilestoreError ? error.code : 'UNEXPECTED';
    return { state: 'failed', code, error, durationMs: performance.now() - startedAt };
  } finally {
    clearTimeout(timer);
  }
}

/** @param silentMs How long the server was silent, if that ended the task. */
function errorOfTask({ database, signal }: Task, cause: unknown, silentMs: number | undefined): Error {
  if (signal.aborted) {
    if (cause instanceof RunAbortedError) return cause;
    return new RunAbortedError(`${describeStop(signal)} Nothing was changed. Run this again.`, [], { cause });
  }
  if (silentMs === undefined) return cause instanceof Error ? cause : new Error(messageOfError(cause));
  const message = paragraph(
    `Cannot use ${database.where}: it accepted the connection,`,
    `and did not answer within ${seconds(silentMs)}. Nothing was changed.`,
    'Check the server, and a pooler or proxy in front of it.',
  );
  return new FilestoreError('CONNECTION_FAILED', message, { cause });
}

/** @throws {SettingsError} that names the option, unless it is a whole number from 1 to 1000. */
export function readConcurrency(option: string, text: string | undefined): number {
  return wholeNumber({ [option]: text }, [option], DEFAULT_CONCURRENCY, 1, 1_000);
}

/** @throws {SettingsError} that names the option, unless it is a whole number from 1 to `all`. */
export function readFirst(option: string, text: string | undefined, all: number): number {
  return wholeNumber({ [option]: text }, [option], all, 1, all);
}
