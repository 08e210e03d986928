import type { Tally } from './counts.ts';
import type { Scene } from './known-nodes.ts';
import type { Recorder } from './recorder.ts';

/** State that all workers of a run share. */
export interface Stage {
  readonly scene: Scene;
  readonly recorder: Recorder;
  readonly tally: Tally;
  /** The time is over: finish the current operation. */
  readonly timeUp: AbortSignal;
  /** The run is aborted: stop at once. */
  readonly givenUp: AbortSignal;
  /** Called for a wrong reading or a deadlock, which the tree lock prevents. */
  onCollision(): void;
}
