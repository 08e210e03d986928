import { openCrashedLoops } from './crashed-loops.ts';
import { openCrashedMoves } from './crashed-moves.ts';
import { openCrashedRuns } from './crashed-runs.ts';

/** A point at which something dies. */
export interface CrashPoint {
  readonly name: string;
  /** Kills, calls again, and returns what is wrong. */
  crash(): Promise<readonly string[]>;
}

/** All points of one part. */
export interface Crashes {
  /** What was counted, for people. */
  readonly summary: string;
  readonly points: readonly CrashPoint[];
  stop(): Promise<void>;
}

const OPEN = {
  runs: openCrashedRuns,
  loops: openCrashedLoops,
  moves: openCrashedMoves,
} as const satisfies Readonly<Record<string, () => Promise<Crashes>>>;

export const PARTS = Object.keys(OPEN) as readonly (keyof typeof OPEN)[];

export const openCrashes = (part: keyof typeof OPEN): Promise<Crashes> => OPEN[part]();
