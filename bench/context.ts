import type { BenchServer, Environment } from './bench-server.ts';
import type { LoadGenerator } from './load.ts';
import type { Result } from './measure.ts';

/** What a comparison works with. */
export interface Context {
  readonly server: BenchServer;
  readonly load: LoadGenerator;
  /** Of one measurement under load. */
  readonly seconds: number;
  readonly rounds: number;
  /** Size of the tree that is checked, deleted, restored and purged. */
  readonly nodes: number;
  /** Numbers of connections that "versions" measures with. */
  readonly connections: readonly number[];
  /** Folder of the checkout that "versions" compares this one with. */
  readonly against: string | undefined;
  /** Of "designs": which ones, the folder of its report, and the report.json of an earlier run. */
  readonly designs: readonly string[];
  readonly output: string;
  readonly previous: string | undefined;
  /** What was typed, for a report that names it. */
  readonly command: string;
  readonly environment: Environment;
  /** Takes results as soon as they are there. */
  readonly report: (...results: readonly Result[]) => void;
}

export type Comparison = (context: Context) => Promise<void>;
