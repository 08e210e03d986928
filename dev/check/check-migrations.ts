import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { withTemporaryDatabase } from '../temporary-database.ts';
import { findServerWith } from './extension-server.ts';
import { type Gate, type GateReport, notRun, report, runGate } from './gate.ts';
import { chain } from './gates/chain.ts';
import { concurrently } from './gates/concurrently.ts';
import { currentEmpty } from './gates/current-empty.ts';
import { fixtureTexts } from './gates/fixture-texts.ts';
import { functionBodies } from './gates/function-bodies.ts';
import { lint } from './gates/lint.ts';
import { placeholders } from './gates/placeholders.ts';
import { released } from './gates/released.ts';
import { sessionSettings } from './gates/session-settings.ts';
import { sqlFiles } from './gates/sql-files.ts';
import type { LockReport } from './locks.ts';
import { passFunctionBodies, passOnServer } from './on-server.ts';
import { readSources, type Sources } from './sources.ts';

/** Those that read files only. */
const OF_FILES: readonly Gate<Sources>[] = [
  ...[chain, released, lint, concurrently, sessionSettings, placeholders, fixtureTexts, sqlFiles],
];
const EXTENSION = 'plpgsql_check';

export interface CheckReport {
  /** Whether no gate failed. */
  readonly ok: boolean;
  readonly gates: readonly GateReport[];
  /** What migrations/current.sql does to the tables that exist; null when it was not to be checked. */
  readonly locks: LockReport | null;
  readonly durationMs: number;
}

export interface CheckOptions {
  /** Whether migrations/current.sql is checked as the next migration, instead of being expected empty. */
  readonly current?: boolean;
  /** Folder of the package; default: this one. */
  readonly root?: string;
  /** Ends it, and the servers with it. */
  readonly signal?: AbortSignal;
}

/**
 * The gate for a change of the schema. Starts servers of its own and touches nobody's database.
 * @throws {FilestoreError} `EMBEDDED_POSTGRES_FAILED`: a server for it does not start.
 * @throws {RunAbortedError} the signal came.
 */
export async function checkMigrations(options: CheckOptions = {}): Promise<CheckReport> {
  const startedAt = performance.now();
  const sources = await readSources(options.root ?? PACKAGE_ROOT, options.current ?? false);
  const ofFiles = sources.pending === null ? [...OF_FILES, currentEmpty] : OF_FILES;
  const [files, onServer, bodies] = await Promise.all([
    Promise.all(ofFiles.map((gate) => runGate(gate, sources))),
    withTemporaryDatabase((url) => passOnServer(url, sources), undefined, options.signal),
    checkFunctionBodies(sources, options.signal),
  ]);
  const gates = [...files, ...onServer.gates, bodies];
  return {
    ok: gates.every(({ state }) => state !== 'failed'),
    gates,
    locks: onServer.locks,
    durationMs: performance.now() - startedAt,
  };
}

async function checkFunctionBodies(sources: Sources, signal: AbortSignal | undefined): Promise<GateReport> {
  const binaries = findServerWith(EXTENSION);
  if (binaries === undefined) {
    const reason = `no server on this machine has ${EXTENSION}. On Debian: apt-get install postgresql-17 postgresql-17-plpgsql-check`;
    return report(functionBodies, notRun(reason));
  }
  return withTemporaryDatabase((url) => passFunctionBodies(url, sources), binaries, signal);
}
