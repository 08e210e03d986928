import type { Scene } from './known-nodes.ts';
import type { Recorder } from './recorder.ts';
import type { Tally } from './tally.ts';

/** What all workers of a run share. */
export interface Stage {
  readonly scene: Scene;
  readonly recorder: Recorder;
  readonly tally: Tally;
  /** Time is up: finish what is under way. */
  readonly timeUp: AbortSignal;
  /** The run is given up: leave everything as it is. */
  readonly givenUp: AbortSignal;
  /** A wrong reading or a deadlock: what the tree lock is there to prevent. */
  onCollision(): void;
}
