import {
  checkSurveyed,
  listen,
  migrate,
  prepareRun,
  readFiles,
  readPackage,
  statusOf,
} from '../db/migrations.ts';
import { DatabaseAheadError, FilestoreError, RunAbortedError } from '../errors.ts';
import { type Session, withSession } from '../session/session.ts';
import type { Database } from '../settings/database.ts';
import { type FleetDatabase, type FleetMember, resolveFleet } from '../settings/fleet-members.ts';
import {
  type Environment,
  type MigrationSettings,
  migrationSettings,
  wholeNumber,
} from '../settings/settings.ts';
import { seconds } from '../text.ts';
import type { MigrationEvent } from './events.ts';
import type {
  FleetEvent,
  FleetFailure,
  FleetMigration,
  FleetReport,
  FleetResult,
  FleetStatus,
  FleetVerification,
} from './fleet-report.ts';
import { describeStop } from './run.ts';
import { type Survey, survey } from './survey.ts';

/** Enough to hide the waits for slow servers. A run that applies something takes a thread and two connections. */
const DEFAULT_CONCURRENCY = 8;
const MOST_AT_ONCE = 1_000;

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

export interface MigrateFleetOptions extends FleetOptions<FleetMigration> {
  /** Takes the place of single settings of the environment, for all databases. */
  readonly settings?: Partial<MigrationSettings>;
  /** As for {@link runMigrations}. Default: true. */
  readonly compareSchema?: boolean;
  /** A database that a later version has migrated is `ahead` and has not failed. Default: false. */
  readonly allowAhead?: boolean;
}

/**
 * Migrates many databases, some at a time. One that fails does not stop the others. Two names of one database are no
 * error: with the same settings only the first is run, and otherwise one run waits for the other.
 * @example
 * const { databases } = await migrateFleet({
 *   databases: [
 *     { name: 'berlin', connectionString: berlinUrl },
 *     { name: 'paris', connectionString: parisUrl },
 *   ],
 *   concurrency: 4,
 *   onEvent: (event) => console.log(event.name, event.type),
 * });
 * for (const one of databases) if (one.state === 'failed') console.error(one.name, one.code, one.error.message);
 * @throws {SettingsError} before anything runs: the list cannot be used. The message names each database at fault.
 * @throws {FilestoreError} before anything runs: the migrations of the package cannot be used.
 */
export async function migrateFleet(options: MigrateFleetOptions): Promise<FleetReport<FleetMigration>> {
  const settings = { ...migrationSettings(options.env), ...options.settings };
  const committed = await readFiles(options);
  return runFleet(options, settings.connectWaitMs, async ({ database, signal, onSurvey, onEvent }) => {
    const startedAt = performance.now();
    const run = await prepareRun(database, settings, { ...options, signal, onEvent }, committed);
    try {
      const report = await migrate({ ...run, onSurvey }, startedAt);
      return { state: report.applied.length === 0 ? 'current' : 'migrated', ...report };
    } catch (error) {
      if (!(error instanceof DatabaseAheadError && options.allowAhead)) throw error;
      return { state: 'ahead', ahead: error.unknown, durationMs: performance.now() - startedAt };
    }
  });
}

/**
 * Compares the history of many databases with the migrations of this package, as {@link migrationStatus} does. Reads
 * only.
 * @example
 * const { databases } = await fleetStatus({ databases: await readFleet('databases.txt') });
 * console.log(databases.filter(({ state }) => state === 'pending').map(({ name }) => name));
 * @throws what {@link migrateFleet} does.
 */
export async function fleetStatus(options: FleetOptions<FleetStatus>): Promise<FleetReport<FleetStatus>> {
  return readEach(options, async (found) => statusOf(found));
}

/**
 * Compares the schema of many databases with the model of this package, as {@link verifySchema} does. Reads only.
 * @example
 * const { databases } = await verifyFleet({ databases: await readFleet('env:DATABASES') });
 * for (const one of databases) if (one.state === 'drifted') console.log(one.name, one.differences);
 * @throws what {@link migrateFleet} does.
 */
export async function verifyFleet(
  options: FleetOptions<FleetVerification>,
): Promise<FleetReport<FleetVerification>> {
  return readEach(options, checkSurveyed);
}

async function readEach<Answer>(
  options: FleetOptions<Answer & { readonly durationMs: number }>,
  read: (
    found: Survey,
    session: Session,
    committed: Awaited<ReturnType<typeof readPackage>>,
  ) => Promise<Answer>,
): Promise<FleetReport<Answer & { readonly durationMs: number }>> {
  const committed = await readPackage();
  return runFleet(options, 0, async ({ database, signal, onSurvey }) => {
    const startedAt = performance.now();
    const readSession = async (session: Session) => {
      const found = await survey(session, committed);
      onSurvey(found);
      return read(found, session, committed);
    };
    const answer = await withSession(database, readSession, signal);
    return { ...answer, durationMs: performance.now() - startedAt };
  });
}

/** What is asked about one database. */
interface Task {
  readonly database: Database;
  readonly signal: AbortSignal;
  readonly onSurvey: (found: Survey) => void;
  readonly onEvent: (event: MigrationEvent) => void;
}

/** @param waitMs How long a task waits for a server that is starting. */
async function runFleet<Found>(
  options: FleetOptions<Found>,
  waitMs: number,
  perform: (task: Task) => Promise<Found>,
): Promise<FleetReport<Found>> {
  const startedAt = performance.now();
  const members = resolveFleet(options.databases, options.env);
  const concurrency = readConcurrency('concurrency', options.concurrency?.toString());
  const { signal = new AbortController().signal } = options;
  const emit = (event: FleetEvent<Found>) => listen(() => options.onEvent?.(event));
  const results = new Map<FleetMember, FleetResult<Found>>();
  const identities = new Map<FleetMember, string>();
  const end = (member: FleetMember, result: FleetResult<Found>) => {
    results.set(member, result);
    emit({ type: 'end', name: member.name, result });
  };
  const start = async (member: FleetMember) => {
    const { name, database } = member;
    emit({ type: 'start', name });
    const onSurvey = ({ identity }: Survey) => identities.set(member, identity);
    const onEvent = (event: MigrationEvent) => emit({ type: 'run', name, event });
    end(member, await performPatiently({ database, signal, onSurvey, onEvent }, waitMs, perform));
  };
  for (const member of members) if (member.twin !== undefined) end(member, { state: 'duplicate' });
  const others = members.filter(({ twin }) => twin === undefined);
  await workThrough(others, concurrency, signal, start);
  return {
    databases: members.map((member) => ({
      name: member.name,
      sameAs: member.twin ?? findSame(member, identities, members),
      ...(results.get(member) ?? { state: 'not started' }),
    })),
    durationMs: performance.now() - startedAt,
  };
}

/** Works on all items, so many at a time. After an abort, no more are begun. */
async function workThrough<Item>(
  items: readonly Item[],
  concurrency: number,
  signal: AbortSignal,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const waiting = [...items];
  const workOn = async () => {
    for (let item = waiting.shift(); item !== undefined && !signal.aborted; item = waiting.shift()) {
      await work(item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, items.length) }, workOn));
}

/** Name of an earlier one that is the same database, or null. */
function findSame(
  member: FleetMember,
  identities: ReadonlyMap<FleetMember, string>,
  members: readonly FleetMember[],
): string | null {
  const identity = identities.get(member);
  const first = identity === undefined ? member : members.find((one) => identities.get(one) === identity);
  return first === undefined || first === member ? null : first.name;
}

/** Performs a task, and ends it if the server does not answer. */
async function performPatiently<Found>(
  task: Task,
  waitMs: number,
  perform: (task: Task) => Promise<Found>,
): Promise<Found | FleetFailure> {
  const startedAt = performance.now();
  // Time to connect, and for the three answers of a pooler that is asked how it works.
  const limitMs = waitMs + 4 * task.database.config.connectionTimeoutMillis;
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(), limitMs);
  const onSurvey = (found: Survey) => {
    clearTimeout(timer);
    task.onSurvey(found);
  };
  try {
    return await perform({ ...task, signal: AbortSignal.any([task.signal, silence.signal]), onSurvey });
  } catch (cause) {
    const durationMs = performance.now() - startedAt;
    const error = failureOf(task, cause, silence.signal.aborted ? limitMs : undefined);
    const code = error instanceof FilestoreError ? error.code : 'UNEXPECTED';
    return { state: 'failed', code, error, durationMs };
  } finally {
    clearTimeout(timer);
  }
}

/** @param silentMs How long the server was silent, if that ended the task. */
function failureOf({ database, signal }: Task, cause: unknown, silentMs: number | undefined): Error {
  if (signal.aborted) {
    if (cause instanceof RunAbortedError) return cause;
    return new RunAbortedError(`${describeStop(signal)} Nothing was changed. Run this again.`, [], { cause });
  }
  if (silentMs !== undefined) {
    return new FilestoreError(
      'CONNECTION_FAILED',
      `Cannot use ${database.where}: it accepted the connection, and did not answer within ${seconds(silentMs)}. Nothing was changed. Check the server, and a pooler or proxy in front of it.`,
      { cause },
    );
  }
  return cause instanceof Error ? cause : new Error(String(cause));
}

/** @throws {SettingsError} that names the option, unless it is a whole number from 1 to 1000. */
export function readConcurrency(option: string, text: string | undefined): number {
  return wholeNumber({ [option]: text }, [option], DEFAULT_CONCURRENCY, 1, MOST_AT_ONCE);
}
