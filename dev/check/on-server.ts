import { withClient } from '../with-client.ts';
import { type Gate, type GateReport, judge, notRun, report, runGate } from './gate.ts';
import { applies } from './gates/applies.ts';
import { comments } from './gates/comments.ts';
import { currentApplies } from './gates/current-applies.ts';
import { definitions } from './gates/definitions.ts';
import { foreignKeys } from './gates/foreign-keys.ts';
import { functionBodies } from './gates/function-bodies.ts';
import { generated } from './gates/generated.ts';
import { historyColumns } from './gates/history-columns.ts';
import { repeatable } from './gates/repeatable.ts';
import { type LockReport, measureLocks } from './locks.ts';
import { populate } from './populate.ts';
import { applyAll } from './run-statements.ts';
import { createDatabase } from './shadow-database.ts';
import { isSource, migrationsOf, type Sources } from './sources.ts';
import type { DatabaseSubject } from './subject.ts';

/** Gates for a complete schema. They run one after the other, because one of them locks objects that others read. */
const OF_THE_SCHEMA: readonly Gate<DatabaseSubject>[] = [comments, foreignKeys, historyColumns, definitions];

export interface ServerReport {
  readonly gates: readonly GateReport[];
  readonly locks: LockReport | null;
}

/**
 * The gates that need a server. Each database is created from the one before, so that migrations run as rarely as
 * possible.
 * @param url URL of a database, as a superuser, on a server without databases of the names used here.
 */
export async function passOnServer(url: string, sources: Sources): Promise<ServerReport> {
  const committed = await createDatabase(url, 'check_committed');
  const applied = await withClient(committed, (client) => runGate(applies, { sources, client }));
  if (applied.state === 'failed') {
    const reason = 'the committed migrations do not apply';
    const rest = [
      ...(sources.pending === null ? [] : [currentApplies]),
      generated,
      repeatable,
      ...OF_THE_SCHEMA,
    ];
    return {
      gates: [applied, ...rest.map((gate) => report(gate, notRun(reason)))],
      locks: sources.pending === null ? null : { state: 'not measured', reason },
    };
  }
  const files = await withClient(committed, (client) => runGate(generated, { sources, client }));
  const complete = await createDatabase(url, 'check_complete', 'check_committed');
  const { gates, locks } = await passCurrent(url, complete, sources);
  const before = [applied, ...gates, files];
  if (gates.some(({ state }) => state === 'failed')) {
    const rest = [repeatable, ...OF_THE_SCHEMA].map((gate) =>
      report(gate, notRun('current.sql does not apply')),
    );
    return { gates: [...before, ...rest], locks };
  }
  const twice = await createDatabase(url, 'check_twice');
  const [again, ofSchema] = await Promise.all([
    withClient(twice, (client) => runGate(repeatable, { sources, client })),
    withClient(complete, async (client) => {
      const reports: GateReport[] = [];
      for (const gate of OF_THE_SCHEMA) reports.push(await runGate(gate, { sources, client }));
      return reports;
    }),
  ]);
  return { gates: [...before, again, ...ofSchema], locks };
}

/** Applies current.sql, if it is checked, to the database `complete` and to one with rows. */
async function passCurrent(url: string, complete: string, sources: Sources): Promise<ServerReport> {
  const { pending } = sources;
  if (pending === null) return { gates: [], locks: null };
  const withRows = await createDatabase(url, 'check_rows', 'check_committed');
  return withClient(withRows, async (populated) => {
    const unfit = await populate(populated);
    if (unfit !== undefined) {
      const reason = 'there are no rows to measure it with';
      return { gates: [report(currentApplies, judge([unfit]))], locks: { state: 'not measured', reason } };
    }
    const locks: LockReport = isSource(pending)
      ? await measureLocks(populated, pending)
      : { state: 'not measured', reason: 'one of its includes is missing' };
    const gate = await withClient(complete, (empty) =>
      runGate(currentApplies, { sources, empty, populated }),
    );
    return { gates: [gate], locks };
  });
}

/** On a separate server, because the one of the other gates may not have the extension. */
export async function passFunctionBodies(url: string, sources: Sources): Promise<GateReport> {
  return withClient(url, async (client) => {
    const failures = await applyAll(client, migrationsOf(sources));
    if (failures.length > 0) return report(functionBodies, notRun('the migrations do not apply'));
    return runGate(functionBodies, { sources, client });
  });
}
