import { failure } from './failure.ts';
import type { MoveRow, MoveScene, MoveStep } from './side.ts';

/** The one move that a run begins or goes on with. It never begins another. */
export interface OwnMove {
  /** Its number; undefined until there is one. */
  id(): string | undefined;
  /** Remembers the move that start_move returned. */
  begin(id: string): void;
  /**
   * The first unfinished move that it sees becomes the run's move.
   * @param last The last move of the mount on the source.
   * @throws {FilestoreError} `MOVE_FAILED` when another run has taken it back, or another move has followed it.
   */
  requireOpen(last: MoveRow | undefined): void;
}

const TAKEN_BACK: readonly (MoveStep | undefined)[] = ['canceling', 'canceled'];

/** @param before The last move of the mount when the run began. */
export function followOwnMove(
  { mountKey }: Pick<MoveScene, 'mountKey'>,
  before: MoveRow | undefined,
): OwnMove {
  const ended = before?.step === 'canceled' || before?.step === 'finished' ? before.id : undefined;
  let own: string | undefined;
  return {
    id: () => own,
    begin(id) {
      own = id;
    },
    requireOpen(last) {
      if (own === undefined) {
        if (last === undefined || last.id === ended) return;
        own = last.id;
        // A run that took it back has not ended: the next action says so.
        if (last.step === 'canceling') return;
      }
      const isSame = last?.id === own;
      if (isSame && !TAKEN_BACK.includes(last.step)) return;
      const what = isSame ? 'was taken back by another run' : 'has ended, and another one has followed';
      throw failure(
        { mountKey },
        `its move ${own} ${what}. This run ends, and begins no other move. To move the mount, run this again`,
      );
    },
  };
}
