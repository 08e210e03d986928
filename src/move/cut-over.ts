import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { messageOfError } from '../text.ts';
import { isReason } from './actions.ts';
import { callOf, type MoveScene, type Receipt } from './side.ts';

/** Refusals after which the source takes writes again, at the latest when the time is over. */
const PASSING = ['moves_step_check', 'moves_behind_check', 'moves_receipt_check', 'moves_writers_busy'];

/** Milliseconds between two looks for what arrives in the cut-over. */
const POLL_MS = 5;

export type CutOver =
  /** The target takes writes. */
  | { readonly type: 'done'; readonly pauseMs: number }
  /** It could not begin, because the target is too far behind. Writers have not been disturbed. */
  | { readonly type: 'not yet' }
  /** It did not end in time: the source takes writes again. */
  | { readonly type: 'taken back'; readonly why: string }
  /** The target lacks rows that will not arrive any more: the source takes writes again. */
  | { readonly type: 'differs'; readonly why: string };

/**
 * Closes the mount on the source, waits for the target's proof, and lets the target take writes. It is not
 * stopped halfway: it takes at most the time that the scene allows.
 */
export async function cutOver(scene: MoveScene): Promise<CutOver> {
  const { mountKey, source, target, withinMs } = scene;
  const early = await target.ask<Receipt>(callOf('prove_mount', mountKey));
  const beganAt = performance.now();
  let attempt: unknown;
  let move: unknown;
  try {
    const call = callOf('close_mount', mountKey, early).slice(0, -1);
    ({ attempt, move } = await source.ask<Receipt>(`${call}, within => interval '${withinMs} ms')`));
  } catch (error) {
    if (isReason(error, 'moves_behind_check')) return { type: 'not yet' };
    if (isReason(error, 'moves_writers_busy')) return { type: 'taken back', why: messageOfError(error) };
    throw error;
  }
  try {
    // The source counts at the same time. If it cannot, release_mount does.
    const own = source.rows(callOf('prove_mount', mountKey)).catch(() => undefined);
    const late = await untilLate(scene, attempt, beganAt);
    await own;
    if (late === undefined) {
      const why = `the last changes did not arrive within ${withinMs} ms`;
      const blockers = await target.ask<string | null>(blockersOf(String(move)));
      return {
        type: 'taken back',
        why: blockers === null ? why : `${why}: on the target, they wait for ${blockers}`,
      };
    }
    const release = await source.ask<Receipt>(callOf('release_mount', mountKey, late));
    await target.rows(callOf('receive_mount', mountKey, release));
    return { type: 'done', pauseMs: performance.now() - beganAt };
  } catch (error) {
    if (isReason(error, 'moves_proof_check')) return { type: 'differs', why: messageOfError(error) };
    if (!isReason(error, ...PASSING)) throw error;
    return { type: 'taken back', why: messageOfError(error) };
  }
}

/** The sessions of the target, in words, whose locks stop what arrives; null without one. */
const blockersOf = (moveId: string) => `
  select string_agg(case b.pid when 0 then 'a prepared transaction' else 'process ' || b.pid end, ', ')
  from (
    select distinct unnest(pg_blocking_pids(s.pid)) as pid
    from pg_stat_subscription s
    where s.subname = filestore.move_subscription(${pg.escapeLiteral(moveId)})
  ) b`;

/** The receipt of this attempt: the target may still know the one before. */
async function untilLate({ mountKey, target, withinMs }: MoveScene, attempt: unknown, beganAt: number) {
  while (performance.now() - beganAt < withinMs) {
    const receipt = await target.ask<Receipt>(callOf('prove_mount', mountKey));
    if (receipt.late !== undefined && receipt.attempt === attempt) return receipt;
    await delay(POLL_MS);
  }
  return undefined;
}
