import { RunAbortedError } from '../errors.ts';
import { describeStop, paragraph } from '../text.ts';
import type { MoveScene } from './side.ts';

/** A run of the command, which a signal stops. */
export interface StoppableRun extends MoveScene {
  /** Ends the run between two steps. The move stays as it is, and a later run goes on with it. */
  readonly signal: AbortSignal;
}

/** Cancels the statement of a step when the run is stopped. What it has not committed is undone. */
export async function stoppable<T>(run: StoppableRun, work: () => Promise<T>): Promise<T> {
  stopIfAborted(run);
  const cancel = () => {
    for (const side of [run.source, run.target]) side.cancel().catch(() => undefined);
  };
  run.signal.addEventListener('abort', cancel);
  try {
    return await work();
  } catch (error) {
    stopIfAborted(run);
    throw error;
  } finally {
    run.signal.removeEventListener('abort', cancel);
  }
}

/** @throws {RunAbortedError} when the run was stopped. */
export function stopIfAborted({ signal, mountKey }: StoppableRun): void {
  if (!signal.aborted) return;
  const message = paragraph(
    describeStop(signal),
    `Nothing is lost: run the same command again to go on with mount "${mountKey}", or with --back to take its move back.`,
  );
  throw new RunAbortedError(message, []);
}
