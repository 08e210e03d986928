import type { BenchServer, Environment } from './bench-server.ts';
import type { LoadGenerator } from './load.ts';
import type { Result } from './measure.ts';

/** The input of a comparison. */
export interface Context {
  readonly server: BenchServer;
  readonly load: LoadGenerator;
  /** Length of one measurement under load. */
  readonly seconds: number;
  readonly rounds: number;
  /** Size of the tree of "trees", "growth" and "scan". */
  readonly nodes: number;
  /** Folder of the checkout that "versions" compares this one with. */
  readonly against: string | undefined;
  /** Of "designs": which ones, the folder of its report, and the report.json of an earlier run. */
  readonly designs: readonly string[];
  readonly output: string;
  readonly previous: string | undefined;
  /** The command line, for a report that names it. */
  readonly command: string;
  readonly environment: Environment;
  /** Reports results as soon as they are available. */
  readonly report: (...results: readonly Result[]) => void;
}

export type Comparison = (context: Context) => Promise<void>;
