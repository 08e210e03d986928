import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { withTemporaryDatabase } from '../embedded/temporary-database.ts';
import { readSources } from '../sources/sources.ts';
import { type GateReport, runGate } from './gate.ts';
import { FILE_GATES } from './gate-lists.ts';
import { currentEmpty } from './gates/current-empty.ts';
import type { LockReport } from './measure-locks.ts';
import { runServerGates } from './on-server.ts';

export interface CheckReport {
  /** True if no gate failed. */
  readonly ok: boolean;
  readonly gates: readonly GateReport[];
  /** Effects of migrations/current.sql on existing tables; null if it was not checked. */
  readonly locks: LockReport | null;
  readonly durationMs: number;
}

export interface CheckOptions {
  /** Checks migrations/current.sql as the next migration, instead of requiring that it is empty. */
  readonly current?: boolean;
  /** Folder of the package; default: this one. */
  readonly root?: string;
  /** Stops the check and its servers. */
  readonly signal?: AbortSignal;
}

/**
 * Runs all gates for a change of the schema, on a separate temporary server. gate-lists.ts says where each gate is called.
 * @throws {FilestoreError} `EMBEDDED_POSTGRES_FAILED`: a server for it does not start.
 * @throws {RunAbortedError} when the signal was aborted.
 */
export async function checkMigrations(options: CheckOptions = {}): Promise<CheckReport> {
  const startedAt = performance.now();
  const sources = await readSources(options.root ?? PACKAGE_ROOT, options.current ?? false);
  const fileGates = sources.pending === null ? [...FILE_GATES, currentEmpty] : FILE_GATES;
  const [files, onServer] = await Promise.all([
    Promise.all(fileGates.map((gate) => runGate(gate, sources))),
    withTemporaryDatabase((url) => runServerGates(url, sources), options.signal),
  ]);
  const gates = [...files, ...onServer.gates];
  return {
    ok: gates.every(({ state }) => state !== 'failed'),
    gates,
    locks: onServer.locks,
    durationMs: performance.now() - startedAt,
  };
}
