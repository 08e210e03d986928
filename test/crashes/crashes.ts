import type { Points } from '../support/points.ts';
import { openCrashedLoops } from './crashed-loops.ts';
import { openCrashedMoves } from './crashed-moves.ts';
import { openCrashedRuns } from './crashed-runs.ts';

const OPEN = {
  runs: openCrashedRuns,
  loops: openCrashedLoops,
  moves: openCrashedMoves,
} as const satisfies Readonly<Record<string, () => Promise<Points>>>;

export const PARTS = Object.keys(OPEN) as readonly (keyof typeof OPEN)[];

export const openCrashes = (part: keyof typeof OPEN): Promise<Points> => OPEN[part]();
