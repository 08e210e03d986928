import { FilestoreError } from '../errors.ts';
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
  verifyFleet,
} from '../migrate/fleet.ts';
import { readFleet } from '../settings/fleet-file.ts';
import { count } from '../text.ts';
import type { Flags } from './define-command.ts';
import type { FleetDocument, FleetEntryDocument } from './documents.ts';
import { DONE, exitCodeOf, exitCodeOfCheck, exitCodeOfState, FAILED, worstOf } from './exit-codes.ts';
import { matchResult, renderTable, reportProgress, type Timed } from './fleet-output.ts';
import { errorDocument, type Output } from './output.ts';
import { withSignal } from './signals.ts';
import { describeMigrator } from './status.ts';

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

const migrate = (allowAhead: boolean): FleetCommand<FleetMigration> => ({
  run: (options) => migrateFleet({ ...options, allowAhead }),
  exitCodeOf: () => DONE,
  isOk: () => true,
  summarize: (found) =>
    found.state === 'migrated' ? `${count(found.applied.length, 'migration')} applied` : '',
  describe: () => [],
});

const status = (allowAhead: boolean): FleetCommand<FleetStatus> => ({
  run: fleetStatus,
  exitCodeOf: ({ state }) => exitCodeOfState(state, allowAhead),
  isOk: () => true,
  summarize: ({ applied, pending }) => `${applied.length} applied, ${pending.length} pending`,
  describe: ({ problems, migrators }) => [
    ...problems.map((problem) => `PROBLEM  ${problem}`),
    ...migrators.map(describeMigrator),
  ],
});

const verify: FleetCommand<FleetVerification> = {
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
  const allowAhead = flags['allow-ahead'] === true;
  if (name === 'migrate') return runEach(name, migrate(allowAhead), source, output, flags);
  if (name === 'status') return runEach(name, status(allowAhead), source, output, flags);
  return runEach('verify', verify, source, output, flags);
}

async function runEach<Found extends Timed>(
  name: FleetDocument['command'],
  command: FleetCommand<Found>,
  source: string,
  output: Output,
  flags: Flags,
): Promise<number> {
  const given = typeof flags.concurrency === 'string' ? flags.concurrency : undefined;
  const concurrency = readConcurrency('--concurrency', given);
  const databases = await readFleet(source);
  const onEvent = reportProgress<Found>(output, databases.length, command.describe);
  // Until the report is printed: a second signal must not end the process before.
  return withSignal(async (signal) => {
    const report = await command.run({ databases, concurrency, signal, onEvent });
    for (const line of renderTable(report, command.summarize, output.paint)) output.say(line);
    output.document({
      ok: report.databases.every((entry) => isOk(entry, command)),
      command: name,
      databases: report.databases.map(entryDocument),
      durationMs: report.durationMs,
    } satisfies FleetDocument);
    return worstOf(report.databases.map((entry) => exitCodeOfEntry(entry, command)));
  });
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
    omitted: ({ state }) => (state === 'duplicate' ? DONE : FAILED),
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
