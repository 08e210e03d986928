import { FilestoreError, SettingsError } from '../errors.ts';
import {
  type FleetEntry,
  type FleetMigration,
  type FleetOptions,
  type FleetReport,
  type FleetStatus,
  type FleetVerification,
  fleetStatus,
  migrateFleet,
  readConcurrency,
  readFirst,
  verifyFleet,
} from '../migrate/fleet.ts';
import { readFleet } from '../settings/fleet-file.ts';
import { isSet } from '../settings/settings.ts';
import { count } from '../text.ts';
import type { Flags } from './define-command.ts';
import type { FleetDocument, FleetEntryDocument } from './documents.ts';
import { DONE, exitCodeOf, exitCodeOfCheck, exitCodeOfState, FAILED, worstOf } from './exit-codes.ts';
import { matchResult, renderTable, reportProgress, type Timed } from './fleet-output.ts';
import { errorDocument, type Output } from './output.ts';
import { withSignal } from './signals.ts';
import { describeMigrators } from './status.ts';

/** What differs between the commands. */
interface FleetCommand<Found> {
  run(options: FleetOptions<Found>): Promise<FleetReport<Found>>;
  exitCodeOf(found: Found): number;
  /** Whether the command succeeded there, as `ok` of a single document says it. */
  isOk(found: Found): boolean;
  /** The result in the table, in a few words. */
  summarize(found: Found): string;
  /** Further lines about the result. */
  describe(found: Found): readonly string[];
}

const migrateEach = (flags: Flags): FleetCommand<FleetMigration> => ({
  run: (options) =>
    migrateFleet({
      ...options,
      allowAhead: flags['allow-ahead'] === true,
      first: readFirst('--first', numberOf(flags, 'first'), options.databases.length),
      stopOnFailure: flags['stop-on-failure'] === true,
    }),
  exitCodeOf: () => DONE,
  isOk: () => true,
  summarize: (found) =>
    found.state === 'migrated' ? `${count(found.applied.length, 'migration')} applied` : '',
  describe: () => [],
});

const statusOfEach = (flags: Flags): FleetCommand<FleetStatus> => ({
  run: fleetStatus,
  exitCodeOf: ({ state }) => exitCodeOfState(state, flags['allow-ahead'] === true),
  isOk: () => true,
  summarize: ({ applied, pending }) => `${applied.length} applied, ${pending.length} pending`,
  describe: ({ problems, migrators }) => [
    ...problems.map((problem) => `PROBLEM  ${problem}`),
    ...describeMigrators(migrators),
  ],
});

const verifyEach: FleetCommand<FleetVerification> = {
  run: verifyFleet,
  exitCodeOf: ({ state }) => exitCodeOfCheck(state),
  isOk: ({ state }) => state === 'same',
  summarize: (found) => (found.state === 'drifted' ? count(found.differences.length, 'difference') : ''),
  describe: (found) => {
    if (found.state === 'drifted') return found.differences.map((difference) => `DRIFT  ${difference}`);
    return found.state === 'unchecked' ? [found.reason] : [];
  },
};

/**
 * Runs a command on all databases of a list.
 * @param source Path of the list's file, or `env:` and its variable.
 * @returns the worst of their exit codes.
 */
export async function runFleetCommand(
  name: string,
  source: string,
  output: Output,
  flags: Flags,
): Promise<number> {
  if (name === 'migrate') return runEach(name, migrateEach(flags), source, output, flags);
  if (name === 'status') return runEach(name, statusOfEach(flags), source, output, flags);
  return runEach('verify', verifyEach, source, output, flags);
}

async function runEach<Found extends Timed>(
  name: FleetDocument['command'],
  command: FleetCommand<Found>,
  source: string,
  output: Output,
  flags: Flags,
): Promise<number> {
  const concurrency = readConcurrency('--concurrency', numberOf(flags, 'concurrency'));
  const databases = await readFleet(source);
  const onEvent = reportProgress<Found>(output, databases.length, command.describe);
  // Until the report is printed: a second signal must not end the process before.
  return withSignal(async (signal) => {
    const report = await command.run({ databases, concurrency, signal, onEvent });
    for (const line of renderTable(report, command.summarize, output.paint)) output.say(line);
    const rest = report.databases.filter(({ state }) => state === 'not started').length;
    if (rest > 0 && !signal.aborted) {
      const remedy = 'Fix the cause, and run this again.';
      output.warn(`Stopped after a failure: ${count(rest, 'database')} not started. ${remedy}`);
    }
    const ok = report.databases.every((entry) => isOk(entry, command));
    output.document({
      ok,
      command: name,
      databases: report.databases.map(entryDocument),
      durationMs: report.durationMs,
    } satisfies FleetDocument);
    // The failure that stopped the others says more than that they were not started.
    return worstOf(report.databases.map((entry) => exitCodeOfEntry(entry, command))) || (ok ? DONE : FAILED);
  });
}

/** @throws {SettingsError} for an empty value, such as that of a variable that is not set. */
function numberOf(flags: Flags, option: string): string | undefined {
  const value = flags[option];
  if (typeof value !== 'string') return undefined;
  if (isSet(value)) return value;
  throw new SettingsError(option, `The value of --${option} is empty. Give a number, or leave it out.`);
}

function isOk<Found>(entry: FleetEntry<Found>, command: FleetCommand<Found>): boolean {
  return matchResult<Found, boolean>(entry, {
    found: command.isOk,
    failed: () => false,
    omitted: ({ state }) => state === 'duplicate',
  });
}

function exitCodeOfEntry<Found>(entry: FleetEntry<Found>, command: FleetCommand<Found>): number {
  return matchResult<Found, number>(entry, {
    found: command.exitCodeOf,
    failed: ({ code }) => (code === 'UNEXPECTED' ? FAILED : exitCodeOf(code)),
    omitted: () => DONE,
  });
}

/** An entry as JSON. Of an unknown error only the message: other fields may contain a secret. */
function entryDocument<Found extends Timed>(entry: FleetEntry<Found>): FleetEntryDocument {
  const { name, sameAs } = entry;
  return matchResult<Found, FleetEntryDocument>(entry, {
    found: (found) => ({ ...found, name, sameAs }),
    failed: ({ state, code, error, durationMs }) => {
      const fields = error instanceof FilestoreError ? errorDocument(error) : {};
      return { name, sameAs, state, durationMs, error: { ...fields, code, message: error.message } };
    },
    omitted: ({ state }) => ({ name, sameAs, state }),
  });
}
