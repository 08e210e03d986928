import pg from 'pg';
import { FilestoreError } from '../errors.ts';
import { paragraph } from '../text.ts';
import { endPreparation, isReason } from './actions.ts';
import { failure, SEE_LOST_TARGET } from './failure.ts';
import type { MoveScene, Receipt, Side } from './side.ts';
import { type StoppableRun, stoppable } from './stoppable.ts';
import { dropSubscription, dropUnusedSlot } from './subscription.ts';

export interface TakeBackReport {
  readonly state: 'taken back';
  readonly mount: string;
  readonly source: string;
  readonly target: string;
}

/**
 * Takes a move back: services write on the source again, and the copy on the target is erased. Another run
 * continues one that was stopped.
 * @throws {FilestoreError} `MOVE_FAILED` when the target has received the mount.
 * @throws {RunAbortedError} when the signal was aborted.
 */
export async function takeBack(run: StoppableRun, onStep: (line: string) => void): Promise<TakeBackReport> {
  const { mountKey, source, target } = run;
  await requireTarget(run);
  onStep('Letting services write on the source again');
  const needsReceipt = await stoppable(run, () => cancelSource(run, null));
  onStep('Erasing the copy on the target');
  const receipt = await stoppable(run, () => cancelTarget(run));
  if (needsReceipt) await stoppable(run, () => cancelSource(run, receipt));
  const { move } = await source.state(mountKey);
  if (move !== undefined) await stoppable(run, () => dropUnusedSlot(run, move.id));
  await stoppable(run, () => endPreparation([source, target]));
  return { state: 'taken back', mount: mountKey, source: source.where, target: target.where };
}

/** @throws {FilestoreError} `MOVE_FAILED` unless the target can give the mount back. */
async function requireTarget(scene: MoveScene): Promise<void> {
  const { mountKey, source, target } = scene;
  const away = (await source.state(mountKey)).move;
  const here = (await target.state(mountKey)).move;
  const isKnown = here !== undefined && here.id === away?.id;
  if (isKnown && (here.step === 'received' || here.step === 'finished')) {
    throw failure(
      scene,
      'the target has received it and takes its writes. Finish the move, and then move the mount back',
    );
  }
  if (away?.step === 'finished' || (away?.step === 'released' && !isKnown)) {
    const problem = 'the source has given it away, and the target does not know that it has it.';
    throw failure(scene, `${problem} If the target lost it, ${SEE_LOST_TARGET}`);
  }
}

/** @returns whether the source needs the receipt of the target: it released the mount, or was promoted. */
async function cancelSource({ mountKey, source }: MoveScene, receipt: Receipt | null): Promise<boolean> {
  const { move, number } = await source.state(mountKey);
  if (move === undefined || move.step === 'canceled') return false;
  if (move.source !== number) {
    const message = paragraph(
      `Mount "${mountKey}" moves to ${source.where}, not from it.`,
      'Give the URL of the other server as the source, and this one with --to.',
    );
    throw new FilestoreError('MOVE_FAILED', message);
  }
  try {
    await cancel(source, mountKey, receipt);
    return false;
  } catch (error) {
    if (receipt === null && isReason(error, 'moves_receipt_check', 'moves_timeline_check')) return true;
    throw error;
  }
}

async function cancelTarget(scene: MoveScene): Promise<Receipt | null> {
  const { mountKey, source, target } = scene;
  const { move, isPrepared } = await target.state(mountKey);
  const { move: away } = await source.state(mountKey);
  if (move === undefined || move.id !== away?.id || move.step === 'canceled') return null;
  // An earlier run ended the preparation while the run that it took back still let the target accept the mount.
  if (!isPrepared) await target.rows('call filestore.prepare_moves(true)');
  await dropSubscription(scene);
  return cancel(target, mountKey, null);
}

async function cancel(side: Side, mountKey: string, receipt: Receipt | null): Promise<Receipt> {
  const given = receipt === null ? 'null' : pg.escapeLiteral(JSON.stringify(receipt));
  return side.ask<Receipt>(`call filestore.cancel_move(${pg.escapeLiteral(mountKey)}, ${given})`);
}
