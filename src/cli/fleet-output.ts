import { describeEvent, type MigrationEvent } from '../migrate/events.ts';
import type {
  FleetEntry,
  FleetEvent,
  FleetFailure,
  FleetOmission,
  FleetReport,
  FleetResult,
} from '../migrate/fleet.ts';
import { count, seconds } from '../text.ts';
import type { Output } from './output.ts';
import type { Paint } from './paint.ts';

/** What the results of all commands have. */
export interface Timed {
  readonly state: string;
  readonly durationMs: number;
}

/**
 * Prints what happens: on a terminal one line that changes, else a line for each database that is done.
 * Waits, warnings and failures are lines in both.
 * @param describe Further lines about a database that is done.
 */
export function reportProgress<Found extends Timed>(
  output: Output,
  total: number,
  describe: (found: Found) => readonly string[],
): (event: FleetEvent<Found>) => void {
  /** What each database that is at work does. */
  const running = new Map<string, string>();
  let done = 0;
  const overview = () => {
    const each = [...running].map(([name, what]) => (what === '' ? name : `${name} (${what})`));
    return `${done} of ${total} done${each.length === 0 ? '' : `; at work: ${each.join(', ')}`}`;
  };
  return (event) => {
    const { name } = event;
    output.event(event.type === 'end' ? endDocument(name, event.result) : event);
    if (event.type === 'start') running.set(name, '');
    if (event.type === 'run') {
      reportRun(output, name, event.event);
      running.set(name, describeWork(event.event) ?? running.get(name) ?? '');
      // Also without a terminal: a long migration is seen to be at work.
      if (event.event.type === 'progress') output.progress(overview());
    }
    if (event.type === 'end') {
      running.delete(name);
      done += 1;
      output.step(`${name}: ${describeEnd(event.result)}; ${done} of ${total} done`);
      for (const line of detailsOf(event.result, describe)) output.warn(`${name}: ${line}`);
    }
    output.busy(overview());
  };
}

/** The end of a database as JSON. The document has the rest of its result. */
function endDocument<Found extends Timed>(name: string, result: FleetResult<Found>) {
  const end = { type: 'end', name, state: result.state };
  return matchResult<Found, Readonly<Record<string, unknown>>>(result, {
    found: ({ durationMs }) => ({ ...end, durationMs }),
    failed: ({ durationMs, code }) => ({ ...end, durationMs, code }),
    omitted: () => end,
  });
}

/** Prints those events of a run that matter when many run at once. */
function reportRun(output: Output, name: string, event: MigrationEvent): void {
  const line = `${name}: ${describeEvent(event)}`;
  if (event.type === 'migration-end') output.step(line);
  else if (event.type === 'waiting' || event.type === 'retry' || event.type === 'warning') output.warn(line);
}

function describeWork(event: MigrationEvent): string | undefined {
  if (event.type === 'migration-start') return event.filename;
  if (event.type === 'progress') return describeEvent(event);
  if (event.type === 'waiting')
    return event.for === 'lock' ? 'waits for another migrator' : 'waits for its server';
  if (event.type === 'retry') return 'tries again soon';
  return undefined;
}

function describeEnd<Found extends Timed>(result: FleetResult<Found>): string {
  return matchResult(result, {
    found: ({ state, durationMs }) => `${state} (${timeOf(durationMs)})`,
    failed: ({ state, durationMs }) => `${state} (${timeOf(durationMs)})`,
    omitted: ({ state }) => state,
  });
}

function detailsOf<Found>(
  result: FleetResult<Found>,
  describe: (found: Found) => readonly string[],
): readonly string[] {
  return matchResult<Found, readonly string[]>(result, {
    found: describe,
    failed: ({ code, error }) => [
      code === 'UNEXPECTED'
        ? `Unexpected error, please report it: ${error.stack ?? error.message}`
        : `${code}: ${error.message}`,
    ],
    omitted: () => [],
  });
}

/** The table of all databases, and a line that counts them by state. */
export function renderTable<Found extends Timed>(
  { databases, durationMs }: FleetReport<Found>,
  summarize: (found: Found) => string,
  paint: Paint,
): readonly string[] {
  const rows = databases.map((entry) => ({ name: entry.name, ...rowOf(entry, summarize) }));
  const width = (column: 'name' | 'state' | 'time') => Math.max(...rows.map((row) => row[column].length));
  const [nameWidth, stateWidth, timeWidth] = [width('name'), width('state'), width('time')];
  const numbers = new Map<string, number>();
  for (const { state } of rows) numbers.set(state, (numbers.get(state) ?? 0) + 1);
  const totals = [...numbers].map(([state, number]) => `${number} ${state}`).join(', ');
  return [
    ...rows.map(({ name, state, time, note }) => {
      const painted = paintState(state, paint)(state.padEnd(stateWidth));
      return `${name.padEnd(nameWidth)}  ${painted}  ${time.padStart(timeWidth)}  ${note}`.trimEnd();
    }),
    `${count(databases.length, 'database')}: ${totals} (${timeOf(durationMs)})`,
  ];
}

function rowOf<Found extends Timed>(entry: FleetEntry<Found>, summarize: (found: Found) => string) {
  const same = entry.sameAs === null ? '' : `the same database as ${entry.sameAs}`;
  const row = (state: string, time: string, note: string) => ({
    state,
    time,
    note: [note, same].filter((part) => part !== '').join('; '),
  });
  return matchResult<Found, ReturnType<typeof row>>(entry, {
    found: (found) => row(found.state, timeOf(found.durationMs), summarize(found)),
    failed: ({ state, code, durationMs }) => row(state, timeOf(durationMs), code),
    omitted: ({ state }) => row(state, '', ''),
  });
}

function paintState(state: string, paint: Paint): (text: string) => string {
  if (['migrated', 'current', 'same'].includes(state)) return paint.good;
  return ['failed', 'drifted', 'diverged'].includes(state) ? paint.bad : paint.odd;
}

function timeOf(milliseconds: number): string {
  return milliseconds < 1_000 ? `${Math.round(milliseconds)} ms` : seconds(milliseconds);
}

/** Answers a question about a result by its form. */
export function matchResult<Found, Answer>(
  result: FleetResult<Found>,
  answers: {
    found(result: Found): Answer;
    failed(result: FleetFailure): Answer;
    omitted(result: FleetOmission): Answer;
  },
): Answer {
  // The states of what was found are none of these.
  const { state } = result as { readonly state: string };
  if (state === 'failed') return answers.failed(result as FleetFailure);
  if (state === 'duplicate' || state === 'not started') return answers.omitted(result as FleetOmission);
  return answers.found(result as Found);
}
