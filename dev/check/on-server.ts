import { withClient } from '../../src/testing/with-client.ts';
import { isSource, type Sources } from '../sources/sources.ts';
import { createDatabase } from './create-database.ts';
import { type GateReport, judge, notRun, report, runGate } from './gate.ts';
import { SCHEMA_GATES } from './gate-lists.ts';
import { applies, currentApplies } from './gates/applies.ts';
import { generated } from './gates/generated.ts';
import { repeatable } from './gates/repeatable.ts';
import { sampleCalls } from './gates/sample-calls.ts';
import { type LockReport, measureLocks } from './measure-locks.ts';
import { populate } from './populate.ts';

/** The gates that need all migrations, current.sql included. */
const COMPLETE_GATES = [repeatable, sampleCalls, ...SCHEMA_GATES];

export interface ServerReport {
  readonly gates: readonly GateReport[];
  readonly locks: LockReport | null;
}

/**
 * Runs the gates that need a server. Each database is a copy of the one before, so that each migration is applied as
 * rarely as possible.
 * @param url URL of a database, as a superuser, on a server without databases of the names used here.
 */
export async function runServerGates(url: string, sources: Sources): Promise<ServerReport> {
  const committed = await createDatabase(url, 'check_committed');
  const applied = await withClient(committed, (client) => runGate(applies, { sources, client }));
  if (applied.state === 'failed') {
    const reason = 'the committed migrations do not apply';
    const rest = [...(sources.pending === null ? [] : [currentApplies]), generated, ...COMPLETE_GATES];
    return {
      gates: [applied, ...rest.map((gate) => report(gate, notRun(reason)))],
      locks: sources.pending === null ? null : { state: 'not measured', reason },
    };
  }
  const files = await withClient(committed, (client) => runGate(generated, { sources, client }));
  const complete = await createDatabase(url, 'check_complete', 'check_committed');
  const { gates, locks } = await runCurrentGate(url, complete, sources);
  const before = [applied, ...gates, files];
  if (gates.some(({ state }) => state === 'failed')) {
    const rest = COMPLETE_GATES.map((gate) => report(gate, notRun('current.sql does not apply')));
    return { gates: [...before, ...rest], locks };
  }
  const twice = await createDatabase(url, 'check_twice');
  const called = await createDatabase(url, 'check_called', 'check_complete');
  const [again, calls, ofSchema] = await Promise.all([
    withClient(twice, (client) => runGate(repeatable, { sources, client })),
    withClient(called, (client) => runGate(sampleCalls, { sources, client })),
    withClient(complete, async (client) => {
      const reports: GateReport[] = [];
      for (const gate of SCHEMA_GATES) reports.push(await runGate(gate, { sources, client }));
      return reports;
    }),
  ]);
  return { gates: [...before, again, calls, ...ofSchema], locks };
}

/** Applies current.sql, if it is checked, to the database `complete` and to one with rows. */
async function runCurrentGate(url: string, complete: string, sources: Sources): Promise<ServerReport> {
  const { pending } = sources;
  if (pending === null) return { gates: [], locks: null };
  const withRows = await createDatabase(url, 'check_rows', 'check_committed');
  return withClient(withRows, async (populated) => {
    const unfit = await populate(populated);
    if (unfit !== undefined) {
      const reason = 'the sample rows do not fit the schema';
      return { gates: [report(currentApplies, judge([unfit]))], locks: { state: 'not measured', reason } };
    }
    const locks: LockReport = isSource(pending)
      ? await measureLocks(populated, pending)
      : { state: 'not measured', reason: 'current.sql includes a missing file' };
    const gate = await withClient(complete, (empty) =>
      runGate(currentApplies, { sources, empty, populated }),
    );
    return { gates: [gate], locks };
  });
}
