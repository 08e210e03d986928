import { sqlStateOf } from '../cause-codes.ts';
import { FilestoreError } from '../errors.ts';
import type { MoveScene } from './side.ts';

/** Where a reader of a message goes on when a target no longer knows what it received. */
export const SEE_LOST_TARGET = 'see "A target that lost the mount" in docs/scaling.md';

/** The error of a move that cannot go on. */
export function failure(
  { mountKey }: Pick<MoveScene, 'mountKey'>,
  problem: string,
  options?: ErrorOptions,
): FilestoreError {
  return new FilestoreError('MOVE_FAILED', `Mount "${mountKey}": ${problem}.`, options);
}

/** What to do about errors that have no hint, by SQLSTATE. */
const HINTS: Readonly<Record<string, string>> = {
  '55P03':
    'Transactions held that lock the whole time. docs/operations.md finds them ("Waiting for a table\'s lock"). ' +
    'Wait for them or end them, and run this again',
};

/** An error of a server with its message and its hint. Others, such as a lost connection, pass unchanged. */
export function asMoveFailure(scene: MoveScene, error: unknown): unknown {
  if (!(error instanceof Error) || sqlStateOf(error) === null) return error;
  const { hint = HINTS[sqlStateOf(error) ?? ''] } = error as { readonly hint?: unknown };
  const remedy = typeof hint === 'string' ? `. ${hint.replace(/\.$/, '')}` : '';
  return failure(scene, `${error.message}${remedy}`, { cause: error });
}
